import { describe, expect, it, test } from 'vitest';
import type { IserHeader } from '../../../../src/iser/datamover/iser-header.ts';
import { type Pdu, pdu, RESERVED_TAG } from '../../../../src/iser/iscsi/pdu.ts';
import type { RdmaMessage } from '../../../../src/iser/rdma/memory.ts';
import { patternBytes } from '../../../support/datamover-pair.ts';
import { iserParameters, messageOf, TargetUnderTest } from '../../../support/iser-ends.ts';
import { settle, VirtualClock } from '../../../support/virtual-clock.ts';

const protocolError = (message: RegExp) => ({ code: 'protocol-error', message: expect.stringMatching(message) });
const KINDS = ['registered', 'other'] as const;

/** Notes what the target sends, in order: `write 512`, `send`. */
function watch(ends: TargetUnderTest): string[] {
  const seen: string[] = [];
  ends.providers.wire.intercept = (message, side) => {
    if (side === 'target') seen.push(textOf(message));
    return undefined;
  };
  return seen;
}

function textOf(message: RdmaMessage): string {
  switch (message.type) {
    case 'read-request':
      return `read ${message.length}`;
    case 'write':
      return `write ${message.bytes.length}`;
    default:
      return message.type;
  }
}

describe.each(KINDS)('putData from %s memory', (kind) => {
  const dataIn = (ends: TargetUnderTest, data: Uint8Array) => {
    if (kind === 'other') return data;
    const registered = ends.memoryFor(data.length);
    registered.set(data);
    return registered;
  };

  it('writes to where the initiator wants it, at any offset', async () => {
    await using ends = await TargetUnderTest.logIn();
    const buffer = ends.peer.memoryFor(10_000);
    ends.command(1, { read: buffer });
    const task = await ends.end.nextCommand();
    const data = dataIn(ends, patternBytes(10_000));
    await Promise.all([
      ends.end.datamover.putData(task, 6000, data.subarray(6000)),
      ends.end.datamover.putData(task, 0, data.subarray(0, 6000)),
    ]);
    ends.end.respond(task);
    await ends.nextPdu();
    expect(Buffer.compare(buffer, patternBytes(10_000))).toBe(0);
  });

  it('has its memory free when it resolves, and not before', async () => {
    await using ends = await TargetUnderTest.logIn();
    const buffer = ends.peer.memoryFor(4096);
    ends.command(1, { read: buffer });
    const task = await ends.end.nextCommand();
    const data = dataIn(ends, patternBytes(4096));
    const put = ends.end.datamover.putData(task, 0, data);
    expect(ends.buffers.bytesInRuns).toBe(kind === 'registered' ? 0 : 4096);
    if (kind === 'other') data.fill(0xff); // it was copied at once
    await put;
    data.fill(0xff);
    await settle();
    expect(Buffer.compare(buffer, patternBytes(4096))).toBe(0);
  });

  it('is refused beyond the expected length', async () => {
    await using ends = await TargetUnderTest.logIn();
    ends.command(1, { read: ends.peer.memoryFor(512) });
    const task = await ends.end.nextCommand();
    await expect(ends.end.datamover.putData(task, 1, dataIn(ends, new Uint8Array(512)))).rejects.toThrow(RangeError);
  });

  it('goes out before the status that is sent after it', async () => {
    await using ends = await TargetUnderTest.logIn();
    ends.command(1, { read: ends.peer.memoryFor(1024) });
    const task = await ends.end.nextCommand();
    const seen = watch(ends);
    const put = ends.end.datamover.putData(task, 0, dataIn(ends, new Uint8Array(1024)));
    ends.end.datamover.sendControl(pdu({ opcode: 'scsi-response', itt: 1 }));
    await put;
    await ends.nextPdu();
    expect(seen).toEqual(['write 1024', 'send']);
  });
});

it('data that has to be copied takes a bounded amount of memory, and the status waits behind all of it', async () => {
  await using ends = await TargetUnderTest.logIn();
  const length = 12 * 1024 * 1024;
  ends.command(1, { read: ends.peer.memoryFor(length) });
  const task = await ends.end.nextCommand();
  const seen = watch(ends);
  const put = ends.end.datamover.putData(task, 0, new Uint8Array(length));
  ends.end.datamover.sendControl(pdu({ opcode: 'scsi-response', itt: 1 }));
  expect(ends.buffers.bytesInRuns).toBe(4 * 1024 * 1024);
  expect(seen).toHaveLength(16);
  await put;
  await ends.nextPdu();
  expect(seen).toEqual([...new Array<string>(48).fill('write 262144'), 'send']);
});

it('what is more than the queue pair takes at a time waits for its turn', async () => {
  await using ends = await TargetUnderTest.logIn();
  const buffer = ends.peer.memoryFor(600);
  ends.command(1, { read: buffer });
  const task = await ends.end.nextCommand();
  const data = ends.memoryFor(600);
  data.set(patternBytes(600));
  const puts: Promise<void>[] = [];
  for (let offset = 0; offset < 600; offset++)
    puts.push(ends.end.datamover.putData(task, offset, data.subarray(offset, offset + 1)));
  ends.end.datamover.sendControl(pdu({ opcode: 'scsi-response', itt: 1 }));
  await Promise.all(puts);
  await ends.nextPdu();
  expect(Buffer.compare(buffer, patternBytes(600))).toBe(0);
});

it('data that waits for memory is not sent any more once its task has ended', async () => {
  await using ends = await TargetUnderTest.logIn();
  const length = 12 * 1024 * 1024;
  ends.command(1, { read: ends.peer.memoryFor(length) });
  const task = await ends.end.nextCommand();
  const seen = watch(ends);
  const put = ends.end.datamover.putData(task, 0, new Uint8Array(length));
  ends.end.datamover.deallocateTask(1);
  await expect(put).rejects.toMatchObject({ code: 'aborted' });
  expect(ends.buffers.bytesInRuns).toBe(0);
  expect(seen).toHaveLength(16);
});

describe.each(KINDS)('getData into %s memory', (kind) => {
  const bufferFor = (ends: TargetUnderTest, length: number) =>
    kind === 'registered' ? ends.memoryFor(length) : new Uint8Array(length);

  const written = (ends: TargetUnderTest, length: number) => {
    const memory = ends.peer.memoryFor(length);
    memory.set(patternBytes(length));
    return memory;
  };

  test.each([
    ['none', 0],
    ['some', 5000],
    ['all', 20_000],
  ])('takes what came with the command, which is %s, and reads the rest', async (_name, immediate) => {
    const parameters = { maxRecvDataSegmentLength: 8192, firstBurstLength: 20_000 };
    await using ends = await TargetUnderTest.logIn({ parameters });
    const length = immediate === 20_000 ? 8000 : 20_000;
    const inMessage = Math.min(immediate, length);
    ends.command(1, { write: written(ends, length), immediate: inMessage });
    const task = await ends.end.nextCommand();
    expect(task.data).toEqual(patternBytes(inMessage));
    const seen = watch(ends);
    const into = bufferFor(ends, length);
    await ends.end.datamover.getData(task, 0, into);
    expect(Buffer.compare(into, patternBytes(length))).toBe(0);
    expect(seen).toEqual(inMessage === length ? [] : [`read ${length - inMessage}`]);
  });

  it('may ask for any part, before, across and behind the end of what came with the command', async () => {
    await using ends = await TargetUnderTest.logIn();
    ends.command(1, { write: written(ends, 3000), immediate: 1000 });
    const task = await ends.end.nextCommand();
    for (const [start, end] of [
      [0, 10],
      [990, 1000],
      [500, 2500],
      [999, 1001],
      [1000, 1001],
      [2999, 3000],
      [0, 3000],
    ] as const) {
      const into = bufferFor(ends, end - start);
      await ends.end.datamover.getData(task, start, into);
      expect(Buffer.compare(into, patternBytes(3000).subarray(start, end)), `${start} to ${end}`).toBe(0);
    }
  });

  it('is refused beyond the expected length', async () => {
    await using ends = await TargetUnderTest.logIn();
    ends.command(1, { write: written(ends, 512) });
    const task = await ends.end.nextCommand();
    await expect(ends.end.datamover.getData(task, 0, bufferFor(ends, 513))).rejects.toThrow(RangeError);
  });

  it('rejects after the end of its task, but not before the initiator has answered', async () => {
    await using ends = await TargetUnderTest.logIn();
    ends.command(1, { write: written(ends, 512) });
    const task = await ends.end.nextCommand();
    // The answer to the RDMA Read is on its way for as long as the test likes.
    let answer: RdmaMessage | undefined;
    ends.providers.wire.intercept = (message) => {
      if (message.type !== 'read-response') return undefined;
      answer = message;
      return [];
    };
    const into = bufferFor(ends, 512);
    let outcome = 'pending';
    const get = ends.end.datamover.getData(task, 0, into).catch((error: { code: string }) => {
      outcome = error.code;
    });
    await settle();
    ends.end.datamover.deallocateTask(1);
    await settle();
    expect(outcome).toBe('pending');
    ends.providers.wire.intercept = undefined;
    ends.providers.wire.inject(answer as RdmaMessage, 'target');
    await get;
    expect(outcome).toBe('aborted');
    if (kind === 'other') expect(into).toEqual(new Uint8Array(512)); // it came too late to be wanted
  });

  it('costs the initiator its connection where that does not answer for long after the end of the task', async () => {
    const clock = new VirtualClock();
    await using ends = await TargetUnderTest.logIn({ options: { clock } });
    ends.command(1, { write: ends.peer.memoryFor(512) });
    const task = await ends.end.nextCommand();
    ends.providers.wire.intercept = ({ type }) => (type === 'read-request' ? [] : undefined);
    const got = ends.end.datamover.getData(task, 0, bufferFor(ends, 512));
    got.catch(() => {});
    await clock.advance(60_000); // a task may take its time
    ends.end.datamover.deallocateTask(1);
    await clock.advance(9999);
    expect(ends.providers.wire.connectionCount).toBe(1);
    await clock.advance(1);
    await expect(got).rejects.toMatchObject({ code: 'aborted' });
    expect(await ends.end.notifications.terminated).toMatchObject({ message: expect.stringMatching(/does not answer/) });
  });

  it('leaves no timer behind where the answer comes after the end of the task', async () => {
    const clock = new VirtualClock();
    await using ends = await TargetUnderTest.logIn({ options: { clock } });
    ends.command(1, { write: ends.peer.memoryFor(512) });
    const got = ends.end.datamover.getData(await ends.end.nextCommand(), 0, bufferFor(ends, 512));
    ends.end.datamover.deallocateTask(1);
    await expect(got).rejects.toMatchObject({ code: 'aborted' });
    expect(clock.pendingTimers).toBe(0);
  });

  it('rejects with the connection', async () => {
    await using ends = await TargetUnderTest.logIn();
    ends.command(1, { write: written(ends, 512) });
    const task = await ends.end.nextCommand();
    ends.providers.wire.intercept = (message) => (message.type === 'read-response' ? [] : undefined);
    const get = ends.end.datamover.getData(task, 0, bufferFor(ends, 512));
    await settle();
    ends.providers.wire.cut();
    await expect(get).rejects.toMatchObject({ code: 'connection-lost' });
  });
});

describe('a status', () => {
  test.each<[string, { read?: number; write?: number; immediate?: number }, 'read' | 'write' | undefined]>([
    ['of a READ', { read: 512 }, 'read'],
    ['of a WRITE', { write: 20_000, immediate: 8000 }, 'write'],
    ['of a WRITE that came whole', { write: 100, immediate: 100 }, undefined],
    ['of a command without data', {}, undefined],
  ])('%s revokes what the initiator advertised for it', async (_name, { read, write, immediate }, expected) => {
    await using ends = await TargetUnderTest.logIn();
    const header: IserHeader = ends.command(1, {
      ...(read === undefined ? {} : { read: ends.peer.memoryFor(read) }),
      ...(write === undefined ? {} : { write: ends.peer.memoryFor(write) }),
      ...(immediate === undefined ? {} : { immediate }),
    });
    ends.end.respond(await ends.end.nextCommand());
    const { invalidated, pdu: response, header: own } = await ends.nextPdu();
    expect(response).toMatchObject({ opcode: 'scsi-response', itt: 1 });
    expect(own).toEqual({ read: undefined, write: undefined });
    expect(invalidated).toBe(expected === undefined ? undefined : header[expected]?.tag);
  });

  test.each([
    ['forbids it', Uint8Array.of(0xc0, 0, 0, 0)],
    ['has said nothing', new Uint8Array(0)],
  ])('revokes nothing where the initiator %s', async (_name, privateData) => {
    await using ends = await TargetUnderTest.logIn({ privateData });
    ends.command(1, { read: ends.peer.memoryFor(512) });
    ends.end.respond(await ends.end.nextCommand());
    expect((await ends.nextPdu()).invalidated).toBeUndefined();
    expect(ends.end.datamover.traits['remote invalidate']).toBe('off');
  });

  // connectionQuirks.unsentImmediateData
  test.each([
    ['is granted none where the initiator forbids to revoke', 0xc0, { ImmediateData: 'No' }],
    ['is left to the negotiation elsewhere', 0x80, {}],
  ])('immediate data %s', async (_name, flags, keys) => {
    await using ends = await TargetUnderTest.connect({ privateData: Uint8Array.of(flags, 0, 0, 0) });
    const { ImmediateData } = ends.end.datamover.keyOffers('normal');
    expect(ImmediateData === undefined ? {} : { ImmediateData }).toEqual(keys);
    expect(ends.end.datamover.keyOffers('discovery')).not.toHaveProperty('ImmediateData');
  });

  it('revokes nothing from under an RDMA Read', async () => {
    await using ends = await TargetUnderTest.logIn();
    ends.command(1, { write: ends.peer.memoryFor(512) });
    const task = await ends.end.nextCommand();
    const get = ends.end.datamover.getData(task, 0, new Uint8Array(512));
    ends.end.datamover.sendControl(pdu({ opcode: 'scsi-response', itt: 1 }));
    expect((await ends.nextPdu()).invalidated).toBeUndefined();
    await get;
  });
});

describe('an initiator that breaks the rules loses its connection', () => {
  const write = (fields: Partial<Pdu<'scsi-command'>>) =>
    ({ opcode: 'scsi-command', itt: 1, final: true, write: true, ...fields }) as const;
  const tag = { tag: 0x1000, address: 0n };

  test.each<[string, Parameters<typeof pdu>[0], IserHeader, RegExp]>([
    [
      'unsolicited data',
      { opcode: 'data-out', itt: 1 },
      { read: undefined, write: undefined },
      /unsolicited data in spite of InitialR2T=Yes/,
    ],
    [
      'the announcement of it',
      write({ final: false, expectedDataTransferLength: 512 }),
      { read: undefined, write: tag },
      /announced/,
    ],
    ['SNACK', { opcode: 'snack', itt: 1 }, { read: undefined, write: undefined }, /SNACK/],
    [
      'what only targets send',
      { opcode: 'nop-in', itt: 1 },
      { read: undefined, write: undefined },
      /nop-in, which no initiator sends/,
    ],
    [
      'more immediate data than it writes',
      write({ expectedDataTransferLength: 4, data: new Uint8Array(5) }),
      { read: undefined, write: undefined },
      /5 bytes of immediate data where at most 4 may come/,
    ],
    [
      'immediate data of a command that writes nothing',
      { opcode: 'scsi-command', itt: 1, final: true, read: true, expectedDataTransferLength: 4, data: new Uint8Array(4) },
      { read: tag, write: undefined },
      /4 bytes of immediate data where at most 0 may come/,
    ],
    [
      'a WRITE without a tag',
      write({ expectedDataTransferLength: 512 }),
      { read: tag, write: undefined },
      /write 512 bytes by RDMA comes without a write STag/,
    ],
    [
      'a READ without a tag',
      { opcode: 'scsi-command', itt: 1, final: true, read: true, expectedDataTransferLength: 512 },
      { read: undefined, write: tag },
      /read 512 bytes by RDMA comes without a read STag/,
    ],
    [
      'a buffer beyond all addresses',
      write({ expectedDataTransferLength: 512 }),
      { read: undefined, write: { tag: 1, address: 2n ** 64n - 511n } },
      /reach beyond all addresses/,
    ],
  ])('for %s', async (_name, fields, header, message) => {
    await using ends = await TargetUnderTest.logIn();
    ends.ask(fields, header);
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(message));
    expect(ends.end.received).toBe(0);
  });

  it('for more immediate data than the first burst', async () => {
    await using ends = await TargetUnderTest.logIn({ parameters: { firstBurstLength: 512 } });
    ends.command(1, { write: ends.peer.memoryFor(4096), immediate: 513 });
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/513 bytes .* at most 512/));
  });

  it('for immediate data where there is to be none', async () => {
    await using ends = await TargetUnderTest.logIn({ parameters: { immediateData: false } });
    ends.command(1, { write: ends.peer.memoryFor(4096), immediate: 1 });
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/ImmediateData=No/));
  });

  it('for a task tag that is in use', async () => {
    await using ends = await TargetUnderTest.logIn();
    ends.command(1, { read: ends.peer.memoryFor(512) });
    await ends.end.next();
    ends.command(1, { read: ends.peer.memoryFor(512) });
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/task tag 1 is in use/));
  });

  it('for a command before the login has ended', async () => {
    await using ends = await TargetUnderTest.connect();
    ends.command(1, { read: ends.peer.memoryFor(512) });
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/before login has ended/));
  });

  it('for a tag that it has not advertised', async () => {
    await using ends = await TargetUnderTest.logIn();
    ends.ask(
      { opcode: 'scsi-command', itt: 1, final: true, read: true, expectedDataTransferLength: 512 },
      { read: { tag: 0xbad, address: 0n }, write: undefined },
    );
    const task = await ends.end.nextCommand();
    await expect(ends.end.datamover.putData(task, 0, new Uint8Array(512))).rejects.toMatchObject({ code: 'connection-lost' });
    expect(await ends.end.notifications.terminated).toMatchObject({ code: 'connection-lost' });
  });

  it('for Hello', async () => {
    await using ends = await TargetUnderTest.connect();
    const hello = new Uint8Array(76);
    hello[0] = 0x20;
    await ends.peer.send(hello);
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/Hello/));
  });

  it('for a message cut short', async () => {
    await using ends = await TargetUnderTest.logIn();
    const whole = messageOf(pdu({ opcode: 'nop-out', itt: 1, data: new Uint8Array(8) }));
    await ends.peer.send(whole.subarray(0, whole.length - 1));
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/83 bytes with a PDU of 56/));
  });

  it('for more commands than there are receives for', async () => {
    await using ends = await TargetUnderTest.logIn({ options: { commandWindow: 4 } });
    for (let itt = 1; itt <= 4 + 16 + 1; itt++) ends.command(itt, {});
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/no receive is posted/));
  });

  it('for more commands than it has a window for, although each had its receive', async () => {
    await using ends = await TargetUnderTest.logIn({ options: { commandWindow: 4 } });
    await settle();
    const before = ends.buffers.messagesInUse;
    for (let itt = 1; itt <= 4 + 2 * 16; itt++) {
      ends.command(itt, { write: new Uint8Array(100), immediate: 100 });
      await ends.end.nextCommand();
    }
    expect(ends.buffers.messagesInUse).toBe(before + 4 + 2 * 16);
    ends.command(99, { write: new Uint8Array(100), immediate: 100 });
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/more commands/));
  });
});

describe('receives', () => {
  it('are kept with the immediate data in them, and there are as many for what comes', async () => {
    await using ends = await TargetUnderTest.logIn({ options: { commandWindow: 4 } });
    await settle();
    const before = ends.buffers.messagesInUse;
    for (let itt = 1; itt <= 4; itt++) ends.command(itt, { write: ends.peer.memoryFor(100), immediate: 100 });
    const tasks: Pdu<'scsi-command'>[] = [];
    for (let itt = 1; itt <= 4; itt++) tasks.push(await ends.end.nextCommand());
    expect(ends.buffers.messagesInUse).toBe(before + 4);
    for (let itt = 101; itt <= 120; itt++) ends.ask({ opcode: 'nop-out', itt, ttt: RESERVED_TAG });
    for (let itt = 101; itt <= 120; itt++) expect((await ends.end.next()).itt).toBe(itt);
    for (const task of tasks) ends.end.respond(task);
    for (const _ of tasks) await ends.nextPdu();
    await settle();
    expect(ends.buffers.messagesInUse).toBe(before);
  });

  it('bound the window that a session may open', async () => {
    await using ends = await TargetUnderTest.connect({ options: { commandWindow: 7 } });
    expect(ends.end.datamover.commandWindow).toBe(7);
  });
});

describe('the end of login', () => {
  test.each([
    ['a digest', { dataDigest: true }, /digests/],
    ['no RDMAExtensions', { rdmaExtensions: false }, /RDMAExtensions=Yes/],
    ['unsolicited data', { initialR2T: false }, /InitialR2T=No/],
  ])('is refused with %s', async (_name, parameters, message) => {
    await using ends = await TargetUnderTest.connect();
    expect(() => ends.end.datamover.enable({ ...iserParameters, ...parameters })).toThrow(
      expect.objectContaining({ code: 'login-refused', message: expect.stringMatching(message) }),
    );
  });

  it('makes what comes too early wait', async () => {
    await using ends = await TargetUnderTest.connect();
    ends.ask({ opcode: 'login-request', itt: 0, transit: true, csg: 1, nsg: 3 });
    await ends.end.next();
    ends.end.datamover.sendControl(pdu({ opcode: 'login-response', itt: 0, transit: true, csg: 1, nsg: 3 }));
    ends.command(1, { read: ends.peer.memoryFor(512) });
    await settle();
    expect(ends.end.received).toBe(0);
    ends.end.datamover.enable(iserParameters);
    expect(await ends.end.next()).toMatchObject({ opcode: 'scsi-command', itt: 1 });
  });
});
