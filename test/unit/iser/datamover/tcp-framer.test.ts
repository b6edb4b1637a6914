import { describe, expect, it, test } from 'vitest';
import { ProtocolError } from '../../../../src/errors.ts';
import { type Digests, encodePdu, NO_DIGESTS } from '../../../../src/iser/datamover/pdu-batch.ts';
import { DIRECT_PLACEMENT_LENGTH, PduReader, type PduSink, type Placement } from '../../../../src/iser/datamover/tcp-framer.ts';
import { AhsType, describePdu, encodeAhs, type Pdu, pdu } from '../../../../src/iser/iscsi/pdu.ts';
import { hex, hexVectors } from '../../../support/hex-vectors.ts';

const BOTH: Digests = { header: true, data: true };
const LONGEST = 1 << 20;

/** Keeps what it receives; places data where `place` says. */
class KeepingSink implements PduSink {
  readonly pdus: Pdu[] = [];
  place: (header: Pdu, length: number) => Placement = () => 'lend';
  afterEach: (pdu: Pdu) => void = () => {};

  begin(header: Pdu, length: number): Placement {
    return this.place(header, length);
  }

  receive(received: Pdu): void {
    const copy = { ...received, data: received.data.slice(), ahs: received.ahs.slice() };
    this.pdus.push('cdb' in copy ? ({ ...copy, cdb: copy.cdb.slice() } as Pdu) : (copy as Pdu));
    this.afterEach(received);
  }
}

function readerFor(peer: 'initiator' | 'target', digests: Digests = NO_DIGESTS): { sink: KeepingSink; reader: PduReader } {
  const sink = new KeepingSink();
  const reader = new PduReader(peer, sink);
  reader.configure(digests, LONGEST);
  return { sink, reader };
}

/** Feeds through `nextBuffer`/`filled`, at most `most` bytes at a time, as a socket would. */
function fill(reader: PduReader, bytes: Uint8Array, most = Number.MAX_SAFE_INTEGER): void {
  let at = 0;
  while (at < bytes.length && !reader.isPaused) {
    const buffer = reader.nextBuffer();
    const count = Math.min(buffer.length, most, bytes.length - at);
    buffer.set(bytes.subarray(at, at + count));
    reader.filled(count);
    at += count;
  }
}

function join(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

function wire(source: Pdu, digests: Digests = NO_DIGESTS): Uint8Array {
  return join(...encodePdu(source, digests));
}

/** As `toEqual`, for large data a hundred times as fast. */
function expectSame(actual: readonly Pdu[], expected: readonly Pdu[]): void {
  const withoutData = (pdus: readonly Pdu[]) => pdus.map((each) => ({ ...each, data: each.data.length }));
  expect(withoutData(actual)).toEqual(withoutData(expected));
  for (const [index, each] of actual.entries()) expect(Buffer.compare(each.data, expected[index]?.data ?? hex(''))).toBe(0);
}

/** All of a PDU in one line. */
function fingerprint(source: Pdu): string {
  return `${describePdu(source)} ${Buffer.from(source.ahs).toString('hex')} ${Buffer.from(source.data).toString('hex')}`;
}

function pattern(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 7 + (index >> 8)) & 0xff);
}

const vector = hexVectors('datamover-tgtd-crc32c.hex');
const CAPTURED = [
  '1 scsi-response',
  '2 scsi-response',
  '3 data-in',
  '4 data-in',
  '5 data-in',
  '6 data-in',
  '7 data-in',
  '8 data-in',
  '9 data-in',
  '10 r2t',
  '11 r2t',
  '12 scsi-response',
  '13 nop-in',
  '14 logout-response',
];

/** A session's worth of PDUs of an initiator, with every length of padding, and additional headers. */
const COMMANDS: readonly Pdu[] = [
  pdu({ opcode: 'nop-out', itt: 1, ttt: 0xffffffff, cmdSn: 5 }),
  pdu({
    opcode: 'scsi-command',
    itt: 2,
    final: true,
    write: true,
    expectedDataTransferLength: 5,
    cdb: hex('2a000000000000000100000000000000'),
    data: pattern(5),
    ahs: encodeAhs([{ type: AhsType['extended-cdb'], body: hex('00112233445566778899') }]),
  }),
  pdu({ opcode: 'data-out', itt: 2, ttt: 7, final: true, data: pattern(6) }),
  pdu({ opcode: 'data-out', itt: 2, ttt: 7, final: true, data: pattern(7) }),
  pdu({ opcode: 'text-request', itt: 3, final: true, ttt: 0xffffffff, data: pattern(64) }),
  pdu({
    opcode: 'scsi-command',
    itt: 4,
    final: true,
    read: true,
    expectedDataTransferLength: 512,
    cdb: hex('28000000000000000100000000000000'),
  }),
];

describe('reading what tgtd sends', () => {
  it('finds the PDUs and accepts their digests', () => {
    const { sink, reader } = readerFor('target', BOTH);
    fill(reader, join(...CAPTURED.map(vector)));
    expect(sink.pdus.map(({ opcode, data }) => [opcode, data.length])).toEqual([
      ['scsi-response', 20],
      ['scsi-response', 0],
      ['data-in', 36],
      ['data-in', 5],
      ['data-in', 6],
      ['data-in', 7],
      ['data-in', 512],
      ['data-in', 512],
      ['data-in', 512],
      ['r2t', 0],
      ['r2t', 0],
      ['scsi-response', 0],
      ['nop-in', 5],
      ['logout-response', 0],
    ]);
    expect(sink.pdus[3]).toMatchObject({ final: true, hasStatus: true, status: 0, dataSn: 0, bufferOffset: 0 });
    expect(sink.pdus[9]).toMatchObject({ r2tSn: 0, bufferOffset: 512, desiredDataTransferLength: 1024 });
    expect(new TextDecoder().decode(sink.pdus[12]?.data)).toBe('ping!');
  });

  it('reads the login response, which has no digests and fills its text to the last byte', () => {
    const { sink, reader } = readerFor('target');
    fill(reader, vector('0 login-response'));
    expect(new TextDecoder().decode(sink.pdus[0]?.data)).toMatch(/^TargetPortalGroupTag=1\0HeaderDigest=CRC32C\0.*=1\0$/);
  });

  test.each(['3 data-in', '4 data-in', '5 data-in', '6 data-in', '10 r2t'])('encodes %s to the same bytes', (name) => {
    const { sink, reader } = readerFor('target', BOTH);
    fill(reader, vector(name));
    expect(wire(sink.pdus[0] as Pdu, BOTH)).toEqual(vector(name));
  });

  it('refuses every single wrong bit of a PDU with digests', () => {
    const good = vector('4 data-in');
    for (let flipped = 0; flipped < good.length * 8; flipped++) {
      // A length that grows only makes the reader wait for more: the header digest is what ends it.
      const bad = join(good, new Uint8Array(2048));
      bad[flipped >> 3] = (bad[flipped >> 3] as number) ^ (0x80 >> (flipped & 7));
      const { sink, reader } = readerFor('target', BOTH);
      expect(() => fill(reader, bad), `bit ${flipped}`).toThrow(/digest of a .* is wrong/);
      expect(sink.pdus).toEqual([]);
    }
  });
});

describe('pieces', () => {
  const cases: readonly (readonly [string, Digests])[] = [
    ['without digests', NO_DIGESTS],
    ['with header digests', { header: true, data: false }],
    ['with data digests', { header: false, data: true }],
    ['with both digests', BOTH],
  ];

  test.each(cases)('PDUs %s may be cut at every position', (_, digests) => {
    const bytes = join(...COMMANDS.map((each) => wire(each, digests)));
    for (let cut = 0; cut <= bytes.length; cut++) {
      const { sink, reader } = readerFor('initiator', digests);
      fill(reader, bytes.subarray(0, cut));
      fill(reader, bytes.subarray(cut));
      expect(sink.pdus.map(fingerprint), `cut at ${cut}`).toEqual(COMMANDS.map(fingerprint));
      expect(reader.isWithinPdu).toBe(false);
    }
  });

  test.each([1, 2, 3, 5, 47, 48, 49, 100])('PDUs may come %i bytes at a time', (size) => {
    const bytes = join(...COMMANDS.map((each) => wire(each, BOTH)));
    const { sink, reader } = readerFor('initiator', BOTH);
    fill(reader, bytes, size);
    expect(sink.pdus).toEqual(COMMANDS);
  });

  it('PDUs may come all at once from elsewhere', () => {
    const { sink, reader } = readerFor('initiator', BOTH);
    reader.receive(join(...COMMANDS.map((each) => wire(each, BOTH))));
    expect(sink.pdus).toEqual(COMMANDS);
  });

  it('says whether it is within a PDU at every position', () => {
    const bytes = join(...COMMANDS.map((each) => wire(each, BOTH)));
    const ends = new Set<number>([0]);
    let end = 0;
    for (const each of COMMANDS) {
      end += wire(each, BOTH).length;
      ends.add(end);
    }
    const { reader } = readerFor('initiator', BOTH);
    for (let at = 0; at < bytes.length; at++) {
      expect(reader.isWithinPdu, `at ${at}`).toBe(!ends.has(at));
      fill(reader, bytes.subarray(at, at + 1));
    }
  });
});

describe('placement', () => {
  const length = 3 * DIRECT_PLACEMENT_LENGTH + 2;
  const data = pattern(length);
  const dataIn = pdu({ opcode: 'data-in', itt: 9, final: true, data });

  test.each([
    ['all at once', Number.MAX_SAFE_INTEGER],
    ['in small pieces', 1000],
  ])('puts data %s into the place that the sink names', (_, most) => {
    const memory = new Uint8Array(length + 200);
    const { sink, reader } = readerFor('target', BOTH);
    sink.place = (header, announced) => {
      expect(header.itt).toBe(9);
      return memory.subarray(100, 100 + announced);
    };
    fill(reader, wire(dataIn, BOTH), most);
    expectSame(sink.pdus, [dataIn]);
    expect(Buffer.compare(memory.subarray(100, 100 + length), data)).toBe(0);
    expect(memory.subarray(0, 100)).toEqual(new Uint8Array(100));
    expect(memory.subarray(100 + length)).toEqual(new Uint8Array(100));
  });

  it('names the very memory of the place for a large rest, and its own for a small one', () => {
    const memory = new Uint8Array(length);
    const { sink, reader } = readerFor('target');
    sink.place = () => memory;
    const bytes = wire(dataIn);
    fill(reader, bytes.subarray(0, 48 + 10));
    const direct = reader.nextBuffer();
    expect(direct.buffer).toBe(memory.buffer);
    expect([direct.byteOffset, direct.length]).toEqual([10, length - 10]);
    direct.set(data.subarray(10, length - 100));
    reader.filled(length - 110);
    expect(reader.nextBuffer().buffer).not.toBe(memory.buffer);
    fill(reader, bytes.subarray(48 + length - 100));
    expect(Buffer.compare(memory, data)).toBe(0);
    expect(sink.pdus).toHaveLength(1);
  });

  it('takes short reads after a large payload, so that little of the next is copied', () => {
    const memory = new Uint8Array(256 * 1024);
    const { sink, reader } = readerFor('target');
    sink.place = () => memory;
    fill(reader, wire(pdu({ opcode: 'data-in', data: memory.slice() })));
    expect(reader.nextBuffer().length).toBeLessThanOrEqual(4096);
  });

  it('takes what follows a large payload in the same read, and keeps it where that pauses', () => {
    const memory = new Uint8Array(length);
    const { sink, reader } = readerFor('target');
    sink.place = (header) => (header.opcode === 'data-in' ? memory : 'lend');
    const next = pdu({ opcode: 'nop-in', itt: 3, data: pattern(50) });
    const bytes = join(wire(dataIn), wire(next), wire(next));
    fill(reader, bytes.subarray(0, 48 + 10));
    const payload = reader.nextBuffer();
    expect(payload.length).toBe(length - 10);
    const further = reader.furtherBuffer() as Uint8Array;
    payload.set(bytes.subarray(58, 48 + length));
    further.set(bytes.subarray(48 + length));
    sink.afterEach = () => reader.pause();
    reader.filled(bytes.length - 58);
    expect(Buffer.compare(memory, data)).toBe(0);
    expect(sink.pdus.map(({ opcode }) => opcode)).toEqual(['data-in']);
    sink.afterEach = () => {};
    reader.resume();
    expectSame(sink.pdus.slice(1), [next, next]);
  });

  it('has no further buffer where the next bytes are not a large payload', () => {
    const { reader } = readerFor('target');
    reader.nextBuffer();
    expect(reader.furtherBuffer()).toBeUndefined();
  });

  it('discards what the sink does not want, and goes on', () => {
    const { sink, reader } = readerFor('target', BOTH);
    sink.place = (header) => (header.opcode === 'data-in' ? 'discard' : 'lend');
    fill(reader, join(wire(dataIn, BOTH), wire(pdu({ opcode: 'nop-in', data: pattern(3) }), BOTH)));
    expect(sink.pdus.map(({ opcode, data: got }) => [opcode, got.length])).toEqual([
      ['data-in', 0],
      ['nop-in', 3],
    ]);
  });

  it('writes nothing more to the place of a task that is ended within its data', () => {
    const memory = new Uint8Array(length);
    const { sink, reader } = readerFor('target', BOTH);
    sink.place = () => memory;
    const bytes = wire(dataIn, BOTH);
    fill(reader, bytes.subarray(0, 52 + 1000));
    reader.discardData(8);
    expect(reader.nextBuffer().buffer).toBe(memory.buffer);
    reader.discardData(9);
    expect(reader.nextBuffer().buffer).not.toBe(memory.buffer);
    fill(reader, join(bytes.subarray(52 + 1000), wire(pdu({ opcode: 'nop-in' }), BOTH)));
    expect(Buffer.compare(memory.subarray(1000), new Uint8Array(length - 1000))).toBe(0);
    expect(sink.pdus.map(({ opcode }) => opcode)).toEqual(['data-in', 'nop-in']);
  });

  it('still checks the data digest of what is discarded', () => {
    const { sink, reader } = readerFor('target', BOTH);
    sink.place = () => 'discard';
    const bytes = wire(dataIn, BOTH);
    bytes[5000] = (bytes[5000] as number) ^ 1;
    expect(() => fill(reader, bytes)).toThrow('data digest of a data-in is wrong');
    expect(sink.pdus).toEqual([]);
  });
});

describe('the buffer that lies ready', () => {
  /** Feeds one read of `data` bytes in PDUs, and says how long the buffer was. */
  const read = (reader: PduReader, count: number): number => {
    const nops = Array.from({ length: count }, (_, itt) => wire(pdu({ opcode: 'nop-in', itt })));
    const bytes = join(...nops);
    const buffer = reader.nextBuffer();
    const taken = Math.min(buffer.length, bytes.length);
    buffer.set(bytes.subarray(0, taken));
    reader.filled(taken);
    if (taken < bytes.length) fill(reader, bytes.subarray(taken));
    return buffer.length;
  };

  it('is small while reads are, large after one has filled it, and small again after many that would not have', () => {
    const { sink, reader } = readerFor('target');
    const small = read(reader, 1);
    for (let reads = 0; reads < 20; reads++) expect(read(reader, 2)).toBe(small);
    expect(small).toBeLessThanOrEqual(4096);
    read(reader, 200);
    const large = read(reader, 1);
    expect(large).toBeGreaterThanOrEqual(8 * small);
    let lengths = 0;
    while (read(reader, 1) === large) lengths++;
    expect(lengths).toBeGreaterThan(8);
    expect(lengths).toBeLessThan(32);
    expect(read(reader, 1)).toBe(small);
    expect(sink.pdus.length).toBeGreaterThan(200);
  });

  it('stays large while reads need it from time to time', () => {
    const { reader } = readerFor('target');
    read(reader, 200);
    for (let round = 0; round < 10; round++) {
      for (let reads = 0; reads < 10; reads++) expect(read(reader, 1)).toBeGreaterThan(4096);
      read(reader, 200);
    }
  });
});

describe('pauses', () => {
  it('looks at nothing beyond the PDU after which it was paused', () => {
    const bytes = join(...COMMANDS.map((each) => wire(each, BOTH)));
    const { sink, reader } = readerFor('initiator', BOTH);
    sink.afterEach = () => reader.pause();
    fill(reader, bytes);
    for (let count = 1; count <= COMMANDS.length; count++) {
      expect(sink.pdus).toEqual(COMMANDS.slice(0, count));
      expect(reader.isPaused).toBe(true);
      reader.resume();
    }
    expect(sink.pdus).toEqual(COMMANDS);
    expect(reader.isWithinPdu).toBe(false);
  });

  it('applies digests that are agreed on while it is paused to what has waited', () => {
    const login = pdu({ opcode: 'login-response', transit: true, csg: 1, nsg: 3, data: pattern(9) });
    const nop = pdu({ opcode: 'nop-in', itt: 3, data: pattern(2) });
    const { sink, reader } = readerFor('target');
    sink.afterEach = ({ opcode }) => opcode === 'login-response' && reader.pause();
    fill(reader, join(wire(login), wire(nop, BOTH)));
    reader.configure(BOTH, LONGEST);
    reader.resume();
    expect(sink.pdus).toEqual([login, nop]);
  });
});

describe('malformed input', () => {
  const refusals: readonly (readonly [string, 'initiator' | 'target', Uint8Array, RegExp])[] = [
    ['an opcode that nobody has defined', 'target', join(hex('3e80'), new Uint8Array(46)), /unknown opcode 0x3e/],
    ['a PDU of the other direction', 'target', wire(pdu({ opcode: 'nop-out' })), /nop-out, which no target sends/],
    ['a PDU of the other direction at a target', 'initiator', wire(pdu({ opcode: 'r2t' })), /r2t, which no initiator sends/],
    ['another protocol by its first bytes', 'target', new TextEncoder().encode('SSH-2.0'), /unknown opcode 0x13/],
    [
      'additional headers on a PDU that has none',
      'target',
      wire({ ...pdu({ opcode: 'scsi-response' }), ahs: encodeAhs([{ type: 1, body: hex('0011') }]) }),
      /scsi-response with additional header segments/,
    ],
    [
      'an additional header that does not fill its segment',
      'initiator',
      wire({ ...pdu({ opcode: 'scsi-command', final: true }), ahs: hex('00ff010000000000') }),
      /additional header of 255 bytes does not fit/,
    ],
  ];

  test.each(refusals)('refuses %s', (_, peer, bytes, message) => {
    const { sink, reader } = readerFor(peer);
    expect(() => fill(reader, bytes)).toThrow(message);
    expect(() => fill(readerFor(peer).reader, bytes)).toThrow(ProtocolError);
    expect(sink.pdus).toEqual([]);
  });

  it('refuses a data segment that is longer than declared before any of it comes', () => {
    const { sink, reader } = readerFor('target');
    reader.configure(NO_DIGESTS, 512);
    let asked = false;
    sink.place = () => {
      asked = true;
      return 'lend';
    };
    const bytes = wire(pdu({ opcode: 'data-in', data: pattern(513) }));
    expect(() => fill(reader, bytes.subarray(0, 48))).toThrow('data-in with 513 bytes of data where at most 512 may come');
    expect(asked).toBe(false);
  });

  it('takes no more than 8192 bytes during login', () => {
    const text = (length: number) => wire(pdu({ opcode: 'login-response', data: pattern(length) }));
    const sink = new KeepingSink();
    fill(new PduReader('target', sink), text(8192));
    expect(sink.pdus).toHaveLength(1);
    expect(() => fill(new PduReader('target', sink), text(8193))).toThrow(ProtocolError);
  });
});
