/**
 * Remembers a bounded number of tags whose late data is to be discarded rather than taken for an error:
 * those of tasks that were ended at this end while the peer may still have been sending for them.
 */

/** More tags than any command window holds; the oldest is forgotten first. */
const REMEMBERED_TAGS = 4096;

export class TagMemory {
  readonly #tags = new Set<number>();

  add(tag: number): void {
    this.#tags.delete(tag);
    this.#tags.add(tag);
    if (this.#tags.size <= REMEMBERED_TAGS) return;
    for (const oldest of this.#tags) {
      this.#tags.delete(oldest);
      return;
    }
  }

  has(tag: number): boolean {
    return this.#tags.has(tag);
  }

  delete(tag: number): void {
    if (this.#tags.size > 0) this.#tags.delete(tag);
  }

  clear(): void {
    this.#tags.clear();
  }
}
