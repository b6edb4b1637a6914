// @ts-check
/**
 * Runs the tests of the addons, this folder's and those of the FUSE host by a mount, under AddressSanitizer and
 * UndefinedBehaviorSanitizer: `npm run test:asan`; with arguments, vitest gets those in place of the files. In a copy of the project,
 * whose addons are the ones with sanitizers; Node itself has none, so their library is preloaded. Leaks are left to the tests: Node
 * does not free everything when it ends.
 */

import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSanitizedAddons } from '../../native/setup-own-addons.mjs';

const files = ['test/native/', 'test/mount/native-host.test.ts'];
const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const folder = mkdtempSync(join(tmpdir(), 'iserfs-sanitized-'));
try {
  const addons = buildSanitizedAddons(root);
  for (const name of ['src', 'test', 'dist', 'package.json', 'tsconfig.json', 'vitest.config.ts']) {
    cpSync(join(root, name), join(folder, name), { recursive: true });
  }
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  mkdirSync(join(folder, 'native', 'build'), { recursive: true });
  for (const addon of addons) cpSync(addon, join(folder, 'native', 'build', basename(addon)));
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');
  const wanted = process.argv.length > 2 ? process.argv.slice(2) : files;
  const args = [vitest, 'run', '--project', 'native', '--project', 'mount', '--testTimeout', '60000', ...wanted];
  const { status } = spawnSync(process.execPath, args, { cwd: folder, env: sanitizedEnvironment(), stdio: 'inherit' });
  process.exitCode = status ?? 1;
} finally {
  rmSync(folder, { recursive: true });
}

function sanitizedEnvironment() {
  const { stdout } = spawnSync('g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' });
  return {
    ...process.env,
    LD_PRELOAD: stdout.trim(),
    // What is freed is kept for a while, to find its use; not for so long that it looks like a leak.
    ASAN_OPTIONS: 'detect_leaks=0:quarantine_size_mb=4:abort_on_error=1:disable_coredump=1',
    UBSAN_OPTIONS: 'print_stacktrace=1',
  };
}
