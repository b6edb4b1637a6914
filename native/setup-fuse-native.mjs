// @ts-check
/**
 * The portable FUSE host's addon: does fuse-native load here, and if it has no binary for this machine, compile it. It is one C file, so the
 * compiler is called directly: no node-gyp, no make, no Python, and Node's headers come from the Node that runs this, not from
 * the network.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { missingNeeds } from './setup-packages.mjs';
import { runLogged, SetupError } from './setup-report.mjs';

/**
 * Loads the addon in a process of its own: a binary that does not fit may take its process down.
 * @param {string} root
 * @returns {{ type: 'loads' } | { type: 'no-libfuse' | 'no-binary' | 'broken'; reason: string }}
 */
export function probeFuseNative(root) {
  const { status, stderr } = spawnSync(process.execPath, ['-e', "require('fuse-native')"], { cwd: root, encoding: 'utf8' });
  if (status === 0) return { type: 'loads' };
  const reason = /^Error: .*$/m.exec(stderr)?.[0] ?? `exit status ${status}`;
  if (reason.includes('libfuse.so.2')) return { type: 'no-libfuse', reason };
  if (/No native build was found|GLIBC_|wrong ELF class|invalid ELF header/.test(reason)) return { type: 'no-binary', reason };
  return { type: 'broken', reason };
}

/** @returns {import('./setup-packages.mjs').Need[]} what compiling needs and is not there */
export function fuseNativeCompilerNeeds() {
  return [...missingNeeds(['addon', 'compiler']), ...headersNeed('fuse-native')];
}

/**
 * @param {string} what the headers are for
 * @returns {import('./setup-packages.mjs').Need[]} Node's headers where they are not there
 */
export function headersNeed(what) {
  if (findHeaders() !== undefined) return [];
  return [
    {
      group: 'compiler',
      packages: ['libnode-dev'],
      why: `Node's headers, which Debian's nodejs package leaves out, for ${what}`,
      isThere: () => findHeaders() !== undefined,
    },
  ];
}

/**
 * Compiles fuse-native's source to the place where it looks first.
 * @param {string} root
 */
export function compileFuseNative(root) {
  const headers = findHeaders();
  if (headers === undefined) throw new SetupError(`Node's headers (include/node/node_api.h) are not beside ${process.execPath}`);
  const require = createRequire(join(root, 'package.json'));
  const source = dirname(require.resolve('fuse-native/package.json'));
  const macros = dirname(createRequire(join(source, 'package.json')).resolve('napi-macros'));
  const output = join(source, 'build', 'Release');
  mkdirSync(output, { recursive: true });
  const unfinished = join(output, `unfinished.${process.pid}`);
  const defines = ['-DNODE_GYP_MODULE_NAME=fuse', '-D_FILE_OFFSET_BITS=64'];
  const includes = [`-I${headers}`, `-I${macros}`, '-I/usr/include/fuse'];
  const args = [
    '-shared',
    '-fPIC',
    '-O2',
    ...defines,
    ...includes,
    '-o',
    unfinished,
    join(source, 'fuse-native.c'),
    '-lfuse',
    '-lpthread',
  ];
  runLogged('cc', args, { hint: 'the compiler refuses fuse-native.' });
  renameSync(unfinished, join(output, 'fuse.node'));
}

/** @returns {string | undefined} the folder with node_api.h of the Node that runs this */
export function findHeaders() {
  const prefix = dirname(dirname(process.execPath));
  const folders = [join(prefix, 'include', 'node'), '/usr/include/node', '/usr/include/nodejs/src'];
  return folders.find((folder) => existsSync(join(folder, 'node_api.h')));
}
