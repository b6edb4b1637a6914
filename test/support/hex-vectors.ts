/** Reads `test/vectors/*.hex`: one `name: hex` per line, `#` starts a comment line that says where the bytes come from. */

import { readFileSync } from 'node:fs';

/** The vector of that name; throws where the file has none. */
export function hexVectors(file: string): (name: string) => Uint8Array {
  const vectors = new Map<string, Uint8Array>();
  for (const line of readFileSync(new URL(`../vectors/${file}`, import.meta.url), 'utf8').split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const colon = line.indexOf(':');
    vectors.set(line.slice(0, colon).trim(), hex(line.slice(colon + 1)));
  }
  return (name) => {
    const vector = vectors.get(name);
    if (vector === undefined) throw new Error(`${file} has no vector "${name}"`);
    return vector;
  };
}

/** Bytes from hex digits; white space between them is ignored. */
export function hex(text: string): Uint8Array {
  const digits = text.replace(/\s+/g, '');
  if (digits.length % 2 !== 0 || /[^0-9a-f]/i.test(digits)) throw new Error(`not hex: ${text}`);
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}
