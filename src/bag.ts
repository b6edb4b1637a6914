/**
 * A set of objects that come and go with each block, in no order: each knows its place, so that none has to be looked for. What
 * `tag-map.ts` says of `Map` is true of `Set`.
 */

/** It can be in one bag at a time. The bag alone changes `place`. */
export interface Placed {
  /** `UNPLACED` at first. */
  place: number;
}

export const UNPLACED = -1;

export class Bag<T extends Placed> {
  readonly #items: T[] = [];

  get size(): number {
    return this.#items.length;
  }

  /** `item` is in no bag. */
  add(item: T): void {
    item.place = this.#items.length;
    this.#items.push(item);
  }

  /** Whether it was there. */
  delete(item: T): boolean {
    const { place } = item;
    if (this.#items[place] !== item) return false;
    const last = this.#items.pop() as T;
    if (last !== item) {
      this.#items[place] = last;
      last.place = place;
    }
    item.place = UNPLACED;
    return true;
  }

  /** One of them, if there is one. */
  any(): T | undefined {
    return this.#items[this.#items.length - 1];
  }

  /** What is there now, while nothing is added or deleted. */
  [Symbol.iterator](): Iterator<T> {
    return this.#items[Symbol.iterator]();
  }
}
