/**
 * One device seen through the block cache. Reads are leases of cache memory, without a copy. Writes are staged where
 * that is wanted (write-staging.ts), else they go to the device first; what is held of their range follows them. The
 * cache never holds the only copy of anything (I7), and dropping a slot is always allowed.
 *
 * Coherence in one paragraph: a slot is filled by one command, which goes out when nothing that is staged
 * overlaps it, and is found by lookups only if no overlapping write of this mount was acknowledged since it
 * went out. When a write is acknowledged, and no later, slots of its range that are idle are patched, in the window
 * too; slots that somebody reads from or fills are dropped, so that a lease never changes under its reader and a
 * fill that began before the write is never found by a read that begins after it. Must not know SCSI, nor who reads.
 */

import { IserfsError } from '../errors.ts';
import { unlessAborted } from './abort.ts';
import type { BlockDevice, BlockDeviceInfo, Lease, LeaseEnded, WriteOptions } from './block-device.ts';
import { type BufferPool, MAX_RUN, type PoolBuffer } from './buffer-pool.ts';
import type { CacheStore } from './cache-store.ts';
import { type CachedRanges, EXTENT, Fill, PAGE, type Slot } from './cached-ranges.ts';
import type { DeviceChangeListener, WriteErrorListener } from './device-change.ts';
import { type Ended, type Failure, promised, tell } from './ended.ts';
import { HoleSearch } from './hole-search.ts';
import type { PageWindow } from './page-window.ts';
import { ReadAhead, type Stretch } from './read-ahead.ts';
import { type StageWrite, WriteStaging } from './write-staging.ts';

/** A device that the cache can stand before. One that tells of changes is listened to. */
export type CacheableDevice = BlockDevice & {
  /** `read`, told by a call. */
  startRead?(offset: number, into: Uint8Array, ended: Ended): void;
  onChange?(listener: DeviceChangeListener): () => void;
  onWriteError?(listener: WriteErrorListener): () => void;
};

export interface CachedDeviceStats {
  /** Reads that waited for no device, those that the window answered included. */
  readonly hits: number;
  readonly misses: number;
  readonly readaheadBytes: number;
}

export interface CachedDeviceParts {
  readonly pool: BufferPool;
  /** Absent: every read is a command of its own. */
  readonly store: CacheStore | undefined;
  readonly readahead: number;
  readonly staged: number;
}

/** The slots of one device, and where they are kept. */
interface Held {
  readonly store: CacheStore;
  readonly ranges: CachedRanges;
}

/** Slots in the way of a stream that are no longer than this are dropped rather than read around, a command for each gap. */
const LONGEST_IN_THE_WAY = 64 * 1024;

/** One device seen through the cache. Made by `BlockCache.attach`. */
export class CachedDevice {
  /** Takes a write of up to `MAX_RUN` bytes, to be acknowledged before the device has it. Undefined where nothing is staged: use `write`. */
  readonly stage: StageWrite | undefined;
  readonly #device: CacheableDevice;
  readonly #pool: BufferPool;
  readonly #held: Held | undefined;
  readonly #staging: WriteStaging | undefined;
  readonly #readAhead: ReadAhead;
  readonly #holes: HoleSearch;
  readonly #unsubscribe: () => void;
  #opens = 0;
  #hits = 0;
  #misses = 0;
  #readaheadBytes = 0;
  #readaheadInFlight = 0;

  constructor(device: CacheableDevice, { pool, store, readahead, staged }: CachedDeviceParts) {
    this.#device = device;
    this.#pool = pool;
    this.#held = store === undefined ? undefined : { store, ranges: store.register() };
    this.#readAhead = new ReadAhead(store === undefined ? 0 : Math.min(readahead, Math.floor(store.capacity / 4)));
    this.#holes = new HoleSearch(device, { keeps: () => store !== undefined && this.stagedBytes === 0 });
    this.#staging = staged === 0 ? undefined : this.#makeStaging(staged);
    this.stage = this.#staging === undefined ? undefined : (...write) => this.#staging?.stage(...write);
    this.#unsubscribe =
      device.onChange?.((change) => {
        if (change.type === 'contents') this.invalidate();
      }) ?? (() => {});
  }

  get info(): BlockDeviceInfo {
    return this.#device.info;
  }

  get stats(): CachedDeviceStats {
    const hits = this.#hits + (this.#held?.ranges.window?.hits ?? 0);
    return { hits, misses: this.#misses, readaheadBytes: this.#readaheadBytes };
  }

  /** Bytes of writes that were acknowledged and that the device does not have yet. */
  get stagedBytes(): number {
    return this.#staging?.bytes ?? 0;
  }

  /**
   * Leases the bytes of a range, where they lie: `ended` is called once, at once where nothing has to be waited for. It does
   * not throw: what fails at once is told so, too. Code `out-of-range` where the range leaves the device.
   */
  startRead(offset: number, length: number, ended: LeaseEnded): void {
    const refusal = this.#rangeFault(offset, length);
    if (refusal !== undefined) {
      ended(undefined, { error: refusal });
      return;
    }
    if (length === 0) {
      ended({ segments: [], release: () => {} });
      return;
    }
    const held = this.#held;
    const present = held === undefined ? undefined : validSlots(held.ranges, offset, offset + length);
    if (held !== undefined && present !== undefined) {
      this.#hits++;
      for (const slot of present) {
        held.store.pin(slot);
        held.store.touch(slot);
      }
      this.#noteUse(held, present, offset, length);
      ended(leaseOf(held.store, present, offset, length));
      return;
    }
    this.#misses++;
    // What does not fit in half of the cache would only push out everything else.
    if (held === undefined || length * 2 > held.store.capacity || !held.store.hasRoom) {
      this.#readDirectly(offset, length).then(ended, (error: unknown) => ended(undefined, { error }));
    } else this.#readThrough(held, offset, length, ended);
  }

  /** `startRead`, as a promise. */
  read(offset: number, length: number): Promise<Lease> {
    return new Promise((resolve, reject) => {
      this.startRead(offset, length, (lease, failure) => {
        if (lease === undefined) reject(failure?.error);
        else resolve(lease);
      });
    });
  }

  /** Resolves after GOOD from the device; see `BlockDevice.write`. What is held of the range follows, or leaves after a failure. */
  async write(offset: number, data: Uint8Array, options: WriteOptions = {}): Promise<void> {
    if (this.stage !== undefined) {
      this.#checkRange(offset, data.length);
      await endOf(this.stage, offset, data, options.memory);
      if (options.fua === true) await this.flush();
      return;
    }
    try {
      await this.#device.write(offset, data, options);
    } catch (error) {
      this.#drop(offset, data.length);
      throw error;
    }
    this.#update(offset, data);
  }

  /**
   * See `BlockDevice.zero`. What is staged of the range goes first, and nothing is held of it afterwards, whatever comes
   * of it. Code `unsupported` where the device has no such thing.
   */
  async zero(
    offset: number,
    length: number,
    options: { readonly mayUnmap: boolean; readonly signal?: AbortSignal },
  ): Promise<void> {
    this.#checkRange(offset, length);
    if (this.#device.zero === undefined) throw new IserfsError('unsupported', 'the device does not zero ranges');
    const written = this.#staging?.settledWithin(offset, length);
    if (written !== undefined) await unlessAborted(written, options.signal);
    try {
      await this.#device.zero(offset, length, options);
    } finally {
      this.#drop(offset, length);
    }
  }

  /** See `HoleSearch.seek`. Waits for what is staged. */
  async seek(
    offset: number,
    what: 'data' | 'hole',
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<number | undefined> {
    if (this.#staging !== undefined) await unlessAborted(this.#staging.settled(), options.signal);
    return await this.#holes.seek(offset, what, options.signal);
  }

  /** See `BlockDevice.flush`. Waits for what is staged, and fails with it. */
  async flush(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    if (this.#staging !== undefined) {
      const failure = await unlessAborted(this.#staging.settled(), options.signal);
      if (failure !== undefined) throw failure.error;
    }
    await this.#device.flush(options);
  }

  /** Calls `listener` when a write that the device acknowledged turns out to have failed. */
  onWriteError(listener: WriteErrorListener): () => void {
    return this.#device.onWriteError?.(listener) ?? (() => {});
  }

  /** Shows what is held, and what will be, in `window` from now on, and in no other one. A device of which nothing is kept shows nothing. */
  showIn(window: PageWindow | undefined): void {
    if (this.#held === undefined || this.#held.ranges.window === window) return;
    const { store, ranges } = this.#held;
    this.#hits += ranges.window?.hits ?? 0;
    store.moveTo(ranges, window);
    this.#hits -= window?.hits ?? 0;
  }

  /** Drops what is held of the device. */
  invalidate(): void {
    this.#drop(0, Number.MAX_SAFE_INTEGER);
    this.#readAhead.reset();
  }

  /** Somebody opens the device: the first to do so sees nothing from before. Pair it with `closed`. */
  opened(): void {
    if (this.#opens === 0) this.invalidate();
    this.#opens++;
  }

  closed(): void {
    if (this.#opens > 0) this.#opens--;
  }

  /** Drops everything, shows nothing and listens no more; the device itself is not touched. Read no more after it. */
  detach(): void {
    this.#unsubscribe();
    this.invalidate();
    this.showIn(undefined);
    if (this.#held !== undefined) this.#held.store.unregister(this.#held.ranges);
  }

  #makeStaging(bytes: number): WriteStaging {
    return new WriteStaging({
      device: this.#device,
      pool: this.#pool,
      bytes,
      taken: (offset, data) => this.#update(offset, data),
      failed: (offset, length) => this.#drop(offset, length),
    });
  }

  #checkRange(offset: number, length: number): void {
    const fault = this.#rangeFault(offset, length);
    if (fault !== undefined) throw fault;
  }

  #rangeFault(offset: number, length: number): IserfsError | undefined {
    const { size } = this.#device.info;
    if (offset >= 0 && length >= 0 && offset + length <= size && Number.isSafeInteger(offset) && Number.isInteger(length)) {
      return undefined;
    }
    return new IserfsError('out-of-range', `${length} bytes at ${offset} are not within the ${size} bytes of the device`);
  }

  /** Into memory that nobody else sees, one command where the device allows it. */
  async #readDirectly(offset: number, length: number): Promise<Lease> {
    await this.#staging?.settledWithin(offset, length);
    const buffers: PoolBuffer[] = [];
    const release = () => {
      for (const buffer of buffers) buffer.release();
    };
    try {
      for (let at = 0; at < length; at += MAX_RUN) buffers.push(this.#pool.acquire(Math.min(MAX_RUN, length - at)));
    } catch (error) {
      release();
      throw error;
    }
    const reads = buffers.map((buffer, index) => this.#device.read(offset + index * MAX_RUN, buffer.bytes));
    // The buffers are lent until the last read has settled, also where an earlier one failed.
    const outcomes = await Promise.allSettled(reads);
    for (const outcome of outcomes) {
      if (outcome.status === 'fulfilled') continue;
      release();
      throw outcome.reason;
    }
    return { segments: buffers.map((buffer) => buffer.bytes), release: once(release) };
  }

  #readThrough(held: Held, offset: number, length: number, ended: LeaseEnded): void {
    const { store } = held;
    const end = offset + length;
    const slots: Slot[] = [];
    try {
      for (let at = offset; at < end; ) {
        const slot = this.#slotAt(held, at, end);
        slots.push(slot);
        at = slot.end;
      }
    } catch (error) {
      // There is no memory.
      for (const slot of slots) store.unpin(slot);
      ended(undefined, { error });
      return;
    }
    this.#noteUse(held, slots, offset, length);
    let awaited = 1;
    let failure: Failure | undefined;
    const filled = (failed?: Failure) => {
      failure ??= failed;
      awaited--;
      if (awaited > 0) return;
      if (failure === undefined) {
        ended(leaseOf(store, slots, offset, length));
        return;
      }
      for (const slot of slots) store.unpin(slot);
      ended(undefined, failure);
    };
    for (const { fill } of slots) {
      if (fill === undefined) continue;
      awaited++;
      fill.wait(filled);
    }
    filled();
  }

  /** The slot that holds `at`, pinned; or a new one, which is being filled, and ends with the page in which `end` lies at the latest. */
  #slotAt({ store, ranges }: Held, at: number, end: number): Slot {
    const present = ranges.find(at);
    if (present !== undefined) {
      store.pin(present);
      store.touch(present);
      return present;
    }
    const start = at - (at % PAGE);
    const wanted = Math.min(Math.ceil(end / PAGE) * PAGE, start + store.longestSlot, this.#device.info.size);
    const slot = store.create(ranges, start, ranges.gapEnd(start, wanted));
    this.#fill(store, slot);
    return slot;
  }

  /** One command. The slot is pinned for as long as it may write into its memory. */
  #fill(store: CacheStore, slot: Slot): void {
    const fill = new Fill();
    slot.fill = fill;
    store.pin(slot);
    const ended = (failure?: Failure) => {
      if (failure === undefined) {
        slot.fill = undefined;
        store.show(slot);
      } else {
        // Whoever wants it again starts afresh.
        store.drop(slot);
      }
      store.unpin(slot);
      fill.end(failure);
    };
    const written = this.#staging?.settledWithin(slot.start, slot.length);
    if (written === undefined) this.#readInto(slot, ended);
    else void written.then(() => this.#readInto(slot, ended));
  }

  #readInto({ start, buffer }: Slot, ended: Ended): void {
    if (this.#device.startRead !== undefined) this.#device.startRead(start, buffer.bytes, ended);
    else tell(this.#device.read(start, buffer.bytes), ended);
  }

  /** Somebody reads from `slots`, which he has pinned: shows them, and fetches what he will want next. */
  #noteUse(held: Held, slots: readonly Slot[], offset: number, length: number): void {
    let wasAhead = false;
    for (const slot of slots) {
      if (!slot.isAhead) continue;
      wasAhead = true;
      slot.isAhead = false;
      held.store.show(slot);
    }
    const ahead = this.#readAhead.observe(offset, length, wasAhead);
    if (ahead === undefined) return;
    try {
      this.#fetchAhead(held, ahead);
    } catch {
      // There is no memory: who comes to it fetches it himself, or is told.
    }
  }

  #fetchAhead(held: Held, stretch: Stretch): void {
    const { store, ranges } = held;
    const end = Math.min(stretch.offset + stretch.length, this.#device.info.size);
    // To whole pages, so that the next stretch does not begin inside one that is on its way.
    for (let at = stretch.offset - (stretch.offset % PAGE); at < end; ) {
      const until = Math.min(end, at - (at % EXTENT) + EXTENT);
      clearTheWay(held, at, until);
      while (at < until) {
        const isNew = ranges.find(at) === undefined;
        if (isNew && (!store.hasRoom || this.#readaheadInFlight * 4 > store.capacity)) return;
        const slot = this.#slotAt(held, at, until);
        if (isNew && slot.fill !== undefined) {
          slot.isAhead = true;
          this.#countReadahead(slot.length, slot.fill);
        }
        store.unpin(slot);
        at = slot.end;
      }
    }
  }

  /** Failures of a fetch that nobody asked for are of no interest: who asks will see his own. */
  #countReadahead(length: number, fill: Fill): void {
    this.#readaheadBytes += length;
    this.#readaheadInFlight += length;
    fill.wait(() => {
      this.#readaheadInFlight -= length;
    });
  }

  /** The device has `data` at `offset`, or will have it before anything that is read from it. */
  #update(offset: number, data: Uint8Array): void {
    this.#holes.forget();
    if (this.#held === undefined) return;
    const { store, ranges } = this.#held;
    const end = offset + data.length;
    for (const slot of ranges.within(offset, end)) {
      if (slot.pins > 0) {
        store.drop(slot);
        continue;
      }
      const from = Math.max(offset, slot.start);
      store.patch(slot, from, data.subarray(from - offset, Math.min(end, slot.end) - offset));
    }
  }

  #drop(offset: number, length: number): void {
    this.#holes.forget();
    if (this.#held === undefined) return;
    const { store, ranges } = this.#held;
    for (const slot of ranges.within(offset, offset + length)) store.drop(slot);
  }
}

/** Drops short slots where they do not hold all of the range, so that one command can. */
function clearTheWay({ store, ranges }: Held, start: number, end: number): void {
  const slots = ranges.within(start, end);
  let held = 0;
  for (const slot of slots) held += Math.min(slot.end, end) - Math.max(slot.start, start);
  if (held >= end - start) return;
  for (const slot of slots) {
    if (slot.start >= start && slot.length <= LONGEST_IN_THE_WAY && slot.pins === 0) store.drop(slot);
  }
}

/** The slots that hold the range, if they do and all of it is valid. */
function validSlots(ranges: CachedRanges, offset: number, end: number): Slot[] | undefined {
  const first = ranges.find(offset);
  if (first === undefined || first.fill !== undefined) return undefined;
  const slots = [first];
  for (let at = first.end; at < end; ) {
    const slot = ranges.find(at);
    if (slot === undefined || slot.fill !== undefined) return undefined;
    slots.push(slot);
    at = slot.end;
  }
  return slots;
}

/** A lease of the part of slots, which are pinned for it, that a read asked for. */
function leaseOf(store: CacheStore, slots: readonly Slot[], offset: number, length: number): Lease {
  const end = offset + length;
  return {
    segments: slots.map((slot) => {
      const { bytes } = slot.buffer;
      return slot.start >= offset && slot.end <= end ? bytes : bytes.subarray(Math.max(0, offset - slot.start), end - slot.start);
    }),
    release: once(() => {
      for (const slot of slots) store.unpin(slot);
    }),
  };
}

/** Stages `data`, which may be of any length, and resolves when the device has it. */
async function endOf(stage: StageWrite, offset: number, data: Uint8Array, memory: WriteOptions['memory']): Promise<void> {
  const ends: Promise<void>[] = [];
  for (let at = 0; at < data.length; at += MAX_RUN) {
    const piece = data.subarray(at, at + MAX_RUN);
    ends.push(
      promised((ended) => void stage(offset + at, piece, ended, memory)?.over.catch((error: unknown) => ended({ error }))),
    );
  }
  for (const outcome of await Promise.allSettled(ends)) if (outcome.status === 'rejected') throw outcome.reason;
}

function once(release: () => void): () => void {
  let released = false;
  return () => {
    if (released) throw new Error('a lease was released twice');
    released = true;
    release();
  };
}
