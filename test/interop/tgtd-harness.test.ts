/** The harness that other tests stand on, checked with initiators that are not ours: libiscsi's tools and QEMU's iSCSI driver. */

import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { describeOutcome, ended, run, runChecked, spawnGuarded, waitFor } from '../support/child-process.ts';
import { assertSameBytes, offsetPattern, writePatternFile } from '../support/pattern.ts';
import { Tgtd, type TgtdTarget } from '../support/tgtd.ts';
import { MiB, TiB, Workdir } from '../support/workdir.ts';

describe('a private tgtd', () => {
  it('shows its targets and LUNs to a discovery of libiscsi', async () => {
    await using tgtd = await Tgtd.start();
    const first = await tgtd.addTarget({
      luns: [{ size: 512 * MiB }, { size: 3 * TiB }, { size: 64 * MiB, blockLength: 4096, lun: 300 }],
    });
    const second = await tgtd.addTarget({ name: 'iqn.2026-01.io.iserfs.test:other' });
    const listed = await runChecked('iscsi-ls', [`iscsi://${tgtd.portal}`]);
    expect(listed).toContain(`Target:${first.name} Portal:${tgtd.portal},1`);
    expect(listed).toContain(`Target:${second.name} Portal:${tgtd.portal},1`);
    const luns = await runChecked('iscsi-ls', ['-s', `iscsi://${tgtd.portal}`]);
    const listedLuns = [...luns.matchAll(/Lun:(\d+) +Type:DIRECT_ACCESS/g)].map(([, lun]) => Number(lun));
    expect(listedLuns).toEqual([1, 2, 0x4000 + 300]); // libiscsi prints flat space addressing as it stands
  });

  it.each([
    { blockLength: 512, size: 3 * TiB, returnedLba: 3 * 2 ** 31 - 1 },
    { blockLength: 4096, size: 512 * MiB, returnedLba: 2 ** 17 - 1 },
  ] as const)('reports a LUN of $size bytes in blocks of $blockLength', async ({ blockLength, size, returnedLba }) => {
    await using tgtd = await Tgtd.start();
    const target = await tgtd.addTarget({ luns: [{ size, blockLength }] });
    const capacity = await runChecked('iscsi-readcapacity16', [urlOf(tgtd, target, 1)]);
    expect(capacity).toMatch(new RegExp(`RETURNED LOGICAL BLOCK ADDRESS: *${returnedLba}\\b`));
    expect(capacity).toMatch(new RegExp(`LOGICAL BLOCK LENGTH IN BYTES: *${blockLength}\\b`));
  });

  it('passes identity parameters on to INQUIRY', async () => {
    await using tgtd = await Tgtd.start();
    const target = await tgtd.addTarget({ luns: [{ size: MiB, parameters: { vendor_id: 'ACME', scsi_sn: 'serial-42' } }] });
    const url = urlOf(tgtd, target, 1);
    expect(await runChecked('iscsi-inq', [url])).toMatch(/Vendor:ACME/);
    expect(await runChecked('iscsi-inq', ['-e', '1', '-c', '128', url])).toMatch(/serial-42/);
  });

  it('serves the bytes of a backing file to QEMU', async () => {
    await using workdir = Workdir.create();
    await using tgtd = await Tgtd.start();
    const path = workdir.join('backing');
    await writePatternFile(path, 4 * MiB);
    const target = await tgtd.addTarget({ luns: [{ path }] });
    const copy = workdir.join('copy');
    await runChecked('qemu-img', ['convert', '-O', 'raw', '--image-opts', imageOf(tgtd, target, 1), copy]);
    assertSameBytes(await readFile(copy), offsetPattern(0, 4 * MiB));
  });

  it('writes what QEMU writes, and refuses it on a read-only LUN', async () => {
    await using tgtd = await Tgtd.start();
    const target = await tgtd.addTarget({ luns: [{ size: MiB }, { size: MiB, readOnly: true }] });
    await runChecked('qemu-io', ['-c', 'write -P 0xa5 4096 8192', '--image-opts', imageOf(tgtd, target, 1)]);
    const written = await readFile(pathOf(target, 0));
    expect(written.subarray(4096, 12_288).every((byte) => byte === 0xa5)).toBe(true);
    expect(written.subarray(12_288).every((byte) => byte === 0)).toBe(true);
    const refused = await run('qemu-io', ['-c', 'write -P 0xa5 4096 8192', '--image-opts', imageOf(tgtd, target, 2)]);
    expect(refused.status, describeOutcome(refused)).not.toBe(0);
    expect((await readFile(pathOf(target, 1))).every((byte) => byte === 0)).toBe(true);
  });

  it('lets nobody in without the CHAP secret', async () => {
    await using tgtd = await Tgtd.start();
    const chap = { user: 'joe', secret: 'secret-of-joe', mutual: { user: 'disk', secret: 'secret-of-disk' } };
    const target = await tgtd.addTarget({ luns: [{ size: MiB }], chap });
    const plain = await run('iscsi-inq', [urlOf(tgtd, target, 1)]);
    expect(plain.status, describeOutcome(plain)).not.toBe(0);
    const wrong = await run('iscsi-inq', [urlOf(tgtd, target, 1, 'joe%wrong-secret@')]);
    expect(wrong.status, describeOutcome(wrong)).not.toBe(0);
    const right = await run('iscsi-inq', [urlOf(tgtd, target, 1, 'joe%secret-of-joe@')]);
    expect(right.status, describeOutcome(right)).toBe(0);
    const credentials = '?target_user=disk&target_password=secret-of-disk';
    await runChecked('iscsi-inq', [`${urlOf(tgtd, target, 1, 'joe%secret-of-joe@')}${credentials}`]);
  });

  it('knows who is logged in, and can close the connection', async () => {
    await using tgtd = await Tgtd.start();
    const target = await tgtd.addTarget({ luns: [{ size: MiB }] });
    expect(await tgtd.sessions(target)).toEqual([]);
    const initiator = 'iqn.2026-01.io.iserfs.test:initiator';
    const image = `${imageOf(tgtd, target, 1)},file.initiator-name=${initiator}`;
    const interactive = spawnGuarded('qemu-io', ['-r', '--image-opts', image]);
    const [session] = await waitFor(async () => nonEmpty(await tgtd.sessions(target)), { withinMs: 5000, what: 'a session' });
    expect(session).toMatchObject({ initiator, cids: [0] });
    await tgtd.dropConnections(target);
    await waitFor(async () => (await tgtd.sessions(target)).every(({ sid }) => sid !== session?.sid), {
      withinMs: 5000,
      what: 'the end of the session',
    });
    interactive.kill('SIGKILL');
    await ended(interactive);
  });

  it('answers nothing while it is stalled, and goes on afterwards', async () => {
    await using tgtd = await Tgtd.start();
    const target = await tgtd.addTarget({ luns: [{ size: MiB }] });
    tgtd.stall();
    const unanswered = await run('iscsi-inq', [urlOf(tgtd, target, 1)], { timeoutMs: 500 });
    expect(unanswered.timedOut).toBe(true);
    tgtd.resume();
    await runChecked('iscsi-inq', [urlOf(tgtd, target, 1)]);
  });

  it('is gone when killed, and has the same targets and data on the same port when restarted', async () => {
    await using tgtd = await Tgtd.start();
    const chap = { user: 'joe', secret: 'secret-of-joe' };
    const target = await tgtd.addTarget({
      luns: [{ size: MiB }, { size: 2 * MiB, lun: 7 }],
      keys: { MaxRecvDataSegmentLength: 16_384 },
    });
    const locked = await tgtd.addTarget({ luns: [{ size: MiB }], chap });
    await runChecked('qemu-io', ['-c', 'write -P 0x5a 0 4096', '-c', 'flush', '--image-opts', imageOf(tgtd, target, 1)]);
    const before = await runChecked('iscsi-ls', ['-s', `iscsi://joe%secret-of-joe@${tgtd.portal}`]);
    await tgtd.kill();
    const refused = await run('iscsi-ls', [`iscsi://${tgtd.portal}`]);
    expect(refused.status, describeOutcome(refused)).not.toBe(0);
    await tgtd.restart();
    expect(await runChecked('iscsi-ls', ['-s', `iscsi://joe%secret-of-joe@${tgtd.portal}`])).toBe(before);
    expect(before).toContain(locked.name);
    expect((await run('iscsi-inq', [urlOf(tgtd, locked, 1)])).status).not.toBe(0);
    await runChecked('qemu-io', ['-r', '-c', 'read -P 0x5a 0 4096', '--image-opts', imageOf(tgtd, target, 1)]);
  });

  it('runs beside another one', async () => {
    await using one = await Tgtd.start();
    await using other = await Tgtd.start();
    const target = await one.addTarget({ name: 'iqn.2026-01.io.iserfs.test:one', luns: [{ size: MiB }] });
    await other.addTarget({ name: 'iqn.2026-01.io.iserfs.test:two', luns: [{ size: MiB }] });
    const listed = await runChecked('iscsi-ls', [`iscsi://${one.portal}`]);
    expect(listed).toContain(target.name);
    expect(listed).not.toContain(':two');
  });

  it('can lose and gain LUNs while it runs', async () => {
    await using tgtd = await Tgtd.start();
    const target = await tgtd.addTarget({ luns: [{ size: MiB }, { size: MiB }] });
    await tgtd.removeLun(target, 1);
    const added = await tgtd.addLun(target, { size: MiB });
    expect(added.lun).toBe(3);
    const luns = await runChecked('iscsi-ls', ['-s', `iscsi://${tgtd.portal}`]);
    expect([...luns.matchAll(/Lun:(\d+) +Type:DIRECT/g)].map(([, lun]) => Number(lun))).toEqual([2, 3]);
  });
});

function urlOf(tgtd: Tgtd, target: TgtdTarget, lun: number, login = ''): string {
  return `iscsi://${login}${tgtd.portal}/${target.name}/${lun}`;
}

function imageOf(tgtd: Tgtd, target: TgtdTarget, lun: number): string {
  return `driver=raw,file.driver=iscsi,file.transport=tcp,file.portal=${tgtd.portal},file.target=${target.name},file.lun=${lun}`;
}

function nonEmpty<T>(items: T[]): T[] | undefined {
  return items.length === 0 ? undefined : items;
}

function pathOf(target: TgtdTarget, index: number): string {
  const lun = target.luns[index];
  if (lun === undefined) throw new Error(`no LUN at index ${index}`);
  return lun.path;
}
