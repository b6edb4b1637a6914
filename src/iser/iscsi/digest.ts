/**
 * CRC32C, the digest of iSCSI's headers and data (RFC 7143 §13.1: polynomial 0x11EDC6F41, reflected).
 * Slicing by eight: eight bytes per step through eight tables; for long data whatever is faster may be put in
 * its place. Which bytes are covered, and padding, are the data mover's affair.
 */

const POLYNOMIAL = 0x82f6_3b78;
const SLICES = 8;

/** Table `k` at `k * 256`: the effect of a byte followed by `k` zero bytes. */
const table = makeTable();

/** `read32` of a typed array is little-endian only where the machine is. */
const LITTLE_ENDIAN_MACHINE = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;

/** CRC32C of `data`, or of what `previous` is the CRC of followed by `data`: crc32c(b, crc32c(a)) = crc32c(a + b). */
export function crc32c(data: Uint8Array, previous = 0): number {
  return data.length >= LONG_LENGTH ? forLongData(data, previous) : crc32cByTable(data, previous);
}

/** The same by tables alone. */
export function crc32cByTable(data: Uint8Array, previous = 0): number {
  const { length } = data;
  let crc = ~previous;
  let at = 0;
  if (LITTLE_ENDIAN_MACHINE && length >= 32) {
    for (const aligned = -data.byteOffset & 3; at < aligned; at++) crc = step(crc, data[at] as number);
    const words = new Int32Array(data.buffer, data.byteOffset + at, ((length - at) >>> 3) << 1);
    crc = eightAtATime(crc, words);
    at += words.length * 4;
  }
  for (; at < length; at++) crc = step(crc, data[at] as number);
  return ~crc >>> 0;
}

/** From this length on a call out of JavaScript pays. */
const LONG_LENGTH = 512;
let forLongData: (data: Uint8Array, previous: number) => number = crc32cByTable;

/** From now on `native`, which has to agree with `crc32cByTable`, is asked for the CRC32C of long data. */
export function useForLongData(native: (data: Uint8Array, previous: number) => number): void {
  forLongData = native;
}

/** The four bytes of a digest as they stand on the wire: least significant first. */
export function encodeDigest(crc: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.of(crc, crc >>> 8, crc >>> 16, crc >>> 24);
}

function eightAtATime(start: number, words: Int32Array): number {
  let crc = start;
  for (let index = 0; index < words.length; index += 2) {
    const low = crc ^ (words[index] as number);
    const high = words[index + 1] as number;
    crc =
      (table[1792 + (low & 0xff)] as number) ^
      (table[1536 + ((low >>> 8) & 0xff)] as number) ^
      (table[1280 + ((low >>> 16) & 0xff)] as number) ^
      (table[1024 + (low >>> 24)] as number) ^
      (table[768 + (high & 0xff)] as number) ^
      (table[512 + ((high >>> 8) & 0xff)] as number) ^
      (table[256 + ((high >>> 16) & 0xff)] as number) ^
      (table[high >>> 24] as number);
  }
  return crc;
}

function step(crc: number, byte: number): number {
  return (table[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8);
}

function makeTable(): Int32Array {
  const made = new Int32Array(SLICES * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let round = 0; round < 8; round++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    made[byte] = crc;
  }
  for (let index = 256; index < made.length; index++) {
    const shorter = made[index - 256] as number;
    made[index] = (made[shorter & 0xff] as number) ^ (shorter >>> 8);
  }
  return made;
}
