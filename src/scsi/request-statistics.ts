/** Counts and times the requests to one logical unit, for people and programs that watch it. */

import type { Clock } from '../clock.ts';
import { describeError, errorCode } from '../errors.ts';
import { LatencyHistogram, type LatencySummary } from './latency-histogram.ts';

export type RequestKind = 'read' | 'write' | 'flush';

export interface RequestCounts {
  readonly reads: number;
  readonly writes: number;
  readonly flushes: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /** Requests that failed. */
  readonly errors: number;
  readonly lastError: string | undefined;
  /** Of whole requests, from call to result. */
  readonly latency: { readonly read: LatencySummary; readonly write: LatencySummary; readonly flush: LatencySummary };
}

interface Tally {
  readonly latency: LatencyHistogram;
  bytes: number;
}

export class RequestStatistics {
  readonly #clock: Clock;
  readonly #tallies: Readonly<Record<RequestKind, Tally>> = { read: tally(), write: tally(), flush: tally() };
  #errors = 0;
  #lastError: string | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Does `work`, which moves `bytes` bytes where it succeeds. */
  async measure(kind: RequestKind, bytes: number, work: () => Promise<void>): Promise<void> {
    const { latency } = this.#tallies[kind];
    const start = this.#clock.now();
    try {
      await work();
      this.#tallies[kind].bytes += bytes;
    } catch (error) {
      // A request that was given up on purpose says nothing about the device.
      if (errorCode(error) !== 'aborted') this.noteError(error);
      throw error;
    } finally {
      latency.record(this.#clock.now() - start);
    }
  }

  noteError(error: unknown): void {
    this.#errors++;
    this.#lastError = describeError(error);
  }

  get counts(): RequestCounts {
    const { read, write, flush } = this.#tallies;
    const latency = { read: read.latency.summary, write: write.latency.summary, flush: flush.latency.summary };
    return {
      reads: latency.read.count,
      writes: latency.write.count,
      flushes: latency.flush.count,
      bytesRead: read.bytes,
      bytesWritten: write.bytes,
      errors: this.#errors,
      lastError: this.#lastError,
      latency,
    };
  }
}

function tally(): Tally {
  return { latency: new LatencyHistogram(), bytes: 0 };
}
