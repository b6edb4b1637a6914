/**
 * The embedded target against initiators that nobody here wrote: libiscsi's tools and its conformance
 * suite, and QEMU's iSCSI driver, over TCP. The target runs in this process, the peers in their own.
 */

import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTcpTransport } from '../../src/iser/datamover/tcp.ts';
import { FileMedium } from '../../src/scsi/file-medium.ts';
import { MemoryMedium } from '../../src/scsi/memory-medium.ts';
import { describeOutcome, run, runChecked } from '../support/child-process.ts';
import { EmbeddedTarget } from '../support/embedded-target.ts';
import { assertSameBytes, offsetPattern } from '../support/pattern.ts';
import { GiB, MiB, TiB, Workdir } from '../support/workdir.ts';

const OPEN = 'iqn.2026-01.org.iserfs:open';
const GUARDED = 'iqn.2026-01.org.iserfs:guarded';
const MUTUAL = 'iqn.2026-01.org.iserfs:mutual';
const USER = 'tester';
const SECRET = 'a secret of tester';
const TARGET_USER = 'disk';
const TARGET_SECRET = 'a secret of the disk';

const bytes = (text: string) => new TextEncoder().encode(text);
const credentials = { user: USER, secret: bytes(SECRET) };

let workdir: Workdir;
let target: EmbeddedTarget;
let filePath: string;

beforeAll(async () => {
  workdir = Workdir.create();
  filePath = workdir.join('file.img');
  const file = await FileMedium.open({ path: filePath, blockLength: 512, createSize: 64 * MiB });
  target = await EmbeddedTarget.start([
    {
      name: OPEN,
      units: [
        { lun: 0, medium: new MemoryMedium(128 * MiB), blockLength: 512, serial: 'memory-512' },
        { lun: 1, medium: new MemoryMedium(3 * TiB), blockLength: 4096, serial: 'memory-4096' },
        { lun: 2, medium: new MemoryMedium(16 * MiB), blockLength: 512, serial: 'read-only', readOnly: true },
        { lun: 3, medium: file, blockLength: 512, serial: 'file' },
      ],
    },
    {
      name: GUARDED,
      units: [{ lun: 0, medium: new MemoryMedium(64 * MiB), blockLength: 512, serial: 'guarded' }],
      chap: { credentials },
    },
    {
      name: MUTUAL,
      units: [{ lun: 0, medium: new MemoryMedium(GiB), blockLength: 512, serial: 'mutual' }],
      chap: { credentials, mutual: { user: TARGET_USER, secret: bytes(TARGET_SECRET) } },
    },
  ]);
});

afterAll(async () => {
  await target[Symbol.asyncDispose]();
  await workdir[Symbol.asyncDispose]();
});

const url = (name: string, lun: number, parameters = '') => `iscsi://${target.portal}/${name}/${lun}${parameters}`;
const chapEnvironment = (extra: Record<string, string> = {}) => ({
  env: { ...process.env, LIBISCSI_CHAP_USERNAME: USER, LIBISCSI_CHAP_PASSWORD: SECRET, ...extra },
});

describe('libiscsi', () => {
  it('discovers the targets at the address that it reached', async () => {
    const listing = await runChecked('iscsi-ls', [`iscsi://${target.portal}/`]);
    for (const name of [OPEN, GUARDED, MUTUAL]) expect(listing).toContain(`Target:${name} Portal:${target.portal},1`);
  });

  it('lists the logical units of all targets, with CHAP for discovery and login', async () => {
    const other = 'iqn.2026-01.org.iserfs:other';
    const unit = (lun: number, size: number) => ({ lun, medium: new MemoryMedium(size), blockLength: 512, serial: `s${lun}` });
    await using protectedTarget = await EmbeddedTarget.start(
      [
        { name: OPEN, units: [unit(0, MiB), unit(7, 2 * MiB)], chap: { credentials } },
        { name: other, units: [unit(1, GiB)], chap: { credentials } },
      ],
      { discoveryChap: { credentials } },
    );
    const listing = await runChecked('iscsi-ls', ['-s', `iscsi://${protectedTarget.portal}/`], chapEnvironment());
    const luns = listing.split('\n').filter((line) => line.startsWith('Lun:'));
    // libiscsi shows the last target first.
    expect(luns.map((line) => Number.parseInt(line.slice(4), 10)).sort()).toEqual([0, 1, 7]);
    const refused = await run('iscsi-ls', [`iscsi://${protectedTarget.portal}/`]);
    expect(refused.status).not.toBe(0);
  });

  it('reads the standard INQUIRY data and the vital product data', async () => {
    const standard = await runChecked('iscsi-inq', [url(OPEN, 0)]);
    expect(standard).toMatch(/Peripheral Device Type:DIRECT_ACCESS/);
    expect(standard).toMatch(/Vendor:ISERFS/);
    expect(await runChecked('iscsi-inq', ['-e', '1', '-c', '128', url(OPEN, 1)])).toContain('memory-4096');
    expect(await runChecked('iscsi-inq', ['-e', '1', '-c', '131', url(OPEN, 1)])).toMatch(/Designator/i);
    expect(await runChecked('iscsi-inq', ['-e', '1', '-c', '176', url(OPEN, 0)])).toMatch(/maximum transfer length/i);
  });

  it.each([
    [0, 128 * MiB, 512],
    [1, 3 * TiB, 4096],
    [3, 64 * MiB, 512],
  ])('reads the capacity of LUN %i', async (lun, size, blockLength) => {
    const capacity = await runChecked('iscsi-readcapacity16', [url(OPEN, lun)]);
    expect(capacity).toContain(`RETURNED LOGICAL BLOCK ADDRESS:${size / blockLength - 1}`);
    expect(capacity).toContain(`LOGICAL BLOCK LENGTH IN BYTES:${blockLength}`);
    expect(capacity).toContain(`Total size:${size}`);
  });

  it('logs in with header digests', async () => {
    expect(await runChecked('iscsi-readcapacity16', [url(OPEN, 0, '?header_digest=crc32c')])).toContain('Total size');
  });

  it('keeps many reads in flight without an error', async () => {
    const outcome = await run('iscsi-perf', ['-t', '3', '-m', '32', '-b', '64', '-r', url(OPEN, 0)]);
    expect(outcome.status, describeOutcome(outcome)).toBe(0);
    expect(outcome.stdout + outcome.stderr).not.toMatch(/failed|error/i);
  });

  it('logs in with CHAP, one-way and mutual', async () => {
    expect(await runChecked('iscsi-readcapacity16', [url(GUARDED, 0)], chapEnvironment())).toContain('Total size');
    const mutual = chapEnvironment({ LIBISCSI_CHAP_TARGET_USERNAME: TARGET_USER, LIBISCSI_CHAP_TARGET_PASSWORD: TARGET_SECRET });
    expect(await runChecked('iscsi-readcapacity16', [url(MUTUAL, 0)], mutual)).toContain('Total size');
  });

  it.each([
    ['no credentials', {}],
    ['a wrong secret', { LIBISCSI_CHAP_USERNAME: USER, LIBISCSI_CHAP_PASSWORD: 'not what it should be' }],
    ['a wrong user', { LIBISCSI_CHAP_USERNAME: 'somebody', LIBISCSI_CHAP_PASSWORD: SECRET }],
  ])('is refused with %s', async (_, env) => {
    const outcome = await run('iscsi-readcapacity16', [url(GUARDED, 0)], { env: { ...process.env, ...env } });
    expect(outcome.status).not.toBe(0);
    expect(outcome.stderr + outcome.stdout).toMatch(/authorization|authentication/i);
  });

  it('notices a target that cannot prove who it is', async () => {
    const wrong = chapEnvironment({
      LIBISCSI_CHAP_TARGET_USERNAME: TARGET_USER,
      LIBISCSI_CHAP_TARGET_PASSWORD: 'another secret',
    });
    const outcome = await run('iscsi-readcapacity16', [url(MUTUAL, 0)], wrong);
    expect(outcome.status).not.toBe(0);
    expect(outcome.stderr + outcome.stdout).toMatch(/CHAP_R/);
  });
});

describe('QEMU', () => {
  const image = (name: string, lun: number) => `iscsi://${target.portal}/${name}/${lun}`;

  it('converts an image in and out again', async () => {
    const source = workdir.join('source.img');
    const data = Buffer.concat([offsetPattern(0, 24 * MiB), new Uint8Array(20 * MiB), randomBytes(20 * MiB)]);
    await writeFile(source, data);
    await runChecked('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', source, image(OPEN, 3)], { timeoutMs: 60_000 });
    assertSameBytes(await readFile(filePath), data);
    const back = workdir.join('back.img');
    await runChecked('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', image(OPEN, 3), back], { timeoutMs: 60_000 });
    assertSameBytes(await readFile(back), data);
    expect(await runChecked('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', source, image(OPEN, 3)])).toMatch(/identical/);
  });

  it.each([
    [0, 1024 * 1024],
    // Of 4096-byte blocks, QEMU cannot read 32 KiB or more that it has not written: it asks for the LBA status of a
    // length that is not a multiple of the block length, and dies of its own assertion.
    [1, 16 * 1024],
  ])('writes, discards, flushes and reads patterns on LUN %i', async (lun, most) => {
    const commands = [
      'write -P 0xa5 1M 3M',
      'write -P 0x5a 4096 4096',
      'write -f -P 0x11 8M 64k',
      'write -z 2M 1M',
      'flush',
      'read -P 0x5a 4096 4096',
      'read -P 0xa5 1M 1M',
      `read -P 0 2M ${most}`,
      'read -P 0xa5 3M 1M',
      'read -P 0x11 8M 64k',
      'aio_write -P 0x77 16M 4M',
      'aio_write -P 0x78 20M 4M',
      'aio_flush',
      'read -P 0x77 16M 4M',
      'read -P 0x78 20M 4M',
      'discard 16M 8M',
      `read -P 0 16M ${most}`,
    ];
    const outcome = await run('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), image(OPEN, lun)]);
    expect(outcome.status, describeOutcome(outcome)).toBe(0);
    expect(outcome.stdout + outcome.stderr).not.toMatch(/failed|error/i);
  });

  it('reaches the end of a LUN beyond 2 TiB', async () => {
    const end = 3 * TiB - 64 * 1024;
    const commands = [`write -P 0x3c ${end} 64k`, `read -P 0x3c ${end} 64k`];
    const outcome = await run('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), image(OPEN, 1)]);
    expect(outcome.status, describeOutcome(outcome)).toBe(0);
    expect(outcome.stdout).not.toMatch(/failed/i);
  });

  it('finds the write protection of a LUN', async () => {
    const outcome = await run('qemu-io', ['-f', 'raw', '-c', 'write 0 4096', image(OPEN, 2)]);
    expect(outcome.status).not.toBe(0);
    expect(outcome.stderr + outcome.stdout).toMatch(/write.?protect|read.?only|Permission denied/i);
    expect(await runChecked('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 0 0 4096', image(OPEN, 2)])).not.toMatch(/failed/i);
  });

  it('logs in with CHAP from a secret object', async () => {
    const secretFile = workdir.file('secret', SECRET);
    const options = (extra: string) =>
      `driver=iscsi,transport=tcp,portal=${target.portal},target=${GUARDED},lun=0,user=${USER}${extra}`;
    const outcome = await run('qemu-io', [
      '--object',
      `secret,id=chap,file=${secretFile}`,
      '--image-opts',
      ...['-c', 'write -P 0x42 0 1M', '-c', 'read -P 0x42 0 1M'],
      options(',password-secret=chap'),
    ]);
    expect(outcome.status, describeOutcome(outcome)).toBe(0);
    expect(outcome.stdout).not.toMatch(/failed/i);
  });

  it('works with header digests required by the target', async () => {
    await using strict = await EmbeddedTarget.start(
      [{ name: OPEN, units: [{ lun: 0, medium: new MemoryMedium(16 * MiB), blockLength: 512, serial: 'strict' }] }],
      { portals: [{ endpoint: { host: '127.0.0.1', port: 0 }, transport: createTcpTransport({ headerDigest: 'require' }) }] },
    );
    const outcome = await run('qemu-io', [
      '--image-opts',
      ...['-c', 'write -P 0x42 0 1M', '-c', 'read -P 0x42 0 1M'],
      `driver=iscsi,transport=tcp,portal=${strict.portal},target=${OPEN},lun=0,header-digest=crc32c`,
    ]);
    expect(outcome.status, describeOutcome(outcome)).toBe(0);
    expect(outcome.stdout).not.toMatch(/failed/i);
  });
});
