/**
 * File operations on a mount, done by child processes with time limits: the process that serves a mount
 * must never touch it, and a test must end where the mount hangs. `run` starts a program; `IoChild`
 * keeps one process that does single system calls, so that descriptors stay open between them.
 */

import { type ChildProcessWithoutNullStreams, type SpawnOptions, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { stdioWithoutFuse } from '../../src/fuse/fuse-descriptors.ts';

const DEFAULT_TIMEOUT_MS = 20_000;

export interface RunResult {
  readonly status: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface RunOptions {
  readonly timeoutMs?: number;
  readonly input?: Uint8Array | string;
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
}

/** Runs a program in the C locale; resolves with its exit status, rejects when it cannot start or does not end in time. */
export function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { timeoutMs = DEFAULT_TIMEOUT_MS } = options;
  return new Promise((resolve, reject) => {
    const child = spawnApart(program, args, { cwd: options.cwd, env: { ...(options.env ?? process.env), LC_ALL: 'C' } });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout.on('data', (data: Buffer) => stdout.push(data));
    child.stderr.on('data', (data: Buffer) => stderr.push(data));
    const timer = setTimeout(() => {
      abandon(child);
      reject(new Error(`${program} ${args.join(' ')} did not end within ${timeoutMs} ms; ${Buffer.concat(stderr).toString()}`));
    }, timeoutMs);
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once('close', (status) => {
      clearTimeout(timer);
      resolve({ status, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() });
    });
    // A program may end without reading what it is given.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
  });
}

/** As `run`, but rejects where the program fails; resolves with its output. */
export async function runSuccessfully(program: string, args: readonly string[], options: RunOptions = {}): Promise<Buffer> {
  const { status, stdout, stderr } = await run(program, args, options);
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}: ${stderr || stdout.toString()}`);
  return stdout;
}

/** A system call of the child failed; `code` is the errno's name, such as `EROFS`. */
export class ChildIoError extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

export interface ChildAttributes {
  readonly ino: number;
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly blocks: number;
  readonly blksize: number;
}

type Answer = { readonly value: unknown } | { readonly code: string; readonly message: string };

/** A process that does one operation after the other. Failures reject with `ChildIoError`. */
export class IoChild implements AsyncDisposable {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #timeoutMs: number;
  readonly #waiting: { resolve(answer: Answer): void; reject(error: Error): void }[] = [];

  /** `wrapper`: a program and arguments in front of Node, such as setpriv. */
  constructor(options: { readonly timeoutMs?: number; readonly wrapper?: readonly string[] } = {}) {
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const program = fileURLToPath(new URL('child-io-program.mjs', import.meta.url));
    const [command = process.execPath, ...args] = [...(options.wrapper ?? []), process.execPath, program];
    this.#child = spawnApart(command, args);
    this.#child.stderr.resume();
    this.#child.stdin.on('error', () => {});
    createInterface({ input: this.#child.stdout }).on('line', (line) =>
      this.#waiting.shift()?.resolve(JSON.parse(line) as Answer),
    );
    this.#child.once('error', (error) => this.#failAll(error));
    this.#child.once('close', (status) => this.#failAll(new Error(`the child for file operations ended with ${status}`)));
  }

  /** Resolves with a descriptor. `flags` as of `fs.open`, or a number. */
  async open(path: string, flags: string | number): Promise<number> {
    return (await this.#call('open', path, flags)) as number;
  }

  async close(descriptor: number): Promise<void> {
    await this.#call('close', descriptor);
  }

  async read(descriptor: number, offset: number, length: number): Promise<Buffer> {
    return Buffer.from((await this.#call('read', descriptor, offset, length)) as string, 'base64');
  }

  /** Writes until all is taken or a write fails; resolves with the number of bytes taken, rejects where it is none. */
  async write(descriptor: number, offset: number, data: Uint8Array): Promise<number> {
    return (await this.#call('write', descriptor, offset, Buffer.from(data).toString('base64'))) as number;
  }

  async fsync(descriptor: number): Promise<void> {
    await this.#call('fsync', descriptor);
  }

  async stat(path: string): Promise<ChildAttributes> {
    return (await this.#call('stat', path)) as ChildAttributes;
  }

  async fstat(descriptor: number): Promise<ChildAttributes> {
    return (await this.#call('fstat', descriptor)) as ChildAttributes;
  }

  async readdir(path: string): Promise<string[]> {
    return (await this.#call('readdir', path)) as string[];
  }

  async readFile(path: string): Promise<Buffer> {
    return Buffer.from((await this.#call('readFile', path)) as string, 'base64');
  }

  async ftruncate(descriptor: number, size: number): Promise<void> {
    await this.#call('ftruncate', descriptor, size);
  }

  /** Operations on paths that answer nothing: chmod, chown, mkdir, rename, rmdir, symlink, truncate, unlink, utimes. */
  async change(
    operation: 'chmod' | 'chown' | 'mkdir' | 'rename' | 'rmdir' | 'symlink' | 'truncate' | 'unlink' | 'utimes',
    ...args: (string | number)[]
  ): Promise<void> {
    await this.#call(operation, ...args);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.stdin.end();
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        abandon(this.#child);
        resolve();
      }, 2_000);
      this.#child.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  async #call(operation: string, ...args: unknown[]): Promise<unknown> {
    const answered = new Promise<Answer>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`${operation} did not end within ${this.#timeoutMs} ms`));
        abandon(this.#child);
      }, this.#timeoutMs);
      const settle = <T>(end: (value: T) => void) => {
        return (value: T) => {
          clearTimeout(timer);
          end(value);
        };
      };
      this.#waiting.push({ resolve: settle(resolve), reject: settle(reject) });
    });
    this.#child.stdin.write(`${JSON.stringify({ operation, args })}\n`);
    const answer = await answered;
    if ('code' in answer) throw new ChildIoError(answer.code, answer.message);
    return answer.value;
  }

  #failAll(error: Error): void {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}

/**
 * A child that holds none of this process's descriptors of /dev/fuse, and in which nothing is preloaded: it does not load the addons, and
 * starts in a third of the time without what those need under sanitizers.
 */
function spawnApart(program: string, args: readonly string[], options: SpawnOptions = {}): ChildProcessWithoutNullStreams {
  const { LD_PRELOAD: _preloaded, ...env } = options.env ?? process.env;
  // The first three are pipes, so that the streams are there.
  return spawn(program, args, {
    ...options,
    env,
    stdio: stdioWithoutFuse(['pipe', 'pipe', 'pipe']),
  }) as ChildProcessWithoutNullStreams;
}

/** Kills a child, and lets go of one that is in an uninterruptible wait. */
function abandon(child: ChildProcessWithoutNullStreams): void {
  child.kill('SIGKILL');
  child.stdin.destroy();
  child.stdout.destroy();
  child.stderr.destroy();
  child.unref();
}
