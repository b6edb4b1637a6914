import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import { IserfsError, NexusLostError, ProtocolError } from '../../../src/errors.ts';
import { errnoOf } from '../../../src/fuse/errno.ts';

const { errno } = constants;

describe('errno of an error', () => {
  it.each([
    ['write-protected', errno.EROFS],
    ['no-space', errno.ENOSPC],
    ['out-of-range', errno.ENOSPC],
    ['logical-unit-gone', errno.ENXIO],
    ['medium-error', errno.EIO],
    ['hardware-error', errno.EIO],
    ['data-lost', errno.EIO],
    ['recovery-timeout', errno.EIO],
    ['reservation-conflict', errno.EBUSY],
    ['aborted', errno.EINTR],
    ['unsupported', errno.EOPNOTSUPP],
  ] as const)('is that of a disk for %s', (code, expected) => {
    expect(errnoOf(new IserfsError(code, 'x'))).toBe(expected);
  });

  it('follows the code of a subclass', () => {
    expect(errnoOf(new ProtocolError('x'))).toBe(errno.EIO);
    expect(errnoOf(new NexusLostError('x', { mayHaveExecuted: true }))).toBe(errno.EIO);
  });

  it('is EIO for whatever else is thrown', () => {
    for (const thrown of [new TypeError('x'), 'text', undefined, null, { code: 'write-protected' }]) {
      expect(errnoOf(thrown)).toBe(errno.EIO);
    }
  });
});
