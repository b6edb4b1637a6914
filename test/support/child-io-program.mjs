/**
 * The child's side of child-io.ts: does one file operation per line of its input and answers with one
 * line each. Plain JavaScript, so that every Node that we support runs it as it stands.
 */

import fs from 'node:fs';
import { createInterface } from 'node:readline';

/** @type {Record<string, (...args: any[]) => unknown>} */
const operations = {
  open: (path, flags) => fs.openSync(path, flags),
  close: (descriptor) => fs.closeSync(descriptor),
  read(descriptor, offset, length) {
    const into = Buffer.alloc(length);
    return into.subarray(0, fs.readSync(descriptor, into, 0, length, offset)).toString('base64');
  },
  write(descriptor, offset, data) {
    const from = Buffer.from(data, 'base64');
    return fs.writeSync(descriptor, from, 0, from.length, offset);
  },
  fsync: (descriptor) => fs.fsyncSync(descriptor),
  stat: (path) => attributes(fs.statSync(path)),
  fstat: (descriptor) => attributes(fs.fstatSync(descriptor)),
  readdir: (path) => fs.readdirSync(path).sort(),
  readFile: (path) => fs.readFileSync(path).toString('base64'),
  truncate: (path, size) => fs.truncateSync(path, size),
  ftruncate: (descriptor, size) => fs.ftruncateSync(descriptor, size),
  chmod: (path, mode) => fs.chmodSync(path, mode),
  chown: (path, uid, gid) => fs.chownSync(path, uid, gid),
  utimes: (path, accessed, modified) => fs.utimesSync(path, accessed, modified),
  mkdir: (path) => fs.mkdirSync(path),
  unlink: (path) => fs.unlinkSync(path),
  rmdir: (path) => fs.rmdirSync(path),
  rename: (from, to) => fs.renameSync(from, to),
  symlink: (target, path) => fs.symlinkSync(target, path),
};

/** @param {import('node:fs').Stats} stats */
function attributes({ ino, mode, nlink, uid, gid, size, blocks, blksize }) {
  return { ino, mode, nlink, uid, gid, size, blocks, blksize };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { operation, args } = JSON.parse(line);
  let answer;
  try {
    answer = { value: operations[operation]?.(...args) ?? null };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : 'UNKNOWN';
    answer = { code, message: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
