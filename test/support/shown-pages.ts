/** A `PageWindow` in memory that reads what it is shown in place, as a native host does, and holds its owner to the contract. */

import { type PageWindow, WINDOW_PAGE } from '../../src/scsi/page-window.ts';

export class ShownPages implements PageWindow {
  hits = 0;
  readonly #size: number;
  /** Live memory of each page that is shown, by offset. */
  readonly #pages = new Map<number, Uint8Array>();
  #taken: number[] = [];

  /** `size` of the device, in bytes. */
  constructor(size: number) {
    this.#size = size;
  }

  get bytes(): number {
    let sum = 0;
    for (const page of this.#pages.values()) sum += page.length;
    return sum;
  }

  show(offset: number, bytes: Uint8Array): void {
    const end = offset + bytes.length;
    if (offset % WINDOW_PAGE !== 0 || (bytes.length % WINDOW_PAGE !== 0 && end !== this.#size) || end > this.#size) {
      throw new Error(`${bytes.length} bytes at ${offset} cannot be shown`);
    }
    for (let at = 0; at < bytes.length; at += WINDOW_PAGE) this.#pages.set(offset + at, bytes.subarray(at, at + WINDOW_PAGE));
  }

  hide(offset: number, length: number): void {
    for (let at = offset - (offset % WINDOW_PAGE); at < offset + length; at += WINDOW_PAGE) this.#pages.delete(at);
  }

  takeHits(visit: (offset: number) => void): void {
    const taken = this.#taken;
    this.#taken = [];
    for (const offset of taken) visit(offset);
  }

  /** Answers a read within one page, if it is shown. */
  read(offset: number, length: number): Buffer | undefined {
    const page = this.#pages.get(offset - (offset % WINDOW_PAGE));
    if (page === undefined) return undefined;
    this.hits++;
    this.#taken.push(offset);
    return Buffer.from(page.subarray(offset % WINDOW_PAGE, (offset % WINDOW_PAGE) + length));
  }

  /** Calls `visit` with all that is shown now. */
  forEach(visit: (offset: number, bytes: Uint8Array) => void): void {
    for (const [offset, bytes] of this.#pages) visit(offset, bytes);
  }
}
