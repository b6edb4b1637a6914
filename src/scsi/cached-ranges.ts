/**
 * What a cache holds of one device: slots of pool memory, each a run of whole pages, and which of them has which page. Knows
 * neither what bounds the memory nor who fills it.
 */

import { MAX_RUN, type PoolBuffer, runLengthFor } from './buffer-pool.ts';
import type { Ended, Failure } from './ended.ts';
import { PageTable } from './page-table.ts';
import { type PageWindow, WINDOW_PAGE } from './page-window.ts';

/** Slots begin and end at multiples of this, but for the end of the device. */
export const PAGE = WINDOW_PAGE;
/** Slots do not cross multiples of this. */
export const EXTENT = MAX_RUN;

/** The command that fills a slot, and who waits for its end. */
export class Fill {
  #first: Ended | undefined;
  #others: Ended[] | undefined;
  #hasEnded = false;
  #failure: Failure | undefined;

  /** Calls `ended` when the command ends; at once where it has. */
  wait(ended: Ended): void {
    if (this.#hasEnded) ended(this.#failure);
    else if (this.#first === undefined) this.#first = ended;
    else {
      this.#others ??= [];
      this.#others.push(ended);
    }
  }

  end(failure: Failure | undefined): void {
    this.#hasEnded = true;
    this.#failure = failure;
    this.#first?.(failure);
    for (const ended of this.#others ?? []) ended(failure);
  }
}

/** Memory for a range of one device. Slots of one device never overlap. Changed by `CacheStore` alone, but for `fill` and `isAhead`. */
export class Slot {
  readonly id: number;
  readonly buffer: PoolBuffer;
  device: CachedRanges;
  /** Offsets on the device. */
  start: number;
  end: number;
  /** Undefined once all of the slot is valid. */
  fill: Fill | undefined;
  /** Fetched ahead, and not asked for yet: not shown, so that the reader who reaches it comes by and has more fetched. */
  isAhead = false;
  isShown = false;
  /** Who reads from it or fills it. While there are none, the slot may be given another range. */
  pins = 0;
  /** Found by lookups. Once false it stays so. */
  isResident = true;

  constructor(id: number, device: CachedRanges, start: number, end: number, buffer: PoolBuffer) {
    this.id = id;
    this.device = device;
    this.start = start;
    this.end = end;
    this.buffer = buffer;
  }

  get length(): number {
    return this.end - this.start;
  }

  /** The pool memory that it takes. */
  get footprint(): number {
    return runLengthFor(this.end - this.start);
  }
}

/** The slots of one device, by place. Changed by `CacheStore` alone. */
export class CachedRanges {
  window: PageWindow | undefined;
  /** The slots that are an extent, as those of a stream are, by its number. */
  readonly #whole = new PageTable<Slot>();
  /** The others, each under the numbers of all its pages. */
  readonly #parts = new PageTable<Slot>();

  get isEmpty(): boolean {
    return this.#whole.size + this.#parts.size === 0;
  }

  /** The slot that holds `offset`. */
  find(offset: number): Slot | undefined {
    const slot = this.#parts.size === 0 ? undefined : this.#parts.get(Math.floor(offset / PAGE));
    if (slot !== undefined && offset < slot.end) return slot;
    return this.#whole.size === 0 ? undefined : this.#whole.get(Math.floor(offset / EXTENT));
  }

  /** The slots that touch the range, ascending. */
  within(start: number, end: number): readonly Slot[] {
    if ((end - start) / PAGE > this.#whole.size + this.#parts.size) return this.#among(start, end);
    let found: Slot[] | undefined;
    for (let at = start; at < end; ) {
      const slot = this.find(at);
      at = slot?.end ?? at - (at % PAGE) + PAGE;
      if (slot === undefined) continue;
      found ??= [];
      found.push(slot);
    }
    return found ?? NONE;
  }

  /** How far a new slot at `start`, which no slot holds, may reach, if not to `end`. */
  gapEnd(start: number, end: number): number {
    const most = Math.min(end, start - (start % EXTENT) + EXTENT);
    if (this.#parts.size === 0) return most;
    for (let next = start + PAGE; next < most; next += PAGE) if (this.#parts.get(next / PAGE) !== undefined) return next;
    return most;
  }

  add(slot: Slot): void {
    if (slot.length === EXTENT) {
      this.#whole.set(slot.start / EXTENT, slot);
      return;
    }
    const end = slot.end / PAGE;
    for (let page = slot.start / PAGE; page < end; page++) this.#parts.set(page, slot);
  }

  remove(slot: Slot): void {
    if (slot.length === EXTENT) {
      this.#whole.delete(slot.start / EXTENT);
      return;
    }
    const end = slot.end / PAGE;
    for (let page = slot.start / PAGE; page < end; page++) this.#parts.delete(page);
  }

  /** As `within`, where the range has more pages than there are slots. */
  #among(start: number, end: number): readonly Slot[] {
    const found: Slot[] = [];
    const note = (slot: Slot, at: number) => {
      // Of a slot of several pages, under the first.
      if (at === slot.start && slot.start < end && slot.end > start) found.push(slot);
    };
    this.#whole.visit((slot, extent) => note(slot, extent * EXTENT));
    this.#parts.visit((slot, page) => note(slot, page * PAGE));
    return found.sort((one, other) => one.start - other.start);
  }
}

const NONE: readonly Slot[] = [];
