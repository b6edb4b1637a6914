/**
 * Where a cache shows the valid pages of one device to somebody who answers reads without asking it, on
 * other threads perhaps, and while the event loop is busy. What is shown is read in place: its owner hides
 * it before the memory changes or goes. Types and their contract only.
 */

/** A whole number of pages of this size is shown, but for the last one of a device. */
export const WINDOW_PAGE = 4096;

export interface PageWindow {
  /**
   * Reads of `[offset, offset + bytes.length)` may be answered from `bytes` from now on, until `hide`. `offset` is a
   * multiple of `WINDOW_PAGE`, and so is the length unless it ends with the device. Replaces what was shown of the range.
   */
  show(offset: number, bytes: Uint8Array): void;
  /** Nothing of the range is answered from memory any more, and nobody reads from that memory, once this returns. */
  hide(offset: number, length: number): void;
  /** Calls `visit` with the offset of each read that was answered since the last time; some may be missing. For the order of use. */
  takeHits(visit: (offset: number) => void): void;
  /** Reads that were answered from the window so far. */
  readonly hits: number;
}
