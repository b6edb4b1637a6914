// Writes random ranges, most at odd offsets, to an image and the same bytes to a reference file; reads some back on the way and
// compares. Several operations are in flight at once, on ranges that do not overlap: what overlapping writes leave is nobody's promise.
//
//   node mirror-writes.mjs IMAGE REFERENCE OPERATIONS SEED

import { open } from 'node:fs/promises';

const [image, reference, operations, seed] = process.argv.slice(2);
const lanes = 4;
const longest = 200_000;

/** Mulberry32: numbers in [0, 1) that depend on the seed alone. */
function numbers(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const one = await open(image, 'r+');
const other = await open(reference, 'r+');
const { size } = await other.stat();
const laneSize = Math.floor(size / lanes);

async function lane(index) {
  const random = numbers(Number(seed) * lanes + index);
  const start = index * laneSize;
  const end = index === lanes - 1 ? size : start + laneSize;
  for (let count = 0; count < Number(operations) / lanes; count++) {
    // Mostly short, some long; sometimes up to the very end.
    const length = 1 + Math.floor(random() ** 4 * longest);
    const offset = random() < 0.02 ? end - length : start + Math.floor(random() * (end - start - length));
    const data = Buffer.alloc(length);
    if (random() < 0.3) {
      const expected = Buffer.alloc(length);
      await one.read(data, 0, length, offset);
      await other.read(expected, 0, length, offset);
      if (!data.equals(expected)) throw new Error(`${length} bytes at ${offset} differ (operation ${count} of lane ${index})`);
      continue;
    }
    for (let at = 0; at < length; at++) data[at] = random() * 256;
    const { bytesWritten } = await one.write(data, 0, length, offset);
    if (bytesWritten !== length) throw new Error(`${bytesWritten} of ${length} bytes written at ${offset}`);
    await other.write(data, 0, length, offset);
    if (random() < 0.01) await one.sync();
  }
}

const outcomes = await Promise.allSettled(Array.from({ length: lanes }, (_, index) => lane(index)));
for (const { reason } of outcomes) if (reason) throw reason;
await one.sync();
await one.close();
await other.close();
console.log(`${operations} operations`);
