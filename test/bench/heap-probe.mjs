// @ts-check
/**
 * Loaded into a mount's process by `node --expose-gc --import`: at each SIGUSR2 it collects garbage and writes what is left to the file
 * that ISERFS_HEAP_FILE names, as `process.memoryUsage()` has it.
 */

import { renameSync, writeFileSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';

const file = process.env['ISERFS_HEAP_FILE'];

if (isMainThread && file !== undefined) {
  process.on('SIGUSR2', () => {
    globalThis.gc?.();
    writeFileSync(`${file}.new`, JSON.stringify(process.memoryUsage()));
    renameSync(`${file}.new`, file);
  });
}
