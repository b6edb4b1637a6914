// Writes random ranges to an image or block device, and the same bytes to a reference file, until a file called STOP appears. Every
// few writes are synchronised; only then are they counted in the file PROGRESS, so that the count says what the target has.
//
//   node endless-writes.mjs IMAGE REFERENCE PROGRESS STOP

import { existsSync, renameSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';

const [image, reference, progress, stop] = process.argv.slice(2);
const block = 4096;
const longest = 32; // blocks
const writesPerSync = 8;

const one = await open(image, 'r+');
const other = await open(reference, 'r+');
const { size } = await other.stat();
let written = 0;
while (!existsSync(stop)) {
  for (let count = 0; count < writesPerSync; count++) {
    const length = (1 + Math.floor(Math.random() * longest)) * block;
    const offset = Math.floor(Math.random() * ((size - length) / block)) * block;
    const data = Buffer.alloc(length, `${written + count} at ${offset};`);
    const { bytesWritten } = await one.write(data, 0, length, offset);
    if (bytesWritten !== length) throw new Error(`${bytesWritten} of ${length} bytes written at ${offset}`);
    await other.write(data, 0, length, offset);
  }
  await one.sync();
  written += writesPerSync;
  writeFileSync(`${progress}.new`, `${written}`);
  renameSync(`${progress}.new`, progress);
  await setTimeout(5);
}
await one.close();
await other.close();
