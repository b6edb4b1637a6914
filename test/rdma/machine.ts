/** Where the commands of a scenario run: in the guest, or on this machine. A script is bash. */

export interface ScriptOptions {
  /** Exit status 124 after this time. Default 30 000. */
  readonly timeoutMs?: number;
}

export interface ScriptOutcome {
  readonly status: number;
  /** stdout and stderr, as they came. */
  readonly output: string;
}

export interface Machine {
  readonly name: string;
  /** Runs it to its end. What it starts in the background must write elsewhere. */
  run(script: string, options?: ScriptOptions): Promise<ScriptOutcome>;
  /** Its output; throws unless its exit status is 0. */
  checked(script: string, options?: ScriptOptions): Promise<string>;
}
