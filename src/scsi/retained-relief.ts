/**
 * Makes room for retained writes: when their copies take much of it, or somebody waits for some, the device is asked on our
 * own account to synchronise its cache, which makes them superfluous. One attempt at a time. What comes of it when it
 * fails: the writers who wait are told, and whoever wrote what may be lost by that.
 */

import { errorCode } from '../errors.ts';
import type { RetainedWrites } from './retained-writes.ts';
import { mayPass } from './write-errors.ts';

export interface RetainedReliefOptions {
  readonly retained: RetainedWrites;
  readonly flush: () => Promise<void>;
  /** An acknowledged write may not be where it should be. */
  readonly writeFailed: (error: Error) => void;
}

export class RetainedRelief {
  readonly #options: RetainedReliefOptions;
  #isRunning = false;
  #isStopped = false;

  constructor(options: RetainedReliefOptions) {
    this.#options = options;
  }

  /** To be called when copies take much room, and when somebody waits. */
  begin(): void {
    const { retained, flush } = this.#options;
    if (this.#isRunning || retained.isEmpty || this.#isStopped) return;
    this.#isRunning = true;
    const relieved = flush().catch((error: unknown) => this.#failed(error));
    void relieved.then(() => {
      this.#isRunning = false;
      if (retained.hasWaiters) this.begin();
    });
  }

  /** Nothing is begun any more. */
  stop(): void {
    this.#isStopped = true;
  }

  #failed(error: unknown): void {
    const { retained, writeFailed } = this.#options;
    const failure = error instanceof Error ? error : new Error(String(error));
    if (errorCode(error) === 'unsupported') {
      // Every flush fails on this device; no copy will ever be superfluous, and room is needed.
      retained.discardUpTo(retained.sequence);
      return;
    }
    // The device may report such a failure once only, and then claim that all is well.
    if (!mayPass(error)) writeFailed(failure);
    retained.refuseWaiting(failure);
  }
}
