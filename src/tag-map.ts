/**
 * A map for what comes and goes with each block: by a tag, a whole number from 0 to 2^32 - 1, of which neighbours are in use
 * at a time. As `Map`, but for the order.
 *
 * Why not `Map`: where entries come and go it makes new tables all the time, and each old one refers to the next. Once
 * one of them has grown old, V8's collector of young objects takes for alive whatever was ever in those after
 * it: all that belonged to a command is copied twice and kept until the next full collection. Here a place is
 * overwritten, and nothing refers to what was there.
 */
export class TagMap<V> {
  #tags = emptyTags(FEWEST_PLACES);
  #values: (V | undefined)[] = Array.from({ length: FEWEST_PLACES });
  #size = 0;
  /** Those whose place belongs to another tag. */
  readonly #displaced = new Map<number, V>();

  get size(): number {
    return this.#size + this.#displaced.size;
  }

  get(tag: number): V | undefined {
    const at = tag & (this.#tags.length - 1);
    if (this.#tags[at] === tag) return this.#values[at];
    return this.#displaced.size === 0 ? undefined : this.#displaced.get(tag);
  }

  has(tag: number): boolean {
    return this.#tags[tag & (this.#tags.length - 1)] === tag || (this.#displaced.size > 0 && this.#displaced.has(tag));
  }

  set(tag: number, value: V): void {
    const at = tag & (this.#tags.length - 1);
    const holder = this.#tags[at];
    if (holder === tag) this.#values[at] = value;
    else if (this.#displaced.size > 0 && this.#displaced.has(tag)) this.#displaced.set(tag, value);
    else if (holder === FREE) {
      this.#tags[at] = tag;
      this.#values[at] = value;
      this.#size++;
    } else if (this.#tags.length < MOST_PLACES && this.#size * 2 >= this.#tags.length) {
      this.#grow();
      this.set(tag, value);
    } else this.#displaced.set(tag, value);
  }

  delete(tag: number): boolean {
    const at = tag & (this.#tags.length - 1);
    if (this.#tags[at] !== tag) return this.#displaced.size > 0 && this.#displaced.delete(tag);
    this.#tags[at] = FREE;
    this.#values[at] = undefined;
    this.#size--;
    return true;
  }

  clear(): void {
    this.#tags.fill(FREE);
    this.#values.fill(undefined);
    this.#size = 0;
    this.#displaced.clear();
  }

  /** A copy of what is there now, by ascending tag. */
  entries(): [tag: number, value: V][] {
    const entries = [...this.#displaced];
    for (const [at, tag] of this.#tags.entries()) if (tag !== FREE) entries.push([tag, this.#values[at] as V]);
    return entries.sort(([one], [other]) => one - other);
  }

  /** As `entries`. */
  values(): V[] {
    return this.entries().map(([, value]) => value);
  }

  #grow(): void {
    const before = this.entries();
    const places = this.#tags.length * 2;
    this.#tags = emptyTags(places);
    this.#values = Array.from({ length: places });
    this.#size = 0;
    this.#displaced.clear();
    for (const [tag, value] of before) this.set(tag, value);
  }
}

const FREE = -1;
/** Powers of two. Most maps belong to a session that is idle. */
const FEWEST_PLACES = 8;
const MOST_PLACES = 1024;

function emptyTags(places: number): Float64Array {
  return new Float64Array(places).fill(FREE);
}
