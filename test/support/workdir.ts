/** Temporary folders for tests, gone at the end of the test. */

import { chmodSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mountsBelow } from './mounts.ts';

/**
 * A folder of one's own. Other users may look into it (the tests as an unprivileged user need that).
 *
 *     await using workdir = Workdir.create();
 *     const backing = workdir.sparseFile('disk', 3 * TiB);
 */
export class Workdir implements AsyncDisposable {
  readonly path: string;
  readonly #onExit = () => this.#removeAtExit();

  private constructor(path: string) {
    this.path = path;
    process.once('exit', this.#onExit);
  }

  static create(): Workdir {
    const path = mkdtempSync(join(tmpdir(), 'iserfs-test-'));
    chmodSync(path, 0o755);
    return new Workdir(path);
  }

  /** The path of something in it; creates nothing. */
  join(...names: string[]): string {
    return join(this.path, ...names);
  }

  /** Makes a folder in it: a mount point, a home. */
  folder(name: string): string {
    const path = this.join(name);
    mkdirSync(path, { recursive: true });
    return path;
  }

  file(name: string, content: string | Uint8Array, mode = 0o600): string {
    const path = this.join(name);
    writeFileSync(path, content, { mode });
    return path;
  }

  /** A file that reads as zeros and takes no space. */
  sparseFile(name: string, size: number): string {
    const path = this.file(name, '');
    truncateSync(path, size);
    return path;
  }

  /** Throws instead of deleting anything when something is still mounted in it: the deletion would go into the mount. */
  async [Symbol.asyncDispose](): Promise<void> {
    process.removeListener('exit', this.#onExit);
    const mounts = mountsBelow(this.path);
    if (mounts.length > 0) throw new Error(`still mounted: ${mounts.map(({ mountpoint }) => mountpoint).join(', ')}`);
    await rm(this.path, { recursive: true, force: true });
  }

  #removeAtExit(): void {
    if (mountsBelow(this.path).length === 0) rmSync(this.path, { recursive: true, force: true });
  }
}

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;
