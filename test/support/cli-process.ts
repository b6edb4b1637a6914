/**
 * The built command line (`dist/cli.js`, made by the set-up) as a child process: commands that end, and mounts that stay. The test
 * process itself never touches a mount: what it wants read or written there, it has another process do.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  collectText,
  ended,
  GiveUp,
  type PipedChild,
  type RunOptions,
  type RunOutcome,
  run,
  spawnGuarded,
  waitFor,
} from './child-process.ts';
import { abortFuseConnection, detach, findMount } from './mounts.ts';

export const projectRoot = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const cliPath = join(projectRoot, 'dist', 'cli.js');

/** Runs `iserfs ARGS…` to its end, with a time limit (30 s). For a mount in the background guard the mount point first. */
export function runCli(args: readonly string[], options: RunOptions = {}): Promise<RunOutcome> {
  return run(process.execPath, [cliPath, ...args], options);
}

export interface MountProcessOptions {
  /** An empty folder; `workdir.folder('mnt')`. */
  readonly mountpoint: string;
  /** What follows `iserfs mount MOUNTPOINT --foreground`. */
  readonly args: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  /** Another build's `dist/cli.js`. Default: this project's. */
  readonly cliPath?: string;
  /** For Node itself: `--import`, `--cpu-prof`, … */
  readonly nodeArgs?: readonly string[];
  /** Default 20 000. */
  readonly readyWithinMs?: number;
}

/**
 * A mount served by a foreground `iserfs mount`, ready when `start` resolves: it is in the mount table and its `status` can be
 * read. Leaving the scope unmounts, whatever state it is in; so does the death of the test process.
 *
 *     await using mount = await MountProcess.start({ mountpoint, args: ['--portal', tgtd.portal] });
 *     await runChecked('cmp', [join(mountpoint, target.name, 'lun1', 'image'), lun.path]);
 *     expect((await mount.stop()).status).toBe(0);
 */
export class MountProcess implements AsyncDisposable {
  readonly mountpoint: string;
  readonly #child: PipedChild;
  readonly #guard: AsyncDisposable;
  readonly #stdout: { readonly text: string };
  readonly #stderr: { readonly text: string };
  readonly #ended: Promise<{ status: number | null; signal: NodeJS.Signals | null }>;

  private constructor(options: MountProcessOptions) {
    this.mountpoint = options.mountpoint;
    this.#guard = guardMount(options.mountpoint);
    const program = [...(options.nodeArgs ?? []), options.cliPath ?? cliPath];
    const args = [...program, 'mount', options.mountpoint, '--foreground', ...options.args];
    this.#child = spawnGuarded(process.execPath, args, options.env === undefined ? {} : { env: options.env });
    this.#child.stdin.on('error', () => {});
    this.#stdout = collectText(this.#child.stdout);
    this.#stderr = collectText(this.#child.stderr);
    this.#ended = ended(this.#child);
    this.#ended.catch(() => {}); // whoever awaits it hears of it
  }

  static async start(options: MountProcessOptions): Promise<MountProcess> {
    const mount = new MountProcess(options);
    try {
      await mount.#ready(options.readyWithinMs ?? 20_000);
      return mount;
    } catch (error) {
      await mount[Symbol.asyncDispose]();
      throw error;
    }
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error('the mount process did not start');
    return this.#child.pid;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get stdout(): string {
    return this.#stdout.text;
  }

  get stderr(): string {
    return this.#stderr.text;
  }

  /** Sends a signal and returns at once: SIGKILL leaves a stale mount behind, SIGSTOP one that hangs. */
  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Asks it to end (SIGTERM) and waits; throws when it does not within the time limit. */
  async stop(withinMs = 20_000): Promise<{ status: number | null; signal: NodeJS.Signals | null }> {
    this.signal('SIGTERM');
    return await this.exit(withinMs);
  }

  /** Waits until it has ended by itself. */
  async exit(withinMs = 20_000): Promise<{ status: number | null; signal: NodeJS.Signals | null }> {
    await waitFor(async () => !this.isRunning, { withinMs, what: `the end of iserfs mount\n${this.stderr}` });
    return await this.#ended;
  }

  /** Orderly where that works within 5 s; else the connection is aborted, the process killed and the mount detached. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.isRunning) {
      this.signal('SIGTERM');
      await waitFor(async () => !this.isRunning, { withinMs: 5000, what: 'end' }).catch(() => {});
    }
    if (this.isRunning) {
      const mount = findMount(this.mountpoint);
      if (mount?.type.startsWith('fuse')) await abortFuseConnection(mount);
      this.signal('SIGKILL');
    }
    await this.#guard[Symbol.asyncDispose]();
  }

  async #ready(withinMs: number): Promise<void> {
    await waitFor(
      async () => {
        if (!this.isRunning) {
          const { status, signal } = await this.#ended;
          throw new GiveUp(`iserfs mount ended (${signal ?? `exit status ${status}`}) before it was ready\n${this.stderr}`);
        }
        if (findMount(this.mountpoint) === undefined) return false;
        return (await run('head', ['-c', '1', join(this.mountpoint, 'status')], { timeoutMs: 5000 })).stdout.length === 1;
      },
      { withinMs, everyMs: 50, what: `iserfs mount to be ready\n${this.stderr}` },
    );
  }
}

/**
 * Has `mountpoint` unmounted at the end of the scope, or when the test process dies, killed or not: a small watchdog waits for the
 * end of its standard input.
 *
 *     await using _guard = guardMount(mountpoint);
 *     await runCli(['mount', mountpoint, '--demo']);
 */
export function guardMount(mountpoint: string): AsyncDisposable {
  const script = 'read -r order; while grep -qF " $1 " /proc/self/mountinfo; do fusermount3 -u -z "$1" || exit 1; done';
  const watchdog: ChildProcess = spawn('sh', ['-c', script, 'iserfs-mount-guard', mountpoint], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true, // a terminal's Ctrl-C must not reach it
  });
  const gone = new Promise<void>((resolve) => {
    watchdog.once('close', () => resolve());
    watchdog.once('error', () => resolve());
  });
  return {
    async [Symbol.asyncDispose]() {
      watchdog.stdin?.end();
      await gone;
      if (findMount(mountpoint) !== undefined) await detach(mountpoint);
    },
  };
}
