/**
 * Zeros and holes through the kernel: fallocate(2) and lseek(2) on an image, down to the commands of a thin disk, and the
 * programs that live on them.
 */

import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { FuseHost } from '../../src/fuse/host.ts';
import { mountNative } from '../../src/fuse/native-host.ts';
import { Operations } from '../../src/fuse/operations.ts';
import { Tree } from '../../src/fuse/tree.ts';
import { BlockCache } from '../../src/scsi/block-cache.ts';
import { BufferPool } from '../../src/scsi/buffer-pool.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { run, runSuccessfully } from '../support/child-io.ts';
import { ThinPort } from '../support/thin-port.ts';
import { MiB, Workdir } from '../support/workdir.ts';

const TARGET = 'iqn.2024-01.example:thin';
const SIZE = 64 * MiB;
/** What the disk gives back, and tells of, is in units of this. */
const CHUNK = 256 * 1024;

let port: ThinPort;
let unit: LogicalUnit;
let host: FuseHost;
let operations: Operations;
let mountpoint: string;
let image: string;

beforeEach(async () => {
  mountpoint = await mkdtemp(join(tmpdir(), 'iserfs-holes-'));
  port = new ThinPort({ size: SIZE });
  const pool = new BufferPool();
  unit = await LogicalUnit.attach(port, 0n, {
    pool,
    readOnly: false,
    commandTimeoutMs: 30_000,
    awaitsFence: () => true,
  });
  const device = new BlockCache({ pool, bytes: 16 * MiB, readahead: MiB }).attach(unit);
  operations = new Operations({ render: async () => Buffer.from('text\n'), failed: () => {} });
  host = await mountNative({
    mountpoint,
    upcalls: operations,
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
    allowOther: false,
    readOnly: false,
    source: 'holes',
  });
  const tree = new Tree({ allowOther: false, readOnly: false, shared: false });
  const { add, remove } = tree.update({ targets: [{ name: TARGET, luns: [{ label: '0', image: device.info }] }] }, Date.now());
  host.setEntries(add, remove);
  operations.attach(tree.imageInode(TARGET, '0') ?? 0, device);
  image = join(mountpoint, TARGET, 'lun0', 'image');
});

afterEach(async () => {
  await host.unmount('lazy');
  await host.closed;
  await operations.drained();
  await unit.close();
  await rmdir(mountpoint);
});

const fallocate = (mode: string, offset: number, length: number) =>
  run('fallocate', [mode, '--keep-size', '--offset', String(offset), '--length', String(length), image]);

async function fill(): Promise<void> {
  const data = Buffer.alloc(8 * MiB, 0xab);
  await runSuccessfully('dd', [`of=${image}`, 'bs=1M', 'conv=notrunc,fsync', 'status=none'], { input: data });
}

/** Whether the first 8 MiB are full of data but for the range, for a program and for the disk. */
async function expectZeros(offset: number, length: number): Promise<void> {
  const expected = Buffer.alloc(8 * MiB, 0xab).fill(0, offset, offset + length);
  const seen = await runSuccessfully('dd', [`if=${image}`, 'bs=1M', 'count=8', 'status=none']);
  expect(Buffer.compare(seen, expected), 'for a program').toBe(0);
  const stored = Buffer.alloc(8 * MiB);
  await port.medium.read(0, stored);
  expect(Buffer.compare(stored, expected), 'on the disk').toBe(0);
}

/** Seeks through all of the image in a process of its own: where data and holes begin, in turn. */
async function mapOf(): Promise<unknown> {
  const program = `
import os, json
fd, at, found, what = os.open(${JSON.stringify(image)}, os.O_RDONLY), 0, [], os.SEEK_DATA
while True:
    try: at = os.lseek(fd, at, what)
    except OSError as error:
        found.append(error.strerror)
        break
    found.append(at)
    what = os.SEEK_HOLE if what == os.SEEK_DATA else os.SEEK_DATA
print(json.dumps(found))`;
  return JSON.parse((await runSuccessfully('python3', ['-c', program])).toString());
}

describe('fallocate on an image', () => {
  it.each([
    [MiB, 2 * MiB],
    [MiB + 77, MiB + 1234],
    [100, 50],
  ])('punches %i + %i, which reads as zeros everywhere then', async (offset, length) => {
    await fill();
    expect(await fallocate('--punch-hole', offset, length)).toMatchObject({ status: 0 });
    await expectZeros(offset, length);
  });

  it('gives the space of a hole back', async () => {
    await fill();
    await fallocate('--punch-hole', MiB, 4 * MiB);
    expect(port.medium.allocated).toBe(4 * MiB);
  });

  it('zeroes a range that keeps its space', async () => {
    await fill();
    expect(await fallocate('--zero-range', MiB, 2 * MiB)).toMatchObject({ status: 0 });
    await expectZeros(MiB, 2 * MiB);
    expect(port.medium.allocated).toBe(8 * MiB);
  });

  it('does not leave old pages of the kernel behind', async () => {
    await fill();
    await runSuccessfully('cat', [image]);
    await fallocate('--punch-hole', 0, 8 * MiB);
    await expectZeros(0, 8 * MiB);
  });
});

describe('lseek on an image', () => {
  it('finds data and holes as the disk tells them', async () => {
    const write = (at: number) =>
      runSuccessfully('dd', [`of=${image}`, 'bs=4096', `seek=${at / 4096}`, 'conv=notrunc', 'status=none'], {
        input: Buffer.alloc(4096, 1),
      });
    await write(MiB);
    await write(32 * MiB);
    expect(await mapOf()).toEqual([MiB, MiB + CHUNK, 32 * MiB, 32 * MiB + CHUNK, 'No such device or address']);
  });

  it('takes a disk without holes for data up to the end', async () => {
    await runSuccessfully('sh', ['-c', `tr '\\0' x </dev/zero | head -c ${SIZE} | dd of="$1" bs=1M conv=notrunc`, 'sh', image]);
    expect(await mapOf()).toEqual([0, SIZE, 'No such device or address']);
  });

  it('lets qemu-img make a sparse copy without reading the holes', async () => {
    await using workdir = Workdir.create();
    await fill();
    port.received.length = 0;
    const copy = workdir.join('copy');
    await runSuccessfully('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', image, copy]);
    const blocks = port.of(0x28).reduce((sum, { cdb }) => sum + new DataView(cdb.buffer).getUint16(7), 0);
    expect(blocks * 512, 'bytes read').toBeLessThanOrEqual(16 * MiB);
    await runSuccessfully('cmp', [image, copy]);
    const taken = await runSuccessfully('stat', ['--format=%b', copy]);
    expect(Number(taken.toString()) * 512).toBeLessThanOrEqual(9 * MiB);
    expect(port.of(0x9e).length, 'GET LBA STATUS').toBeLessThan(8);
  });
});
