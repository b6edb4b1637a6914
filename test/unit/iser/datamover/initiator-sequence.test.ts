import { beforeEach, describe, expect, it, test } from 'vitest';
import type { DataParameters, TaskBuffers } from '../../../../src/iser/datamover/datamover.ts';
import { type InitiatorEvent, InitiatorSequence } from '../../../../src/iser/datamover/initiator-sequence.ts';
import { NO_BYTES, type Pdu, type PduFields, pdu, RESERVED_TAG, TaskManagementCode } from '../../../../src/iser/iscsi/pdu.ts';
import { hexVectors } from '../../../support/hex-vectors.ts';

const parameters: DataParameters = {
  headerDigest: false,
  dataDigest: false,
  maxSendDataSegmentLength: 512,
  maxRecvDataSegmentLength: 8192,
  maxBurstLength: 2048,
  firstBurstLength: 1024,
  initialR2T: true,
  immediateData: true,
  maxOutstandingR2T: 1,
};

let sequence: InitiatorSequence;

function enabled(changes: Partial<DataParameters> = {}): InitiatorSequence {
  sequence = new InitiatorSequence();
  sequence.enable({ ...parameters, ...changes });
  return sequence;
}

beforeEach(() => {
  enabled();
});

function start(itt: number, buffers: TaskBuffers): Pdu<'scsi-command'> {
  const read = buffers.dataIn !== undefined;
  const write = buffers.dataOut !== undefined;
  const length = (buffers.dataOut ?? buffers.dataIn ?? NO_BYTES).length;
  const command = pdu({ opcode: 'scsi-command', itt, read, write, lun: 1n, expectedDataTransferLength: length });
  return sequence.command(command, buffers).pdu;
}

function pattern(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 5 + (index >> 8)) & 0xff);
}

/** Takes a whole PDU as the framer would: header, placement, PDU. */
function arrive(received: Pdu): InitiatorEvent {
  const place = sequence.begin({ ...received, data: NO_BYTES } as Pdu, received.data.length);
  if (typeof place === 'string')
    return sequence.receive(place === 'discard' ? ({ ...received, data: NO_BYTES } as Pdu) : received);
  place.set(received.data);
  return sequence.receive({ ...received, data: place } as Pdu);
}

const dataIn = (fields: Partial<PduFields<'data-in'>>) => pdu({ opcode: 'data-in', itt: 1, ttt: RESERVED_TAG, ...fields });
const r2t = (fields: Partial<PduFields<'r2t'>>) =>
  pdu({ opcode: 'r2t', itt: 1, ttt: 0x77, desiredDataTransferLength: 512, ...fields });
const response = (fields: Partial<PduFields<'scsi-response'>> = {}) => pdu({ opcode: 'scsi-response', itt: 1, ...fields });

/** All Data-Out PDUs that are due, each sent at once. */
function drain(): [number, number, number, boolean, number][] {
  const out: [number, number, number, boolean, number][] = [];
  for (;;) {
    const next = sequence.nextDataOut(42);
    if (next === undefined) return out;
    sequence.sent(next.token);
    expect(next.pdu.expStatSn).toBe(42);
    out.push([next.pdu.bufferOffset, next.pdu.data.length, next.pdu.dataSn, next.pdu.final, next.pdu.ttt]);
  }
}

describe('the first data of a write', () => {
  type Row = readonly [
    Partial<DataParameters>,
    number,
    readonly [boolean, number],
    readonly [number, number, number, boolean, number][],
  ];
  const rows: readonly Row[] = [
    [{ immediateData: false }, 3000, [true, 0], []],
    [{}, 3000, [true, 512], []],
    [{}, 300, [true, 300], []],
    [{ maxSendDataSegmentLength: 8192 }, 3000, [true, 1024], []],
    [{ initialR2T: false }, 300, [true, 300], []],
    [{ initialR2T: false }, 3000, [false, 512], [[512, 512, 0, true, RESERVED_TAG]]],
    [{ initialR2T: false }, 700, [false, 512], [[512, 188, 0, true, RESERVED_TAG]]],
    [
      { initialR2T: false, immediateData: false },
      3000,
      [false, 0],
      [
        [0, 512, 0, false, RESERVED_TAG],
        [512, 512, 1, true, RESERVED_TAG],
      ],
    ],
    [{ initialR2T: false, maxSendDataSegmentLength: 8192 }, 3000, [true, 1024], []],
  ];
  test.each(rows)(
    'with %o, of %i bytes: F and immediate data %o, then unsolicited %o',
    (changes, length, command, unsolicited) => {
      enabled(changes);
      const dataOut = pattern(length);
      const { final, data } = start(1, { dataOut });
      expect([final, data.length]).toEqual(command);
      expect(data).toEqual(dataOut.subarray(0, data.length));
      expect(drain()).toEqual(unsolicited);
    },
  );

  it('is a view of the task’s buffer, not a copy', () => {
    const dataOut = pattern(3000);
    expect(start(1, { dataOut }).data.buffer).toBe(dataOut.buffer);
    arrive(r2t({ bufferOffset: 512 }));
    expect(sequence.nextDataOut(0)?.pdu.data.buffer).toBe(dataOut.buffer);
  });

  it('of several commands goes out in their order', () => {
    enabled({ initialR2T: false, immediateData: false });
    start(1, { dataOut: pattern(600) });
    start(2, { dataOut: pattern(100) });
    const order: number[] = [];
    for (let next = sequence.nextDataOut(0); next !== undefined; next = sequence.nextDataOut(0)) order.push(next.pdu.itt);
    expect(order).toEqual([1, 1, 2]);
  });

  it('is not there for a read, whose F bit is set all the same', () => {
    enabled({ initialR2T: false });
    const command = start(1, { dataIn: new Uint8Array(3000) });
    expect([command.final, command.data.length, sequence.nextDataOut(0)]).toEqual([true, 0, undefined]);
  });
});

describe('answers to R2T', () => {
  it('are cut to the peer’s MaxRecvDataSegmentLength, with F on the last and the R2T’s tag and LUN', () => {
    start(1, { dataOut: pattern(3000) });
    expect(arrive(r2t({ bufferOffset: 512, desiredDataTransferLength: 1200, lun: 5n, expCmdSn: 7, maxCmdSn: 9 }))).toEqual({
      type: 'window',
      expCmdSn: 7,
      maxCmdSn: 9,
    });
    const next = sequence.nextDataOut(42);
    expect(next?.pdu).toMatchObject({ lun: 5n, ttt: 0x77, dataSn: 0, final: false, bufferOffset: 512 });
    expect(next?.pdu.data).toEqual(pattern(3000).subarray(512, 1024));
    expect(drain()).toEqual([
      [1024, 512, 1, false, 0x77],
      [1536, 176, 2, true, 0x77],
    ]);
  });

  it('count from DataSN 0 for each R2T', () => {
    start(1, { dataOut: pattern(1536) });
    for (const r2tSn of [0, 1]) {
      arrive(r2t({ r2tSn, bufferOffset: 512 + r2tSn * 512, ttt: r2tSn }));
      expect(drain()).toEqual([[512 + r2tSn * 512, 512, 0, true, r2tSn]]);
    }
  });

  it('are given to as many R2Ts at once as negotiated, in their order', () => {
    enabled({ maxOutstandingR2T: 2 });
    start(1, { dataOut: pattern(3000) });
    arrive(r2t({ bufferOffset: 512, ttt: 1 }));
    arrive(r2t({ bufferOffset: 1024, ttt: 2, r2tSn: 1 }));
    expect(() => arrive(r2t({ bufferOffset: 1536, ttt: 3, r2tSn: 2 }))).toThrow(
      'more R2Ts at once than MaxOutstandingR2T, which is 2',
    );
    expect(drain().map(([offset]) => offset)).toEqual([512, 1024]);
  });

  const faults: readonly (readonly [string, Partial<PduFields<'r2t'>>, string])[] = [
    [
      'beyond the end of the data',
      { bufferOffset: 512, desiredDataTransferLength: 2000 },
      'R2T to offset 2512 of a command that writes 2500',
    ],
    [
      'longer than MaxBurstLength',
      { bufferOffset: 0, desiredDataTransferLength: 2049 },
      'R2T for 2049 bytes where MaxBurstLength is 2048',
    ],
    ['for nothing', { bufferOffset: 512, desiredDataTransferLength: 0 }, 'R2T for 0 bytes'],
    ['for what was sent as immediate data', { bufferOffset: 0 }, 'it overlaps what was asked for or sent before'],
    ['with a gap', { bufferOffset: 1024 }, 'it leaves a gap'],
    ['with a number that is not due', { bufferOffset: 512, r2tSn: 1 }, 'R2TSN 1 where 0 is due'],
    ['with the reserved tag', { bufferOffset: 512, ttt: RESERVED_TAG }, 'reserved target transfer tag'],
    ['for a task that does not exist', { itt: 9, bufferOffset: 512 }, 'r2t for a task that does not exist'],
    ['with data', { bufferOffset: 512, data: pattern(4) }, 'R2T with a data segment'],
  ];
  test.each(faults)('an R2T %s is refused', (_, fields, message) => {
    start(1, { dataOut: pattern(2500) });
    expect(() => arrive(r2t(fields))).toThrow(message);
    expect(drain()).toEqual([]);
  });

  it('an R2T for a read is refused', () => {
    start(1, { dataIn: new Uint8Array(512) });
    expect(() => arrive(r2t({}))).toThrow('R2T for a command that writes nothing');
  });

  it('an R2T that overlaps the one before is refused', () => {
    enabled({ maxOutstandingR2T: 4 });
    start(1, { dataOut: pattern(3000) });
    arrive(r2t({ bufferOffset: 512 }));
    expect(() => arrive(r2t({ bufferOffset: 1000, r2tSn: 1 }))).toThrow('it overlaps what was asked for or sent before');
  });
});

describe('Data-In', () => {
  it('fills the buffer in order; its status comes as the SCSI Response that it stands for', () => {
    const buffer = new Uint8Array(1000);
    start(1, { dataIn: buffer });
    expect(arrive(dataIn({ data: pattern(600), expCmdSn: 3, maxCmdSn: 4 }))).toEqual({
      type: 'window',
      expCmdSn: 3,
      maxCmdSn: 4,
    });
    const end = arrive(
      dataIn({
        data: pattern(300),
        dataSn: 1,
        bufferOffset: 600,
        final: true,
        hasStatus: true,
        status: 8,
        statSn: 11,
        expCmdSn: 12,
        maxCmdSn: 13,
        underflow: true,
        residualCount: 100,
      }),
    );
    expect(end).toEqual({
      type: 'control',
      transferred: 900,
      pdu: response({ status: 8, statSn: 11, expCmdSn: 12, maxCmdSn: 13, underflow: true, residualCount: 100, expDataSn: 2 }),
    });
    expect(buffer.subarray(0, 600)).toEqual(pattern(600));
    expect(buffer.subarray(600, 900)).toEqual(pattern(300));
    expect(sequence.taskCount).toBe(0);
  });

  it('is named the very memory of the task', () => {
    const buffer = new Uint8Array(1000);
    start(1, { dataIn: buffer.subarray(100, 900) });
    const place = sequence.begin(dataIn({}), 500) as Uint8Array;
    expect([place.buffer, place.byteOffset, place.length]).toEqual([buffer.buffer, 100, 500]);
  });

  it('may be empty and carry only a status', () => {
    start(1, { dataIn: new Uint8Array(512) });
    const end = arrive(dataIn({ final: true, hasStatus: true, underflow: true, residualCount: 512 }));
    expect(end).toMatchObject({ type: 'control', transferred: 0 });
  });

  const faults: readonly (readonly [string, Partial<PduFields<'data-in'>>, string])[] = [
    ['with a number that is not due', { dataSn: 1 }, 'DataSN 1 where 0 is due'],
    ['with a gap', { bufferOffset: 512 }, 'offset 512 where 0 is due'],
    ['beyond the end of the buffer', { data: pattern(1001) }, 'Data-In to offset 1001 of a command that reads 1000 bytes'],
    ['for a task that does not exist', { itt: 2 }, 'data-in for a task that does not exist'],
    ['with a status but no F bit', { hasStatus: true }, 'without the F bit'],
  ];
  test.each(faults)('%s is refused before a byte is placed', (_, fields, message) => {
    const buffer = new Uint8Array(1000);
    start(1, { dataIn: buffer });
    expect(() => arrive(dataIn({ data: pattern(100), ...fields }))).toThrow(message);
    expect(buffer).toEqual(new Uint8Array(1000));
  });

  it('that goes back is refused', () => {
    start(1, { dataIn: new Uint8Array(1000) });
    arrive(dataIn({ data: pattern(100) }));
    expect(() => arrive(dataIn({ data: pattern(100), dataSn: 1, bufferOffset: 0 }))).toThrow('offset 0 where 100 is due');
    expect(() => arrive(dataIn({ data: pattern(100), dataSn: 0, bufferOffset: 100 }))).toThrow('DataSN 0 where 1 is due');
  });

  it('for a write is refused', () => {
    start(1, { dataOut: pattern(512) });
    expect(() => arrive(dataIn({ data: pattern(1) }))).toThrow('Data-In for a command that reads nothing');
  });

  it('of a task that has ended is refused', () => {
    start(1, { dataIn: new Uint8Array(512) });
    arrive(response());
    expect(() => arrive(dataIn({ data: pattern(1) }))).toThrow('data-in for a task that does not exist');
  });
});

describe('the end of a task', () => {
  const read = (received: number, end: Partial<PduFields<'scsi-response'>>) => () => {
    start(1, { dataIn: new Uint8Array(1000) });
    if (received > 0) arrive(dataIn({ data: pattern(received), final: true }));
    return arrive(response({ expDataSn: received > 0 ? 1 : 0, ...end }));
  };

  it('says how many bytes of a read are valid', () => {
    expect(read(1000, {})()).toMatchObject({ transferred: 1000 });
    enabled();
    expect(read(400, { underflow: true, residualCount: 600 })()).toMatchObject({ transferred: 400 });
    enabled();
    expect(read(400, { status: 2 })()).toMatchObject({ transferred: 400 });
    enabled();
    expect(read(1000, { underflow: true, residualCount: 900 })()).toMatchObject({ transferred: 100 });
    enabled();
    expect(read(1000, { overflow: true, residualCount: 4096 })()).toMatchObject({ transferred: 1000 });
  });

  it('does not take data for granted that a target keeps silent about', () => {
    expect(read(400, {})()).toMatchObject({ transferred: 400 });
  });

  it('says how much of a write was asked for', () => {
    start(1, { dataOut: pattern(3000) });
    arrive(r2t({ bufferOffset: 512, desiredDataTransferLength: 1000 }));
    drain();
    expect(arrive(response({ status: 2 }))).toMatchObject({ transferred: 1512 });
  });

  it.each([
    [
      'claims data that did not come',
      400,
      { underflow: true, residualCount: 500 },
      'claims to have sent 500 bytes, of which 400 came',
    ],
    [
      'counts PDUs that did not come',
      400,
      { underflow: true, residualCount: 600, expDataSn: 2 },
      'sent 2 Data-In or R2T PDUs, of which 1 came',
    ],
    [
      'has a residual beyond the transfer',
      0,
      { underflow: true, residualCount: 1001 },
      'residual of 1001 bytes for a transfer of 1000',
    ],
    ['has both an overflow and an underflow', 1000, { underflow: true, overflow: true }, 'both an overflow and an underflow'],
  ])('is refused where it %s', (_, received, end, message) => {
    expect(read(received, end)).toThrow(message);
  });

  it('is refused for a task that does not exist', () => {
    expect(() => arrive(response())).toThrow('scsi-response for a task that does not exist');
  });

  it('waits for data of the task that is on its way out', () => {
    const command = pdu({ opcode: 'scsi-command', itt: 1, write: true, expectedDataTransferLength: 100 });
    const { task } = sequence.command(command, { dataOut: pattern(100) });
    expect(sequence.mustWait(response())).toBe(true);
    expect(sequence.mustWait(pdu({ opcode: 'nop-in', itt: 1 }))).toBe(false);
    sequence.sent(task);
    expect(sequence.mustWait(response())).toBe(false);
  });
});

describe('a task that is ended from here', () => {
  it('gets no more data sent; what comes for it is discarded, its numbering is not lost', () => {
    const buffer = new Uint8Array(1000);
    start(1, { dataIn: buffer });
    expect(sequence.deallocate(1)?.itt).toBe(1);
    expect(sequence.begin(dataIn({}), 500)).toBe('discard');
    expect(arrive(dataIn({ data: pattern(500), dataSn: 7, expCmdSn: 5, maxCmdSn: 6 }))).toEqual({
      type: 'window',
      expCmdSn: 5,
      maxCmdSn: 6,
    });
    expect(arrive(r2t({ bufferOffset: 9999 }))).toMatchObject({ type: 'window' });
    expect(arrive(response({ statSn: 3, expDataSn: 9 }))).toMatchObject({ type: 'control', transferred: 0, pdu: { statSn: 3 } });
    expect(buffer).toEqual(new Uint8Array(1000));
    expect(() => arrive(dataIn({}))).toThrow('task that does not exist');
  });

  it('leaves bursts of other tasks alone', () => {
    start(1, { dataOut: pattern(1024) });
    start(2, { dataOut: pattern(1024) });
    arrive(r2t({ itt: 1, bufferOffset: 512 }));
    arrive(r2t({ itt: 2, bufferOffset: 512, ttt: 8 }));
    sequence.deallocate(1);
    expect(drain()).toEqual([[512, 512, 0, true, 8]]);
  });

  it('frees its tag for a new task', () => {
    start(1, { dataIn: new Uint8Array(10) });
    sequence.deallocate(1);
    const buffer = new Uint8Array(10);
    start(1, { dataIn: buffer });
    arrive(dataIn({ data: pattern(10) }));
    expect(buffer).toEqual(pattern(10));
  });

  it('is remembered for a bounded number of tasks only', () => {
    for (let itt = 0; itt < 5000; itt++) {
      start(itt, { dataIn: new Uint8Array(1) });
      sequence.deallocate(itt);
    }
    expect(sequence.begin(dataIn({ itt: 4999 }), 1)).toBe('discard');
    expect(() => sequence.begin(dataIn({ itt: 1 }), 1)).toThrow('task that does not exist');
  });
});

describe('a task management request', () => {
  const request = (name: keyof typeof TaskManagementCode, more: object = {}) =>
    pdu({ opcode: 'task-management-request', function: TaskManagementCode[name], lun: 1n, ...more });
  const writeTwo = () => {
    for (const itt of [1, 2]) {
      start(itt, { dataOut: pattern(2048) });
      arrive(r2t({ itt, bufferOffset: 512, ttt: itt }));
    }
  };
  const sent = () => drain().map(([, , , , ttt]) => ttt);

  it('ABORT TASK stops the data of its task, also for R2Ts that still come', () => {
    writeTwo();
    sequence.suspend(request('abort-task', { referencedTaskTag: 1 }));
    expect(sent()).toEqual([2]);
    expect(sequence.mustWait(response())).toBe(true);
  });

  it.each(['logical-unit-reset', 'abort-task-set', 'clear-task-set', 'target-warm-reset', 'target-cold-reset'] as const)(
    '%s stops the data of all tasks of its scope',
    (name) => {
      writeTwo();
      sequence.suspend(request(name, { lun: 2n }));
      expect(sent()).toEqual(name.startsWith('target') ? [] : [1, 2]);
      enabled();
      writeTwo();
      sequence.suspend(request(name));
      expect(sent()).toEqual([]);
    },
  );

  it('leaves tasks alone that come after it', () => {
    sequence.suspend(request('logical-unit-reset'));
    start(1, { dataOut: pattern(2048) });
    arrive(r2t({ bufferOffset: 512 }));
    expect(sent()).toEqual([0x77]);
  });
});

describe('a caller’s mistake', () => {
  it.each([
    ['a tag in use', () => [start(1, {}), start(1, {})], 'task tag 1 is in use'],
    [
      'a buffer without its direction bit',
      () => sequence.command(pdu({ opcode: 'scsi-command', expectedDataTransferLength: 4 }), { dataIn: new Uint8Array(4) }),
      'the R and W bits',
    ],
    [
      'a buffer of another length than announced',
      () =>
        sequence.command(pdu({ opcode: 'scsi-command', read: true, expectedDataTransferLength: 5 }), {
          dataIn: new Uint8Array(4),
        }),
      'a buffer of 4 bytes for a transfer of 5',
    ],
    [
      'a command before login has ended',
      () => new InitiatorSequence().command(pdu({ opcode: 'scsi-command' }), {}),
      'before login',
    ],
  ])('%s is refused', (_, act, message) => {
    expect(act).toThrow(message);
  });
});

describe('tgtd’s numbering', () => {
  it('is accepted: it counts no R2T in ExpDataSN', () => {
    // The WRITE of the capture: 2 R2Ts, and ExpDataSN 0 in its response.
    expect(hexVectors('datamover-tgtd-crc32c.hex')('12 scsi-response').subarray(36, 40)).toEqual(new Uint8Array(4));
    enabled({ maxBurstLength: 1024 });
    start(1, { dataOut: pattern(2048) });
    arrive(r2t({ bufferOffset: 512, desiredDataTransferLength: 1024 }));
    drain();
    arrive(r2t({ bufferOffset: 1536, desiredDataTransferLength: 512, r2tSn: 1 }));
    drain();
    expect(arrive(response({ expDataSn: 0 }))).toMatchObject({ transferred: 2048 });
  });
});
