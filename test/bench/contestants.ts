/**
 * Those that are compared: they show the LUN as a file, or read and write it without one. All are up at the same time, on the same
 * LUN, and idle unless it is their turn.
 */

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MountProcess } from '../support/cli-process.ts';
import { KiB, type Workdir } from '../support/workdir.ts';
import { FileServer } from './file-server.ts';
import type { Build, IserfsVariant } from './options.ts';
import type { ContestantName } from './sample.ts';
import type { BenchTarget } from './targets.ts';
import type { RawAccess, Workload } from './workloads.ts';

/** The programs in C. */
export interface Programs {
  readonly initiator: string;
  readonly memoryFile: string;
}

export type Contestant = FileContestant | RawContestant;

interface Common {
  readonly name: ContestantName;
  takesPartIn(workload: Workload): boolean;
}

/** Serves a file. */
export interface FileContestant extends Common, AsyncDisposable {
  readonly kind: 'file';
  readonly image: string;
  /** Of the process that serves it. */
  readonly pid: number;
}

/** Is itself the client. */
export interface RawContestant extends Common {
  readonly kind: 'raw';
  readonly program: 'initiator' | 'iscsi-perf';
  /** Instead of the workload's. */
  readonly access?: Partial<RawAccess>;
}

const blocker = fileURLToPath(new URL('blocker.mjs', import.meta.url));
/** What `ceiling-deep` has in flight. */
export const deepAccess = { transfer: 512 * KiB, depth: 4 } as const;

export const rawContestants: readonly RawContestant[] = [
  { kind: 'raw', name: 'ceiling', program: 'initiator', takesPartIn: ({ raw }) => raw !== undefined },
  {
    kind: 'raw',
    name: 'ceiling-deep',
    program: 'initiator',
    access: deepAccess,
    takesPartIn: ({ raw }) => raw?.order === 'sequential',
  },
  { kind: 'raw', name: 'iscsi-perf', program: 'iscsi-perf', takesPartIn: ({ raw }) => raw?.direction === 'read' },
];

const variantArgs: Readonly<Record<IserfsVariant, readonly string[]>> = {
  tcp: ['--transport', 'tcp'],
  'tcp-digest': ['--transport', 'tcp', '--data-digest', 'require'],
  iwarp: ['--transport', 'iwarp'],
  'iwarp-no-crc': ['--transport', 'iwarp', '--iwarp-crc', 'off'],
};

/** `nodeArgs`: for Node itself. */
export async function startIserfs(
  build: Build,
  variant: IserfsVariant,
  target: BenchTarget,
  workdir: Workdir,
  nodeArgs: readonly string[] = [],
): Promise<FileContestant> {
  const name = `${build.name}/${variant}`;
  const mountpoint = workdir.folder(name.replaceAll('/', '-'));
  const portal = `${target.portal}${target.iserPort === undefined ? '' : `,iser-port=${target.iserPort}`}`;
  const mount = await MountProcess.start({
    mountpoint,
    args: ['--portal', portal, ...variantArgs[variant], ...build.flags],
    cliPath: build.cliPath,
    nodeArgs: ['--import', blocker, ...nodeArgs],
  });
  return {
    kind: 'file',
    name,
    image: join(mountpoint, target.iqn, `lun${target.lun}`, 'image'),
    pid: mount.pid,
    takesPartIn: (workload) => workload.blocked !== true || variant === 'tcp',
    [Symbol.asyncDispose]: () => mount[Symbol.asyncDispose](),
  };
}

/** QEMU's storage daemon: libiscsi below, FUSE above. */
export async function startQemu(target: BenchTarget, workdir: Workdir): Promise<FileContestant> {
  const image = workdir.file('qemu', '');
  const lun = [
    'driver=iscsi,node-name=lun,transport=tcp,cache.direct=on',
    `portal=${target.portal},target=${target.iqn},lun=${target.lun}`,
    'initiator-name=iqn.2026-01.io.iserfs.bench:qemu',
  ];
  const args = ['--blockdev', lun.join(','), '--export', `type=fuse,id=file,node-name=lun,mountpoint=${image},writable=on`];
  const server = await FileServer.start('qemu-storage-daemon', args, { mountpoint: image, image });
  return {
    kind: 'file',
    name: 'qemu',
    image,
    pid: server.pid,
    takesPartIn: (workload) => workload.blocked !== true,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

/** A file in memory, served by C. */
export async function startFloor(programs: Programs, size: number, workdir: Workdir): Promise<FileContestant> {
  const mountpoint = workdir.folder('floor');
  const image = join(mountpoint, 'image');
  const server = await FileServer.start(programs.memoryFile, [mountpoint, String(size)], { mountpoint, image });
  return {
    kind: 'file',
    name: 'floor',
    image,
    pid: server.pid,
    takesPartIn: ({ hasFloor }) => hasFloor,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}
