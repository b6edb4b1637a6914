/**
 * The kernel's table of mounts, as this process sees it: the one way to ask about a mount that touches
 * no file system and so cannot hang. Knows the format of /proc/self/mountinfo (proc(5)) and nothing of
 * what is mounted.
 */

import { readFile } from 'node:fs/promises';

/** A line of the table. */
export interface MountEntry {
  /** Unique among the mounts that exist; may be used again. */
  readonly id: number;
  /** `major:minor` of what is mounted. */
  readonly device: string;
  readonly mountpoint: string;
  /** Such as `ext4` or `fuse.iserfs`. */
  readonly fileSystemType: string;
  readonly source: string;
}

/** The mounts of this process's name space, in the order in which they were made. */
export async function readMountTable(): Promise<MountEntry[]> {
  return parseMountTable(await readFile('/proc/self/mountinfo', 'utf8'));
}

/** Reads the text of a mountinfo file; lines that it cannot read are left out. */
export function parseMountTable(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    // id parent major:minor root mountpoint options [optional fields] - type source options
    const [before = '', after] = splitOnce(line, ' - ');
    const [id, , device, , mountpoint] = before.split(' ');
    if (after === undefined || id === undefined || device === undefined || mountpoint === undefined) continue;
    const [fileSystemType = '', source = ''] = after.split(' ');
    entries.push({
      id: Number(id),
      device,
      mountpoint: unescapeOctal(mountpoint),
      fileSystemType: unescapeOctal(fileSystemType),
      source: unescapeOctal(source),
    });
  }
  return entries;
}

/** The mount that is seen at `path`, an absolute path without symbolic links: the last one made there. */
export function mountAt(table: readonly MountEntry[], path: string): MountEntry | undefined {
  return table.findLast((entry) => entry.mountpoint === path);
}

/** The deepest mount that `path`, absolute and without symbolic links, is or lies in. */
export function mountOver(table: readonly MountEntry[], path: string): MountEntry | undefined {
  const lengthOf = (entry: MountEntry | undefined) => entry?.mountpoint.length ?? 0;
  return table
    .filter(({ mountpoint }) => path === mountpoint || path.startsWith(mountpoint === '/' ? '/' : `${mountpoint}/`))
    .reduce<MountEntry | undefined>((deepest, entry) => (lengthOf(entry) >= lengthOf(deepest) ? entry : deepest), undefined);
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)];
}

/** Space, tab, newline and backslash are written as `\040` and so on, byte by byte. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
