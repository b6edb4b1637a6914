import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCommand } from '../../../src/fuse/child-command.ts';
import { checkFuse, hintOfRefusal, prepareMountpoint, umount } from '../../../src/fuse/mountpoint.ts';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iserfs mountpoint-'));
});

afterEach(() => rm(folder, { recursive: true }));

describe('a mount point', () => {
  it('is an empty directory, named without symbolic links', async () => {
    await mkdir(join(folder, 'real'));
    await symlink('real', join(folder, 'link'));
    expect(await prepareMountpoint(join(folder, 'link'))).toEqual({ path: join(folder, 'real'), staleMountsRemoved: 0 });
  });

  it('that does not exist is refused, with how to make it', async () => {
    const path = join(folder, 'absent');
    await expect(prepareMountpoint(path)).rejects.toMatchObject({
      code: 'mount-failed',
      message: `${path} does not exist`,
      hint: expect.stringContaining(`mkdir -p ${path}`),
    });
  });

  it('that is a file is refused', async () => {
    await writeFile(join(folder, 'file'), '');
    await expect(prepareMountpoint(join(folder, 'file'))).rejects.toMatchObject({
      message: expect.stringContaining('not a directory'),
    });
    await expect(prepareMountpoint(join(folder, 'file', 'x'))).rejects.toMatchObject({
      message: expect.stringContaining('not a directory'),
    });
  });

  it('that is not empty is refused, even if what is in it is hidden', async () => {
    await writeFile(join(folder, '.hidden'), '');
    await expect(prepareMountpoint(folder)).rejects.toMatchObject({ code: 'busy', message: `${folder} is not empty` });
  });

  it('on which something else is mounted is refused, with its type', async () => {
    await expect(prepareMountpoint('/proc')).rejects.toMatchObject({ code: 'busy', message: expect.stringContaining('(proc)') });
  });

  it('is unmounted only if a mount of ours is there', async () => {
    await expect(umount(folder)).rejects.toMatchObject({ code: 'mount-failed', message: `nothing is mounted on ${folder}` });
    await expect(umount('/proc')).rejects.toMatchObject({
      code: 'mount-failed',
      message: expect.stringContaining('not one of iserfs'),
    });
  });
});

describe('the machine', () => {
  const user = (changes: object = {}) => ({
    device: '/dev/null',
    configuration: join(folder, 'fuse.conf'),
    isRoot: false,
    path: folder,
    ...changes,
  });
  const helpers = ['fusermount3', 'fusermount'];

  it('needs a device that can be opened', async () => {
    await expect(checkFuse({ allowOther: false, helpers }, user({ device: join(folder, 'absent') }))).rejects.toMatchObject({
      code: 'mount-failed',
      hint: expect.stringContaining('modprobe fuse'),
    });
  });

  it('needs a device that this user may open', async ({ skip }) => {
    skip(process.getuid?.() === 0, 'root may open every device');
    const device = join(folder, 'closed');
    await writeFile(device, '');
    await chmod(device, 0);
    await expect(checkFuse({ allowOther: false, helpers }, user({ device }))).rejects.toMatchObject({ code: 'not-permitted' });
  });

  it('needs a set-user-ID helper for a user, found along PATH, but not for root', async () => {
    await expect(checkFuse({ allowOther: false, helpers }, user())).rejects.toMatchObject({
      code: 'mount-failed',
      message: expect.stringContaining('fusermount3 or fusermount'),
      hint: expect.stringContaining('fuse3'),
    });
    await checkFuse({ allowOther: true, helpers }, user({ isRoot: true }));
    await writeFile(join(folder, 'fusermount'), '', { mode: 0o755 });
    await checkFuse({ allowOther: false, helpers }, user({ path: `/absent:${folder}` }));
    await expect(checkFuse({ allowOther: false, helpers: ['fusermount3'] }, user())).rejects.toMatchObject({
      code: 'mount-failed',
    });
  });

  it('needs user_allow_other on a line of its own before a user may let others in', async () => {
    await writeFile(join(folder, 'fusermount3'), '', { mode: 0o755 });
    const check = () => checkFuse({ allowOther: true, helpers }, user());
    await expect(check()).rejects.toMatchObject({ code: 'not-permitted', message: expect.stringContaining('user_allow_other') });
    await writeFile(join(folder, 'fuse.conf'), '# comment\n#user_allow_other\nmount_max = 10\n');
    await expect(check()).rejects.toMatchObject({ code: 'not-permitted' });
    await writeFile(join(folder, 'fuse.conf'), '# comment\nuser_allow_other\n');
    await check();
  });
});

describe('a command', () => {
  it('gives its status and what it wrote, and sees no shell', async () => {
    const result = await runCommand('printf', ['%s', '$HOME; "x"'], 5000);
    expect(result).toEqual({ status: 0, stdout: '$HOME; "x"', stderr: '', timedOut: false });
    expect((await runCommand('ls', [join(folder, 'absent')], 5000)).status).toBeGreaterThan(0);
  });

  it('that does not end in time is given up', async () => {
    expect(await runCommand('sleep', ['30'], 50)).toMatchObject({ status: undefined, timedOut: true });
  });

  it('that is not installed rejects', async () => {
    await expect(runCommand('iserfs-no-such-program', [], 1000)).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

describe('a mount that is refused', () => {
  it.each([
    ['fusermount3: could not determine username', /\/etc\/passwd/],
    ['fusermount3: mount failed: Operation not permitted', /SYS_ADMIN/],
  ])('%s: what to do', (reason, hint) => {
    expect(hintOfRefusal(reason).hint).toMatch(hint);
  });

  it('for a reason of its own gets no advice that does not fit', () => {
    expect(hintOfRefusal('fusermount3: too many FUSE filesystems mounted')).toEqual({});
  });
});
