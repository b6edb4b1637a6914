/**
 * Runs a program by its argument vector, with a time limit: what might hang (a look at a mount whose
 * server is stuck or dead) is done by a child process, never by this one, and no shell sees a path.
 */

import { spawn } from 'node:child_process';
import { stdioWithoutFuse } from './fuse-descriptors.ts';

export interface CommandResult {
  /** Exit status; undefined where a signal or the time limit ended it. */
  readonly status: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  /** The time limit passed: the child was killed, or cannot be and was left behind. */
  readonly timedOut: boolean;
}

/** As much of each stream as is kept. */
const MAX_OUTPUT = 64 * 1024;

/**
 * Runs `program`, found along PATH, in the C locale. Resolves also where it fails or does not end in
 * `timeoutMs`; rejects where it cannot be started.
 */
export function runCommand(program: string, args: readonly string[], timeoutMs: number): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: stdioWithoutFuse(['ignore', 'pipe', 'pipe']),
      env: { ...process.env, LC_ALL: 'C', LANGUAGE: '' },
    });
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const) {
      child[name]?.setEncoding('utf8');
      child[name]?.on('data', (text: string) => {
        output[name] = (output[name] + text).slice(0, MAX_OUTPUT);
      });
    }
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      // A child in an uninterruptible wait outlives the signal: it must not hold this process as well.
      child.stdout?.destroy();
      child.stderr?.destroy();
      child.unref();
      resolve({ status: undefined, ...output, timedOut: true });
    }, timeoutMs);
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once('close', (status) => {
      clearTimeout(timer);
      resolve({ status: status ?? undefined, ...output, timedOut: false });
    });
  });
}
