/**
 * How a command speaks: data to stdout, everything else to stderr; an error is one line with its cause,
 * then what to do next. The only place that turns error codes into exit statuses.
 */

import { describeError, errorCode, UsageError } from '../errors.ts';
import { printable } from '../printable.ts';
import { hintOf, type Problem } from '../problem.ts';
import { SeveralErrors } from '../several-errors.ts';

export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

export interface Output {
  /** One line of data. */
  data(line: string): void;
  /** A JSON document of data. */
  json(value: unknown): void;
  /** One line to the person. */
  say(line: string): void;
  /** What does not stand in the way; `hint`: the next step. */
  warn(line: string, hint?: string): void;
  /** An error, with its hint and, with ISERFS_DEBUG set, its stack. */
  fail(error: unknown): void;
}

export function makeOutput(options: {
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  readonly debug: boolean;
}): Output {
  const { stdout, stderr, debug } = options;
  const sayHint = (hint: string | undefined) => {
    if (hint !== undefined) stderr(`  ${printable(hint)}\n`);
  };
  return {
    data: (line) => stdout(`${line}\n`),
    json: (value) => stdout(`${JSON.stringify(value, null, 2)}\n`),
    say: (line) => stderr(`${line}\n`),
    warn: (line, hint) => {
      stderr(`iserfs: warning: ${line}\n`);
      sayHint(hint);
    },
    fail: (error) => {
      for (const line of error instanceof SeveralErrors ? error.lines : [errorText(error)])
        stderr(`iserfs: ${printable(line)}\n`);
      sayHint(hintOf(error));
      if (debug && error instanceof Error && error.stack !== undefined) stderr(`${error.stack}\n`);
    },
  };
}

/** Warns of each; what many in a row have in common is said once, after the last of them. */
export function warnOf(problems: readonly Problem[], output: Output): void {
  for (const [index, { text, hint }] of problems.entries()) {
    output.warn(printable(text), problems[index + 1]?.hint === hint ? undefined : hint);
  }
}

export function exitStatusOf(error: unknown): number {
  return error instanceof UsageError ? EXIT_USAGE : EXIT_FAILED;
}

/** What `error` says. A fault of ours says that it is one. */
export function errorText(error: unknown): string {
  const text = describeError(error);
  return errorCode(error) === 'internal' && !isSystemError(error) ? `internal error: ${text} (ISERFS_DEBUG=1 shows where)` : text;
}

function isSystemError(error: unknown): boolean {
  return error instanceof Error && 'syscall' in error;
}
