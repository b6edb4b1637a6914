import { describe, expect, it } from 'vitest';
import {
  type Capacity,
  decodeCapacity10,
  decodeCapacity16,
  encodeCapacity10,
  encodeCapacity16,
} from '../../../src/scsi/capacity.ts';
import { hex, hexVectors } from '../../support/hex-vectors.ts';

const tgtd = hexVectors('scsi-tgtd.hex');

const plain: Capacity = {
  lastLba: 0x1ffffn,
  blockLength: 512,
  logicalBlocksPerPhysicalBlockExponent: 0,
  lowestAlignedLba: 0,
  thin: false,
  readZeros: false,
  protectionType: undefined,
};

describe('READ CAPACITY data', () => {
  it('(10) of tgtd', () => {
    expect(decodeCapacity10(tgtd('lun1 rc10'))).toEqual(plain);
    expect(encodeCapacity10(plain)).toEqual(tgtd('lun1 rc10'));
  });

  it('(16) of tgtd', () => {
    const capacity = { ...plain, logicalBlocksPerPhysicalBlockExponent: 3 };
    expect(decodeCapacity16(tgtd('lun1 rc16'))).toEqual(capacity);
    expect(encodeCapacity16(capacity)).toEqual(tgtd('lun1 rc16'));
  });

  it('of tgtd: 3 TiB, thin', () => {
    const capacity = { ...plain, lastLba: 0x1_7fff_ffffn, logicalBlocksPerPhysicalBlockExponent: 3, thin: true, readZeros: true };
    expect(decodeCapacity16(tgtd('lun2 rc16'))).toEqual(capacity);
    expect(encodeCapacity16(capacity)).toEqual(tgtd('lun2 rc16'));
    expect(encodeCapacity10(capacity)).toEqual(tgtd('lun2 rc10'));
  });

  it('(10): a last LBA of FFFFFFFFh does not fit, the one before does', () => {
    expect(encodeCapacity10({ lastLba: 0xffff_ffffn, blockLength: 512 })).toEqual(hex('ffffffff 00000200'));
    expect(encodeCapacity10({ lastLba: 0xffff_fffen, blockLength: 512 })).toEqual(hex('fffffffe 00000200'));
  });

  it('(16) after the figure in SBC-3: protection type 3, alignment of 14 bits', () => {
    const bytes = hex('ffffffffffffffff 00001000 05 03 ffff 00000000 00000000 00000000 00000000');
    const capacity: Capacity = {
      lastLba: 0xffff_ffff_ffff_ffffn,
      blockLength: 4096,
      logicalBlocksPerPhysicalBlockExponent: 3,
      lowestAlignedLba: 0x3fff,
      thin: true,
      readZeros: true,
      protectionType: 3,
    };
    expect(decodeCapacity16(bytes)).toEqual(capacity);
    expect(encodeCapacity16(capacity)).toEqual(bytes);
  });

  it('(16) of 12 bytes, as SBC-2 has it', () => {
    expect(decodeCapacity16(hex('000000000001ffff 00000200'))).toEqual(plain);
  });

  it('too short, or with blocks of no length, it is none', () => {
    expect(decodeCapacity10(new Uint8Array(7))).toBeUndefined();
    expect(decodeCapacity10(hex('0001ffff 00000000'))).toBeUndefined();
    expect(decodeCapacity16(new Uint8Array(11))).toBeUndefined();
    expect(decodeCapacity16(new Uint8Array(32))).toBeUndefined();
  });
});
