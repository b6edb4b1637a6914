/**
 * The read cache: one `BlockCache` per mount, bounded in bytes over all its devices; each device is seen
 * through a `CachedDevice`. Reads are leases of cache memory, without a copy. Writes go to the device
 * first and are then put into what is held of the range (I7): the cache never holds the only copy of
 * anything, and dropping a slot is always allowed.
 *
 * Coherence in one paragraph: a page is valid only if the command that filled it ended before any
 * overlapping write of this mount ended, or began after it. Whenever a write ends, slots of its range that are idle
 * are patched; slots that somebody reads from or fills are dropped, so that a lease never changes under
 * its reader and a fill that began before the write is never found by a read that begins after it. Must
 * not know SCSI, nor who reads.
 */

import { IserfsError } from '../errors.ts';
import { unlessAborted } from './abort.ts';
import type { BlockDevice, BlockDeviceInfo, Lease } from './block-device.ts';
import { type BufferPool, MAX_RUN, type PoolBuffer } from './buffer-pool.ts';
import { BLOCK, CacheStore, EXTENT, PAGE, type Slot } from './cache-store.ts';
import type { DeviceChangeListener, WriteErrorListener } from './device-change.ts';
import { HoleSearch } from './hole-search.ts';
import { ReadAhead, type Stretch } from './read-ahead.ts';

/** A device that the cache can stand before. One that tells of changes is listened to. */
export type CacheableDevice = BlockDevice & {
  onChange?(listener: DeviceChangeListener): () => void;
  onWriteError?(listener: WriteErrorListener): () => void;
};

export interface BlockCacheOptions {
  readonly pool: BufferPool;
  /** Bound of the memory that is kept; less than 64 KiB switches the cache, and read-ahead with it, off. */
  readonly bytes: number;
  /** Most bytes to fetch ahead of each sequential reader; 0 switches it off. */
  readonly readahead: number;
}

export interface BlockCacheStats {
  readonly capacity: number;
  readonly bytes: number;
  /** Given up, but still being read or filled. */
  readonly limboBytes: number;
  readonly slots: number;
  readonly evictions: number;
}

export interface CachedDeviceStats {
  /** Reads that waited for no device. */
  readonly hits: number;
  readonly misses: number;
  readonly readaheadBytes: number;
}

export class BlockCache {
  readonly #options: BlockCacheOptions;
  readonly #store: CacheStore | undefined;

  constructor(options: BlockCacheOptions) {
    this.#options = options;
    this.#store = options.bytes < BLOCK ? undefined : new CacheStore(options.pool, options.bytes);
  }

  get stats(): BlockCacheStats {
    const store = this.#store;
    return {
      capacity: store?.capacity ?? 0,
      bytes: store?.bytes ?? 0,
      limboBytes: store?.limboBytes ?? 0,
      slots: store?.slots ?? 0,
      evictions: store?.evictions ?? 0,
    };
  }

  /** `shared`: others write to the device as well, so that nothing is answered from memory. */
  attach(device: CacheableDevice, options: { readonly shared?: boolean } = {}): CachedDevice {
    const store = options.shared === true ? undefined : this.#store;
    const readahead = store === undefined ? 0 : Math.min(this.#options.readahead, Math.floor(store.capacity / 4));
    return new CachedDevice(device, this.#options.pool, store, readahead);
  }

  /** Throws where the books do not balance; for tests. */
  checkInvariants(): void {
    this.#store?.checkInvariants();
  }
}

/** One device seen through the cache. Made by `BlockCache.attach`. */
export class CachedDevice {
  readonly #device: CacheableDevice;
  readonly #pool: BufferPool;
  /** Absent: every read is a command of its own. */
  readonly #store: CacheStore | undefined;
  readonly #id: number;
  readonly #readAhead: ReadAhead;
  readonly #holes: HoleSearch;
  readonly #unsubscribe: () => void;
  #opens = 0;
  #hits = 0;
  #misses = 0;
  #readaheadBytes = 0;
  #readaheadInFlight = 0;

  constructor(device: CacheableDevice, pool: BufferPool, store: CacheStore | undefined, readahead: number) {
    this.#device = device;
    this.#pool = pool;
    this.#store = store;
    this.#id = store?.register() ?? 0;
    this.#readAhead = new ReadAhead(readahead);
    this.#holes = new HoleSearch(device, { keeps: () => store !== undefined });
    this.#unsubscribe =
      device.onChange?.((change) => {
        if (change.type === 'contents') this.invalidate();
      }) ?? (() => {});
  }

  get info(): BlockDeviceInfo {
    return this.#device.info;
  }

  get stats(): CachedDeviceStats {
    return { hits: this.#hits, misses: this.#misses, readaheadBytes: this.#readaheadBytes };
  }

  /**
   * The bytes of a range, where they lie; release the lease when they are used. Throws `out-of-range`
   * where the range leaves the device. `signal` ends the wait; a command that others may wait for goes on.
   */
  async read(offset: number, length: number, options: { readonly signal?: AbortSignal } = {}): Promise<Lease> {
    this.#checkRange(offset, length);
    if (length === 0) return { segments: [], release: () => {} };
    const store = this.#store;
    if (store === undefined) return await this.#readDirectly(offset, length, options);
    const ahead = this.#readAhead.observe(offset, length);
    // What does not fit in half of the cache would only push out everything else.
    if (length * 2 > store.capacity || !store.hasRoom) return await this.#readDirectly(offset, length, options);
    const lease = this.#readThrough(store, offset, length, options.signal);
    if (ahead !== undefined) this.#fetchAhead(store, ahead);
    return await lease;
  }

  /** Resolves after GOOD from the device; see `BlockDevice.write`. What is held of the range follows, or leaves after a failure. */
  async write(
    offset: number,
    data: Uint8Array,
    options: { readonly signal?: AbortSignal; readonly fua?: boolean } = {},
  ): Promise<void> {
    try {
      await this.#device.write(offset, data, options);
    } catch (error) {
      this.#store?.visit(this.#id, offset, offset + data.length, (slot) => this.#store?.drop(slot));
      throw error;
    } finally {
      this.#holes.forget();
    }
    this.#store?.visit(this.#id, offset, offset + data.length, (slot) => this.#update(slot, offset, data));
  }

  /** See `BlockDevice.zero`. What is held of the range leaves, whatever comes of it. Code `unsupported` where the device has no such thing. */
  async zero(
    offset: number,
    length: number,
    options: { readonly mayUnmap: boolean; readonly signal?: AbortSignal },
  ): Promise<void> {
    this.#checkRange(offset, length);
    if (this.#device.zero === undefined) throw new IserfsError('unsupported', 'the device does not zero ranges');
    try {
      await this.#device.zero(offset, length, options);
    } finally {
      this.#store?.visit(this.#id, offset, offset + length, (slot) => this.#store?.drop(slot));
      this.#holes.forget();
    }
  }

  /** See `HoleSearch.seek`. */
  seek(offset: number, what: 'data' | 'hole', options: { readonly signal?: AbortSignal } = {}): Promise<number | undefined> {
    return this.#holes.seek(offset, what, options.signal);
  }

  /** See `BlockDevice.flush`. */
  async flush(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    await this.#device.flush(options);
  }

  /** Calls `listener` when a write that was acknowledged turns out to have failed. */
  onWriteError(listener: WriteErrorListener): () => void {
    return this.#device.onWriteError?.(listener) ?? (() => {});
  }

  /** Drops what is held of the device. */
  invalidate(): void {
    const store = this.#store;
    store?.visit(this.#id, 0, Number.MAX_SAFE_INTEGER, (slot) => store.drop(slot));
    this.#readAhead.reset();
    this.#holes.forget();
  }

  /** Somebody opens the device: the first to do so sees nothing from before. Pair it with `closed`. */
  opened(): void {
    if (this.#opens === 0) this.invalidate();
    this.#opens++;
  }

  closed(): void {
    if (this.#opens > 0) this.#opens--;
  }

  /** Drops everything and listens no more; the device itself is not touched. */
  detach(): void {
    this.#unsubscribe();
    this.invalidate();
  }

  #checkRange(offset: number, length: number): void {
    const { size } = this.#device.info;
    if (offset >= 0 && length >= 0 && offset + length <= size && Number.isSafeInteger(offset) && Number.isInteger(length)) return;
    throw new IserfsError('out-of-range', `${length} bytes at ${offset} are not within the ${size} bytes of the device`);
  }

  /** Into memory that nobody else sees, one command where the device allows it. */
  async #readDirectly(offset: number, length: number, options: { readonly signal?: AbortSignal }): Promise<Lease> {
    this.#misses++;
    const buffers: PoolBuffer[] = [];
    for (let at = 0; at < length; at += MAX_RUN) buffers.push(this.#pool.acquire(Math.min(MAX_RUN, length - at)));
    const release = () => {
      for (const buffer of buffers) buffer.release();
    };
    const reads = buffers.map((buffer, index) => this.#device.read(offset + index * MAX_RUN, buffer.bytes, options));
    // The buffers are lent until the last read has settled, also where an earlier one failed.
    const outcomes = await Promise.allSettled(reads);
    for (const outcome of outcomes) {
      if (outcome.status === 'fulfilled') continue;
      release();
      throw outcome.reason;
    }
    return { segments: buffers.map((buffer) => buffer.bytes), release: once(release) };
  }

  async #readThrough(store: CacheStore, offset: number, length: number, signal: AbortSignal | undefined): Promise<Lease> {
    const end = offset + length;
    const pinned: Slot[] = [];
    const segments: Uint8Array[] = [];
    const pending: Promise<void>[] = [];
    const release = () => {
      for (const slot of pinned) store.unpin(slot);
    };
    try {
      for (let at = offset; at < end; ) {
        const slot = this.#slotFor(store, at, end);
        pinned.push(slot);
        const until = Math.min(end, slot.end);
        this.#request(store, slot, at, until, pending);
        segments.push(slot.buffer.bytes.subarray(at - slot.start, until - slot.start));
        at = until;
      }
      if (pending.length === 0) this.#hits++;
      else {
        this.#misses++;
        await unlessAborted(Promise.all(pending), signal);
      }
    } catch (error) {
      ignoreFailures(pending);
      release();
      throw error;
    }
    return { segments, release: once(release) };
  }

  /** A slot, pinned, that holds `at`: one that is there, or a new one of a length that suits a use up to `end`. */
  #slotFor(store: CacheStore, at: number, end: number): Slot {
    const present = store.find(this.#id, EXTENT, at) ?? store.find(this.#id, BLOCK, at);
    if (present !== undefined) {
      store.pin(present);
      return present;
    }
    const extent = at - (at % EXTENT);
    const wanted = Math.min(end, extent + EXTENT) - at;
    return store.create(this.#id, wanted > BLOCK && this.#hasNoBlocks(store, extent) ? EXTENT : BLOCK, at);
  }

  #hasNoBlocks(store: CacheStore, extent: number): boolean {
    if (!store.hasExtents) return false;
    for (let block = extent; block < extent + EXTENT; block += BLOCK) {
      if (store.peek(this.#id, BLOCK, block) !== undefined) return false;
    }
    return true;
  }

  /** Has the pages of `[from, to)` filled that are neither valid nor on their way; adds what has to be waited for to `pending`. */
  #request(store: CacheStore, slot: Slot, from: number, to: number, pending: Promise<void>[]): void {
    const first = Math.floor((from - slot.start) / PAGE);
    const end = Math.ceil((to - slot.start) / PAGE);
    for (const fill of slot.fills) {
      if (fill.firstPage < end && fill.endPage > first) pending.push(fill.done);
    }
    let page = first;
    while (page < end) {
      if (!isMissing(slot, page)) {
        page++;
        continue;
      }
      const start = page;
      while (page < end && isMissing(slot, page)) page++;
      pending.push(this.#fill(store, slot, start, page));
    }
  }

  /** One command. The slot is pinned for as long as it may write into its memory. */
  #fill(store: CacheStore, slot: Slot, firstPage: number, endPage: number): Promise<void> {
    const from = slot.start + firstPage * PAGE;
    const to = Math.min(slot.start + endPage * PAGE, this.#device.info.size);
    const into = slot.buffer.bytes.subarray(from - slot.start, to - slot.start);
    const fill = { firstPage, endPage, done: Promise.resolve() };
    const run = async () => {
      try {
        await this.#device.read(from, into);
        slot.valid.fill(1, firstPage, endPage);
      } catch (error) {
        // Nothing of this slot may be worth keeping; whoever wants it again starts afresh.
        store.drop(slot);
        throw error;
      } finally {
        slot.fills = slot.fills.filter((other) => other !== fill);
        store.unpin(slot);
      }
    };
    store.pin(slot);
    slot.fills.push(fill);
    fill.done = run();
    return fill.done;
  }

  /** A write of `data` at `offset` has ended GOOD. */
  #update(slot: Slot, offset: number, data: Uint8Array): void {
    if (slot.pins > 0) {
      this.#store?.drop(slot);
      return;
    }
    const from = Math.max(offset, slot.start);
    const to = Math.min(offset + data.length, slot.end);
    // Pages that are not valid are overwritten when they are filled.
    slot.buffer.bytes.set(data.subarray(from - offset, to - offset), from - slot.start);
  }

  #fetchAhead(store: CacheStore, stretch: Stretch): void {
    const end = Math.min(stretch.offset + stretch.length, this.#device.info.size);
    // To whole blocks, so that the next stretch does not begin inside a page that is on its way.
    const from = stretch.offset - (stretch.offset % PAGE);
    for (let at = from; at < end; ) {
      if (!store.hasRoom || this.#readaheadInFlight * 4 > store.capacity) return;
      const slot = this.#slotFor(store, at, end);
      const until = Math.min(end, slot.end);
      const pending: Promise<void>[] = [];
      const fills = slot.fills.length;
      this.#request(store, slot, at, until, pending);
      if (slot.fills.length > fills) this.#countReadahead(until - at, pending);
      else ignoreFailures(pending);
      store.unpin(slot);
      at = until;
    }
  }

  #countReadahead(length: number, pending: readonly Promise<void>[]): void {
    this.#readaheadBytes += length;
    this.#readaheadInFlight += length;
    void Promise.allSettled(pending).then(() => {
      this.#readaheadInFlight -= length;
    });
  }
}

function isMissing(slot: Slot, page: number): boolean {
  if (slot.valid[page] === 1) return false;
  return !slot.fills.some((fill) => page >= fill.firstPage && page < fill.endPage);
}

/** Failures of a fetch that nobody asked for are of no interest: who asks will see his own. */
function ignoreFailures(pending: readonly Promise<void>[]): void {
  void Promise.allSettled(pending);
}

function once(release: () => void): () => void {
  let released = false;
  return () => {
    if (released) throw new Error('a lease was released twice');
    released = true;
    release();
  };
}
