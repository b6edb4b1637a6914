import { describe, expect, it } from 'vitest';
import { MemoryMedium } from '../../../src/scsi/memory-medium.ts';
import { VolatileCacheMedium } from '../../../src/scsi/volatile-cache-medium.ts';
import { FaultyMedium } from '../../support/faulty-medium.ts';
import { mediumContract } from '../../support/medium-contract.ts';
import { assertSameBytes } from '../../support/pattern.ts';
import { SeededRandom } from '../../support/seeded-random.ts';

const SIZE = 1024 * 1024;

function setUp(limit?: number) {
  const stable = new FaultyMedium(new MemoryMedium(SIZE));
  const cache = new VolatileCacheMedium(stable, limit === undefined ? {} : { limit });
  const onMedium = async (offset: number) => {
    const byte = new Uint8Array(1);
    await stable.read(offset, byte);
    return byte[0];
  };
  return { stable, cache, onMedium };
}

const block = (value: number, length = 512) => new Uint8Array(length).fill(value);

describe('volatile cache', () => {
  mediumContract(async (size) => new VolatileCacheMedium(new MemoryMedium(size), { limit: 100_000 }));

  it('a write is not on the medium before a flush, and reads see it all the same', async () => {
    const { cache, onMedium } = setUp();
    await cache.write(0, block(1));
    expect(await onMedium(0)).toBe(0);
    const data = new Uint8Array(1024);
    await cache.read(0, data);
    expect([data[0], data[511], data[512]]).toEqual([1, 1, 0]);
    expect(cache.dirtyBytes).toBe(512);
    await cache.flush();
    expect(await onMedium(0)).toBe(1);
    expect(cache.dirtyBytes).toBe(0);
  });

  it('a flush flushes the medium too', async () => {
    const { cache, stable } = setUp();
    await cache.write(0, block(1));
    await cache.flush();
    expect(stable.calls).toEqual(['write 0+512', 'flush']);
  });

  it('FUA takes its own range to the medium, and no other', async () => {
    const { cache, onMedium } = setUp();
    await cache.write(0, block(1));
    await cache.write(4096, block(2), { fua: true });
    expect(await onMedium(0)).toBe(0);
    expect(await onMedium(4096)).toBe(2);
    expect(cache.dirtyBytes).toBe(512);
  });

  it('beyond the bound all goes to the medium', async () => {
    const { cache, onMedium } = setUp(1024);
    await cache.write(0, block(1));
    await cache.write(1024, block(2));
    expect(await onMedium(0)).toBe(0);
    await cache.write(4096, block(3));
    expect(await onMedium(0)).toBe(1);
    expect(cache.dirtyBytes).toBe(0);
  });

  it('what is written again counts once', async () => {
    const { cache, stable } = setUp();
    await cache.write(0, block(1, 2048));
    await cache.write(512, block(2));
    await cache.write(1536, block(3, 1024));
    expect(cache.dirtyBytes).toBe(2560);
    await cache.flush();
    const data = new Uint8Array(3072);
    await stable.read(0, data);
    expect([...data].filter((_, index) => index % 512 === 0)).toEqual([1, 2, 1, 3, 3, 0]);
  });

  it('a write during the write-back of an older one is neither lost nor overtaken', async () => {
    const { cache, stable, onMedium } = setUp();
    let open = () => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    await cache.write(0, block(1));
    stable.delay = (call) => (call === 'write' ? gate : Promise.resolve());
    const flushing = cache.flush();
    await new Promise((resolve) => setImmediate(resolve));
    await cache.write(0, block(2));
    const forced = cache.write(0, block(3), { fua: true });
    open();
    await flushing;
    await forced;
    expect(await onMedium(0)).toBe(3);
    expect(cache.dirtyBytes).toBe(0);
  });

  it('a read that begins before a write-back ends sees the cached bytes', async () => {
    const { cache, stable } = setUp();
    let open = () => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    await cache.write(0, block(1));
    // The medium answers the read with what it had before the write-back, but late.
    stable.delay = (call) => (call === 'read' ? gate : Promise.resolve());
    const data = new Uint8Array(512);
    const reading = cache.read(0, data);
    await cache.flush();
    open();
    await reading;
    expect(data[0]).toBe(1);
  });

  it('a write-back that fails is told, and the bytes stay in the cache for the next', async () => {
    const { cache, stable, onMedium } = setUp();
    await cache.write(0, block(1));
    await cache.write(1024, block(2));
    stable.fault = (call, start) => (call === 'write' && start === 1024 ? 'no-space' : undefined);
    await expect(cache.flush()).rejects.toMatchObject({ code: 'no-space' });
    expect(cache.dirtyBytes).toBe(512);
    stable.fault = () => undefined;
    await cache.flush();
    expect([await onMedium(0), await onMedium(1024)]).toEqual([1, 2]);
  });

  it('closing flushes: an orderly end loses nothing', async () => {
    const { cache, stable } = setUp();
    await cache.write(0, block(1));
    await cache.close();
    expect(stable.calls).toEqual(['write 0+512', 'flush']);
  });

  it('what is cached is no hole, and to ask writes nothing back', async () => {
    const { cache, stable } = setUp();
    const chunk = 256 * 1024;
    for (const offset of [chunk, chunk + 512, 3 * chunk]) await cache.write(offset, block(1));
    expect(await cache.extentAt(0, SIZE)).toEqual({ length: chunk, mapped: false });
    expect(await cache.extentAt(chunk, SIZE - chunk)).toEqual({ length: 1024, mapped: true });
    expect(await cache.extentAt(chunk + 512, 100)).toEqual({ length: 100, mapped: true });
    expect(await cache.extentAt(chunk + 1024, SIZE - chunk - 1024)).toEqual({ length: 2 * chunk - 1024, mapped: false });
    expect(stable.calls).toEqual([]);
    await cache.flush();
    expect(await cache.extentAt(chunk, SIZE - chunk)).toEqual({ length: chunk, mapped: true });
  });

  it('a write to a medium that is read only is refused at once', async () => {
    const { cache, stable } = setUp();
    stable.readOnly = true;
    stable.fault = () => 'write-protected';
    await expect(cache.write(0, block(1))).rejects.toMatchObject({ code: 'write-protected' });
    expect(cache.dirtyBytes).toBe(0);
  });

  it('killed at any moment, the medium holds for every block one of the versions since the last flush', async () => {
    const random = new SeededRandom(41);
    const { cache, stable } = setUp(64 * 512);
    const blocks = 128;
    /** Versions of each block that a kill may leave: the one at the last flush and all since. */
    const possible = Array.from({ length: blocks }, () => [0]);
    for (let round = 1; round < 250; round++) {
      const index = random.below(blocks);
      if (random.below(12) === 0) {
        await cache.flush();
        for (const versions of possible) versions.splice(0, versions.length - 1);
      } else {
        possible[index]?.push(round);
        await cache.write(index * 512, block(round));
      }
      const image = new Uint8Array(blocks * 512);
      await stable.read(0, image);
      const impossible = possible.findIndex((versions, at) => !versions.includes(image[at * 512] ?? -1));
      expect(impossible).toBe(-1);
    }
    await cache.flush();
    const [image, seen] = [new Uint8Array(blocks * 512), new Uint8Array(blocks * 512)];
    await stable.read(0, image);
    await cache.read(0, seen);
    assertSameBytes(image, seen);
  });
});
