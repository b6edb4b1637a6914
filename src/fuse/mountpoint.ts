/**
 * Everything about the place of a mount: whether one can be made there, what is there already, and how
 * one is ended, without a shell. A mount whose server is dead or stuck can hang whoever looks at it, so
 * this process looks only at the kernel's table of mounts; what needs a look at the directory itself is
 * done by a child with a time limit. Knows no host and no tree.
 */

import { constants } from 'node:fs';
import { access, open, readFile } from 'node:fs/promises';
import { basename, delimiter, dirname, join, resolve } from 'node:path';
import { IserfsError } from '../errors.ts';
import { type CommandResult, runCommand } from './child-command.ts';
import { type MountEntry, mountAt, readMountTable } from './mount-table.ts';

/** File system type of our mounts in the kernel's table. */
export const MOUNT_TYPE = 'fuse.iserfs';

/** A look at a healthy directory takes milliseconds. */
const DEFAULT_TIMEOUT_MS = 5_000;
/** Stale mounts on top of each other that are healed at one place. */
const MAX_STALE_MOUNTS = 8;

const NOT_CONNECTED = 'Transport endpoint is not connected';

export interface PreparedMountpoint {
  /** Absolute, without symbolic links. */
  readonly path: string;
  /** How many mounts of killed processes were removed. */
  readonly staleMountsRemoved: number;
}

/**
 * Makes sure that `mountpoint` is an empty directory with nothing mounted on it; a mount of ours whose
 * process was killed is removed. Throws `busy` where something is mounted or in the directory,
 * `mount-failed` where there is no such directory, `not-permitted` where its owner is another.
 */
export async function prepareMountpoint(
  mountpoint: string,
  { timeoutMs = DEFAULT_TIMEOUT_MS } = {},
): Promise<PreparedMountpoint> {
  const path = await canonicalPath(mountpoint, timeoutMs);
  let staleMountsRemoved = 0;
  for (;;) {
    const mounted = mountAt(await readMountTable(), path);
    if (mounted === undefined) break;
    if (mounted.fileSystemType !== MOUNT_TYPE || staleMountsRemoved === MAX_STALE_MOUNTS) throw occupied(mounted, path);
    if (!(await isStale(path, timeoutMs))) throw occupied(mounted, path);
    await unmountPath(path, { lazy: true, timeoutMs });
    staleMountsRemoved++;
  }
  await checkEmptyDirectory(path, timeoutMs);
  return { path, staleMountsRemoved };
}

/** Where the machine keeps what FUSE needs, and who asks; the defaults are this machine and this process. */
export interface FuseEnvironment {
  readonly device: string;
  readonly configuration: string;
  readonly isRoot: boolean;
  /** Directories, as in PATH. */
  readonly path: string;
}

/**
 * Checks that this process may mount a FUSE file system at all. `helpers` are the set-user-ID programs
 * of which a user who is not root needs one. Throws `mount-failed` or `not-permitted`, with a hint.
 */
export async function checkFuse(
  options: { readonly allowOther: boolean; readonly helpers: readonly string[] },
  environment: Partial<FuseEnvironment> = {},
): Promise<void> {
  const {
    device = '/dev/fuse',
    configuration = '/etc/fuse.conf',
    isRoot = process.geteuid?.() === 0,
    path = process.env['PATH'] ?? '/usr/bin:/bin',
  } = environment;
  await checkDevice(device);
  if (isRoot) return;
  if (!(await isOnPath(options.helpers, path))) {
    throw new IserfsError('mount-failed', `a user who is not root cannot mount without ${options.helpers.join(' or ')}`, {
      hint: 'Install the package fuse3.',
    });
  }
  if (options.allowOther && !(await allowsUserAllowOther(configuration))) {
    throw new IserfsError('not-permitted', `--allow-other needs the line user_allow_other in ${configuration}`, {
      hint: `Add the line as root, or mount without --allow-other.`,
    });
  }
}

/** What to do about a mount that the kernel or fusermount3 refused, saying `reason`; where that is known. */
export function hintOfRefusal(reason: string): { hint?: string } {
  if (/user ?name/.test(reason))
    return { hint: 'fusermount3 mounts for users that /etc/passwd knows: add this one, or mount as root.' };
  if (/not permitted|No such device|\/dev\/fuse/i.test(reason)) {
    return { hint: 'In a container, mounting needs the SYS_ADMIN capability and /dev/fuse.' };
  }
  return {};
}

/**
 * Ends a mount of ours from outside the process that serves it. Resolves when the mount has left the
 * name space. Throws `busy` while a file of it is open (not with `lazy`), `mount-failed` where no mount
 * of ours is there, `not-permitted` where it is another user's.
 */
export async function umount(mountpoint: string, { lazy = false, timeoutMs = 10_000 } = {}): Promise<void> {
  const path = await canonicalPath(mountpoint, timeoutMs);
  const mounted = mountAt(await readMountTable(), path);
  if (mounted === undefined) throw new IserfsError('mount-failed', `nothing is mounted on ${path}`);
  if (mounted.fileSystemType !== MOUNT_TYPE) {
    throw new IserfsError('mount-failed', `the mount on ${path} is not one of iserfs (its type is ${mounted.fileSystemType})`);
  }
  await unmountPath(path, { lazy, timeoutMs });
}

/**
 * Takes the topmost mount on `path` (absolute, no symbolic links) out of the name space; done already
 * if nothing is mounted there. Throws as `umount` does.
 */
export async function unmountPath(
  path: string,
  { lazy, timeoutMs = 10_000 }: { readonly lazy: boolean; readonly timeoutMs?: number },
): Promise<void> {
  if (mountAt(await readMountTable(), path) === undefined) return;
  const failures: string[] = [];
  for (const [program, ...args] of unmountCommands(path, lazy)) {
    let result: CommandResult;
    try {
      result = await runCommand(program, args, timeoutMs);
    } catch {
      failures.push(`${program} is not installed`);
      continue;
    }
    if (result.status === 0) return;
    failures.push(failureOf(program, result));
    if (isBusy(result)) {
      throw new IserfsError('busy', `${path} is in use: a file or a directory of it is open`, {
        hint: 'Close it (a loop device keeps its image open), or unmount with --lazy.',
      });
    }
    if (mountAt(await readMountTable(), path) === undefined) return;
  }
  throw new IserfsError('mount-failed', `cannot unmount ${path}: ${failures.join('; ')}`, {
    hint: 'Install the package fuse3, and unmount as the user who mounted.',
  });
}

/** root needs no helper; for others fusermount checks that the mount is their own. */
function unmountCommands(path: string, lazy: boolean): [string, ...string[]][] {
  const root: [string, ...string[]] = ['umount', '--internal-only', ...(lazy ? ['--lazy'] : []), '--', path];
  const helpers = ['fusermount3', 'fusermount'].map((program): [string, ...string[]] => [
    program,
    '-u',
    ...(lazy ? ['-z'] : []),
    '--',
    path,
  ]);
  return process.geteuid?.() === 0 ? [root, ...helpers] : helpers;
}

/**
 * The path without symbolic links, found by a child. Where the last component is a dead mount, which
 * nobody can look at, its parent is resolved.
 */
async function canonicalPath(mountpoint: string, timeoutMs: number): Promise<string> {
  const absolute = resolve(mountpoint);
  if (mountAt(await readMountTable(), absolute) !== undefined) return absolute;
  const whole = await runCommand('realpath', ['-e', '-z', '--', absolute], timeoutMs);
  if (whole.status === 0) return withoutNul(whole.stdout);
  if (whole.stderr.includes(NOT_CONNECTED)) {
    const parent = await runCommand('realpath', ['-e', '-z', '--', dirname(absolute)], timeoutMs);
    if (parent.status === 0) return join(withoutNul(parent.stdout), basename(absolute));
  }
  throw unusable(absolute, whole);
}

/** Whether nobody serves the mount any more. A server that is alive but slow is not stale. */
async function isStale(path: string, timeoutMs: number): Promise<boolean> {
  // What the kernel keeps of names and attributes outlives the server: of the file system it has to ask.
  const result = await runCommand('stat', ['-f', '-c', '%T', '--', path], timeoutMs);
  return !result.timedOut && result.stderr.includes(NOT_CONNECTED);
}

async function checkEmptyDirectory(path: string, timeoutMs: number): Promise<void> {
  // With `/.` at its end the path of anything but a directory is refused.
  const listing = await runCommand('ls', ['-A', '-U', '--', `${join(path, '/')}.`], timeoutMs);
  if (listing.status !== 0) throw unusable(path, listing);
  if (listing.stdout !== '') {
    throw new IserfsError('busy', `${path} is not empty`, { hint: 'Mount on an empty directory.' });
  }
  if (process.geteuid?.() === 0) return;
  try {
    await access(path, constants.W_OK);
  } catch (cause) {
    throw new IserfsError('not-permitted', `${path} is not writable for this user, so that nothing can be mounted on it`, {
      cause,
      hint: 'Mount on a directory of your own.',
    });
  }
}

async function checkDevice(device: string): Promise<void> {
  try {
    await (await open(device, 'r+')).close();
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
    if (code === 'EACCES' || code === 'EPERM') {
      throw new IserfsError('not-permitted', `${device} may not be opened by this user`, {
        cause,
        hint: 'Mount as root, or let your user open it (mode 0666 is usual); in a container, pass the device in.',
      });
    }
    throw new IserfsError('mount-failed', `there is no usable ${device}`, {
      cause,
      hint: 'Load the kernel module (modprobe fuse); in a container, pass the device in (--device /dev/fuse).',
    });
  }
}

async function isOnPath(programs: readonly string[], path: string): Promise<boolean> {
  for (const directory of path.split(delimiter)) {
    for (const program of programs) {
      try {
        await access(join(directory, program), constants.X_OK);
        return true;
      } catch {
        // Not here; perhaps in the next directory.
      }
    }
  }
  return false;
}

async function allowsUserAllowOther(configuration: string): Promise<boolean> {
  try {
    return /^\s*user_allow_other\s*$/m.test(await readFile(configuration, 'utf8'));
  } catch {
    return false;
  }
}

function occupied(mounted: MountEntry, path: string): IserfsError {
  if (mounted.fileSystemType === MOUNT_TYPE) {
    return new IserfsError('busy', `iserfs is mounted on ${path} already (${mounted.source})`, {
      hint: `End that mount first: iserfs umount ${path}`,
    });
  }
  return new IserfsError('busy', `another file system (${mounted.fileSystemType}) is mounted on ${path}`, {
    hint: 'Mount on a directory inside it, or on another one.',
  });
}

function unusable(path: string, result: CommandResult): IserfsError {
  if (result.timedOut) {
    return new IserfsError('mount-failed', `looking at ${path} takes too long`, {
      hint: 'A file system that it lies on may be hung; mount elsewhere.',
    });
  }
  if (result.stderr.includes('No such file or directory')) {
    return new IserfsError('mount-failed', `${path} does not exist`, { hint: `Make it first: mkdir -p ${path}` });
  }
  if (result.stderr.includes('Not a directory')) return new IserfsError('mount-failed', `${path} is not a directory`);
  if (result.stderr.includes('Permission denied'))
    return new IserfsError('not-permitted', `${path} may not be read by this user`);
  return new IserfsError('mount-failed', `cannot use ${path}: ${result.stderr.trim()}`);
}

function isBusy({ stderr }: CommandResult): boolean {
  return /target is busy|Device or resource busy/.test(stderr);
}

function failureOf(program: string, result: CommandResult): string {
  if (result.timedOut) return `${program} does not end`;
  return result.stderr.trim() || `${program} ended with status ${result.status}`;
}

function withoutNul(text: string): string {
  return text.endsWith('\0') ? text.slice(0, -1) : text;
}
