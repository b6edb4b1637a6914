// @ts-check
/**
 * What a test run left behind. A run is told by two marks that everything it starts inherits: the environment variable
 * ISERFS_TEST_RUN, and TMPDIR, a folder made for the run. So nothing of anybody else on the machine is ever counted.
 *
 *   node test/support/leftovers.mjs RUN TMPDIR     one line per leftover; exit status 1 if there are any
 *
 * Plain ECMAScript, because Node 20 runs it without a build.
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';

/**
 * @param {string} run the run's value of ISERFS_TEST_RUN
 * @param {string} folder the run's TMPDIR
 * @returns {string[]} one line each: processes (and with them namespaces), mounts, loop devices, files
 */
export function findLeftovers(run, folder) {
  return [...processesOf(run), ...mountsIn(folder), ...loopDevicesOn(folder), ...filesIn(folder)];
}

/** @param {string} run */
function processesOf(run) {
  const own = ancestorsOf(process.pid);
  const found = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name) && !own.has(Number(name)))) {
    const marked = tryRead(`/proc/${pid}/environ`).split('\0').includes(`ISERFS_TEST_RUN=${run}`);
    if (!marked) continue;
    const command = tryRead(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();
    found.push(`process ${pid}: ${command}${isInOwnNamespace(pid) ? '' : ' (in a mount namespace of its own)'}`);
  }
  return found;
}

/**
 * @param {number} pid
 * @returns {Set<number>}
 */
function ancestorsOf(pid) {
  const found = new Set();
  for (let at = pid; at > 0 && !found.has(at); ) {
    found.add(at);
    at = Number(/^PPid:\s*(\d+)/m.exec(tryRead(`/proc/${at}/status`))?.[1] ?? 0);
  }
  return found;
}

/** @param {string} pid */
function isInOwnNamespace(pid) {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`) === readlinkSync('/proc/self/ns/mnt');
  } catch {
    return true;
  }
}

/** @param {string} folder */
function mountsIn(folder) {
  const mountpoints = tryRead('/proc/self/mountinfo')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '');
  return mountpoints.filter((path) => path.startsWith(`${folder}/`)).map((path) => `mount: ${path}`);
}

/** @param {string} folder */
function loopDevicesOn(folder) {
  const found = [];
  for (const device of readdirSync('/sys/block').filter((name) => name.startsWith('loop'))) {
    const backing = tryRead(`/sys/block/${device}/loop/backing_file`).trim();
    if (backing.startsWith(`${folder}/`)) found.push(`loop device: /dev/${device} on ${backing}`);
  }
  return found;
}

/** @param {string} folder */
function filesIn(folder) {
  return readdirSync(folder).map((name) => `file: ${folder}/${name}`);
}

/** @param {string} path */
function tryRead(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // gone, or not ours
  }
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const [, , run, folder] = argv;
  if (run === undefined || folder === undefined) throw new Error('usage: leftovers.mjs RUN TMPDIR');
  const leftovers = findLeftovers(run, folder);
  for (const line of leftovers) console.error(`left behind: ${line}`);
  process.exitCode = leftovers.length === 0 ? 0 : 1;
}
