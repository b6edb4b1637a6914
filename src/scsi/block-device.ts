/**
 * What a file or a cache sees of storage: bytes at offsets. Implementations stack: `LogicalUnit`
 * drives SCSI, `CachedDevice` (cached-device.ts) answers from memory what it can.
 */

import type { Failure } from './ended.ts';

/** The geometry and rights of a block device, as they are now: a resize or a mode change replaces them. */
export interface BlockDeviceInfo {
  /** Bytes; a multiple of `blockLength`; at most 2^53 - 1. */
  readonly size: number;
  /** Bytes per logical block: 512 or 4096 on most devices. */
  readonly blockLength: number;
  readonly writeProtected: boolean;
  /** Whether GOOD for a write may mean "in a volatile cache", so that `flush()` has work to do. */
  readonly volatileCache: boolean;
}

export interface WriteOptions {
  readonly signal?: AbortSignal;
  readonly fua?: boolean;
  readonly memory?: SharedMemory | undefined;
}

/** Memory with several users: it goes back to where it came from with the last one. Its maker holds it once. */
export interface SharedMemory {
  /** Bytes that whoever retains it keeps from any other use, for those who account for that; `MAX_RUN` where it is not said. */
  readonly length?: number;
  /** One more user: pair it with `release`. */
  retain(): void;
  release(): void;
}

/** A block device that moves bytes into and out of the caller's memory. */
export interface BlockDevice {
  readonly info: BlockDeviceInfo;
  /**
   * Fills `into` with the bytes from `offset`. Any alignment. `into` is borrowed until the promise
   * settles. Never short: throws `out-of-range` where the range leaves the device.
   */
  read(offset: number, into: Uint8Array, options?: { readonly signal?: AbortSignal }): Promise<void>;
  /**
   * Resolves after GOOD from the device for all of `from`; any alignment, unaligned edges by
   * read-modify-write. `from` is borrowed until the promise settles. After a failure the content of the
   * range is unknown. `fua`: on stable storage before it resolves. `memory`: what `from` lies in; whoever
   * retains it may use `from` beyond the promise.
   */
  write(offset: number, from: Uint8Array, options?: WriteOptions): Promise<void>;
  /** Resolves when every write that was acknowledged before the call is on stable storage (I6). */
  flush(options?: { readonly signal?: AbortSignal }): Promise<void>;
  /**
   * Resolves when the range reads as zeros; any alignment and length. `mayUnmap`: its space may be given back. Others
   * may use the device, and the range, in between. After a failure the content of the range is unknown. Absent:
   * write zeros.
   */
  zero?(offset: number, length: number, options: { readonly mayUnmap: boolean; readonly signal?: AbortSignal }): Promise<void>;
  /**
   * What is stored from `offset` on, as far as the device tells at once: extents without gaps, the first of which
   * holds `offset`. As it was at some time during the call. Absent: all is data.
   */
  extentsFrom?(offset: number, options?: { readonly signal?: AbortSignal }): Promise<readonly DeviceExtent[]>;
}

/** A run of bytes. */
export interface DeviceExtent {
  readonly offset: number;
  readonly length: number;
  /** It has no space behind it and reads as zeros; else it may hold anything. */
  readonly isHole: boolean;
}

/** Bytes that stay where they are until `release()`; call it exactly once. */
export interface Lease {
  /** In order; together as long as what was asked for. Read only: others may hold the same memory. */
  readonly segments: readonly Uint8Array[];
  release(): void;
}

/** Called once: with the lease, or with why there is none. */
export type LeaseEnded = (lease: Lease | undefined, failure?: Failure) => void;
