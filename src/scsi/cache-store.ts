/**
 * The memory of the block cache: slots of pool memory, bounded in bytes over all devices, the least
 * recently used given up first (lru-cache as a plain store). A slot holds a run of whole pages of one
 * device as one command brings it: 4 KiB for a small random read, 1 MiB for a stream, so that neither
 * wastes memory or commands. A slot that is pinned, by a lease or by the command that fills it, cannot be
 * freed when its turn comes: it waits in limbo, found by nobody, until the last pin is gone. Where a device
 * has a window, what is valid is shown there, and hidden before the memory changes or goes.
 */

import { LRUCache } from 'lru-cache';
import { type BufferPool, runLengthFor } from './buffer-pool.ts';
import { CachedRanges, EXTENT, PAGE, Slot } from './cached-ranges.ts';
import type { PageWindow } from './page-window.ts';

/** A cache of less than this is none. */
export const LEAST_CAPACITY = 64 * 1024;

/** To ask a window costs as much as an eviction, and it remembers many more hits than come meanwhile. */
const EVICTIONS_BETWEEN_LOOKS = 32;

export class CacheStore {
  readonly capacity: number;
  /** Longest slot: in a small cache a fraction of it. */
  readonly longestSlot: number;
  readonly #pool: BufferPool;
  readonly #slots: LRUCache<number, Slot>;
  readonly #devices = new Set<CachedRanges>();
  readonly #limbo = new Set<Slot>();
  #limboBytes = 0;
  #evictions = 0;
  #lastId = 0;
  /** After how many evictions windows were asked for their hits. */
  #hitsNotedAt = Number.NEGATIVE_INFINITY;

  /** `capacity` in bytes, at least `LEAST_CAPACITY`. */
  constructor(pool: BufferPool, capacity: number) {
    this.capacity = capacity;
    this.longestSlot = Math.min(EXTENT, 2 ** Math.floor(Math.log2(capacity / 4)));
    this.#pool = pool;
    this.#slots = new LRUCache<number, Slot>({
      maxSize: capacity,
      sizeCalculation: (slot) => slot.footprint,
      dispose: (slot, _id, reason) => {
        if (reason === 'evict') this.#evictions++;
        this.#retire(slot);
      },
    });
  }

  /** Bytes in slots that lookups find. */
  get bytes(): number {
    return this.#slots.calculatedSize;
  }

  /** Bytes that are given up but pinned. */
  get limboBytes(): number {
    return this.#limboBytes;
  }

  get slots(): number {
    return this.#slots.size;
  }

  get evictions(): number {
    return this.#evictions;
  }

  /** Whether more memory may be taken: limbo is bounded by half the capacity. */
  get hasRoom(): boolean {
    return this.#limboBytes * 2 <= this.capacity;
  }

  /** A place for the slots of one more device. */
  register(): CachedRanges {
    const device = new CachedRanges();
    this.#devices.add(device);
    return device;
  }

  /** The device, all of whose slots were dropped, does not come back. */
  unregister(device: CachedRanges): void {
    this.#devices.delete(device);
  }

  /** Makes the slot the most recently used. */
  touch(slot: Slot): void {
    this.#slots.get(slot.id);
  }

  /** A slot for `[start, end)`, pinned once and with nothing in it, where there is none. Evicts what is in the way. */
  create(device: CachedRanges, start: number, end: number): Slot {
    const slot = this.#evictFor(end - start) ?? this.#newSlot(device, start, end);
    slot.device = device;
    slot.start = start;
    slot.end = end;
    slot.isAhead = false;
    slot.pins = 1;
    device.add(slot);
    return slot;
  }

  pin(slot: Slot): void {
    slot.pins++;
  }

  unpin(slot: Slot): void {
    slot.pins--;
    if (slot.pins > 0 || slot.isResident) return;
    this.#limbo.delete(slot);
    this.#limboBytes -= slot.footprint;
    slot.buffer.release();
  }

  /** Takes a slot out of sight; its memory goes with the last pin. */
  drop(slot: Slot): void {
    if (slot.isResident) this.#slots.delete(slot.id);
  }

  /** Shows a slot in its device's window, if it is to be seen there. */
  show(slot: Slot): void {
    const { window } = slot.device;
    if (window === undefined || !slot.isResident || slot.isAhead || slot.isShown || slot.fill !== undefined) return;
    slot.isShown = true;
    window.show(slot.start, slot.buffer.bytes);
  }

  /** Hides what is shown of a device, and shows it in `window` from now on. */
  moveTo(device: CachedRanges, window: PageWindow | undefined): void {
    const slots = device.within(0, Number.MAX_SAFE_INTEGER);
    for (const slot of slots) this.#hide(slot);
    device.window = window;
    for (const slot of slots) this.show(slot);
  }

  /** Writes `data` into a valid slot that nobody has pinned. `from` is its place on the device, within the slot. */
  patch(slot: Slot, from: number, data: Uint8Array): void {
    const { bytes } = slot.buffer;
    const { window } = slot.device;
    if (window === undefined || !slot.isShown) {
      bytes.set(data, from - slot.start);
      return;
    }
    const first = from - (from % PAGE);
    const end = Math.min(slot.end, Math.ceil((from + data.length) / PAGE) * PAGE);
    window.hide(first, end - first);
    bytes.set(data, from - slot.start);
    window.show(first, bytes.subarray(first - slot.start, end - slot.start));
  }

  /** Throws where the books do not balance; for tests. */
  checkInvariants(): void {
    let limbo = 0;
    for (const slot of this.#limbo) {
      limbo += slot.footprint;
      if (slot.isResident || slot.isShown || slot.pins <= 0) throw new Error(`slot ${slot.start} does not belong in limbo`);
    }
    if (limbo !== this.#limboBytes) throw new Error('limbo is miscounted');
    if (this.bytes > this.capacity) throw new Error('the cache is over its bound');
    for (const slot of this.#slots.values()) {
      if (!slot.isResident || slot.pins < 0) throw new Error(`slot ${slot.start} does not belong in the cache`);
    }
    let count = 0;
    for (const device of this.#devices) {
      let end = 0;
      for (const slot of device.within(0, Number.MAX_SAFE_INTEGER)) {
        if (slot.start < end || !slot.isResident) throw new Error(`slot ${slot.start} is in the way of another one`);
        end = slot.end;
        count++;
      }
    }
    if (count !== this.slots) throw new Error('slots are missing');
  }

  #newSlot(device: CachedRanges, start: number, end: number): Slot {
    const slot = new Slot(++this.#lastId, device, start, end, this.#pool.acquire(end - start));
    this.#slots.set(slot.id, slot);
    return slot;
  }

  /**
   * Makes room for `length` bytes. A slot that would have to go, and has just as many, is returned to be used again: a
   * cache that is full of pages makes and drops no slots then.
   */
  #evictFor(length: number): Slot | undefined {
    const footprint = runLengthFor(length);
    if (this.#slots.calculatedSize + footprint <= this.capacity) return undefined;
    this.#noteHits();
    const oldest = this.#oldest();
    if (oldest?.pins === 0 && oldest.length === length) {
      this.#evictions++;
      this.#takeOut(oldest);
      this.touch(oldest);
      return oldest;
    }
    while (this.#slots.calculatedSize + footprint > this.capacity && this.#slots.size > 0) this.#slots.pop();
    return undefined;
  }

  #oldest(): Slot | undefined {
    return this.#slots.rvalues().next().value ?? undefined;
  }

  /** What somebody else read from windows counts as used before anything has to go: they are asked now and then. */
  #noteHits(): void {
    if (this.#evictions < this.#hitsNotedAt + EVICTIONS_BETWEEN_LOOKS) return;
    this.#hitsNotedAt = this.#evictions;
    for (const device of this.#devices) {
      if (device.window === undefined || device.isEmpty) continue;
      device.window.takeHits((offset) => {
        const slot = device.find(offset);
        if (slot !== undefined) this.touch(slot);
      });
    }
  }

  #hide(slot: Slot): void {
    if (!slot.isShown) return;
    slot.isShown = false;
    slot.device.window?.hide(slot.start, slot.length);
  }

  /** Lookups find it no more. */
  #takeOut(slot: Slot): void {
    slot.device.remove(slot);
    this.#hide(slot);
  }

  #retire(slot: Slot): void {
    slot.isResident = false;
    this.#takeOut(slot);
    if (slot.pins === 0) {
      slot.buffer.release();
      return;
    }
    this.#limbo.add(slot);
    this.#limboBytes += slot.footprint;
  }
}
