import { describe, expect, it, test } from 'vitest';
import { type Digests, encodePdu, JOINED_LENGTH, NO_DIGESTS, PduBatch } from '../../../../src/iser/datamover/pdu-batch.ts';
import { type Pdu, pdu } from '../../../../src/iser/iscsi/pdu.ts';

const BOTH: Digests = { header: true, data: true };

function pattern(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => index * 7);
}

function join(segments: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(segments));
}

function dataOut(data: Uint8Array, itt = 1): Pdu {
  return pdu({ opcode: 'data-out', itt, data });
}

describe('one PDU', () => {
  it('passes a long data segment on as it lies', () => {
    const data = pattern(JOINED_LENGTH + 1);
    const segments = encodePdu(dataOut(data), BOTH);
    expect(segments.filter((segment) => segment === data)).toHaveLength(1);
    expect(segments.map(({ length }) => length)).toEqual([52, JOINED_LENGTH + 1, 7]);
  });

  it('copies a short data segment beside its header', () => {
    const data = pattern(JOINED_LENGTH - 1);
    expect(encodePdu(dataOut(data), BOTH).map(({ length }) => length)).toEqual([52 + JOINED_LENGTH - 1 + 5]);
  });

  test.each([
    [0, 48],
    [1, 52],
    [2, 52],
    [3, 52],
    [4, 52],
    [5, 56],
  ])('pads %i bytes of data to %i bytes in all', (length, total) => {
    const bytes = join(encodePdu(pdu({ opcode: 'nop-out', data: pattern(length).fill(0xff) }), NO_DIGESTS));
    expect(bytes.length).toBe(total);
    expect(bytes.subarray(48 + length)).toEqual(new Uint8Array(total - 48 - length));
  });
});

describe('several PDUs', () => {
  test.each([NO_DIGESTS, BOTH])('are the bytes of each in order, whatever the memory held before: %j', (digests) => {
    const long = JOINED_LENGTH + 3;
    const pdus = [10, 0, long, 1, long, long, 0, 512].map((length, index) => dataOut(pattern(length), index));
    const batch = new PduBatch(new Uint8Array(64 * 1024).fill(0xee));
    for (const each of pdus) batch.add(each, digests);
    const expected = join(pdus.map((each) => join(encodePdu(each, digests))));
    expect(batch.length).toBe(expected.length);
    expect(join(batch.segments)).toEqual(expected);
  });

  it('go out in one segment where none of their data is long', () => {
    const batch = PduBatch.take();
    for (let itt = 0; itt < 20; itt++) batch.add(dataOut(pattern(4096), itt), NO_DIGESTS);
    expect(batch.segments).toHaveLength(1);
    batch.release();
  });

  it('fit until the batch says that it is full', () => {
    const batch = new PduBatch(new Uint8Array(40_000));
    const longestAhs = new Uint8Array(255 * 4);
    let count = 0;
    for (; !batch.isFull; count++)
      batch.add(pdu({ opcode: 'scsi-command', ahs: longestAhs, data: pattern(JOINED_LENGTH - 1) }), BOTH);
    expect(count).toBe(4);
  });

  it('leave nothing behind in a batch that is used again', () => {
    const batch = PduBatch.take();
    batch.add(dataOut(pattern(JOINED_LENGTH + 3).fill(0xff)), BOTH);
    const sent = batch.segments.length;
    batch.release();
    const again = PduBatch.take();
    again.add(dataOut(pattern(8), 2), NO_DIGESTS);
    expect({ isSame: again === batch, sent, length: again.length }).toEqual({ isSame: true, sent: 3, length: 56 });
    expect(join(again.segments)).toEqual(join(encodePdu(dataOut(pattern(8), 2), NO_DIGESTS)));
    again.release();
  });

  it('do not share memory with a batch that is not released', () => {
    const [first, second] = [PduBatch.take(), PduBatch.take()];
    first.add(dataOut(pattern(8).fill(1)), NO_DIGESTS);
    second.add(dataOut(pattern(8).fill(2)), NO_DIGESTS);
    expect(join(first.segments).subarray(48)).toEqual(new Uint8Array(8).fill(1));
    first.release();
    second.release();
  });
});
