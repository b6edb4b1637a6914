/**
 * What this user's running mounts leave in the state folder, one small file each: which process serves
 * a mount, since when, and how it ended. `iserfs umount` waits by it until the last write is at the
 * target, and `iserfs ls` lists by it, both without touching a mount that may hang. A record outlives
 * its process only where that failed or was killed.
 */

import { createHash, randomUUID } from 'node:crypto';
import { open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder } from '../config/folders.ts';
import { type Environment, stateDirectory } from '../config/xdg.ts';

export interface MountRecord {
  readonly mountpoint: string;
  readonly pid: number;
  /** Start time of the process in the kernel's clock ticks: with `pid` it names the process for good. */
  readonly processStart: string;
  readonly log: string | undefined;
  /** Why the server ended badly, in one line. */
  readonly failure?: string;
}

/** Whether the process that wrote `record` still runs. */
export async function isServing(record: MountRecord): Promise<boolean> {
  return (await processStart(record.pid)) === record.processStart;
}

/** Field 22 of /proc/PID/stat; undefined where there is no such process, or only its unreaped remains. */
export async function processStart(pid: number): Promise<string | undefined> {
  const fields = await processFields(pid);
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
}

/** Whether a signal (SIGSTOP, Ctrl-Z) or a debugger holds the process. */
export async function isStopped(pid: number): Promise<boolean> {
  const [state] = await processFields(pid);
  return state === 'T' || state === 't';
}

/** From the third field of /proc/PID/stat on, its state; none where there is no such process. */
async function processFields(pid: number): Promise<readonly string[]> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'latin1');
    // The second field is the program's name in parentheses, which may hold anything.
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return [];
  }
}

export class MountRecords {
  readonly #folder: string;

  constructor(environment: Environment) {
    this.#folder = join(stateDirectory(environment), 'mounts');
  }

  /** Says that this process serves `mountpoint`. */
  async write(record: MountRecord): Promise<void> {
    await makeFolder(this.#folder);
    const path = this.#path(record.mountpoint);
    const draft = `${path}.${randomUUID()}`;
    const text = `${JSON.stringify(record)}\n`;
    try {
      await writeFile(draft, text, { mode: 0o600 });
      await rename(draft, path);
    } catch (error) {
      await rm(draft, { force: true });
      if (!(await overwrite(path, text))) throw error;
    }
  }

  async remove(mountpoint: string): Promise<void> {
    await rm(this.#path(mountpoint), { force: true });
  }

  async read(mountpoint: string): Promise<MountRecord | undefined> {
    return await parseRecord(this.#path(mountpoint));
  }

  async list(): Promise<MountRecord[]> {
    let names: string[];
    try {
      names = await readdir(this.#folder);
    } catch {
      return [];
    }
    const records = await Promise.all(
      names.filter((name) => name.endsWith('.json')).map((name) => parseRecord(join(this.#folder, name))),
    );
    return records
      .filter((record) => record !== undefined)
      .sort((a, b) => (a.mountpoint < b.mountpoint ? -1 : a.mountpoint > b.mountpoint ? 1 : 0));
  }

  #path(mountpoint: string): string {
    return join(this.#folder, `${fileNameFor(mountpoint)}.json`);
  }
}

/** A file name for a mount point: its last part for people, a hash against collisions. */
export function fileNameFor(mountpoint: string): string {
  const last = mountpoint.split('/').filter(Boolean).at(-1) ?? 'root';
  const hash = createHash('sha256').update(mountpoint).digest('hex').slice(0, 12);
  return `${last.replace(/[^A-Za-z0-9._-]/g, '_').slice(0, 40)}-${hash}`;
}

/** On a disk that is full there is still room where the record stands. Whether there was one. */
async function overwrite(path: string, text: string): Promise<boolean> {
  try {
    const file = await open(path, 'r+');
    try {
      await file.writeFile(text);
      await file.truncate(Buffer.byteLength(text));
      return true;
    } finally {
      await file.close();
    }
  } catch {
    return false;
  }
}

async function parseRecord(path: string): Promise<MountRecord | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(path, 'utf8'));
    if (typeof value !== 'object' || value === null) return undefined;
    const record = value as Partial<MountRecord>;
    if (typeof record.mountpoint !== 'string' || typeof record.pid !== 'number' || typeof record.processStart !== 'string') {
      return undefined;
    }
    return record as MountRecord;
  } catch {
    return undefined; // gone meanwhile, or damaged: no record either way
  }
}
