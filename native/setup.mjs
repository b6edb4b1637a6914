// @ts-check
/**
 * The set-up that `npm run demo` and `npm test` begin with: brings a bare machine (Node and npm, nothing else) to where iserfs
 * runs, and does nothing when all is there. Plain ECMAScript without dependencies, because it runs before there are any.
 *
 *   node native/setup.mjs run|demo|test|rdma   npm dependencies, Debian packages up to that group, the addons, the build
 *   node native/setup.mjs bench                the same for the benchmark: what the tests need and some more
 *   node native/setup.mjs profile              that, and perf
 *   node native/setup.mjs addon                only our own addons, FUSE and RDMA
 *   node native/setup.mjs native-test          only what the tests and fuzzers of the native code need
 *
 * Without its own addons iserfs works over TCP, on fuse-native: for `run` it is said in one line that they cannot be built, and no more.
 *
 * Whatever it starts writes to a log file whose path is printed when something fails; its own lines go to stderr.
 */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compileFuseNative, fuseNativeCompilerNeeds, probeFuseNative } from './setup-fuse-native.mjs';
import { buildOwnAddons, ownAddonsAreCurrent, ownCompilerNeeds, verbsHeaderNeeds } from './setup-own-addons.mjs';
import { installPackages, installsUnasked, missingNeeds } from './setup-packages.mjs';
import { runLogged, SetupError, say } from './setup-report.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const groups = ['run', 'demo', 'test', 'rdma'];
/** Those that a set-up's packages are of. */
const groupsOf = (/** @type {string} */ what) => {
  const bench = ['run', 'demo', 'test', 'bench'];
  if (what === 'bench') return bench;
  return what === 'profile' ? [...bench, 'profile'] : groups.slice(0, groups.indexOf(what) + 1);
};

try {
  main(process.argv[2] ?? 'run');
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  say(error.message);
  process.exitCode = 1;
}

/** @param {string} what */
function main(what) {
  const others = ['bench', 'profile', 'addon', 'native-test'];
  if (![...groups, ...others].includes(what)) {
    throw new SetupError(`unknown set-up "${what}": one of ${[...groups, ...others].join(', ')}`);
  }
  checkPlatform();
  installDependencies();
  if (what === 'native-test') {
    installPackages([...missingNeeds(['native-test']), ...ownCompilerNeeds(), ...verbsHeaderNeeds()]);
    return;
  }
  const missing = missingNeeds(groupsOf(what));
  const isNeeded = what !== 'run';
  const isCurrent = ownAddonsAreCurrent(root);
  if (isNeeded && !isCurrent) missing.push(...ownCompilerNeeds(), ...verbsHeaderNeeds());
  // The tests run on both FUSE hosts.
  if (groups.indexOf(what) >= groups.indexOf('test')) ensureFuseNative(missing);
  else installPackages(missing);
  if (isNeeded) ensureOwnAddons();
  else if (!isCurrent && !tryOwnAddons()) ensureFuseNative([]);
  if (what !== 'addon') build();
}

function checkPlatform() {
  if (process.platform !== 'linux') throw new SetupError('iserfs needs Linux: it mounts with Linux FUSE');
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new SetupError(`Node 20.19 or later is needed, this is ${process.versions.node}: see https://nodejs.org/`);
  }
}

/** Runs `npm ci` when node_modules is not what the lock file says. Install scripts stay off: addons are built below. */
function installDependencies() {
  if (dependenciesMatchLock()) return;
  say('installing the npm dependencies (npm ci)');
  const npm = process.env['npm_execpath'];
  const viaNode = npm !== undefined && basename(npm) === 'npm-cli.js' && existsSync(npm);
  const args = ['ci', '--ignore-scripts', '--include=dev', '--no-audit', '--no-fund'];
  runLogged(viaNode ? process.execPath : 'npm', viaNode ? [npm, ...args] : args, {
    cwd: root,
    hint: 'is the npm registry reachable?',
  });
}

/** npm leaves in node_modules what it installed, in the lock file's own form; optional packages for other platforms are absent. */
function dependenciesMatchLock() {
  const wanted = packagesOf(join(root, 'package-lock.json'));
  const installed = packagesOf(join(root, 'node_modules', '.package-lock.json'));
  if (wanted === undefined) throw new SetupError('package-lock.json is missing or damaged: restore it from git');
  if (installed === undefined) return false;
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === '') continue;
    const present = installed[path];
    if (present === undefined ? !entry.optional : present.integrity !== entry.integrity) return false;
    if (present !== undefined && !existsSync(join(root, path, 'package.json'))) return false;
  }
  return Object.keys(installed).every((path) => path in wanted);
}

/**
 * @param {string} lockFile
 * @returns {Record<string, { integrity?: string; optional?: boolean }> | undefined}
 */
function packagesOf(lockFile) {
  try {
    return JSON.parse(readFileSync(lockFile, 'utf8')).packages;
  } catch {
    return undefined;
  }
}

/**
 * Makes fuse-native load, together with the other things that are missing, so that there is one list and one installation.
 * @param {import('./setup-packages.mjs').Need[]} missing
 */
function ensureFuseNative(missing) {
  let state = probeFuseNative(root);
  const needs = [...missing];
  if (state.type === 'no-libfuse') needs.push(...missingNeeds(['addon']).filter((need) => !needs.includes(need)));
  if (state.type === 'no-binary') needs.push(...fuseNativeCompilerNeeds());
  installPackages(needs);
  if (state.type === 'no-libfuse') state = probeFuseNative(root);
  if (state.type === 'no-binary') {
    say(`compiling fuse-native: it has no prebuilt binary that loads on ${process.arch}`);
    compileFuseNative(root);
    state = probeFuseNative(root);
  }
  if (state.type !== 'loads') throw new SetupError(`fuse-native does not load: ${state.reason}`);
}

/** Compiles our own addons where they are not what the sources say. */
function ensureOwnAddons() {
  if (ownAddonsAreCurrent(root)) return;
  say('compiling the FUSE and RDMA addons (make -C native addon)');
  buildOwnAddons(root);
}

/** The same for those who can do without: with what is there, where nothing can be installed without asking. False where it failed. */
function tryOwnAddons() {
  try {
    if (installsUnasked()) {
      installPackages(ownCompilerNeeds());
      tryVerbsHeaders();
    }
    const missing = ownCompilerNeeds().map(({ packages }) => packages[0]);
    if (missing.length > 0) throw new SetupError(`to build its addons, install ${missing.join(' and ')}`);
    ensureOwnAddons();
    return true;
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    say(`there is TCP only, without RDMA, and the slower FUSE host: ${error.message}`);
    return false;
  }
}

/** Without them there is no verbs, but iwarp. */
function tryVerbsHeaders() {
  try {
    installPackages(verbsHeaderNeeds());
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    say(`there is RDMA in software only, without devices: ${error.message}`);
  }
}

/** Runs tsc when the sources differ from those of the last build, and drops output whose source is gone. */
function build() {
  const dist = join(root, 'dist');
  const stamp = join(dist, '.sources');
  const sources = listFiles(join(root, 'src'));
  const inputs = [...sources, ...['package-lock.json', 'tsconfig.json', 'tsconfig.build.json'].map((name) => join(root, name))];
  const digest = createHash('sha256');
  for (const path of inputs) {
    const { size, mtimeMs } = statSync(path);
    digest.update(`${relative(root, path)} ${size} ${mtimeMs}\n`);
  }
  const wanted = digest.digest('hex');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted && existsSync(join(dist, 'cli.js'))) return;
  say('compiling the sources (npm run build)');
  rmSync(stamp, { force: true });
  const tsc = spawnSync(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
  });
  if (tsc.status !== 0) throw new SetupError('the sources do not compile: see above');
  const stems = new Set(sources.map((path) => relative(join(root, 'src'), path).replace(/(\.d)?\.ts$/, '')));
  for (const path of listFiles(dist)) {
    if (!stems.has(relative(dist, path).replace(/(\.d\.ts|\.js)(\.map)?$/, ''))) rmSync(path);
  }
  if (existsSync(join(dist, 'cli.js'))) chmodSync(join(dist, 'cli.js'), 0o755);
  writeFileSync(stamp, wanted);
}

/**
 * @param {string} folder
 * @returns {string[]} every file in it, sorted
 */
function listFiles(folder) {
  const entries = readdirSync(folder, { withFileTypes: true, recursive: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}
