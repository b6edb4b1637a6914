// Writes block after block to a file, each full of its own number, until a write fails or the end is reached; then says how many were
// taken, which counts the blocks from the start of the file, and with what it ended. Says `writing` before the first.
//
//   node endless-writes.mjs FILE BLOCKS BLOCK_LENGTH

import { openSync, writeSync } from 'node:fs';

const [path, blocks, blockLength] = process.argv.slice(2);
const file = openSync(path, 'r+');
const block = Buffer.alloc(Number(blockLength));
let taken = 0;
let code = 'END';
process.stdout.write('writing\n');
try {
  for (; taken < Number(blocks); taken++) {
    for (let at = 0; at < block.length; at += 4) block.writeUInt32BE(taken + 1, at);
    if (writeSync(file, block, 0, block.length, taken * block.length) !== block.length)
      throw Object.assign(new Error(), { code: 'SHORT' });
  }
} catch (error) {
  code = error.code;
}
console.log(JSON.stringify({ taken, code }));
