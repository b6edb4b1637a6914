/** Waiting for something shared that goes on whether or not this one waiter still cares. */

import { IserfsError } from '../errors.ts';

/** Settles as `wait`, or rejects with `aborted` as soon as `signal` is aborted; `wait` itself is not touched. */
export function unlessAborted<T>(wait: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return wait;
  return new Promise<T>((resolve, reject) => {
    const onAbort = () => reject(abortError(signal));
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    const done = () => signal.removeEventListener('abort', onAbort);
    wait.then(
      (value) => {
        done();
        resolve(value);
      },
      (error: unknown) => {
        done();
        reject(error);
      },
    );
  });
}

/** Throws the reason of a task's abort. */
export function throwIfAborted(task: { readonly isAborted: boolean; readonly signal: AbortSignal }): void {
  if (task.isAborted) task.signal.throwIfAborted();
}

/** What `signal` stands for as one of our errors. */
export function abortError(signal: AbortSignal): IserfsError {
  return new IserfsError('aborted', 'the request was aborted', { cause: signal.reason });
}
