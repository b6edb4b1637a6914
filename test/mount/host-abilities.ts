/**
 * What a FUSE host must do beyond `host-contract.ts`: directories that are looked into on demand, and what its `supports`
 * and its `window` promise. Call `hostAbilities` from a test file of the host. The host serves from this process; all
 * looks at the mount come from children.
 */

import { mkdtemp, rmdir } from 'node:fs/promises';
import { constants as osConstants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, type TestContext } from 'vitest';
import { type Entry, type FuseHost, type FuseRequest, type MountFuse, ROOT_INODE } from '../../src/fuse/host.ts';
import { unmountPath } from '../../src/fuse/mountpoint.ts';
import type { SharedMemory } from '../../src/scsi/block-device.ts';
import { BufferPool } from '../../src/scsi/buffer-pool.ts';
import { type PageWindow, WINDOW_PAGE } from '../../src/scsi/page-window.ts';
import { IoChild, run, runSuccessfully } from '../support/child-io.ts';
import { DIRECTORY, DIRECTORY_NAME, entries, IMAGE, MemoryUpcalls, SIZE, until } from './host-contract.ts';

const { errno } = osConstants;
const MIB = 1024 * 1024;
const DEFERRED = 20;
const INSIDE = 21;
const CACHED = 30;
/** Where the last page of the image begins, which is a part of one. */
const LAST_PAGE = 4 * MIB;

type Ability = 'fallocate' | 'seek' | 'interrupt' | 'invalidate' | 'window' | 'memory';

/** What hosts differ in beside `supports`. */
export interface HostLimits {
  /** Bytes of the largest read or write. */
  readonly largestRequest: number;
  /** How many reads it has in flight at once, of those that come. */
  readonly readsInFlight: number;
}

const deferred: Entry = {
  kind: 'directory',
  inode: DEFERRED,
  parent: ROOT_INODE,
  name: 'deferred',
  mode: 0o500,
  modifiedMs: 0,
  isDeferred: true,
};
const known: Entry[] = [
  { ...deferred, isDeferred: false },
  { kind: 'image', inode: INSIDE, parent: DEFERRED, name: 'inside', mode: 0o600, modifiedMs: 0, size: 512, pageCache: 'direct' },
];

/** lseek(2): prints the offset, or the name of the errno. */
const SEEK = `
import errno, os, sys
f = os.open(sys.argv[1], os.O_RDONLY)
try: print(os.lseek(f, int(sys.argv[2]), os.SEEK_DATA if sys.argv[3] == 'data' else os.SEEK_HOLE))
except OSError as e: print(errno.errorcode[e.errno])
`;
/** Reads the first page while that begins with 1. */
const READ_WHILE_ONE = `
import os, sys
f = os.open(sys.argv[1], os.O_RDONLY)
while os.pread(f, 4096, 0) == b'\\1' * 4096: pass
`;
/** One read, with a signal every 20 ms that changes nothing. */
const READ_WITH_SIGNALS = `
import os, signal, sys
f = os.open(sys.argv[1], os.O_RDONLY)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
print(len(os.pread(f, 4096, 0)))
signal.setitimer(signal.ITIMER_REAL, 0)
`;
/** A thread for each of 300 reads, each of its own place; prints how many got 4096 bytes. */
const READ_AT_ONCE = `
import os, sys, threading
f = os.open(sys.argv[1], os.O_RDONLY)
threading.stack_size(256 * 1024)
lengths = []
threads = [threading.Thread(target=lambda at=at: lengths.append(len(os.pread(f, 4096, at * 4096)))) for at in range(300)]
for t in threads: t.start()
for t in threads: t.join()
print(lengths.count(4096))
`;

const python = async (program: string, ...args: string[]) =>
  (await runSuccessfully('python3', ['-c', program, ...args])).toString().trim();

export function hostAbilities(name: string, mountFuse: MountFuse, { largestRequest, readsInFlight }: HostLimits): void {
  describe(`${name}, beyond files and names`, () => {
    let mountpoint: string;
    let host: FuseHost;
    let upcalls: MemoryUpcalls;
    let pool: BufferPool;
    let io: IoChild;
    let image: string;
    let isMounted = false;
    /** What the host can do; undefined before the first mount. */
    let abilities: ReadonlySet<Ability> | undefined;

    /** Mounts, or skips the test where the host lacks `needed`. */
    async function begin(context: TestContext, needed?: Ability): Promise<void> {
      const skipIfLacking = () => {
        if (needed !== undefined && abilities?.has(needed) === false) context.skip(`the host has no ${needed}`);
      };
      skipIfLacking();
      await mount();
      const { fallocate, seek, interrupt, invalidate } = host.supports;
      const window = host.window(IMAGE) !== undefined;
      const memory = window && pool.bytesInUse > 0;
      const found = Object.entries({ fallocate, seek, interrupt, invalidate, window, memory });
      abilities = new Set(found.filter(([, has]) => has).map(([ability]) => ability as Ability));
      if (needed !== undefined && !abilities.has(needed)) await end();
      skipIfLacking();
    }

    async function mount(): Promise<void> {
      mountpoint = await mkdtemp(join(tmpdir(), 'iserfs host '));
      image = join(mountpoint, DIRECTORY_NAME, 'image');
      upcalls = new MemoryUpcalls();
      pool = new BufferPool();
      io = new IoChild();
      host = await mountFuse({
        mountpoint,
        upcalls,
        uid: process.getuid?.() ?? 0,
        gid: process.getgid?.() ?? 0,
        allowOther: false,
        readOnly: false,
        source: 'host, abilities',
        directIo: true,
        memory: pool,
      });
      isMounted = true;
      host.setEntries([...entries(true), deferred]);
    }

    async function end(): Promise<void> {
      if (!isMounted) return;
      isMounted = false;
      upcalls.intercept = () => false;
      await io[Symbol.asyncDispose]();
      await unmountPath(mountpoint, { lazy: true });
      await host.closed;
      await rmdir(mountpoint);
    }

    afterEach(end);

    /** Collects the requests that `isHeld`, unanswered. */
    function hold(isHeld: (request: FuseRequest) => boolean): FuseRequest[] {
      const held: FuseRequest[] = [];
      upcalls.intercept = (request) => {
        if (isHeld(request)) held.push(request);
        return isHeld(request);
      };
      return held;
    }

    describe('a deferred directory', () => {
      beforeEach((context) => begin(context));

      const inside = () => join(mountpoint, 'deferred', 'inside');

      it('is not looked into for its parent or its own attributes', async () => {
        expect(await io.readdir(mountpoint)).toContain('deferred');
        expect((await io.stat(join(mountpoint, 'deferred'))).ino).toBe(DEFERRED);
        await runSuccessfully('ls', ['-l', mountpoint]);
        expect(upcalls.expanded).toEqual([]);
      });

      it('is read when what is below it is known', async () => {
        upcalls.onExpand = async () => host.setEntries(known);
        expect(await io.readdir(join(mountpoint, 'deferred'))).toEqual(['inside']);
        expect(await io.readdir(join(mountpoint, 'deferred'))).toEqual(['inside']);
        expect(upcalls.expanded).toEqual([DEFERRED]);
      });

      it('is expanded once for all who look at once, and they wait for it', async () => {
        let expand = () => {};
        upcalls.onExpand = () => {
          return new Promise((resolve) => {
            expand = () => {
              host.setEntries(known);
              resolve();
            };
          });
        };
        const others = [new IoChild(), new IoChild()];
        const looks = [
          io.stat(inside()),
          others[0]?.readdir(join(mountpoint, 'deferred')),
          others[1]?.stat(`${inside()}-absent`).catch((error: unknown) => error),
        ];
        await until(() => upcalls.expanded.length > 0);
        let haveEnded = false;
        void Promise.race(looks).then(() => {
          haveEnded = true;
        });
        expect((await runSuccessfully('stat', ['-c', '%i', image])).toString().trim()).toBe(String(IMAGE));
        expect(haveEnded).toBe(false);
        expand();
        expect(await Promise.all(looks)).toEqual([
          expect.objectContaining({ ino: INSIDE }),
          ['inside'],
          expect.objectContaining({ code: 'ENOENT' }),
        ]);
        expect(upcalls.expanded).toEqual([DEFERRED]);
        await Promise.all(others.map((other) => other[Symbol.asyncDispose]()));
      });

      it('is EIO for whoever asked where it cannot be expanded, and asked for again', async () => {
        upcalls.onExpand = async () => {
          throw new Error('no login');
        };
        await expect(io.stat(inside())).rejects.toMatchObject({ code: 'EIO' });
        expect(upcalls.failures.map(String)).toEqual(['Error: no login']);
        upcalls.onExpand = async () => host.setEntries(known);
        expect((await io.stat(inside())).ino).toBe(INSIDE);
        expect(upcalls.expanded).toEqual([DEFERRED, DEFERRED]);
      });
    });

    describe('requests', () => {
      beforeEach((context) => begin(context));

      it('are as large as the host says, for reads and writes', async () => {
        await runSuccessfully('dd', [`if=${image}`, 'of=/dev/null', 'bs=1M', 'count=1', 'iflag=direct']);
        expect(Math.max(...upcalls.lengths)).toBe(largestRequest);
        upcalls.lengths.length = 0;
        await runSuccessfully('dd', ['if=/dev/zero', `of=${image}`, 'bs=1M', 'count=1', 'oflag=direct', 'conv=notrunc']);
        expect(upcalls.lengths).toEqual(Array.from({ length: MIB / largestRequest }, () => largestRequest));
      });

      it('are not lost where 300 come at once', async () => {
        const waiting: FuseRequest[] = [];
        let reads = 0;
        const answer = (request: FuseRequest) => {
          if (request.op === 'read')
            request.doneWith([upcalls.bytes.subarray(request.offset, request.offset + request.length)], () => {});
        };
        upcalls.intercept = (request) => {
          if (request.op !== 'read') return false;
          reads++;
          if (reads > readsInFlight) answer(request);
          else waiting.push(request);
          if (reads === readsInFlight) for (const held of waiting) answer(held);
          return true;
        };
        expect(await python(READ_AT_ONCE, image)).toBe('300');
        expect(reads).toBe(300);
      });
    });

    describe('fallocate', () => {
      let zeros: object[];

      beforeEach(async (context) => {
        await begin(context, 'fallocate');
        zeros = [];
        upcalls.intercept = (request) => {
          if (request.op !== 'zero') return false;
          const { inode, offset, length, mayUnmap } = request;
          zeros.push({ inode, offset, length, mayUnmap });
          request.done(0);
          return true;
        };
      });

      it('asks for zeros that may be unmapped for a hole, and for mere zeros otherwise', async () => {
        await runSuccessfully('fallocate', ['-p', '-o', '4096', '-l', '8192', image]);
        await runSuccessfully('fallocate', ['-z', '-o', '512', '-l', '1024', image]);
        await runSuccessfully('fallocate', ['-z', '-n', '-o', '0', '-l', '512', image]);
        expect(zeros).toEqual([
          { inode: IMAGE, offset: 4096, length: 8192, mayUnmap: true },
          { inode: IMAGE, offset: 512, length: 1024, mayUnmap: false },
          { inode: IMAGE, offset: 0, length: 512, mayUnmap: false },
        ]);
      });

      it('leaves out what lies beyond the end where the size is kept', async () => {
        await runSuccessfully('fallocate', ['-p', '-o', String(SIZE - 512), '-l', '4096', image]);
        await runSuccessfully('fallocate', ['-z', '-n', '-o', String(SIZE + 4096), '-l', '4096', image]);
        expect(zeros).toEqual([{ inode: IMAGE, offset: SIZE - 512, length: 512, mayUnmap: true }]);
        expect((await io.stat(image)).size).toBe(SIZE);
      });

      it('fails where the image would have to grow, and in modes that move bytes', async () => {
        const failing = async (...args: string[]) => (await run('fallocate', [...args, image])).stderr;
        expect(await failing('-z', '-o', String(SIZE - 512), '-l', '4096')).toContain('No space left');
        expect(await failing('-o', String(SIZE), '-l', '512')).toContain('No space left');
        expect(await failing('-c', '-o', '0', '-l', '4096')).toMatch(/not supported/);
        expect(zeros).toEqual([]);
        expect((await io.stat(image)).size).toBe(SIZE);
      });

      it('succeeds without a request for space that is there', async () => {
        await runSuccessfully('fallocate', ['-o', '0', '-l', '8192', image]);
        expect(zeros).toEqual([]);
      });

      it('passes the errno of the answer on', async () => {
        upcalls.intercept = (request) => {
          if (request.op === 'zero') request.done(-errno.EROFS);
          return request.op === 'zero';
        };
        expect((await run('fallocate', ['-p', '-o', '0', '-l', '4096', image])).stderr).toContain('Read-only');
      });
    });

    describe('lseek', () => {
      beforeEach((context) => begin(context, 'seek'));

      it('passes the place and the answer, and ENXIO where there is no data', async () => {
        const sought: object[] = [];
        const results = [8192, 4096, -errno.ENXIO];
        upcalls.intercept = (request) => {
          if (request.op !== 'seek') return false;
          sought.push({ offset: request.offset, what: request.what });
          request.done(results.shift() ?? 0);
          return true;
        };
        expect(await python(SEEK, image, '100', 'data')).toBe('8192');
        expect(await python(SEEK, image, '200', 'hole')).toBe('4096');
        expect(await python(SEEK, image, '300', 'data')).toBe('ENXIO');
        expect(sought).toEqual([
          { offset: 100, what: 'data' },
          { offset: 200, what: 'hole' },
          { offset: 300, what: 'data' },
        ]);
      });

      it('finds ENXIO from the end on, without a request', async () => {
        for (const what of ['data', 'hole']) expect(await python(SEEK, image, String(SIZE), what)).toBe('ENXIO');
        expect(upcalls.seen).not.toContain('seek');
      });

      it('finds all data where nobody knows of holes', async () => {
        upcalls.intercept = (request) => {
          if (request.op === 'seek') request.done(-errno.EOPNOTSUPP);
          return request.op === 'seek';
        };
        expect(await python(SEEK, image, '100', 'data')).toBe('100');
        expect(await python(SEEK, image, '100', 'hole')).toBe(String(SIZE));
      });

      it('has its like for the size of a block device, and no other such question', async () => {
        expect((await runSuccessfully('blockdev', ['--getsize64', image])).toString().trim()).toBe(String(SIZE));
        expect((await run('blockdev', ['--getss', image])).status).not.toBe(0);
      });
    });

    describe('a signal', () => {
      beforeEach((context) => begin(context, 'interrupt'));

      it('is told of once with the request that waits, which may still be answered', async () => {
        const held = hold(({ op }) => op === 'read');
        const reading = python(READ_WITH_SIGNALS, image);
        await until(() => upcalls.interruptions.length > 0);
        // Time for some more signals.
        for (let round = 0; round < 10; round++) await runSuccessfully('sleep', ['0.02']);
        expect(upcalls.interruptions).toHaveLength(1);
        expect(upcalls.interruptions[0]).toBe(held[0]);
        const [request] = held;
        if (request?.op === 'read') request.doneWith([upcalls.bytes.subarray(0, 4096)], () => {});
        expect(await reading).toBe('4096');
        expect(upcalls.interruptions).toHaveLength(1);
      });

      it('is told of after the request has come up, also where both came while the event loop was busy', async () => {
        const held = hold(({ op }) => op === 'open' || op === 'read');
        let wasUp: boolean | undefined;
        upcalls.onInterrupted = (request) => {
          wasUp = held.includes(request);
        };
        const reading = python(READ_WITH_SIGNALS, image);
        await until(() => held.length > 0);
        held[0]?.done(0);
        // The child goes on to its read, and to the first signal in it.
        for (const start = performance.now(); performance.now() - start < 500; );
        await until(() => upcalls.interruptions.length > 0);
        await until(() => held.length > 1);
        const request = held[1];
        if (request?.op === 'read') request.doneWith([upcalls.bytes.subarray(0, 4096)], () => {});
        expect(await reading).toBe('4096');
        expect(wasUp).toBe(true);
      });

      it('kills whoever waits where the answer is EINTR', async () => {
        hold(({ op }) => op === 'read');
        upcalls.onInterrupted = (request) => {
          if (request.op === 'read') request.done(-errno.EINTR);
        };
        const { status } = await run('timeout', ['1', 'dd', `if=${image}`, 'of=/dev/null', 'bs=4096', 'count=1']);
        expect(status).toBe(124);
        // The flush at its end is interrupted as well, where it has not ended by then.
        expect(upcalls.interruptions[0]?.op).toBe('read');
      });
    });

    describe('the window', () => {
      let window: PageWindow;
      let descriptor: number;
      /** What is shown is read in place: nobody else keeps its memory. */
      const kept: Uint8Array[] = [];
      const page = (value: number, length = WINDOW_PAGE) => {
        const bytes = new Uint8Array(length).fill(value);
        kept.push(bytes);
        return bytes;
      };
      const reads = () => upcalls.seen.filter((op) => op === 'read').length;
      const offsets = () => {
        const found: number[] = [];
        window.takeHits((offset) => found.push(offset));
        return found;
      };

      beforeEach(async (context) => {
        await begin(context, 'window');
        window = host.window(IMAGE) as PageWindow;
        descriptor = await io.open(image, 'r');
      });

      it('answers reads of what it shows without a request, and counts them', async () => {
        const bytes = page(0xaa, 2 * WINDOW_PAGE);
        window.show(WINDOW_PAGE, bytes);
        expect((await io.read(descriptor, WINDOW_PAGE, 2 * WINDOW_PAGE)).equals(bytes)).toBe(true);
        expect(await io.read(descriptor, WINDOW_PAGE + 100, 7)).toEqual(Buffer.alloc(7, 0xaa));
        expect(reads()).toBe(0);
        expect(window.hits).toBe(2);
        expect(offsets()).toEqual([WINDOW_PAGE, WINDOW_PAGE + 100]);
        expect(offsets()).toEqual([]);
        expect(window.hits).toBe(2);
      });

      it('answers nothing any more once it is hidden', async () => {
        window.show(0, page(0xaa, 3 * WINDOW_PAGE));
        window.hide(WINDOW_PAGE, WINDOW_PAGE);
        const middle = await io.read(descriptor, WINDOW_PAGE, WINDOW_PAGE);
        expect(middle.equals(upcalls.bytes.subarray(WINDOW_PAGE, 2 * WINDOW_PAGE))).toBe(true);
        expect(reads()).toBe(1);
        expect((await io.read(descriptor, 0, 10)).equals(Buffer.alloc(10, 0xaa))).toBe(true);
        expect((await io.read(descriptor, 2 * WINDOW_PAGE, 10)).equals(Buffer.alloc(10, 0xaa))).toBe(true);
        expect(reads()).toBe(1);
      });

      it('shows other memory in place of what it showed', async () => {
        window.show(0, page(1));
        window.show(0, page(2));
        expect(await io.read(descriptor, 0, 3)).toEqual(Buffer.from([2, 2, 2]));
      });

      it('shows a last page that is a part of one, up to the end', async () => {
        window.show(LAST_PAGE, page(0xbb, SIZE - LAST_PAGE));
        expect(await io.read(descriptor, SIZE - 100, 4096)).toEqual(Buffer.alloc(100, 0xbb));
        expect(reads()).toBe(0);
      });

      it('leaves a read to a request that it shows only a part of', async () => {
        window.show(0, page(0xaa));
        const found = await io.read(descriptor, 0, 2 * WINDOW_PAGE);
        expect(found.equals(upcalls.bytes.subarray(0, 2 * WINDOW_PAGE))).toBe(true);
        expect(reads()).toBe(1);
        expect(window.hits).toBe(0);
      });

      it('shows nothing of before when the size has changed', async () => {
        window.show(LAST_PAGE, page(0xbb, SIZE - LAST_PAGE));
        const grown = entries(true).map((entry) =>
          entry.inode === IMAGE && entry.kind === 'image' ? { ...entry, size: SIZE + 3584 } : entry,
        );
        host.setEntries(grown);
        const found = await io.read(descriptor, LAST_PAGE, 512);
        expect(found.equals(upcalls.bytes.subarray(LAST_PAGE, SIZE))).toBe(true);
        expect(reads()).toBe(1);
      });

      it('is read while the event loop is busy', async () => {
        const bytes = page(1);
        window.show(0, bytes);
        const reading = python(READ_WHILE_ONE, image);
        await until(() => window.hits > 0);
        const before = window.hits;
        const start = performance.now();
        const spent = () => performance.now() - start;
        while (spent() < 300 || (window.hits < before + 100 && spent() < 8_000));
        expect(window.hits).toBeGreaterThanOrEqual(before + 100);
        window.hide(0, WINDOW_PAGE);
        await reading;
      });

      it('leaves the event loop its turns while one reader takes page after page', async () => {
        window.show(0, page(1));
        const reading = python(READ_WHILE_ONE, image);
        await until(() => window.hits > 0);
        const before = window.hits;
        let turns = 0;
        await until(() => {
          turns++;
          return window.hits > before + 5_000;
        });
        expect(turns).toBeGreaterThan(5);
        window.hide(0, WINDOW_PAGE);
        await reading;
      });
    });

    describe('memory of a write', () => {
      beforeEach((context) => begin(context, 'memory'));

      it('is of the options, at the start of a page, for a megabyte at once', async () => {
        const found: object[] = [];
        upcalls.intercept = (request) => {
          if (request.op === 'write')
            found.push({
              length: request.data.length,
              isOfPool: pool.holds(request.data),
              inPage: request.data.byteOffset % 4096,
            });
          return false;
        };
        await runSuccessfully('dd', ['if=/dev/zero', `of=${image}`, 'bs=1M', 'count=1', 'oflag=direct', 'conv=notrunc']);
        expect(found).toEqual([{ length: MIB, isOfPool: true, inPage: 0 }]);
      });

      it('keeps its bytes after the reply while it is retained, and goes back in the end', async () => {
        const kept: { readonly data: Uint8Array; readonly memory: SharedMemory }[] = [];
        upcalls.intercept = (request) => {
          if (request.op === 'write' && request.data[0] === 7 && request.memory !== undefined) {
            request.memory.retain();
            kept.push({ data: request.data, memory: request.memory });
          }
          return false;
        };
        const descriptor = await io.open(image, 'r+');
        await io.write(descriptor, 0, Buffer.alloc(65_536, 7));
        await io.write(descriptor, 65_536, Buffer.alloc(65_536, 7));
        await runSuccessfully('dd', ['if=/dev/zero', `of=${image}`, 'bs=16K', 'count=200', 'conv=notrunc']);
        expect(kept).toHaveLength(2);
        for (const { data } of kept) expect(Buffer.alloc(65_536, 7).equals(data)).toBe(true);
        kept.pop()?.memory.release();
        // One that is retained, one that is read into, two that wait, and what the last write may have brought or left.
        expect(pool.bytesInUse).toBeLessThanOrEqual(6 * MIB);
        await io.close(descriptor);
        await io[Symbol.asyncDispose]();
        await host.unmount('lazy');
        await host.closed;
        expect(pool.bytesInUse).toBe(MIB);
        for (const { data } of kept) expect(Buffer.alloc(65_536, 7).equals(data)).toBe(true);
        kept.pop()?.memory.release();
        expect(pool.bytesInUse).toBe(0);
      });
    });

    it('drops what the kernel keeps of a range that is invalidated', async (context) => {
      await begin(context, 'invalidate');
      const common = { mode: 0o600, modifiedMs: 0, size: SIZE } as const;
      host.setEntries([
        { kind: 'image', inode: CACHED, parent: DIRECTORY, name: 'cached', pageCache: 'dropped-at-open', ...common },
      ]);
      const descriptor = await io.open(join(mountpoint, DIRECTORY_NAME, 'cached'), 'r');
      const before = await io.read(descriptor, 0, 4096);
      upcalls.bytes.fill(0xee, 0, 4096);
      expect((await io.read(descriptor, 0, 4096)).equals(before)).toBe(true);
      await host.invalidate(CACHED, 0, 4096);
      expect((await io.read(descriptor, 0, 4096)).equals(Buffer.alloc(4096, 0xee))).toBe(true);
    });
  });
}
