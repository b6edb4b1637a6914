import { describe, expect, it } from 'vitest';
import { ReadAhead } from '../../../src/scsi/read-ahead.ts';
import { SeededRandom } from '../../support/seeded-random.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/** Feeds a sequential reader to `ahead` and returns the stretches that it asked for. */
function sequential(ahead: ReadAhead, start: number, end: number, step: number): { offset: number; length: number }[] {
  const stretches = [];
  for (let offset = start; offset < end; offset += step) {
    const stretch = ahead.observe(offset, step);
    if (stretch !== undefined) stretches.push(stretch);
  }
  return stretches;
}

describe('read-ahead', () => {
  it('asks for nothing until a second read follows the first', () => {
    const ahead = new ReadAhead(1 * MIB);
    expect(ahead.observe(0, 4096)).toBeUndefined();
    expect(ahead.observe(4096, 4096)).toEqual({ offset: 8192, length: 256 * KIB });
  });

  it('asks for each byte once, without gaps, ahead of the reader and within its limit', () => {
    const ahead = new ReadAhead(1 * MIB);
    let reached = 0;
    for (let offset = 0; offset < 16 * MIB; offset += 64 * KIB) {
      const end = offset + 64 * KIB;
      const stretch = ahead.observe(offset, 64 * KIB);
      if (stretch === undefined) continue;
      if (reached > 0) expect(stretch.offset).toBe(reached);
      reached = stretch.offset + stretch.length;
      expect(reached).toBeGreaterThan(end);
      expect(reached - end).toBeLessThanOrEqual(1 * MIB);
    }
    expect(reached).toBeGreaterThanOrEqual(16 * MIB);
  });

  it('widens its window up to the limit', () => {
    const lengths = sequential(new ReadAhead(1 * MIB), 0, 16 * MIB, 64 * KIB).map(({ length }) => length);
    expect(lengths[0]).toBe(256 * KIB);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(1 * MIB);
    expect(Math.max(...lengths)).toBeGreaterThanOrEqual(512 * KIB);
  });

  it('follows several interleaved readers', () => {
    const ahead = new ReadAhead(1 * MIB);
    const found = new Set<number>();
    for (let step = 0; step < 8; step++) {
      for (let reader = 0; reader < 10; reader++) {
        if (ahead.observe(reader * 100 * MIB + step * 16 * KIB, 16 * KIB) !== undefined) found.add(reader);
      }
    }
    expect(found.size).toBe(10);
  });

  it('bears with reads of one stream that overtake each other', () => {
    const ahead = new ReadAhead(4 * MIB);
    const order = [0, 1, 2, 4, 3, 6, 5, 7, 9, 8, 10, 11];
    let fetched = 0;
    for (const index of order) fetched += ahead.observe(index * 128 * KIB, 128 * KIB)?.length ?? 0;
    expect(fetched).toBeGreaterThan(1 * MIB);
  });

  it('keeps a full window full, an extent at a time', () => {
    const stretches = sequential(new ReadAhead(4 * MIB), 0, 16 * MIB, 1 * MIB);
    expect(stretches.slice(0, 3).map(({ offset, length }) => [offset / MIB, length / MIB])).toEqual([
      [2, 4],
      [6, 1],
      [7, 1],
    ]);
    const steady = sequential(new ReadAhead(4 * MIB), 0, 32 * MIB, 64 * KIB).filter(({ offset }) => offset > 8 * MIB);
    for (const { offset, length } of steady) expect([offset % MIB, length]).toEqual([0, MIB]);
  });

  it('follows a reader who has reached what was fetched ahead, whatever he read unseen before', () => {
    const ahead = new ReadAhead(4 * MIB);
    ahead.observe(0, MIB);
    expect(ahead.observe(MIB, MIB)).toEqual({ offset: 2 * MIB, length: 4 * MIB });
    expect(ahead.observe(3 * MIB, 4096, true)).toEqual({ offset: 6 * MIB, length: 1 * MIB });
    expect(ahead.observe(5 * MIB, 4096, true)).toEqual({ offset: 7 * MIB, length: 2 * MIB });
  });

  it('is not carried away by random reads near a stream', () => {
    const ahead = new ReadAhead(1 * MIB);
    ahead.observe(8 * MIB, 4096);
    ahead.observe(8 * MIB + 4096, 4096);
    const random = new SeededRandom(3);
    for (let turn = 0; turn < 1000; turn++) {
      expect(ahead.observe(8 * MIB + 8192 + random.between(1, 900) * 4096, 1024)).toBeUndefined();
    }
    expect(ahead.observe(8 * MIB + 8192, 512 * KIB)).toBeDefined();
  });

  it('goes along with a reader who leaves something out', () => {
    const ahead = new ReadAhead(1 * MIB);
    sequential(ahead, 0, 1 * MIB, 128 * KIB);
    const afterwards = sequential(ahead, 2 * MIB, 4 * MIB, 128 * KIB);
    expect(afterwards[0]?.offset).toBe(2 * MIB + 512 * KIB);
  });

  it('asks for nothing where the limit is 0', () => {
    expect(sequential(new ReadAhead(0), 0, 1 * MIB, 4096)).toEqual([]);
  });

  it('asks for nothing for readers without order', () => {
    const ahead = new ReadAhead(1 * MIB);
    const random = new SeededRandom(2);
    for (let turn = 0; turn < 1000; turn++) expect(ahead.observe(random.between(0, 1e9) * 4096, 4096)).toBeUndefined();
  });

  it('forgets the streams at a reset', () => {
    const ahead = new ReadAhead(1 * MIB);
    ahead.observe(0, 4096);
    ahead.reset();
    expect(ahead.observe(4096, 4096)).toBeUndefined();
  });
});
