/**
 * A target that stands still, and the programs that use it meanwhile: a signal ends them, and nothing else of the mount waits with them.
 */

import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { collectText, describeOutcome, ended, run, runChecked, spawnGuarded, waitFor } from '../support/child-process.ts';
import { MountProcess } from '../support/cli-process.ts';
import { offsetPattern } from '../support/pattern.ts';
import { Tgtd, type TgtdTarget } from '../support/tgtd.ts';
import { MiB, Workdir } from '../support/workdir.ts';

const SIZE = 256 * MiB;

let workdir: Workdir;
let tgtd: Tgtd;
let target: TgtdTarget;
let mount: MountProcess;
beforeEach(async () => {
  workdir = Workdir.create();
  tgtd = await Tgtd.start();
  target = await tgtd.addTarget({ luns: [{ size: SIZE }] });
  mount = await MountProcess.start({ mountpoint: workdir.folder('mnt'), args: ['--portal', tgtd.portal] });
  tgtd.stall();
});
afterEach(async () => {
  tgtd?.resume();
  await mount?.[Symbol.asyncDispose]();
  await tgtd?.[Symbol.asyncDispose]();
  await workdir?.[Symbol.asyncDispose]();
});

const lun = (file: string) => join(mount.mountpoint, target.name, 'lun1', file);
const stagedBytes = async () =>
  Number(JSON.parse(await runChecked('cat', [lun('status.json')], { timeoutMs: 5000 })).stagedBytes);
const staged = (bytes: number) =>
  waitFor(async () => (await stagedBytes()) === bytes, { withinMs: 10_000, what: `${bytes} bytes to be staged` });

/** dd takes a close(2) that was interrupted for one that is done. */
const DONE = { status: 0, signal: null };

describe('a program that writes to it', () => {
  it.each([
    {
      doing: 'waits to write more',
      mebibytes: 64,
      taken: 16,
      option: 'conv=notrunc',
      signal: 'SIGINT',
      end: { status: null, signal: 'SIGINT' },
    },
    {
      doing: 'waits to write more',
      mebibytes: 64,
      taken: 16,
      option: 'conv=notrunc',
      signal: 'SIGKILL',
      end: { status: null, signal: 'SIGKILL' },
    },
    { doing: 'closes', mebibytes: 4, taken: 4, option: 'conv=notrunc', signal: 'SIGINT', end: DONE },
    {
      doing: 'closes',
      mebibytes: 4,
      taken: 4,
      option: 'conv=notrunc',
      signal: 'SIGKILL',
      end: { status: null, signal: 'SIGKILL' },
    },
    {
      doing: 'syncs',
      mebibytes: 4,
      taken: 4,
      option: 'conv=notrunc,fsync',
      signal: 'SIGINT',
      end: { status: null, signal: 'SIGINT' },
    },
  ] as const)('is ended by $signal while it $doing, and what was taken is written later', async (sample) => {
    const { mebibytes, taken, option, signal, end } = sample;
    const data = workdir.file('data', offsetPattern(0, mebibytes * MiB));
    const writer = spawnGuarded('dd', [`if=${data}`, `of=${lun('image')}`, 'bs=1M', option]);
    collectText(writer.stdout);
    collectText(writer.stderr);
    const gone = ended(writer);
    await staged(taken * MiB);
    // Nothing tells that dd has got to the request that it waits in.
    await run('sleep', ['0.3']);
    writer.kill(signal);
    await waitFor(async () => writer.exitCode !== null || writer.signalCode !== null, { withinMs: 8000, what: 'the end of dd' });
    expect(await gone).toEqual(end);
    tgtd.resume();
    await staged(0);
    await runChecked('cmp', ['-n', String(taken * MiB), data, target.luns[0]?.path ?? '']);
  });
});

const SEEK = 'import os, sys, signal; signal.signal(2, signal.SIG_DFL); os.lseek(os.open(sys.argv[1], 0), 0, os.SEEK_DATA)';

describe('a program that waits for what others have written to it', () => {
  it.each([
    { doing: 'punches a hole', command: 'fallocate', args: ['--punch-hole', '--offset', '0', '--length', '1MiB'] },
    { doing: 'looks for data', command: 'python3', args: ['-c', SEEK] },
  ])('is ended by SIGINT and SIGKILL while it $doing, which is not done later', async ({ command, args }) => {
    const data = workdir.file('data', offsetPattern(0, 4 * MiB));
    const writer = run('dd', [`if=${data}`, `of=${lun('image')}`, 'bs=1M', 'conv=notrunc'], { timeoutMs: 60_000 });
    await staged(4 * MiB);
    for (const signal of ['SIGINT', 'SIGKILL'] as const) {
      const child = spawnGuarded(command, [...args, lun('image')]);
      collectText(child.stdout);
      collectText(child.stderr);
      const gone = ended(child);
      // Nothing tells that it has got to the request that it waits in.
      await run('sleep', ['0.7']);
      expect(child.exitCode).toBe(null);
      child.kill(signal);
      await waitFor(async () => child.exitCode !== null || child.signalCode !== null, {
        withinMs: 8000,
        what: `the end of ${command}`,
      });
      expect(await gone).toEqual({ status: null, signal });
    }
    tgtd.resume();
    await writer;
    await staged(0);
    await runChecked('cmp', ['-n', String(4 * MiB), data, target.luns[0]?.path ?? '']);
  });
});

describe('a hundred programs that write to it directly', () => {
  it('keep nobody from the rest of the mount', async () => {
    const writers = Array.from({ length: 100 }, (_, index) =>
      run('dd', ['if=/dev/zero', `of=${lun('image')}`, 'bs=1M', 'count=1', `seek=${index}`, 'oflag=direct', 'conv=notrunc'], {
        timeoutMs: 60_000,
      }),
    );
    await run('sleep', ['3']);
    const status = await run('cat', [join(mount.mountpoint, 'status')], { timeoutMs: 5000 });
    tgtd.resume();
    for (const outcome of await Promise.all(writers)) expect(outcome.status, describeOutcome(outcome)).toBe(0);
    expect(status.timedOut).toBe(false);
    expect(status.stdout).toContain(target.name);
  });
});
