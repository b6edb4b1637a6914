/**
 * What every FUSE host must do, as one suite: call `hostContract` from a test file of the host. The
 * host serves from this process; all looks at the mount come from children.
 */

import { constants } from 'node:fs';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { constants as osConstants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  type Entry,
  type FuseHost,
  type FuseHostOptions,
  type FuseRequest,
  type FuseUpcalls,
  type MountFuse,
  ROOT_INODE,
} from '../../src/fuse/host.ts';
import { mountAt, readMountTable } from '../../src/fuse/mount-table.ts';
import { unmountPath } from '../../src/fuse/mountpoint.ts';
import { IoChild, run, runSuccessfully } from '../support/child-io.ts';

const { errno } = osConstants;

export const DIRECTORY = 2;
export const DIRECTORY_NAME = 'iqn.2024-01.example:disk';
export const IMAGE = 3;
const TEXT = 4;
const READ_ONLY_IMAGE = 5;
export const SIZE = 4 * 1024 * 1024 + 512;

/** Upcalls over one buffer, with hooks that a test sets. */
export class MemoryUpcalls implements FuseUpcalls {
  readonly bytes = new Uint8Array(SIZE);
  readonly seen: FuseRequest['op'][] = [];
  readonly accesses: string[] = [];
  readonly lengths: number[] = [];
  readonly failures: unknown[] = [];
  readonly expanded: number[] = [];
  readonly interruptions: FuseRequest[] = [];
  onExpand: (inode: number) => Promise<void> = async () => {};
  onInterrupted: (request: FuseRequest) => void = () => {};
  released = 0;
  renderings = 0;
  body: () => string = () => `rendering ${this.renderings}\n`;
  /** Returns true where it answers the request itself. */
  intercept: (request: FuseRequest) => boolean = () => false;

  constructor() {
    for (let offset = 0; offset < SIZE; offset++) this.bytes[offset] = (offset * 31 + (offset >>> 9)) & 0xff;
  }

  requests(batch: readonly FuseRequest[]): void {
    for (const request of batch) {
      this.seen.push(request.op);
      if (!this.intercept(request)) this.#answer(request);
    }
  }

  async render(): Promise<Uint8Array> {
    this.renderings++;
    return Buffer.from(this.body());
  }

  async expand(inode: number): Promise<void> {
    this.expanded.push(inode);
    await this.onExpand(inode);
  }

  interrupted(request: FuseRequest): void {
    this.interruptions.push(request);
    this.onInterrupted(request);
  }

  failed(error: unknown): void {
    this.failures.push(error);
  }

  #answer(request: FuseRequest): void {
    if (request.op === 'read') {
      this.lengths.push(request.length);
      const found = this.bytes.subarray(request.offset, request.offset + request.length);
      const middle = found.length >> 1;
      request.doneWith([found.subarray(0, middle), found.subarray(middle)], () => this.released++);
      return;
    }
    let result = 0;
    if (request.op === 'open') this.accesses.push(request.access);
    if (request.op === 'write') {
      this.lengths.push(request.data.length);
      this.bytes.set(request.data, request.offset);
      result = request.data.length;
    }
    request.done(result);
  }
}

export const entries = (directIo: boolean): Entry[] => {
  const common = { modifiedMs: Date.UTC(2020, 0, 2, 3, 4, 5) };
  const pageCache = directIo ? 'direct' : 'dropped-at-open';
  return [
    { kind: 'directory', inode: DIRECTORY, parent: ROOT_INODE, name: DIRECTORY_NAME, mode: 0o500, ...common },
    { kind: 'image', inode: IMAGE, parent: DIRECTORY, name: 'image', mode: 0o600, size: SIZE, pageCache, ...common },
    { kind: 'text', inode: TEXT, parent: DIRECTORY, name: 'status', mode: 0o400, ...common },
    { kind: 'image', inode: READ_ONLY_IMAGE, parent: DIRECTORY, name: 'read-only', mode: 0o400, size: 512, pageCache, ...common },
  ];
};

/** Polls `condition`; a test's own time limit ends it. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 5));
}

export function hostContract(name: string, mountFuse: MountFuse): void {
  describe.each([
    { cache: 'with a page cache', directIo: false },
    { cache: 'without a page cache', directIo: true },
  ])(`${name} $cache`, ({ directIo }) => {
    let mountpoint: string;
    let host: FuseHost;
    let upcalls: MemoryUpcalls;
    let io: IoChild;
    let directory: string;
    let image: string;
    let text: string;

    const mount = (options: Partial<FuseHostOptions> = {}) => {
      const uid = process.getuid?.() ?? 0;
      const gid = process.getgid?.() ?? 0;
      return mountFuse({
        mountpoint,
        upcalls,
        uid,
        gid,
        allowOther: false,
        readOnly: false,
        source: 'host, contract',
        directIo,
        ...options,
      });
    };

    beforeEach(async () => {
      mountpoint = await mkdtemp(join(tmpdir(), 'iserfs host '));
      directory = join(mountpoint, DIRECTORY_NAME);
      image = join(directory, 'image');
      text = join(directory, 'status');
      upcalls = new MemoryUpcalls();
      io = new IoChild();
      host = await mount();
      host.setEntries(entries(directIo));
    });

    afterEach(async () => {
      upcalls.intercept = () => false;
      await io[Symbol.asyncDispose]();
      await unmountPath(mountpoint, { lazy: true });
      await host.closed;
      await rmdir(mountpoint);
    });

    describe('names', () => {
      it('shows the entries with their inodes, sizes, owners and modes', async () => {
        expect(await io.readdir(mountpoint)).toEqual([DIRECTORY_NAME]);
        expect(await io.readdir(directory)).toEqual(['image', 'read-only', 'status']);
        expect(await io.stat(image)).toMatchObject({ ino: IMAGE, size: SIZE, mode: constants.S_IFREG | 0o600, nlink: 1 });
        expect(await io.stat(directory)).toMatchObject({ ino: DIRECTORY, mode: constants.S_IFDIR | 0o500, nlink: 2 });
        expect((await io.stat(image)).uid).toBe(process.getuid?.());
      });

      it('reports as many blocks as the size has sectors', async () => {
        expect((await io.stat(image)).blocks).toBe(SIZE / 512);
      });

      it('answers ENOENT for a name that is not there', async () => {
        await expect(io.stat(join(directory, 'absent'))).rejects.toMatchObject({ code: 'ENOENT' });
        await expect(io.readdir(join(mountpoint, 'absent'))).rejects.toMatchObject({ code: 'ENOENT' });
      });

      it('shows what is added, resized and removed at once', async () => {
        const resized = entries(directIo).filter(({ inode }) => inode === IMAGE);
        host.setEntries(resized.map((entry) => ({ ...entry, size: 2 * SIZE }) as Entry));
        expect((await io.stat(image)).size).toBe(2 * SIZE);
        const modifiedMs = 0;
        host.setEntries(
          [{ kind: 'directory', inode: 9, parent: DIRECTORY, name: 'late', mode: 0o500, modifiedMs }],
          [READ_ONLY_IMAGE],
        );
        expect(await io.readdir(directory)).toEqual(['image', 'late', 'status']);
        await expect(io.stat(join(directory, 'read-only'))).rejects.toMatchObject({ code: 'ENOENT' });
      });

      it('removes what is below a directory that goes', async () => {
        host.setEntries([], [DIRECTORY]);
        expect(await io.readdir(mountpoint)).toEqual([]);
        await expect(io.stat(image)).rejects.toMatchObject({ code: 'ENOENT' });
      });

      it('refuses to make, remove and rename', async () => {
        await expect(io.open(join(directory, 'new'), 'w')).rejects.toMatchObject({ code: 'EPERM' });
        await expect(io.change('mkdir', join(directory, 'new'))).rejects.toMatchObject({ code: 'EPERM' });
        await expect(io.change('unlink', image)).rejects.toMatchObject({ code: 'EPERM' });
        await expect(io.change('rmdir', directory)).rejects.toMatchObject({ code: 'EPERM' });
        await expect(io.change('rename', image, join(directory, 'new'))).rejects.toMatchObject({ code: 'EPERM' });
        await expect(io.change('symlink', 'image', join(directory, 'new'))).rejects.toMatchObject({ code: 'EPERM' });
        expect(await io.readdir(directory)).toEqual(['image', 'read-only', 'status']);
      });

      it('takes the capacity of all images as the size of the file system', async () => {
        const [blocks, blockLength, free] = (await runSuccessfully('stat', ['-f', '-c', '%b %S %f', mountpoint]))
          .toString()
          .split(' ')
          .map(Number);
        expect((blocks ?? 0) * (blockLength ?? 0)).toBeGreaterThanOrEqual(SIZE + 512);
        expect((blocks ?? 0) * (blockLength ?? 0)).toBeLessThan(SIZE + 512 + 4096);
        expect(free).toBe(0);
      });
    });

    describe('images', () => {
      it('reads the bytes, also at odd offsets, and stops at the end', async () => {
        const descriptor = await io.open(image, 'r');
        expect(await io.read(descriptor, 4097, 12_345)).toEqual(Buffer.from(upcalls.bytes.subarray(4097, 4097 + 12_345)));
        expect(await io.read(descriptor, SIZE - 100, 4096)).toEqual(Buffer.from(upcalls.bytes.subarray(SIZE - 100)));
        expect(await io.read(descriptor, SIZE + 4096, 10)).toHaveLength(0);
        await io.close(descriptor);
      });

      it('copies out the whole image', async () => {
        expect((await runSuccessfully('cat', [image])).equals(upcalls.bytes)).toBe(true);
      });

      it('gives every lease back once', async () => {
        await runSuccessfully('cat', [image]);
        await until(() => upcalls.released === upcalls.seen.filter((op) => op === 'read').length);
      });

      it('takes what the page of the file shows again from the image after another open', async () => {
        const first = await io.open(image, 'r');
        await io.read(first, 0, 4096);
        upcalls.bytes.fill(0xee, 0, 4096);
        const second = await io.open(image, 'r');
        expect((await io.read(second, 0, 4096)).equals(Buffer.alloc(4096, 0xee))).toBe(true);
      });

      it('writes at odd offsets what is read back', async () => {
        const descriptor = await io.open(image, 'r+');
        const data = Buffer.alloc(300_001, 'abcdefg');
        expect(await io.write(descriptor, 777, data)).toBe(data.length);
        expect(await io.read(descriptor, 777, data.length)).toEqual(data);
        expect(Buffer.from(upcalls.bytes.subarray(777, 777 + data.length)).equals(data)).toBe(true);
        await io.close(descriptor);
      });

      it('asks for large writes and reads in large pieces', async () => {
        await runSuccessfully('dd', ['if=/dev/zero', `of=${image}`, 'bs=1M', 'count=4', 'conv=notrunc']);
        expect(Math.max(...upcalls.lengths)).toBeGreaterThanOrEqual(128 * 1024);
        upcalls.lengths.length = 0;
        await runSuccessfully('dd', [`if=${image}`, 'of=/dev/null', 'bs=1M', 'count=4']);
        expect(Math.max(...upcalls.lengths)).toBeGreaterThanOrEqual(128 * 1024);
      });

      it('tells how it is opened', async () => {
        for (const flags of ['r', 'r+', constants.O_WRONLY]) await io.close(await io.open(image, flags));
        expect(upcalls.accesses).toEqual(['read', 'read-write', 'write']);
      });

      it('sends flush at each close, fsync at fsync, and release after the last close', async () => {
        const descriptor = await io.open(image, 'r+');
        expect(host.openImages).toBe(1);
        await io.fsync(descriptor);
        await io.close(descriptor);
        await until(() => upcalls.seen.includes('release'));
        expect(upcalls.seen).toEqual(['open', 'fsync', 'flush', 'release']);
        await until(() => host.openImages === 0);
      });

      it('passes the errno of each answer to its caller', async () => {
        const descriptor = await io.open(image, 'r+');
        upcalls.intercept = (request) => {
          if (request.op !== 'write' && request.op !== 'fsync') return false;
          request.done(request.op === 'write' ? -errno.ENOSPC : -errno.EIO);
          return true;
        };
        await expect(io.write(descriptor, 0, Buffer.alloc(512))).rejects.toMatchObject({ code: 'ENOSPC' });
        await expect(io.fsync(descriptor)).rejects.toMatchObject({ code: 'EIO' });
        upcalls.intercept = (request) => {
          if (request.op === 'open') request.done(-errno.EROFS);
          return request.op === 'open';
        };
        await expect(io.open(image, 'r+')).rejects.toMatchObject({ code: 'EROFS' });
        expect(host.openImages).toBe(1);
      });

      it('reports a short write as it was answered', async () => {
        const results = [100, -errno.ENOSPC];
        upcalls.intercept = (request) => {
          if (request.op === 'write') request.done(results.shift() ?? 0);
          return request.op === 'write';
        };
        expect(await io.write(await io.open(image, 'r+'), 0, Buffer.alloc(512))).toBe(100);
      });

      it('answers EIO for the one request whose upcall throws, and serves the next', async () => {
        const descriptor = await io.open(image, 'r+');
        upcalls.intercept = (request) => {
          if (request.op === 'write') throw new Error('a bug');
          return false;
        };
        await expect(io.write(descriptor, 0, Buffer.alloc(512))).rejects.toMatchObject({ code: 'EIO' });
        expect(upcalls.failures.map(String)).toEqual(['Error: a bug']);
        upcalls.intercept = () => false;
        expect(await io.write(descriptor, 0, Buffer.alloc(512))).toBe(512);
      });

      it('waits for an answer longer than fuse-native does by itself', { timeout: 40_000 }, async (context) => {
        context.skip(directIo, 'the time limit does not depend on the page cache');
        const descriptor = await io.open(image, 'r+');
        upcalls.intercept = (request) => {
          if (request.op === 'fsync') setTimeout(() => request.done(0), 16_000);
          return request.op === 'fsync';
        };
        await io.fsync(descriptor);
      });

      it('has requests of several processes in flight together', async () => {
        const held: FuseRequest[] = [];
        upcalls.intercept = (request) => {
          if (request.op === 'open') held.push(request);
          return request.op === 'open';
        };
        const children = Array.from({ length: 6 }, () => new IoChild());
        const calls = children.map((child) => child.open(image, 'r+'));
        await until(() => held.length === children.length);
        for (const request of held) request.done(0);
        await Promise.all(calls);
        await Promise.all(children.map((child) => child[Symbol.asyncDispose]()));
      });
    });

    describe('attributes of an image', () => {
      it('keeps its size when it is truncated to at most its size', async () => {
        const before = Buffer.from(upcalls.bytes);
        await io.change('truncate', image, 0);
        await io.change('truncate', image, SIZE);
        await io.close(await io.open(image, 'w'));
        const descriptor = await io.open(image, 'r+');
        await io.ftruncate(descriptor, 1234);
        expect((await io.fstat(descriptor)).size).toBe(SIZE);
        expect((await io.read(descriptor, SIZE - 512, 512)).equals(before.subarray(SIZE - 512))).toBe(true);
        expect(before.equals(upcalls.bytes)).toBe(true);
      });

      it('refuses to grow with EFBIG, and to truncate what is read only with EROFS', async () => {
        await expect(io.change('truncate', image, SIZE + 1)).rejects.toMatchObject({ code: 'EFBIG' });
        await expect(io.change('truncate', join(directory, 'read-only'), 0)).rejects.toMatchObject({
          code: process.getuid?.() === 0 ? 'EROFS' : 'EACCES',
        });
      });

      it('accepts times and its own mode and owner, and refuses others', async () => {
        await io.change('utimes', image, 1, 2);
        await io.change('chmod', image, 0o600);
        await io.change('chown', image, process.getuid?.() ?? 0, process.getgid?.() ?? 0);
        await expect(io.change('chmod', image, 0o644)).rejects.toMatchObject({ code: 'EPERM' });
        await expect(io.change('chown', image, 12_345, 12_345)).rejects.toMatchObject({ code: 'EPERM' });
      });

      it('lets cp copy over it, with -p too', async () => {
        const source = join(tmpdir(), `iserfs-contract-${process.pid}`);
        await runSuccessfully('dd', ['if=/dev/urandom', `of=${source}`, 'bs=64K', 'count=4']);
        await runSuccessfully('chmod', ['600', source]);
        for (const args of [[], ['-p']]) {
          upcalls.bytes.fill(0);
          await runSuccessfully('cp', [...args, source, image]);
          await runSuccessfully('cmp', ['-n', String(256 * 1024), source, image]);
        }
        await runSuccessfully('rm', [source]);
      });
    });

    describe('text files', () => {
      it('reads fully by cat, cp, head, tail and wc, each open with the present body', async () => {
        upcalls.body = () => `${upcalls.renderings}\n${'x'.repeat(20_000)}\nend\n`;
        const length = 20_000 + 1 + 4;
        const number = async (output: Promise<Buffer>) => Number((await output).toString().split('\n')[0]);
        const first = await number(runSuccessfully('cat', [text]));
        expect(first).toBeGreaterThan(0);
        expect(await number(runSuccessfully('head', ['-n', '1', text]))).toBeGreaterThan(first);
        expect((await runSuccessfully('cat', [text])).toString()).toMatch(/^\d+\nx{20000}\nend\n$/);
        expect((await runSuccessfully('tail', ['-n', '1', text])).toString()).toBe('end\n');
        expect((await runSuccessfully('tail', ['-c', '5', text])).toString()).toBe('\nend\n');
        expect(Number.parseInt((await runSuccessfully('wc', ['-c', text])).toString(), 10)).toBeGreaterThan(length);
        const copy = join(tmpdir(), `iserfs-contract-text-${process.pid}`);
        await runSuccessfully('cp', [text, copy]);
        expect((await runSuccessfully('cat', [copy])).toString()).toMatch(/^\d+\nx{20000}\nend\n$/);
        await runSuccessfully('rm', [copy]);
      });

      it('reads fully when the body grows and shrinks from open to open', async () => {
        for (const length of [10, 10_000, 300_000, 0, 4096, 1, 200_001]) {
          upcalls.body = () => 'y'.repeat(length);
          expect((await runSuccessfully('cat', [text])).length).toBe(length);
          expect(await io.readFile(text)).toHaveLength(length);
        }
      });

      it('gives a handle one body, however it reads', async () => {
        upcalls.body = () => String(upcalls.renderings).padStart(6, '0').repeat(1000);
        const descriptor = await io.open(text, 'r');
        const start = await io.read(descriptor, 0, 6);
        expect((await io.read(descriptor, 5994, 100)).equals(start)).toBe(true);
        expect((await io.read(descriptor, 0, 6)).equals(start)).toBe(true);
      });

      it('shows nobody a mixture while many read', async () => {
        upcalls.body = () => `${upcalls.renderings} ${'z'.repeat(upcalls.renderings * 37)} ${upcalls.renderings}`;
        const loop = `for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do cat "$0"; echo; done`;
        const outputs = await Promise.all([1, 2, 3, 4].map(() => runSuccessfully('sh', ['-c', loop, text])));
        for (const line of Buffer.concat(outputs).toString().trim().split('\n')) {
          const [start, middle, end] = line.split(' ');
          expect(end).toBe(start);
          expect(middle).toHaveLength(Number(start) * 37);
        }
      });

      it('has the length of its newest body, also before it was ever opened', async () => {
        upcalls.body = () => 'twelve bytes';
        expect((await io.stat(text)).size).toBe(12);
      });

      it('cannot be opened for writing or truncated', async () => {
        await expect(io.open(text, 'r+')).rejects.toMatchObject({ code: 'EACCES' });
        await expect(io.open(text, 'w')).rejects.toMatchObject({ code: 'EACCES' });
        await expect(io.change('truncate', text, 0)).rejects.toMatchObject({ code: 'EACCES' });
      });

      it('answers EIO where it cannot be rendered, and is well again', async () => {
        upcalls.body = () => {
          throw new Error('no text');
        };
        await expect(io.readFile(text)).rejects.toMatchObject({ code: 'EIO' });
        expect(upcalls.failures.map(String)).toContain('Error: no text');
        upcalls.body = () => 'well';
        expect((await io.readFile(text)).toString()).toBe('well');
      });
    });

    describe('the end', () => {
      it('refuses a clean unmount while a file is open, and goes on', async () => {
        const descriptor = await io.open(image, 'r+');
        await expect(host.unmount('clean')).rejects.toMatchObject({ code: 'busy' });
        expect(await io.write(descriptor, 0, Buffer.alloc(512))).toBe(512);
        await io.close(descriptor);
        await until(() => host.openImages === 0);
        await host.unmount('clean');
        expect(await host.closed).toEqual({ reason: 'unmounted' });
        expect(mountAt(await readMountTable(), mountpoint)).toBeUndefined();
        await host.unmount('clean');
        await host.unmount('lazy');
      });

      it('serves an open file after a lazy unmount until it is closed', async () => {
        const descriptor = await io.open(image, 'r+');
        await host.unmount('lazy');
        expect(await io.readdir(mountpoint)).toEqual([]);
        expect(await io.write(descriptor, 512, Buffer.alloc(512, 7))).toBe(512);
        await io.fsync(descriptor);
        expect(upcalls.bytes[512]).toBe(7);
        let isClosed = false;
        void host.closed.then(() => {
          isClosed = true;
        });
        await io.read(descriptor, 100_000, 512);
        expect(isClosed).toBe(false);
        await io.close(descriptor);
        expect(await host.closed).toEqual({ reason: 'unmounted' });
        expect(upcalls.seen).toContain('release');
      });

      it('notices an unmount from outside', async () => {
        await unmountPath(mountpoint, { lazy: false });
        expect(await host.closed).toEqual({ reason: 'unmounted' });
      });

      it('notices that the connection was cut, and leaves no dead mount', async (context) => {
        const control = await mkdtemp(join(tmpdir(), 'iserfs-fusectl-'));
        const hasControl = (await run('mount', ['-t', 'fusectl', 'none', control])).status === 0;
        try {
          context.skip(!hasControl, 'this user may not mount fusectl');
          // The connection is named after the minor device number of its mount.
          const device = Number((await runSuccessfully('stat', ['-c', '%d', mountpoint])).toString());
          const connection = String((device & 0xff) | ((device >>> 12) & 0xfff00));
          await runSuccessfully('sh', ['-c', 'echo 1 > "$0"', join(control, connection, 'abort')]);
        } finally {
          if (hasControl) await runSuccessfully('umount', [control]);
          await rmdir(control);
        }
        expect(await host.closed).toEqual({ reason: 'aborted' });
        expect(mountAt(await readMountTable(), mountpoint)).toBeUndefined();
      });

      it('can be mounted again at once', async () => {
        await host.unmount('clean');
        await host.closed;
        host = await mount({ readOnly: true });
        host.setEntries(entries(directIo));
        await expect(io.open(image, 'r+')).rejects.toMatchObject({ code: 'EROFS' });
        expect(await io.read(await io.open(image, 'r'), 0, 512)).toHaveLength(512);
      });
    });
  });
}
