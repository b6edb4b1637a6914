/**
 * What fsync promises (I6), against a target whose disk has a volatile write cache and loses it: `iserfs target --volatile-cache`,
 * killed without warning and started again. The backing file is what a disk keeps without power.
 */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { IoChild } from '../support/child-io.ts';
import { run, runChecked } from '../support/child-process.ts';
import { MountProcess } from '../support/cli-process.ts';
import { TargetProcess } from '../support/target-process.ts';
import { MiB, Workdir } from '../support/workdir.ts';

const NAME = 'iqn.2026-01.io.iserfs.test:volatile';
const SIZE = 64 * MiB;

let workdir: Workdir;
beforeEach(() => {
  workdir = Workdir.create();
  return () => workdir[Symbol.asyncDispose]();
});

const diskAt = (path: string) => ({ args: ['--name', NAME, '--file', `${path},size=${SIZE}`, '--volatile-cache'] });

async function setUp() {
  const path = join(workdir.path, 'disk');
  const target = await TargetProcess.start(diskAt(path));
  const mount = await MountProcess.start({ mountpoint: workdir.folder('mnt'), args: ['--portal', target.portal] });
  const image = join(mount.mountpoint, NAME, 'lun0', 'image');
  return {
    target,
    path,
    mount,
    image,
    async [Symbol.asyncDispose]() {
      await mount[Symbol.asyncDispose]();
      await target[Symbol.asyncDispose]();
    },
  };
}

const block = (text: string) => Buffer.alloc(MiB, text);

/** Compares the start of two files without reading a mount in this process. */
const sameStart = async (one: string, other: string) => (await run('cmp', ['-n', String(MiB), one, other])).status === 0;

describe('a disk with a volatile cache', () => {
  it('is told as such, and does lose what was not synchronised', async () => {
    await using it = await setUp();
    const info = await runChecked('cat', [join(it.mount.mountpoint, NAME, 'lun0', 'info')]);
    expect(info).toMatch(/^volatile write cache: yes$/m);
    const data = join(workdir.path, 'data');
    writeFileSync(data, block('not synchronised '));
    await runChecked('dd', [`if=${data}`, `of=${it.image}`, 'bs=64k', 'conv=notrunc', 'status=none']);
    expect(await sameStart(data, it.image)).toBe(true);
    it.mount.signal('SIGKILL'); // nobody is left to write it again
    await it.target.kill();
    expect(await sameStart(data, it.path)).toBe(false);
  });

  it('has what fsync has promised, whatever comes after', async () => {
    await using it = await setUp();
    const data = join(workdir.path, 'data');
    writeFileSync(data, block('synchronised '));
    await runChecked('dd', [`if=${data}`, `of=${it.image}`, 'bs=64k', 'conv=notrunc,fsync', 'status=none']);
    it.mount.signal('SIGKILL');
    await it.target.kill();
    expect(await sameStart(data, it.path)).toBe(true);
  });

  it('gets the writes again that it lost between write and fsync', async () => {
    await using it = await setUp();
    await using io = new IoChild();
    const data = block('lost once ');
    const descriptor = await io.open(it.image, 'r+');
    expect(await io.write(descriptor, 0, data)).toBe(data.length);
    await it.target.kill();
    await it.target.start();
    await io.fsync(descriptor);
    await it.target.kill(); // what fsync has promised must be in the file by now
    writeFileSync(join(workdir.path, 'data'), data);
    expect(await sameStart(join(workdir.path, 'data'), it.path)).toBe(true);
    const status = JSON.parse(await runChecked('cat', [join(it.mount.mountpoint, NAME, 'lun0', 'status.json')]));
    expect(JSON.stringify(status)).toMatch(/replay|again/i);
  });

  it('shows after a crash what was written before it, also without fsync', async () => {
    await using it = await setUp();
    await using io = new IoChild();
    const data = block('read back after the crash ');
    const descriptor = await io.open(it.image, 'r+');
    await io.write(descriptor, 0, data);
    await it.target.kill();
    await it.target.start();
    writeFileSync(join(workdir.path, 'data'), data);
    expect(
      (await run('dd', [`if=${it.image}`, `of=${join(workdir.path, 'read')}`, 'bs=1M', 'count=1', 'iflag=direct'])).status,
    ).toBe(0);
    expect(await sameStart(join(workdir.path, 'data'), join(workdir.path, 'read'))).toBe(true);
  });

  it('fails fsync when it stays away', async () => {
    await using target = await TargetProcess.start(diskAt(join(workdir.path, 'disk')));
    await using mount = await MountProcess.start({
      mountpoint: workdir.folder('mnt'),
      args: ['--portal', target.portal, '--recovery-timeout', '2s'],
    });
    await using io = new IoChild();
    const descriptor = await io.open(join(mount.mountpoint, NAME, 'lun0', 'image'), 'r+');
    await io.write(descriptor, 0, block('never seen again '));
    await target.kill();
    await expect(io.fsync(descriptor)).rejects.toMatchObject({ code: expect.stringMatching(/EIO|ETIMEDOUT/) });
  });

  it('keeps its promise through one crash after another under load', async () => {
    await using it = await setUp();
    await using io = new IoChild();
    const descriptor = await io.open(it.image, 'r+');
    const promised = Buffer.alloc(SIZE);
    for (let round = 0; round < 6; round++) {
      for (let count = 0; count < 20; count++) {
        const data = Buffer.alloc(1 + ((count * 7919 + round * 104_729) % 60_000), `round ${round} write ${count} `);
        const offset = (count * 1_299_709 + round * 15_485_863) % (SIZE - data.length);
        await io.write(descriptor, offset, data);
        data.copy(promised, offset);
        if (count === 5 + round * 2) {
          await it.target.kill();
          await it.target.start();
        }
      }
      await io.fsync(descriptor);
      await it.target.kill();
      writeFileSync(join(workdir.path, 'promised'), promised);
      await runChecked('cmp', [join(workdir.path, 'promised'), it.path]);
      await it.target.start();
    }
  });
});
