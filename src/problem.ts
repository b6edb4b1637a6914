/** A failure as it is told to people: what is wrong, and what they can do about it. */

import { describeError, type ErrorCode, IserfsError } from './errors.ts';
import { HUNG_UP_HINT } from './iser/login-handler.ts';

/** Plain data, which goes from process to process. */
export interface Problem {
  /** One line. */
  readonly text: string;
  /** The next step, a sentence. */
  readonly hint?: string;
}

export function problemOf(error: unknown): Problem {
  const hint = hintOf(error);
  return { text: describeError(error), ...(hint === undefined ? {} : { hint }) };
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
