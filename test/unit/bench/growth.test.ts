import { describe, expect, it } from 'vitest';
import { judgeGrowth } from '../../bench/growth.ts';

const tolerance = { absolute: 10, relative: 0.05 };
const series = (value: (place: number) => number) => Array.from({ length: 60 }, (_, place) => value(place));

describe('growth', () => {
  it('is seen where every sample is a little more than the last', () => {
    expect(
      judgeGrowth(
        series((place) => 100 + place),
        tolerance,
      ).isGrowing,
    ).toBe(true);
  });

  it('does not count in the first tenth', () => {
    const { isGrowing, early, late } = judgeGrowth(
      series((place) => Math.min(place, 6) * 100),
      tolerance,
    );
    expect({ isGrowing, early, late }).toEqual({ isGrowing: false, early: 600, late: 600 });
  });

  it('is not seen in ups and downs, however high', () => {
    expect(
      judgeGrowth(
        series((place) => 100 + (place % 7) * 50),
        tolerance,
      ).isGrowing,
    ).toBe(false);
  });

  it('is not seen in one sample that stands out at the end', () => {
    expect(
      judgeGrowth(
        series((place) => (place === 59 ? 1e9 : 100)),
        tolerance,
      ).isGrowing,
    ).toBe(false);
  });

  it('is not seen below the tolerance, neither absolutely nor in proportion', () => {
    expect(
      judgeGrowth(
        series((place) => 100 + place / 8),
        tolerance,
      ).isGrowing,
    ).toBe(false);
    expect(
      judgeGrowth(
        series((place) => 10_000 + place * 8),
        tolerance,
      ).isGrowing,
    ).toBe(false);
  });

  it('cannot be told from few samples', () => {
    expect(() => judgeGrowth([1, 2, 3], tolerance)).toThrow('too few');
  });
});
