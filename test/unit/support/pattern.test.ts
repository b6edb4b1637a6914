import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { assertSameBytes, firstDifference, offsetPattern, writePatternFile } from '../../support/pattern.ts';
import { SeededRandom } from '../../support/seeded-random.ts';
import { TiB, Workdir } from '../../support/workdir.ts';

describe('offset pattern', () => {
  it('spells each word its own offset, big-endian', () => {
    expect(Buffer.from(offsetPattern(8, 16)).toString('hex')).toBe('00000000000000080000000000000010');
    expect(Buffer.from(offsetPattern(3 * TiB, 8)).toString('hex')).toBe('0000030000000000');
  });

  it.each([0, 1, 3, 7, 9, 4095])('is the same bytes when it is asked for from offset %i on', (offset) => {
    expect(offsetPattern(offset, 100)).toEqual(offsetPattern(0, offset + 100).subarray(offset));
  });

  it('fills a file whose size is no multiple of the word', async () => {
    await using workdir = Workdir.create();
    const path = workdir.join('file');
    await writePatternFile(path, 2 ** 20 + 13);
    assertSameBytes(await readFile(path), offsetPattern(0, 2 ** 20 + 13));
  });
});

describe('seeded random', () => {
  it('repeats itself for one seed and differs for another', () => {
    expect(new SeededRandom(7).bytes(1001)).toEqual(new SeededRandom(7).bytes(1001));
    expect(new SeededRandom(7).bytes(1001)).not.toEqual(new SeededRandom(8).bytes(1001));
  });

  it('fills a range evenly, both ends included', () => {
    const random = new SeededRandom(1);
    const counts = new Array<number>(10).fill(0);
    for (let round = 0; round < 10_000; round++) {
      const value = random.between(5, 14) - 5;
      counts[value] = (counts[value] ?? 0) + 1;
    }
    expect(Math.min(...counts)).toBeGreaterThan(800);
    expect(counts).toHaveLength(10);
  });

  it('reaches beyond 32 bits', () => {
    const random = new SeededRandom(2);
    const values = Array.from({ length: 100 }, () => random.below(3 * TiB));
    expect(Math.max(...values)).toBeGreaterThan(2 * TiB);
    expect(values.every((value) => Number.isSafeInteger(value) && value < 3 * TiB)).toBe(true);
  });
});

describe('comparison of bytes', () => {
  it('names the first difference, a missing byte included', () => {
    expect(firstDifference(Uint8Array.of(1, 2, 3), Uint8Array.of(1, 2, 3))).toBeUndefined();
    expect(firstDifference(Uint8Array.of(1, 2, 3), Uint8Array.of(1, 9, 3))).toBe(1);
    expect(firstDifference(Uint8Array.of(1, 2), Uint8Array.of(1, 2, 3))).toBe(2);
  });

  it('says where, counted from the base', () => {
    expect(() => assertSameBytes(Uint8Array.of(1, 2), Uint8Array.of(1, 3), 4096)).toThrow('offset 4097');
  });
});
