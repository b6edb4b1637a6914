/** The checks that every medium makes of its arguments. */

import { IserfsError } from '../errors.ts';

/** Throws `out-of-range` unless `length` bytes at `offset` lie within `size`. */
export function checkMediumRange(size: number, offset: number, length: number): void {
  if (offset >= 0 && length >= 0 && offset + length <= size) return;
  throw new IserfsError('out-of-range', `${length} bytes at ${offset} leave the medium of ${size} bytes`);
}

/** Throws `bad-configuration` unless `size` is a size that a medium can have. */
export function checkMediumSize(size: number): void {
  if (Number.isSafeInteger(size) && size >= 0) return;
  throw new IserfsError('bad-configuration', `${size} is not a size in bytes below 2^53`);
}
