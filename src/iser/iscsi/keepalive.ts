/**
 * When an initiator pings its target, and when it gives it up: a NOP-Out after a time of silence, and the
 * peer is dead when nothing at all has come for some time after that (RFC 7143 §11.18). Pure arithmetic;
 * what a NOP-Out is and what becomes of a dead peer is the session's affair.
 */

export class Keepalive {
  readonly #intervalMs: number;
  readonly #timeoutMs: number;
  #lastReceived: number;
  #isAwaited = false;

  /** Times in milliseconds; `now` is when the peer was heard last. */
  constructor(options: { readonly intervalMs: number; readonly timeoutMs: number; readonly now: number }) {
    this.#intervalMs = options.intervalMs;
    this.#timeoutMs = options.timeoutMs;
    this.#lastReceived = options.now;
  }

  /** Any PDU is a sign of life. */
  heard(now: number): void {
    this.#lastReceived = now;
  }

  /** When the next NOP-Out is due; never while one is out. */
  get due(): number {
    return this.#isAwaited ? Number.POSITIVE_INFINITY : this.#lastReceived + this.#intervalMs;
  }

  /** A NOP-Out goes out; returns when its answer is to be there. */
  sent(now: number): number {
    this.#isAwaited = true;
    return now + this.#timeoutMs;
  }

  /** It has been answered, if only by a Reject. */
  answered(): void {
    this.#isAwaited = false;
  }

  /** Until when the peer counts as alive although a NOP-Out is not answered. */
  get aliveUntil(): number {
    return this.#lastReceived + this.#timeoutMs;
  }

  /** The silence after which a peer is dead. */
  get patienceMs(): number {
    return this.#intervalMs + this.#timeoutMs;
  }
}
