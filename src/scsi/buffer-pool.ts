/**
 * The one pool of data memory: cache blocks, staging and bounce buffers are runs of it. It hands out
 * runs inside arenas that an `ArenaSource` allocates, so that a transport can register whole arenas
 * with its hardware once and find the registration again by `bytes.buffer` (I3, I4). A command's data
 * is one run, contiguous inside one arena. Knows sizes only; what bounds memory is the cache's size
 * and the number of requests in flight.
 */

import { Bag, type Placed, UNPLACED } from '../bag.ts';
import type { SharedMemory } from './block-device.ts';

/** Allocates arenas. The default is memory of the JavaScript engine; the addon's lies in huge pages where it is as long as some, and a transport can register it. */
export interface ArenaSource {
  /** `length` zeroed bytes, page aligned where the platform can. */
  allocate(length: number): ArrayBuffer;
  /** Takes an arena back that nothing uses any more. */
  free(arena: ArrayBuffer): void;
}

/** A run of pool memory. Whoever acquired it owns it until `release()`. */
export interface PoolBuffer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Gives the run back; throws when called twice: a run has one owner (I3). */
  release(): void;
}

/** Longest run. */
export const MAX_RUN = 1024 * 1024;
/**
 * The size of an arena: with the addon a huge page, where the system has one. The kernel copies all data out of and into these pages, and
 * looks each of them up to do so: of the ordinary ones there would be 512.
 */
export const ARENA = 2 * MAX_RUN;
/** Runs are a power of two long, at least this. */
const MIN_RUN = 4096;
/** The most that arenas take beyond the runs that are in use where those fill them: one of each length is partly used. */
export const PARTLY_USED = ARENA * (Math.log2(MAX_RUN / MIN_RUN) + 1);
/** Arenas that are kept when nothing uses them, if nothing else is said. */
const IDLE_ARENAS = 16;

export interface BufferPoolOptions {
  /**
   * Most arenas that are kept when nothing uses them, so that a steady load does not allocate: new memory costs page faults,
   * and the garbage collector takes a stream of it for a reason to run. Who keeps many is to call `trim`.
   */
  readonly idleArenas?: number;
  /** Whether a transport may move data in and out of this memory by itself, and of no other; by default, where a source is given. */
  readonly isRegistered?: boolean;
}

const ordinaryMemory: ArenaSource = { allocate: (length) => new ArrayBuffer(length), free: () => {} };

interface Arena extends Placed {
  readonly buffer: ArrayBuffer;
  runLength: number;
  /** All of each run, in order, made when it is first handed out: a view takes more time and memory than all else that a small run needs. */
  views: (Uint8Array<ArrayBuffer> | undefined)[];
  /** Numbers of free runs; the arena is idle when it has all of them. */
  free: number[];
}

type GiveBack = (arena: Arena, number: number) => void;

class Run implements PoolBuffer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  #arena: Arena | undefined;
  readonly #number: number;
  readonly #giveBack: GiveBack;

  constructor(arena: Arena, number: number, length: number, giveBack: GiveBack) {
    this.#arena = arena;
    this.#number = number;
    this.#giveBack = giveBack;
    arena.views[number] ??= new Uint8Array(arena.buffer, number * arena.runLength, arena.runLength);
    const whole = arena.views[number] as Uint8Array<ArrayBuffer>;
    this.bytes = length === arena.runLength ? whole : whole.subarray(0, length);
  }

  release(): void {
    const arena = this.#arena;
    if (arena === undefined) throw new Error('a pool buffer was released twice');
    this.#arena = undefined;
    this.#giveBack(arena, this.#number);
  }
}

export class BufferPool {
  /** Whether what a transport is to send had best be here. */
  readonly isRegistered: boolean;
  readonly #source: ArenaSource;
  readonly #idleArenas: number;
  /** Per run length: arenas of that length that have a free run. */
  readonly #available = new Map<number, Bag<Arena>>();
  readonly #idle: Arena[] = [];
  readonly #buffers = new Set<ArrayBufferLike>();
  #bytesInUse = 0;
  /** Fewest idle arenas since the last `trim`: so many were not needed. */
  #leastIdle = 0;

  constructor(
    source: ArenaSource = ordinaryMemory,
    { idleArenas = IDLE_ARENAS, isRegistered = source !== ordinaryMemory }: BufferPoolOptions = {},
  ) {
    this.#source = source;
    this.isRegistered = isRegistered;
    this.#idleArenas = idleArenas;
    for (let length = MIN_RUN; length <= MAX_RUN; length *= 2) this.#available.set(length, new Bag());
  }

  /** Whether `bytes` lie in this pool's memory. */
  holds(bytes: Uint8Array): boolean {
    return this.#buffers.has(bytes.buffer);
  }

  /** Bytes in runs that have an owner, rounded up to run lengths. */
  get bytesInUse(): number {
    return this.#bytesInUse;
  }

  /** Bytes in arenas, used or not. */
  get bytesAllocated(): number {
    return this.#buffers.size * ARENA;
  }

  /** A run of 1 to `MAX_RUN` bytes with undefined contents; `bytes` is exactly `length` long. */
  acquire(length: number): PoolBuffer {
    if (!Number.isInteger(length) || length < 1 || length > MAX_RUN) throw new RangeError(`no run of ${length} bytes`);
    const runLength = runLengthFor(length);
    const available = this.#available.get(runLength) as Bag<Arena>;
    const arena = available.any() ?? this.#arenaFor(runLength, available);
    const number = arena.free.pop() as number;
    if (arena.free.length === 0) available.delete(arena);
    this.#bytesInUse += runLength;
    return new Run(arena, number, length, this.#giveBack);
  }

  /** Frees what has been idle ever since the last call. To be called from time to time. */
  trim(): void {
    for (const arena of this.#idle.splice(0, this.#leastIdle)) this.#free(arena);
    this.#leastIdle = this.#idle.length;
  }

  #arenaFor(runLength: number, available: Bag<Arena>): Arena {
    let arena = this.#idle.pop();
    this.#leastIdle = Math.min(this.#leastIdle, this.#idle.length);
    if (arena === undefined) {
      arena = { buffer: this.#source.allocate(ARENA), runLength: 0, views: [], free: [], place: UNPLACED };
      this.#buffers.add(arena.buffer);
    }
    if (arena.runLength !== runLength) {
      arena.runLength = runLength;
      arena.views = [];
      arena.free = Array.from({ length: ARENA / runLength }, (_, index) => ARENA / runLength - 1 - index);
    }
    available.add(arena);
    return arena;
  }

  readonly #giveBack: GiveBack = (arena, number) => {
    this.#bytesInUse -= arena.runLength;
    arena.free.push(number);
    const available = this.#available.get(arena.runLength) as Bag<Arena>;
    if (arena.free.length * arena.runLength < ARENA) {
      if (arena.place === UNPLACED) available.add(arena);
      return;
    }
    available.delete(arena);
    if (this.#idle.length < this.#idleArenas) {
      this.#idle.push(arena);
      return;
    }
    this.#free(arena);
  };

  #free({ buffer }: Arena): void {
    this.#buffers.delete(buffer);
    this.#source.free(buffer);
  }
}

/** A run with several users. Whoever makes it is the first. */
export class SharedRun implements SharedMemory {
  readonly length: number;
  readonly #buffer: PoolBuffer;
  #users = 1;

  constructor(buffer: PoolBuffer) {
    this.#buffer = buffer;
    this.length = runLengthFor(buffer.bytes.length);
  }

  retain(): void {
    this.#users++;
  }

  release(): void {
    if (--this.#users <= 0) this.#buffer.release();
  }
}

/** What a run of `length` bytes takes of the pool. */
export function runLengthFor(length: number): number {
  let runLength = MIN_RUN;
  while (runLength < length) runLength *= 2;
  return runLength;
}
