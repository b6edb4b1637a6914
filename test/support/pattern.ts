/**
 * Test data that says where it belongs: every 8 bytes spell their own offset, so that a misplaced read shows in a hex dump. And
 * comparison that names the first wrong byte.
 */

import { open } from 'node:fs/promises';
import { MiB } from './workdir.ts';

/** The bytes of the pattern at `offset` (any alignment): the 8-byte word at offset 8n is 8n, big-endian. */
export function offsetPattern(offset: number, length: number): Uint8Array {
  const first = offset - (offset % 8);
  const words = Math.ceil((offset + length - first) / 8);
  const view = new DataView(new ArrayBuffer(words * 8));
  for (let index = 0; index < words; index++) {
    const word = first + index * 8;
    view.setUint32(index * 8, Math.floor(word / 2 ** 32));
    view.setUint32(index * 8 + 4, word % 2 ** 32);
  }
  return new Uint8Array(view.buffer, offset - first, length);
}

/** Fills a file with the pattern, from 0 to `size`. */
export async function writePatternFile(path: string, size: number): Promise<void> {
  await using file = await open(path, 'w');
  for (let offset = 0; offset < size; offset += MiB) {
    await file.write(offsetPattern(offset, Math.min(MiB, size - offset)), 0, undefined, offset);
  }
}

/** The index of the first byte that differs (a missing byte differs), or undefined. */
export function firstDifference(actual: Uint8Array, expected: Uint8Array): number | undefined {
  if (Buffer.compare(actual, expected) === 0) return undefined;
  const common = Math.min(actual.length, expected.length);
  for (let index = 0; index < common; index++) if (actual[index] !== expected[index]) return index;
  return common;
}

/** Throws with both sides' bytes around the first difference. `base` is the offset of the first byte, for the message. */
export function assertSameBytes(actual: Uint8Array, expected: Uint8Array, base = 0): void {
  const index = firstDifference(actual, expected);
  if (index === undefined) return;
  const start = index - (index % 16);
  const dump = (bytes: Uint8Array) =>
    Buffer.from(bytes.subarray(start, start + 32))
      .toString('hex')
      .replace(/(.{16})/g, '$1 ');
  throw new Error(
    `bytes differ at offset ${base + index} (lengths ${actual.length} and ${expected.length}); from ${base + start}:\n` +
      `  actual    ${dump(actual)}\n  expected  ${dump(expected)}`,
  );
}
