import { describe, expect, it, test } from 'vitest';
import { hexVectors } from '../../support/hex-vectors.ts';
import {
  crc32c,
  decodeFpdu,
  decodeMpa,
  decodeReadRequest,
  decodeSegment,
  encodeFpdu,
  encodeMpa,
  encodeReadRequest,
  encodeSegment,
  encodeTerminate,
  enhancedPrivateData,
  Opcode,
  Queue,
  REPLY_KEY,
  REQUEST_KEY,
  splitEnhanced,
} from '../../support/iwarp-codec.ts';

const siw = hexVectors('iwarp-siw.hex');

describe('MPA frames', () => {
  test.each([
    ['request-libiscsi', { key: REQUEST_KEY, crc: false, revision: 2, ird: 4, ord: 0, ulp: 0xc0 }],
    ['request-ib-iser', { key: REQUEST_KEY, crc: false, revision: 2, ird: 128, ord: 1, ulp: 0x80 }],
    ['reply-lio-libiscsi', { key: REPLY_KEY, crc: false, revision: 2, ird: 0, ord: 4, ulp: 0xc0 }],
    ['reply-lio-rev2-cs-16-16-80', { key: REPLY_KEY, crc: true, revision: 2, ird: 16, ord: 16, ulp: 0x80 }],
  ])('%s is what was captured', (name, expected) => {
    const bytes = siw(name);
    const decoded = decodeMpa(bytes);
    const { depths, privateData } = splitEnhanced(decoded?.frame.privateData ?? new Uint8Array(4));
    expect(decoded?.length).toBe(bytes.length);
    expect(decoded?.frame).toMatchObject({ key: expected.key, crc: expected.crc, enhanced: true, markers: false, reject: false });
    expect({ ird: depths.ird, ord: depths.ord, peerToPeer: depths.peerToPeer }).toEqual({
      ird: expected.ird,
      ord: expected.ord,
      peerToPeer: false,
    });
    expect([...privateData]).toEqual([expected.ulp, 0, 0, 0]);
    const again = { key: expected.key, crc: expected.crc, privateData: enhancedPrivateData(depths, privateData) };
    expect(encodeMpa(again)).toEqual(bytes);
  });

  it('carries the flags of a refusal', () => {
    expect(encodeMpa({ key: REPLY_KEY, revision: 2, reject: true })).toEqual(siw('reply-tgtd-rev2-cs-empty'));
    expect(encodeMpa({ key: REPLY_KEY, revision: 1, reject: true })).toEqual(siw('reply-tgtd-rev1-mc'));
    expect(encodeMpa({ key: REPLY_KEY, revision: 0, crc: false })).toEqual(siw('reply-tgtd-rev0'));
  });

  it('carries the peer-to-peer bits', () => {
    const write = { peerToPeer: true, writeRtr: true, readRtr: false, sendRtr: false, ird: 16, ord: 16 };
    const read = { ...write, writeRtr: false, readRtr: true };
    expect(splitEnhanced(siw('reply-lio-rev2-cs-write-rtr').subarray(20)).depths).toEqual(write);
    expect(splitEnhanced(siw('reply-lio-rev2-cs-read-rtr').subarray(20)).depths).toEqual(read);
    expect(enhancedPrivateData(write)).toEqual(siw('reply-lio-rev2-cs-write-rtr').subarray(20, 24));
    expect(enhancedPrivateData(read)).toEqual(siw('reply-lio-rev2-cs-read-rtr').subarray(20, 24));
  });

  it('is not there before its last byte is', () => {
    const bytes = siw('reply-lio-rev2-cs-16-16-80');
    for (let length = 0; length < bytes.length; length++) expect(decodeMpa(bytes.subarray(0, length))).toBeUndefined();
  });
});

describe('FPDUs', () => {
  it('knows the CRC of RFC 3720 for 32 zeros', () => {
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
  });

  test.each([
    'send-login-response-tgtd',
    'send-login-response-lio',
    'write-inquiry-tgtd',
    'send-invalidate-lio',
    'read-request-tgtd',
    'write-first-segment-lio',
    'write-last-segment-lio',
    'read-response-empty',
    'terminate-write-bad-stag',
  ])('%s has the right CRC and is built the same', (name) => {
    const bytes = siw(name);
    const fpdu = decodeFpdu(bytes);
    expect(fpdu).toMatchObject({ crcIsRight: true, length: bytes.length });
    const segment = decodeSegment(fpdu?.ulpdu ?? new Uint8Array(0));
    expect(encodeFpdu(encodeSegment(segment), { crc: true })).toEqual(bytes);
  });

  test.each(['send-no-crc-libiscsi', 'write-no-crc-lio'])('%s has a CRC field of zero', (name) => {
    const bytes = siw(name);
    const fpdu = decodeFpdu(bytes);
    expect(fpdu).toMatchObject({ crc: 0, length: bytes.length });
    expect(encodeFpdu(fpdu?.ulpdu ?? new Uint8Array(0), { crc: false })).toEqual(bytes);
  });

  it('is not there before its last byte is', () => {
    const bytes = siw('write-inquiry-tgtd');
    for (let length = 0; length < bytes.length; length++) expect(decodeFpdu(bytes.subarray(0, length))).toBeUndefined();
  });
});

describe('DDP segments', () => {
  const segment = (name: string) => decodeSegment(decodeFpdu(siw(name))?.ulpdu ?? new Uint8Array(0));

  it('reads a Send', () => {
    expect(segment('send-response-tgtd')).toMatchObject({
      tagged: false,
      last: true,
      opcode: Opcode.send,
      queue: Queue.send,
      msn: 2,
      mo: 0,
    });
    expect(segment('send-response-tgtd').payload).toHaveLength(76);
  });

  it('reads a Send with Invalidate', () => {
    expect(segment('send-invalidate-lio')).toMatchObject({ opcode: Opcode.sendInvalidate, invalidate: 0x1002, msn: 2 });
  });

  it('reads the segments of an RDMA Write', () => {
    expect(segment('write-first-segment-lio')).toMatchObject({
      tagged: true,
      last: false,
      opcode: 0,
      stag: 0x1015,
      offset: 0x10000n,
    });
    expect(segment('write-second-segment-lio')).toMatchObject({ last: false, stag: 0x1015, offset: 0x1059cn });
    expect(segment('write-last-segment-lio')).toMatchObject({ last: true, stag: 0x1015, offset: 0x13db4n });
    expect(segment('write-last-segment-lio').payload).toHaveLength(588);
  });

  it('reads an RDMA Read Request', () => {
    const request = segment('read-request-lio');
    expect(request).toMatchObject({ tagged: false, opcode: Opcode.readRequest, queue: Queue.readRequest, msn: 1 });
    const expected = {
      sinkTag: 0x16c22101,
      sinkOffset: 0xffff88800bc2a000n,
      length: 16384,
      sourceTag: 0x2014,
      sourceOffset: 0x20000n,
    };
    expect(decodeReadRequest(request.payload)).toEqual(expected);
    expect(encodeReadRequest(expected)).toEqual(request.payload);
  });

  it('draws a Terminate as RFC 5040 does: the nibbles of siw, the right way round', () => {
    const bytes = segment('terminate-send-msn-skip').payload;
    const proper = encodeTerminate({ layer: 1, errorType: 2, errorCode: 3, segmentLength: 0x4c, headers: bytes.subarray(6) });
    expect(bytes[0]).toBe(0x21);
    expect(proper[0]).toBe(0x12);
    expect(proper[2]).toBe(0xc0);
    expect(proper.subarray(3)).toEqual(bytes.subarray(3));
  });
});
