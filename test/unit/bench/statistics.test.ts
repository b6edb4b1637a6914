import { describe, expect, it } from 'vitest';
import { median, quantile, shuffle, summarize } from '../../bench/statistics.ts';
import { SeededRandom } from '../../support/seeded-random.ts';

describe('a summary', () => {
  it('has the middle one of an odd number of values, whatever their order', () => {
    expect(summarize([9, 1, 5])).toEqual({ median: 5, least: 1, most: 9, count: 3 });
  });

  it('has what is between the two middle ones of an even number', () => {
    expect(summarize([10, 1, 2, 4])?.median).toBe(3);
  });

  it('sorts numbers as numbers', () => {
    expect(median([100, 20, 3])).toBe(20);
  });

  it('is undefined of nothing', () => {
    expect(summarize([])).toBeUndefined();
    expect(median([])).toBeNaN();
  });
});

it('a quantile between two values is between them in proportion', () => {
  expect(quantile([0, 10, 20, 30], 0.25)).toBe(7.5);
});

describe('shuffling', () => {
  it('keeps every item once and leaves the array alone', () => {
    const items = [1, 2, 3, 4, 5];
    const random = new SeededRandom(1);
    expect(shuffle(items, () => random.fraction()).sort()).toEqual(items);
    expect(items).toEqual([1, 2, 3, 4, 5]);
  });

  it('puts each item first about equally often', () => {
    const random = new SeededRandom(2);
    const counts = new Map<string, number>();
    for (let time = 0; time < 3000; time++) {
      const [first = ''] = shuffle(['a', 'b', 'c'], () => random.fraction());
      counts.set(first, (counts.get(first) ?? 0) + 1);
    }
    for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(150);
  });
});
