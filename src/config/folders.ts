/** Folders of this user, for this user alone. */

import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Makes `path` and what is missing above it. Node's own recursive form never ends where a file system has no
 * such folder and lets nobody make one, as /proc does.
 */
export async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'EEXIST') return;
    if (code !== 'ENOENT' || dirname(path) === path) throw error;
    await makeFolder(dirname(path));
    await mkdir(path, { mode: 0o700 }).catch((second: NodeJS.ErrnoException) => {
      if (second.code !== 'EEXIST') throw second; // made by another process meanwhile
    });
  }
}
