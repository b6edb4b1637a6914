import { describe, expect, it } from 'vitest';
import { type LockMode, RangeLock } from '../../../src/scsi/range-lock.ts';
import { SeededRandom } from '../../support/seeded-random.ts';

/** Lets everything that is settled by now run. */
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Acquires without waiting; `granted` says what has happened so far. */
function request(lock: RangeLock, offset: number, length: number, mode: LockMode, signal?: AbortSignal) {
  const state: { granted: boolean; error: unknown; release: () => void } = {
    granted: false,
    error: undefined,
    release: () => {},
  };
  lock.acquire(offset, length, mode, signal).then(
    (release) => {
      state.granted = true;
      state.release = release;
    },
    (error: unknown) => {
      state.error = error;
    },
  );
  return state;
}

describe('range lock', () => {
  it.each([
    ['shared', 'shared', true],
    ['shared', 'exclusive', false],
    ['exclusive', 'shared', false],
    ['exclusive', 'exclusive', false],
  ] as const)('overlapping: %s then %s', async (first, second, together) => {
    const lock = new RangeLock();
    const one = request(lock, 0, 10, first);
    const other = request(lock, 9, 10, second);
    await settle();
    expect(one.granted).toBe(true);
    expect(other.granted).toBe(together);
    one.release();
    await settle();
    expect(other.granted).toBe(true);
  });

  it('gives a range at once where nothing conflicts, and does not wait for one that does', async () => {
    const lock = new RangeLock();
    const first = lock.tryAcquire(0, 10, 'shared');
    expect(first).toBeDefined();
    const second = lock.tryAcquire(5, 10, 'shared');
    expect(second).toBeDefined();
    expect(lock.tryAcquire(9, 1, 'exclusive')).toBeUndefined();
    expect(lock.size).toBe(2);
    const writer = request(lock, 0, 1, 'exclusive');
    expect(lock.tryAcquire(0, 1, 'shared')).toBeUndefined(); // behind a writer that waits
    first?.();
    await settle();
    expect(writer.granted).toBe(true);
    second?.();
    writer.release();
    expect(lock.size).toBe(0);
    expect(() => lock.tryAcquire(-1, 1, 'shared')).toThrow(RangeError);
  });

  it('grants ranges that touch but do not overlap together', async () => {
    const lock = new RangeLock();
    request(lock, 0, 10, 'exclusive');
    const behind = request(lock, 10, 10, 'exclusive');
    const empty = request(lock, 5, 0, 'exclusive');
    await settle();
    expect([behind.granted, empty.granted]).toEqual([true, true]);
  });

  it('does not let readers pass a writer that waits', async () => {
    const lock = new RangeLock();
    const reader = request(lock, 0, 10, 'shared');
    const writer = request(lock, 0, 10, 'exclusive');
    const late = request(lock, 0, 10, 'shared');
    await settle();
    expect([writer.granted, late.granted]).toEqual([false, false]);
    reader.release();
    await settle();
    expect([writer.granted, late.granted]).toEqual([true, false]);
    writer.release();
    await settle();
    expect(late.granted).toBe(true);
  });

  it('an aborted waiter leaves the queue and lets those behind it pass', async () => {
    const lock = new RangeLock();
    const abort = new AbortController();
    const holder = request(lock, 0, 10, 'shared');
    const writer = request(lock, 0, 10, 'exclusive', abort.signal);
    const late = request(lock, 0, 10, 'shared');
    const reason = new Error('enough');
    abort.abort(reason);
    await settle();
    expect(writer.error).toBe(reason);
    expect(late.granted).toBe(true);
    holder.release();
    late.release();
    expect(lock.size).toBe(0);
  });

  it('refuses a signal that is aborted already, also where nothing is in the way', async () => {
    const lock = new RangeLock();
    await expect(lock.acquire(0, 1, 'shared', AbortSignal.abort(new Error('late')))).rejects.toThrow('late');
    expect(lock.size).toBe(0);
  });

  it('an abort after the grant changes nothing', async () => {
    const lock = new RangeLock();
    const abort = new AbortController();
    const first = request(lock, 0, 1, 'exclusive');
    const second = request(lock, 0, 1, 'exclusive', abort.signal);
    await settle();
    first.release();
    await settle();
    abort.abort();
    await settle();
    expect(second.granted).toBe(true);
    expect(lock.size).toBe(1);
  });

  it('a second release of the same range does not free a later holder', async () => {
    const lock = new RangeLock();
    const first = request(lock, 0, 1, 'exclusive');
    const second = request(lock, 0, 1, 'exclusive');
    const third = request(lock, 0, 1, 'exclusive');
    await settle();
    first.release();
    first.release();
    await settle();
    expect([second.granted, third.granted]).toEqual([true, false]);
  });

  it.each([
    [-1, 1],
    [0, -1],
    [0.5, 1],
    [Number.MAX_SAFE_INTEGER, 1],
    [Number.NaN, 1],
  ])('refuses %d + %d as a range', async (offset, length) => {
    await expect(new RangeLock().acquire(offset, length, 'shared')).rejects.toThrow(RangeError);
  });

  it('random load: no conflicting holders, grants in order of arrival among conflicting ranges, all served', async () => {
    const random = new SeededRandom(7);
    const lock = new RangeLock();
    const held = new Set<{ start: number; end: number; mode: LockMode; order: number }>();
    const waiting = new Set<{ start: number; end: number; mode: LockMode; order: number }>();
    const conflict = (a: { start: number; end: number; mode: LockMode }, b: typeof a) =>
      a.start < b.end && b.start < a.end && (a.mode === 'exclusive' || b.mode === 'exclusive');
    let served = 0;
    const worker = async (order: number) => {
      const start = random.below(64);
      const mode: LockMode = random.below(3) === 0 ? 'exclusive' : 'shared';
      const entry = { start, end: start + random.between(1, 16), mode, order };
      waiting.add(entry);
      const release = await lock.acquire(entry.start, entry.end - entry.start, mode);
      waiting.delete(entry);
      for (const other of held) expect(conflict(entry, other)).toBe(false);
      for (const other of waiting) if (other.order < order) expect(conflict(entry, other)).toBe(false);
      held.add(entry);
      for (let turn = random.below(4); turn > 0; turn--) await Promise.resolve();
      held.delete(entry);
      served++;
      release();
    };
    await Promise.all(Array.from({ length: 500 }, (_, order) => worker(order)));
    expect(served).toBe(500);
    expect(lock.size).toBe(0);
  });
});
