/** Counts and times the requests to one logical unit, for people and programs that watch it. */

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
  readonly #tallies: Readonly<Record<RequestKind, Tally>> = { read: tally(), write: tally(), flush: tally() };
  #errors = 0;
  #lastError: string | undefined;

  /** A request took `latencyMs`, and moved `bytes` bytes. */
  succeeded(kind: RequestKind, bytes: number, latencyMs: number): void {
    const tally = this.#tallies[kind];
    tally.bytes += bytes;
    tally.latency.record(latencyMs);
  }

  /** A request failed after `latencyMs`. */
  failed(kind: RequestKind, error: unknown, latencyMs: number): void {
    // One that was given up on purpose says nothing about the device.
    if (errorCode(error) !== 'aborted') this.noteError(error);
    this.#tallies[kind].latency.record(latencyMs);
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
