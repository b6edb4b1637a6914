/**
 * The memory of the block cache: slots of pool memory, bounded in bytes over all devices, the least
 * recently used given up first (lru-cache as a plain store). A slot that is pinned, by a lease or by a
 * command that fills it, cannot be freed when its turn comes: it waits in limbo, found by nobody, until
 * the last pin is gone. Knows which pages of a slot are valid, not how they become so.
 */

import { LRUCache } from 'lru-cache';
import type { BufferPool, PoolBuffer } from './buffer-pool.ts';

/** The unit of validity. */
export const PAGE = 4096;
/** A small slot: what random reads use. */
export const BLOCK = 64 * 1024;
/** A large slot, aligned to its length: what long and sequential reads use, one command each. */
export const EXTENT = 256 * 1024;

/** A fill of some pages of a slot that is under way. */
export interface Fill {
  readonly firstPage: number;
  readonly endPage: number;
  /** Settles when the pages are there or will not come. */
  readonly done: Promise<void>;
}

/** Memory for an aligned range of one device. Slots of one device never overlap. */
export class Slot {
  readonly key: number;
  /** Offset on the device. */
  readonly start: number;
  readonly length: number;
  readonly buffer: PoolBuffer;
  /** One byte for each page: 1 where the memory holds what the device holds. */
  readonly valid: Uint8Array;
  fills: Fill[] = [];
  pins = 0;
  /** Found by lookups. Once false it stays so. */
  resident = true;

  constructor(key: number, start: number, length: number, buffer: PoolBuffer) {
    this.key = key;
    this.start = start;
    this.length = length;
    this.buffer = buffer;
    this.valid = new Uint8Array(length / PAGE);
  }

  get end(): number {
    return this.start + this.length;
  }
}

export class CacheStore {
  readonly capacity: number;
  readonly #pool: BufferPool;
  readonly #slots: LRUCache<number, Slot>;
  readonly #limbo = new Set<Slot>();
  #limboBytes = 0;
  #evictions = 0;
  #devices = 0;

  /** `capacity` in bytes, at least `BLOCK`. */
  constructor(pool: BufferPool, capacity: number) {
    this.capacity = capacity;
    this.#pool = pool;
    this.#slots = new LRUCache<number, Slot>({
      max: Math.ceil(capacity / BLOCK),
      maxSize: capacity,
      sizeCalculation: (slot) => slot.length,
      dispose: (slot, _key, reason) => {
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

  /** Whether large slots make sense at this capacity. */
  get hasExtents(): boolean {
    return this.capacity >= 8 * EXTENT;
  }

  /** Whether more memory may be taken: limbo is bounded by half the capacity. */
  get hasRoom(): boolean {
    return this.#limboBytes * 2 <= this.capacity;
  }

  /** A number for a device, to be used in all calls about it. */
  register(): number {
    return this.#devices++;
  }

  /** The slot of `length` (`BLOCK` or `EXTENT`) bytes that holds `offset`; makes it the most recently used. */
  find(device: number, length: number, offset: number): Slot | undefined {
    return this.#slots.get(keyOf(device, length, offset));
  }

  /** As `find`, without a claim to have used it. */
  peek(device: number, length: number, offset: number): Slot | undefined {
    return this.#slots.peek(keyOf(device, length, offset));
  }

  /** A new slot, pinned once, with no valid page. Evicts what is in the way. */
  create(device: number, length: number, offset: number): Slot {
    const start = offset - (offset % length);
    const slot = new Slot(keyOf(device, length, offset), start, length, this.#pool.acquire(length));
    slot.pins = 1;
    this.#slots.set(slot.key, slot);
    return slot;
  }

  pin(slot: Slot): void {
    slot.pins++;
  }

  unpin(slot: Slot): void {
    slot.pins--;
    if (slot.pins > 0 || slot.resident) return;
    this.#limbo.delete(slot);
    this.#limboBytes -= slot.length;
    slot.buffer.release();
  }

  /** Takes a slot out of sight; its memory goes with the last pin. */
  drop(slot: Slot): void {
    if (slot.resident) this.#slots.delete(slot.key);
  }

  /** Calls `visit` with each slot of `device` that touches the range. */
  visit(device: number, start: number, end: number, visit: (slot: Slot) => void): void {
    if ((end - start) / BLOCK > this.#slots.size) {
      for (const slot of [...this.#slots.values()]) {
        if (deviceOf(slot.key) === device && slot.start < end && slot.end > start) visit(slot);
      }
      return;
    }
    for (let extent = start - (start % EXTENT); extent < end; extent += EXTENT) {
      const large = this.peek(device, EXTENT, extent);
      if (large !== undefined) visit(large);
      for (let block = extent; block < extent + EXTENT && block < end; block += BLOCK) {
        const small = this.peek(device, BLOCK, block);
        if (small !== undefined && small.end > start) visit(small);
      }
    }
  }

  /** Throws where the books do not balance; for tests. */
  checkInvariants(): void {
    let limbo = 0;
    for (const slot of this.#limbo) {
      limbo += slot.length;
      if (slot.resident || slot.pins <= 0) throw new Error(`slot ${slot.start} does not belong in limbo`);
    }
    if (limbo !== this.#limboBytes) throw new Error('limbo is miscounted');
    if (this.bytes > this.capacity) throw new Error('the cache is over its bound');
    for (const slot of this.#slots.values()) {
      if (!slot.resident || slot.pins < 0) throw new Error(`slot ${slot.start} does not belong in the cache`);
    }
  }

  #retire(slot: Slot): void {
    slot.resident = false;
    if (slot.pins === 0) {
      slot.buffer.release();
      return;
    }
    this.#limbo.add(slot);
    this.#limboBytes += slot.length;
  }
}

/** 2^38 slots of each length cover 2^53 bytes; 2^14 devices fit above them in a safe integer. */
const SLOTS_PER_KIND = 2 ** 38;

function keyOf(device: number, length: number, offset: number): number {
  return (device * 2 + (length === EXTENT ? 1 : 0)) * SLOTS_PER_KIND + Math.floor(offset / length);
}

function deviceOf(key: number): number {
  return Math.floor(key / SLOTS_PER_KIND / 2);
}
