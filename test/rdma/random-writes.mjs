// Writes random ranges, most at odd offsets, to an image or block device, and the same bytes to a reference file; reads some back on
// the way and compares. Four at a time, in parts of the image of their own. Like test/support/mirror-writes.mjs, but for an emulated
// processor: the data is not made byte by byte.
//
//   node random-writes.mjs IMAGE REFERENCE OPERATIONS

import { randomBytes, randomInt } from 'node:crypto';
import { open } from 'node:fs/promises';

const [image, reference, operations] = process.argv.slice(2);
const lanes = 4;
const longest = 200_000;
const source = randomBytes(1 << 20);

const one = await open(image, 'r+');
const other = await open(reference, 'r+');
const { size } = await other.stat();
const laneSize = Math.floor(size / lanes);

async function lane(index) {
  const start = index * laneSize;
  for (let count = 0; count < operations / lanes; count++) {
    // Short and long ones alike, by their magnitude.
    const length = randomInt(1, 1 + Math.min(longest, 2 ** randomInt(4, 19)));
    const offset = start + randomInt(0, laneSize - length + 1);
    if (count % 4 === 3) {
      const [read, expected] = [Buffer.alloc(length), Buffer.alloc(length)];
      await one.read(read, 0, length, offset);
      await other.read(expected, 0, length, offset);
      if (!read.equals(expected)) throw new Error(`${length} bytes at ${offset} differ (operation ${count} of lane ${index})`);
      continue;
    }
    const from = randomInt(0, source.length - length);
    const { bytesWritten } = await one.write(source, from, length, offset);
    if (bytesWritten !== length) throw new Error(`${bytesWritten} of ${length} bytes written at ${offset}`);
    await other.write(source, from, length, offset);
    if (count % 16 === 0) await one.sync();
  }
}

const outcomes = await Promise.allSettled(Array.from({ length: lanes }, (_, index) => lane(index)));
for (const { reason } of outcomes) if (reason) throw reason;
await one.sync();
await one.close();
await other.close();
