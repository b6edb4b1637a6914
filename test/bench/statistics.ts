/** Few and noisy numbers, summed up by their order: a median is not moved by the one run that something else disturbed. */

export interface Summary {
  readonly median: number;
  readonly least: number;
  readonly most: number;
  readonly count: number;
}

/** Undefined of nothing. */
export function summarize(values: readonly number[]): Summary | undefined {
  const sorted = [...values].sort((one, other) => one - other);
  const [least, most] = [sorted[0], sorted.at(-1)];
  if (least === undefined || most === undefined) return undefined;
  return { median: quantile(sorted, 0.5), least, most, count: sorted.length };
}

/** Of nothing: NaN. */
export function median(values: readonly number[]): number {
  return quantile(
    [...values].sort((one, other) => one - other),
    0.5,
  );
}

/** Between two values where the place falls between them. `sorted`: ascending; `share`: 0 to 1. */
export function quantile(sorted: readonly number[], share: number): number {
  const place = share * (sorted.length - 1);
  const below = sorted[Math.floor(place)] ?? Number.NaN;
  const above = sorted[Math.ceil(place)] ?? Number.NaN;
  return below + (above - below) * (place - Math.floor(place));
}

/** A new array in random order (Fisher and Yates). `chance`: from 0 up to, not including, 1. */
export function shuffle<T>(items: readonly T[], chance: () => number = Math.random): T[] {
  const left = [...items];
  const taken: T[] = [];
  while (left.length > 0) taken.push(...left.splice(Math.floor(chance() * left.length), 1));
  return taken;
}
