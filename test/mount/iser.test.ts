/**
 * The mount by RDMA on any machine: iSER over iwarp, against `iserfs target` in a process of its own. Data is copied, written at
 * random, made a file system; the target is killed under load; and whoever asks for RDMA where there is none is told.
 */

import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeEach, describe, expect, it } from 'vitest';
import { describeOutcome, run, runChecked, waitFor } from '../support/child-process.ts';
import { MountProcess, projectRoot, runCli } from '../support/cli-process.ts';
import { offsetPattern, writePatternFile } from '../support/pattern.ts';
import { TargetProcess, type TargetProcessOptions } from '../support/target-process.ts';
import { MiB, Workdir } from '../support/workdir.ts';

const NAME = 'iqn.2026-01.io.iserfs.test:iser';
const SIZE = 32 * MiB;
const USER = 'tester';
const SECRET = 'a secret of the tests';
const mirrorWrites = join(projectRoot, 'test', 'support', 'mirror-writes.mjs');

let workdir: Workdir;
beforeEach(() => {
  workdir = Workdir.create();
  return () => workdir[Symbol.asyncDispose]();
});

/** A file of `SIZE` whose every 8 bytes spell their own offset. */
async function patternFile(name: string): Promise<string> {
  await writePatternFile(workdir.join(name), SIZE);
  return workdir.join(name);
}

interface Session {
  readonly transport: string;
  readonly transportFallback: string | null;
  readonly traits: Readonly<Record<string, string | number>>;
  readonly keys: Readonly<Record<string, string>>;
  readonly reconnects: number;
}

const imageOf = (mount: MountProcess) => join(mount.mountpoint, NAME, 'lun0', 'image');
const sessionOf = async (mount: MountProcess): Promise<Session> =>
  JSON.parse(await runChecked('cat', [join(mount.mountpoint, NAME, 'status.json')]));
const lunOf = async (mount: MountProcess) =>
  JSON.parse(await runChecked('cat', [join(mount.mountpoint, NAME, 'lun0', 'status.json')]));
const offer = (path: string, options: Partial<TargetProcessOptions> = {}) =>
  TargetProcess.start({ iser: 'beside', ...options, args: ['--name', NAME, '--file', path, ...(options.args ?? [])] });
const mountAt = (target: TargetProcess, ...args: string[]) =>
  MountProcess.start({ mountpoint: workdir.folder('mnt'), args: ['--portal', target.portal, ...args] });

describe('a mount over iwarp', () => {
  it('copies a LUN out byte for byte, and shows what carries it', async () => {
    const disk = await patternFile('disk');
    await using target = await offer(disk);
    await using mount = await mountAt(target, '--transport', 'iwarp');
    await runChecked('dd', [`if=${imageOf(mount)}`, `of=${workdir.join('copy')}`, 'bs=1M', 'status=none']);
    await runChecked('cmp', [workdir.join('copy'), disk]);
    const session = await sessionOf(mount);
    expect(session).toMatchObject({
      transport: 'iwarp',
      transportFallback: null,
      keys: { RDMAExtensions: 'Yes', InitiatorRecvDataSegmentLength: '8192', TargetRecvDataSegmentLength: '8192' },
      traits: { fabric: 'iWARP', crc: 'CRC32C', 'remote invalidate': 'on', protection: 'tag per command' },
    });
    expect(session.traits['ird']).toBeGreaterThanOrEqual(1);
    expect(session.traits['ord']).toBeGreaterThanOrEqual(1);
    expect(await runChecked('cat', [join(mount.mountpoint, 'metrics')])).toMatch(
      /^iserfs_target_transport_info\{.*transport="iwarp".*fabric="iWARP".*\} 1$/m,
    );
    expect((await mount.stop()).status).toBe(0);
  });

  it.each([
    ['with its CRC', 512, 'on'],
    ['without its CRC', 4096, 'off'],
  ])('holds what is written at random, %s', async (_what, blockLength, crc) => {
    const disk = await patternFile('disk');
    const reference = workdir.join('reference');
    copyFileSync(disk, reference);
    await using target = await offer(disk, { args: ['--block-size', String(blockLength)] });
    await using mount = await mountAt(target, '--transport', 'iwarp', '--iwarp-crc', crc, '--cache-size', '4M');
    expect((await sessionOf(mount)).traits).toMatchObject({ crc: crc === 'on' ? 'CRC32C' : 'off' });
    await runChecked(process.execPath, [mirrorWrites, imageOf(mount), reference, '3000', '7'], { timeoutMs: 60_000 });
    await runChecked('cmp', [reference, imageOf(mount)]);
    await runChecked('cmp', [reference, disk]);
    expect((await lunOf(mount)).errors).toBe(0);
  });

  it('carries a file system', async () => {
    const disk = workdir.sparseFile('disk', SIZE);
    await using target = await offer(disk);
    await using mount = await mountAt(target, '--transport', 'iwarp');
    const files = workdir.folder('files');
    workdir.file('files/hello', 'over RDMA\n');
    workdir.file('files/much', offsetPattern(0, 4 * MiB));
    await runChecked('mkfs.ext4', ['-q', '-F', '-d', files, imageOf(mount)]);
    await runChecked('e2fsck', ['-f', '-n', imageOf(mount)]);
    expect(await runChecked('debugfs', ['-R', 'cat /hello', imageOf(mount)])).toBe('over RDMA\n');
    expect((await mount.stop()).status).toBe(0);
    await runChecked('e2fsck', ['-f', '-n', disk]);
    await runChecked('debugfs', ['-R', `dump /much ${workdir.join('much')}`, disk]);
    await runChecked('cmp', [workdir.join('much'), workdir.join('files/much')]);
  });

  it('loses nothing when the target is killed under load, again and again', async () => {
    const disk = await patternFile('disk');
    const reference = workdir.join('reference');
    copyFileSync(disk, reference);
    await using target = await offer(disk);
    await using mount = await mountAt(target, '--transport', 'iwarp', '--cache-size', '1M');
    const writing = runChecked(process.execPath, [mirrorWrites, imageOf(mount), reference, '2500', '3'], { timeoutMs: 100_000 });
    writing.catch(() => {}); // awaited below
    for (let kill = 1; kill <= 5; kill++) {
      await sleep(500);
      await target.kill();
      await target.start();
      await waitFor(async () => (await sessionOf(mount)).reconnects >= kill, { withinMs: 20_000, what: 'the session' });
    }
    await writing;
    await runChecked('cmp', [reference, imageOf(mount)]);
    await runChecked('cmp', [reference, disk]);
    const { transport, reconnects } = await sessionOf(mount);
    expect(transport).toBe('iwarp');
    expect(reconnects).toBe(5);
  });

  it('logs in with CHAP, both ways, and says when a secret is wrong', async () => {
    const secrets = {
      ISERFS_CHAP_SECRET: SECRET,
      ISERFS_CHAP_MUTUAL_SECRET: 'another secret of the tests',
    };
    const users = ['--chap-user', USER, '--chap-mutual-user', 'disks'];
    const disk = await patternFile('disk');
    await using target = await offer(disk, { args: users, env: { ...process.env, ...secrets } });
    const mountpoint = workdir.folder('mnt');
    const args = ['--portal', target.portal, '--transport', 'iwarp', ...users];
    const wrong = await runCli(['mount', mountpoint, ...args], {
      env: { ...process.env, ...secrets, ISERFS_CHAP_SECRET: 'not the secret at all' },
    });
    expect(wrong.status, describeOutcome(wrong)).toBe(1);
    expect(wrong.stderr).toMatch(/authentication failed/);
    await using mount = await MountProcess.start({ mountpoint, args, env: { ...process.env, ...secrets } });
    await runChecked('cmp', ['-n', String(MiB), imageOf(mount), disk]);
    expect((await sessionOf(mount)).transport).toBe('iwarp');
  });

  it('finds a target that speaks nothing else', async () => {
    const disk = await patternFile('disk');
    await using target = await offer(disk, { iser: 'only' });
    const found = await runCli(['discover', target.portal, '--transport', 'iser']);
    expect(found.stdout, describeOutcome(found)).toBe(`${target.portal},1 ${NAME}\n`);
    const listed = await runCli(['ls', target.portal, '--transport', 'iwarp']);
    expect(listed.stdout, describeOutcome(listed)).toBe(`${NAME} lun0 ready, 32 MiB, 512-byte blocks, read-write\n`);
    await using mount = await mountAt(target, '--transport', 'iser');
    await runChecked('cmp', ['-n', String(MiB), imageOf(mount), disk]);
    expect(await sessionOf(mount)).toMatchObject({ transport: 'iwarp', transportFallback: expect.stringMatching(/^verbs: /) });
  });
});

describe('what is not to be had', () => {
  it('auto takes TCP, with one line in the log that says why, also over reconnects', async ({ skip }) => {
    const disk = workdir.sparseFile('disk', SIZE);
    await using target = await offer(disk);
    await using mount = await mountAt(target);
    const { transport, transportFallback } = await sessionOf(mount);
    skip(transport === 'verbs', 'this machine has an RDMA device that leads to itself');
    expect(transport).toBe('tcp');
    expect(transportFallback).toMatch(/^verbs: /);
    await target.kill();
    await target.start();
    await runChecked('dd', [`if=${imageOf(mount)}`, 'of=/dev/null', 'bs=1M', 'count=1', 'status=none']);
    expect((await sessionOf(mount)).reconnects).toBe(1);
    expect(mount.stderr.match(/by tcp \(verbs: /g)).toHaveLength(1);
  });

  it('iwarp at a port that speaks TCP ends in time, with the reason and what to do', async () => {
    const disk = workdir.sparseFile('disk', SIZE);
    await using target = await TargetProcess.start({ args: ['--name', NAME, '--file', disk] });
    const startedAt = performance.now();
    const outcome = await runCli(['mount', workdir.folder('mnt'), '--portal', target.portal, '--transport', 'iwarp']);
    expect(outcome.status, describeOutcome(outcome)).toBe(1);
    expect(performance.now() - startedAt).toBeLessThan(12_000);
    expect(outcome.stderr).toContain(target.portal);
    expect(outcome.stderr).toMatch(/--iser-port; --transport tcp does without RDMA\.$/m);
  });

  it.each([
    ['on the command line', (args: string[]) => args],
    ['in the configuration file', () => ['--config', workdir.file('c.yaml', 'transport: iwarp\ndata-digest: require\n')]],
  ])('required digests with RDMA are refused at once, %s', async (_where, place) => {
    const args = place(['--transport', 'iwarp', '--data-digest', 'require']);
    const outcome = await runCli(['mount', workdir.folder('mnt'), '--portal', '127.0.0.1:1', ...args]);
    expect(outcome.status, describeOutcome(outcome)).toBe(2);
    expect(outcome.stderr).toMatch(/--data-digest require cannot be had with --transport iwarp\n {2}.*--transport tcp/);
  });

  it('a target refuses a connection that is no iSER, and goes on', async () => {
    const disk = await patternFile('disk');
    await using target = await offer(disk, { iser: 'only' });
    const outcome = await runCli(['discover', target.portal, '--transport', 'tcp']);
    expect(outcome.status, describeOutcome(outcome)).toBe(1);
    const noise = ['-c', `exec 3<>/dev/tcp/127.0.0.1/${target.port}; head -c 100000 /dev/urandom >&3; head -c 1 <&3`];
    await run('bash', noise, { timeoutMs: 10_000 });
    const listed = await runCli(['ls', target.portal, '--transport', 'iwarp']);
    expect(listed.status, describeOutcome(listed)).toBe(0);
  });
});
