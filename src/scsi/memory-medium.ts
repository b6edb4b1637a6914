/**
 * A medium in memory: sparse, of any size. Only chunks that were written take memory; holes read as
 * zeros. What it holds goes with the process, as the power does for it: it calls itself not volatile,
 * because nothing that it could do would make a write safer. Its bytes are lent where they lie; where an
 * RDMA transport is to send them, its chunks are arenas of that transport's memory.
 */

import type { ArenaSource } from './buffer-pool.ts';
import type { Medium, MediumExtent } from './medium.ts';
import { checkMediumRange, checkMediumSize } from './medium-range.ts';

const CHUNK = 256 * 1024;

export class MemoryMedium implements Medium {
  readonly readOnly = false;
  readonly isVolatile = false;
  readonly isThin = true;
  /** By index; a chunk is a hole or `CHUNK` bytes. */
  readonly #chunks = new Map<number, Uint8Array<ArrayBuffer>>();
  readonly #source: ArenaSource | undefined;
  #size: number;

  /** `source`: where its memory comes from, if not from the heap. */
  constructor(size: number, source?: ArenaSource) {
    checkMediumSize(size);
    this.#size = size;
    this.#source = source;
  }

  get size(): number {
    return this.#size;
  }

  /** Bytes of memory that the contents take. */
  get allocated(): number {
    return this.#chunks.size * CHUNK;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    checkMediumRange(this.#size, offset, into.length);
    for (const part of partsOf(offset, into.length)) {
      const chunk = this.#chunks.get(part.index);
      const target = into.subarray(part.dataOffset, part.dataOffset + part.length);
      if (chunk === undefined) target.fill(0);
      else target.set(chunk.subarray(part.skip, part.skip + part.length));
    }
  }

  lend(offset: number, length: number): Uint8Array | undefined {
    if (offset + length > this.#size) return undefined; // reading it says what is wrong
    const index = Math.floor(offset / CHUNK);
    const skip = offset - index * CHUNK;
    return this.#chunks.get(index)?.subarray(skip, Math.min(CHUNK, skip + length));
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    checkMediumRange(this.#size, offset, from.length);
    for (const part of partsOf(offset, from.length)) {
      let chunk = this.#chunks.get(part.index);
      if (chunk === undefined) {
        chunk = this.#source === undefined ? new Uint8Array(CHUNK) : new Uint8Array(this.#source.allocate(CHUNK));
        this.#chunks.set(part.index, chunk);
      }
      chunk.set(from.subarray(part.dataOffset, part.dataOffset + part.length), part.skip);
    }
  }

  async flush(): Promise<void> {}

  async discard(offset: number, length: number): Promise<void> {
    checkMediumRange(this.#size, offset, length);
    this.#clear(offset, offset + length);
  }

  async extentAt(offset: number, length: number): Promise<MediumExtent> {
    checkMediumRange(this.#size, offset, length);
    const end = offset + length;
    const first = Math.floor(offset / CHUNK);
    const mapped = this.#chunks.has(first);
    if (!mapped) return { mapped, length: Math.min(end, this.#nextChunk(first) * CHUNK) - offset };
    let index = first + 1;
    while (index * CHUNK < end && this.#chunks.has(index)) index++;
    return { mapped, length: Math.min(end, index * CHUNK) - offset };
  }

  async resize(size: number): Promise<void> {
    checkMediumSize(size);
    if (size < this.#size) this.#clear(size, this.#size);
    this.#size = size;
  }

  async close(): Promise<void> {
    for (const index of this.#chunks.keys()) this.#drop(index);
  }

  #drop(index: number): void {
    const chunk = this.#chunks.get(index);
    this.#chunks.delete(index);
    if (chunk !== undefined) this.#source?.free(chunk.buffer);
  }

  /** Index of the first chunk after `index` that is no hole; infinity where there is none. */
  #nextChunk(index: number): number {
    let next = Number.POSITIVE_INFINITY;
    for (const candidate of this.#chunks.keys()) if (candidate > index && candidate < next) next = candidate;
    return next;
  }

  /** Walks the chunks that exist, not the range: that may be of any length. */
  #clear(start: number, end: number): void {
    for (const [index, chunk] of this.#chunks) {
      const base = index * CHUNK;
      if (base >= end || base + CHUNK <= start) continue;
      if (start <= base && base + CHUNK <= end) this.#drop(index);
      else chunk.fill(0, Math.max(0, start - base), Math.min(CHUNK, end - base));
    }
  }
}

/** The parts of a byte range, chunk by chunk. */
function* partsOf(offset: number, length: number) {
  for (let dataOffset = 0; dataOffset < length; ) {
    const index = Math.floor((offset + dataOffset) / CHUNK);
    const skip = offset + dataOffset - index * CHUNK;
    const partLength = Math.min(CHUNK - skip, length - dataOffset);
    yield { index, skip, dataOffset, length: partLength };
    dataOffset += partLength;
  }
}
