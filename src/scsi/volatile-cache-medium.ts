/**
 * A volatile write cache before another medium, as on a disk with its write cache on: a write lives in
 * this process's memory alone until `flush()`, a write with FUA, or until the bound makes it go to the
 * medium. Killed before that, it is lost. It shows what an initiator's fsync is worth.
 */

import type { Medium, MediumExtent } from './medium.ts';
import { checkMediumRange } from './medium-range.ts';

/** Bytes that were written and are not on the medium. Never changed: replaced. */
interface DirtyExtent {
  readonly offset: number;
  readonly data: Uint8Array;
}

export class VolatileCacheMedium implements Medium {
  readonly isVolatile = true;
  readonly #medium: Medium;
  readonly #limit: number;
  /** Ascending and without overlap. */
  #dirty: DirtyExtent[] = [];
  #dirtyBytes = 0;
  /** Everything that goes to the medium goes one after the other, so that an older write-back never overtakes a newer one. */
  #lastStep: Promise<void> = Promise.resolve();
  #closed: Promise<void> | undefined;

  /** `limit`: bytes that are held back at most; the write that exceeds it waits until all are on the medium. */
  constructor(medium: Medium, options: { readonly limit?: number } = {}) {
    this.#medium = medium;
    this.#limit = options.limit ?? 64 * 1024 * 1024;
  }

  get size(): number {
    return this.#medium.size;
  }

  get readOnly(): boolean {
    return this.#medium.readOnly;
  }

  get isThin(): boolean {
    return this.#medium.isThin;
  }

  /** Bytes that a kill would lose now. */
  get dirtyBytes(): number {
    return this.#dirtyBytes;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    // Taken before the medium is read: what is written back meanwhile is in here still.
    const overlay = this.#overlapping(offset, offset + into.length);
    await this.#medium.read(offset, into);
    for (const extent of overlay) {
      const start = Math.max(offset, extent.offset);
      const end = Math.min(offset + into.length, extent.offset + extent.data.length);
      into.set(extent.data.subarray(start - extent.offset, end - extent.offset), start - offset);
    }
  }

  async write(offset: number, from: Uint8Array, options?: { readonly fua?: boolean }): Promise<void> {
    if (this.readOnly) return this.#medium.write(offset, from);
    checkMediumRange(this.size, offset, from.length);
    if (from.length === 0) return;
    const end = offset + from.length;
    this.#replace(offset, end, [{ offset, data: from.slice() }]);
    if (options?.fua === true) await this.#step(() => this.#force(offset, end));
    else if (this.#dirtyBytes > this.#limit) await this.#step(() => this.#writeBack(this.#dirty));
  }

  flush(): Promise<void> {
    return this.#step(async () => {
      await this.#writeBack(this.#dirty);
      await this.#medium.flush();
    });
  }

  /** Goes to the medium at once. */
  discard(offset: number, length: number): Promise<void> {
    return this.#step(async () => {
      await this.#medium.discard(offset, length);
      this.#replace(offset, offset + length, []);
    });
  }

  /** As it will be after the write-back. */
  async extentAt(offset: number, length: number): Promise<MediumExtent> {
    checkMediumRange(this.size, offset, length);
    const dirty = this.#overlapping(offset, offset + length);
    let end = offset;
    for (const extent of dirty) if (extent.offset <= end) end = extent.offset + extent.data.length;
    if (end > offset) return { length: Math.min(length, end - offset), mapped: true };
    const clean = Math.min(length, (dirty[0]?.offset ?? Number.POSITIVE_INFINITY) - offset);
    return (await this.#medium.extentAt?.(offset, clean)) ?? { length: clean, mapped: true };
  }

  resize(size: number): Promise<void> {
    return this.#step(async () => {
      await this.#writeBack(this.#dirty);
      await this.#medium.resize(size);
    });
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.#medium.close();
    }
  }

  /** Runs `action` after every step before it; a step that fails fails its caller alone. */
  #step(action: () => Promise<void>): Promise<void> {
    const step = this.#lastStep.then(action);
    this.#lastStep = step.catch(() => {});
    return step;
  }

  async #force(start: number, end: number): Promise<void> {
    await this.#writeBack(this.#overlapping(start, end));
    await this.#medium.flush();
  }

  /** Extents stay in the cache until they are on the medium; one that was replaced meanwhile stays replaced. */
  async #writeBack(extents: readonly DirtyExtent[]): Promise<void> {
    const written = new Set<DirtyExtent>();
    try {
      for (const extent of [...extents]) {
        await this.#medium.write(extent.offset, extent.data);
        written.add(extent);
      }
    } finally {
      this.#dirty = this.#dirty.filter((extent) => !written.has(extent));
      this.#dirtyBytes = bytesIn(this.#dirty);
    }
  }

  #overlapping(start: number, end: number): readonly DirtyExtent[] {
    const from = this.#firstEndingAfter(start);
    let to = from;
    while (to < this.#dirty.length && (this.#dirty[to]?.offset ?? end) < end) to++;
    return this.#dirty.slice(from, to);
  }

  /** Cuts `start` to `end` out of the dirty extents and puts `replacement` there. */
  #replace(start: number, end: number, replacement: readonly DirtyExtent[]): void {
    const from = this.#firstEndingAfter(start);
    const cut = this.#overlapping(start, end);
    const rest: DirtyExtent[] = [];
    for (const { offset, data } of cut) {
      if (offset < start) rest.push({ offset, data: data.slice(0, start - offset) });
    }
    rest.push(...replacement);
    for (const { offset, data } of cut) {
      if (offset + data.length > end) rest.push({ offset: end, data: data.slice(end - offset) });
    }
    this.#dirty.splice(from, cut.length, ...rest);
    this.#dirtyBytes += bytesIn(rest) - bytesIn(cut);
  }

  /** Index of the first dirty extent whose end lies beyond `offset`. */
  #firstEndingAfter(offset: number): number {
    let low = 0;
    let high = this.#dirty.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const extent = this.#dirty[middle];
      if (extent !== undefined && extent.offset + extent.data.length <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function bytesIn(extents: readonly DirtyExtent[]): number {
  return extents.reduce((sum, extent) => sum + extent.data.length, 0);
}
