import { describe, expect, it } from 'vitest';
import type { SharedMemory, WriteOptions } from '../../../src/scsi/block-device.ts';
import { BufferPool } from '../../../src/scsi/buffer-pool.ts';
import { WriteStaging } from '../../../src/scsi/write-staging.ts';
import { type DeviceCall, MemoryDevice } from '../../support/memory-device.ts';
import { settle } from '../../support/virtual-clock.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/** A device that also remembers from where it was written. */
class SourcedDevice extends MemoryDevice {
  readonly sources: Uint8Array[] = [];
  readonly memories: (SharedMemory | undefined)[] = [];

  override write(offset: number, from: Uint8Array, options?: WriteOptions): Promise<void> {
    this.sources.push(from);
    this.memories.push(options?.memory);
    return super.write(offset, from);
  }
}

function bench(bytes = 16 * MIB) {
  const device = new SourcedDevice(32 * MIB);
  device.holds = true;
  const pool = new BufferPool();
  const events: string[] = [];
  const staging = new WriteStaging({
    device,
    pool,
    bytes,
    taken: (offset, data) => events.push(`taken ${offset} ${data.length}`),
    failed: (offset, length) => events.push(`failed ${offset} ${length}`),
  });
  const stage = (offset: number, length: number, fill = 1, memory?: SharedMemory) =>
    staging.stage(
      offset,
      new Uint8Array(length).fill(fill),
      (failure) => events.push(failure === undefined ? `good ${offset}` : `bad ${offset}`),
      memory,
    );
  /** For those that are taken at once. */
  const put = (...write: Parameters<typeof stage>) => expect(stage(...write)).toBeUndefined();
  return { device, pool, staging, stage, put, events };
}

class HostMemory implements SharedMemory {
  users = 1;
  retain(): void {
    this.users++;
  }
  release(): void {
    this.users--;
  }
}

const shapes = (calls: readonly DeviceCall[]) => calls.map(({ offset, length }) => [offset / KIB, length / KIB]);

async function finishAll(device: MemoryDevice): Promise<void> {
  while (device.pending.length > 0) {
    device.pending[0]?.finish();
    await settle();
  }
}

describe('a write that is staged', () => {
  it('goes out at once and is told of once, when the device has it', async () => {
    const { device, stage, events, staging } = bench();
    expect(stage(0, 4096)).toBeUndefined();
    expect(shapes(device.pending)).toEqual([[0, 4]]);
    expect([...events, staging.bytes]).toEqual(['taken 0 4096', 4096]);
    await finishAll(device);
    expect([...events, staging.bytes]).toEqual(['taken 0 4096', 'good 0', 0]);
  });

  it('that fails leaves its range unknown before it is told of', async () => {
    const { device, put, events, pool } = bench();
    put(8192, 4096);
    device.pending[0]?.fail(new Error('no luck'));
    await settle();
    expect(events).toEqual(['taken 8192 4096', 'failed 8192 4096', 'bad 8192']);
    expect(pool.bytesInUse).toBe(0);
  });

  it('waits where too much is staged, first come first served, and is taken when there is room', async () => {
    const { device, stage, events, staging } = bench(2 * MIB);
    expect(stage(0, MIB)).toBeUndefined();
    expect(stage(4 * MIB, MIB)).toBeUndefined();
    const order: string[] = [];
    const waits = [
      stage(8 * MIB, MIB)?.over.then(() => order.push('large')),
      stage(12 * MIB, 512)?.over.then(() => order.push('small')),
    ];
    await settle();
    expect(order).toEqual([]);
    expect(staging.bytes).toBe(2 * MIB);
    device.pending[0]?.finish();
    await settle();
    expect(order).toEqual(['large']);
    expect(events.at(-1)).toBe(`taken ${8 * MIB} ${MIB}`);
    await finishAll(device);
    await Promise.all(waits);
    expect(order).toEqual(['large', 'small']);
  });

  it('that waits is not taken once it was given up, and those behind it are', async () => {
    const { device, stage, put, events, staging } = bench(2 * MIB);
    put(0, MIB);
    put(4 * MIB, 512 * KIB);
    const large = stage(8 * MIB, MIB);
    const small = stage(12 * MIB, 512 * KIB);
    large?.giveUp();
    expect(await Promise.all([large?.over, small?.over])).toEqual([false, true]);
    expect(staging.bytes).toBe(2 * MIB);
    large?.giveUp();
    small?.giveUp();
    await finishAll(device);
    expect(events.filter((event) => !event.startsWith('taken')).sort()).toEqual([
      'good 0',
      `good ${12 * MIB}`,
      `good ${4 * MIB}`,
    ]);
  });

  it('is taken alone, however large, where nothing else is staged', () => {
    expect(bench(64 * KIB).stage(0, MIB)).toBeUndefined();
  });

  it('is sent from its own memory where that is large and may be kept, and for no longer than it takes', async () => {
    const { device, staging, pool } = bench();
    const memory = new HostMemory();
    const data = new Uint8Array(MIB).fill(3);
    void staging.stage(0, data, () => {}, memory);
    expect(device.sources[0]).toBe(data);
    expect(device.memories[0]).toBe(memory);
    expect(memory.users).toBe(2);
    expect(pool.bytesInUse).toBe(0);
    await finishAll(device);
    expect(memory.users).toBe(1);
  });

  it('is copied where it is small or cannot be kept, into memory that others may retain', async () => {
    const { device, put, pool } = bench();
    const memory = new HostMemory();
    put(0, 4096, 3, memory);
    put(2 * MIB, MIB, 4);
    expect(memory.users).toBe(1);
    expect(pool.bytesInUse).toBe(4096 + MIB);
    device.memories[0]?.retain();
    await finishAll(device);
    expect(pool.bytesInUse).toBe(4096);
    device.memories[0]?.release();
    expect(pool.bytesInUse).toBe(0);
  });
});

describe('a stream of small writes', () => {
  it('has a few commands in flight, and joins what waits meanwhile', async () => {
    const { device, put, events, pool } = bench();
    for (let index = 0; index < 20; index++) put(index * 4096, 4096, index);
    expect(shapes(device.pending)).toEqual([
      [0, 4],
      [4, 4],
      [8, 4],
      [12, 4],
    ]);
    device.pending[2]?.finish();
    await settle();
    expect(shapes(device.pending).at(-1)).toEqual([16, 64]);
    await finishAll(device);
    expect(events.filter((event) => event.startsWith('good')).length).toBe(20);
    for (let index = 0; index < 20; index++) expect(device.bytes[index * 4096 + 77]).toBe(index);
    expect(pool.bytesInUse).toBe(0);
  });

  it('becomes commands of no more than 1 MiB', async () => {
    const { device, put } = bench();
    for (let index = 0; index < 5; index++) put(index * 4096, 4096);
    for (let at = 20 * KIB; at < 4 * MIB; at += 60 * KIB) put(at, 60 * KIB);
    await finishAll(device);
    for (const { length } of device.calls) expect(length).toBeLessThanOrEqual(MIB);
    expect(device.calls.length).toBeLessThan(12);
  });

  it('fails as one where it was joined', async () => {
    const { device, put, events } = bench();
    for (let index = 0; index < 6; index++) put(index * 4096, 4096);
    device.pending[0]?.finish();
    await settle();
    device.pending.at(-1)?.fail(new Error('no luck'));
    await settle();
    expect(events.filter((event) => event.includes('bad') || event.includes('failed'))).toEqual([
      'failed 16384 8192',
      'bad 16384',
      'bad 20480',
    ]);
  });

  it('is not joined with what lies across another write that came between', async () => {
    const { device, put } = bench();
    for (let index = 0; index < 5; index++) put(index * 4096, 4096, 1);
    put(20 * KIB, 4096, 2);
    put(24 * KIB, 4096, 3);
    put(20 * KIB, 512, 4); // across what waits: goes behind it
    put(28 * KIB, 4096, 5);
    await finishAll(device);
    expect([device.bytes[20 * KIB], device.bytes[20 * KIB + 512], device.bytes[28 * KIB]]).toEqual([4, 2, 5]);
  });
});

describe('writes without order', () => {
  it('go out side by side, up to as many as a logical unit lets out', () => {
    const { device, put } = bench();
    for (let index = 0; index < 50; index++) put(index * 64 * KIB, 4096);
    expect(device.pending.length).toBe(32);
  });

  it('that overlap go out in the order in which they came', async () => {
    const { device, put } = bench();
    for (let index = 0; index < 40; index++) put(0, 4096, index);
    await finishAll(device);
    expect(device.bytes[0]).toBe(39);
  });

  it('are bounded in number as well', async () => {
    const { device, stage } = bench();
    let taken = 0;
    while (stage(taken * 64 * KIB, 512) === undefined) taken++;
    expect(taken).toBe(64);
    await finishAll(device);
  });
});

describe('waiting for what is staged', () => {
  it('is for all of it, with the first failure', async () => {
    const { device, put, staging } = bench();
    expect(await staging.settled()).toBeUndefined();
    put(0, 4096);
    put(MIB, 4096);
    const settled = staging.settled();
    put(2 * MIB, 4096); // too late to be waited for
    const [first, second] = [...device.pending];
    second?.fail(new Error('no luck'));
    first?.finish();
    expect(String((await settled)?.error)).toBe('Error: no luck');
  });

  it('is for a range, whether it has gone out or not', async () => {
    const { device, put, staging } = bench();
    for (let index = 0; index < 40; index++) put(index * 64 * KIB, 4096);
    expect(staging.settledWithin(8192, 4096)).toBeUndefined();
    let isOver = false;
    void staging.settledWithin(39 * 64 * KIB + 4095, 1)?.then(() => {
      isOver = true;
    });
    device.pending[0]?.finish();
    await settle();
    expect(isOver).toBe(false);
    await finishAll(device);
    expect(isOver).toBe(true);
    expect(staging.settledWithin(0, 32 * MIB)).toBeUndefined();
  });
});
