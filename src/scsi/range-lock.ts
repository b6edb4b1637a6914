/**
 * Locks on ranges of one address space: shared for reads and fills, exclusive for writes and
 * read-modify-writes (I7: overlapping commands are never in flight together). Strictly first come,
 * first served among ranges that conflict, so nobody starves: a reader that comes after a waiting writer
 * waits behind it. Knows numbers only, not what they address.
 */

import { Bag, type Placed, UNPLACED } from '../bag.ts';

export type LockMode = 'shared' | 'exclusive';

interface Entry extends Placed {
  readonly start: number;
  readonly end: number;
  readonly mode: LockMode;
  /** How many earlier entries that conflict are still there. Granted when none is. */
  blockers: number;
  /** Later entries that wait for this one, among others. */
  followers: Entry[] | undefined;
  grant: () => void;
}

/**
 * A lock is held by whoever got its release function, until it is called. Holding one range while
 * acquiring an overlapping one deadlocks, as with any lock.
 */
export class RangeLock {
  /** Held and waiting. Two entries that conflict are linked by `followers` when the later one comes. */
  readonly #entries = new Bag<Entry>();

  /** Ranges that are held or waited for. */
  get size(): number {
    return this.#entries.size;
  }

  /**
   * Resolves with the function that releases the range (idempotent) when every earlier conflicting range
   * is released. Rejects with the signal's reason when it is aborted while waiting. An empty range
   * conflicts with nothing. Throws RangeError for what is not a range of safe integers.
   */
  async acquire(offset: number, length: number, mode: LockMode, signal?: AbortSignal): Promise<() => void> {
    const entry = newEntry(offset, length, mode);
    signal?.throwIfAborted();
    for (const earlier of this.#entries) {
      if (!conflict(earlier, entry)) continue;
      earlier.followers ??= [];
      earlier.followers.push(entry);
      entry.blockers++;
    }
    this.#entries.add(entry);
    if (entry.blockers > 0) await this.#granted(entry, signal);
    return () => this.#remove(entry);
  }

  /** The function that releases the range, at once; undefined where `acquire` would have to wait. Throws as it does. */
  tryAcquire(offset: number, length: number, mode: LockMode): (() => void) | undefined {
    const entry = newEntry(offset, length, mode);
    for (const earlier of this.#entries) if (conflict(earlier, entry)) return undefined;
    this.#entries.add(entry);
    return () => this.#remove(entry);
  }

  #granted(entry: Entry, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#remove(entry);
        reject(signal?.reason);
      };
      entry.grant = () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      };
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  #remove(entry: Entry): void {
    if (!this.#entries.delete(entry) || entry.followers === undefined) return;
    for (const follower of entry.followers) {
      follower.blockers--;
      if (follower.blockers === 0 && follower.place !== UNPLACED) follower.grant();
    }
  }
}

function newEntry(offset: number, length: number, mode: LockMode): Entry {
  const end = offset + length;
  if (offset < 0 || length < 0 || !Number.isSafeInteger(offset) || !Number.isSafeInteger(end)) {
    throw new RangeError(`no range of ${length} at ${offset}`);
  }
  return { start: offset, end, mode, blockers: 0, followers: undefined, grant: nothing, place: UNPLACED };
}

function nothing(): void {}

function conflict(one: Entry, other: Entry): boolean {
  if (one.mode === 'shared' && other.mode === 'shared') return false;
  return Math.max(one.start, other.start) < Math.min(one.end, other.end);
}
