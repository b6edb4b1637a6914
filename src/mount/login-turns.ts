/**
 * Lets so many logins be under way at once, the others in the order in which they came: a thousand at once help
 * nobody, least of all the target. One that takes long, as one does that gets no answer, keeps the others
 * waiting only for a while: then the next one has its turn beside it. Knows nothing of what a login is.
 */

import { type Clock, sleep } from '../clock.ts';

export interface LoginTurnsOptions {
  readonly clock: Clock;
  readonly atOnce?: number;
  /** How long a login may keep others from their turn. */
  readonly patienceMs?: number;
}

/** Enough to hide the round trips of a login, few enough for targets that accept one connection after the other. */
const AT_ONCE = 16;
/** A login that is answered takes milliseconds; this is for the ones that are not. */
const PATIENCE_MS = 1000;

export class LoginTurns {
  readonly #clock: Clock;
  readonly #patienceMs: number;
  #free: number;
  /** Those that wait for their turn, the first one first. */
  readonly #waiting = new Set<() => void>();

  constructor({ clock, atOnce = AT_ONCE, patienceMs = PATIENCE_MS }: LoginTurnsOptions) {
    this.#clock = clock;
    this.#free = atOnce;
    this.#patienceMs = patienceMs;
  }

  /** Calls `login` when it has its turn, and settles as it does. Rejects with the reason of `signal` where that comes first. */
  async take<T>(login: () => Promise<T>, signal: AbortSignal): Promise<T> {
    await this.#turn(signal);
    const done = new AbortController();
    const patience = sleep(this.#clock, this.#patienceMs, done.signal).catch(() => {});
    void patience.then(() => this.#next());
    try {
      return await login();
    } finally {
      done.abort();
    }
  }

  #turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      if (this.#free > 0) {
        this.#free--;
        return resolve();
      }
      const onAbort = () => {
        this.#waiting.delete(start);
        reject(signal.reason);
      };
      const start = () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      this.#waiting.add(start);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** One turn is free: the first that waits has it. */
  #next(): void {
    const [start] = this.#waiting;
    if (start === undefined) this.#free++;
    else {
      this.#waiting.delete(start);
      start();
    }
  }
}
