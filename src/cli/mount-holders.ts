/**
 * Who keeps a mount busy, as far as this user may know: processes with a file or their working directory
 * in it, and loop devices. Reads links in /proc and texts in /sys, so that it never touches the mount.
 */

import { readdir, readFile, readlink } from 'node:fs/promises';

const MOST_NAMED = 5;

/** Such as `cp (process 4711)` and `/dev/loop0`; the first few. */
export async function findHolders(mountpoint: string): Promise<string[]> {
  const holders = [...(await loopDevices(mountpoint)), ...(await processes(mountpoint))];
  return holders.length <= MOST_NAMED ? holders : [...holders.slice(0, MOST_NAMED), `and ${holders.length - MOST_NAMED} more`];
}

async function loopDevices(mountpoint: string): Promise<string[]> {
  const names = await listing('/sys/block');
  const found = await Promise.all(
    names
      .filter((name) => name.startsWith('loop'))
      .map(async (name) => {
        const file = await readFile(`/sys/block/${name}/loop/backing_file`, 'utf8').catch(() => '');
        return isInside(file.trimEnd(), mountpoint) ? [`/dev/${name}`] : [];
      }),
  );
  return found.flat();
}

async function processes(mountpoint: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await listing('/proc')).filter((name) => /^\d+$/.test(name))) {
    if (Number(pid) === process.pid || !(await uses(`/proc/${pid}`, mountpoint))) continue;
    const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '?');
    found.push(`${name.trim()} (process ${pid})`);
  }
  return found;
}

async function uses(folder: string, mountpoint: string): Promise<boolean> {
  const links = [`${folder}/cwd`, `${folder}/root`, ...(await listing(`${folder}/fd`)).map((fd) => `${folder}/fd/${fd}`)];
  const targets = await Promise.all(links.map((link) => readlink(link).catch(() => '')));
  return targets.some((target) => isInside(target, mountpoint));
}

function isInside(path: string, mountpoint: string): boolean {
  return path === mountpoint || path.startsWith(`${mountpoint}/`);
}

/** Processes come and go, and others' are closed to us. */
async function listing(folder: string): Promise<string[]> {
  return await readdir(folder).catch(() => []);
}
