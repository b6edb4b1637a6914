/** Mounts as the kernel lists them, and the ways to take one away that cannot hang the test process. */

import { readFileSync } from 'node:fs';
import { run } from './child-process.ts';

export interface MountInfo {
  readonly mountpoint: string;
  /** File system type: `fuse.iserfs`, `ext4`. */
  readonly type: string;
  readonly source: string;
  /** Minor device number: for FUSE the name of the connection in /sys/fs/fuse/connections. */
  readonly minor: number;
}

/** The mounts of this process's namespace (proc(5), /proc/pid/mountinfo), in mount order. Touches no mount. */
export function listMounts(): MountInfo[] {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').trimEnd().split('\n');
  return lines.map((line) => {
    const [before = '', after = ''] = line.split(' - ');
    const [, , device = '', , mountpoint = ''] = before.split(' ');
    const [type = '', source = ''] = after.split(' ');
    return { mountpoint: unescapeOctal(mountpoint), type, source: unescapeOctal(source), minor: Number(device.split(':')[1]) };
  });
}

/** The topmost mount exactly at `path`. */
export function findMount(path: string): MountInfo | undefined {
  return listMounts().findLast(({ mountpoint }) => mountpoint === path);
}

/** Those at or below `folder`, innermost first. */
export function mountsBelow(folder: string): MountInfo[] {
  return listMounts()
    .filter(({ mountpoint }) => mountpoint === folder || mountpoint.startsWith(`${folder}/`))
    .reverse();
}

/** Detaches a FUSE mount, at once and even if it is busy or its server is gone. */
export async function detach(mountpoint: string): Promise<void> {
  await run('fusermount3', ['-u', '-z', mountpoint], { timeoutMs: 10_000 });
}

/**
 * Fails every request of a FUSE connection: what frees processes that wait, unkillable, for a server that does not answer. Needs
 * root. The control file system is mounted in a namespace of its own where the machine has none.
 */
export async function abortFuseConnection(mount: MountInfo): Promise<void> {
  const script = 'c=/sys/fs/fuse/connections; [ -d "$c/$1" ] || mount -t fusectl none "$c"; echo 1 >"$c/$1/abort"';
  await run('unshare', ['-m', 'sh', '-c', script, 'abort', String(mount.minor)], { timeoutMs: 10_000 });
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
