import { describe, expect, it } from 'vitest';
import { BufferPool } from '../../../src/scsi/buffer-pool.ts';
import { RetainedWrites } from '../../../src/scsi/retained-writes.ts';
import { SeededRandom } from '../../support/seeded-random.ts';

function bench(limit = 1024 * 1024) {
  const pool = new BufferPool();
  let pressed = 0;
  const retained = new RetainedWrites(pool, limit, () => {
    pressed++;
  });
  return { pool, retained, pressure: () => pressed };
}

class CountedMemory {
  readonly length: number;
  users = 0;

  constructor(length: number) {
    this.length = length;
  }

  retain(): void {
    this.users++;
  }

  release(): void {
    this.users--;
  }
}

const bytes = (length: number, value: number) => new Uint8Array(length).fill(value);
const summary = (retained: RetainedWrites) => retained.writes.map(({ offset, data }) => [offset, data.length, data[0]]);

describe('retained writes', () => {
  it('keep a copy, not the memory of the writer', () => {
    const { retained } = bench();
    const data = bytes(512, 1);
    retained.keep(0, data);
    data.fill(9);
    expect(summary(retained)).toEqual([[0, 512, 1]]);
  });

  it.each([
    [
      'in the middle',
      512,
      512,
      [
        [0, 512, 1],
        [512, 512, 2],
        [1024, 512, 1],
      ],
    ],
    [
      'at the start',
      0,
      512,
      [
        [0, 512, 2],
        [512, 1024, 1],
      ],
    ],
    [
      'at the end',
      1024,
      512,
      [
        [0, 1024, 1],
        [1024, 512, 2],
      ],
    ],
    ['all over', 0, 1536, [[0, 1536, 2]]],
    ['before and beyond', 0, 4096, [[0, 4096, 2]]],
    [
      'beside it',
      1536,
      512,
      [
        [0, 1536, 1],
        [1536, 512, 2],
      ],
    ],
  ])('give way to a newer write %s', (_where, offset, length, expected) => {
    const { retained } = bench();
    retained.keep(0, bytes(1536, 1));
    retained.keep(offset, bytes(length, 2));
    expect(summary(retained)).toEqual(expected);
  });

  it('lose a range that was forced to the medium', () => {
    const { retained } = bench();
    retained.keep(0, bytes(1536, 1));
    retained.supersede(512, 512);
    expect(summary(retained)).toEqual([
      [0, 512, 1],
      [1024, 512, 1],
    ]);
  });

  it('are dropped up to the acknowledgement that a flush covered', () => {
    const { retained, pool } = bench();
    retained.keep(0, bytes(512, 1));
    const covered = retained.sequence;
    retained.keep(512, bytes(512, 2));
    retained.keep(0, bytes(100, 3));
    retained.discardUpTo(covered);
    expect(summary(retained)).toEqual([
      [0, 100, 3],
      [512, 512, 2],
    ]);
    retained.discardUpTo(retained.sequence);
    expect([retained.isEmpty, retained.bytes, pool.bytesInUse]).toEqual([true, 0, 0]);
  });

  it('know which ranges they hold', () => {
    const { retained } = bench();
    retained.keep(1000, bytes(24, 1));
    expect([retained.holds(0, 1000), retained.holds(0, 1001), retained.holds(1023, 1), retained.holds(1024, 9)]).toEqual([
      false,
      true,
      true,
      false,
    ]);
  });

  it('make writers wait for room, first come first served', async () => {
    const { retained, pressure } = bench(8192);
    const first = await retained.reserve(4096);
    retained.keep(0, bytes(4096, 1));
    first.cancel();
    const before = pressure();
    const order: string[] = [];
    const large = retained.reserve(8192).then((reservation) => {
      order.push('large');
      return reservation;
    });
    const small = retained.reserve(512).then(() => order.push('small'));
    await Promise.resolve();
    expect(order).toEqual([]);
    expect(pressure()).toBeGreaterThan(before);
    retained.discardUpTo(retained.sequence);
    const reservation = await large;
    expect(order).toEqual(['large']);
    reservation.cancel();
    await small;
    expect(order).toEqual(['large', 'small']);
  });

  it('stay in memory that can be retained, as long as a piece of it is needed', () => {
    const { retained, pool } = bench();
    const memory = new CountedMemory(4096);
    const data = bytes(3000, 1);
    retained.keep(0, data.subarray(0, 1000), memory);
    retained.keep(1000, data.subarray(1000), memory);
    expect([memory.users, retained.bytes, pool.bytesInUse]).toEqual([1, 4096, 0]);
    expect(retained.writes[0]?.data.buffer).toBe(data.buffer);
    retained.supersede(0, 1500);
    expect([memory.users, retained.bytes]).toEqual([1, 4096]);
    retained.supersede(1400, 2000);
    expect([memory.users, retained.bytes]).toEqual([0, 0]);
    retained.keep(0, data, memory);
    retained.discardUpTo(retained.sequence);
    expect([memory.users, retained.bytes]).toEqual([0, 0]);
  });

  it('count memory whose length nobody says as the longest run', () => {
    const { retained } = bench();
    retained.keep(0, bytes(600_000, 1), { retain: () => {}, release: () => {} });
    expect(retained.bytes).toBe(1024 * 1024);
  });

  it('take one write that is larger than the limit, alone', async () => {
    const { retained } = bench(4096);
    const reservation = await retained.reserve(1024 * 1024);
    retained.keep(0, bytes(1024 * 1024, 1));
    reservation.cancel();
    expect(retained.hasWaiters).toBe(false);
    void retained.reserve(1).catch(() => {});
    expect(retained.hasWaiters).toBe(true);
  });

  it('reject who waits, when told to and when he gives up', async () => {
    const { retained } = bench(4096);
    retained.keep(0, bytes(4096, 1));
    const abort = new AbortController();
    const one = retained.reserve(10, abort.signal).catch((error: unknown) => String(error));
    const other = retained.reserve(10).catch((error: unknown) => String(error));
    abort.abort(new Error('enough'));
    retained.refuseWaiting(new Error('no room'));
    expect([await one, await other]).toEqual(['Error: enough', 'Error: no room']);
  });

  it.each([1, 2, 3, 4])('always hold the newest byte of what is not covered, seed %i', (seed) => {
    const random = new SeededRandom(seed);
    const { retained, pool } = bench(64 * 1024 * 1024);
    const size = 20_000;
    const values = new Uint8Array(size);
    const sequences = new Float64Array(size);
    for (let turn = 0; turn < 2000; turn++) {
      const length = random.between(1, random.fraction() < 0.9 ? 300 : 5000);
      const offset = random.between(0, size - length);
      const dice = random.fraction();
      if (dice < 0.85) {
        const data = random.bytes(length);
        retained.keep(offset, data);
        values.set(data, offset);
        sequences.fill(retained.sequence, offset, offset + length);
      } else if (dice < 0.97) {
        retained.supersede(offset, length);
        sequences.fill(0, offset, offset + length);
      } else {
        const covered = retained.sequence - random.between(0, 20);
        retained.discardUpTo(covered);
        for (let at = 0; at < size; at++) if ((sequences[at] ?? 0) <= covered) sequences[at] = 0;
      }
    }
    const held = new Float64Array(size).fill(-1);
    let last = 0;
    for (const { offset, data } of retained.writes) {
      expect(offset).toBeGreaterThanOrEqual(last);
      last = offset + data.length;
      held.set(data, offset);
    }
    expect(held).toEqual(Float64Array.from(values, (value, at) => (sequences[at] === 0 ? -1 : value)));
    expect(retained.bytes).toBe(pool.bytesInUse);
    retained.discardUpTo(retained.sequence);
    expect(pool.bytesInUse).toBe(0);
  });
});
