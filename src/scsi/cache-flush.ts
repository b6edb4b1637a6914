/**
 * SYNCHRONIZE CACHE for everybody who asks, and what its GOOD proves (I6). One command at a time; who asks
 * while one is under way shares the next one, because the one that is under way may have begun before the
 * asker's last write was acknowledged.
 *
 * GOOD counts only if no cache can have been lost since the command went out. A reset is reported by one
 * unit attention, to whichever command meets it first, and that may be a command beside ours whose status
 * is yet to come. So the commands that are in flight when GOOD comes are awaited: if one of them brings
 * such news, the retained writes are written again and the command is repeated.
 */

import { IserfsError } from '../errors.ts';
import { unlessAborted } from './abort.ts';
import type { Gate } from './gate.ts';
import type { RetainedWrites } from './retained-writes.ts';

export interface CacheFlushOptions {
  readonly retained: RetainedWrites;
  readonly gate: Gate;
  /** Changes whenever what the device had cached may be lost. */
  readonly epoch: () => number;
  /** Issues SYNCHRONIZE CACHE, as often as it takes to have a status; calls `onIssue` right before each time. */
  readonly synchronize: (onIssue: () => void) => Promise<void>;
}

const MOST_REPETITIONS = 16;

export class CacheFlush {
  readonly #options: CacheFlushOptions;
  #running: Promise<void> | undefined;
  /** Begins when `#running` ends. */
  #next: Promise<void> | undefined;

  constructor(options: CacheFlushOptions) {
    this.#options = options;
  }

  /** Resolves when everything acknowledged before this call is on the medium. `signal` ends the wait, not the command. */
  flush(signal?: AbortSignal): Promise<void> {
    return unlessAborted(this.#request(), signal);
  }

  #request(): Promise<void> {
    if (this.#running === undefined) return this.#begin();
    this.#next ??= this.#running
      .catch(() => {
        // Its own askers hear of it.
      })
      .then(() => this.#begin());
    return this.#next;
  }

  #begin(): Promise<void> {
    this.#next = undefined;
    const running = this.#run().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }

  async #run(): Promise<void> {
    const { retained, gate, epoch, synchronize } = this.#options;
    for (let repetition = 0; repetition < MOST_REPETITIONS; repetition++) {
      let covered = 0;
      let issuedIn = -1;
      await synchronize(() => {
        covered = retained.sequence;
        issuedIn = epoch();
      });
      await gate.settled();
      if (epoch() !== issuedIn) continue;
      retained.discardUpTo(covered);
      return;
    }
    throw new IserfsError('not-ready', 'the device was reset again and again while its cache was synchronised');
  }
}
