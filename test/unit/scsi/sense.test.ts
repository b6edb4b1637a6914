import { describe, expect, it } from 'vitest';
import { additionalSenseText } from '../../../src/scsi/additional-sense.ts';
import {
  decodeSense,
  encodeSense,
  type Sense,
  SenseKey,
  type SenseValues,
  senseError,
  senseText,
} from '../../../src/scsi/sense.ts';
import { hex, hexVectors } from '../../support/hex-vectors.ts';

const tgtd = hexVectors('scsi-tgtd.hex');

/** Written by hand after SPC's figures; sg_decode_sense (sg3-utils 1.46) reads the same from each. */
const vectors: [name: string, bytes: string, sense: Sense][] = [
  [
    'fixed, current, with INFORMATION and a retry count',
    'f0 00 03 12 34 56 78 0a 00 00 00 00 11 00 00 80 00 07',
    {
      key: 3,
      asc: 0x11,
      ascq: 0,
      deferred: false,
      descriptorFormat: false,
      incorrectLength: false,
      information: 0x12345678n,
      retryCount: 7,
    },
  ],
  [
    'fixed, deferred',
    '71 00 03 00 00 00 00 0a 00 00 00 00 0c 00 00 00 00 00',
    { key: 3, asc: 0x0c, ascq: 0, deferred: true, descriptorFormat: false, incorrectLength: false },
  ],
  [
    'fixed, with progress',
    '70 00 02 00 00 00 00 0a 00 00 00 00 04 04 00 80 40 00',
    { key: 2, asc: 4, ascq: 4, deferred: false, descriptorFormat: false, incorrectLength: false, progress: 0.25 },
  ],
  [
    'descriptors, with a field pointer',
    '72 05 24 00 00 00 00 08 02 06 00 00 cd 00 02 00',
    {
      key: 5,
      asc: 0x24,
      ascq: 0,
      deferred: false,
      descriptorFormat: true,
      incorrectLength: false,
      fieldPointer: { inCdb: true, byte: 2, bit: 5 },
    },
  ],
  [
    'descriptors, with INFORMATION beyond 32 bits and a retry count',
    '72 03 11 00 00 00 00 14 00 0a 80 00 00 00 00 01 80 00 00 05 02 06 00 00 80 00 03 00',
    {
      key: 3,
      asc: 0x11,
      ascq: 0,
      deferred: false,
      descriptorFormat: true,
      incorrectLength: false,
      information: 0x1_8000_0005n,
      retryCount: 3,
    },
  ],
  [
    'descriptors, with ILI',
    '72 00 00 00 00 00 00 04 05 02 00 20',
    { key: 0, asc: 0, ascq: 0, deferred: false, descriptorFormat: true, incorrectLength: true },
  ],
  [
    'descriptors, deferred',
    '73 03 0c 00 00 00 00 00',
    { key: 3, asc: 0x0c, ascq: 0, deferred: true, descriptorFormat: true, incorrectLength: false },
  ],
];

describe('sense data', () => {
  it.each(vectors)('%s', (_, bytes, sense) => {
    expect(decodeSense(hex(bytes))).toEqual(sense);
    expect(encodeSense(sense)).toEqual(hex(bytes));
  });

  it('descriptors: the direct-access block device descriptor', () => {
    const bytes =
      '72 0e 1d 00 00 00 00 20 0d 1e a0 00 00 00 00 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00';
    expect(decodeSense(hex(bytes))).toMatchObject({ key: SenseKey.miscompare, information: 0x200n, incorrectLength: true });
  });

  it('descriptors: one that is unknown is stepped over', () => {
    const bytes = '72 03 11 00 00 00 00 10 80 02 aa bb 00 0a 80 00 00 00 00 00 00 00 00 09';
    expect(decodeSense(hex(bytes))).toMatchObject({ information: 9n });
  });

  it('descriptors: one whose length leaves the data ends the list', () => {
    expect(decodeSense(hex('72 03 11 00 00 00 00 0c 00 ff 80 00 00 00 00 00 00 00 00 09'))?.information).toBeUndefined();
  });

  it.each([
    ['unit attention', SenseKey['unit-attention'], 0x29, 0],
    ['lba out of range', SenseKey['illegal-request'], 0x21, 0],
    ['invalid opcode', SenseKey['illegal-request'], 0x20, 0],
    ['write protected', SenseKey['data-protect'], 0x27, 0],
    ['lun not supported', SenseKey['illegal-request'], 0x25, 0],
  ])('of tgtd: %s', (name, key, asc, ascq) => {
    expect(decodeSense(tgtd(`sense ${name}`))).toEqual({
      key,
      asc,
      ascq,
      deferred: false,
      descriptorFormat: false,
      incorrectLength: false,
    });
  });

  it.each(vectors)('cut off at every byte: what is there is right, or nothing is (%s)', (_, bytes, sense) => {
    const whole = hex(bytes);
    for (let length = 0; length < whole.length; length++) {
      const cut = decodeSense(whole.subarray(0, length));
      if (cut === undefined) {
        expect(length).toBeLessThan(4);
        continue;
      }
      expect(cut.key).toBe(sense.key);
      expect([sense.asc, 0]).toContain(cut.asc);
      expect([sense.information, undefined]).toContain(cut.information);
      expect([sense.progress, undefined]).toContain(cut.progress);
    }
  });

  it('fixed: what ADDITIONAL SENSE LENGTH leaves out is not read', () => {
    expect(decodeSense(hex('70 00 06 00 00 00 00 00 00 00 00 00 29 00 00 00 00 00'))).toMatchObject({ key: 6, asc: 0, ascq: 0 });
  });

  it('fixed: INFORMATION without VALID does not count', () => {
    expect(decodeSense(hex('70 00 03 00 00 00 05 0a 00 00 00 00 11 00 00 00 00 00'))?.information).toBeUndefined();
  });

  it('fixed: an INFORMATION beyond 32 bits is left out', () => {
    const bytes = encodeSense({ key: 3, asc: 0x11, ascq: 0, information: 2n ** 32n });
    expect(bytes).toEqual(hex('70 00 03 00 00 00 00 0a 00 00 00 00 11 00 00 00 00 00'));
  });

  it.each(['', '00', '7f 00 03 00 00 00 00 0a', '74 05 24 00', '70 00', '72 05 24'])('%s is no sense data', (bytes) => {
    expect(decodeSense(hex(bytes))).toBeUndefined();
  });
});

describe('the names of additional sense codes', () => {
  // As sg_decode_sense words them, from each part of the table.
  it.each([
    [0x00, 0x00, 'no additional sense information'],
    [0x04, 0x02, 'logical unit not ready, initializing command required'],
    [0x0c, 0x02, 'write error - auto reallocation failed'],
    [0x11, 0x00, 'unrecovered read error'],
    [0x21, 0x00, 'logical block address out of range'],
    [0x24, 0x00, 'invalid field in CDB'],
    [0x27, 0x07, 'space allocation failed write protect'],
    [0x29, 0x07, 'I_T nexus loss occurred'],
    [0x2a, 0x09, 'capacity data has changed'],
    [0x38, 0x07, 'thin provisioning soft threshold reached'],
    [0x3f, 0x0e, 'reported LUNs data has changed'],
    [0x47, 0x7f, 'some commands cleared by iSCSI protocol event'],
    [0x5d, 0xff, 'failure prediction threshold exceeded (false)'],
    [0x74, 0x79, 'security conflict in translated device'],
  ])('%i/%i', (asc, ascq, text) => {
    expect(additionalSenseText(asc, ascq)).toBe(text);
  });

  it.each([
    [0x40, 0x85, 'diagnostic failure on component 85h'],
    [0x4d, 0x12, 'tagged overlapped commands, task tag 12h'],
    [0x70, 0x03, 'decompression exception short algorithm ID 03h'],
    [0x11, 0x7e, 'unrecovered read error, unknown qualifier 7Eh'],
    [0x11, 0x80, 'unrecovered read error, vendor specific qualifier 80h'],
    [0x80, 0x01, 'vendor specific additional sense code 80h/01h'],
    [0x7e, 0x01, 'unknown additional sense code 7Eh/01h'],
  ])('%i/%i, which have no row of their own', (asc, ascq, text) => {
    expect(additionalSenseText(asc, ascq)).toBe(text);
  });
});

describe('sense data in words', () => {
  it('says key, code in words and numbers, and the field', () => {
    const sense = decodeSense(hex('72 05 24 00 00 00 00 08 02 06 00 00 cd 00 02 00')) as Sense;
    expect(senseText(sense)).toBe('ILLEGAL REQUEST: invalid field in CDB (24h/00h, CDB byte 2 bit 5)');
  });

  it('says that it is deferred', () => {
    const sense = decodeSense(hex('71 00 03 00 00 00 00 0a 00 00 00 00 0c 00 00 00 00 00')) as Sense;
    expect(senseText(sense)).toBe('deferred MEDIUM ERROR: write error (0Ch/00h)');
  });

  const at = { description: '127.0.0.1:3260 iqn.x LUN 1', command: 'WRITE(16)' };
  const code = (sense: SenseValues) => senseError(decodeSense(encodeSense(sense)) as Sense, at).code;

  it('as an error: where, which command, which block', () => {
    const sense = decodeSense(hex('f0 00 03 00 00 00 63 0a 00 00 00 00 11 00 00 00 00 00')) as Sense;
    expect(senseError(sense, { ...at, lba: 96 }).message).toBe(
      '127.0.0.1:3260 iqn.x LUN 1: WRITE(16) at LBA 96: MEDIUM ERROR: unrecovered read error (11h/00h, information 99)',
    );
  });

  it.each([
    [SenseKey['medium-error'], 0x11, 0x00, 'medium-error'],
    [SenseKey['hardware-error'], 0x44, 0x00, 'hardware-error'],
    [SenseKey['not-ready'], 0x04, 0x01, 'not-ready'],
    [SenseKey['not-ready'], 0x3a, 0x00, 'not-ready'],
    [SenseKey['illegal-request'], 0x24, 0x00, 'illegal-request'],
    [SenseKey['illegal-request'], 0x20, 0x00, 'unsupported'],
    [SenseKey['illegal-request'], 0x21, 0x00, 'out-of-range'],
    [SenseKey['illegal-request'], 0x25, 0x00, 'logical-unit-gone'],
    [SenseKey['data-protect'], 0x27, 0x00, 'write-protected'],
    [SenseKey['data-protect'], 0x27, 0x07, 'no-space'],
    [SenseKey['data-protect'], 0x20, 0x02, 'write-protected'],
    [SenseKey['unit-attention'], 0x2a, 0x09, 'logical-unit-changed'],
    [SenseKey['aborted-command'], 0x4b, 0x00, 'hardware-error'],
    [SenseKey['volume-overflow'], 0x00, 0x00, 'no-space'],
    [SenseKey['vendor-specific'], 0x80, 0x00, 'hardware-error'],
  ])('key %i with %i/%i has the code of its kind', (key, asc, ascq, expected) => {
    expect(code({ key, asc, ascq })).toBe(expected);
  });
});
