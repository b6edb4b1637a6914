/**
 * How a command speaks: data to stdout, everything else to stderr; an error is one line with its cause,
 * then what to do next. The only place that turns error codes into exit statuses.
 */

import { describeError, type ErrorCode, errorCode, IserfsError, UsageError } from '../errors.ts';
import { HUNG_UP_HINT } from '../iser/login-handler.ts';
import { printable } from '../printable.ts';
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
  warn(line: string): void;
  /** An error, with its hint and, with ISERFS_DEBUG set, its stack. */
  fail(error: unknown): void;
}

export function makeOutput(options: {
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  readonly debug: boolean;
}): Output {
  const { stdout, stderr, debug } = options;
  return {
    data: (line) => stdout(`${line}\n`),
    json: (value) => stdout(`${JSON.stringify(value, null, 2)}\n`),
    say: (line) => stderr(`${line}\n`),
    warn: (line) => stderr(`iserfs: warning: ${line}\n`),
    fail: (error) => {
      for (const line of error instanceof SeveralErrors ? error.lines : [errorText(error)])
        stderr(`iserfs: ${printable(line)}\n`);
      const hint = hintOf(error);
      if (hint !== undefined) stderr(`  ${printable(hint)}\n`);
      if (debug && error instanceof Error && error.stack !== undefined) stderr(`${error.stack}\n`);
    },
  };
}

export function exitStatusOf(error: unknown): number {
  return error instanceof UsageError ? EXIT_USAGE : EXIT_FAILED;
}

const hintsByCode: Readonly<Partial<Record<ErrorCode, string>>> = {
  'protocol-error': 'What answered there may not be an iSCSI target: check the host and the port.',
  'connection-lost': HUNG_UP_HINT,
};

/** The next step that `error`, or the error that caused it, names. */
export function hintOf(error: unknown): string | undefined {
  if (error instanceof IserfsError) {
    if (error.hint !== undefined) return error.hint;
    return hintOf(error.cause) ?? hintsByCode[error.code];
  }
  return undefined;
}

/** What `error` says. A fault of ours says that it is one. */
export function errorText(error: unknown): string {
  const text = describeError(error);
  return errorCode(error) === 'internal' && !isSystemError(error) ? `internal error: ${text} (ISERFS_DEBUG=1 shows where)` : text;
}

function isSystemError(error: unknown): boolean {
  return error instanceof Error && 'syscall' in error;
}
