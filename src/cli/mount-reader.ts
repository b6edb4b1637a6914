/**
 * Reads the texts of a mount from another process than the one that serves it, by a child with a time
 * limit: a mount whose server hangs must not hang the command that asks about it.
 */

import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { IserfsError } from '../errors.ts';
import { runCommand } from '../fuse/child-command.ts';
import { mountAt, mountOver, readMountTable } from '../fuse/mount-table.ts';
import { MOUNT_TYPE } from '../fuse/mountpoint.ts';

const runFile = promisify(execFile);

const READ_TIMEOUT_MS = 10_000;
/** A status of a hundred thousand LUNs. */
const MOST_TEXT = 64 * 1024 * 1024;

/** What `status.json` of a mount says, as far as it is needed here. */
export interface MountStatus {
  readonly pid: number;
  readonly version: string;
  readonly targets: readonly {
    readonly name: string;
    readonly state: string;
    readonly problem: string | null;
    /** Absent where another version serves the mount. */
    readonly hint?: string | null;
    readonly luns: readonly LunSummary[];
  }[];
}

export interface LunSummary {
  readonly lun: string;
  readonly state: string;
  readonly problem?: string;
  readonly capacity?: number;
  readonly blockLength?: number;
  readonly access?: string;
}

/** Where all mounts of this product in this name space are. */
export async function findMounts(): Promise<string[]> {
  const table = await readMountTable();
  return [...new Set(table.filter((entry) => entry.fileSystemType === MOUNT_TYPE).map((entry) => entry.mountpoint))].sort();
}

/** The mount at `path`: without symbolic links, as the table of mounts has it. Undefined where there is none. */
export async function findMountOf(path: string): Promise<string | undefined> {
  const { mountpoint, isThere } = await findMountOver(path);
  return isThere ? mountpoint : undefined;
}

/** The same for what `iserfs COMMAND` was given. Throws `mount-failed` where there is none, naming the mount that `path` lies in. */
export async function presentMount(path: string, command: string): Promise<string> {
  const { mountpoint, isThere } = await findMountOver(path);
  if (mountpoint !== undefined && isThere) return mountpoint;
  const none = `no mount of iserfs is at ${path}`;
  if (mountpoint === undefined) throw new IserfsError('mount-failed', none, { hint: 'List the mounts with: iserfs ls' });
  throw new IserfsError('mount-failed', `${none}: it lies in the one at ${mountpoint}`, {
    hint: `Name that: iserfs ${command} ${mountpoint}`,
  });
}

/** The mount of this product that `path` is, or lies in. */
async function findMountOver(path: string): Promise<{ readonly mountpoint: string | undefined; readonly isThere: boolean }> {
  const absolute = resolve(path);
  const table = await readMountTable();
  if (mountAt(table, absolute)?.fileSystemType === MOUNT_TYPE) return { mountpoint: absolute, isThere: true };
  const real = await runCommand('realpath', ['-e', '-z', '--', absolute], READ_TIMEOUT_MS);
  const canonical = real.status === 0 ? real.stdout.replace(/\0$/, '') : absolute;
  const over = mountOver(table, canonical);
  if (over?.fileSystemType !== MOUNT_TYPE) return { mountpoint: undefined, isThere: false };
  return { mountpoint: over.mountpoint, isThere: over.mountpoint === canonical };
}

export async function readMountStatus(mountpoint: string, timeoutMs = READ_TIMEOUT_MS): Promise<MountStatus> {
  return JSON.parse(await readMountFile(`${mountpoint}/status.json`, timeoutMs)) as MountStatus;
}

/** The whole text at `path`. Throws `mount-failed` where it cannot be read in time. */
export async function readMountFile(path: string, timeoutMs = READ_TIMEOUT_MS): Promise<string> {
  try {
    const { stdout } = await runFile('cat', ['--', path], {
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
      maxBuffer: MOST_TEXT,
      env: { ...process.env, LC_ALL: 'C' },
    });
    return stdout;
  } catch (error) {
    if (error instanceof Error && 'killed' in error && error.killed === true) {
      throw new IserfsError('mount-failed', `${path} cannot be read: its server does not answer`, {
        hint: 'See its log; "iserfs umount --force" ends it.',
      });
    }
    const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : String(error);
    const hint = said.includes('not connected') ? { hint: 'Its server was killed: "iserfs umount" removes what is left.' } : {};
    throw new IserfsError('mount-failed', `cannot read ${said.replace(/^cat: /, '')}`, hint);
  }
}
