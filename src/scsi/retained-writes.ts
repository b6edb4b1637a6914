/**
 * Copies of what was written to a device with a volatile cache and is not yet known to be on its medium
 * (I6): when the cache may have been lost, they are written again. They never overlap: a newer write
 * takes its range from the older ones, so that the order in which they are written again does not
 * matter. Bounded: room is reserved before a write goes out, and whoever finds none waits until a
 * SYNCHRONIZE CACHE has made some. Knows ranges and bytes, no commands.
 *
 * What lies in memory that can be retained stays there; all else is copied to the pool.
 */

import type { SharedMemory } from './block-device.ts';
import { type BufferPool, MAX_RUN, SharedRun } from './buffer-pool.ts';

/** Newest bytes of a range that may be in a volatile cache only. */
export interface RetainedWrite {
  readonly offset: number;
  /** Lies in one piece of memory. Valid until the next `discard…`, `supersede` or `keep`. */
  readonly data: Uint8Array;
}

/** Room for the copy of one write. */
export interface Reservation {
  /** Gives the room back: the copy stands for itself now, or there will be none. Call it once. */
  cancel(): void;
}

/** Memory in which pieces lie: as long as one of them is left, all of it is out of use. */
interface Run {
  readonly memory: SharedMemory;
  readonly size: number;
  pieces: number;
}

interface Piece {
  offset: number;
  end: number;
  data: Uint8Array;
  readonly run: Run;
  /** Number of the acknowledgement, ascending. */
  readonly sequence: number;
}

interface Waiter {
  readonly length: number;
  readonly grant: () => void;
  readonly refuse: (reason: unknown) => void;
}

export class RetainedWrites {
  readonly #pool: BufferPool;
  readonly #limit: number;
  readonly #pressure: () => void;
  /** Ascending, never overlapping. */
  #pieces: Piece[] = [];
  /** What was retained for its owner, by what it lies in: several pieces may lie in the same. */
  readonly #runs = new Map<SharedMemory, Run>();
  readonly #waiters = new Set<Waiter>();
  #held = 0;
  #reserved = 0;
  #sequence = 0;

  /**
   * At most `limit` bytes of memory are held, or one write where that is more. `pressure` is called
   * when half of it is in use and when somebody waits: have the device synchronise its cache then.
   */
  constructor(pool: BufferPool, limit: number, pressure: () => void) {
    this.#pool = pool;
    this.#limit = limit;
    this.#pressure = pressure;
  }

  /** Bytes of memory in use. */
  get bytes(): number {
    return this.#held;
  }

  get isEmpty(): boolean {
    return this.#pieces.length === 0;
  }

  /** Number of the last acknowledgement. What a SYNCHRONIZE CACHE that is issued now covers is what `discardUpTo` may take later. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Resolves when there is room for `length` bytes, first come first served. Rejects with the signal's reason or that of `refuseWaiting`. */
  reserve(length: number, signal?: AbortSignal): Promise<Reservation> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    const reservation = this.tryReserve(length);
    if (reservation !== undefined) return Promise.resolve(reservation);
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#waiters.delete(waiter);
        reject(signal?.reason);
      };
      const waiter: Waiter = {
        length,
        grant: () => {
          signal?.removeEventListener('abort', onAbort);
          this.#reserved += length;
          resolve(this.#reservation(length));
        },
        refuse: (reason) => {
          signal?.removeEventListener('abort', onAbort);
          reject(reason);
        },
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiters.add(waiter);
      this.#pressure();
    });
  }

  /** The same at once; undefined where there is no room. */
  tryReserve(length: number): Reservation | undefined {
    if (this.#waiters.size > 0 || !this.#hasRoom(length)) return undefined;
    this.#reserved += length;
    return this.#reservation(length);
  }

  get hasWaiters(): boolean {
    return this.#waiters.size > 0;
  }

  /** Rejects everybody who waits for room. */
  refuseWaiting(reason: Error): void {
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const waiter of waiters) waiter.refuse(reason);
  }

  /**
   * Keeps `data`, which the device has acknowledged for `offset`: retains the `memory` that it lies in, or copies it where there
   * is none. Whoever reserved room cancels the reservation afterwards.
   */
  keep(offset: number, data: Uint8Array, memory?: SharedMemory): void {
    if (memory === undefined) {
      const buffer = this.#pool.acquire(data.length);
      buffer.bytes.set(data);
      this.#keepPiece(offset, buffer.bytes, this.#runOf(new SharedRun(buffer)));
    } else this.#keepPiece(offset, data, this.#retain(memory));
    if (this.#held * 2 > this.#limit) this.#pressure();
  }

  #keepPiece(offset: number, data: Uint8Array, run: Run): void {
    const at = this.#cut(offset, offset + data.length);
    this.#pieces.splice(at, 0, {
      offset,
      end: offset + data.length,
      data,
      run,
      sequence: ++this.#sequence,
    });
  }

  /** One more piece that lies in `memory`. */
  #retain(memory: SharedMemory): Run {
    const known = this.#runs.get(memory);
    if (known !== undefined) {
      known.pieces++;
      return known;
    }
    memory.retain();
    const run = this.#runOf(memory);
    this.#runs.set(memory, run);
    return run;
  }

  /** `memory`, of which we are a user, with its first piece. */
  #runOf(memory: SharedMemory): Run {
    const run: Run = { memory, size: memory.length ?? MAX_RUN, pieces: 1 };
    this.#held += run.size;
    return run;
  }

  /** A newer write that needs no copy (forced to the medium) was acknowledged: older copies must not come back over it. */
  supersede(offset: number, length: number): void {
    this.#cut(offset, offset + length);
    this.#admit();
  }

  /** Drops the copies of writes acknowledged up to `sequence`: they are on the medium. */
  discardUpTo(sequence: number): void {
    const kept: Piece[] = [];
    for (const piece of this.#pieces) {
      if (piece.sequence > sequence) kept.push(piece);
      else this.#drop(piece);
    }
    this.#pieces = kept;
    this.#admit();
  }

  /** Whether a copy of any byte of the range is held: what the device has there may be in its volatile cache only. */
  holds(offset: number, length: number): boolean {
    const piece = this.#pieces[this.#firstEndingAfter(offset)];
    return piece !== undefined && piece.offset < offset + length;
  }

  /** What must be written again, by ascending offset. */
  get writes(): readonly RetainedWrite[] {
    return this.#pieces;
  }

  #hasRoom(length: number): boolean {
    const used = this.#held + this.#reserved;
    return used === 0 || used + length <= this.#limit;
  }

  #reservation(length: number): Reservation {
    let open = true;
    return {
      cancel: () => {
        if (!open) throw new Error('a reservation was cancelled twice');
        open = false;
        this.#reserved -= length;
        this.#admit();
      },
    };
  }

  /** Takes `[start, end)` from all copies; returns the index where a piece of that range belongs. */
  #cut(start: number, end: number): number {
    const first = this.#firstEndingAfter(start);
    const replacement: Piece[] = [];
    let last = first;
    let at = first;
    for (; last < this.#pieces.length; last++) {
      const piece = this.#pieces[last];
      if (piece === undefined || piece.offset >= end) break;
      if (piece.offset < start) {
        replacement.push(part(piece, piece.offset, start));
        at++;
      }
      if (piece.end > end) replacement.push(part(piece, end, piece.end));
      piece.run.pieces += (piece.offset < start ? 1 : 0) + (piece.end > end ? 1 : 0);
      this.#drop(piece);
    }
    if (last > first) this.#pieces.splice(first, last - first, ...replacement);
    return at;
  }

  #firstEndingAfter(offset: number): number {
    let low = 0;
    let high = this.#pieces.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#pieces[middle]?.end ?? 0) > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #drop({ run }: Piece): void {
    run.pieces--;
    if (run.pieces > 0) return;
    this.#runs.delete(run.memory);
    this.#held -= run.size;
    run.memory.release();
  }

  #admit(): void {
    for (const waiter of this.#waiters) {
      if (!this.#hasRoom(waiter.length)) {
        this.#pressure();
        return;
      }
      this.#waiters.delete(waiter);
      waiter.grant();
    }
  }
}

function part(piece: Piece, offset: number, end: number): Piece {
  return { ...piece, offset, end, data: piece.data.subarray(offset - piece.offset, end - piece.offset) };
}
