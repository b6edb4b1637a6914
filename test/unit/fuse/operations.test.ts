import { constants } from 'node:os';
import { beforeEach, describe, expect, it } from 'vitest';
import { IserfsError } from '../../../src/errors.ts';
import type { FuseRequest } from '../../../src/fuse/host.ts';
import { Operations } from '../../../src/fuse/operations.ts';
import type { LeaseEnded } from '../../../src/scsi/block-device.ts';
import type { StageWrite } from '../../../src/scsi/write-staging.ts';
import { MemoryImage } from '../../support/memory-image.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

const { errno } = constants;
const INODE = 9;
const SIZE = 8192;

type Body = FuseRequest extends infer R
  ? R extends FuseRequest
    ? Omit<R, 'inode' | 'handle' | 'done' | 'doneWith'>
    : never
  : never;

let image: MemoryImage;
let logged: unknown[];
let operations: Operations;
let answers: number;

/** Sends a request as a host would; resolves with the result, or with the bytes read. Fails on a second answer. */
function send(handle: number, body: Body, inode = INODE): Promise<number | Buffer> {
  return new Promise((resolve) => {
    let isAnswered = false;
    const answer = (value: number | Buffer) => {
      expect(isAnswered).toBe(false);
      isAnswered = true;
      answers++;
      resolve(value);
    };
    const common = { inode, handle, done: answer };
    const doneWith = (segments: readonly Uint8Array[], release: () => void) => {
      const bytes = Buffer.concat(segments);
      release();
      answer(bytes);
    };
    const request = body.op === 'read' ? { ...body, ...common, doneWith } : { ...body, ...common };
    operations.requests([request as FuseRequest]);
  });
}

const open = (handle: number, access: 'read' | 'write' | 'read-write' = 'read-write') => send(handle, { op: 'open', access });
const read = (handle: number, offset: number, length: number) => send(handle, { op: 'read', offset, length });
const write = (handle: number, offset: number, data: Uint8Array) => send(handle, { op: 'write', offset, data });
const flush = (handle: number) => send(handle, { op: 'flush' });
const fsync = (handle: number) => send(handle, { op: 'fsync' });
const zero = (handle: number, offset: number, length: number, mayUnmap = true) =>
  send(handle, { op: 'zero', offset, length, mayUnmap });
const seek = (handle: number, offset: number, what: 'data' | 'hole') => send(handle, { op: 'seek', offset, what });
const release = (handle: number) => send(handle, { op: 'release' });
/** Has the next write that is staged wait until the result is called. */
function waitForRoom(): () => void {
  let makeRoom = () => {};
  let giveUp = () => {};
  const over = new Promise<boolean>((resolve) => {
    makeRoom = () => resolve(true);
    giveUp = () => resolve(false);
  });
  image.room.push({ over, giveUp: () => giveUp() });
  return makeRoom;
}

const failure = (code: ConstructorParameters<typeof IserfsError>[0] = 'medium-error') => new IserfsError(code, `a ${code}`);

/** Whether the promise is still pending after everything that could run has run. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol('pending');
  await new Promise((resolve) => setImmediate(resolve));
  return (await Promise.race([promise, Promise.resolve(pending)])) === pending;
}

beforeEach(() => {
  image = new MemoryImage(SIZE);
  logged = [];
  answers = 0;
  operations = new Operations({
    render: async (inode) => Buffer.from(`body of ${inode}`),
    failed: (error) => logged.push(error),
  });
  operations.attach(INODE, image);
});

describe('open', () => {
  it('is for writing too where the device is not write protected', async () => {
    expect(await open(1)).toBe(0);
  });

  it('fails with EROFS for writing where it is, and succeeds for reading', async () => {
    image.info = { size: SIZE, writeProtected: true };
    expect(await open(1, 'read-write')).toBe(-errno.EROFS);
    expect(await open(2, 'write')).toBe(-errno.EROFS);
    expect(await open(3, 'read')).toBe(0);
    expect(logged).toEqual([]);
  });

  it('fails with ENXIO where there is no device', async () => {
    expect(await send(1, { op: 'open', access: 'read' }, INODE + 1)).toBe(-errno.ENXIO);
  });

  it('tells the device when the first handle comes and when the last one goes', async () => {
    await Promise.all([open(1), open(2)]);
    await release(1);
    await open(3);
    await Promise.all([release(2), release(3)]);
    expect(image.hooks).toEqual(['opened', 'closed']);
    await open(4);
    expect(image.hooks).toEqual(['opened', 'closed', 'opened']);
  });

  it('fails where the device cannot get ready, and tries again the next time', async () => {
    image.openFailures.push(failure());
    expect(await open(1)).toBe(-errno.EIO);
    expect(await read(1, 0, 1)).toBe(-errno.EBADF);
    expect(await open(1)).toBe(0);
  });
});

describe('read', () => {
  beforeEach(() => open(1, 'read'));

  it('gives the bytes, and the lease back', async () => {
    expect(await read(1, 1000, 77)).toEqual(Buffer.from(image.bytes.subarray(1000, 1077)));
    expect(image.leases).toBe(0);
  });

  it('is short at the end and empty beyond it', async () => {
    expect(await read(1, SIZE - 10, 100)).toEqual(Buffer.from(image.bytes.subarray(SIZE - 10)));
    expect(await read(1, SIZE, 100)).toBe(0);
    expect(await read(1, SIZE * 2, 100)).toBe(0);
  });

  it('is the end of the file where the device shrinks meanwhile', async () => {
    image.readFailures.push(failure('out-of-range'));
    const reading = read(1, 4096, 100);
    image.info = { size: 4096, writeProtected: false };
    expect(await reading).toBe(0);
  });

  it('fails with the errno of the error, which is logged', async () => {
    const error = failure();
    image.readFailures.push(error);
    expect(await read(1, 0, 10)).toBe(-errno.EIO);
    expect(logged).toEqual([error]);
    expect(await read(1, 0, 10)).toHaveLength(10);
  });
});

describe('write', () => {
  it('takes everything within the device', async () => {
    await open(1);
    expect(await write(1, 100, Buffer.from('hello'))).toBe(5);
    expect(Buffer.from(image.bytes.subarray(100, 105)).toString()).toBe('hello');
  });

  it('goes up to the end, and fails with ENOSPC from there', async () => {
    await open(1);
    expect(await write(1, SIZE - 3, Buffer.alloc(10, 1))).toBe(3);
    expect([...image.bytes.subarray(SIZE - 3)]).toEqual([1, 1, 1]);
    expect(await write(1, SIZE, Buffer.alloc(10))).toBe(-errno.ENOSPC);
    expect(await write(1, SIZE + 5, Buffer.alloc(10))).toBe(-errno.ENOSPC);
    expect(await write(1, SIZE, Buffer.alloc(0))).toBe(0);
    expect(logged).toEqual([]);
  });

  it('fails with EBADF on a handle that is open for reading', async () => {
    await open(1, 'read');
    expect(await write(1, 0, Buffer.alloc(10))).toBe(-errno.EBADF);
  });

  it('fails with EROFS once the device has become write protected', async () => {
    await open(1);
    image.info = { size: SIZE, writeProtected: true };
    expect(await write(1, 0, Buffer.alloc(10))).toBe(-errno.EROFS);
  });

  it('does not wait for others', async () => {
    await open(1);
    image.holdsWrites = true;
    const writes = [write(1, 0, Buffer.alloc(1)), write(1, 512, Buffer.alloc(1)), write(1, 1024, Buffer.alloc(1))];
    await isPending(Promise.all(writes));
    expect(image.heldWrites.map(({ offset }) => offset)).toEqual([0, 512, 1024]);
    expect(await read(1, 0, 10)).toHaveLength(10);
    for (const held of image.heldWrites.toReversed()) held.succeed();
    expect(await Promise.all(writes)).toEqual([1, 1, 1]);
  });
});

describe('close', () => {
  it('waits for the writes of its handle, not for those of others', async () => {
    await Promise.all([open(1), open(2)]);
    image.holdsWrites = true;
    const written = write(1, 0, Buffer.alloc(1));
    expect(await flush(2)).toBe(0);
    const closing = flush(1);
    expect(await isPending(closing)).toBe(true);
    image.heldWrites[0]?.succeed();
    expect(await closing).toBe(0);
    expect(await written).toBe(1);
    expect(image.flushes).toBe(0);
  });
});

describe('fsync', () => {
  it('waits for the writes of all handles, then flushes the device', async () => {
    await Promise.all([open(1), open(2)]);
    image.holdsWrites = true;
    void write(1, 0, Buffer.alloc(1));
    const syncing = fsync(2);
    expect(await isPending(syncing)).toBe(true);
    expect(image.flushes).toBe(0);
    image.heldWrites[0]?.succeed();
    expect(await syncing).toBe(0);
    expect(image.flushes).toBe(1);
  });

  it('does not wait for writes that come after it', async () => {
    await open(1);
    image.holdsWrites = true;
    const syncing = fsync(1);
    void write(1, 0, Buffer.alloc(1));
    expect(await syncing).toBe(0);
    image.heldWrites[0]?.succeed();
  });

  it('fails where the device cannot flush, and asks it again the next time', async () => {
    await open(1);
    image.flushFailures.push(failure('data-lost'));
    expect(await fsync(1)).toBe(-errno.EIO);
    expect(await fsync(1)).toBe(0);
    expect(image.flushes).toBe(2);
  });
});

describe('a write error', () => {
  beforeEach(async () => {
    await Promise.all([open(1), open(2), open(3, 'read')]);
    image.writeFailures.push(failure());
    expect(await write(1, 0, Buffer.alloc(10))).toBe(-errno.EIO);
  });

  it('is not told twice to who wrote', async () => {
    expect(await fsync(1)).toBe(0);
    expect(await flush(1)).toBe(0);
  });

  it('is told once to each other handle that was open, by fsync', async () => {
    expect(await fsync(2)).toBe(-errno.EIO);
    expect(await fsync(2)).toBe(0);
    expect(await flush(2)).toBe(0);
  });

  it('is told once to each other handle that was open, by close', async () => {
    expect(await flush(3)).toBe(-errno.EIO);
    expect(await flush(3)).toBe(0);
  });

  it('is not told to a handle that was opened later', async () => {
    await open(4);
    expect(await fsync(4)).toBe(0);
    expect(await flush(4)).toBe(0);
  });

  it('has been told when the write was still under way at the close of another handle', async () => {
    image.holdsWrites = true;
    void write(1, 512, Buffer.alloc(1));
    await flush(2);
    const syncing = fsync(2);
    await isPending(syncing);
    image.heldWrites[0]?.fail(failure());
    expect(await syncing).toBe(-errno.EIO);
  });

  it('does not keep fsync from flushing the device', async () => {
    await fsync(2);
    expect(image.flushes).toBe(1);
  });
});

describe('a flush error', () => {
  it('is told to the other handles too, since what they wrote may be lost', async () => {
    await Promise.all([open(1), open(2)]);
    image.flushFailures.push(failure());
    expect(await fsync(1)).toBe(-errno.EIO);
    expect(await flush(1)).toBe(0);
    expect(await flush(2)).toBe(-errno.EIO);
    expect(await flush(2)).toBe(0);
  });
});

describe('one flush for two handles that fails', () => {
  it('is told once to each', async () => {
    await Promise.all([open(1), open(2), open(3)]);
    const shared = failure();
    image.flushFailures.push(shared, shared);
    expect(await Promise.all([fsync(1), fsync(2)])).toEqual([-errno.EIO, -errno.EIO]);
    expect(await Promise.all([fsync(1), fsync(2)])).toEqual([0, 0]);
    expect(await flush(3)).toBe(-errno.EIO);
  });
});

describe('a write that fails after it was acknowledged', () => {
  const report = () => {
    for (const listener of image.writeErrorListeners) listener(failure());
  };

  it('is told once to each handle that is open, its writer included', async () => {
    await Promise.all([open(1), open(2)]);
    expect(await write(1, 0, Buffer.alloc(10))).toBe(10);
    report();
    expect(await fsync(1)).toBe(-errno.EIO);
    expect(await fsync(1)).toBe(0);
    expect(await flush(2)).toBe(-errno.EIO);
    expect(await flush(2)).toBe(0);
  });

  it('is told to the handles that stay when another one closes', async () => {
    await Promise.all([open(1), open(2)]);
    await release(1);
    report();
    expect(await fsync(2)).toBe(-errno.EIO);
  });

  it('is listened for while a handle is open, so that the device keeps it for the next flush otherwise', async () => {
    expect(image.writeErrorListeners.size).toBe(0);
    await open(1);
    expect(image.writeErrorListeners.size).toBe(1);
    await release(1);
    expect(image.writeErrorListeners.size).toBe(0);
  });

  it('is listened for at the device that is there now', async () => {
    await open(1);
    operations.detach(INODE);
    expect(image.writeErrorListeners.size).toBe(0);
    const other = new MemoryImage(SIZE);
    operations.attach(INODE, other);
    expect(other.writeErrorListeners.size).toBe(1);
  });
});

describe('a staged write', () => {
  beforeEach(async () => {
    image.isStaging = true;
    image.holdsWrites = true;
    await Promise.all([open(1), open(2)]);
  });

  it('is answered when it is taken, at once where there is room', async () => {
    expect(await write(1, 0, Buffer.alloc(10))).toBe(10);
    const makeRoom = waitForRoom();
    const waiting = write(1, 10, Buffer.alloc(10));
    expect(await isPending(waiting)).toBe(true);
    makeRoom();
    expect(await waiting).toBe(10);
    await operations.drained();
  });

  it.each([
    ['close', () => flush(1)],
    ['fsync of any handle', () => fsync(2)],
    ['the release of its handle', () => release(1)],
  ])('is waited for by %s', async (_name, request) => {
    await write(1, 0, Buffer.alloc(10));
    const asked = request();
    expect(await isPending(asked)).toBe(true);
    image.heldWrites[0]?.succeed();
    expect(await asked).toBe(0);
  });

  it('goes up to the end, and fails with ENOSPC from there', async () => {
    expect(await write(1, SIZE - 3, Buffer.alloc(10))).toBe(3);
    expect(await write(1, SIZE, Buffer.alloc(10))).toBe(-errno.ENOSPC);
  });

  async function failed(code: Parameters<typeof failure>[0] = 'medium-error'): Promise<void> {
    await write(1, 0, Buffer.alloc(10));
    image.heldWrites.at(-1)?.fail(failure(code));
    await isPending(Promise.resolve());
  }

  it('that fails is told to the next write, which is not done, the next fsync and the next close of its handle', async () => {
    await failed('no-space');
    expect(await write(1, 512, Buffer.alloc(10))).toBe(-errno.ENOSPC);
    expect(image.heldWrites.length).toBe(1);
    expect(await write(1, 512, Buffer.alloc(10))).toBe(10);
    image.heldWrites.at(-1)?.succeed();
    expect(await fsync(1)).toBe(-errno.ENOSPC);
    expect(await fsync(1)).toBe(0);
    expect(await flush(1)).toBe(-errno.ENOSPC);
    expect(await flush(1)).toBe(0);
  });

  it('that fails is told to fsync, whoever closed a copy of the descriptor before', async () => {
    await failed();
    expect(await flush(1)).toBe(-errno.EIO);
    expect(await fsync(1)).toBe(-errno.EIO);
    expect(await flush(1)).toBe(0);
  });

  it('that fails is told once to each other handle that is open, but to none of its writes', async () => {
    await failed();
    expect(await write(2, 512, Buffer.alloc(10))).toBe(10);
    image.heldWrites.at(-1)?.succeed();
    expect(await fsync(2)).toBe(-errno.EIO);
    expect(await flush(2)).toBe(0);
    await open(3);
    expect(await fsync(3)).toBe(0);
  });

  it('that fails while fsync or close waits for it is told there', async () => {
    await write(1, 0, Buffer.alloc(10));
    const asked = [fsync(1), flush(1), fsync(2)];
    expect(await isPending(Promise.all(asked))).toBe(true);
    image.heldWrites[0]?.fail(failure());
    expect(await Promise.all(asked)).toEqual([-errno.EIO, -errno.EIO, -errno.EIO]);
    expect(logged.length).toBeGreaterThan(0);
  });

  it('is lost with a device that goes, where no flush has covered it', async () => {
    await write(1, 0, Buffer.alloc(10));
    operations.detach(INODE);
    operations.attach(INODE, new MemoryImage(SIZE));
    image.heldWrites[0]?.succeed();
    expect(await fsync(1)).toBe(-errno.EIO);
  });
});

describe('a read that waits for nothing', () => {
  it('is answered before the next request of its batch', async () => {
    await open(1);
    await operations.drained();
    const lease = { segments: [Buffer.from('there')], release: () => {} };
    operations.attach(INODE, Object.assign(image, { startRead: (_: number, __: number, ended: LeaseEnded) => ended(lease) }));
    const reading = read(1, 0, 5);
    expect(operations.requestsInFlight).toBe(0);
    expect(await reading).toEqual(Buffer.from('there'));
  });
});

describe('a staged write that is not taken', () => {
  it.each(['at once', 'after a while'])(
    'is told to its writer once, to nobody else, and keeps nobody waiting: %s',
    async (when) => {
      image.isStaging = true;
      await Promise.all([open(1), open(2)]);
      const stage: StageWrite = () => {
        if (when === 'at once') throw failure('internal');
        return { over: Promise.reject(failure('internal')), giveUp: () => {} };
      };
      Object.defineProperty(image, 'stage', { value: stage, configurable: true });
      expect(await write(1, 0, Buffer.alloc(10))).toBe(-errno.EIO);
      Reflect.deleteProperty(image, 'stage');
      expect(await write(1, 0, Buffer.alloc(10))).toBe(10);
      expect(await Promise.all([flush(1), fsync(1), flush(2), fsync(2), release(1)])).toEqual([0, 0, 0, 0, 0]);
      await operations.drained();
    },
  );
});

describe('a host that takes no answer', () => {
  it('does no harm to the device whose call that is', async () => {
    await open(1);
    const startRead = (_: number, __: number, ended: LeaseEnded) => ended({ segments: [], release: () => {} });
    operations.attach(INODE, Object.assign(image, { startRead }));
    const doneWith = () => {
      throw new Error('no host');
    };
    const request = { op: 'read', inode: INODE, handle: 1, offset: 0, length: 5, done: doneWith, doneWith } as const;
    expect(() => operations.requests([request])).not.toThrow();
    expect(logged.map(String)).toEqual(['Error: no host']);
  });
});

describe('an error that lost no data', () => {
  it.each(['write-protected', 'out-of-range'] as const)('is told to its writer alone: %s', async (code) => {
    await Promise.all([open(1), open(2)]);
    image.writeFailures.push(failure(code));
    expect(await write(1, 0, Buffer.alloc(10))).toBe(code === 'write-protected' ? -errno.EROFS : -errno.ENOSPC);
    expect(await fsync(2)).toBe(0);
  });
});

describe('a device that goes', () => {
  it('fails what comes for open handles with ENXIO, and lets them close', async () => {
    await open(1);
    operations.detach(INODE);
    expect(await read(1, 0, 10)).toBe(-errno.ENXIO);
    expect(await write(1, 0, Buffer.alloc(10))).toBe(-errno.ENXIO);
    expect(await fsync(1)).toBe(-errno.ENXIO);
    expect(await flush(1)).toBe(0);
    expect(await release(1)).toBe(0);
    expect(await open(2)).toBe(-errno.ENXIO);
  });

  it('serves open handles again when it comes back', async () => {
    await open(1);
    operations.detach(INODE);
    operations.attach(INODE, image);
    expect(await read(1, 0, 10)).toHaveLength(10);
  });

  it.each([
    ['comes back', () => operations.detach(INODE)],
    ['is exchanged', () => {}],
  ])('is not vouched for by the one that %s: what was not flushed counts as lost, once', async (_how, leave) => {
    await Promise.all([open(1), open(2)]);
    await write(1, 0, Buffer.alloc(10));
    leave();
    operations.attach(INODE, new MemoryImage(SIZE));
    expect(await fsync(1)).toBe(-errno.EIO);
    expect(await fsync(1)).toBe(0);
    expect(await flush(2)).toBe(-errno.EIO);
  });

  it('is not vouched for either where it acknowledges a write after it went', async () => {
    await open(1);
    image.holdsWrites = true;
    const written = write(1, 0, Buffer.alloc(10));
    operations.detach(INODE);
    operations.attach(INODE, new MemoryImage(SIZE));
    image.heldWrites[0]?.succeed();
    expect(await written).toBe(10);
    expect(await fsync(1)).toBe(-errno.EIO);
  });

  it('takes nothing along that was flushed', async () => {
    await open(1);
    await write(1, 0, Buffer.alloc(10));
    await fsync(1);
    operations.detach(INODE);
    operations.attach(INODE, image);
    expect(await fsync(1)).toBe(0);
  });
});

describe('requests', () => {
  it('on a handle that is not open fail with EBADF', async () => {
    expect(await read(5, 0, 10)).toBe(-errno.EBADF);
    await open(1);
    await release(1);
    expect(await read(1, 0, 10)).toBe(-errno.EBADF);
  });

  it('have their answer also where the log fails', async () => {
    operations = new Operations({
      render: async () => Buffer.alloc(0),
      failed: () => {
        throw new Error('the log is full');
      },
    });
    operations.attach(INODE, image);
    await open(1);
    image.readFailures.push(failure());
    expect(await read(1, 0, 10)).toBe(-errno.EIO);
  });

  it('are drained when each has its answer', async () => {
    await open(1);
    await operations.drained();
    image.holdsWrites = true;
    void write(1, 0, Buffer.alloc(1));
    void flush(1);
    expect(operations.requestsInFlight).toBe(2);
    const drained = operations.drained();
    expect(await isPending(drained)).toBe(true);
    image.heldWrites[0]?.succeed();
    await drained;
    expect(operations.requestsInFlight).toBe(0);
    expect(answers).toBe(3);
  });

  it('that come after the end are refused, but what ends a handle; those that came before have their own answer', async () => {
    image.isStaging = true;
    image.holdsWrites = true;
    await open(1);
    expect(await write(1, 0, Buffer.alloc(10))).toBe(10);
    const makeRoom = waitForRoom();
    const waiting = write(1, 10, Buffer.alloc(10));
    operations.end();
    const late = [open(2), read(1, 0, 1), write(1, 20, Buffer.alloc(10)), fsync(1), zero(1, 0, 512), seek(1, 0, 'data')];
    expect(await Promise.all(late)).toEqual(late.map(() => -errno.ENOTCONN));
    expect(await isPending(operations.drained())).toBe(true);
    makeRoom();
    expect(await waiting).toBe(10);
    const closing = flush(1);
    expect(await isPending(closing)).toBe(true);
    for (const held of image.heldWrites) held.succeed();
    expect(await closing).toBe(0);
    expect(await release(1)).toBe(0);
    expect(image.heldWrites).toHaveLength(2);
    await operations.drained();
    expect(logged).toEqual([]);
  });

  it('for texts go to the renderer', async () => {
    expect(Buffer.from(await operations.render(4)).toString()).toBe('body of 4');
  });
});

describe('fallocate', () => {
  beforeEach(() => open(1));

  it('zeroes the range', async () => {
    expect(await zero(1, 1000, 3000)).toBe(0);
    expect(image.bytes.subarray(1000, 4000).every((byte) => byte === 0)).toBe(true);
    expect(image.bytes[999]).not.toBe(0);
  });

  it('fails with ENOSPC beyond the end, and changes nothing', async () => {
    expect(await zero(1, SIZE - 512, 1024)).toBe(-errno.ENOSPC);
    expect(image.bytes[SIZE - 1]).not.toBe(0);
  });

  it('fails with EBADF on a handle for reading, EROFS where the device is write protected by now, ENXIO where it is gone', async () => {
    await open(2, 'read');
    expect(await zero(2, 0, 512)).toBe(-errno.EBADF);
    image.info = { size: SIZE, writeProtected: true };
    expect(await zero(1, 0, 512)).toBe(-errno.EROFS);
    operations.detach(INODE);
    expect(await zero(1, 0, 512)).toBe(-errno.ENXIO);
  });

  it('fails with EOPNOTSUPP where the device cannot', async () => {
    operations.attach(INODE, Object.assign(image, { zero: undefined, seek: undefined }));
    expect(await zero(1, 0, 512)).toBe(-errno.EOPNOTSUPP);
    expect(await seek(1, 0, 'data')).toBe(-errno.EOPNOTSUPP);
  });

  it('waits for the writes that came before it', async () => {
    image.holdsWrites = true;
    const written = write(1, 0, Buffer.alloc(512, 1));
    const zeroed = zero(1, 0, 512);
    expect(await isPending(zeroed)).toBe(true);
    image.holdsWrites = false;
    image.heldWrites[0]?.succeed();
    expect(await Promise.all([written, zeroed])).toEqual([512, 0]);
    expect(image.bytes[0]).toBe(0);
  });

  it('is waited for by close and fsync', async () => {
    image.holdsWrites = true;
    const zeroed = zero(1, 0, 512);
    const closed = flush(1);
    const synced = fsync(1);
    expect(await isPending(closed)).toBe(true);
    expect(await isPending(synced)).toBe(true);
    image.heldWrites[0]?.succeed();
    expect(await Promise.all([zeroed, closed, synced])).toEqual([0, 0, 0]);
  });

  it('that fails is told to all who have the image open', async () => {
    await open(2);
    image.writeFailures.push(failure());
    expect(await zero(1, 0, 512)).toBe(-errno.EIO);
    expect([await fsync(1), await fsync(2)]).toEqual([0, -errno.EIO]);
  });
});

describe('lseek', () => {
  it('finds data and holes, and ENXIO where there are none', async () => {
    await open(1);
    await zero(1, 1024, 2048);
    await zero(1, SIZE - 512, 512);
    expect(await seek(1, 0, 'hole')).toBe(1024);
    expect(await seek(1, 1100, 'data')).toBe(3072);
    expect(await seek(1, SIZE - 100, 'data')).toBe(-errno.ENXIO);
  });

  it('waits for the writes that came before it', async () => {
    await open(1);
    await zero(1, 0, SIZE);
    image.holdsWrites = true;
    const written = write(1, 4096, Buffer.alloc(512, 1));
    const found = seek(1, 0, 'data');
    expect(await isPending(found)).toBe(true);
    image.heldWrites[0]?.succeed();
    expect(await Promise.all([written, found])).toEqual([512, 4096]);
  });
});

describe('an interrupted request', () => {
  let clock: VirtualClock;
  /** The newest request that was sent. */
  let sent: FuseRequest;
  /** Of the one that was interrupted. */
  let answer: Promise<number | Buffer>;
  /** Ends what the device was asked. */
  let end: (failure?: Error) => void;

  beforeEach(() => {
    clock = new VirtualClock();
    operations = new Operations({
      clock,
      render: async () => Buffer.alloc(0),
      failed: (error) => logged.push(error),
    });
    const requests = operations.requests.bind(operations);
    operations.requests = (batch) => {
      sent = batch.at(-1) as FuseRequest;
      requests(batch);
    };
    operations.attach(INODE, image);
  });

  /** Has the next `method` of the device wait for `end`. */
  function hold(method: 'read' | 'flush' | 'opened'): void {
    const ended = new Promise<void>((resolve, reject) => {
      end = (error) => (error === undefined ? resolve() : reject(error));
    });
    if (method === 'read') {
      const original = image.startRead.bind(image);
      image.startRead = (offset, length, answered) => {
        ended.then(
          () => original(offset, length, answered),
          (error: unknown) => answered(undefined, { error }),
        );
      };
    } else {
      const original = image[method].bind(image);
      image[method] = () => {
        image[method] = original;
        return ended.then(original);
      };
    }
  }

  /** Sends a request that the device keeps waiting, and interrupts it. */
  async function interruptOne(method: 'read' | 'flush'): Promise<void> {
    await open(1);
    hold(method);
    answer = method === 'read' ? read(1, 0, 10) : fsync(1);
    operations.interrupted(sent);
  }

  /** Interrupts what was sent last: it gets EINTR after two seconds, and not before. */
  async function endsInterrupted(asked: Promise<unknown>): Promise<void> {
    operations.interrupted(sent);
    await clock.advance(1_999);
    expect(await isPending(asked)).toBe(true);
    await clock.advance(1);
    expect(await asked).toBe(-errno.EINTR);
  }

  it('that ends within two seconds has its own answer', async () => {
    await interruptOne('read');
    await clock.advance(1_999);
    expect(await isPending(answer)).toBe(true);
    end();
    expect(await answer).toEqual(Buffer.from(image.bytes.subarray(0, 10)));
    expect(clock.pendingTimers).toBe(0);
  });

  it('has one answer, EINTR, after two seconds, however often it is interrupted', async () => {
    await interruptOne('read');
    await clock.advance(1_000);
    operations.interrupted(sent);
    await clock.advance(1_000);
    expect(await answer).toBe(-errno.EINTR);
    operations.interrupted(sent);
    expect(clock.pendingTimers).toBe(0);
  });

  it('gives the lease back that comes for a read after EINTR, and has not ended before', async () => {
    await interruptOne('read');
    await clock.advance(2_000);
    expect(await answer).toBe(-errno.EINTR);
    expect(operations.requestsInFlight).toBe(1);
    end();
    await operations.drained();
    expect(image.leases).toBe(0);
    expect(answers).toBe(2);
    expect(await isPending(operations.drained())).toBe(false);
  });

  it('logs the failure of a read after EINTR, and answers nothing more', async () => {
    await interruptOne('read');
    await clock.advance(2_000);
    await answer;
    const error = failure();
    end(error);
    await operations.drained();
    expect(logged).toEqual([error]);
    expect(answers).toBe(2);
  });

  it('tells the next fsync of the failure of a flush after EINTR, once', async () => {
    await interruptOne('flush');
    await clock.advance(2_000);
    expect(await answer).toBe(-errno.EINTR);
    end(failure());
    await operations.drained();
    expect(await fsync(1)).toBe(-errno.EIO);
    expect(await fsync(1)).toBe(0);
  });

  it('lets the next fsync succeed where the flush does after EINTR', async () => {
    await interruptOne('flush');
    await clock.advance(2_000);
    expect(await answer).toBe(-errno.EINTR);
    end();
    await operations.drained();
    expect(await fsync(1)).toBe(0);
  });

  it('that was to open leaves no handle behind, however the device ends it', async () => {
    for (const failed of [undefined, failure()]) {
      image.hooks.length = 0;
      hold('opened');
      const opening = open(1);
      operations.interrupted(sent);
      await clock.advance(2_000);
      expect(await opening).toBe(-errno.EINTR);
      end(failed);
      await operations.drained();
      expect(image.hooks.at(-1) ?? 'closed').toBe('closed');
      expect(await read(1, 0, 10)).toBe(-errno.EBADF);
    }
  });

  it.each([
    ['zeroes', () => zero(1, 0, 512)],
    ['seeks', () => seek(1, 0, 'data')],
  ])('that %s ends the work behind it with EINTR, which concerns nobody else', async (_, ask) => {
    await Promise.all([open(1), open(2)]);
    image.holdsWrites = true;
    image.holdsSeeks = true;
    const asked = ask();
    await endsInterrupted(asked);
    await operations.drained();
    expect(await Promise.all([fsync(1), fsync(2)])).toEqual([0, 0]);
  });

  it('that zeroes and that the device does not let go of has EINTR all the same', async () => {
    await open(1);
    let zeroed = () => {};
    image.zero = () =>
      new Promise((resolve) => {
        zeroed = resolve;
      });
    const asked = zero(1, 0, 512);
    operations.interrupted(sent);
    await clock.advance(2_000);
    expect(await asked).toBe(-errno.EINTR);
    expect(operations.requestsInFlight).toBe(1);
    zeroed();
    await operations.drained();
  });

  it('that writes through is not given up', async () => {
    await open(1);
    image.holdsWrites = true;
    const writing = write(1, 0, Buffer.alloc(10));
    operations.interrupted(sent);
    await clock.advance(60_000);
    expect(await isPending(writing)).toBe(true);
    image.heldWrites[0]?.succeed();
    expect(await writing).toBe(10);
    expect(clock.pendingTimers).toBe(0);
  });

  describe('of a handle with staged writes', () => {
    beforeEach(async () => {
      image.isStaging = true;
      image.holdsWrites = true;
      await Promise.all([open(1), open(2)]);
      expect(await write(1, 0, Buffer.alloc(10, 1))).toBe(10);
    });

    it('that writes and waits to be taken ends with EINTR, and is not done', async () => {
      waitForRoom();
      const writing = write(1, 512, Buffer.alloc(10, 1));
      await endsInterrupted(writing);
      expect(image.heldWrites).toHaveLength(1);
      image.heldWrites[0]?.succeed();
      expect(await Promise.all([fsync(1), flush(1), fsync(2)])).toEqual([0, 0, 0]);
      expect(logged).toEqual([]);
    });

    it('that writes and is taken meanwhile has its own answer', async () => {
      const makeRoom = waitForRoom();
      const writing = write(1, 512, Buffer.alloc(10, 1));
      operations.interrupted(sent);
      makeRoom();
      expect(await writing).toBe(10);
      expect(clock.pendingTimers).toBe(0);
    });

    it('that closes leaves the writes under way, and an error to whoever asks next', async () => {
      const closing = flush(1);
      operations.interrupted(sent);
      await clock.advance(2_000);
      expect(await closing).toBe(-errno.EINTR);
      expect(operations.requestsInFlight).toBe(1);
      image.heldWrites[0]?.fail(failure());
      await operations.drained();
      expect([await flush(1), await fsync(1), await fsync(2)]).toEqual([-errno.EIO, -errno.EIO, -errno.EIO]);
    });

    it.each([
      ['zeroes', () => zero(1, 512, 512)],
      ['seeks', () => seek(1, 512, 'data')],
    ])('that %s behind them ends with EINTR, and is never done', async (_, ask) => {
      const before = image.bytes.slice();
      const asked = ask();
      await endsInterrupted(asked);
      expect(operations.requestsInFlight).toBe(0);
      image.heldWrites[0]?.succeed();
      expect(await Promise.all([fsync(1), fsync(2)])).toEqual([0, 0]);
      expect(image.heldWrites).toHaveLength(1);
      expect(image.bytes.subarray(10)).toEqual(before.subarray(10));
    });

    it.each([
      ['a zero', () => zero(1, 512, 512)],
      ['a seek', () => seek(1, 512, 'data')],
      ['a write', () => write(1, 512, Buffer.alloc(10))],
      ['an fsync', () => fsync(1)],
      ['a close', () => flush(1)],
    ])('makes the next close end as well: %s', async (what, ask) => {
      if (what === 'a write') waitForRoom();
      const asked = ask();
      operations.interrupted(sent);
      await clock.advance(2_000);
      expect(await asked).toBe(-errno.EINTR);
      const closing = flush(1);
      expect(await isPending(closing)).toBe(true);
      await clock.advance(2_000);
      expect(await closing).toBe(-errno.EINTR);
      image.heldWrites[0]?.succeed();
      await operations.drained();
      expect(await write(1, 512, Buffer.alloc(10))).toBe(10);
      const later = flush(1);
      await clock.advance(60_000);
      expect(await isPending(later)).toBe(true);
      image.heldWrites[1]?.succeed();
      expect(await later).toBe(0);
    });
  });
});
