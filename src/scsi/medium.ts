/**
 * What a target's logical unit keeps its bytes on. A `Medium` knows bytes at offsets, nothing of blocks,
 * SCSI or sessions; `memory-medium.ts`, `file-medium.ts` and `volatile-cache-medium.ts` are the kinds
 * there are. Types and their contract only.
 *
 * Callers see to it that overlapping reads and writes are not under way together (the device server's
 * range lock does); everything else may run concurrently.
 */

/** A run of bytes that all have space behind them, or all have not. */
export interface MediumExtent {
  readonly length: number;
  /** False for a hole: reads as zeros and takes no space. */
  readonly mapped: boolean;
}

export interface Medium {
  /** Bytes, at most 2^53 - 1. `resize` changes it. */
  readonly size: number;
  /** No write will ever succeed. */
  readonly readOnly: boolean;
  /** Whether a write may be lost with the power (or, as for `VolatileCacheMedium`, with the process) before `flush()`. */
  readonly isVolatile: boolean;
  /** Whether `discard()` gives space back, or would if the medium were not `readOnly`: there may be holes. */
  readonly isThin: boolean;
  /** Fills `into`, borrowed until the promise settles, from `offset`. Rejects with `out-of-range` beyond the end, `medium-error` where the bytes cannot be had. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /**
   * The bytes from `offset` where they lie, at most `length`: nothing has to be copied to send them. Borrowed, for reading alone,
   * until the next write, discard or resize there. Undefined where they have to be read; absent where that is so everywhere.
   */
  lend?(offset: number, length: number): Uint8Array | undefined;
  /**
   * Writes `from`, borrowed until the promise settles. `fua`: on stable storage when it resolves. Rejects
   * with `out-of-range`, `write-protected`, `no-space` or `medium-error`; part of it may have been written.
   */
  write(offset: number, from: Uint8Array, options?: { readonly fua?: boolean }): Promise<void>;
  /** Resolves when every write that had resolved before the call is on stable storage. */
  flush(): Promise<void>;
  /** Makes the range read as zeros, and gives its space back where `isThin`. Rejects as `write`. */
  discard(offset: number, length: number): Promise<void>;
  /** The extent that starts at `offset`, at most `length` long. Absent where the medium does not know its holes. */
  extentAt?(offset: number, length: number): Promise<MediumExtent>;
  /** New bytes read as zeros; what lies beyond a smaller size is gone. */
  resize(size: number): Promise<void>;
  /** Flushes and lets go of what it holds. Idempotent. */
  close(): Promise<void>;
}
