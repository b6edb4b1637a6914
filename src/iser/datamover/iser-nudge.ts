/**
 * Wakes up a peer that has overlooked our first message: something is sent when no answer comes, again and
 * again with doubled waits, until the first one does. Knows times only; why it is needed is in peer-quirks.ts.
 */

import type { Clock } from '../../clock.ts';

export class IserNudge {
  readonly #clock: Clock;
  readonly #send: () => void;
  readonly #longestWaitMs: number;
  #waitMs: number;
  #state: 'idle' | 'waiting' | 'over' = 'idle';
  #cancel: () => void = () => {};

  constructor(options: { clock: Clock; firstWaitMs: number; longestWaitMs: number; send: () => void }) {
    this.#clock = options.clock;
    this.#send = options.send;
    this.#waitMs = options.firstWaitMs;
    this.#longestWaitMs = options.longestWaitMs;
  }

  /** A message has been sent: the first one starts it. */
  sent(): void {
    if (this.#state !== 'idle') return;
    this.#state = 'waiting';
    this.#schedule();
  }

  /** The peer is awake, or gone. */
  stop(): void {
    this.#state = 'over';
    this.#cancel();
  }

  #schedule(): void {
    this.#cancel = this.#clock.schedule(this.#waitMs, () => {
      this.#waitMs = Math.min(this.#waitMs * 2, this.#longestWaitMs);
      this.#schedule();
      this.#send();
    });
  }
}
