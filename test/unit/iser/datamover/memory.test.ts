import { describe, expect, it, test } from 'vitest';
import type { DataParameters } from '../../../../src/iser/datamover/datamover.ts';
import { createMemoryPair, type Delivery, type MemoryOptions, type MemoryWire } from '../../../../src/iser/datamover/memory.ts';
import { type OpcodeName, type Pdu, pdu } from '../../../../src/iser/iscsi/pdu.ts';
import { DatamoverPair, InitiatorEnd, patternBytes } from '../../../support/datamover-pair.ts';
import { VirtualClock } from '../../../support/virtual-clock.ts';

const endpoint = { host: '127.0.0.1', port: 3260 };
const SMALL: Partial<DataParameters> = { maxSendDataSegmentLength: 1024, maxRecvDataSegmentLength: 1024, maxBurstLength: 4096 };

async function logIn(parameters: Partial<DataParameters> = {}, options: MemoryOptions = {}) {
  const { initiator, target, wire } = createMemoryPair(options);
  const pair = await DatamoverPair.logIn({ initiator, target, endpoint }, { ...SMALL, ...parameters });
  return { pair, wire, initiator: pair.initiator, target: pair.target };
}

/** Meddles with the `index`th PDU of that kind that passes from now on, and no other. */
function meddle(wire: MemoryWire, opcode: OpcodeName, index: number, how: (pdu: Pdu) => readonly Delivery[]): void {
  let seen = 0;
  wire.intercept = (passing) => (passing.opcode === opcode && seen++ === index ? how(passing) : undefined);
}

const drop = () => [];
const duplicate = (passing: Pdu) => [{ pdu: passing }, { pdu: passing }];
const delay = (passing: Pdu) => [{ pdu: passing, delayMs: 5 }];
/** The first bit of the data segment. */
const corrupt = (passing: Pdu) => [{ pdu: passing, flipBit: 52 * 8 }];
/** A bit of the LUN field, which nothing else would notice. */
const corruptHeader = (passing: Pdu) => [{ pdu: passing, flipBit: 15 * 8 }];

describe('a read whose Data-In is meddled with', () => {
  test.each([
    ['dropped', drop, {}, /Data-In has DataSN 2 where 1 is due/],
    ['duplicated', duplicate, {}, /Data-In has DataSN 1 where 2 is due/],
    ['delayed beyond the next', delay, {}, /Data-In has DataSN 2 where 1 is due/],
    ['corrupted in its data', corrupt, { headerDigest: true, dataDigest: true }, /data digest of a data-in is wrong/],
    ['corrupted in its header', corruptHeader, { headerDigest: true }, /header digest of a data-in is wrong/],
  ])('%s, loses the connection', async (_, how, parameters, message) => {
    const { pair, wire, initiator, target } = await logIn(parameters);
    await using _pair = pair;
    meddle(wire, 'data-in', 1, how);
    initiator.command(1, { dataIn: new Uint8Array(8192) });
    const task = await target.nextCommand();
    target.datamover.putData(task, 0, patternBytes(8192)).catch(() => {});
    target.datamover.sendControl(pdu({ opcode: 'scsi-response', itt: 1 }));
    expect(await initiator.notifications.terminated).toMatchObject({
      code: 'protocol-error',
      message: expect.stringMatching(message),
    });
    await target.notifications.terminated;
    expect(initiator.received).toBe(0);
  });

  it('dropped at the end, is missed by the count in the SCSI Response', async () => {
    const { pair, wire, initiator, target } = await logIn();
    await using _pair = pair;
    meddle(wire, 'data-in', 7, drop);
    initiator.command(1, { dataIn: new Uint8Array(8192) });
    const task = await target.nextCommand();
    await target.datamover.putData(task, 0, patternBytes(8192));
    target.respond(task, { expDataSn: 8 });
    expect(await initiator.notifications.terminated).toMatchObject({
      message: expect.stringContaining('has sent 8 Data-In or R2T PDUs, of which 7 came'),
    });
  });
});

describe('a write whose Data-Out is meddled with', () => {
  test.each([
    ['dropped', drop, {}, /Data-Out has DataSN 2 where 1 is due/],
    ['duplicated', duplicate, {}, /Data-Out has DataSN 1 where 2 is due/],
    ['corrupted in its data', corrupt, { headerDigest: true, dataDigest: true }, /data digest of a data-out is wrong/],
  ])('%s, loses the connection', async (_, how, parameters, message) => {
    const { pair, wire, initiator, target } = await logIn(parameters);
    await using _pair = pair;
    meddle(wire, 'data-out', 1, how);
    initiator.command(1, { dataOut: patternBytes(8192) });
    const task = await target.nextCommand();
    const get = target.datamover.getData(task, 0, new Uint8Array(8192));
    await expect(get).rejects.toMatchObject({ code: 'connection-lost', cause: { message: expect.stringMatching(message) } });
    expect(await target.notifications.terminated).toMatchObject({ code: 'protocol-error' });
    await initiator.notifications.terminated;
  });

  it('with an R2T duplicated, loses the connection', async () => {
    const { pair, wire, initiator, target } = await logIn();
    await using _pair = pair;
    meddle(wire, 'r2t', 0, duplicate);
    initiator.command(1, { dataOut: patternBytes(8192) });
    target.datamover.getData(await target.nextCommand(), 0, new Uint8Array(8192)).catch(() => {});
    expect(await initiator.notifications.terminated).toMatchObject({
      message: expect.stringContaining('R2TSN 0 where 1 is due'),
    });
  });
});

it('without digests a flipped bit of data goes unnoticed: that is what they are for', async () => {
  const { pair, wire, initiator, target } = await logIn();
  await using _pair = pair;
  meddle(wire, 'data-in', 0, (passing) => [{ pdu: passing, flipBit: 48 * 8 + 7 }]);
  const dataIn = new Uint8Array(100);
  initiator.command(1, { dataIn });
  const task = await target.nextCommand();
  await target.datamover.putData(task, 0, patternBytes(100));
  target.respond(task);
  await initiator.next();
  expect(dataIn[0]).toBe((patternBytes(1)[0] as number) ^ 1);
});

describe('what is injected', () => {
  it('arrives as if the peer had sent it', async () => {
    const { pair, wire, initiator, target } = await logIn({ headerDigest: true, dataDigest: true });
    await using _pair = pair;
    wire.inject(pdu({ opcode: 'nop-in', itt: 77 }), 'initiator');
    wire.inject(pdu({ opcode: 'nop-out', itt: 78 }), 'target');
    expect(await initiator.next()).toMatchObject({ pdu: { opcode: 'nop-in', itt: 77 } });
    expect(await target.next()).toMatchObject({ opcode: 'nop-out', itt: 78 });
  });

  test.each([
    [
      'an R2T for a read',
      pdu({ opcode: 'r2t', itt: 1, ttt: 1, desiredDataTransferLength: 1 }),
      'R2T for a command that writes nothing',
    ],
    ['Data-In for no task', pdu({ opcode: 'data-in', itt: 9 }), 'data-in for a task that does not exist'],
    ['a PDU too long', pdu({ opcode: 'nop-in', data: patternBytes(1025) }), '1025 bytes of data where at most 1024 may come'],
    [
      'Data-In beyond the end',
      pdu({ opcode: 'data-in', itt: 1, data: patternBytes(600) }),
      'offset 600 of a command that reads 500 bytes',
    ],
  ])('%s loses the connection', async (_, injected, message) => {
    const { pair, wire, initiator } = await logIn();
    await using _pair = pair;
    initiator.command(1, { dataIn: new Uint8Array(500) });
    wire.inject(injected, 'initiator');
    expect(await initiator.notifications.terminated).toMatchObject({
      code: 'protocol-error',
      message: expect.stringContaining(message),
    });
  });
});

describe('a task that the initiator ends', () => {
  it('is written to no more, and the connection goes on', async () => {
    const { pair, initiator, target } = await logIn();
    await using _pair = pair;
    const dataIn = new Uint8Array(8192);
    initiator.command(1, { dataIn });
    const task = await target.nextCommand();
    await target.datamover.putData(task, 0, patternBytes(3000));
    target.datamover.sendControl(pdu({ opcode: 'nop-in', itt: 5 }));
    await initiator.next();
    initiator.datamover.deallocateTask(1);
    await target.datamover.putData(task, 3000, patternBytes(5192, 3000));
    target.respond(task, { statSn: 9 });
    expect(await initiator.next()).toMatchObject({ pdu: { opcode: 'scsi-response', itt: 1, statSn: 9 }, transferred: 0 });
    expect(dataIn.subarray(3000)).toEqual(new Uint8Array(5192));
  });

  it('sends no more data once ABORT TASK is sent for it', async () => {
    const { pair, wire, initiator, target } = await logIn({ initialR2T: false, immediateData: false, firstBurstLength: 4096 });
    await using _pair = pair;
    const sent: string[] = [];
    wire.intercept = (passing, from) => {
      if (from === 'initiator') sent.push(passing.opcode);
      return undefined;
    };
    initiator.command(1, { dataOut: patternBytes(8192) });
    initiator.datamover.sendControl(pdu({ opcode: 'task-management-request', function: 1, itt: 2, referencedTaskTag: 1 }));
    const task = await target.nextCommand();
    expect(await target.next()).toMatchObject({ opcode: 'task-management-request' });
    target.datamover.deallocateTask(task.itt);
    target.datamover.sendControl(pdu({ opcode: 'task-management-response', itt: 2 }));
    await initiator.next();
    initiator.datamover.deallocateTask(1);
    expect(sent).toEqual(['scsi-command', 'task-management-request']);
  });
});

describe('time', () => {
  it('passes only as the clock does, and a PDU takes the latency', async () => {
    const clock = new VirtualClock();
    const { initiator, target } = createMemoryPair({ clock, latencyMs: 10 });
    const connecting = DatamoverPair.logIn({ initiator, target, endpoint });
    await clock.advance(20 + 20);
    const pair = await connecting;
    pair.initiator.datamover.sendControl(pdu({ opcode: 'nop-out', itt: 1 }));
    await clock.advance(9);
    expect(pair.target.received).toBe(0);
    await clock.advance(1);
    expect(pair.target.received).toBe(1);
    const disposed = pair[Symbol.asyncDispose]();
    await clock.advance(100);
    await disposed;
  });

  it('lets a connection attempt time out that nobody answers', async () => {
    const clock = new VirtualClock();
    const { initiator, wire } = createMemoryPair({ clock });
    wire.answersConnections = false;
    const failure = initiator.connect(endpoint, new InitiatorEnd(), { timeoutMs: 3000 }).catch((error: unknown) => error);
    await clock.advance(3000);
    expect(await failure).toMatchObject({
      code: 'unreachable',
      message: 'cannot connect to 127.0.0.1:3260: timed out after 3000 ms',
    });
  });

  it('a PDU may be delayed, and others pass it', async () => {
    const clock = new VirtualClock();
    const { initiator, target, wire } = createMemoryPair({ clock });
    const connecting = DatamoverPair.logIn({ initiator, target, endpoint });
    await clock.advance(0);
    const pair = await connecting;
    wire.intercept = (passing) => (passing.itt === 1 ? [{ pdu: passing, delayMs: 50 }] : undefined);
    for (const itt of [1, 2]) pair.initiator.datamover.sendControl(pdu({ opcode: 'nop-out', itt }));
    await clock.advance(49);
    expect(pair.target.received).toBe(1);
    await clock.advance(1);
    expect([await pair.target.next(), await pair.target.next()].map(({ itt }) => itt)).toEqual([2, 1]);
    const disposed = pair[Symbol.asyncDispose]();
    await clock.advance(1);
    await disposed;
  });
});

it('a wire that is cut ends both ends with the error', async () => {
  const { pair, wire, initiator, target } = await logIn();
  await using _pair = pair;
  const error = new Error('cable pulled');
  expect(wire.connectionCount).toBe(1);
  wire.cut(error);
  expect([await initiator.notifications.terminated, await target.notifications.terminated]).toEqual([error, error]);
  expect(wire.connectionCount).toBe(0);
});
