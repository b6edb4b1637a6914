/** PDUs against what real peers sent, the RFC's figures, and the table walker as the fast decoders' obvious twin. */

import { describe, expect, it } from 'vitest';
import { ProtocolError } from '../../../../src/errors.ts';
import { type Field, viewOf } from '../../../../src/field.ts';
import {
  AhsType,
  BHS_LENGTH,
  decodeAhs,
  decodeByTable,
  decodePdu,
  describePdu,
  encodeAhs,
  encodeBhs,
  encodeByTable,
  Opcode,
  type OpcodeName,
  opcodeName,
  opcodeOf,
  type Pdu,
  pdu,
  RESERVED_TAG,
  segmentLengths,
} from '../../../../src/iser/iscsi/pdu.ts';
import { headers } from '../../../../src/iser/iscsi/pdu-headers.ts';
import { hex, hexVectors } from '../../../support/hex-vectors.ts';
import { SeededRandom } from '../../../support/seeded-random.ts';

const peers = hexVectors('pdu-peers.hex');
const figures = hexVectors('pdu-figures.hex');
const opcodeNames = Object.keys(Opcode) as OpcodeName[];

/** What each vector says, read off by hand; fields not named are 0. */
const vectors: readonly [
  file: (name: string) => Uint8Array,
  name: string,
  fields: Record<string, unknown> & { opcode: OpcodeName },
][] = [
  [
    peers,
    'scsi-command read 10',
    {
      opcode: 'scsi-command',
      final: true,
      read: true,
      attribute: 1,
      lun: 0x0001_0000_0000_0000n,
      itt: 0x5fb9741e,
      expectedDataTransferLength: 0x4000,
      cmdSn: 0x75124e95,
      expStatSn: 3,
      cdb: hex('5e 00 00 00 00 00 00 40 00 00 00 00 00 00 00 00'),
    },
  ],
  [
    peers,
    'scsi-command write 10',
    {
      opcode: 'scsi-command',
      final: true,
      write: true,
      attribute: 1,
      lun: 0x0001_0000_0000_0000n,
      itt: 0x4970e399,
      expectedDataTransferLength: 0x200,
      cmdSn: 0x24c829ad,
      expStatSn: 3,
      cdb: hex('2a 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00'),
    },
  ],
  [
    peers,
    'data-out not final',
    { opcode: 'data-out', lun: 0x0001_0000_0000_0000n, itt: 0x4970e3b9, ttt: 0xc07465db, expStatSn: 0x24, bufferOffset: 0x2000 },
  ],
  [
    peers,
    'data-out final',
    {
      opcode: 'data-out',
      final: true,
      lun: 0x0001_0000_0000_0000n,
      itt: 0x4970e3a9,
      ttt: 0xc07465db,
      expStatSn: 0x14,
      bufferOffset: 0x2000,
    },
  ],
  [
    peers,
    'task-management-request abort task',
    {
      opcode: 'task-management-request',
      immediate: true,
      function: 1,
      lun: 0x0001_0000_0000_0000n,
      itt: 0x5c0f7ed2,
      referencedTaskTag: 0x5c0f7ed1,
      cmdSn: 0x2bfd73e5,
      expStatSn: 3,
      refCmdSn: 0x2bfd73e4,
    },
  ],
  [
    peers,
    'task-management-request logical unit reset',
    {
      opcode: 'task-management-request',
      immediate: true,
      function: 5,
      lun: 0x0001_0000_0000_0000n,
      itt: 0x343be602,
      referencedTaskTag: RESERVED_TAG,
      cmdSn: 0x7c520af5,
      expStatSn: 3,
    },
  ],
  [
    peers,
    'login-request',
    {
      opcode: 'login-request',
      transit: true,
      csg: 1,
      nsg: 3,
      isid: 0x809836350000,
      itt: 0x4cefe195,
      cmdSn: 0x50b934d6,
      expStatSn: 1,
    },
  ],
  [
    peers,
    'text-request',
    { opcode: 'text-request', immediate: true, final: true, itt: 0x4cefe196, ttt: RESERVED_TAG, cmdSn: 0x50b934d6, expStatSn: 1 },
  ],
  [peers, 'logout-request', { opcode: 'logout-request', immediate: true, itt: 0x5fb97427, cmdSn: 0x75124e9e, expStatSn: 12 }],
  [
    peers,
    'scsi-response check condition',
    { opcode: 'scsi-response', status: 2, itt: 0x5fb9741c, statSn: 1, expCmdSn: 0x75124e94, maxCmdSn: 0x75124f14 },
  ],
  [
    peers,
    'scsi-response good',
    { opcode: 'scsi-response', itt: 0x5fb9741d, statSn: 2, expCmdSn: 0x75124e95, maxCmdSn: 0x75124f15 },
  ],
  [
    peers,
    'task-management-response no such task',
    { opcode: 'task-management-response', response: 1, itt: 0x5c0f7ed2, statSn: 4, expCmdSn: 0x2bfd73e5, maxCmdSn: 0x2bfd7465 },
  ],
  [
    peers,
    'login-response',
    {
      opcode: 'login-response',
      transit: true,
      csg: 1,
      nsg: 3,
      isid: 0x809836350000,
      tsih: 0x100,
      itt: 0x4cefe195,
      expCmdSn: 0x50b934d6,
      maxCmdSn: 0x50b934d7,
    },
  ],
  [
    peers,
    'text-response',
    {
      opcode: 'text-response',
      final: true,
      itt: 0x4cefe196,
      ttt: RESERVED_TAG,
      statSn: 1,
      expCmdSn: 0x50b934d6,
      maxCmdSn: 0x50b934d7,
    },
  ],
  [
    peers,
    'data-in underflow',
    {
      opcode: 'data-in',
      final: true,
      underflow: true,
      hasStatus: true,
      itt: 0x5fb9741e,
      ttt: RESERVED_TAG,
      statSn: 3,
      expCmdSn: 0x75124e96,
      maxCmdSn: 0x75124f16,
      residualCount: 0x3ff8,
    },
  ],
  [
    peers,
    'r2t',
    {
      opcode: 'r2t',
      lun: 0x0001_0000_0000_0000n,
      itt: 0x4970e3a9,
      ttt: 0xc07465db,
      statSn: 0x13,
      expCmdSn: 0x24c829be,
      maxCmdSn: 0x24c82a3e,
      bufferOffset: 0x2000,
      desiredDataTransferLength: 0x200,
    },
  ],
  [
    peers,
    'logout-response',
    { opcode: 'logout-response', itt: 0x5fb97427, statSn: 12, expCmdSn: 0x75124e9e, maxCmdSn: 0x75124f1e },
  ],
  [peers, 'nop-in echo', { opcode: 'nop-in', itt: 7, ttt: RESERVED_TAG, statSn: 2, expCmdSn: 1, maxCmdSn: 0x81 }],
  [
    figures,
    'scsi-command of RFC 7143 appendix',
    {
      opcode: 'scsi-command',
      final: true,
      read: true,
      itt: 0x14000000,
      expectedDataTransferLength: 0x400,
      cmdSn: 0x14,
      expStatSn: 0x18,
      cdb: hex('28 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00'),
    },
  ],
  [
    figures,
    'scsi-command bidirectional with two AHS',
    {
      opcode: 'scsi-command',
      final: true,
      read: true,
      write: true,
      attribute: 3,
      lun: 0x0001_0000_0000_0000n,
      itt: 0x21,
      expectedDataTransferLength: 0x200,
      cmdSn: 0x22,
      expStatSn: 0x23,
      cdb: hex('7f 00 00 00 00 00 00 18 00 09 00 00 00 00 00 ab'),
    },
  ],
  [
    figures,
    'nop-out with ping data',
    {
      opcode: 'nop-out',
      immediate: true,
      lun: 0x0002_0000_0000_0000n,
      itt: 1,
      ttt: RESERVED_TAG,
      cmdSn: 0x0a0b0c0d,
      expStatSn: 0x01020304,
    },
  ],
  [
    figures,
    'snack status',
    { opcode: 'snack', type: 1, itt: RESERVED_TAG, ttt: RESERVED_TAG, expStatSn: 5, begRun: 7, runLength: 2 },
  ],
  [
    figures,
    'data-in acknowledge, not final',
    {
      opcode: 'data-in',
      acknowledge: true,
      lun: 0x0001_0000_0000_0000n,
      itt: 10,
      ttt: 11,
      expCmdSn: 12,
      maxCmdSn: 13,
      dataSn: 2,
      bufferOffset: 0x1000,
    },
  ],
  [
    figures,
    'asynchronous-message logout requested',
    {
      opcode: 'asynchronous-message',
      itt: RESERVED_TAG,
      statSn: 0x11,
      expCmdSn: 0x12,
      maxCmdSn: 0x13,
      asyncEvent: 1,
      parameter3: 30,
    },
  ],
  [
    figures,
    'asynchronous-message connection dropped',
    {
      opcode: 'asynchronous-message',
      itt: RESERVED_TAG,
      statSn: 0x11,
      expCmdSn: 0x12,
      maxCmdSn: 0x13,
      asyncEvent: 2,
      asyncVCode: 7,
      parameter1: 1,
      parameter2: 2,
      parameter3: 20,
    },
  ],
  [
    figures,
    'reject protocol error',
    { opcode: 'reject', reason: 4, itt: RESERVED_TAG, statSn: 0x31, expCmdSn: 0x32, maxCmdSn: 0x33 },
  ],
  [
    figures,
    'scsi-response bidirectional residuals',
    {
      opcode: 'scsi-response',
      bidirectionalOverflow: true,
      underflow: true,
      response: 1,
      status: 2,
      itt: 0x2a,
      snackTag: 0x2b,
      statSn: 0x2c,
      expCmdSn: 0x2d,
      maxCmdSn: 0x2e,
      expDataSn: 0x2f,
      bidirectionalResidualCount: 0x30,
      residualCount: 0x31,
    },
  ],
  [
    figures,
    'login-request continued',
    { opcode: 'login-request', continue: true, isid: 0x80a1b2c3d4e5, tsih: 0x0102, itt: 3, cid: 4, cmdSn: 5, expStatSn: 6 },
  ],
  [
    figures,
    'login-response moved',
    {
      opcode: 'login-response',
      isid: 0x80a1b2c3d4e5,
      tsih: 0x0102,
      itt: 3,
      statSn: 5,
      expCmdSn: 6,
      maxCmdSn: 7,
      statusClass: 1,
      statusDetail: 2,
    },
  ],
  [
    figures,
    'logout-response with times',
    { opcode: 'logout-response', response: 1, itt: 7, statSn: 8, expCmdSn: 9, maxCmdSn: 10, time2Wait: 2, time2Retain: 20 },
  ],
  [figures, 'text-request continued', { opcode: 'text-request', continue: true, itt: 7, ttt: 8, cmdSn: 9, expStatSn: 10 }],
];

describe('PDUs on the wire', () => {
  it.each(vectors.map(([file, name, fields]) => [name, file, fields] as const))(
    '%s: is read and written as it stands',
    (name, file, fields) => {
      const wire = file(name);
      const bhs = wire.subarray(0, BHS_LENGTH);
      const { ahsLength } = segmentLengths(bhs);
      const ahs = wire.subarray(BHS_LENGTH, BHS_LENGTH + ahsLength);
      const data = wire.subarray(BHS_LENGTH + ahsLength);
      const decoded = decodePdu(bhs, data, ahs);
      const expected: Record<string, unknown> = { ...pdu({ opcode: fields.opcode } as never), ...fields, data, ahs };
      expect(decoded).toEqual(expected);

      const { dataSegmentLength } = segmentLengths(bhs);
      // Of long data segments the vectors keep the length alone.
      const whole = { ...decoded, data: data.length === 0 ? new Uint8Array(dataSegmentLength) : data };
      expect(encodeBhs(whole as Pdu)).toEqual(bhs);
    },
  );

  it('has a vector for every opcode', () => {
    expect(new Set(vectors.map(([, , { opcode }]) => opcode))).toEqual(new Set(opcodeNames));
  });
});

describe('header tables', () => {
  it.each(opcodeNames)('%s: no field lies over the opcode or the segment lengths', (name) => {
    for (const field of fieldsOf(name)) {
      const [first, last] = [field.firstBit, field.firstBit + field.widthBits - 1];
      expect(last < 2 || first >= 8, 'opcode').toBe(true);
      expect(last < 32 || first >= 64, 'segment lengths').toBe(true);
    }
  });

  it.each(opcodeNames)('%s: no two fields share a bit', (name) => {
    const seen = new Set<number>();
    for (const { firstBit, widthBits } of fieldsOf(name)) {
      for (let index = firstBit; index < firstBit + widthBits; index++) {
        expect(seen.has(index)).toBe(false);
        seen.add(index);
      }
    }
  });
});

describe('decodePdu', () => {
  it.each(opcodeNames)('%s: agrees with the table walker on random headers', (name) => {
    const random = new SeededRandom(Opcode[name] + 1);
    for (let round = 0; round < 60; round++) {
      const bhs = random.bytes(BHS_LENGTH);
      bhs[0] = ((bhs[0] ?? 0) & 0xc0) | Opcode[name];
      const data = random.bytes(random.between(0, 9));
      const ahs = random.bytes(4 * random.between(0, 2));
      expect(decodePdu(bhs, data, ahs)).toEqual(decodeByTable(name, viewOf(bhs), data, ahs));
    }
  });

  it.each(opcodeNames)('%s: reads back what was written', (name) => {
    const random = new SeededRandom(Opcode[name] + 1000);
    for (let round = 0; round < 60; round++) {
      const source = randomPdu(name, random);
      const bhs = encodeBhs(source);
      expect(decodePdu(bhs, source.data, source.ahs)).toEqual(source);
      expect(segmentLengths(bhs)).toEqual({ ahsLength: source.ahs.length, dataSegmentLength: source.data.length });
      expect(opcodeOf(bhs)).toBe(Opcode[name]);
    }
  });

  it('works on a header anywhere in a larger buffer', () => {
    const wire = peers('scsi-response check condition');
    const buffer = new Uint8Array(200).fill(0xee);
    buffer.set(wire.subarray(0, BHS_LENGTH), 77);
    expect(decodePdu(buffer.subarray(77, 77 + BHS_LENGTH))).toEqual(decodePdu(wire.subarray(0, BHS_LENGTH)));
  });

  it('refuses every opcode that is not in the table', () => {
    const known = new Set<number>(Object.values(Opcode));
    for (let code = 0; code < 64; code++) {
      const bhs = new Uint8Array(BHS_LENGTH);
      bhs[0] = code;
      if (known.has(code)) expect(decodePdu(bhs).opcode).toBe(opcodeName(code));
      else expect(() => decodePdu(bhs)).toThrow(ProtocolError);
    }
    expect(opcodeName(0x3e)).toBeUndefined();
  });

  it('ignores reserved bits', () => {
    const bhs = peers('r2t').slice(0, BHS_LENGTH);
    const expected = decodePdu(bhs.slice());
    bhs[0] = (bhs[0] ?? 0) | 0xc0;
    bhs[1] = 0xff;
    bhs[2] = 0xff;
    bhs[3] = 0xff;
    expect(decodePdu(bhs)).toEqual(expected);
  });
});

describe('encodeBhs', () => {
  it.each(opcodeNames)('%s: agrees with the table walker', (name) => {
    const random = new SeededRandom(Opcode[name] + 2000);
    for (let round = 0; round < 60; round++) {
      const source = randomPdu(name, random);
      const [bhs, byTable] = [encodeBhs(source), new Uint8Array(BHS_LENGTH)];
      encodeByTable(source, viewOf(byTable));
      const isLength = (index: number) => index === 0 || (index >= 4 && index < 8);
      expect(bhs.map((byte, index) => (isLength(index) ? 0 : byte))).toEqual(
        byTable.map((byte, index) => (isLength(index) ? 0 : byte)),
      );
    }
  });

  it('refuses a value that does not fit', () => {
    expect(() => encodeBhs(pdu({ opcode: 'nop-out', itt: 2 ** 32 }))).toThrow(RangeError);
    expect(() => encodeBhs(pdu({ opcode: 'nop-out', itt: -1 }))).toThrow(RangeError);
    expect(() => encodeBhs(pdu({ opcode: 'scsi-command', attribute: 8 }))).toThrow(RangeError);
    expect(() => encodeBhs(pdu({ opcode: 'scsi-command', cdb: new Uint8Array(17) }))).toThrow(RangeError);
    expect(() => encodeBhs(pdu({ opcode: 'nop-out', lun: 2n ** 64n }))).toThrow(RangeError);
    expect(() => encodeBhs(pdu({ opcode: 'nop-out', data: { length: 2 ** 24 } as Uint8Array }))).toThrow(RangeError);
  });

  it('refuses additional headers that are no multiple of 4 bytes', () => {
    expect(() => encodeBhs(pdu({ opcode: 'scsi-command', ahs: new Uint8Array(5) }))).toThrow(RangeError);
  });

  it('sets the immediate bit of every Login Request', () => {
    expect(encodeBhs(pdu({ opcode: 'login-request' }))[0]).toBe(0x43);
  });
});

describe('additional header segments', () => {
  const two = figures('scsi-command bidirectional with two AHS').subarray(BHS_LENGTH);

  it('are split as the RFC lays them out', () => {
    expect(decodeAhs(two)).toEqual([
      { type: AhsType['extended-cdb'], body: hex('00 000102030405060708090a0b0c0d0e0f') },
      { type: AhsType['bidirectional-read-length'], body: hex('00 00001000') },
    ]);
  });

  it('are written as they were', () => {
    expect(encodeAhs(decodeAhs(two))).toEqual(two);
  });

  it('are padded to 4 bytes', () => {
    const odd = [
      { type: 1, body: hex('00 11 22') },
      { type: 2, body: hex('00') },
    ];
    expect(encodeAhs(odd)).toEqual(hex('0003 01 001122 0000 0001 02 00'));
    expect(decodeAhs(encodeAhs(odd))).toEqual(odd);
  });

  it.each([
    ['cut in the header', hex('0005 02')],
    ['longer than what there is', hex('0006 02 00 00001000')],
    ['without a length', hex('0000 02 00')],
    ['cut after the first', hex('0001 02 00 0001')],
  ])('%s: refused', (_, ahs) => {
    expect(() => decodeAhs(ahs)).toThrow(ProtocolError);
  });

  it('never loop or read beyond their end, whatever they hold', () => {
    const random = new SeededRandom(7);
    for (let round = 0; round < 600; round++) {
      const ahs = random.bytes(4 * random.between(0, 6));
      for (let index = 0; index < ahs.length; index += 2) if (random.fraction() < 0.7) ahs[index] = 0;
      try {
        const total = decodeAhs(ahs).reduce((sum, { body }) => sum + 3 + body.length, 0);
        expect(total).toBeLessThanOrEqual(ahs.length);
      } catch (error) {
        expect(error).toBeInstanceOf(ProtocolError);
      }
    }
  });
});

describe('describePdu', () => {
  it('names the PDU and what is not 0, and keeps the data to itself', () => {
    const text = describePdu(
      pdu({ opcode: 'text-request', final: true, itt: 0x10, data: new TextEncoder().encode('CHAP_R=0x1234') }),
    );
    expect(text).toBe('text-request final itt=0x10 data=13');
  });
});

function fieldsOf(name: OpcodeName): Field<unknown>[] {
  return Object.values(headers[name] as Record<string, Field<unknown>>);
}

function randomPdu(name: OpcodeName, random: SeededRandom): Pdu {
  const values: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(headers[name] as Record<string, Field<unknown>>)) {
    const sample = field.get(new DataView(new ArrayBuffer(BHS_LENGTH)));
    if (typeof sample === 'boolean') values[key] = random.fraction() < 0.5;
    else if (typeof sample === 'bigint') values[key] = viewOf(random.bytes(8)).getBigUint64(0);
    else if (typeof sample === 'number') values[key] = random.between(0, 2 ** field.widthBits - 1);
    else values[key] = random.bytes(field.widthBits / 8);
  }
  const data = random.bytes(random.between(0, 300));
  return pdu({ opcode: name, ...values, data, ahs: new Uint8Array(4 * random.between(0, 5)) } as never) as Pdu;
}
