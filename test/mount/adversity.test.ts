/**
 * The mount against the world at its worst: connections that break every few hundred milliseconds, a daemon that stalls, a wire that
 * flips bits, logical units that vanish, come late or are exchanged. Whatever happens, the data is right or the program is told.
 */

import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { IoChild } from '../support/child-io.ts';
import { collectText, run, runChecked, spawnGuarded, waitFor } from '../support/child-process.ts';
import { cliPath, MountProcess, projectRoot, runCli } from '../support/cli-process.ts';
import { MeddlingProxy, type Passing, type Verdict } from '../support/meddling-proxy.ts';
import { freePort } from '../support/ports.ts';
import { RedirectingTarget } from '../support/redirecting-target.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { Tgtd, type TgtdTarget } from '../support/tgtd.ts';
import { MiB, Workdir } from '../support/workdir.ts';

const mirrorWrites = join(projectRoot, 'test', 'support', 'mirror-writes.mjs');
const SIZE = 16 * MiB;

let workdir: Workdir;
let tgtd: Tgtd;
beforeEach(async () => {
  workdir = Workdir.create();
  tgtd = await Tgtd.start();
});
afterEach(async () => {
  await tgtd?.[Symbol.asyncDispose]();
  await workdir?.[Symbol.asyncDispose]();
});

const mountAt = (portal: string, ...options: string[]) =>
  MountProcess.start({ mountpoint: workdir.folder('mnt'), args: ['--portal', portal, ...options] });

const imageOf = (mount: MountProcess, target: string, lun: number) => join(mount.mountpoint, target, `lun${lun}`, 'image');
const backingOf = (target: TgtdTarget, lun: number) => target.luns.find((one) => one.lun === lun)?.path ?? '';
const sessionOf = async (mount: MountProcess, target: string) =>
  JSON.parse(await runChecked('cat', [join(mount.mountpoint, target, 'status.json')]));

/** The errno's name, or `GOOD`. */
const outcomeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'GOOD',
    (error: { readonly code?: string }) => error.code ?? String(error),
  );

/** Random writes, mirrored to a reference, while `disturb` is called again and again; then image and backing file must be the reference. */
async function writeThrough(image: string, backing: string, operations: number, disturb: () => Promise<void>): Promise<void> {
  const reference = join(workdir.path, 'reference');
  copyFileSync(backing, reference);
  let isOver = false;
  const disturbing = (async () => {
    while (!isOver) await disturb();
  })();
  try {
    await runChecked(process.execPath, [mirrorWrites, image, reference, String(operations), '5'], { timeoutMs: 60_000 });
  } finally {
    isOver = true;
    await disturbing;
  }
  await runChecked('cmp', [reference, image]);
  await runChecked('cmp', [reference, backing]);
}

describe('a session that does not last', () => {
  it('loses nothing when its connection is closed every 300 ms', async () => {
    // Without the two seconds that tgtd asks to be left alone after each.
    const target = await tgtd.addTarget({ luns: [{ size: SIZE }], keys: { DefaultTime2Wait: 0 } });
    await using mount = await mountAt(tgtd.portal, '--cache-size', '1M');
    await writeThrough(imageOf(mount, target.name, 1), backingOf(target, 1), 2000, async () => {
      await sleep(300);
      await tgtd.dropConnections(target);
    });
    expect((await sessionOf(mount, target.name)).reconnects).toBeGreaterThan(1);
  });

  it('loses nothing when commands time out and are aborted', async () => {
    const target = await tgtd.addTarget({ luns: [{ size: SIZE, blockLength: 4096 }] });
    await using mount = await mountAt(tgtd.portal, '--command-timeout', '1s');
    await writeThrough(imageOf(mount, target.name, 1), backingOf(target, 1), 300, async () => {
      await sleep(150);
      tgtd.stall();
      await sleep(1500);
      tgtd.resume();
    });
  });

  it('carries digests that find every flipped bit', async () => {
    const name = 'iqn.2026-01.io.iserfs.test:digests';
    const disk = workdir.sparseFile('disk', SIZE);
    const port = await freePort();
    const digests = ['--header-digest', 'require', '--data-digest', 'require'];
    const child = spawnGuarded(process.execPath, [
      ...[cliPath, 'target', '--listen', `127.0.0.1:${port}`, '--name', name, '--file', disk],
      ...digests,
    ]);
    try {
      const said = collectText(child.stderr);
      await waitFor(async () => said.text.includes(`:${port}`), { withinMs: 10_000, what: 'the target' });
      // Discovery has them too where the portal insists.
      expect((await runCli(['discover', `127.0.0.1:${port}`, ...digests])).stdout).toContain(name);
      await using proxy = await MeddlingProxy.start(port);
      await using mount = await mountAt(proxy.portal, '--target', name, ...digests);
      const random = new SeededRandom(9);
      let flips = 0;
      let nextFlip = 0;
      let passed = 0;
      proxy.meddle = ({ data, offset }: Passing): Verdict | undefined => {
        if (offset < 4000) return undefined; // a login has no digests
        passed += data.length;
        if (passed < nextFlip) return undefined;
        nextFlip = passed + random.between(4 * MiB, 16 * MiB);
        flips++;
        const flipped = Buffer.from(data);
        const index = random.below(data.length);
        flipped[index] = (flipped[index] ?? 0) ^ (1 << random.below(8));
        return { data: flipped };
      };
      await writeThrough(imageOf(mount, name, 0), disk, 2000, () => sleep(50));
      expect(flips).toBeGreaterThan(3);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('is told apart from a slow one when its stream stops in the middle of a PDU', async () => {
    const target = await tgtd.addTarget({ luns: [{ size: SIZE }] });
    await using proxy = await MeddlingProxy.start(tgtd.port);
    await using mount = await mountAt(proxy.portal, '--target', target.name, '--command-timeout', '1s');
    const image = imageOf(mount, target.name, 1);
    const data = workdir.file('data', Buffer.alloc(MiB, 'through a stall '));
    for (const direction of ['up', 'down']) {
      let isDue = true;
      proxy.meddle = (passing): Verdict | undefined => {
        if (!isDue || passing.direction !== direction || passing.offset < 4000 || passing.data.length < 2000) return undefined;
        isDue = false;
        return { data: passing.data.subarray(0, 1000), afterwards: 'stall' };
      };
      await runChecked('dd', [`if=${data}`, `of=${image}`, 'bs=1M', 'conv=notrunc,fsync', 'status=none']);
      await runChecked('cmp', ['-n', String(MiB), data, image]);
      expect(isDue).toBe(false);
    }
    await runChecked('cmp', [image, backingOf(target, 1)]);
  });
});

describe('a portal', () => {
  it('that gives an address which cannot be reached is used itself', async () => {
    const target = await tgtd.addTarget({ luns: [{ size: SIZE }] });
    await using proxy = await MeddlingProxy.start(tgtd.port);
    const real = `TargetAddress=${tgtd.portal}`;
    // Port 1 of the same length: nobody listens there.
    const unreachable = real.replace(/\d+$/, (port) => '1'.padStart(port.length, '0'));
    proxy.meddle = ({ data }) => ({ data: Buffer.from(data.toString('latin1').replace(real, unreachable), 'latin1') });
    await using mount = await mountAt(proxy.portal);
    expect((await sessionOf(mount, target.name)).portal).toBe(proxy.portal);
  });

  it.each(['temporarily', 'permanently'] as const)('that says the target has moved %s is believed', async (kind) => {
    const target = await tgtd.addTarget({ luns: [{ size: SIZE }] });
    await using moved = await RedirectingTarget.start(kind, tgtd.portal);
    await using mount = await mountAt(moved.portal, '--target', target.name);
    expect((await sessionOf(mount, target.name)).portal).toBe(tgtd.portal);
    expect(moved.logins).toBe(1);
    await tgtd.dropConnections(target);
    await runChecked('cmp', [imageOf(mount, target.name, 1), backingOf(target, 1)]);
    // What has moved for a while is asked for again where it was.
    expect(moved.logins).toBe(kind === 'temporarily' ? 2 : 1);
  });
});

describe('a logical unit', () => {
  const lettered = (letter: string) => ({ scsi_sn: letter.repeat(8), scsi_id: `ID${letter.repeat(8)}` });

  it('is not written to when another one stands in its place, also within one session', async () => {
    const target = await tgtd.addTarget({ luns: [{ size: SIZE }, { size: SIZE, parameters: lettered('A') }] });
    await using mount = await mountAt(tgtd.portal, '--lun', '2');
    await using io = new IoChild();
    const image = await io.open(imageOf(mount, target.name, 2), 'r+');
    await io.write(image, 0, Buffer.alloc(4096, 'mine '));
    const other = workdir.sparseFile('other', SIZE);
    await io.fsync(image);
    await tgtd.removeLun(target, 2);
    // It is taken; what became of it is told afterwards.
    expect(await outcomeOf(io.write(image, 0, Buffer.alloc(4096, 'lost ')))).toBe('GOOD');
    expect(await outcomeOf(io.fsync(image))).toBe('ENXIO');
    await tgtd.addLun(target, { lun: 2, path: other, parameters: lettered('B') });
    expect(await outcomeOf(io.write(image, 0, Buffer.alloc(4096, 'lost ')))).toBe('ENXIO');
    expect(await outcomeOf(io.fsync(image))).toBe('ENXIO');
    expect((await run('cmp', ['-n', String(SIZE), other, '/dev/zero'])).status).toBe(0);
  });

  it('that comes late after a lost session is waited for', async () => {
    const target = await tgtd.addTarget({ luns: [{ size: SIZE }, { size: SIZE }] });
    await using mount = await mountAt(tgtd.portal);
    await using io = new IoChild();
    const path = backingOf(target, 2);
    const image = await io.open(imageOf(mount, target.name, 2), 'r+');
    await io.write(image, 0, Buffer.alloc(4096, 'early '));
    await tgtd.removeLun(target, 2);
    await tgtd.dropConnections(target);
    const late = outcomeOf(io.write(image, 4096, Buffer.alloc(4096, 'late ')));
    await sleep(1500);
    await tgtd.addLun(target, { lun: 2, path });
    expect(await late).toBe('GOOD');
    expect(await outcomeOf(io.fsync(image))).toBe('GOOD');
    await runChecked('cmp', [imageOf(mount, target.name, 2), path]);
  });
});

describe('an image that is held open while its session is lost', () => {
  it('shows what others have written meanwhile', async () => {
    const target = await tgtd.addTarget({ luns: [{ size: SIZE }] });
    await using mount = await mountAt(tgtd.portal);
    await using io = new IoChild();
    const image = await io.open(imageOf(mount, target.name, 1), 'r');
    expect((await io.read(image, 0, 4096)).equals(Buffer.alloc(4096))).toBe(true);
    await using others = new IoChild();
    const backing = await others.open(backingOf(target, 1), 'r+');
    await others.write(backing, 0, Buffer.alloc(4096, 'others '));
    const before = (await sessionOf(mount, target.name)).reconnects;
    await tgtd.dropConnections(target);
    await waitFor(async () => (await sessionOf(mount, target.name)).reconnects > before, {
      what: 'the next session',
      withinMs: 20_000,
    });
    expect((await io.read(image, 0, 4096)).equals(Buffer.alloc(4096, 'others '))).toBe(true);
  });
});
