/**
 * Latencies as counts in logarithmic buckets: bounded memory, a few instructions per sample, percentiles
 * within 1/8 of the true value. Knows milliseconds only.
 */

/** Eight buckets per power of two, from 1 µs to beyond an hour. */
const BUCKETS_PER_DOUBLING = 8;
const DOUBLINGS = 33;

export interface LatencySummary {
  readonly count: number;
  /** Milliseconds; 0 where there are no samples. The value that `p` of 100 samples do not exceed, rounded up to a bucket. */
  readonly p50Ms: number;
  readonly p90Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly totalMs: number;
}

export class LatencyHistogram {
  /** There from the first sample on: most logical units of a mount of thousands are never used. */
  #counts: Float64Array | undefined;
  #count = 0;
  #max = 0;
  #total = 0;

  record(ms: number): void {
    const index = bucketOf(ms);
    this.#counts ??= new Float64Array(BUCKETS_PER_DOUBLING * DOUBLINGS);
    this.#counts[index] = (this.#counts[index] ?? 0) + 1;
    this.#count++;
    this.#total += ms;
    if (ms > this.#max) this.#max = ms;
  }

  get summary(): LatencySummary {
    return {
      count: this.#count,
      p50Ms: this.#percentile(0.5),
      p90Ms: this.#percentile(0.9),
      p99Ms: this.#percentile(0.99),
      maxMs: this.#max,
      totalMs: this.#total,
    };
  }

  #percentile(fraction: number): number {
    if (this.#counts === undefined) return 0;
    let remaining = Math.ceil(this.#count * fraction);
    for (const [index, count] of this.#counts.entries()) {
      remaining -= count;
      if (remaining <= 0) return Math.min(upperEnd(index), this.#max);
    }
    return this.#max;
  }
}

function bucketOf(ms: number): number {
  const microseconds = ms * 1000;
  if (!(microseconds > 1)) return 0;
  const index = Math.ceil(Math.log2(microseconds) * BUCKETS_PER_DOUBLING);
  return Math.min(index, BUCKETS_PER_DOUBLING * DOUBLINGS - 1);
}

function upperEnd(index: number): number {
  return 2 ** (index / BUCKETS_PER_DOUBLING) / 1000;
}
