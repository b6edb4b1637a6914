/** A foreign program that serves a file by FUSE: ready when started, unmounted and gone at the end of the scope. */

import { collectText, ended, GiveUp, type PipedChild, run, spawnGuarded, waitFor } from '../support/child-process.ts';
import { guardMount } from '../support/cli-process.ts';
import { abortFuseConnection, findMount } from '../support/mounts.ts';

export interface ServedFile {
  readonly mountpoint: string;
  readonly image: string;
}

export class FileServer implements AsyncDisposable {
  readonly #child: PipedChild;
  readonly #mountpoint: string;
  readonly #guard: AsyncDisposable;
  readonly #ended: Promise<unknown>;

  private constructor(command: string, args: readonly string[], mountpoint: string) {
    this.#mountpoint = mountpoint;
    this.#guard = guardMount(mountpoint);
    this.#child = spawnGuarded(command, args);
    this.#ended = ended(this.#child).catch(() => {});
  }

  /** Resolves when the file has a size. */
  static async start(command: string, args: readonly string[], { mountpoint, image }: ServedFile): Promise<FileServer> {
    const server = new FileServer(command, args, mountpoint);
    const stderr = collectText(server.#child.stderr);
    try {
      await waitFor(
        async () => {
          if (!server.#isRunning) throw new GiveUp(`${command} ended before it was ready\n${stderr.text}`);
          if (findMount(mountpoint) === undefined) return false;
          const { stdout } = await run('stat', ['-c', '%s', image], { timeoutMs: 5000 });
          return Number(stdout) > 0;
        },
        { withinMs: 20_000, everyMs: 50, what: `${command}: a file at ${image}` },
      );
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error('the program did not start');
    return this.#child.pid;
  }

  /** Orderly where that works within 5 s; else the connection is aborted, the process killed and the mount detached. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isRunning) {
      this.#child.kill('SIGTERM');
      await waitFor(async () => !this.#isRunning, { withinMs: 5000, what: 'end' }).catch(() => {});
    }
    if (this.#isRunning) {
      const mount = findMount(this.#mountpoint);
      if (mount?.type.startsWith('fuse')) await abortFuseConnection(mount);
      this.#child.kill('SIGKILL');
    }
    await this.#ended;
    await this.#guard[Symbol.asyncDispose]();
  }

  get #isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }
}
