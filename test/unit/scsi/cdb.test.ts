import { describe, expect, it } from 'vitest';
import {
  blocksOf,
  type Cdb,
  type CommandName,
  type CommandRow,
  cdbLength,
  cdbName,
  cdbUsage,
  commands,
  decodeCdb,
  encodeCdb,
  inquiryCdb,
  modeSense6Cdb,
  modeSense10Cdb,
  readCapacity10Cdb,
  readCapacity16Cdb,
  readCdb,
  reportLunsCdb,
  requestSenseCdb,
  synchronizeCacheCdb,
  testUnitReadyCdb,
  writeCdb,
} from '../../../src/scsi/cdb.ts';
import { hex } from '../../support/hex-vectors.ts';
import { SeededRandom } from '../../support/seeded-random.ts';

/** Written by hand after the tables of SPC-4 and SBC-3. */
const vectors: [cdb: Uint8Array, bytes: string, title: string][] = [
  [testUnitReadyCdb(), '00 00 00 00 00 00', 'TEST UNIT READY'],
  [requestSenseCdb({ length: 252, descriptorFormat: true }), '03 01 00 00 fc 00', 'REQUEST SENSE'],
  [inquiryCdb({ length: 36 }), '12 00 00 00 24 00', 'INQUIRY'],
  [inquiryCdb({ evpd: true, page: 0x83, length: 0x1234 }), '12 01 83 12 34 00', 'INQUIRY'],
  [reportLunsCdb({ length: 0x0102_0304, selectReport: 2 }), 'a0 00 02 00 00 00 01 02 03 04 00 00', 'REPORT LUNS'],
  [readCapacity10Cdb(), '25 00 00 00 00 00 00 00 00 00', 'READ CAPACITY(10)'],
  [readCapacity16Cdb(), '9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00', 'READ CAPACITY(16)'],
  [readCdb({ lba: 0xfedc_ba98, blocks: 0xffff, size: 10 }), '28 00 fe dc ba 98 00 ff ff 00', 'READ(10)'],
  [
    readCdb({ lba: 0x1a_bcde_f012_3456, blocks: 0x9876_5432, size: 16, fua: true }),
    '88 08 00 1a bc de f0 12 34 56 98 76 54 32 00 00',
    'READ(16)',
  ],
  [writeCdb({ lba: 1, blocks: 2, size: 10, fua: true }), '2a 08 00 00 00 01 00 00 02 00', 'WRITE(10)'],
  [writeCdb({ lba: 2 ** 32, blocks: 1, size: 16 }), '8a 00 00 00 00 01 00 00 00 00 00 00 00 01 00 00', 'WRITE(16)'],
  [synchronizeCacheCdb({ size: 10 }), '35 00 00 00 00 00 00 00 00 00', 'SYNCHRONIZE CACHE(10)'],
  [
    synchronizeCacheCdb({ size: 16, lba: 8, blocks: 16 }),
    '91 00 00 00 00 00 00 00 00 08 00 00 00 10 00 00',
    'SYNCHRONIZE CACHE(16)',
  ],
  [modeSense6Cdb({ page: 0x3f, length: 192 }), '1a 08 3f 00 c0 00', 'MODE SENSE(6)'],
  [
    modeSense10Cdb({ page: 8, pageControl: 1, subpage: 0xff, length: 0x0200, blockDescriptors: true }),
    '5a 00 48 ff 00 00 00 02 00 00',
    'MODE SENSE(10)',
  ],
  [encodeCdb('read-6', { lba: 0x1f_ffff, blocks: 1 }), '08 1f ff ff 01 00', 'READ(6)'],
  [encodeCdb('write-12', { lba: 1, blocks: 0x0001_0000, dpo: true }), 'aa 10 00 00 00 01 00 01 00 00 00 00', 'WRITE(12)'],
  [encodeCdb('verify-16', { lba: 3, blocks: 1, byteCheck: 3 }), '8f 06 00 00 00 00 00 00 00 03 00 00 00 01 00 00', 'VERIFY(16)'],
  [
    encodeCdb('write-same-16', { lba: 9, blocks: 8, unmap: true, noDataOut: true }),
    '93 09 00 00 00 00 00 00 00 09 00 00 00 08 00 00',
    'WRITE SAME(16)',
  ],
  [encodeCdb('unmap', { parameterListLength: 24 }), '42 00 00 00 00 00 00 00 18 00', 'UNMAP'],
  [
    encodeCdb('get-lba-status', { lba: 5, allocationLength: 24 }),
    '9e 12 00 00 00 00 00 00 00 05 00 00 00 18 00 00',
    'GET LBA STATUS',
  ],
  [encodeCdb('start-stop-unit', { start: true }), '1b 00 00 00 01 00', 'START STOP UNIT'],
  [encodeCdb('mode-select-6', { pageFormat: true, parameterListLength: 24 }), '15 10 00 00 18 00', 'MODE SELECT(6)'],
  [
    encodeCdb('report-supported-operation-codes', {
      reportingOptions: 2,
      requestedOpcode: 0x9e,
      requestedServiceAction: 0x10,
      allocationLength: 64,
    }),
    'a3 0c 02 9e 00 10 00 00 00 40 00 00',
    'REPORT SUPPORTED OPERATION CODES',
  ],
];

describe('CDBs', () => {
  it.each(vectors)('%#: %s', (cdb, bytes, title) => {
    expect(cdb).toEqual(hex(bytes));
    expect(cdbName(cdb)).toBe(title);
  });

  const names = Object.keys(commands) as CommandName[];

  it.each(names)('%s: what is encoded is decoded, also with the padding of iSCSI', (name) => {
    const random = new SeededRandom(2);
    const row: CommandRow = commands[name];
    for (let round = 0; round < 20; round++) {
      const values: Record<string, unknown> = {};
      for (const [field, { widthBits }] of Object.entries(row.fields)) {
        values[field] = widthBits === 1 ? random.below(2) === 1 : random.below(2 ** Math.min(widthBits, 53));
      }
      const cdb = encodeCdb(name, values);
      const padded = new Uint8Array(16).fill(0xff);
      padded.set(cdb);
      expect(decodeCdb(cdb)).toEqual({ name, ...values });
      expect(decodeCdb(padded)).toEqual({ name, ...values });
      for (let length = 1; length < cdb.length; length++) expect(decodeCdb(cdb.subarray(0, length))).toBeUndefined();
    }
  });

  it.each(names)('%s: the usage mask covers the bits of every field, and no bit of the code', (name) => {
    const row: CommandRow = commands[name];
    const usage = cdbUsage(row);
    expect(usage.length).toBe(cdbLength(row.opcode));
    expect(usage[0]).toBe(row.opcode);
    let ones = 0;
    for (const byte of usage.subarray(1)) for (let bit = 0; bit < 8; bit++) ones += (byte >> bit) & 1;
    const action =
      row.serviceAction === undefined ? 0 : [0, 1, 2, 3, 4].filter((bit) => ((row.serviceAction ?? 0) >> bit) & 1).length;
    expect(ones).toBe(Object.values(row.fields).reduce((sum, { widthBits }) => sum + widthBits, 0) + action);
  });

  it('no two commands share an operation code and service action', () => {
    const codes = Object.values<CommandRow>(commands).map((row) => `${row.opcode}/${row.serviceAction}`);
    expect(new Set(codes).size).toBe(codes.length);
  });

  it('a value that does not fit is refused', () => {
    expect(() => readCdb({ lba: 2 ** 32, blocks: 1, size: 10 })).toThrow(RangeError);
    expect(() => readCdb({ lba: 0, blocks: 0x1_0000, size: 10 })).toThrow(RangeError);
    expect(() => readCdb({ lba: 2 ** 53, blocks: 1, size: 16 })).toThrow(RangeError);
    expect(() => readCdb({ lba: -1, blocks: 1, size: 16 })).toThrow(RangeError);
    expect(() => encodeCdb('read-6', { lba: 2 ** 21 })).toThrow(RangeError);
  });

  it('an LBA beyond 2^53 from the wire keeps its magnitude', () => {
    const cdb = decodeCdb(hex('88 00 ff ff ff ff ff ff ff ff 00 00 00 01 00 00')) as Cdb<'read-16'>;
    expect(cdb.lba).toBe(2 ** 64);
  });

  it('0 blocks are 256 in the 6-byte commands alone', () => {
    expect(blocksOf(decodeCdb(hex('08 00 00 00 00 00')) as Cdb<'read-6'>)).toBe(256);
    expect(blocksOf(decodeCdb(hex('28 00 00 00 00 00 00 00 00 00')) as Cdb<'read-10'>)).toBe(0);
  });

  it.each([
    ['5e 00', 'operation code 5Eh'],
    ['9e 1f', 'operation code 9Eh service action 1Fh'],
    ['', 'TEST UNIT READY'],
  ])('names an unknown command by its numbers (%s)', (bytes, name) => {
    expect(cdbName(hex(bytes))).toBe(name);
  });
});
