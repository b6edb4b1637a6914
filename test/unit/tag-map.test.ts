import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { TagMap } from '../../src/tag-map.ts';
import { SeededRandom } from '../support/seeded-random.ts';

const LARGEST = 0xffff_ffff;

describe('a map by tags', () => {
  it('has what was set, however the tags lie', () => {
    const map = new TagMap<string>();
    const tags = [0, 1, 8, 1024, 0x7fff_ffff, 0x8000_0000, LARGEST];
    for (const tag of tags) map.set(tag, `at ${tag}`);
    expect(map.size).toBe(tags.length);
    for (const tag of tags) expect([map.has(tag), map.get(tag)]).toEqual([true, `at ${tag}`]);
    expect([map.has(16), map.get(16), map.delete(16)]).toEqual([false, undefined, false]);
    expect(map.entries()).toEqual(tags.map((tag) => [tag, `at ${tag}`]));
    expect(map.values()).toEqual(tags.map((tag) => `at ${tag}`));
    map.clear();
    expect([map.size, map.entries(), map.get(0), map.get(1024)]).toEqual([0, [], undefined, undefined]);
  });

  it.each([1, 2, 3])('is as Map is, seed %i', (seed) => {
    const random = new SeededRandom(seed);
    const map = new TagMap<number>();
    const model = new Map<number, number>();
    let next = LARGEST - 2000;
    for (let step = 0; step < 5000; step++) {
      // Tags in sequence, as an initiator gives them, over the end; others that share their places; and the same again.
      const tags = [next++ >>> 0, random.between(0, 5) * 1024, ...model.keys()];
      const tag = tags[random.between(0, tags.length - 1)] as number;
      if (random.between(0, 1) === 0 || model.size > 60) expect(map.delete(tag)).toBe(model.delete(tag));
      else {
        map.set(tag, step);
        model.set(tag, step);
      }
      expect(map.size).toBe(model.size);
      expect(map.get(tag)).toBe(model.get(tag));
      expect(map.has(tag)).toBe(model.has(tag));
      if (step % 1000 === 0) expect(map.entries()).toEqual([...model].sort(([one], [other]) => one - other));
    }
  });

  it('lets go of what was deleted, however old it is itself', () => {
    const collect = minorCollection();
    const map = new TagMap<object>();
    for (let tag = 0; tag < 32; tag++) map.set(tag, {});
    for (let round = 0; round < 3; round++) collect();
    const before = oldBytes();
    // 50 MB, of which 30 kB are there at a time. With a `Map` about 40 MB of them would now be old.
    for (let tag = 32; tag < 50_000; tag++) {
      map.set(tag, new Array(128).fill(tag));
      map.delete(tag - 32);
      if (tag % 2000 === 0) collect();
    }
    expect(oldBytes() - before).toBeLessThan(5_000_000);
  });
});

function minorCollection(): () => void {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as (options: { type: 'minor' }) => void;
  return () => collect({ type: 'minor' });
}

/** What young objects become that two collections have found alive. */
function oldBytes(): number {
  return getHeapSpaceStatistics().find(({ space_name }) => space_name === 'old_space')?.space_used_size ?? 0;
}
