import { describe, expect, it } from 'vitest';
import { ARENA, type ArenaSource, BufferPool, MAX_RUN, type PoolBuffer, SharedRun } from '../../../src/scsi/buffer-pool.ts';
import { SeededRandom } from '../../support/seeded-random.ts';

/** Ordinary memory that keeps account. */
class CountingSource implements ArenaSource {
  readonly live = new Set<ArrayBuffer>();
  allocated = 0;

  allocate(length: number): ArrayBuffer {
    const arena = new ArrayBuffer(length);
    this.live.add(arena);
    this.allocated++;
    return arena;
  }

  free(arena: ArrayBuffer): void {
    if (!this.live.delete(arena)) throw new Error('freed an arena that is not live');
  }
}

describe('buffer pool', () => {
  it.each([
    [1, 4096],
    [4096, 4096],
    [4097, 8192],
    [100_000, 131_072],
    [MAX_RUN, MAX_RUN],
  ])('a buffer of %d bytes takes a run of %d', (length, runLength) => {
    const pool = new BufferPool();
    const buffer = pool.acquire(length);
    expect(buffer.bytes.length).toBe(length);
    expect(buffer.bytes.byteOffset % 4096).toBe(0);
    expect(pool.bytesInUse).toBe(runLength);
    buffer.release();
    expect(pool.bytesInUse).toBe(0);
  });

  it.each([0, -1, 1.5, MAX_RUN + 1, Number.NaN])('refuses %d bytes', (length) => {
    expect(() => new BufferPool().acquire(length)).toThrow(RangeError);
  });

  it('a second release is a fault, and does not free the next owner', () => {
    const pool = new BufferPool();
    const buffer = pool.acquire(4096);
    buffer.release();
    const next = pool.acquire(4096);
    expect(() => buffer.release()).toThrow(/released twice/);
    expect(pool.bytesInUse).toBe(4096);
    next.release();
  });

  it('runs of one length share an arena; runs of another length have their own', () => {
    const source = new CountingSource();
    const pool = new BufferPool(source);
    const buffers = Array.from({ length: ARENA / 65536 }, () => pool.acquire(65536));
    expect(source.allocated).toBe(1);
    const other = pool.acquire(4096);
    expect(source.allocated).toBe(2);
    expect(pool.bytesAllocated).toBe(2 * ARENA);
    for (const buffer of [...buffers, other]) buffer.release();
  });

  it('an arena that is idle serves runs of any length, so a steady load does not allocate', () => {
    const source = new CountingSource();
    const pool = new BufferPool(source);
    for (const length of [4096, 65536, MAX_RUN, 8192]) pool.acquire(length).release();
    expect(source.allocated).toBe(1);
  });

  it('keeps a few idle arenas and gives the others back', () => {
    const source = new CountingSource();
    const pool = new BufferPool(source);
    const buffers = Array.from({ length: 100 }, () => pool.acquire(MAX_RUN));
    expect(source.live.size).toBe(50);
    for (const buffer of buffers) buffer.release();
    expect(source.live.size).toBe(16);
    expect(pool.bytesAllocated).toBe(16 * ARENA);
  });

  it('keeps as many idle arenas as it was told, until a trim finds that nobody came back for them', () => {
    const source = new CountingSource();
    const pool = new BufferPool(source, { idleArenas: 40 });
    const buffers = Array.from({ length: 100 }, () => pool.acquire(MAX_RUN));
    for (const buffer of buffers) buffer.release();
    expect(source.live.size).toBe(40);
    pool.trim(); // they were in use since the last one
    expect(source.live.size).toBe(40);
    const some = Array.from({ length: 20 }, () => pool.acquire(MAX_RUN));
    for (const buffer of some) buffer.release();
    pool.trim();
    expect(source.live.size).toBe(10);
    pool.trim();
    expect(source.live.size).toBe(0);
    expect(pool.bytesAllocated).toBe(0);
  });

  it('random load: no two owners share a byte, and all comes back', () => {
    const random = new SeededRandom(31);
    const source = new CountingSource();
    const pool = new BufferPool(source);
    const owned: { readonly buffer: PoolBuffer; readonly mark: number }[] = [];
    for (let round = 0; round < 3000; round++) {
      if (owned.length < 40 && random.below(2) === 0) {
        const buffer = pool.acquire(random.between(1, random.below(8) === 0 ? MAX_RUN : 20_000));
        const mark = round % 251;
        buffer.bytes.fill(mark);
        owned.push({ buffer, mark });
        continue;
      }
      const [taken] = owned.splice(random.below(owned.length), 1);
      if (taken === undefined) continue;
      expect(taken.buffer.bytes[0]).toBe(taken.mark);
      expect(taken.buffer.bytes[taken.buffer.bytes.length - 1]).toBe(taken.mark);
      expect(source.live.has(taken.buffer.bytes.buffer)).toBe(true);
      taken.buffer.release();
    }
    for (const { buffer } of owned) buffer.release();
    expect(pool.bytesInUse).toBe(0);
    expect(source.live.size).toBeLessThanOrEqual(16);
  });

  it('a run with several users comes back with the last one', () => {
    const pool = new BufferPool();
    const run = new SharedRun(pool.acquire(5000));
    expect(run.length).toBe(8192);
    run.retain();
    run.release();
    expect(pool.bytesInUse).toBe(8192);
    run.release();
    expect(pool.bytesInUse).toBe(0);
    expect(() => run.release()).toThrow('released twice');
  });
});
