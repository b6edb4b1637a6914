// @ts-check
/**
 * The RDMA addon: compiled from `native/` with make where it is missing or its sources have changed. It loads without any RDMA
 * library, and looks for libibverbs and librdmacm when verbs are asked for; only their headers decide whether it can.
 */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { findHeaders, headersNeed } from './setup-addon.mjs';
import { missingNeeds } from './setup-packages.mjs';
import { runLogged, SetupError } from './setup-report.mjs';

/** Beside the addon: what it was built from, and with. */
const stampName = '.built-from';

/** @param {string} root */
export function rdmaAddonIsCurrent(root) {
  const build = join(root, 'native', 'build');
  try {
    return existsSync(addonIn(build)) && readFileSync(join(build, stampName), 'utf8') === stampOf(root);
  } catch {
    return false;
  }
}

/** @returns {import('./setup-packages.mjs').Need[]} what compiling it needs and is not there */
export function rdmaCompilerNeeds() {
  return [...missingNeeds(['rdma-compiler']), ...headersNeed('the RDMA addon')];
}

/** @returns {import('./setup-packages.mjs').Need[]} what verbs need to be compiled in, and is not there */
export function verbsHeaderNeeds() {
  return missingNeeds(['rdma-headers']);
}

/**
 * Throws `SetupError` where it does not compile or does not load.
 * @param {string} root
 */
export function buildRdmaAddon(root) {
  const build = join(root, 'native', 'build');
  const stamp = join(build, stampName);
  const wanted = stampOf(root);
  mkdirSync(build, { recursive: true });
  // make knows files, not what else an object was compiled with.
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8').split('\n')[1] !== wanted.split('\n')[1]) {
    rmSync(join(build, 'release'), { recursive: true, force: true });
  }
  rmSync(stamp, { force: true });
  const args = ['addon', '-s', '-C', join(root, 'native'), `-j${availableParallelism()}`, 'WERROR=', ...makeVariables(root)];
  runLogged('make', args, { hint: 'the RDMA addon does not compile.' });
  const { status, signal, stderr } = spawnSync(process.execPath, ['-e', `require(${JSON.stringify(addonIn(build))})`], {
    encoding: 'utf8',
  });
  if (status !== 0) {
    const reason = /^Error: .*$/m.exec(stderr)?.[0] ?? signal ?? `exit status ${status}`;
    throw new SetupError(`the RDMA addon was compiled, but does not load: ${reason}`);
  }
  writeFileSync(stamp, wanted);
}

/**
 * The addon under AddressSanitizer and UndefinedBehaviorSanitizer, for the tests: made without tolerance for warnings.
 * @param {string} root
 * @returns {string} its path
 */
export function buildSanitizedAddon(root) {
  const args = ['addon-asan', '-s', '-C', join(root, 'native'), `-j${availableParallelism()}`, ...makeVariables(root)];
  runLogged('make', args, { hint: 'the RDMA addon does not compile with sanitizers.' });
  return join(root, 'native', 'build', 'asan-addon', 'iserfs_rdma.node');
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
 * @returns {string} a digest of the sources; in the second line, with what they are compiled
 */
function stampOf(root) {
  const native = join(root, 'native');
  const digest = createHash('sha256');
  const sources = readdirSync(native, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && isSource(relative(native, join(entry.parentPath, entry.name))))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  for (const path of [...sources, nodeAddonApi(root)]) digest.update(`${relative(root, path)}\n`).update(readFileSync(path));
  const verbs = verbsHeaderNeeds().length === 0 ? 'with verbs' : 'without verbs';
  return `${digest.digest('hex')}\n${process.arch}, ${findHeaders()}, ${verbs}\n`;
}

/** @param {string} path below native/ */
function isSource(path) {
  return path === 'Makefile' || /^(addon|iwarp|provider|verbs)\/.*\.(cc|h)$/.test(path);
}

/** @param {string} build */
function addonIn(build) {
  return join(build, 'iserfs_rdma.node');
}
