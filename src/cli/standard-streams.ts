/**
 * stdout and stderr, which may go away under a process that has work to finish: a pipe whose reader ends, a
 * terminal that is closed, a disk that is full. None of that is a reason to leave a mount behind.
 */

import { closeSync } from 'node:fs';
import { isatty } from 'node:tty';

export class StandardStream {
  readonly #stream: NodeJS.WritableStream;
  #failure: Error | undefined;

  constructor(stream: NodeJS.WritableStream) {
    this.#stream = stream;
    // Node's own streams can be written to after an error: a disk may have room again.
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE' && error.code !== 'EIO') this.#failure = error; // a reader that has seen enough (`iserfs ls | head -1`), a terminal that is gone
    });
  }

  /** Why something that was written did not arrive at a reader that is still there. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  write(text: string): void {
    this.#stream.write(text);
  }

  /** Resolves when everything written has arrived or failed. */
  async flushed(): Promise<void> {
    await new Promise<void>((resolve) => this.#stream.write('', () => resolve()));
    // The callback comes before the event that says how it went.
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

/** Node aborts at its exit where it cannot reset a terminal that it was started on: one that is gone by then is closed before. */
export function surviveClosedTerminals(): void {
  const terminals = [0, 1, 2].filter((descriptor) => isatty(descriptor));
  process.on('exit', () => {
    for (const descriptor of terminals) if (!isatty(descriptor)) closeSync(descriptor);
  });
}
