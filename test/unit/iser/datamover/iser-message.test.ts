import { describe, expect, it, test } from 'vitest';
import {
  allowsRemoteInvalidate,
  decodeIserHeader,
  encodeCmHeader,
  encodeIserHeader,
  ISER_HEADER_LENGTH,
  PLAIN_HEADER,
} from '../../../../src/iser/datamover/iser-header.ts';
import { decodeMessage, encodeMessage, MESSAGE_HEADER_LENGTH } from '../../../../src/iser/datamover/iser-message.ts';
import { AhsType, encodeAhs, type Pdu, pdu } from '../../../../src/iser/iscsi/pdu.ts';
import { decodeText } from '../../../../src/iser/iscsi/text.ts';
import { hex, hexVectors } from '../../../support/hex-vectors.ts';
import { SeededRandom } from '../../../support/seeded-random.ts';

const peers = hexVectors('iser-peers.hex');
const frames = hexVectors('iwarp-siw.hex');

/** The message in a Send that fits in one frame: behind its length and the DDP and RDMAP header, before pad and CRC. */
function messageIn(frame: Uint8Array): Uint8Array {
  const length = (frame[0] ?? 0) * 256 + (frame[1] ?? 0);
  return frame.subarray(2 + 18, 2 + length);
}

/** What is left of a message as others write it when it is read and written again. */
function rewritten(message: Uint8Array): Uint8Array {
  const { header, pdu: read } = decodeMessage(message);
  const into = new Uint8Array(message.length);
  return into.subarray(0, encodeMessage(into, header, read));
}

describe('messages of other implementations', () => {
  test.each<[string, object, object]>([
    ['libiscsi test-unit-ready', PLAIN_HEADER, { opcode: 'scsi-command', final: true, expectedDataTransferLength: 0 }],
    [
      'libiscsi inquiry',
      { read: { tag: 0x2660d600, address: 0x7f4ed0241010n }, write: undefined },
      { opcode: 'scsi-command', read: true, write: false, expectedDataTransferLength: 64 },
    ],
    [
      'ib-iser inquiry',
      { read: { tag: 0xd9d83801, address: 0xffff88800e498c00n }, write: undefined },
      { opcode: 'scsi-command', itt: 0x0100_0000, final: true, read: true, expectedDataTransferLength: 36 },
    ],
    [
      'ib-iser report-luns',
      { read: { tag: 0xd9d83804, address: 0xffff88800e12b000n }, write: undefined },
      { lun: 0n, itt: 0x0500_0000 },
    ],
    [
      'ib-iser read',
      { read: { tag: 0x9b6c0a0b, address: 0xffff88800e0a8000n }, write: undefined },
      { expectedDataTransferLength: 4096, cdb: hex('28000000 00000000 08000000 00000000') },
    ],
    ['libiscsi logout', PLAIN_HEADER, { opcode: 'logout-request', reason: 0 }],
    ['lio test-unit-ready-response', PLAIN_HEADER, { opcode: 'scsi-response', status: 0 }],
    ['lio inquiry-response', PLAIN_HEADER, { opcode: 'scsi-response', underflow: false }],
    ['lio inquiry-response-invalidating', PLAIN_HEADER, { opcode: 'scsi-response', itt: 0x0100_0000 }],
    ['lio report-luns-response', PLAIN_HEADER, { opcode: 'scsi-response', underflow: true, residualCount: 0xff0 }],
    ['lio logout-response', PLAIN_HEADER, { opcode: 'logout-response', response: 0 }],
  ])('%s is read, and written again byte for byte', (name, header, fields) => {
    const message = peers(name);
    const decoded = decodeMessage(message);
    expect(decoded.header).toEqual(header);
    expect(decoded.pdu).toMatchObject(fields);
    expect(rewritten(message)).toEqual(message);
  });

  it('a Login Response of tgtd, which does not pad', () => {
    const { pdu: read } = decodeMessage(messageIn(frames('send-login-response-tgtd')));
    expect(read.data.length % 4).not.toBe(0);
    expect(decodeText(read.data)).toContainEqual(['RDMAExtensions', 'Yes']);
  });

  it('a Login Response of LIO, which pads', () => {
    const message = messageIn(frames('send-login-response-lio'));
    const { pdu: read } = decodeMessage(message);
    expect(message.length).toBeGreaterThan(MESSAGE_HEADER_LENGTH + read.data.length);
    expect(decodeText(read.data)).toContainEqual(['RDMAExtensions', 'Yes']);
  });
});

describe('an iSER header', () => {
  it('says of each STag whether it is there', () => {
    const read = { tag: 1, address: 2n };
    const write = { tag: 0xffff_ffff, address: 0xffff_ffff_ffff_ffffn };
    for (const header of [PLAIN_HEADER, { read, write: undefined }, { read: undefined, write }, { read, write }]) {
      const bytes = new Uint8Array(ISER_HEADER_LENGTH).fill(0xee);
      encodeIserHeader(bytes, header);
      expect(decodeIserHeader(bytes)).toEqual(header);
    }
  });

  it('is laid out as in the RFC', () => {
    const bytes = new Uint8Array(ISER_HEADER_LENGTH);
    encodeIserHeader(bytes, {
      write: { tag: 0x01020304, address: 0x05060708090a0b0cn },
      read: { tag: 0x0d0e0f10, address: 0x1112131415161718n },
    });
    expect(bytes).toEqual(hex('1c000000 01020304 05060708090a0b0c 0d0e0f10 1112131415161718'));
  });

  it('says nothing by an STag that is not valid, whatever stands there', () => {
    expect(decodeIserHeader(hex('10000000 01020304 05060708090a0b0c 0d0e0f10 1112131415161718'))).toEqual(PLAIN_HEADER);
  });

  test.each([
    ['Hello', '20', /iSER Hello,.*iSERHelloRequired/],
    ['HelloReply', '30', /iSER HelloReply/],
    ['opcode 0', '00', /unknown iSER opcode 0/],
    ['opcode 15', 'ff', /unknown iSER opcode 15/],
  ])('of another kind is refused: %s', (_name, first, message) => {
    const bytes = hex(`${first}000000${'00'.repeat(72)}`);
    expect(() => decodeMessage(bytes)).toThrow(
      expect.objectContaining({ code: 'protocol-error', message: expect.stringMatching(message) }),
    );
  });
});

describe('a message', () => {
  const command = (data: Uint8Array): Pdu =>
    pdu({ opcode: 'scsi-command', write: true, itt: 7, expectedDataTransferLength: data.length, data });

  it('is not padded', () => {
    const into = new Uint8Array(100);
    expect(encodeMessage(into, PLAIN_HEADER, command(new Uint8Array(5)))).toBe(MESSAGE_HEADER_LENGTH + 5);
  });

  it('may be padded by up to 3 bytes, and by no more', () => {
    const into = new Uint8Array(200);
    const length = encodeMessage(into, PLAIN_HEADER, command(hex('0102030405')));
    for (let padding = 0; padding <= 3; padding++) {
      expect(decodeMessage(into.subarray(0, length + padding)).pdu.data).toEqual(hex('0102030405'));
    }
    expect(() => decodeMessage(into.subarray(0, length + 4))).toThrow(/85 bytes with a PDU of 53/);
  });

  it('is refused wherever it is cut off', () => {
    const into = new Uint8Array(200);
    const length = encodeMessage(into, PLAIN_HEADER, { ...command(new Uint8Array(40)), ahs: longCdb() } as Pdu);
    expect(decodeMessage(into.subarray(0, length)).pdu.data.length).toBe(40);
    for (let cut = 0; cut < length; cut++) {
      expect(() => decodeMessage(into.subarray(0, cut)), `${cut} bytes`).toThrow(
        expect.objectContaining({ code: 'protocol-error' }),
      );
    }
  });

  it('is refused where its additional headers do not fill their length', () => {
    const into = new Uint8Array(200);
    const length = encodeMessage(into, PLAIN_HEADER, { ...command(new Uint8Array(0)), ahs: hex('00ff0100') } as Pdu);
    expect(() => decodeMessage(into.subarray(0, length))).toThrow(/additional header/);
  });

  it('is refused with an opcode that iSCSI does not have', () => {
    const bytes = new Uint8Array(MESSAGE_HEADER_LENGTH);
    bytes[0] = 0x10;
    bytes[ISER_HEADER_LENGTH] = 0x1f;
    expect(() => decodeMessage(bytes)).toThrow(/unknown opcode 0x1f/);
  });

  it('of random bytes is read or refused, and never anything else', () => {
    const random = new SeededRandom(7145);
    let read = 0;
    for (let round = 0; round < 5000; round++) {
      const bytes = random.bytes(MESSAGE_HEADER_LENGTH + random.below(8));
      if (round % 2 === 0) bytes.fill(0, ISER_HEADER_LENGTH + 4, ISER_HEADER_LENGTH + 8);
      bytes[0] = ((bytes[0] ?? 0) & 0x0f) | 0x10;
      try {
        decodeMessage(bytes);
        read++;
      } catch (error) {
        expect(error).toMatchObject({ code: 'protocol-error' });
      }
    }
    expect(read).toBeGreaterThan(50);
  });

  function longCdb(): Uint8Array {
    return encodeAhs([{ type: AhsType['extended-cdb'], body: new Uint8Array(17) }]);
  }
});

describe('private data', () => {
  it('says that addresses are virtual and whether Send with Invalidate is welcome', () => {
    expect(encodeCmHeader({ sendWithInvalidate: true })).toEqual(hex('80000000'));
    expect(encodeCmHeader({ sendWithInvalidate: false })).toEqual(hex('c0000000'));
  });

  test.each([
    ['our own', '80000000', true],
    ['LIO, and ib_iser with a registration for each command', '80000000', true],
    ['libiscsi', 'c0000000', false],
    ['padded by the fabric', `80000000${'00'.repeat(52)}`, true],
    ['tgtd over iWARP, which says nothing', '', false],
    ['tgtd over InfiniBand, of whose silence the fabric makes zeros', '00'.repeat(56), false],
    ['too short to say anything', '8000', false],
  ])('of %s', (_who, bytes, allows) => {
    expect(allowsRemoteInvalidate(hex(bytes))).toBe(allows);
  });
});
