/**
 * A disk image with a real ext4 file system and a few files in it, made by mkfs.ext4 without root and
 * without mounting anything.
 */

import { execFile } from 'node:child_process';
import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Environment } from '../config/xdg.ts';
import { IserfsError } from '../errors.ts';

const run = promisify(execFile);

const README = `This file is inside an ext4 file system, on a LUN of an iSCSI target.

What you see of it is a file, "image": iserfs logged in to the target and presents its LUN.
Nothing of the kernel's own iSCSI was used.
`;

/** Makes the image at `path`, which must not exist, of `size` bytes. `folder` is for what goes into it. */
export async function makeDemoDisk(path: string, size: number, folder: string, environment: Environment): Promise<void> {
  await mkdir(join(folder, 'docs'), { recursive: true });
  await writeFile(join(folder, 'README.txt'), README);
  await writeFile(join(folder, 'docs', 'hello.txt'), 'Hello from a LUN.\n');
  await writeFile(join(folder, 'numbers.txt'), Array.from({ length: 10_000 }, (_, index) => `${index + 1}\n`).join(''));
  const file = await open(path, 'wx', 0o600);
  await file.truncate(size);
  await file.close();
  const owner = `root_owner=${process.getuid?.() ?? 0}:${process.getgid?.() ?? 0}`;
  try {
    await run('mkfs.ext4', ['-q', '-F', '-L', 'iserfs-demo', '-E', owner, '-d', folder, path], {
      // An ordinary user's PATH has no sbin.
      env: { ...environment, PATH: `${environment['PATH'] ?? '/usr/bin:/bin'}:/usr/sbin:/sbin`, LC_ALL: 'C' },
      timeout: 60_000,
    });
  } catch (error) {
    const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    throw new IserfsError(
      'mount-failed',
      missing ? 'the demo needs mkfs.ext4, which is not installed' : 'mkfs.ext4 could not make the demo disk',
      { cause: error, hint: 'Install the package e2fsprogs.' },
    );
  }
}
