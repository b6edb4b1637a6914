import { beforeEach, describe, expect, it, test } from 'vitest';
import { IserfsError } from '../../../../src/errors.ts';
import type { DataParameters } from '../../../../src/iser/datamover/datamover.ts';
import { TargetSequence } from '../../../../src/iser/datamover/target-sequence.ts';
import {
  type InitiatorControlPdu,
  NO_BYTES,
  type Pdu,
  type PduFields,
  pdu,
  RESERVED_TAG,
} from '../../../../src/iser/iscsi/pdu.ts';

const parameters: DataParameters = {
  headerDigest: false,
  dataDigest: false,
  maxSendDataSegmentLength: 512,
  maxRecvDataSegmentLength: 8192,
  maxBurstLength: 1024,
  firstBurstLength: 1024,
  initialR2T: true,
  immediateData: true,
  maxOutstandingR2T: 1,
};
const NUMBERING = { statSn: 21, expCmdSn: 22, maxCmdSn: 23 };
const GONE = new IserfsError('aborted', 'gone');

let sequence: TargetSequence;

function enabled(changes: Partial<DataParameters> = {}): void {
  sequence = new TargetSequence();
  sequence.enable({ ...parameters, ...changes });
}

beforeEach(() => enabled());

function pattern(length: number, from = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => ((from + index) * 5 + ((from + index) >> 8)) & 0xff);
}

/** Takes a whole PDU as the framer would: header, placement, PDU. */
function arrive(received: Pdu): InitiatorControlPdu | undefined {
  const place = sequence.begin({ ...received, data: NO_BYTES } as Pdu, received.data.length);
  if (typeof place === 'string')
    return sequence.receive(place === 'discard' ? ({ ...received, data: NO_BYTES } as Pdu) : received);
  place.set(received.data);
  return sequence.receive({ ...received, data: place } as Pdu);
}

const command = (fields: Partial<PduFields<'scsi-command'>>) =>
  pdu({ opcode: 'scsi-command', itt: 1, final: true, lun: 6n, ...fields });
const write = (length: number, fields: Partial<PduFields<'scsi-command'>> = {}) =>
  command({ write: true, expectedDataTransferLength: length, ...fields });
const read = (length: number) => command({ read: true, expectedDataTransferLength: length });
const dataOut = (fields: Partial<PduFields<'data-out'>>) => pdu({ opcode: 'data-out', itt: 1, ttt: RESERVED_TAG, ...fields });

function nextR2T(): Pdu<'r2t'> {
  const next = sequence.nextPdu(NUMBERING);
  if (next?.pdu.opcode !== 'r2t') throw new Error(`no R2T is due, but ${next?.pdu.opcode}`);
  return next.pdu;
}

/** Answers an R2T with what it asks for, in pieces. */
function answer(r2t: Pdu<'r2t'>, size = 512): void {
  const { ttt, bufferOffset, desiredDataTransferLength: length } = r2t;
  for (let at = 0, dataSn = 0; at < length; at += size, dataSn++) {
    const count = Math.min(size, length - at);
    const final = at + count === length;
    arrive(dataOut({ ttt, dataSn, final, bufferOffset: bufferOffset + at, data: pattern(count, bufferOffset + at) }));
  }
}

/** Every Data-In PDU that is due: offset, length, DataSN, F. */
function drain(): [number, number, number, boolean][] {
  const out: [number, number, number, boolean][] = [];
  for (let next = sequence.nextPdu(NUMBERING); next !== undefined; next = sequence.nextPdu(NUMBERING)) {
    if (next.pdu.opcode !== 'data-in') throw new Error(`an R2T in between`);
    if (next.token !== undefined) sequence.sent(next.token);
    out.push([next.pdu.bufferOffset, next.pdu.data.length, next.pdu.dataSn, next.pdu.final]);
  }
  return out;
}

describe('putData', () => {
  it('becomes Data-In cut to the peer’s MaxRecvDataSegmentLength, with F at each MaxBurstLength and at the end', async () => {
    arrive(read(2500));
    const done = sequence.putData(1, 0, pattern(2500));
    expect(drain()).toEqual([
      [0, 512, 0, false],
      [512, 512, 1, true],
      [1024, 512, 2, false],
      [1536, 512, 3, true],
      [2048, 452, 4, true],
    ]);
    await done;
  });

  it('counts DataSN on over several calls, and names the window but no tag and no LUN', () => {
    arrive(read(1000));
    void sequence.putData(1, 0, pattern(400));
    void sequence.putData(1, 400, pattern(600));
    const first = sequence.nextPdu(NUMBERING)?.pdu;
    expect(first).toMatchObject({ itt: 1, ttt: RESERVED_TAG, lun: 0n, statSn: 0, expCmdSn: 22, maxCmdSn: 23, hasStatus: false });
    expect(drain()).toEqual([
      [400, 512, 1, false],
      [912, 88, 2, true],
    ]);
  });

  it('is counted for the status', async () => {
    arrive(read(1536));
    expect(sequence.dataPduCount(1)).toBe(0);
    const put = sequence.putData(1, 0, pattern(1536));
    for (let next = sequence.nextPdu(NUMBERING); next !== undefined; next = sequence.nextPdu(NUMBERING)) {
      if (next.token !== undefined) sequence.sent(next.token);
    }
    await put;
    expect(sequence.dataPduCount(1)).toBe(3);
    sequence.deallocate(1, GONE);
    expect(sequence.dataPduCount(1)).toBe(0);
  });

  it('lends the memory itself and resolves only when all of it is sent', async () => {
    const data = pattern(700);
    arrive(read(700));
    let isDone = false;
    const done = sequence.putData(1, 0, data).then(() => {
      isDone = true;
    });
    const first = sequence.nextPdu(NUMBERING);
    const second = sequence.nextPdu(NUMBERING);
    expect(first?.pdu.data.buffer).toBe(data.buffer);
    if (first?.token === undefined || second?.token === undefined) throw new Error('no token');
    expect(sequence.hasQueuedDataIn(1)).toBe(false);
    sequence.sent(first.token);
    await Promise.resolve();
    expect(isDone).toBe(false);
    sequence.sent(second.token);
    await done;
  });

  it('says that data is queued which the status must not overtake', () => {
    arrive(read(700));
    void sequence.putData(1, 0, pattern(700));
    expect([sequence.hasQueuedDataIn(1), sequence.hasQueuedDataIn(2)]).toEqual([true, false]);
  });

  it.each([
    ['beyond what is expected', 0, 1001],
    ['with a gap', 1, 10],
  ])('%s is refused', async (_, offset, length) => {
    arrive(read(1000));
    await expect(sequence.putData(1, offset, pattern(length))).rejects.toThrow(RangeError);
  });

  it('for a task that is not there rejects', async () => {
    await expect(sequence.putData(1, 0, pattern(1))).rejects.toMatchObject({ code: 'aborted' });
  });

  it('rejects when its task is ended, but not before its memory is free', async () => {
    arrive(read(2000));
    let failure: unknown;
    sequence.putData(1, 0, pattern(2000)).catch((error: unknown) => {
      failure = error;
    });
    const first = sequence.nextPdu(NUMBERING);
    if (first?.token === undefined) throw new Error('no token');
    sequence.deallocate(1, GONE);
    expect(sequence.nextPdu(NUMBERING)).toBeUndefined();
    await Promise.resolve();
    expect(failure).toBeUndefined();
    sequence.sent(first.token);
    await Promise.resolve();
    expect(failure).toBe(GONE);
  });

  it('rejects when the connection is gone, also where all of it is handed out', async () => {
    arrive(read(100));
    const done = sequence.putData(1, 0, pattern(100));
    expect(sequence.nextPdu(NUMBERING)?.pdu.data).toHaveLength(100);
    sequence.clear(GONE);
    await expect(done).rejects.toBe(GONE);
  });
});

describe('getData', () => {
  it('asks by R2T for what has not come, by MaxBurstLength and MaxOutstandingR2T, and places it', async () => {
    arrive(write(2500));
    const into = new Uint8Array(2500);
    const done = sequence.getData(1, 0, into);
    const first = nextR2T();
    expect(first).toMatchObject({ lun: 6n, itt: 1, r2tSn: 0, bufferOffset: 0, desiredDataTransferLength: 1024, ...NUMBERING });
    expect(first.ttt).not.toBe(RESERVED_TAG);
    expect(sequence.nextPdu(NUMBERING)).toBeUndefined();
    answer(first);
    const second = nextR2T();
    expect(second).toMatchObject({ r2tSn: 1, bufferOffset: 1024, desiredDataTransferLength: 1024 });
    answer(second, 1000);
    const third = nextR2T();
    expect(third).toMatchObject({ r2tSn: 2, bufferOffset: 2048, desiredDataTransferLength: 452 });
    answer(third);
    await done;
    expect(into).toEqual(pattern(2500));
    expect(sequence.nextPdu(NUMBERING)).toBeUndefined();
  });

  it('has several R2Ts out at once where negotiated, answered in any order of PDUs', async () => {
    enabled({ maxOutstandingR2T: 3 });
    arrive(write(2500));
    const into = new Uint8Array(2500);
    const done = sequence.getData(1, 0, into);
    const [first, second, third] = [nextR2T(), nextR2T(), nextR2T()];
    expect(new Set([first.ttt, second.ttt, third.ttt]).size).toBe(3);
    for (const r2t of [third, first, second]) answer(r2t);
    await done;
    expect(into).toEqual(pattern(2500));
  });

  it('takes immediate data first', async () => {
    arrive(write(1500, { data: pattern(700) }));
    const [head, tail] = [new Uint8Array(600), new Uint8Array(900)];
    await sequence.getData(1, 0, head);
    expect(head).toEqual(pattern(600));
    const done = sequence.getData(1, 600, tail);
    const r2t = nextR2T();
    expect(r2t).toMatchObject({ bufferOffset: 700, desiredDataTransferLength: 800 });
    answer(r2t);
    await done;
    expect(tail).toEqual(pattern(900, 600));
  });

  it('keeps immediate data that it was lent', async () => {
    const lent = pattern(100);
    expect(arrive(write(100, { data: lent }))).toMatchObject({ opcode: 'scsi-command', itt: 1 });
    lent.fill(0);
    const into = new Uint8Array(100);
    await sequence.getData(1, 0, into);
    expect(into).toEqual(pattern(100));
  });

  it('waits for unsolicited data to end before it asks for the rest', async () => {
    enabled({ initialR2T: false });
    arrive(write(1500, { final: false, data: pattern(300) }));
    const into = new Uint8Array(1500);
    const done = sequence.getData(1, 0, into);
    expect(sequence.nextPdu(NUMBERING)).toBeUndefined();
    arrive(dataOut({ bufferOffset: 300, data: pattern(500, 300) }));
    arrive(dataOut({ bufferOffset: 800, data: pattern(224, 800), dataSn: 1, final: true }));
    const r2t = nextR2T();
    expect(r2t).toMatchObject({ bufferOffset: 1024, desiredDataTransferLength: 476, r2tSn: 0 });
    answer(r2t);
    await done;
    expect(into).toEqual(pattern(1500));
  });

  it('serves several calls of one task in order', async () => {
    arrive(write(1500));
    const parts = [new Uint8Array(500), new Uint8Array(600), new Uint8Array(400)] as const;
    const done = Promise.all([
      sequence.getData(1, 0, parts[0]),
      sequence.getData(1, 500, parts[1]),
      sequence.getData(1, 1100, parts[2]),
    ]);
    for (let count = 0; count < 3; count++) answer(nextR2T());
    await done;
    expect(Uint8Array.from(parts.flatMap((part) => [...part]))).toEqual(pattern(1500));
  });

  it.each([
    ['beyond what is expected', 0, 1501],
    ['with a gap', 100, 100],
  ])('%s is refused', async (_, offset, length) => {
    arrive(write(1500));
    await expect(sequence.getData(1, offset, new Uint8Array(length))).rejects.toThrow(RangeError);
  });

  it('rejects when its task is ended; its buffer is not written to any more, late data is discarded until its F bit', async () => {
    arrive(write(1500));
    const into = new Uint8Array(1500);
    const done = sequence.getData(1, 0, into);
    const { ttt } = nextR2T();
    arrive(dataOut({ ttt, data: pattern(512) }));
    sequence.deallocate(1, GONE);
    await expect(done).rejects.toBe(GONE);
    into.fill(0);
    expect(sequence.begin(dataOut({ ttt, dataSn: 1, bufferOffset: 512 }), 100)).toBe('discard');
    arrive(dataOut({ ttt, dataSn: 1, bufferOffset: 512, data: pattern(512), final: true }));
    expect(into).toEqual(new Uint8Array(1500));
    expect(() => arrive(dataOut({ ttt }))).toThrow('R2T that does not exist');
    expect(sequence.nextPdu(NUMBERING)).toBeUndefined();
  });

  it('rejects when the connection is gone', async () => {
    arrive(write(1500));
    const done = sequence.getData(1, 0, new Uint8Array(1500));
    sequence.clear(GONE);
    await expect(done).rejects.toBe(GONE);
  });
});

describe('late unsolicited data', () => {
  it('of a task that has ended is discarded until its F bit', () => {
    enabled({ initialR2T: false });
    arrive(write(1024, { final: false }));
    sequence.deallocate(1, GONE);
    arrive(dataOut({ data: pattern(512) }));
    arrive(dataOut({ data: pattern(512), bufferOffset: 512, dataSn: 1, final: true }));
    expect(() => arrive(dataOut({}))).toThrow('task that does not exist');
  });

  it('is an error where the task had all of its data', () => {
    arrive(write(512, { data: pattern(512) }));
    sequence.deallocate(1, GONE);
    expect(() => arrive(dataOut({ data: pattern(1) }))).toThrow('task that does not exist');
  });
});

describe('a SCSI Command', () => {
  const faults: readonly (readonly [string, Partial<DataParameters>, Pdu<'scsi-command'>, string])[] = [
    [
      'with immediate data in spite of ImmediateData=No',
      { immediateData: false },
      write(10, { data: pattern(10) }),
      'ImmediateData=No',
    ],
    ['that announces unsolicited data in spite of InitialR2T=Yes', {}, write(10, { final: false }), 'InitialR2T=Yes'],
    ['with neither F nor W', { initialR2T: false }, { ...read(10), final: false }, 'neither the F nor the W bit'],
    [
      'with more immediate data than expected',
      {},
      write(9, { data: pattern(10) }),
      '10 bytes of immediate data where at most 9 may come',
    ],
    ['with more immediate data than FirstBurstLength', {}, write(2000, { data: pattern(1025) }), 'at most 1024 may come'],
    ['that reads, with immediate data', {}, { ...read(10), data: pattern(4) }, 'at most 0 may come'],
  ];
  test.each(faults)('%s is refused', (_, changes, received, message) => {
    enabled(changes);
    expect(() => arrive(received)).toThrow(message);
  });

  it('with a tag in use is refused', () => {
    arrive(write(10));
    expect(() => arrive(write(10))).toThrow('task tag 1 is in use');
    sequence.deallocate(1, GONE);
    arrive(write(10));
  });

  it('before login has ended is refused', () => {
    sequence = new TargetSequence();
    expect(() => arrive(read(10))).toThrow('SCSI Command before login has ended');
  });
});

describe('Data-Out that is refused', () => {
  const unsolicited: readonly (readonly [string, Partial<PduFields<'data-out'>>, string])[] = [
    ['with a number that is not due', { dataSn: 1, bufferOffset: 300 }, 'DataSN 1 where 0 is due'],
    ['with a gap', { bufferOffset: 301 }, 'offset 301 where 300 is due'],
    ['that goes back', { bufferOffset: 0 }, 'offset 0 where 300 is due'],
    [
      'beyond FirstBurstLength',
      { bufferOffset: 300, data: pattern(725) },
      '1025 bytes of unsolicited data where at most 1024 may come',
    ],
    ['for a task that does not exist', { itt: 2 }, 'Data-Out for a task that does not exist'],
  ];
  test.each(unsolicited)('unsolicited, %s', (_, fields, message) => {
    enabled({ initialR2T: false });
    arrive(write(2000, { final: false, data: pattern(300) }));
    expect(() => arrive(dataOut({ data: pattern(10), ...fields }))).toThrow(message);
  });

  it('unsolicited, without announcement', () => {
    enabled({ initialR2T: false });
    arrive(write(2000, { data: pattern(300) }));
    expect(() => arrive(dataOut({ bufferOffset: 300, data: pattern(10) }))).toThrow('after its last, or without announcement');
  });

  const solicited: readonly (readonly [string, Partial<PduFields<'data-out'>>, string])[] = [
    ['with a number that is not due', { dataSn: 2 }, 'DataSN 2 where 1 is due'],
    ['with a gap', { bufferOffset: 200 }, 'offset 200 where 100 is due'],
    [
      'beyond what was asked for',
      { data: pattern(925), final: true },
      'Data-Out to offset 1025 where the R2T asked for data to 1024',
    ],
    ['with F before the end', { final: true }, 'has the F bit before all that was asked for has come'],
    ['without F at the end', { data: pattern(924) }, 'lacks the F bit'],
    ['with the task tag of another task', { itt: 2 }, 'task tag of another task'],
    ['for an R2T that does not exist', { ttt: 0x1234_5678 }, 'R2T that does not exist'],
  ];
  test.each(solicited)('solicited, %s, before a byte is placed', (_, fields, message) => {
    arrive(write(2000));
    arrive(write(2000, { itt: 2 }));
    const into = new Uint8Array(2000);
    sequence.getData(1, 0, into).catch(() => {});
    const { ttt } = nextR2T();
    arrive(dataOut({ ttt, data: pattern(100) }));
    expect(() => arrive(dataOut({ ttt, dataSn: 1, bufferOffset: 100, data: pattern(10, 100), ...fields }))).toThrow(message);
    expect(into.subarray(100)).toEqual(new Uint8Array(1900));
  });
});

it('refuses SNACK, which ErrorRecoveryLevel 0 does not have', () => {
  expect(() => arrive(pdu({ opcode: 'snack', itt: 1 }))).toThrow('SNACK at ErrorRecoveryLevel 0');
});
