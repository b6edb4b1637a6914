import { describe, expect, it } from 'vitest';
import { errorCode } from '../../../src/errors.ts';
import { BlockCache } from '../../../src/scsi/block-cache.ts';
import type { Lease } from '../../../src/scsi/block-device.ts';
import { BufferPool } from '../../../src/scsi/buffer-pool.ts';
import type { CacheableDevice, CachedDevice } from '../../../src/scsi/cached-device.ts';
import type { DeviceChangeListener } from '../../../src/scsi/device-change.ts';
import { MemoryDevice } from '../../support/memory-device.ts';
import { SeededRandom } from '../../support/seeded-random.ts';
import { ShownPages } from '../../support/shown-pages.ts';
import { settle } from '../../support/virtual-clock.ts';
import { WriteHistory } from '../../support/write-history.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

interface BenchOptions {
  readonly size?: number;
  readonly bytes?: number;
  readonly readahead?: number;
  readonly staged?: number;
  readonly shared?: boolean;
  readonly writeThrough?: boolean;
}

function bench({ size = 4 * MIB, bytes = 8 * MIB, readahead = 0, staged = 0, ...attach }: BenchOptions = {}) {
  const device = new MemoryDevice(size);
  const pool = new BufferPool();
  const cache = new BlockCache({ pool, bytes, readahead, staged });
  return { device, pool, cache, cached: cache.attach(device, attach) };
}

async function bytesOf(lease: Promise<Lease>): Promise<Buffer> {
  const { segments, release } = await lease;
  const bytes = Buffer.concat(segments);
  release();
  return bytes;
}

/** `toEqual` takes seconds for megabytes. */
function expectBytes(actual: Uint8Array, expected: Uint8Array): void {
  expect(Buffer.compare(actual, expected), 'the same bytes').toBe(0);
}

const readsOf = (device: MemoryDevice) => device.calls.filter(({ kind }) => kind === 'read');

/** Reads until something changes nothing any more. */
async function finishAll(device: MemoryDevice): Promise<void> {
  while (device.pending.length > 0) {
    for (const call of [...device.pending]) call.finish();
    await settle();
  }
}

/** What a read has at once, if anything; what comes later is let go of. */
function leaseAtOnce(cached: CachedDevice, offset: number, length: number): Lease | undefined {
  let now: Lease | undefined;
  let isLater = false;
  cached.startRead(offset, length, (lease) => {
    if (isLater) lease?.release();
    else now = lease;
  });
  isLater = true;
  return now;
}

describe('memory that runs out', () => {
  /** A cache whose pool gets `arenas` arenas and then no more. */
  const scarce = (arenas: number, options: { readonly readahead?: number; readonly staged?: number } = {}) => {
    let left = arenas;
    const allocate = (length: number) => {
      left--;
      if (left < 0) throw new RangeError('no memory');
      return new ArrayBuffer(length);
    };
    const pool = new BufferPool({ allocate, free: () => {} });
    const device = new MemoryDevice(8 * MIB);
    const cache = new BlockCache({ pool, bytes: 8 * MIB, readahead: 0, ...options });
    return { pool, cache, device, cached: cache.attach(device) };
  };

  it.each([
    ['one slot', 0, 0, 4096],
    ['the second of two slots', 1, MIB - 4096, 8192 + MIB / 2],
    ['what is read past the cache', 2, 0, 5 * MIB],
  ])('fails a read of %s, by a call, and holds nothing for it', async (_, arenas, offset, length) => {
    const { cached, cache, pool } = scarce(arenas);
    const outcomes: unknown[] = [];
    cached.startRead(offset, length, (lease, failure) => outcomes.push(lease ?? failure?.error));
    await settle();
    expect(outcomes.map(String)).toEqual(['RangeError: no memory']);
    cached.invalidate();
    expect(pool.bytesInUse).toBe(0);
    cache.checkInvariants();
  });

  it('fails no read for what was to be fetched ahead of it', async () => {
    const { device, cached } = scarce(1, { readahead: 2 * MIB });
    for (let offset = 0; offset < 64 * KIB; offset += 16 * KIB) {
      expectBytes(await bytesOf(cached.read(offset, 16 * KIB)), device.bytes.slice(offset, offset + 16 * KIB));
    }
  });

  it('takes no write, and the next one that has room again', async () => {
    const { device, cached } = scarce(0, { staged: MIB });
    const ends: unknown[] = [];
    expect(() => cached.stage?.(0, Buffer.alloc(4096), (failure) => ends.push(failure))).toThrow('no memory');
    expect([ends, cached.stagedBytes, device.calls]).toEqual([[], 0, []]);
    await cached.flush();
  });
});

describe('reading through the cache', () => {
  it.each([
    [0, 1],
    [4095, 2],
    [65_530, 12],
    [100_000, 300_000],
    [4 * MIB - 5, 5],
    [0, 1 * MIB],
  ])('gives the bytes at %i, %i of them, once from the device and then from memory', async (offset, length) => {
    const { device, cached } = bench();
    const expected = device.bytes.slice(offset, offset + length);
    expectBytes(await bytesOf(cached.read(offset, length)), expected);
    const commands = device.calls.length;
    expectBytes(await bytesOf(cached.read(offset, length)), expected);
    expect(device.calls.length).toBe(commands);
    expect(cached.stats).toMatchObject({ hits: 1, misses: 1 });
  });

  it('fetches no more than the pages that a small read touches', async () => {
    const { device, cached } = bench();
    await bytesOf(cached.read(70_000, 10));
    expect(device.calls.map(({ offset, length }) => [offset, length])).toEqual([[69_632, 4096]]);
    await bytesOf(cached.read(65_536, 16_384));
    expect(device.calls.slice(1).map(({ offset, length }) => [offset, length])).toEqual([
      [65_536, 4096],
      [73_728, 8192],
    ]);
  });

  it('makes one command of a read of 256 KiB', async () => {
    const { device, cached } = bench();
    await bytesOf(cached.read(256 * KIB, 256 * KIB));
    expect(device.calls.length).toBe(1);
  });

  it('holds no more memory than the pages that were asked for', async () => {
    const { cached, pool } = bench();
    for (let page = 0; page < 16; page++) await bytesOf(cached.read(page * 64 * KIB + 5000, 10));
    expect(pool.bytesInUse).toBe(16 * 4 * KIB);
  });

  it('gives at once what is there, and only that', async () => {
    const { device, cached } = bench();
    await bytesOf(cached.read(0, 4096));
    await bytesOf(cached.read(4096, 4096));
    const lease = leaseAtOnce(cached, 4000, 200);
    expectBytes(Buffer.concat(lease?.segments ?? []), device.bytes.slice(4000, 4200));
    lease?.release();
    expect(leaseAtOnce(cached, 8000, 200)).toBeUndefined();
    expect(cached.stats).toMatchObject({ hits: 1, misses: 3 });
  });

  it('shares one command among concurrent readers of a block', async () => {
    const { device, cached } = bench();
    device.holds = true;
    const reads = [cached.read(0, 4096), cached.read(100, 50), cached.read(0, 4096)].map(bytesOf);
    await settle();
    expect(device.pending.length).toBe(1);
    await finishAll(device);
    const [one, two, three] = await Promise.all(reads);
    expectBytes(one ?? Buffer.alloc(0), device.bytes.slice(0, 4096));
    expectBytes(two ?? Buffer.alloc(0), device.bytes.slice(100, 150));
    expectBytes(three ?? Buffer.alloc(0), device.bytes.slice(0, 4096));
  });

  it('fails all readers of a fill that fails, and asks again afterwards', async () => {
    const { device, cached, pool } = bench();
    device.holds = true;
    const reads = [bytesOf(cached.read(0, 4096)), bytesOf(cached.read(0, 10))];
    const codes = Promise.all(reads.map((read) => read.catch((error: unknown) => String(error))));
    await settle();
    device.pending[0]?.fail(new Error('no luck'));
    expect(await codes).toEqual(['Error: no luck', 'Error: no luck']);
    expect(pool.bytesInUse).toBe(0);
    device.holds = false;
    expectBytes(await bytesOf(cached.read(0, 10)), device.bytes.slice(0, 10));
  });

  it.each([
    [-1, 1],
    [4 * MIB, 1],
    [4 * MIB - 1, 2],
    [0.5, 1],
  ])('refuses the range at %d of %i bytes', async (offset, length) => {
    expect(await bench().cached.read(offset, length).catch(errorCode)).toBe('out-of-range');
  });

  it('throws when a lease is released twice', async () => {
    const lease = await bench().cached.read(0, 10);
    lease.release();
    expect(() => lease.release()).toThrow('twice');
  });
});

describe('the bound of the cache', () => {
  it('holds over all devices', async () => {
    const pool = new BufferPool();
    const cache = new BlockCache({ pool, bytes: 512 * KIB, readahead: 0 });
    const devices = [new MemoryDevice(2 * MIB), new MemoryDevice(2 * MIB)].map((device) => cache.attach(device));
    for (let block = 0; block < 32; block++) {
      for (const device of devices) {
        await bytesOf(device.read(block * 64 * KIB, 64 * KIB));
        expect(pool.bytesInUse).toBeLessThanOrEqual(512 * KIB);
        cache.checkInvariants();
      }
    }
    expect(cache.stats.bytes).toBe(512 * KIB);
    expect(cache.stats.evictions).toBeGreaterThan(0);
  });

  it('does not take memory from under a lease', async () => {
    const { device, cached, cache, pool } = bench({ bytes: 256 * KIB });
    const lease = await cached.read(0, 1000);
    for (let block = 1; block < 20; block++) await bytesOf(cached.read(block * 64 * KIB, 64 * KIB));
    expect(cache.stats.limboBytes).toBe(4 * KIB);
    expectBytes(Buffer.concat(lease.segments), device.bytes.slice(0, 1000));
    lease.release();
    expect(cache.stats.limboBytes).toBe(0);
    expect(pool.bytesInUse).toBe(256 * KIB);
  });

  it('reads past the cache while too much of it is leased out', async () => {
    const { device, cached, cache } = bench({ bytes: 256 * KIB });
    const leases: Lease[] = [];
    for (let block = 0; block < 30; block++) leases.push(await cached.read(block * 64 * KIB, 64 * KIB));
    expect(cache.stats.limboBytes).toBeLessThanOrEqual(256 * KIB);
    for (const [block, lease] of leases.entries()) {
      expectBytes(Buffer.concat(lease.segments), device.bytes.slice(block * 64 * KIB, (block + 1) * 64 * KIB));
      lease.release();
    }
    cache.checkInvariants();
  });

  it('is not spoilt by a read that is larger than half of it', async () => {
    const { device, cached, cache } = bench({ bytes: 256 * KIB });
    await bytesOf(cached.read(0, 4096));
    expectBytes(await bytesOf(cached.read(0, 2 * MIB + 5)), device.bytes.slice(0, 2 * MIB + 5));
    expect(cache.stats.slots).toBe(1);
  });

  it.each([
    ['of size 0', { bytes: 0 }],
    ['of a shared device', { shared: true }],
  ])('answers nothing from a cache %s, with one command per read', async (_name, options) => {
    const { device, cached, pool } = bench(options);
    for (let turn = 0; turn < 2; turn++) {
      expectBytes(await bytesOf(cached.read(1000, 100_000)), device.bytes.slice(1000, 101_000));
    }
    expect(device.calls.map(({ offset, length }) => [offset, length])).toEqual([
      [1000, 100_000],
      [1000, 100_000],
    ]);
    expect(pool.bytesInUse).toBe(0);
    expect(cached.stats).toMatchObject({ hits: 0, misses: 2 });
  });

  it('gives direct reads their memory back also where one of several commands fails', async () => {
    const { device, cached, pool } = bench({ bytes: 0 });
    device.holds = true;
    const read = cached.read(0, 2 * MIB).catch((error: unknown) => String(error));
    await settle();
    expect(device.pending.length).toBe(2);
    device.pending[0]?.fail(new Error('no luck'));
    await settle();
    expect(pool.bytesInUse).toBe(2 * MIB);
    await finishAll(device);
    expect(await read).toBe('Error: no luck');
    expect(pool.bytesInUse).toBe(0);
  });
});

describe('writing through the cache', () => {
  const news = new Uint8Array(100).fill(255);

  it('reaches the device first, and then what is held', async () => {
    const { device, cached } = bench();
    await bytesOf(cached.read(0, 200_000));
    device.holds = true;
    const write = cached.write(65_500, news);
    await settle();
    expect((await bytesOf(cached.read(65_500, 1)))[0]).not.toBe(255);
    await finishAll(device);
    await write;
    expectBytes(await bytesOf(cached.read(65_500, 100)), news);
    expect(readsOf(device).length).toBe(1);
    expectBytes(device.bytes.slice(65_500, 65_600), news);
  });

  it('does not change what a reader holds', async () => {
    const { device, cached } = bench();
    const before = device.bytes.slice(0, 200);
    const lease = await cached.read(0, 200);
    await cached.write(50, news);
    expectBytes(Buffer.concat(lease.segments), before);
    lease.release();
    expectBytes(await bytesOf(cached.read(50, 100)), news);
  });

  it('is seen by whoever reads after it, whatever a fill that began before it brings', async () => {
    const { device, cached } = bench();
    device.holds = true;
    const early = bytesOf(cached.read(0, 4096));
    await settle();
    const [fill] = device.pending;
    // The device has the old bytes on their way when the write overtakes them.
    const stale = device.bytes.slice(0, 4096);
    const write = cached.write(0, news);
    await settle();
    device.pending[1]?.finish();
    await write;
    const fresh = bytesOf(cached.read(0, 100));
    const current = device.bytes;
    device.bytes = Uint8Array.from(current);
    device.bytes.set(stale);
    fill?.finish();
    device.bytes = current;
    await settle();
    await finishAll(device);
    expectBytes(await early, stale);
    expectBytes(await fresh, news);
    device.holds = false;
    expectBytes(await bytesOf(cached.read(0, 100)), news);
  });

  it('takes its range out of the cache when it fails', async () => {
    const { device, cached } = bench();
    await bytesOf(cached.read(0, 4096));
    device.holds = true;
    const write = cached.write(0, news).catch((error: unknown) => String(error));
    await settle();
    // The device took the data and then reported a failure.
    device.bytes.set(news);
    device.pending[0]?.fail(new Error('no luck'));
    expect(await write).toBe('Error: no luck');
    device.holds = false;
    expectBytes(await bytesOf(cached.read(0, 100)), news);
  });
});

describe('a staged write', () => {
  const news = new Uint8Array(100).fill(255);
  const notEnded = () => {
    throw new Error('it has ended');
  };

  it('is seen at once by whoever reads what is held', async () => {
    const { device, cached } = bench({ staged: 1 * MIB });
    await bytesOf(cached.read(0, 8192));
    device.holds = true;
    expect(cached.stage?.(4000, news, notEnded)).toBeUndefined();
    expect(cached.stagedBytes).toBe(100);
    expectBytes(await bytesOf(cached.read(4000, 100)), news);
  });

  it.each([
    ['held', { staged: 1 * MIB }],
    ['kept at all', { staged: 1 * MIB, bytes: 0 }],
  ])('is waited for by whoever reads what is not %s', async (_name, options) => {
    const { device, cached } = bench(options);
    device.holds = true;
    void cached.stage?.(4000, news, () => {});
    const read = bytesOf(cached.read(3000, 2000));
    const other = bytesOf(cached.read(1 * MIB, 10));
    await settle();
    expect(device.pending.map(({ kind }) => kind)).toEqual(['write', 'read']);
    await finishAll(device);
    expectBytes((await read).subarray(1000, 1100), news);
    await other;
  });

  it('leaves the cache when it fails, before anybody is told', async () => {
    const { device, cached } = bench({ staged: 1 * MIB });
    await bytesOf(cached.read(0, 8192));
    device.holds = true;
    const held: unknown[] = [];
    void cached.stage?.(4000, news, () => held.push(leaseAtOnce(cached, 4000, 100)));
    device.pending[0]?.fail(new Error('no luck'));
    await settle();
    expect(held).toEqual([undefined]);
    device.holds = false;
    await finishAll(device);
    expectBytes(await bytesOf(cached.read(4000, 100)), device.bytes.slice(4000, 4100));
  });

  it('is waited for by a flush, which fails with it', async () => {
    const { device, cached } = bench({ staged: 1 * MIB });
    device.holds = true;
    void cached.stage?.(0, news, () => {});
    const flushes = Promise.all([cached.flush(), cached.flush()].map((flush) => flush.catch((error: unknown) => String(error))));
    await settle();
    device.pending[0]?.fail(new Error('no luck'));
    expect(await flushes).toEqual(['Error: no luck', 'Error: no luck']);
    await cached.flush();
  });

  it('is ordered before zeros, after which nothing is held', async () => {
    const { device, cached } = bench({ staged: 1 * MIB });
    await bytesOf(cached.read(0, 8192));
    device.holds = true;
    void cached.stage?.(4000, news, () => {});
    const zeroed = cached.zero(4000, 50, { mayUnmap: true });
    await settle();
    expect(device.pending.map(({ kind }) => kind)).toEqual(['write']);
    device.holds = false;
    device.pending[0]?.finish();
    await zeroed;
    expectBytes(await bytesOf(cached.read(4000, 100)), Buffer.concat([Buffer.alloc(50), news.subarray(50)]));
  });

  it('is one that has ended for whoever writes and waits', async () => {
    const { device, cached } = bench({ staged: 1 * MIB });
    const data = new Uint8Array(2 * MIB + 5).fill(7);
    await cached.write(100, data);
    expectBytes(device.bytes.slice(100, 100 + data.length), data);
    expect(await cached.write(4 * MIB - 1, news).catch(errorCode)).toBe('out-of-range');
    device.holds = true;
    const written = cached.write(0, news).catch((error: unknown) => String(error));
    await settle();
    device.pending[0]?.fail(new Error('no luck'));
    expect(await written).toBe('Error: no luck');
  });

  it.each([
    ['it is shared', { staged: 1 * MIB, shared: true }],
    ['it is written through', { staged: 1 * MIB, writeThrough: true }],
    ['nothing may be staged', {}],
  ])('is none on a device where %s', (_name, options) => {
    expect(bench(options).cached.stage).toBeUndefined();
  });
});

describe('a window', () => {
  function windowed(options: BenchOptions = {}) {
    const made = bench(options);
    const window = new ShownPages(made.device.info.size);
    made.cached.showIn(window);
    return { ...made, window };
  }

  it('shows the pages that were read, up to the end of the device', async () => {
    const { device, cached, window } = windowed({ size: 1 * MIB + 512 });
    await bytesOf(cached.read(10_000, 4096));
    await bytesOf(cached.read(1 * MIB + 100, 10));
    expect(window.bytes).toBe(8192 + 512);
    expectBytes(window.read(10_000, 100) ?? Buffer.alloc(0), device.bytes.slice(10_000, 10_100));
    expectBytes(window.read(1 * MIB, 512) ?? Buffer.alloc(0), device.bytes.slice(1 * MIB));
  });

  it('does not show what was fetched ahead until somebody comes by for it', async () => {
    const { cached, window } = windowed({ size: 16 * MIB, bytes: 32 * MIB, readahead: 4 * MIB });
    await bytesOf(cached.read(0, 1 * MIB));
    await bytesOf(cached.read(1 * MIB, 1 * MIB));
    await settle();
    expect(window.bytes).toBe(2 * MIB);
    await bytesOf(cached.read(2 * MIB, 4096));
    expect(window.bytes).toBe(3 * MIB);
  });

  it('shows a write when it is acknowledged, patched or not at all', async () => {
    const { cached, window } = windowed({ staged: 1 * MIB });
    await bytesOf(cached.read(0, 16_384));
    const news = new Uint8Array(5000).fill(9);
    void cached.stage?.(4000, news, () => {});
    expect(window.bytes).toBe(16_384);
    expectBytes(window.read(8192, 808) ?? Buffer.alloc(0), news.subarray(0, 808));
    const lease = await cached.read(0, 100);
    void cached.stage?.(200, news, () => {});
    expect(window.bytes).toBe(0);
    lease.release();
  });

  it('shows nothing of what the device no longer has', async () => {
    const { cached, window } = windowed();
    await bytesOf(cached.read(0, 16_384));
    cached.invalidate();
    expect(window.bytes).toBe(0);
    await bytesOf(cached.read(0, 16_384));
    cached.detach();
    expect(window.bytes).toBe(0);
  });

  it('that is exchanged has all that the other one had', async () => {
    const { cached, window } = windowed();
    await bytesOf(cached.read(0, 16_384));
    window.read(0, 1);
    const other = new ShownPages(4 * MIB);
    cached.showIn(other);
    expect([window.bytes, other.bytes]).toEqual([0, 16_384]);
    other.read(0, 1);
    expect(cached.stats.hits).toBe(2);
    cached.showIn(undefined);
    expect(other.bytes).toBe(0);
    expect(cached.stats.hits).toBe(2);
  });

  it('keeps what is read there from being evicted', async () => {
    const { cached, window, cache } = windowed({ bytes: 256 * KIB });
    for (let page = 0; page < 200; page++) {
      await bytesOf(cached.read(page * 8192, 4096));
      expect(window.read(0, 10)).toBeDefined();
    }
    expect(cache.stats.evictions).toBeGreaterThan(100);
    expect(cached.stats.hits).toBe(200);
  });

  it.each([{ shared: true }, { bytes: 0 }])('shows nothing of a device of which nothing is kept: %o', async (options) => {
    const { cached, window } = windowed(options);
    await bytesOf(cached.read(0, 16_384));
    expect(window.bytes).toBe(0);
  });
});

describe('dropping what is held', () => {
  async function readsAfter(action: (cached: CachedDevice) => void): Promise<number> {
    const { device, cached } = bench();
    cached.opened();
    await bytesOf(cached.read(0, 4096));
    action(cached);
    await bytesOf(cached.read(0, 4096));
    return readsOf(device).length;
  }

  it('happens at the first open', async () => {
    const { device, cached } = bench();
    await bytesOf(cached.read(0, 4096));
    device.bytes[0] = 77;
    cached.opened();
    expect((await bytesOf(cached.read(0, 1)))[0]).toBe(77);
  });

  it('does not happen at the second', async () => {
    expect(await readsAfter((cached) => cached.opened())).toBe(1);
  });

  it('happens when it is opened again after the last close', async () => {
    expect(
      await readsAfter((cached) => {
        cached.closed();
        cached.opened();
      }),
    ).toBe(2);
  });

  it('happens when the device says that its contents may differ', async () => {
    const listeners = new Set<DeviceChangeListener>();
    const device: CacheableDevice & MemoryDevice = Object.assign(new MemoryDevice(1 * MIB), {
      onChange: (listener: DeviceChangeListener) => {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    });
    const pool = new BufferPool();
    const cached = new BlockCache({ pool, bytes: 1 * MIB, readahead: 0 }).attach(device);
    await bytesOf(cached.read(0, 4096));
    for (const listener of listeners) listener({ type: 'state' });
    expect(pool.bytesInUse).toBe(4 * KIB);
    for (const listener of listeners) listener({ type: 'contents' });
    expect(pool.bytesInUse).toBe(0);
    cached.detach();
    expect(listeners.size).toBe(0);
  });

  it('leaves the other devices alone', async () => {
    const pool = new BufferPool();
    const cache = new BlockCache({ pool, bytes: 1 * MIB, readahead: 0 });
    const [one, other] = [cache.attach(new MemoryDevice(1 * MIB)), cache.attach(new MemoryDevice(1 * MIB))];
    for (const device of [one, other]) await bytesOf(device.read(0, 4096));
    one.invalidate();
    await bytesOf(other.read(0, 4096));
    expect(other.stats.hits).toBe(1);
    expect(cache.stats.slots).toBe(1);
  });

  it('is no harm to a read that is under way', async () => {
    const { device, cached, pool } = bench();
    device.holds = true;
    const read = bytesOf(cached.read(0, 4096));
    await settle();
    cached.invalidate();
    await finishAll(device);
    expectBytes(await read, device.bytes.slice(0, 4096));
    expect(pool.bytesInUse).toBe(0);
  });
});

describe('reading ahead', () => {
  it('has what a sequential reader asks for next', async () => {
    const { device, cached } = bench({ size: 8 * MIB, bytes: 16 * MIB, readahead: 1 * MIB });
    for (let offset = 0; offset < 8 * MIB; offset += 64 * KIB) {
      expectBytes(await bytesOf(cached.read(offset, 64 * KIB)), device.bytes.slice(offset, offset + 64 * KIB));
      await settle();
    }
    expect(cached.stats.hits).toBeGreaterThan(120);
    // Every byte once, none beyond the end, in commands that grow.
    expect(readsOf(device).reduce((sum, { length }) => sum + length, 0)).toBe(8 * MIB);
    expect(readsOf(device).length).toBeLessThan(50);
  });

  it('has several commands in flight', async () => {
    const { device, cached } = bench({ size: 16 * MIB, bytes: 32 * MIB, readahead: 4 * MIB });
    await bytesOf(cached.read(0, 1 * MIB));
    device.holds = true;
    const read = bytesOf(cached.read(1 * MIB, 1 * MIB));
    await settle();
    expect(device.pending.map(({ offset, length }) => [offset / MIB, length / MIB])).toEqual([
      [1, 1],
      [2, 1],
      [3, 1],
      [4, 1],
      [5, 1],
    ]);
    await finishAll(device);
    await read;
    const next = bytesOf(cached.read(2 * MIB, 1 * MIB));
    await settle();
    expect(device.pending.map(({ offset }) => offset / MIB)).toEqual([6]);
    await finishAll(device);
    await next;
  });

  it('makes one command of an extent of which only small parts are held', async () => {
    const { device, cached, cache } = bench({ size: 16 * MIB, bytes: 32 * MIB, readahead: 4 * MIB });
    for (const page of [2 * MIB + 8192, 2 * MIB + 65_536, 3 * MIB + 4096]) await bytesOf(cached.read(page, 4096));
    await bytesOf(cached.read(0, 1 * MIB));
    device.calls.length = 0;
    await bytesOf(cached.read(1 * MIB, 1 * MIB));
    expect(device.calls.map(({ offset, length }) => [offset / MIB, length / MIB])).toEqual([
      [1, 1],
      [2, 1],
      [3, 1],
      [4, 1],
      [5, 1],
    ]);
    cache.checkInvariants();
  });

  it('leaves alone what is held in pieces, but all of it', async () => {
    const { device, cached } = bench({ size: 4 * MIB, bytes: 32 * MIB, readahead: 1 * MIB });
    for (let page = 1 * MIB; page < 2 * MIB; page += 4096) await bytesOf(cached.read(page, 1));
    await bytesOf(cached.read(0, 512 * KIB));
    device.calls.length = 0;
    await bytesOf(cached.read(512 * KIB, 512 * KIB));
    expect(device.calls.filter(({ offset }) => offset >= 1 * MIB && offset < 2 * MIB)).toEqual([]);
  });

  it('fetches nothing for random readers', async () => {
    const { cached } = bench({ readahead: 1 * MIB });
    const random = new SeededRandom(4);
    for (let turn = 0; turn < 100; turn++) await bytesOf(cached.read(random.between(0, 4 * MIB - 4096), 4096));
    expect(cached.stats.readaheadBytes).toBe(0);
  });

  it('keeps a failure to itself', async () => {
    const { device, cached, cache } = bench({ readahead: 1 * MIB });
    await bytesOf(cached.read(0, 64 * KIB));
    device.holds = true;
    const read = bytesOf(cached.read(64 * KIB, 64 * KIB));
    await settle();
    const [asked, ...ahead] = [...device.pending];
    expect(ahead.length).toBeGreaterThan(0);
    for (const call of ahead) call.fail(new Error('no luck'));
    asked?.finish();
    expectBytes(await read, device.bytes.slice(64 * KIB, 128 * KIB));
    device.holds = false;
    expectBytes(await bytesOf(cached.read(128 * KIB, 64 * KIB)), device.bytes.slice(128 * KIB, 192 * KIB));
    cache.checkInvariants();
  });
});

describe('under random load', () => {
  const seeds = Array.from({ length: 8 }, (_, seed) => [seed + 1, seed % 2 === 1 ? 48 * KIB : 0]);
  it.each(seeds)('never gives what it must not, seed %i, %i bytes staged', async (seed, staged) => {
    const random = new SeededRandom(seed ?? 0);
    const { device, cached, cache, pool } = bench({
      size: 1 * MIB,
      bytes: random.between(1, 8) * 128 * KIB,
      readahead: random.fraction() < 0.5 ? 256 * KIB : 0,
      staged: staged ?? 0,
    });
    const window = new ShownPages(1 * MIB);
    cached.showIn(window);
    const history = new WriteHistory(device.bytes);
    const problems: string[] = [];
    device.holds = true;
    let running = 0;
    const run = async (work: () => Promise<void>) => {
      running++;
      await work();
      running--;
    };
    const read = async (offset: number, length: number) => {
      const since = history.tick();
      const lease = await cached.read(offset, length);
      const seen = Buffer.concat(lease.segments);
      const bad = history.firstImpossible(offset, seen, since, history.tick());
      if (bad !== undefined) problems.push(`a read of ${length} at ${offset} saw the impossible at ${bad}`);
      if (random.fraction() < 0.5) await settle();
      if (!seen.equals(Buffer.concat(lease.segments))) problems.push('a lease changed');
      lease.release();
    };
    const stage = async (offset: number, length: number) => {
      const data = random.bytes(length);
      const end = history.begin(offset, data);
      await cached.stage?.(offset, data, (failure) => {
        if (failure !== undefined) end('failed');
      })?.over;
      end('acknowledged');
    };
    const writing: { offset: number; end: number }[] = [];
    const write = async (offset: number, length: number) => {
      if (cached.stage !== undefined) return stage(offset, length);
      // The device under a cache keeps overlapping writes apart, as a logical unit does with its range lock.
      if (writing.some((other) => other.offset < offset + length && other.end > offset)) return;
      const range = { offset, end: offset + length };
      writing.push(range);
      const data = random.bytes(length);
      const end = history.begin(offset, data);
      await cached.write(offset, data).then(
        () => end('acknowledged'),
        () => end('failed'),
      );
      writing.splice(writing.indexOf(range), 1);
    };
    for (let turn = 0; turn < 600; turn++) {
      const length = random.fraction() < 0.8 ? random.between(1, 8192) : random.between(1, 300_000);
      const offset = random.fraction() < 0.5 ? random.between(0, 20) * 8192 : random.between(0, 1 * MIB - length);
      if (running < 8) void run(() => (random.fraction() < 0.6 ? read(offset, length) : write(offset, length)));
      await new Promise((resolve) => setImmediate(resolve));
      while (device.pending.length > 0 && random.fraction() < 0.7) {
        const call = device.pending[random.between(0, device.pending.length - 1)];
        // A read must not overtake a write that it overlaps, nor the reverse: the range lock's part again.
        const index = call === undefined ? -1 : device.pending.indexOf(call);
        const blocked = device.pending
          .slice(0, index)
          .some((earlier) => call !== undefined && (earlier.kind === 'write' || call.kind === 'write') && overlap(earlier, call));
        if (call === undefined || blocked) continue;
        if (call.kind === 'write' && random.fraction() < 0.1) call.fail(new Error('no luck'));
        else call.finish();
      }
      cache.checkInvariants();
      const now = history.tick();
      window.forEach((at, bytes) => {
        if (random.fraction() > 0.05) return;
        const bad = history.firstImpossible(at, bytes, now, now);
        if (bad !== undefined) problems.push(`the window shows the impossible at ${bad}`);
      });
      window.read(random.between(0, 255) * 4096, 10);
    }
    while (running > 0 || cached.stagedBytes > 0) {
      device.pending[0]?.finish();
      await settle();
    }
    await finishAll(device);
    expect(problems).toEqual([]);
    cached.invalidate();
    expect(pool.bytesInUse).toBe(0);
  });
});

function overlap(one: { offset: number; length: number }, other: { offset: number; length: number }): boolean {
  return one.offset < other.offset + other.length && other.offset < one.offset + one.length;
}

describe('zeros and holes', () => {
  it('leave nothing old behind in the cache, also of reads that were under way', async () => {
    const { device, cached } = bench();
    await bytesOf(cached.read(0, 100_000));
    // The read reaches the device before the range is zeroed, and ends after it.
    device.holds = true;
    const early = cached.read(100_000, 1000);
    await settle();
    device.holds = false;
    Object.assign(device, {
      zero: async (offset: number, length: number) => {
        device.pending[0]?.finish();
        device.bytes.fill(0, offset, offset + length);
      },
    });
    await cached.zero(1000, 150_000, { mayUnmap: true });
    await bytesOf(early);
    expectBytes(await bytesOf(cached.read(0, 200_000)), device.bytes.subarray(0, 200_000));
    expect(await cached.zero(4 * MIB - 1, 2, { mayUnmap: true }).catch(errorCode)).toBe('out-of-range');
  });

  it('are not had of a device that does not have them', async () => {
    const { device, cached } = bench();
    Object.assign(device, { zero: undefined, extentsFrom: undefined });
    expect(await cached.zero(0, 512, { mayUnmap: true }).catch(errorCode)).toBe('unsupported');
    expect([await cached.seek(7, 'data'), await cached.seek(7, 'hole')]).toEqual([7, 4 * MIB]);
  });

  it('are asked for again after a write and after the device was opened', async () => {
    const { device, cached } = bench();
    let asked = 0;
    Object.assign(device, {
      extentsFrom: async () => {
        asked++;
        return [{ offset: 0, length: device.info.size, isHole: true }];
      },
    });
    expect(await cached.seek(0, 'hole')).toBe(0);
    expect(await cached.seek(77, 'data')).toBeUndefined();
    expect(asked).toBe(1);
    await cached.write(0, new Uint8Array(1));
    await cached.seek(0, 'hole');
    expect(asked).toBe(2);
    cached.opened();
    await cached.seek(0, 'hole');
    expect(asked).toBe(3);
  });
});
