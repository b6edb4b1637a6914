/**
 * The mount against a real tgtd: what users do with images, with the standard tools, and the backing files as the judge. The
 * mount is served by `iserfs mount` and touched by child processes only.
 */

import { chmodSync, copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeOutcome, run, runChecked } from '../support/child-process.ts';
import { MountProcess, projectRoot, runCli } from '../support/cli-process.ts';
import { findMount } from '../support/mounts.ts';
import { writePatternFile } from '../support/pattern.ts';
import { Tgtd, type TgtdTarget } from '../support/tgtd.ts';
import { UnprivilegedSpace } from '../support/unprivileged.ts';
import { MiB, TiB, Workdir } from '../support/workdir.ts';

const isRoot = process.getuid?.() === 0;
const CHAP = { user: 'reader', secret: 'one-way-secret-1', mutual: { user: 'disk', secret: 'the-other-way-22' } };
const mirrorWrites = join(projectRoot, 'test', 'support', 'mirror-writes.mjs');

let workdir: Workdir;
let tgtd: Tgtd;
let plain: TgtdTarget;
let guarded: TgtdTarget;

beforeAll(async () => {
  workdir = Workdir.create();
  tgtd = await Tgtd.start();
  const first = join(workdir.path, 'first');
  await writePatternFile(first, 512 * MiB);
  plain = await tgtd.addTarget({
    luns: [
      { path: first },
      { size: 3 * TiB },
      { size: 64 * MiB, blockLength: 4096 },
      { size: 16 * MiB, readOnly: true },
      { size: 64 * MiB },
    ],
  });
  guarded = await tgtd.addTarget({ luns: [{ size: 16 * MiB }], chap: CHAP });
});
afterAll(async () => {
  await tgtd?.[Symbol.asyncDispose]();
  await workdir?.[Symbol.asyncDispose]();
});

function mountPlain(extra: readonly string[] = []): Promise<MountProcess> {
  const args = ['--portal', tgtd.portal, '--target', plain.name, ...extra];
  return MountProcess.start({ mountpoint: workdir.folder('mnt'), args });
}

const imageOf = (mount: { mountpoint: string }, lun: number, target = plain) =>
  join(mount.mountpoint, target.name, `lun${lun}`, 'image');
const backingOf = (lun: number, target = plain) => target.luns.find((one) => one.lun === lun)?.path ?? '';

const sha256 = async (path: string, timeoutMs = 60_000) => (await runChecked('sha256sum', [path], { timeoutMs })).split(' ')[0];
const dd = (...args: string[]) => run('dd', [...args, 'status=none'], { timeoutMs: 60_000 });

describe('the LUN by which tgtd is managed', () => {
  it('is no disk, and a mount of it alone says so', async () => {
    const outcome = await runCli(['mount', workdir.folder('mnt'), '--portal', tgtd.portal, '--target', plain.name, '--lun', '0']);
    expect(outcome.status).toBe(1);
    expect(outcome.stderr).toMatch(/: LUN 0 is no disk\n {2}It shows LUN 0, 1, /);
  });
});

describe('an image', () => {
  it('is the LUN, byte for byte, when it is copied out', async () => {
    await using mount = await mountPlain();
    const copy = join(workdir.path, 'copy');
    await runChecked('cp', [imageOf(mount, 1), copy], { timeoutMs: 120_000 });
    expect(await sha256(copy)).toBe(await sha256(backingOf(1)));
    expect(await sha256(imageOf(mount, 1), 120_000)).toBe(await sha256(backingOf(1)));
    expect((await mount.stop()).status).toBe(0);
  });

  it('takes a copy, through cp, dd and cat', async () => {
    await using mount = await mountPlain();
    const source = join(workdir.path, 'source');
    for (const [index, write] of [
      (image: string) => runChecked('cp', [source, image], { timeoutMs: 60_000 }),
      (image: string) =>
        runChecked('dd', [`if=${source}`, `of=${image}`, 'bs=1M', 'conv=fsync', 'status=none'], { timeoutMs: 60_000 }),
      (image: string) => runChecked('sh', ['-c', 'cat "$1" >"$2"', 'sh', source, image], { timeoutMs: 60_000 }),
      (image: string) =>
        runChecked('dd', [`if=${source}`, `of=${image}`, 'bs=4096', 'oflag=direct', 'status=none'], { timeoutMs: 60_000 }),
    ].entries()) {
      writeFileSync(source, Buffer.alloc(64 * MiB, `round ${index} `));
      await write(imageOf(mount, 5));
      await runChecked('cmp', [source, backingOf(5)]);
      await runChecked('cmp', [source, imageOf(mount, 5)]);
    }
  });

  it.each([
    [5, 512],
    [3, 4096],
  ])('stays equal to a reference under thousands of writes at odd offsets (LUN %i, %i-byte blocks)', async (lun) => {
    await using mount = await mountPlain(['--cache-size', '8M']);
    const reference = join(workdir.path, `reference${lun}`);
    copyFileSync(backingOf(lun), reference);
    const stdout = await runChecked(process.execPath, [mirrorWrites, imageOf(mount, lun), reference, '3000', String(lun)], {
      timeoutMs: 100_000,
    });
    expect(stdout).toContain('3000 operations');
    await runChecked('cmp', [reference, imageOf(mount, lun)], { timeoutMs: 60_000 });
    await runChecked('cmp', [reference, backingOf(lun)]);
  });

  it.each([['--cache-size', '0'], ['--shared']])('is right without a cache too (%s %s)', async (...options) => {
    await using mount = await mountPlain(options.filter((option) => option !== undefined));
    const reference = join(workdir.path, 'reference-uncached');
    copyFileSync(backingOf(5), reference);
    await runChecked(process.execPath, [mirrorWrites, imageOf(mount, 5), reference, '1000', '77'], { timeoutMs: 100_000 });
    await runChecked('cmp', [reference, backingOf(5)]);
    await runChecked('cmp', [reference, imageOf(mount, 5)], { timeoutMs: 60_000 });
  });

  it('reaches beyond 2 TiB', async () => {
    await using mount = await mountPlain(['--lun', '2']);
    const image = imageOf(mount, 2);
    const stdout = await runChecked('stat', ['-c', '%s %b %a', image]);
    expect(stdout.trim()).toBe(`${3 * TiB} ${(3 * TiB) / 512} 600`);
    const data = join(workdir.path, 'far');
    writeFileSync(data, Buffer.alloc(MiB, 'beyond 2 TiB '));
    const position = 2 * TiB + 4096 * 1024;
    expect(await dd(`if=${data}`, `of=${image}`, 'bs=1M', `seek=${position / MiB}`, 'conv=notrunc,fsync')).toMatchObject({
      status: 0,
    });
    await runChecked('cmp', ['-n', String(MiB), data, `${image}`, '0', String(position)]);
    await runChecked('cmp', ['-n', String(MiB), data, backingOf(2), '0', String(position)]);
    // Nothing landed where a number of 32 bits would have put it.
    await runChecked('cmp', ['-n', String(MiB), '/dev/zero', backingOf(2), '0', String(position - 2 * TiB)]);
  });

  it('ends where the LUN ends', async () => {
    await using mount = await mountPlain(['--lun', '5']);
    const image = imageOf(mount, 5);
    expect((await runChecked('sh', ['-c', 'tail -c 10 "$1" | wc -c', 'sh', image])).trim()).toBe('10');
    const beyond = await dd('if=/dev/zero', `of=${image}`, 'bs=1M', 'count=1', 'seek=64', 'conv=notrunc');
    expect(beyond).toMatchObject({ status: 1, stderr: expect.stringContaining('No space left on device') });
    const across = await dd('if=/dev/zero', `of=${image}`, 'bs=1M', 'count=2', 'seek=63', 'conv=notrunc');
    expect(across).toMatchObject({ status: 1, stderr: expect.stringContaining('No space left on device') });
    expect(await dd(`if=${image}`, 'of=/dev/null', 'bs=1M', 'skip=64')).toMatchObject({ status: 0 });
  });

  it('of a write-protected LUN can be read and not written', async () => {
    await using mount = await mountPlain(['--lun', '4']);
    const image = imageOf(mount, 4);
    expect((await runChecked('stat', ['-c', '%a', image])).trim()).toBe('400');
    await runChecked('cmp', [image, backingOf(4)]);
    const refused = await dd('if=/dev/zero', `of=${image}`, 'count=1', 'conv=notrunc');
    expect(refused).toMatchObject({ status: 1, stderr: expect.stringMatching(/Read-only file system|Permission denied/) });
    expect(readFileSync(backingOf(4)).every((byte) => byte === 0)).toBe(true);
  });
});

describe('a file system on an image', () => {
  it('is made, mounted through a loop device, filled, checked and found again', async ({ skip }) => {
    skip(!isRoot, 'only root may use loop devices');
    const tree = workdir.folder('tree');
    for (let file = 0; file < 300; file++) {
      const path = join(workdir.folder(join('tree', `folder${file % 17}`)), `file${file}`);
      writeFileSync(path, Buffer.alloc(1 + ((file * 7919) % 60_000), `content of ${file} `));
      chmodSync(path, 0o600 + (file % 3) * 0o22);
    }
    const archive = join(workdir.path, 'tree.tar');
    await runChecked('tar', ['-cf', archive, '-C', tree, '.']);
    const loop = workdir.folder('loop');
    // In a mount namespace of its own, so that nothing stays mounted whatever happens; -d frees the loop device with it.
    const inside = (script: string, ...args: string[]) =>
      runChecked('unshare', ['-m', 'sh', '-euc', script, 'sh', ...args], { timeoutMs: 60_000 });
    {
      await using mount = await mountPlain(['--lun', '5']);
      const image = imageOf(mount, 5);
      await runChecked('mkfs.ext4', ['-q', '-F', image], { timeoutMs: 60_000 });
      await inside('mount -o loop "$1" "$2"; tar -xf "$3" -C "$2"; umount "$2"', image, loop, archive);
      await runChecked('e2fsck', ['-f', '-n', image], { timeoutMs: 60_000 });
      expect((await mount.stop()).status).toBe(0);
    }
    await runChecked('e2fsck', ['-f', '-n', backingOf(5)]);
    await using again = await mountPlain(['--lun', '5']);
    await inside(
      'mount -o loop,ro "$1" "$2"; diff -r --exclude lost+found "$2" "$3"; umount "$2"',
      imageOf(again, 5),
      loop,
      tree,
    );
  });
});

describe('the tree', () => {
  it('shows targets, LUNs and what they are', async () => {
    await using mount = await mountPlain();
    const found = (await runChecked('find', [mount.mountpoint, '-printf', '%P\n'])).slice(0, -1).split('\n').sort();
    const files = ['image', 'info', 'info.json', 'status', 'status.json'];
    expect(found).toEqual(
      [
        '',
        'metrics',
        'status',
        'status.json',
        plain.name,
        ...['status', 'status.json'].map((name) => `${plain.name}/${name}`),
        // tgtd's LUN 0 is its controller, which is no storage and not shown.
        ...[1, 2, 3, 4, 5].flatMap((lun) =>
          [`lun${lun}`, ...files.map((name) => `lun${lun}/${name}`)].map((name) => `${plain.name}/${name}`),
        ),
      ].sort(),
    );
  });

  it('tells the truth of each LUN', async () => {
    await using mount = await mountPlain();
    const info = JSON.parse(await runChecked('cat', [join(mount.mountpoint, plain.name, 'lun3', 'info.json')]));
    expect(info).toMatchObject({ vendor: 'IET', product: 'VIRTUAL-DISK' });
    const text = await runChecked('cat', [join(mount.mountpoint, plain.name, 'lun3', 'info')]);
    expect(text).toMatch(/^logical block length: 4096 bytes$/m);
    expect(text).toMatch(/^capacity: 64 MiB \(67108864 bytes\)$/m);
    const metrics = await runChecked('cat', [join(mount.mountpoint, 'metrics')]);
    expect(metrics).toContain(`iserfs_lun_capacity_bytes{target="${plain.name}",lun="2"} ${3 * TiB}`);
  });

  it('is live: a status file changes with what happens', async () => {
    await using mount = await mountPlain(['--lun', '5']);
    const reads = async () =>
      Number(JSON.parse(await runChecked('cat', [join(mount.mountpoint, plain.name, 'lun5', 'status.json')])).reads);
    const before = await reads();
    await runChecked('cat', [imageOf(mount, 5)], { timeoutMs: 60_000 });
    expect(await reads()).toBeGreaterThan(before);
  });

  it('refuses writing to an info file', async () => {
    await using mount = await mountPlain(['--lun', '5']);
    const refused = await run('sh', ['-c', 'echo x >"$1"', 'sh', join(mount.mountpoint, 'status')]);
    expect(refused.status).not.toBe(0);
    expect(refused.stderr).toMatch(/Permission denied/);
  });
});

describe('two mounts of one LUN', () => {
  it('have sessions of their own, and each sees at the next open what the other has written', async () => {
    await using one = await mountPlain(['--lun', '5']);
    const args = ['--portal', tgtd.portal, '--target', plain.name, '--lun', '5'];
    await using other = await MountProcess.start({ mountpoint: workdir.folder('other'), args });
    expect(await tgtd.sessions(plain)).toHaveLength(2);
    const data = join(workdir.path, 'from-one');
    for (const round of [1, 2, 3]) {
      writeFileSync(data, Buffer.alloc(MiB, `round ${round} `));
      await runChecked('dd', [`if=${data}`, `of=${imageOf(one, 5)}`, 'bs=64k', 'conv=notrunc', 'status=none']);
      await runChecked('cmp', ['-n', String(MiB), data, imageOf(other, 5)]);
    }
    for (const mount of [one, other]) {
      const status = JSON.parse(await runChecked('cat', [join(mount.mountpoint, plain.name, 'status.json')]));
      expect(status.reconnects).toBe(0);
    }
  });
});

describe('CHAP', () => {
  it('mounts with secrets from files, both ways', async () => {
    const secret = secretFile('secret', CHAP.secret);
    const mutual = secretFile('mutual', CHAP.mutual.secret);
    const args = ['--portal', tgtd.portal, '--target', guarded.name];
    const credentials = ['--chap-user', CHAP.user, '--chap-secret-file', secret];
    const inReturn = ['--chap-mutual-user', CHAP.mutual.user, '--chap-mutual-secret-file', mutual];
    await using mount = await MountProcess.start({
      mountpoint: workdir.folder('mnt'),
      args: [...args, ...credentials, ...inReturn],
    });
    await runChecked('cmp', [imageOf(mount, 1, guarded), backingOf(1, guarded)]);
  });

  it('keeps the directory of a target that refuses, when another can be read', async () => {
    await using mount = await MountProcess.start({ mountpoint: workdir.folder('mnt'), args: ['--portal', tgtd.portal] });
    const status = await runChecked('cat', [join(mount.mountpoint, guarded.name, 'status')]);
    expect(status).toMatch(/authentication/);
    await runChecked('head', ['-c', '512', imageOf(mount, 1)]);
  });

  it('says in one line that a secret is wrong, and mounts nothing', async () => {
    const mountpoint = workdir.folder('mnt');
    const secret = secretFile('wrong', 'this-is-not-it-1');
    const args = ['mount', mountpoint, '--portal', tgtd.portal, '--target', guarded.name];
    const outcome = await runCli([...args, '--chap-user', CHAP.user, '--chap-secret-file', secret], { timeoutMs: 10_000 });
    expect(outcome.status).toBe(1);
    expect(outcome.stderr).toContain(guarded.name);
    expect(outcome.stderr).toMatch(/authentication failed/);
    expect(outcome.stderr).not.toContain('this-is-not-it');
    expect(findMount(mountpoint)).toBeUndefined();
  });

  function secretFile(name: string, secret: string): string {
    const path = join(workdir.path, name);
    writeFileSync(path, `${secret}\n`, { mode: 0o600 });
    return path;
  }
});

describe('without privileges', () => {
  it('mounts, copies, writes, makes a file system and unmounts as an ordinary user', async ({ skip }) => {
    skip(!UnprivilegedSpace.isPossible, 'this is an ordinary user already');
    await using space = await UnprivilegedSpace.create(workdir);
    const mountpoint = await space.folder('mnt');
    const succeed = async (command: string, ...args: string[]) => {
      const outcome = await space.run(command, args, { timeoutMs: 60_000 });
      expect(outcome.status, describeOutcome(outcome)).toBe(0);
      return outcome.stdout;
    };
    await succeed(space.node, space.cli, 'mount', mountpoint, '--portal', tgtd.portal, '--target', plain.name);
    const image = join(mountpoint, plain.name, 'lun5', 'image');
    const copy = join(space.home, 'copy');
    await succeed('cp', image, copy);
    expect(
      await succeed(space.node, join(space.project, 'test', 'support', 'mirror-writes.mjs'), image, copy, '1000', '9'),
    ).toContain('1000 operations');
    await succeed('cmp', copy, image);
    // The backing file is the judge; it stands outside of the user's reach.
    const sum = (await succeed('sha256sum', copy)).split(' ')[0];
    expect(await sha256(backingOf(5))).toBe(sum);
    const first = (await succeed('sha256sum', join(mountpoint, plain.name, 'lun1', 'image'))).split(' ')[0];
    expect(await sha256(backingOf(1))).toBe(first);
    await succeed('/sbin/mkfs.ext4', '-q', '-F', image);
    await succeed('/sbin/e2fsck', '-f', '-n', image);
    await succeed(space.node, space.cli, 'umount', mountpoint);
    expect(await succeed('ls', mountpoint)).toBe('');
    await runChecked('e2fsck', ['-f', '-n', backingOf(5)]);
  });
});

describe('the target goes away', () => {
  it('is waited for when it comes back in time, and nothing is lost', async () => {
    await using mount = await mountPlain(['--lun', '5']);
    const source = join(workdir.path, 'through-a-restart');
    writeFileSync(source, Buffer.alloc(64 * MiB, 'written through a restart '));
    const copying = runChecked('dd', [`if=${source}`, `of=${imageOf(mount, 5)}`, 'bs=64k', 'conv=fsync,notrunc', 'status=none'], {
      timeoutMs: 90_000,
    });
    await new Promise((resolve) => setTimeout(resolve, 300));
    await tgtd.kill();
    await tgtd.restart();
    await copying;
    await runChecked('cmp', [source, backingOf(5)]);
    const status = JSON.parse(await runChecked('cat', [join(mount.mountpoint, plain.name, 'status.json')]));
    expect(status.reconnects).toBeGreaterThan(0);
  });

  it('costs an I/O error after the recovery time-out, and no hang', async () => {
    await using mount = await mountPlain(['--lun', '5', '--recovery-timeout', '2s']);
    await tgtd.kill();
    try {
      const failed = await dd(`if=${imageOf(mount, 5)}`, 'of=/dev/null', 'bs=1M', 'count=1', 'iflag=direct');
      expect(failed).toMatchObject({ status: 1, stderr: expect.stringMatching(/Input\/output error|Connection timed out/) });
    } finally {
      await tgtd.restart();
    }
  });
});
