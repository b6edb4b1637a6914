import { describe, expect, it } from 'vitest';
import { LatencyHistogram } from '../../../src/scsi/latency-histogram.ts';
import { SeededRandom } from '../../support/seeded-random.ts';

describe('the latency histogram', () => {
  it('says nothing of nothing', () => {
    expect(new LatencyHistogram().summary).toEqual({ count: 0, p50Ms: 0, p90Ms: 0, p99Ms: 0, maxMs: 0, totalMs: 0 });
  });

  it('is exact for one sample', () => {
    const histogram = new LatencyHistogram();
    histogram.record(3.7);
    expect(histogram.summary).toEqual({ count: 1, p50Ms: 3.7, p90Ms: 3.7, p99Ms: 3.7, maxMs: 3.7, totalMs: 3.7 });
  });

  it.each([0, 0.0001, 1e9, -1, Number.NaN])('bears %d', (ms) => {
    const histogram = new LatencyHistogram();
    histogram.record(ms);
    expect(histogram.summary.count).toBe(1);
  });

  it('comes within an eighth of the true percentiles', () => {
    const histogram = new LatencyHistogram();
    const random = new SeededRandom(5);
    const samples = Array.from({ length: 20_000 }, () => Math.exp(random.fraction() * 12 - 5));
    for (const sample of samples) histogram.record(sample);
    samples.sort((one, other) => one - other);
    const exact = (fraction: number) => samples[Math.ceil(samples.length * fraction) - 1] ?? 0;
    const { p50Ms, p90Ms, p99Ms, maxMs } = histogram.summary;
    for (const [estimate, fraction] of [
      [p50Ms, 0.5],
      [p90Ms, 0.9],
      [p99Ms, 0.99],
    ] as const) {
      expect(estimate / exact(fraction)).toBeGreaterThanOrEqual(1);
      expect(estimate / exact(fraction)).toBeLessThan(1.125);
    }
    expect(maxMs).toBe(samples.at(-1));
  });
});
