/**
 * Running other programs from tests: always with a time limit, always with all output kept, and never outliving the test process
 * (the kernel kills a guarded child when the thread that started it ends, even by SIGKILL).
 */

import { type ChildProcessByStdio, spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';

export type PipedChild = ChildProcessByStdio<Writable, Readable, Readable>;

export interface RunOptions {
  /** SIGKILL after this time; the outcome then says `timedOut`. Default 30 000. */
  readonly timeoutMs?: number;
  readonly cwd?: string;
  /** Replaces the environment; add to `process.env` yourself where that is meant. */
  readonly env?: NodeJS.ProcessEnv;
  readonly input?: string | Uint8Array;
  /** SIGKILL when it is aborted; `run` then rejects with its reason. */
  readonly signal?: AbortSignal;
}

export interface RunOutcome {
  /** The exit status, or null when a signal ended it. */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly timedOut: boolean;
  readonly stdout: string;
  readonly stderr: string;
  readonly elapsedMs: number;
}

/** Starts a program that dies with the test process. stdin, stdout and stderr are pipes. */
export function spawnGuarded(
  command: string,
  args: readonly string[],
  options: Pick<RunOptions, 'cwd' | 'env'> = {},
): PipedChild {
  const { cwd, env } = options;
  return spawn('setpriv', ['--pdeathsig', 'KILL', '--', command, ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: withAdministrationPath(env ?? process.env),
    ...(cwd === undefined ? {} : { cwd }),
  });
}

/** Runs a program to its end. Never rejects because of how it ended by itself: look at the outcome, or use `runChecked`. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunOutcome> {
  const { signal: abort } = options;
  abort?.throwIfAborted();
  const startedAt = performance.now();
  const child = spawnGuarded(command, args, options);
  const stdout = collectText(child.stdout);
  const stderr = collectText(child.stderr);
  child.stdin.on('error', () => {}); // it may end before it has read its input
  child.stdin.end(options.input);
  let timedOut = false;
  const kill = () => {
    child.kill('SIGKILL');
    // What the program started may hold the pipes open: the limit holds for those too.
    child.stdout.destroy();
    child.stderr.destroy();
  };
  const timer = setTimeout(() => {
    timedOut = true;
    kill();
  }, options.timeoutMs ?? 30_000);
  abort?.addEventListener('abort', kill, { once: true });
  try {
    const { status, signal } = await ended(child);
    abort?.throwIfAborted();
    return { status, signal, timedOut, stdout: stdout.text, stderr: stderr.text, elapsedMs: performance.now() - startedAt };
  } finally {
    clearTimeout(timer);
    abort?.removeEventListener('abort', kill);
  }
}

/** Runs a program to its end and returns its stdout; throws with its stderr unless it exits with status 0. */
export async function runChecked(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const outcome = await run(command, args, options);
  if (outcome.status !== 0) throw new Error(`${[command, ...args].join(' ')}: ${describeOutcome(outcome)}`);
  return outcome.stdout;
}

/** One or more lines for an error message: how it ended and what it said. */
export function describeOutcome(outcome: RunOutcome): string {
  const { status, signal, timedOut, stdout, stderr, elapsedMs } = outcome;
  const ending = timedOut
    ? `still running after ${Math.round(elapsedMs)} ms`
    : signal === null
      ? `exit status ${status}`
      : signal;
  return [ending, stderr.trim(), stdout.trim()].filter((part) => part !== '').join('\n');
}

/** Resolves when the child is gone and its pipes are closed; rejects when it could not be started. */
export function ended(child: PipedChild): Promise<{ status: number | null; signal: NodeJS.Signals | null }> {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status, signal) => resolve({ status, signal }));
  });
}

/** Gathers a stream as text that can be looked at any time. */
export function collectText(stream: Readable): { readonly text: string } {
  const decoder = new TextDecoder();
  let text = '';
  stream.on('data', (chunk: Uint8Array) => {
    text += decoder.decode(chunk, { stream: true });
  });
  return {
    get text() {
      return text;
    },
  };
}

export interface WaitOptions {
  readonly withinMs: number;
  /** For the error message: what is awaited. */
  readonly what: string;
  readonly everyMs?: number;
}

/** Asks again and again until the answer is not undefined and not false; throws with the last error after the time limit. */
export async function waitFor<T>(ask: () => Promise<T | undefined | false>, options: WaitOptions): Promise<T> {
  const deadline = performance.now() + options.withinMs;
  let lastError: unknown;
  for (;;) {
    try {
      const answer = await ask();
      if (answer !== undefined && answer !== false) return answer;
      lastError = undefined;
    } catch (error) {
      if (error instanceof GiveUp) throw error;
      lastError = error;
    }
    if (performance.now() > deadline) throw new Error(`${options.what}: not within ${options.withinMs} ms`, { cause: lastError });
    await new Promise((resolve) => setTimeout(resolve, options.everyMs ?? 20));
  }
}

/** Thrown by what `waitFor` asks: it will never come true. */
export class GiveUp extends Error {}

/** tgtd, losetup and mkfs live where an ordinary user's PATH does not look. */
function withAdministrationPath(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { ...env, PATH: `${env['PATH'] ?? '/usr/local/bin:/usr/bin:/bin'}:/usr/local/sbin:/usr/sbin:/sbin` };
}
