/** Several causes of one failure, each worth its own line: no LUN can be read, for a reason per target. */

import { describeError, type ErrorCode, errorCode, IserfsError } from './errors.ts';
import { printable } from './printable.ts';

/** One line per cause. */
export function linesOf(error: unknown): readonly string[] {
  return error instanceof SeveralErrors ? error.lines : [describeError(error)];
}

export class SeveralErrors extends IserfsError {
  /** One line each, none empty. */
  readonly lines: readonly string[];

  constructor(code: ErrorCode, lines: readonly string[], hint?: string) {
    super(code, lines.join('; '), hint === undefined ? undefined : { hint });
    this.lines = lines;
  }

  /** The one error itself, or all of them together under the first one's code and hint. */
  static from(errors: readonly [unknown, ...unknown[]]): unknown {
    const [first] = errors;
    if (errors.length === 1) return first;
    const lines = [...new Set(errors.map((error) => printable(describeError(error))))];
    return new SeveralErrors(errorCode(first), lines, first instanceof IserfsError ? first.hint : undefined);
  }
}
