/**
 * Images through the kernel: the tree, the semantics of operations.ts and the host together, over memory.
 */

import { mkdtemp, rm, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { IserfsError } from '../../src/errors.ts';
import type { FuseHost } from '../../src/fuse/host.ts';
import { mountNative } from '../../src/fuse/native-host.ts';
import { Operations } from '../../src/fuse/operations.ts';
import { Tree } from '../../src/fuse/tree.ts';
import { IoChild, run, runSuccessfully } from '../support/child-io.ts';
import { MemoryImage } from '../support/memory-image.ts';
import { until } from './host-contract.ts';

const TARGET = 'iqn.2024-01.example:disk';
const SIZE = 2 * 1024 * 1024 + 1536;

let mountpoint: string;
let host: FuseHost;
let tree: Tree;
let operations: Operations;
let device: MemoryImage;
let io: IoChild;
let image: string;

/** Shows the device as it is now. */
function update(luns: readonly MemoryImage[] = [device]): void {
  const model = luns.map(({ info }, label) => ({ label: String(label), image: info }));
  const { add, remove } = tree.update({ targets: [{ name: TARGET, luns: model }] }, Date.now());
  host.setEntries(add, remove);
}

beforeEach(async () => {
  mountpoint = await mkdtemp(join(tmpdir(), 'iserfs-images-'));
  image = join(mountpoint, TARGET, 'lun0', 'image');
  device = new MemoryImage(SIZE);
  tree = new Tree({ allowOther: false, readOnly: false, shared: false });
  operations = new Operations({ render: async () => Buffer.from('text\n'), failed: () => {} });
  io = new IoChild();
  host = await mountNative({
    mountpoint,
    upcalls: operations,
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
    allowOther: false,
    readOnly: false,
    source: 'images',
  });
  update();
  operations.attach(tree.imageInode(TARGET, '0') ?? 0, device);
});

afterEach(async () => {
  await io[Symbol.asyncDispose]();
  await host.unmount('lazy');
  await host.closed;
  await rmdir(mountpoint);
});

describe('an image', () => {
  it('is full at its end, as a disk is', async () => {
    const { status, stderr } = await run('dd', ['if=/dev/zero', `of=${image}`, 'bs=64K', 'conv=notrunc']);
    expect(status).not.toBe(0);
    expect(stderr).toContain('No space left on device');
    expect(stderr).toContain(`${SIZE} bytes`);
    expect(Buffer.from(device.bytes).equals(Buffer.alloc(SIZE))).toBe(true);
  });

  it('is written to the end exactly by what fits', async () => {
    await runSuccessfully('dd', ['if=/dev/zero', `of=${image}`, 'bs=512', `count=${SIZE / 512}`, 'conv=notrunc,fsync']);
    expect(device.flushes).toBe(1);
  });

  it('holds thousands of writes at odd offsets', { timeout: 60_000 }, async () => {
    const mirror = Buffer.from(device.bytes);
    const descriptor = await io.open(image, 'r+');
    let state = 12345;
    const next = (below: number) => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    for (let round = 0; round < 2000; round++) {
      const offset = next(SIZE);
      const data = Buffer.alloc(Math.min(1 + next(9000), SIZE - offset), round & 0xff);
      expect(await io.write(descriptor, offset, data)).toBe(data.length);
      data.copy(mirror, offset);
    }
    await io.fsync(descriptor);
    expect(mirror.equals(device.bytes)).toBe(true);
    expect((await runSuccessfully('cat', [image])).equals(mirror)).toBe(true);
  });

  it('cannot be opened for writing where the device is write protected', async () => {
    device.info = { size: SIZE, writeProtected: true };
    update();
    await expect(io.open(image, 'r+')).rejects.toMatchObject({ code: process.getuid?.() === 0 ? 'EROFS' : 'EACCES' });
    expect((await io.stat(image)).mode & 0o777).toBe(0o400);
    expect(await io.read(await io.open(image, 'r'), 0, 512)).toHaveLength(512);
  });

  it('has a new size after a resize, also for who has it open', async () => {
    const descriptor = await io.open(image, 'r');
    device.info = { size: 1024 * 1024, writeProtected: false };
    update();
    // The kernel is told by a notice of its own.
    await until(async () => (await io.fstat(descriptor)).size === 1024 * 1024);
    expect(await io.read(descriptor, 1024 * 1024 - 10, 100)).toHaveLength(10);
  });

  it('reports a write error to the writer, and once to the others, by fsync or close', async () => {
    const [writer, syncer, closer] = [await io.open(image, 'r+'), await io.open(image, 'r+'), await io.open(image, 'r')];
    device.writeFailures.push(new IserfsError('medium-error', 'a bad block'));
    await expect(io.write(writer, 4096, Buffer.alloc(512))).rejects.toMatchObject({ code: 'EIO' });
    await io.fsync(writer);
    await expect(io.fsync(syncer)).rejects.toMatchObject({ code: 'EIO' });
    await io.fsync(syncer);
    await io.close(syncer);
    await expect(io.close(closer)).rejects.toMatchObject({ code: 'EIO' });
    await io.close(writer);
  });

  it('fails a read with the error of the device, and is well again', async () => {
    const descriptor = await io.open(image, 'r');
    // The kernel asks once for what it reads ahead, and once again for what is wanted.
    for (let attempt = 0; attempt < 4; attempt++) device.readFailures.push(new IserfsError('medium-error', 'a bad block'));
    await expect(io.read(descriptor, 0, 512)).rejects.toMatchObject({ code: 'EIO' });
    device.readFailures.length = 0;
    expect(await io.read(descriptor, 0, 512)).toEqual(Buffer.from(device.bytes.subarray(0, 512)));
  });

  it('of a logical unit that goes fails with ENXIO for who has it open, and is gone for others', async () => {
    const descriptor = await io.open(image, 'r+');
    operations.detach(tree.imageInode(TARGET, '0') ?? 0);
    await expect(io.write(descriptor, 0, Buffer.alloc(512))).rejects.toMatchObject({ code: 'ENXIO' });
    await expect(io.fsync(descriptor)).rejects.toMatchObject({ code: 'ENXIO' });
    update([]);
    await expect(io.stat(image)).rejects.toMatchObject({ code: 'ENOENT' });
    await io.close(descriptor);
  });

  it('can be mapped, shared and writable', async (context) => {
    const python = await run('python3', ['--version']).catch(() => undefined);
    context.skip(python?.status !== 0, 'python3 is not installed');
    const program = 'import mmap,sys\nf=open(sys.argv[1],"r+b")\nm=mmap.mmap(f.fileno(),8192)\nm[100:105]=b"hello"\nm.flush()\n';
    const script = join(tmpdir(), `iserfs-map-${process.pid}.py`);
    await runSuccessfully('tee', [script], { input: program });
    await runSuccessfully('python3', [script, image]);
    await rm(script);
    expect(Buffer.from(device.bytes.subarray(100, 105)).toString()).toBe('hello');
  });
});
