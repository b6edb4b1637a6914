/**
 * `iserfs mount --demo`: a target, a LUN with a file system, and its mount, all in this process and in
 * the foreground; everything is gone again at its end.
 */

import { mkdir, mkdtemp, rm, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mergeOptions, type SomeOptions } from '../../config/options.ts';
import { withMountpoint } from '../../config/settings.ts';
import { formatPortal } from '../../iser/iscsi/name.ts';
import type { ReadyReport } from '../../mount/mount.ts';
import { nativeRdma } from '../../mount/rdma.ts';
import { makeDemoDisk } from '../demo-disk.ts';
import { EmbeddedTarget } from '../embedded-target.ts';
import { serve } from '../serve.ts';
import type { CommandContext } from './context.ts';
import { spoken } from './target.ts';

export interface DemoArguments {
  /** Undefined: one of its own, made and removed. */
  readonly mountpoint: string | undefined;
  readonly options: SomeOptions;
}

const TARGET_NAME = 'iqn.2026-01.org.iserfs:demo';
const INITIATOR_NAME = 'iqn.2026-01.org.iserfs:demo-initiator';
const DISK = 'disk.img';
const FILES = 'files';
const OWN_MOUNTPOINT = 'mnt';
const DISK_SIZE = 64 * 1024 * 1024;
const SCRATCH_SIZE = 3 * 2 ** 40;

export async function runDemo(args: DemoArguments, context: CommandContext): Promise<number> {
  const { output, environment } = context;
  const interrupts = context.interrupts();
  const folder = await mkdtemp(join(tmpdir(), 'iserfs-demo-'));
  let target: EmbeddedTarget | undefined;
  try {
    const disk = join(folder, DISK);
    await makeDemoDisk(disk, DISK_SIZE, join(folder, FILES), environment);
    const mountpoint = args.mountpoint ?? (await makeFolder(join(folder, OWN_MOUNTPOINT)));
    const hasRdma = nativeRdma.isAvailable;
    const transport = args.options.transport ?? (hasRdma ? 'iwarp' : 'tcp');
    target = await EmbeddedTarget.start({
      portals: [
        { endpoint: ANY_PORT, transport: 'tcp' },
        ...(hasRdma && transport !== 'tcp' ? [{ endpoint: ANY_PORT, transport: 'iwarp' as const }] : []),
      ],
      name: TARGET_NAME,
      units: [
        { ...UNIT, backing: { file: disk, createSize: undefined }, lun: 0 },
        { ...UNIT, backing: { memory: SCRATCH_SIZE }, lun: 1, blockLength: 4096 },
      ],
      chap: undefined,
      headerDigest: 'none',
      dataDigest: 'none',
      log: () => {},
    });
    const where = target.portals.map((portal) => `${formatPortal(portal.endpoint)} (${spoken(portal.transport)})`);
    output.say(`A target listens at ${where.join(' and ')}.`);
    if (transport === 'iwarp') output.say('Data travels by RDMA: iSER over iwarp, which is RDMA in software, over a TCP socket.');
    else if (args.options.transport === undefined)
      output.say('Data travels by TCP: the RDMA addon is not there (npm run build:native makes it).');
    const iser = target.portals.find((portal) => portal.transport !== 'tcp');
    const portal = { ...target.endpoint, ...(iser === undefined ? {} : { iserPort: iser.endpoint.port }) };
    return await serve({
      settings: withMountpoint(
        {
          options: mergeOptions(args.options, { transport }),
          discover: [portal],
          targets: [],
          chap: undefined,
          targetChap: {},
          luns: undefined,
          targetLuns: {},
        },
        mountpoint,
      ),
      initiatorName: INITIATOR_NAME,
      environment,
      logPath: undefined,
      interrupts,
      log: output.say,
      ready: (report) => printHints(report, context),
    });
  } finally {
    await target?.close('abrupt');
    await removeAll(folder);
  }
}

const ANY_PORT = { host: '127.0.0.1', port: 0 };
const UNIT = { blockLength: 512, readOnly: false, volatileCache: false, target: undefined };

async function makeFolder(path: string): Promise<string> {
  await mkdir(path);
  return path;
}

/** Never walks through the mount point: should the mount still be there, this process must not look into it. */
async function removeAll(folder: string): Promise<void> {
  await rm(join(folder, DISK), { force: true });
  await rm(join(folder, FILES), { recursive: true, force: true });
  await rmdir(join(folder, OWN_MOUNTPOINT)).catch(() => {}); // not made, or not free
  await rmdir(folder).catch(() => {});
}

/** What a newcomer tries next, ready to be pasted into another terminal. */
function printHints({ mountpoint }: ReadyReport, { output }: CommandContext): void {
  const folder = `${mountpoint}/${TARGET_NAME}`;
  const image = `${folder}/lun0/image`;
  const loopMount =
    process.getuid?.() === 0
      ? `mount -o loop ${image} /mnt && ls -l /mnt && umount /mnt`
      : `cp ${image} /tmp/copy.img && sudo mount -o loop /tmp/copy.img /mnt   # root may not look into your mount`;
  output.say(`Its LUNs are files under ${mountpoint}. In another terminal, try:

  ls -lR ${mountpoint}
  cat ${mountpoint}/status ${folder}/lun0/info
  dd if=${image} of=/dev/null bs=1M status=progress
  /sbin/debugfs -R 'cat /README.txt' ${image}
  ${loopMount}
  dd if=/dev/urandom of=${folder}/lun1/image bs=1M count=64 seek=2M conv=notrunc,fsync   # 2 TiB into a 3 TiB LUN
  cat ${mountpoint}/metrics

Ctrl-C ends the demo and removes everything.`);
}
