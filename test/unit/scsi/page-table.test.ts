import { describe, expect, it } from 'vitest';
import { PageTable } from '../../../src/scsi/page-table.ts';
import { SeededRandom } from '../../support/seeded-random.ts';

const LARGEST = Number.MAX_SAFE_INTEGER;

describe('a table of pages', () => {
  it('has what was set, however the pages lie', () => {
    const table = new PageTable<string>();
    const pages = [0, 1, 7, 8, 256, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 2 ** 32, 2 ** 40 + 3, LARGEST];
    for (const page of pages) table.set(page, `at ${page}`);
    expect(table.size).toBe(pages.length);
    for (const page of pages) expect(table.get(page)).toBe(`at ${page}`);
    expect([table.get(2), table.delete(2)]).toEqual([undefined, false]);
    expect(contentsOf(table)).toEqual(pages.map((page) => [page, `at ${page}`]));
  });

  it.each([1, 2, 3])('is as Map is, seed %i', (seed) => {
    const random = new SeededRandom(seed);
    const table = new PageTable<number>();
    const model = new Map<number, number>();
    // Many at first, so that it grows, then few, so that it shrinks, and again.
    for (let step = 0; step < 20_000; step++) {
      const most = step % 10_000 < 6000 ? 2000 : 20;
      const kinds = [random.below(64), random.below(2 ** 20), 2 ** 33 + random.below(4096) * 8, LARGEST - random.below(100)];
      const page = kinds[random.below(kinds.length)] as number;
      if (random.below(3) > 0 && model.size < most) {
        table.set(page, step);
        model.set(page, step);
      } else {
        const [first = page] = model.keys();
        for (const gone of [page, first]) expect(table.delete(gone)).toBe(model.delete(gone));
      }
      expect(table.size).toBe(model.size);
      expect(table.get(page)).toBe(model.get(page));
      if (step % 1000 === 0) expect(contentsOf(table)).toEqual([...model].sort(([one], [other]) => one - other));
    }
  });
});

function contentsOf<T>(table: PageTable<T>): [page: number, value: T][] {
  const contents: [number, T][] = [];
  table.visit((value, page) => contents.push([page, value]));
  return contents.sort(([one], [other]) => one - other);
}
