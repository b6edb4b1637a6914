/** Holes of a file behind `iserfs target --file`, as programs on the mount see them. */

import { closeSync, openSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { run, runChecked } from '../support/child-process.ts';
import { MountProcess } from '../support/cli-process.ts';
import { TargetProcess } from '../support/target-process.ts';
import { MiB, Workdir } from '../support/workdir.ts';

const NAME = 'iqn.2026-01.io.iserfs.test:sparse';
const SIZE = 64 * MiB;

/** Where data and holes begin, in turn, as lseek(2) has it. */
async function mapOf(image: string): Promise<unknown> {
  const program = `
import os, json, sys
fd, at, found, what = os.open(sys.argv[1], os.O_RDONLY), 0, [], os.SEEK_DATA
while True:
    try: at = os.lseek(fd, at, what)
    except OSError: break
    found.append(at)
    what = os.SEEK_HOLE if what == os.SEEK_DATA else os.SEEK_DATA
print(json.dumps(found))`;
  return JSON.parse(await runChecked('python3', ['-c', program, image]));
}

/** A file of `SIZE` with 4 MiB of data at two places. */
function sparseDisk(workdir: Workdir): string {
  const path = workdir.sparseFile('disk', SIZE);
  const descriptor = openSync(path, 'r+');
  for (const place of [4 * MiB, 32 * MiB]) writeSync(descriptor, Buffer.alloc(4 * MiB, 'data'), 0, 4 * MiB, place);
  closeSync(descriptor);
  return path;
}

it.each([
  ['', []],
  [' with a volatile cache', ['--volatile-cache']],
])('a sparse file as a disk%s: lseek finds its holes, writes fill them and punching makes more', async (_, args) => {
  await using workdir = Workdir.create();
  const path = sparseDisk(workdir);
  await using target = await TargetProcess.start({ args: ['--name', NAME, '--file', path, ...args] });
  await using mount = await MountProcess.start({ mountpoint: workdir.folder('mnt'), args: ['--portal', target.portal] });
  const image = join(mount.mountpoint, NAME, 'lun0', 'image');
  expect(await mapOf(image)).toEqual([4 * MiB, 8 * MiB, 32 * MiB, 36 * MiB]);

  await runChecked('dd', [`if=${path}`, `of=${image}`, 'bs=1M', 'skip=4', 'count=1', 'seek=48', 'conv=notrunc', 'status=none']);
  await runChecked('fallocate', ['--punch-hole', '--offset', String(33 * MiB), '--length', String(2 * MiB), image]);
  const map = [4 * MiB, 8 * MiB, 32 * MiB, 33 * MiB, 35 * MiB, 36 * MiB, 48 * MiB, 49 * MiB];
  expect(await mapOf(image)).toEqual(map);
});

it('plain cp out of a sparse disk, onto another disk and back: nothing of what was there before stays in the holes', async () => {
  await using workdir = Workdir.create();
  const path = sparseDisk(workdir);
  const [other, junk] = ['other', 'junk'].map((name) => workdir.file(name, Buffer.alloc(SIZE, name))) as [string, string];
  await using target = await TargetProcess.start({ args: ['--name', NAME, '--file', path, '--file', other] });
  await using mount = await MountProcess.start({ mountpoint: workdir.folder('mnt'), args: ['--portal', target.portal] });
  const [image, onto] = ['lun0', 'lun1'].map((lun) => join(mount.mountpoint, NAME, lun, 'image')) as [string, string];
  const backup = workdir.join('backup');
  await runChecked('cp', [image, backup]);
  await runChecked('cp', [image, onto]);
  await runChecked('cmp', [image, onto]);
  await runChecked('dd', [`if=${junk}`, `of=${image}`, 'bs=1M', 'conv=notrunc', 'status=none']);
  await runChecked('cp', [backup, image]);
  await runChecked('cmp', [backup, image]);
  expect(statSync(backup).blocks * 512).toBeGreaterThanOrEqual(SIZE);
});

it('a read-only sparse file as a disk: lseek finds its holes, and nothing can be punched', async () => {
  await using workdir = Workdir.create();
  const path = sparseDisk(workdir);
  await using target = await TargetProcess.start({ args: ['--name', NAME, '--file', path, '--read-only'] });
  await using mount = await MountProcess.start({ mountpoint: workdir.folder('mnt'), args: ['--portal', target.portal] });
  const image = join(mount.mountpoint, NAME, 'lun0', 'image');
  expect(await mapOf(image)).toEqual([4 * MiB, 8 * MiB, 32 * MiB, 36 * MiB]);
  const punched = await run('fallocate', ['--punch-hole', '--offset', '0', '--length', String(MiB), image]);
  expect(punched.status).toBe(1);
});
