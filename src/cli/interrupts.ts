/**
 * SIGINT, SIGTERM and SIGHUP as two abort signals: the first says "stop in good order", any later one
 * "stop now". A process that serves a mount must never die of them with writes unflushed.
 */

import type { EventEmitter } from 'node:events';

export interface Interrupts {
  /** Aborted by the first signal. */
  readonly stop: AbortSignal;
  /** Aborted by the second, unless that is SIGHUP: of a closed terminal the kernel and the shell both tell. */
  readonly force: AbortSignal;
}

/** Listens from now on; the signals do not end the process any more. Call it once. */
export function listenForInterrupts(source: EventEmitter = process): Interrupts {
  const stop = new AbortController();
  const force = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    source.on(name, () => {
      if (!stop.signal.aborted) stop.abort(new Error(name));
      else if (name !== 'SIGHUP') force.abort(new Error(name));
    });
  }
  return { stop: stop.signal, force: force.signal };
}
