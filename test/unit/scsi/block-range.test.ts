import { describe, expect, it } from 'vitest';
import { chunkBlocks, chunkRun, coveringBlocks } from '../../../src/scsi/block-range.ts';
import { SeededRandom } from '../../support/seeded-random.ts';

describe('covering a byte range with blocks', () => {
  it.each([
    [0, 1, { lba: 0, blocks: 1 }],
    [511, 2, { lba: 0, blocks: 2 }],
    [512, 512, { lba: 1, blocks: 1 }],
    [2 ** 52 + 1, 512, { lba: 2 ** 43, blocks: 2 }],
  ])('%d + %d', (offset, length, expected) => {
    expect(coveringBlocks(offset, length, 512)).toEqual(expected);
  });

  it('has no answer for an empty range', () => {
    expect(() => coveringBlocks(0, 0, 512)).toThrow(RangeError);
  });

  it('refuses what is not a range of safe integers', () => {
    expect(() => coveringBlocks(-1, 1, 512)).toThrow(RangeError);
    expect(() => coveringBlocks(2 ** 53, 1, 512)).toThrow(RangeError);
    expect(() => coveringBlocks(0, 1, 0)).toThrow(RangeError);
  });
});

describe('the length of one command', () => {
  it.each([
    ['no limits known', 2048, { maximumBlocks: 0, optimalBlocks: 0, granularityBlocks: 0 }, 2048],
    ['a maximum', 2048, { maximumBlocks: 1000, optimalBlocks: 0, granularityBlocks: 0 }, 1000],
    [
      'a maximum that is no multiple of the granularity',
      2048,
      { maximumBlocks: 1000, optimalBlocks: 0, granularityBlocks: 128 },
      896,
    ],
    ['an optimum below the maximum', 2048, { maximumBlocks: 4096, optimalBlocks: 512, granularityBlocks: 8 }, 512],
    ['a granularity beyond all else', 16, { maximumBlocks: 0, optimalBlocks: 0, granularityBlocks: 128 }, 16],
    ['a maximum of one block', 2048, { maximumBlocks: 1, optimalBlocks: 64, granularityBlocks: 8 }, 1],
  ])('%s', (_, wanted, limits, expected) => {
    expect(chunkBlocks(wanted, limits)).toBe(expected);
  });
});

describe('cutting a run into commands', () => {
  const cut = (lba: number, blocks: number, maximum: number, alignment?: number) =>
    [...chunkRun({ lba, blocks }, maximum, alignment)].map((chunk) => [chunk.lba, chunk.blocks]);

  it('aligns the inner boundaries', () => {
    expect(cut(5, 20, 8)).toEqual([
      [5, 3],
      [8, 8],
      [16, 8],
      [24, 1],
    ]);
  });

  it('takes the maximum where no aligned boundary is within reach', () => {
    expect(cut(1, 6, 4, 100)).toEqual([
      [1, 4],
      [5, 2],
    ]);
  });

  it('leaves a run that ends within reach whole, whatever its alignment', () => {
    expect(cut(7, 8, 8)).toEqual([[7, 8]]);
    expect(cut(7, 1, 8)).toEqual([[7, 1]]);
    expect(cut(0, 0, 8)).toEqual([]);
  });

  it('covers every block once and in order, none longer than the maximum', () => {
    const random = new SeededRandom(11);
    for (let round = 0; round < 200; round++) {
      const run = { lba: random.below(100), blocks: random.below(100) };
      const maximum = random.between(1, 20);
      let next = run.lba;
      for (const chunk of chunkRun(run, maximum, random.between(1, 30))) {
        expect(chunk.lba).toBe(next);
        expect(chunk.blocks).toBeGreaterThan(0);
        expect(chunk.blocks).toBeLessThanOrEqual(maximum);
        next += chunk.blocks;
      }
      expect(next).toBe(run.lba + run.blocks);
    }
  });
});
