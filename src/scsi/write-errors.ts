/**
 * Acknowledged writes that are known to have failed since: a deferred error said so, a cache could not be
 * synchronised on our own account, or a lost write could not be written again. Nobody can say whose they
 * were, so whoever has the device open hears of each once; where nobody listens, the next flush fails.
 */

import { errorCode } from '../errors.ts';
import type { WriteErrorListener } from './device-change.ts';

/** Errors that another attempt may overcome. */
const passingErrors: ReadonlySet<string> = new Set([
  'aborted',
  'busy',
  'command-timeout',
  'connection-lost',
  'logical-unit-gone',
  'not-ready',
  'recovery-timeout',
]);

/** Whether another attempt at what writes data to the medium may overcome `error`; if not, the data counts as lost. */
export function mayPass(error: unknown): boolean {
  return passingErrors.has(errorCode(error));
}

export class WriteErrors {
  readonly #listeners = new Set<WriteErrorListener>();
  #count = 0;
  #last: Error | undefined;
  /** The first one that nobody was told of. */
  #untold: Error | undefined;

  /** Grows with each one: a flush during which it grew must not succeed. */
  get count(): number {
    return this.#count;
  }

  get last(): Error | undefined {
    return this.#last;
  }

  subscribe(listener: WriteErrorListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  report(error: Error): void {
    this.#count++;
    this.#last = error;
    if (this.#listeners.size === 0) this.#untold ??= error;
    for (const listener of this.#listeners) listener(error);
  }

  /** Throws what nobody was told of, once. */
  throwUntold(): void {
    const error = this.#untold;
    this.#untold = undefined;
    if (error !== undefined) throw error;
  }

  /** Throws where one was reported since `count` was this. */
  throwSince(count: number): void {
    this.throwUntold();
    if (this.#count !== count && this.#last !== undefined) throw this.#last;
  }
}
