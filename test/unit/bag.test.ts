import { expect, it } from 'vitest';
import { Bag, type Placed, UNPLACED } from '../../src/bag.ts';
import { SeededRandom } from '../support/seeded-random.ts';

it.each([1, 2, 3])('a bag has what a set would have, seed %i', (seed) => {
  const random = new SeededRandom(seed);
  const items: Placed[] = Array.from({ length: 20 }, () => ({ place: UNPLACED }));
  const bag = new Bag<Placed>();
  const model = new Set<Placed>();
  for (let step = 0; step < 2000; step++) {
    const item = items[random.between(0, items.length - 1)] as Placed;
    if (model.has(item) || random.between(0, 3) === 0) expect(bag.delete(item)).toBe(model.delete(item));
    else {
      bag.add(item);
      model.add(item);
    }
    expect(bag.size).toBe(model.size);
    expect(new Set(bag)).toEqual(model);
    for (const each of items) expect(each.place !== UNPLACED).toBe(model.has(each));
    const any = bag.any();
    expect(any === undefined ? model.size === 0 : model.has(any)).toBe(true);
  }
});
