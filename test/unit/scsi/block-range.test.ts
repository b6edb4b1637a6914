import { describe, expect, it } from 'vitest';
import { chunkBlocks, chunkRun, coveringBlocks, splitRange } from '../../../src/scsi/block-range.ts';
import { SeededRandom } from '../../support/seeded-random.ts';

describe('splitting a byte range into blocks', () => {
  it.each([
    ['nothing', 512, 0, {}],
    ['whole blocks', 1024, 1024, { body: { lba: 2, blocks: 2, dataOffset: 0 } }],
    ['a part inside one block', 513, 100, { head: { lba: 1, skip: 1, length: 100, dataOffset: 0 } }],
    ['the start of one block', 512, 100, { head: { lba: 1, skip: 0, length: 100, dataOffset: 0 } }],
    ['the end of one block', 612, 412, { head: { lba: 1, skip: 100, length: 412, dataOffset: 0 } }],
    [
      'two partial blocks',
      1000,
      100,
      { head: { lba: 1, skip: 488, length: 24, dataOffset: 0 }, tail: { lba: 2, skip: 0, length: 76, dataOffset: 24 } },
    ],
    [
      'head, body and tail',
      511,
      514,
      {
        head: { lba: 0, skip: 511, length: 1, dataOffset: 0 },
        body: { lba: 1, blocks: 1, dataOffset: 1 },
        tail: { lba: 2, skip: 0, length: 1, dataOffset: 513 },
      },
    ],
    ['beyond 2 TiB', 2 ** 42 + 4096, 1536, { body: { lba: 2 ** 33 + 8, blocks: 3, dataOffset: 0 } }],
  ])('%s', (_, offset, length, expected) => {
    expect(splitRange(offset, length, 512)).toEqual({ head: undefined, body: undefined, tail: undefined, ...expected });
  });

  it('agrees with counting byte by byte', () => {
    const random = new SeededRandom(3);
    for (let round = 0; round < 300; round++) {
      const offset = random.below(40);
      const length = random.below(40);
      const { head, body, tail } = splitRange(offset, length, 8);
      const bytes: [lba: number, skip: number, dataOffset: number][] = [];
      for (const part of [head, tail]) {
        for (let index = 0; index < (part?.length ?? 0); index++) {
          if (part !== undefined) bytes.push([part.lba, part.skip + index, part.dataOffset + index]);
        }
        if (part !== undefined) expect(part.length).toBeLessThan(8);
      }
      for (let index = 0; index < (body?.blocks ?? 0) * 8; index++) {
        if (body !== undefined) bytes.push([body.lba + Math.floor(index / 8), index % 8, body.dataOffset + index]);
      }
      bytes.sort((one, other) => one[2] - other[2]);
      const expected = Array.from({ length }, (_, at) => [Math.floor((offset + at) / 8), (offset + at) % 8, at]);
      expect(bytes).toEqual(expected);
    }
  });

  it('refuses what is not a range of safe integers', () => {
    expect(() => splitRange(-1, 1, 512)).toThrow(RangeError);
    expect(() => splitRange(2 ** 53, 1, 512)).toThrow(RangeError);
    expect(() => splitRange(0, 1, 0)).toThrow(RangeError);
  });
});

describe('covering a byte range with blocks', () => {
  it.each([
    [0, 1, { lba: 0, blocks: 1, skip: 0 }],
    [511, 2, { lba: 0, blocks: 2, skip: 511 }],
    [512, 512, { lba: 1, blocks: 1, skip: 0 }],
    [2 ** 52 + 1, 512, { lba: 2 ** 43, blocks: 2, skip: 1 }],
  ])('%d + %d', (offset, length, expected) => {
    expect(coveringBlocks(offset, length, 512)).toEqual(expected);
  });

  it('has no answer for an empty range', () => {
    expect(() => coveringBlocks(0, 0, 512)).toThrow(RangeError);
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
