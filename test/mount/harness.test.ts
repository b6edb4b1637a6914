/** The harness for mounts, checked with a FUSE file system that is not ours: one file, served by fuse-native as it comes. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { describeOutcome, ended, run, runChecked, spawnGuarded, waitFor } from '../support/child-process.ts';
import { guardMount, MountProcess, projectRoot } from '../support/cli-process.ts';
import { findLeftovers } from '../support/leftovers.mjs';
import { abortFuseConnection, findMount } from '../support/mounts.ts';
import { UnprivilegedSpace } from '../support/unprivileged.ts';
import { MiB, Workdir } from '../support/workdir.ts';

const isRoot = process.getuid?.() === 0;

describe('a private namespace for an unprivileged user', () => {
  beforeEach(({ skip }) => skip(!isRoot, 'needs root'));

  it('lets that user mount, and nobody outside see it', async () => {
    await using workdir = Workdir.create();
    await using space = await UnprivilegedSpace.create(workdir);
    const mountpoint = await space.folder('mnt');
    const server = space.run(space.node, ['-e', foreignFileSystem(space.project), mountpoint], { timeoutMs: 20_000 });
    await waitFor(async () => (await space.run('cat', [`${mountpoint}/hello`])).stdout === 'hello\n', {
      withinMs: 10_000,
      what: 'a mount',
    });
    expect((await space.run('stat', ['-c', '%u', '-f', mountpoint])).status).toBe(0);
    const info = (await space.run('cat', ['/proc/self/mountinfo'])).stdout
      .split('\n')
      .find((line) => line.includes(` ${mountpoint} `));
    expect(info).toContain(`user_id=${space.uid}`);
    expect(findMount(mountpoint)).toBeUndefined();
    const unmounted = await space.run('fusermount3', ['-u', mountpoint]);
    expect(unmounted.status, describeOutcome(unmounted)).toBe(0);
    expect((await space.run('ls', [mountpoint])).stdout).toBe('');
    await space[Symbol.asyncDispose]();
    await server;
  });

  it('runs as that user, without groups or capabilities', async () => {
    await using workdir = Workdir.create();
    await using space = await UnprivilegedSpace.create(workdir, 54_321);
    const status = (await space.run('cat', ['/proc/self/status'])).stdout;
    expect(status).toMatch(/^Uid:\t54321\t54321\t54321\t54321$/m);
    expect(status).toMatch(/^Groups:\t\s*$/m);
    expect(status).toMatch(/^CapEff:\t0+$/m);
    expect((await space.run('mount', ['-t', 'tmpfs', 'none', space.home])).status).not.toBe(0);
    expect((await space.run(space.node, ['--version'])).stdout.trim()).toBe(process.version);
    expect((await space.run('test', ['-r', `${space.project}/package.json`])).status).toBe(0);
  });

  it('takes every process in it along at its end', async () => {
    await using workdir = Workdir.create();
    const space = await UnprivilegedSpace.create(workdir);
    const marked = { ...process.env, ISERFS_TEST_RUN: workdir.path };
    const background = await space.run('sh', ['-c', 'sleep 300 >/dev/null 2>&1 </dev/null &'], { env: marked });
    expect(background.status, describeOutcome(background)).toBe(0);
    expect(findLeftovers(workdir.path, workdir.folder('empty'))).toEqual([expect.stringMatching(/sleep 300 .*namespace/)]);
    await space[Symbol.asyncDispose]();
    expect(findLeftovers(workdir.path, workdir.folder('empty'))).toEqual([]);
  });
});

describe('a guarded mount', () => {
  beforeEach(({ skip }) => skip(!isRoot, 'needs root'));

  it('is unmounted at the end of the scope, its server gone or not', async () => {
    await using workdir = Workdir.create();
    const mountpoint = workdir.folder('mnt');
    await using server = await ForeignMount.start(mountpoint);
    {
      await using _guard = guardMount(mountpoint);
      server.signal('SIGKILL');
      const isStale = async () => (await run('ls', [mountpoint])).stderr.includes('not connected');
      await waitFor(isStale, { withinMs: 5000, what: 'a stale mount' });
    }
    expect(findMount(mountpoint)).toBeUndefined();
  });

  it('that hangs is freed by aborting its connection', async () => {
    await using workdir = Workdir.create();
    const mountpoint = workdir.folder('mnt');
    await using server = await ForeignMount.start(mountpoint);
    await using _guard = guardMount(mountpoint);
    server.signal('SIGSTOP');
    const reader = run('cat', [`${mountpoint}/hello`], { timeoutMs: 20_000 });
    const mount = findMount(mountpoint);
    if (mount === undefined) throw new Error('not mounted');
    await abortFuseConnection(mount);
    const outcome = await reader;
    expect(outcome.timedOut).toBe(false);
    expect(outcome.status).not.toBe(0);
  });

  it('keeps its folder from being deleted', async () => {
    const workdir = Workdir.create();
    const mountpoint = workdir.folder('mnt');
    {
      await using _server = await ForeignMount.start(mountpoint);
      await using _guard = guardMount(mountpoint);
      await expect(workdir[Symbol.asyncDispose]()).rejects.toThrow(`still mounted: ${mountpoint}`);
    }
    await workdir[Symbol.asyncDispose]();
  });
});

describe('a mount process', () => {
  beforeEach(({ skip }) => skip(!isRoot, 'needs root'));

  it('is readable when it has started, and unmounts when it is stopped', async () => {
    await using workdir = Workdir.create();
    const mountpoint = workdir.folder('mnt');
    await using mount = await MountProcess.start({ mountpoint, args: ['--demo'] });
    expect(await runChecked('ls', [mountpoint])).toContain('status');
    expect(mount.isRunning).toBe(true);
    expect(await mount.stop()).toEqual({ status: 0, signal: null });
    expect(findMount(mountpoint)).toBeUndefined();
  });

  it('that does not become ready says why', async () => {
    await using workdir = Workdir.create();
    const mountpoint = workdir.file('no-folder', '');
    const start = MountProcess.start({ mountpoint, args: ['--demo'] });
    await expect(start).rejects.toThrow(/ended \(exit status [1-9]\d*\) before it was ready\n.*no-folder/s);
  });

  it.each(['SIGKILL', 'SIGSTOP'] as const)('is cleared away after %s, its mount with it', async (signal) => {
    await using workdir = Workdir.create();
    const mountpoint = workdir.folder('mnt');
    {
      await using mount = await MountProcess.start({
        mountpoint,
        args: ['--demo'],
        env: { ...process.env, TMPDIR: workdir.folder('tmp') },
      });
      mount.signal(signal);
    }
    expect(findMount(mountpoint)).toBeUndefined();
  });
});

describe('leftovers', () => {
  beforeEach(({ skip }) => skip(!isRoot, 'needs root'));

  it('are processes, mounts, loop devices and files of the run alone', async () => {
    await using workdir = Workdir.create();
    const folder = workdir.folder('tmp');
    expect(findLeftovers(workdir.path, folder)).toEqual([]);
    const sleeper = spawnGuarded('sleep', ['300'], { env: { ...process.env, ISERFS_TEST_RUN: workdir.path } });
    const other = spawnGuarded('sleep', ['301'], { env: { ...process.env, ISERFS_TEST_RUN: `${workdir.path}-other` } });
    writeFileSync(`${folder}/image`, new Uint8Array(MiB));
    await runChecked('mkdir', [`${folder}/mnt`]);
    await runChecked('mount', ['-t', 'tmpfs', 'none', `${folder}/mnt`]);
    const loop = (await runChecked('losetup', ['--find', '--show', `${folder}/image`])).trim();
    try {
      const found = await waitFor(async () => ifLong(findLeftovers(workdir.path, folder), 5), {
        withinMs: 5000,
        what: 'five leftovers',
      });
      expect(found.sort()).toEqual([
        `file: ${folder}/image`,
        `file: ${folder}/mnt`,
        `loop device: ${loop} on ${folder}/image`,
        `mount: ${folder}/mnt`,
        `process ${sleeper.pid}: sleep 300`,
      ]);
    } finally {
      await runChecked('losetup', ['--detach', loop]);
      await runChecked('umount', [`${folder}/mnt`]);
      for (const child of [sleeper, other]) {
        child.kill('SIGKILL');
        await ended(child);
      }
    }
  });
});

/** fuse-native in a process of its own. */
class ForeignMount implements AsyncDisposable {
  readonly #child: ReturnType<typeof spawnGuarded>;

  private constructor(mountpoint: string) {
    this.#child = spawnGuarded(process.execPath, ['-e', foreignFileSystem(projectRoot), mountpoint]);
  }

  static async start(mountpoint: string): Promise<ForeignMount> {
    const mount = new ForeignMount(mountpoint);
    await waitFor(async () => findMount(mountpoint) !== undefined, { withinMs: 10_000, what: 'a mount' });
    return mount;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = ended(this.#child);
    this.#child.kill('SIGKILL');
    await gone;
  }
}

/** Script: serves one file, `hello`, at the mount point that is its argument. */
function foreignFileSystem(project: string): string {
  const addon = join(project, 'node_modules', 'fuse-native');
  return `
    const Fuse = require(${JSON.stringify(addon)});
    const times = { mtime: new Date(0), atime: new Date(0), ctime: new Date(0), nlink: 1, uid: process.getuid(), gid: process.getgid() };
    const answers = { '/': { ...times, mode: 0o40755, size: 0 }, '/hello': { ...times, mode: 0o100644, size: 6 } };
    const fuse = new Fuse(process.argv[1], {
      getattr: (path, done) => (path in answers ? done(0, answers[path]) : done(Fuse.ENOENT)),
      readdir: (path, done) => done(0, ['hello']),
      open: (path, flags, done) => done(0, 1),
      read: (path, handle, buffer, length, position, done) => done(buffer.write('hello\\n'.slice(position, position + length))),
    });
    fuse.mount((error) => { if (error) throw error; });
  `;
}

function ifLong<T>(items: T[], length: number): T[] | undefined {
  return items.length >= length ? items : undefined;
}
