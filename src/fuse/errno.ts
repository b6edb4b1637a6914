/**
 * The one table from errors to errno: what `read`, `write`, `open` and `fsync` on an image answer.
 * Nothing else in the product knows a number of errno. Knows error codes, no device and no request.
 */

import { constants } from 'node:os';
import { type ErrorCode, errorCode } from '../errors.ts';

/** The errno values that this folder uses, as positive numbers. */
export const Errno = {
  EACCES: constants.errno.EACCES,
  EBADF: constants.errno.EBADF,
  EBUSY: constants.errno.EBUSY,
  EFBIG: constants.errno.EFBIG,
  EINTR: constants.errno.EINTR,
  EINVAL: constants.errno.EINVAL,
  EIO: constants.errno.EIO,
  EISDIR: constants.errno.EISDIR,
  ENOENT: constants.errno.ENOENT,
  ENOSPC: constants.errno.ENOSPC,
  ENOTCONN: constants.errno.ENOTCONN,
  ENOTDIR: constants.errno.ENOTDIR,
  ENOTTY: constants.errno.ENOTTY,
  ENXIO: constants.errno.ENXIO,
  EOPNOTSUPP: constants.errno.EOPNOTSUPP,
  EPERM: constants.errno.EPERM,
  EROFS: constants.errno.EROFS,
  ETIMEDOUT: constants.errno.ETIMEDOUT,
} as const satisfies Record<string, number>;

const table: Readonly<Record<ErrorCode, number>> = {
  aborted: Errno.EINTR,
  'authentication-failed': Errno.EACCES,
  'bad-configuration': Errno.EINVAL,
  busy: Errno.EBUSY,
  'command-timeout': Errno.ETIMEDOUT,
  'connection-lost': Errno.EIO,
  'data-lost': Errno.EIO,
  'hardware-error': Errno.EIO,
  'illegal-request': Errno.EIO,
  internal: Errno.EIO,
  'login-refused': Errno.EIO,
  'logical-unit-changed': Errno.ENXIO,
  'logical-unit-gone': Errno.ENXIO,
  'medium-error': Errno.EIO,
  'mount-failed': Errno.EIO,
  'no-space': Errno.ENOSPC,
  'not-permitted': Errno.EPERM,
  'not-ready': Errno.EIO,
  'out-of-range': Errno.ENOSPC,
  'protocol-error': Errno.EIO,
  'recovery-timeout': Errno.EIO,
  'reservation-conflict': Errno.EBUSY,
  'target-not-found': Errno.ENXIO,
  unreachable: Errno.EIO,
  unsupported: Errno.EOPNOTSUPP,
  'write-protected': Errno.EROFS,
};

/** The errno (positive) that tells a program about `error`; EIO for anything that is not an `IserfsError`. */
export function errnoOf(error: unknown): number {
  return table[errorCode(error)];
}
