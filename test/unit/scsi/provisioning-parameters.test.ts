import { describe, expect, it } from 'vitest';
import { decodeLbaStatus, decodeUnmapList, encodeLbaStatus, encodeUnmapList } from '../../../src/scsi/provisioning-parameters.ts';

const hex = (text: string) => Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));

// SBC-3, UNMAP parameter list and UNMAP block descriptor.
const LIST = hex('0026 0020 00000000  0000000000000010 00000008 00000000  0000000100000000 ffffffff 00000000');
// SBC-3, GET LBA STATUS parameter data.
const STATUS = hex('00000024 00000000  0000000000000008 00000008 00 000000  0000000000000010 00001000 01 000000');

describe('the parameter list of UNMAP', () => {
  const runs = [
    { lba: 16, blocks: 8 },
    { lba: 2 ** 32, blocks: 0xffff_ffff },
  ];

  it('is written and read', () => {
    expect(encodeUnmapList(runs)).toEqual(LIST);
    expect(decodeUnmapList(LIST)).toEqual(runs);
  });

  it('that is cut off has its whole descriptors', () => {
    expect(decodeUnmapList(LIST.subarray(0, 39))).toEqual(runs.slice(0, 1));
    expect(decodeUnmapList(LIST.subarray(0, 7))).toBeUndefined();
  });
});

describe('the data of GET LBA STATUS', () => {
  const statuses = [
    { lba: 8, blocks: 8, status: 0 },
    { lba: 16, blocks: 4096, status: 1 },
  ];

  it('is written and read', () => {
    expect(encodeLbaStatus(statuses)).toEqual(STATUS);
    expect(decodeLbaStatus(STATUS)).toEqual(statuses);
  });

  it('that is cut off has its whole descriptors', () => {
    expect(decodeLbaStatus(STATUS.subarray(0, 39))).toEqual(statuses.slice(0, 1));
    expect(decodeLbaStatus(STATUS.subarray(0, 7))).toEqual([]);
  });
});
