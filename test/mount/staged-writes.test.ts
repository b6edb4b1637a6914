/**
 * The end of a mount with writes that were acknowledged and that the target does not have yet: a target that stands still keeps them
 * there. What was acknowledged is on the target when the mount has ended with status 0; where it is not, status and message say so.
 */

import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { IoChild } from '../support/child-io.ts';
import { collectText, ended, run, runChecked, spawnGuarded, waitFor } from '../support/child-process.ts';
import { MountProcess, projectRoot, runCli } from '../support/cli-process.ts';
import { findMount } from '../support/mounts.ts';
import { offsetPattern } from '../support/pattern.ts';
import { TargetProcess } from '../support/target-process.ts';
import { Tgtd, type TgtdTarget } from '../support/tgtd.ts';
import { MiB, Workdir } from '../support/workdir.ts';

/** More than a program can write until the end of its mount. */
const SIZE = 512 * MiB;
/** What is staged, of the 16 MiB that may be. */
const STAGED = 8 * MiB;
const endlessWrites = join(projectRoot, 'test', 'support', 'endless-writes.mjs');

let workdir: Workdir;
let tgtd: Tgtd;
let target: TgtdTarget;
/** The backing file, and what it must hold in the end. */
let disk: string;
let data: string;
beforeEach(async () => {
  workdir = Workdir.create();
  tgtd = await Tgtd.start();
  target = await tgtd.addTarget({ luns: [{ size: SIZE }] });
  disk = target.luns[0]?.path ?? '';
  data = workdir.file('data', offsetPattern(0, STAGED));
});
afterEach(async () => {
  await tgtd?.[Symbol.asyncDispose]();
  await workdir?.[Symbol.asyncDispose]();
});

const mountIt = (...options: string[]) =>
  MountProcess.start({ mountpoint: workdir.folder('mnt'), args: ['--portal', tgtd.portal, ...options] });
const lunOf = (mountpoint: string) => join(mountpoint, target.name, 'lun1');
const stagedBytes = async (mountpoint: string) =>
  Number(JSON.parse(await runChecked('cat', [join(lunOf(mountpoint), 'status.json')])).stagedBytes);
const isOnTarget = async () => (await run('cmp', ['-n', String(STAGED), data, disk])).status === 0;
const detached = (mountpoint: string) =>
  waitFor(async () => findMount(mountpoint) === undefined, { withinMs: 5000, what: 'the detachment' });

/** Opens the image and writes to it while the target stands still. */
async function stage(mountpoint: string) {
  const io = new IoChild();
  const image = await io.open(join(lunOf(mountpoint), 'image'), 'r+');
  tgtd.stall();
  expect(await io.write(image, 0, offsetPattern(0, STAGED))).toBe(STAGED);
  expect(await stagedBytes(mountpoint)).toBe(STAGED);
  expect(await isOnTarget()).toBe(false);
  return { io, image, [Symbol.asyncDispose]: () => io[Symbol.asyncDispose]() };
}

describe('writes that are staged when the mount is told to stop', () => {
  it('are on the target at its end, the file being closed by then', async () => {
    await using mount = await mountIt();
    await using staged = await stage(mount.mountpoint);
    mount.signal('SIGTERM');
    await detached(mount.mountpoint);
    tgtd.resume();
    await staged.io.close(staged.image);
    expect(await mount.exit()).toEqual({ status: 0, signal: null });
    expect(await isOnTarget()).toBe(true);
  });

  it('are on the target at its end, the file being open still, which is a failure by itself', async () => {
    await using mount = await mountIt('--stop-timeout', '500ms');
    await using _staged = await stage(mount.mountpoint);
    mount.signal('SIGTERM');
    await detached(mount.mountpoint);
    await sleep(1500);
    expect(mount.isRunning).toBe(true);
    tgtd.resume();
    expect(await mount.exit()).toEqual({ status: 1, signal: null });
    expect(mount.stderr).toMatch(/stopped after 500 ms while files were still open/);
    expect(mount.stderr).not.toMatch(/stable storage/);
    expect(await isOnTarget()).toBe(true);
  });

  it('are named where the target does not come back', async () => {
    await using mount = await mountIt('--recovery-timeout', '2s', '--command-timeout', '1s');
    await using staged = await stage(mount.mountpoint);
    mount.signal('SIGTERM');
    await detached(mount.mountpoint);
    await tgtd.kill();
    await expect(staged.io.close(staged.image)).rejects.toThrow('EIO');
    expect(await mount.exit()).toEqual({ status: 1, signal: null });
    expect(mount.stderr).toMatch(/LUN 1: what was written may not be on stable storage: no session for 2 s/);
  });

  it('are named where a second signal does not let them get there', async () => {
    await using mount = await mountIt();
    await using _staged = await stage(mount.mountpoint);
    mount.signal('SIGTERM');
    await detached(mount.mountpoint);
    mount.signal('SIGTERM');
    expect(await mount.exit(5000)).toEqual({ status: 1, signal: null });
    expect(mount.stderr).toMatch(/LUN 1: what was written may not be on stable storage: no answer within 3 s of a second signal/);
  });

  it('are on the target with all that is taken until the end, while a program goes on writing', async () => {
    await using mount = await mountIt('--stop-timeout', '300ms');
    const blockLength = 4096;
    const writer = spawnGuarded(process.execPath, [
      endlessWrites,
      join(lunOf(mount.mountpoint), 'image'),
      String(SIZE / blockLength),
      String(blockLength),
    ]);
    const said = collectText(writer.stdout);
    const gone = ended(writer);
    await waitFor(async () => said.text.includes('writing'), { withinMs: 10_000, what: 'the writer' });
    mount.signal('SIGTERM');
    expect(await mount.exit()).toEqual({ status: 1, signal: null });
    await gone;
    const { taken, code } = JSON.parse(said.text.split('\n')[1] ?? '') as { taken: number; code: string };
    expect(code, 'it ended before the end of the image').not.toBe('END');
    await using file = await open(disk);
    const { buffer } = await file.read(Buffer.alloc(taken * blockLength), 0, taken * blockLength, 0);
    const missing = Array.from({ length: taken }, (_, block) => block).filter(
      (block) => buffer.readUInt32BE(block * blockLength) !== block + 1,
    );
    expect({ taken, missing }).toEqual({ taken, missing: [] });
  });
});

describe('writes that are staged when the mount is unmounted', () => {
  it('are on the target when umount says so, their writer having been killed', async () => {
    const mountpoint = workdir.folder('mnt');
    const env = { ...process.env, XDG_STATE_HOME: workdir.folder('state') };
    await using mount = await MountProcess.start({ mountpoint, args: ['--portal', tgtd.portal], env });
    const image = join(lunOf(mountpoint), 'image');
    const held = spawnGuarded('sh', ['-c', 'exec 3<>"$1"; echo open; read -r _; exec cat "$2" >&3', 'writer', image, data]);
    const gone = ended(held);
    const said = collectText(held.stdout);
    await waitFor(async () => said.text.includes('open'), { withinMs: 10_000, what: 'the open image' });
    tgtd.stall();
    held.stdin.end('go\n');
    await waitFor(async () => (await stagedBytes(mountpoint)) === STAGED, { withinMs: 10_000, what: 'staged writes' });
    held.kill('SIGKILL');
    const unmounting = runCli(['umount', mountpoint, '--lazy'], { env });
    await detached(mountpoint);
    expect(await isOnTarget()).toBe(false);
    tgtd.resume();
    expect((await unmounting).status).toBe(0);
    expect(await mount.exit()).toEqual({ status: 0, signal: null });
    expect(await isOnTarget()).toBe(true);
    await gone;
  });

  it('are on the medium of a disk with a volatile cache, too', async () => {
    const path = workdir.join('volatile');
    const name = 'iqn.2026-01.io.iserfs.test:volatile';
    const args = ['--name', name, '--file', `${path},size=${SIZE}`, '--volatile-cache'];
    await using volatile = await TargetProcess.start({ args });
    await using mount = await MountProcess.start({ mountpoint: workdir.folder('mnt'), args: ['--portal', volatile.portal] });
    const image = join(mount.mountpoint, name, 'lun0', 'image');
    await runChecked('dd', [`if=${data}`, `of=${image}`, 'bs=64k', 'conv=notrunc', 'status=none']);
    await runChecked('fusermount3', ['-u', mount.mountpoint]);
    expect(await mount.exit()).toEqual({ status: 0, signal: null });
    await volatile.kill();
    await runChecked('cmp', ['-n', String(STAGED), data, path]);
  });
});
