import { describe, expect, it } from 'vitest';
import type { IserfsError } from '../../../src/errors.ts';
import {
  decodeLun,
  decodeReportLuns,
  encodeReportLuns,
  lunFromNumber,
  lunLabel,
  lunNumber,
  parseLun,
  REPORT_LUNS_WELL_KNOWN,
} from '../../../src/scsi/lun.ts';
import { hexVectors } from '../../support/hex-vectors.ts';
import { SeededRandom } from '../../support/seeded-random.ts';

const tgtd = hexVectors('scsi-tgtd.hex');

describe('LUN addressing (byte 0 and 1 as in the figures of SAM-5)', () => {
  it.each([
    ['peripheral', 0x0005_0000_0000_0000n, { method: 'peripheral', number: 5 }, '5'],
    ['peripheral, the last', 0x00ff_0000_0000_0000n, { method: 'peripheral', number: 255 }, '255'],
    ['flat', 0x412c_0000_0000_0000n, { method: 'flat', number: 300 }, '300'],
    ['flat, with a number that peripheral has too', 0x4005_0000_0000_0000n, { method: 'flat', number: 5 }, 'flat-5'],
    ['flat, the last', 0x7fff_0000_0000_0000n, { method: 'flat', number: 16383 }, '16383'],
    [
      'logical unit behind a bridge',
      0x8123_0000_0000_0000n,
      { method: 'logical-unit', bus: 1, target: 1, number: 3 },
      'bus-1-target-1-lun-3',
    ],
    ['extended flat', 0xd201_0000_0000_0000n, { method: 'extended-flat', number: 0x1_0000 }, '65536'],
    ['extended flat, small', 0xd200_0007_0000_0000n, { method: 'extended-flat', number: 7 }, 'extended-flat-7'],
    [
      'long extended flat',
      0xe201_0000_0000_0000n,
      { method: 'long-extended-flat', number: 0x1_0000_0000 },
      'long-extended-flat-4294967296',
    ],
    ['REPORT LUNS well-known', REPORT_LUNS_WELL_KNOWN, { method: 'well-known', number: 1 }, 'well-known-1'],
    ['two levels', 0x0102_0003_0000_0000n, { method: 'other' }, '0x0102000300000000'],
    ['another bus', 0x0105_0000_0000_0000n, { method: 'other' }, '0x0105000000000000'],
    ['flat with a second level', 0x4001_0001_0000_0000n, { method: 'other' }, '0x4001000100000000'],
    ['not specified', 0xffff_ffff_ffff_ffffn, { method: 'other' }, '0xffffffffffffffff'],
  ])('%s', (_, lun, address, label) => {
    expect(decodeLun(lun)).toEqual(address);
    expect(lunLabel(lun)).toBe(label);
    expect(parseLun(label)).toBe(lun);
  });

  it('labels are unique, fit in a path and can be read back, whatever the 8 bytes', () => {
    const random = new SeededRandom(5);
    const seen = new Map<string, bigint>();
    const first = [0x00, 0x01, 0x40, 0x7f, 0x80, 0xc1, 0xd2, 0xe2, 0xf3];
    for (let round = 0; round < 2000; round++) {
      const bytes = random.bytes(8);
      if (round % 2 === 0) bytes.fill(0, 2);
      if (round % 3 === 0) bytes.fill(0, 4);
      bytes[0] = round % 4 === 0 ? (bytes[0] ?? 0) : (first[round % first.length] ?? 0);
      const lun = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0);
      const label = lunLabel(lun);
      expect(label).toMatch(/^[a-z0-9-]{1,40}$/);
      expect(parseLun(label)).toBe(lun);
      expect(seen.get(label) ?? lun).toBe(lun);
      seen.set(label, lun);
    }
  });

  it.each([
    [0, 0n],
    [255, 0x00ff_0000_0000_0000n],
    [256, 0x4100_0000_0000_0000n],
    [16383, 0x7fff_0000_0000_0000n],
    [16384, 0xd200_4000_0000_0000n],
    [0xff_ffff, 0xd2ff_ffff_0000_0000n],
  ])('unit %d', (number, lun) => {
    expect(lunFromNumber(number)).toBe(lun);
    expect(lunNumber(lun)).toBe(number);
    expect(lunLabel(lun)).toBe(String(number));
  });

  it('has no number for what is not a plain one', () => {
    expect(lunNumber(REPORT_LUNS_WELL_KNOWN)).toBeUndefined();
    expect(lunNumber(0x8123_0000_0000_0000n)).toBeUndefined();
    expect(() => lunFromNumber(2 ** 24)).toThrow(RangeError);
    expect(() => lunFromNumber(-1)).toThrow(RangeError);
  });

  it.each([
    '',
    'x',
    '-1',
    '01',
    '1.5',
    '16777216',
    '0x01',
    'flat-16384',
    'peripheral-256',
    'bus-8-target-0-lun-0',
    'well-known-256',
    '../0',
  ])('"%s" names no LUN', (label) => {
    expect(() => parseLun(label)).toThrow(expect.objectContaining({ code: 'bad-configuration' }) as IserfsError);
  });
});

describe('REPORT LUNS data', () => {
  it('of tgtd, with a LUN beyond 255', () => {
    const inventory = decodeReportLuns(tgtd('controller report luns'));
    expect(inventory.luns.map(lunLabel)).toEqual(['0', '1', '2', '300']);
    expect(inventory.totalLength).toBe(40);
    expect(encodeReportLuns(inventory.luns)).toEqual(tgtd('controller report luns'));
  });

  it('cut off at every byte: whole LUNs only, and the length that was meant', () => {
    const whole = tgtd('controller report luns');
    for (let length = 0; length < whole.length; length++) {
      const inventory = decodeReportLuns(whole.subarray(0, length));
      expect(inventory.luns.length).toBe(Math.max(0, Math.floor((length - 8) / 8)));
      expect(inventory.totalLength).toBe(length < 8 ? 8 : 40);
    }
  });

  it('ignores what follows the list', () => {
    const data = new Uint8Array(64);
    data.set(encodeReportLuns([1n << 48n]));
    expect(decodeReportLuns(data)).toEqual({ luns: [1n << 48n], totalLength: 16 });
  });
});
