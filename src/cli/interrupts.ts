/**
 * SIGINT, SIGTERM and SIGHUP as two abort signals: the first says "stop in good order", any later one
 * "stop now". A process that serves a mount must never die of them with writes unflushed.
 */

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export interface Interrupts {
  /** Aborted by the first signal. */
  readonly stop: AbortSignal;
  /** Aborted by the second. */
  readonly force: AbortSignal;
}

/** Listens from now on; the signals do not end the process any more. Call it once. */
export function listenForInterrupts(): Interrupts {
  const stop = new AbortController();
  const force = new AbortController();
  for (const name of SIGNALS) {
    process.on(name, () => {
      if (stop.signal.aborted) force.abort(new Error(name));
      else stop.abort(new Error(name));
    });
  }
  return { stop: stop.signal, force: force.signal };
}
