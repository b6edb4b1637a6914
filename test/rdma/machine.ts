/** Where the commands of a scenario run: in the guest, or on this machine. A script is bash, with the function `pause SECONDS`. */

import { describeOutcome, run } from '../support/child-process.ts';

/** Waits as `sleep` does and starts no program, which takes an emulated processor as long as a short wait lasts. */
// biome-ignore lint/suspicious/noTemplateCurlyInString: it is bash that expands this, not JavaScript
const pause = 'pause() { [ -n "${never-}" ] || exec {never}<> <(:); read -rt "$1" -u "$never" || :; }';

/** What bash is given for `script`. */
export function withPause(script: string): string {
  return `${pause}\n${script}`;
}

export interface ScriptOptions {
  /** Exit status 124 after this time. Default 120 000: under emulation, and on a machine with much else to do, everything takes long. */
  readonly timeoutMs?: number;
}

export interface ScriptOutcome {
  readonly status: number;
  /** What it printed, on stdout and stderr. */
  readonly output: string;
}

export interface Machine {
  /** Runs it to its end. What it starts in the background must write elsewhere. */
  run(script: string, options?: ScriptOptions): Promise<ScriptOutcome>;
  /** Its output; throws unless its exit status is 0. */
  checked(script: string, options?: ScriptOptions): Promise<string>;
}

/** The machine that the tests run on: the initiator that is outside of the guest. */
export const here: Machine = {
  async run(script, { timeoutMs = 120_000 } = {}) {
    const { status, timedOut, stdout, stderr } = await run('bash', ['-c', withPause(script)], { timeoutMs });
    return { status: timedOut ? 124 : (status ?? 128), output: stdout + stderr };
  },
  async checked(script, { timeoutMs = 120_000 } = {}) {
    const outcome = await run('bash', ['-c', withPause(script)], { timeoutMs });
    if (outcome.status !== 0) throw new Error(`${script}: ${describeOutcome(outcome)}`);
    return outcome.stdout;
  },
};
