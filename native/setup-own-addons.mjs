// @ts-check
/**
 * Our own addons, FUSE and RDMA: compiled from `native/` with make where they are missing or their sources have changed. Neither needs
 * a library: the RDMA addon looks for libibverbs and librdmacm when verbs are asked for; only their headers decide whether it can.
 */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { findHeaders, headersNeed } from './setup-fuse-native.mjs';
import { missingNeeds } from './setup-packages.mjs';
import { runLogged, SetupError } from './setup-report.mjs';

const fileNames = ['iserfs_fuse.node', 'iserfs_rdma.node'];
/** Beside the addons: a digest of what they were built from; and what else they were compiled with, on which make lets the objects depend. */
const stampName = '.built-from';
const circumstancesName = 'compiled-with';

/** @param {string} root */
export function ownAddonsAreCurrent(root) {
  const build = join(root, 'native', 'build');
  try {
    return (
      fileNames.every((name) => existsSync(join(build, name))) && readFileSync(join(build, stampName), 'utf8') === stampOf(root)
    );
  } catch {
    return false;
  }
}

/** @returns {import('./setup-packages.mjs').Need[]} what compiling them needs and is not there */
export function ownCompilerNeeds() {
  return [...missingNeeds(['own-compiler']), ...headersNeed('the FUSE and RDMA addons')];
}

/** @returns {import('./setup-packages.mjs').Need[]} what verbs need to be compiled in, and is not there */
export function verbsHeaderNeeds() {
  return missingNeeds(['rdma-headers']);
}

/**
 * Throws `SetupError` where one does not compile or does not load.
 * @param {string} root
 */
export function buildOwnAddons(root) {
  const build = join(root, 'native', 'build');
  const wanted = stampOf(root);
  runMake(root, 'addon', ['WERROR='], 'the addons do not compile.');
  for (const name of fileNames) {
    const { status, signal, stderr } = spawnSync(process.execPath, ['-e', `require(${JSON.stringify(join(build, name))})`], {
      encoding: 'utf8',
    });
    if (status === 0) continue;
    const reason = /^Error: .*$/m.exec(stderr)?.[0] ?? signal ?? `exit status ${status}`;
    throw new SetupError(`${name} was compiled, but does not load: ${reason}`);
  }
  writeFileSync(join(build, stampName), wanted);
}

/**
 * The addons under AddressSanitizer and UndefinedBehaviorSanitizer, for the tests: made without tolerance for warnings.
 * @param {string} root
 * @returns {string[]} their paths
 */
export function buildSanitizedAddons(root) {
  runMake(root, 'addon-asan', [], 'the addons do not compile with sanitizers.');
  return fileNames.map((name) => join(root, 'native', 'build', 'asan-addon', name));
}

/**
 * One at a time in a folder, whoever else is at it.
 * @param {string} root
 * @param {string} goal
 * @param {readonly string[]} variables
 * @param {string} hint
 */
function runMake(root, goal, variables, hint) {
  const build = join(root, 'native', 'build');
  mkdirSync(build, { recursive: true });
  const circumstances = join(build, circumstancesName);
  const now = circumstancesOf(root);
  if (!existsSync(circumstances) || readFileSync(circumstances, 'utf8') !== now) writeFileSync(circumstances, now);
  const make = ['make', goal, '-s', '-C', join(root, 'native'), `-j${availableParallelism()}`];
  runLogged('flock', [join(build, '.lock'), ...make, ...variables, ...makeVariables(root)], { hint, label: `make ${goal}` });
}

/** @param {string} root */
function makeVariables(root) {
  const headers = findHeaders();
  if (headers === undefined) throw new SetupError(`Node's headers (include/node/node_api.h) are not beside ${process.execPath}`);
  return [`NODE_HEADERS=${headers}`, `NODE_ADDON_API=${dirname(nodeAddonApi(root))}`];
}

/** @param {string} root */
function nodeAddonApi(root) {
  return createRequire(join(root, 'package.json')).resolve('node-addon-api/package.json');
}

/**
 * @param {string} root
 * @returns {string} a digest of the sources, and of what they are compiled with
 */
function stampOf(root) {
  const native = join(root, 'native');
  const digest = createHash('sha256');
  const sources = readdirSync(native, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && isSource(relative(native, join(entry.parentPath, entry.name))))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  for (const path of [...sources, nodeAddonApi(root)]) digest.update(`${relative(root, path)}\n`).update(readFileSync(path));
  return digest.update(circumstancesOf(root)).digest('hex');
}

/**
 * @param {string} root
 * @returns {string} what make does not know of
 */
function circumstancesOf(root) {
  const { version } = JSON.parse(readFileSync(nodeAddonApi(root), 'utf8'));
  const verbs = verbsHeaderNeeds().length === 0 ? 'with' : 'without';
  return `${process.arch}, Node's headers in ${findHeaders()}, node-addon-api ${version}, ${verbs} verbs\n`;
}

/** @param {string} path below native/ */
function isSource(path) {
  return path === 'Makefile' || /^(addon|fuse|fuse-addon|iwarp|node-api|provider|verbs)\/.*\.(cc|h)$/.test(path);
}
