/**
 * Values by the number of a page, or of whatever else a device is divided into, for a cache whose pages come and go all the
 * time: open addressing in two arrays, so that a lookup touches two places in memory, however many pages there are, and makes no
 * objects. Why not `Map`: see `tag-map.ts`; page numbers are not neighbours, though, which that one needs. Eight pages
 * that follow each other lie side by side.
 */
export class PageTable<T> {
  #pages = freePlaces(FEWEST_PLACES);
  #values: (T | undefined)[] = Array.from({ length: FEWEST_PLACES });
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(page: number): T | undefined {
    return this.#values[this.#placeOf(page)];
  }

  /** `page`: a whole number from 0 to 2^53 - 1. */
  set(page: number, value: T): void {
    const place = this.#placeOf(page);
    this.#values[place] = value;
    if (this.#pages[place] === page) return;
    this.#pages[place] = page;
    this.#size++;
    if (this.#size * 2 > this.#pages.length) this.#resize(this.#pages.length * 2);
  }

  /** Whether it was there. */
  delete(page: number): boolean {
    const place = this.#placeOf(page);
    if (this.#pages[place] !== page) return false;
    this.#close(place);
    this.#size--;
    if (this.#pages.length > FEWEST_PLACES && this.#size * SPARSE < this.#pages.length) this.#resize(this.#pages.length / 2);
    return true;
  }

  /** Calls `each` for all that is there, in no order. Nothing may be added or deleted meanwhile. */
  visit(each: (value: T, page: number) => void): void {
    for (let place = 0; place < this.#pages.length; place++) {
      const page = this.#pages[place] as number;
      if (page !== FREE) each(this.#values[place] as T, page);
    }
  }

  /** Where `page` is, or else where it would be put. */
  #placeOf(page: number): number {
    const pages = this.#pages;
    const mask = pages.length - 1;
    let place = homeOf(page, mask);
    while (pages[place] !== page && pages[place] !== FREE) place = (place + 1) & mask;
    return place;
  }

  /** Frees a place. What is found by way of it moves up. */
  #close(place: number): void {
    const pages = this.#pages;
    const values = this.#values;
    const mask = pages.length - 1;
    let free = place;
    for (let next = (free + 1) & mask; pages[next] !== FREE; next = (next + 1) & mask) {
      const home = homeOf(pages[next] as number, mask);
      if (((next - home) & mask) < ((next - free) & mask)) continue;
      pages[free] = pages[next] as number;
      values[free] = values[next];
      free = next;
    }
    pages[free] = FREE;
    values[free] = undefined;
  }

  #resize(places: number): void {
    const pages = this.#pages;
    const values = this.#values;
    this.#pages = freePlaces(places);
    this.#values = Array.from({ length: places });
    for (let from = 0; from < pages.length; from++) {
      const page = pages[from] as number;
      if (page === FREE) continue;
      const place = this.#placeOf(page);
      this.#pages[place] = page;
      this.#values[place] = values[from];
    }
  }
}

const FREE = -1;
/** A power of two. */
const FEWEST_PLACES = 32;
/** Fewer than one place in so many in use: half of the places are enough. */
const SPARSE = 8;
/** 2^32 over the golden ratio: neighbours are far apart afterwards. */
const SCATTER = 0x9e37_79b1;

function homeOf(page: number, mask: number): number {
  const scattered = Math.imul(Math.floor(page / 8) | 0, SCATTER);
  return (((scattered ^ (scattered >>> 15)) << 3) | (page & 7)) & mask;
}

function freePlaces(places: number): Float64Array {
  return new Float64Array(places).fill(FREE);
}
