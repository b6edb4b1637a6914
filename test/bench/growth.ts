/** Whether something that is sampled over a long run keeps growing, or has found its size. */

import { median } from './statistics.ts';

export interface Growth {
  /** Median of the samples from the end of the first tenth to the end of the first third. */
  readonly early: number;
  /** Median of the last third. */
  readonly late: number;
  readonly isGrowing: boolean;
}

export interface Tolerance {
  /** Less than this is no growth, in the unit of the samples. */
  readonly absolute: number;
  /** Nor is less than this share of the early value. */
  readonly relative: number;
}

/** Fewer say nothing. */
export const fewestSamples = 12;

/** The first tenth is for warming up. Throws where there are fewer than `fewestSamples`. */
export function judgeGrowth(samples: readonly number[], { absolute, relative }: Tolerance): Growth {
  if (samples.length < fewestSamples) throw new Error(`${samples.length} samples are too few: ${fewestSamples} at least`);
  const early = median(samples.slice(Math.ceil(samples.length / 10), Math.ceil(samples.length / 3)));
  const late = median(samples.slice(Math.floor((2 * samples.length) / 3)));
  return { early, late, isGrowing: late - early > Math.max(absolute, relative * early) };
}
