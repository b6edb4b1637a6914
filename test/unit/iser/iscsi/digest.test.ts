import { describe, expect, it } from 'vitest';
import { crc32c, encodeDigest } from '../../../../src/iser/iscsi/digest.ts';
import { hex, hexVectors } from '../../../support/hex-vectors.ts';
import { SeededRandom } from '../../../support/seeded-random.ts';

/** Bit by bit, as the polynomial is defined: the slow, obvious twin. */
function plainCrc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let round = 0; round < 8; round++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

describe('crc32c', () => {
  // The examples of RFC 7143 appendix A.4, digests in wire order.
  it.each([
    ['32 bytes of zeros', new Uint8Array(32), 'aa36918a'],
    ['32 bytes of ones', new Uint8Array(32).fill(0xff), '43aba862'],
    ['32 bytes counting up', Uint8Array.from({ length: 32 }, (_, index) => index), '4e79dd46'],
    ['32 bytes counting down', Uint8Array.from({ length: 32 }, (_, index) => 31 - index), '5cdb3f11'],
    ['a READ(10) command PDU', hexVectors('pdu-figures.hex')('scsi-command of RFC 7143 appendix'), '563a96d9'],
    ['"123456789"', new TextEncoder().encode('123456789'), '839206e3'],
  ])('%s', (_, data, digest) => {
    expect(encodeDigest(crc32c(data))).toEqual(hex(digest));
  });

  it('agrees with the definition at every length and alignment', () => {
    const random = new SeededRandom(32);
    const buffer = random.bytes(400);
    for (let offset = 0; offset < 9; offset++) {
      for (let length = 0; length < 80; length++) {
        const data = buffer.subarray(offset, offset + length);
        expect(crc32c(data)).toBe(plainCrc32c(data));
      }
    }
  });

  it('runs on over pieces as over the whole', () => {
    const random = new SeededRandom(33);
    const data = random.bytes(5000);
    for (let round = 0; round < 50; round++) {
      let crc = 0;
      for (let at = 0; at < data.length; ) {
        const length = random.between(0, 700);
        crc = crc32c(data.subarray(at, at + length), crc);
        at += length;
      }
      expect(crc).toBe(plainCrc32c(data));
    }
  });

  it('is 0 for no bytes', () => {
    expect(crc32c(new Uint8Array(0))).toBe(0);
  });
});
