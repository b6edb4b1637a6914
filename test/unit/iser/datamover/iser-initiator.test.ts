import { describe, expect, it, test } from 'vitest';
import { encodeBhs, type Pdu, pdu, RESERVED_TAG } from '../../../../src/iser/iscsi/pdu.ts';
import type { RemoteMemory } from '../../../../src/iser/rdma/provider.ts';
import { patternBytes } from '../../../support/datamover-pair.ts';
import { InitiatorUnderTest, iserParameters, messageOf } from '../../../support/iser-ends.ts';
import { settle, VirtualClock } from '../../../support/virtual-clock.ts';

/** What a command advertised; fails the test where it did not. */
function memoryIn(memory: RemoteMemory | undefined): RemoteMemory {
  if (memory === undefined) throw new Error('nothing is advertised');
  return memory;
}

const from = ({ tag, address }: RemoteMemory, offset: number) => ({ tag, address: address + BigInt(offset) });
const protocolError = (message: RegExp) => ({ code: 'protocol-error', message: expect.stringMatching(message) });

describe.each(['registered', 'other'] as const)('a READ into %s memory', (kind) => {
  const bufferFor = (ends: InitiatorUnderTest, length: number) =>
    kind === 'registered' ? ends.memoryFor(length) : new Uint8Array(length);

  it('is filled by RDMA Writes', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    const dataIn = bufferFor(ends, 10_000);
    ends.end.command(1, { dataIn });
    const { header, pdu: command } = await ends.nextPdu();
    expect(command).toMatchObject({ opcode: 'scsi-command', itt: 1, final: true, expectedDataTransferLength: 10_000 });
    expect(header.write).toBeUndefined();
    expect(ends.buffers.bytesInRuns).toBe(kind === 'registered' ? 0 : 10_000);
    const read = memoryIn(header.read);
    await ends.peer.write(patternBytes(4000, 6000), from(read, 6000));
    await ends.peer.write(patternBytes(6000), read);
    ends.answer({ opcode: 'scsi-response', itt: 1 });
    expect(await ends.end.next()).toMatchObject({ pdu: { opcode: 'scsi-response' }, transferred: 10_000 });
    expect(Buffer.compare(dataIn, patternBytes(10_000))).toBe(0);
  });

  it('ends short by the residual', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    const dataIn = bufferFor(ends, 512);
    ends.end.command(1, { dataIn });
    const { header } = await ends.nextPdu();
    await ends.peer.write(patternBytes(100), memoryIn(header.read));
    ends.answer({ opcode: 'scsi-response', itt: 1, status: 2, underflow: true, residualCount: 412 });
    expect(await ends.end.next()).toMatchObject({ transferred: 100 });
    expect(dataIn.slice(0, 100)).toEqual(patternBytes(100));
    expect(dataIn.subarray(100)).toEqual(new Uint8Array(412));
  });

  it('cannot be written to beyond its bounds', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    ends.end.command(1, { dataIn: bufferFor(ends, 512) });
    const { header } = await ends.nextPdu();
    expect((await ends.peer.write(patternBytes(2), from(memoryIn(header.read), 511))).status).toBe('failed');
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/beyond the bounds/));
  });

  it('cannot be read from', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    ends.end.command(1, { dataIn: bufferFor(ends, 512) });
    const { header } = await ends.nextPdu();
    await expect(ends.peer.read(512, memoryIn(header.read))).rejects.toThrow(/failed/);
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/not for that/));
  });

  it('cannot be written to any more when its status is handed up', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    const dataIn = bufferFor(ends, 512);
    ends.end.command(1, { dataIn });
    const { header } = await ends.nextPdu();
    ends.end.onPdu = () =>
      ends.providers.wire.inject({ type: 'write', to: memoryIn(header.read), bytes: patternBytes(512) }, 'initiator');
    ends.answer({ opcode: 'scsi-response', itt: 1 });
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/not in force/));
    expect(ends.end.received).toBe(1);
    expect(dataIn).toEqual(new Uint8Array(512));
  });

  it('cannot be written to any more once its task is deallocated', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    const dataIn = bufferFor(ends, 512);
    ends.end.command(1, { dataIn });
    const { header } = await ends.nextPdu();
    ends.end.datamover.deallocateTask(1);
    expect(ends.buffers.bytesInRuns).toBe(0);
    expect((await ends.peer.write(patternBytes(512), memoryIn(header.read))).status).toBe('failed');
    expect(dataIn).toEqual(new Uint8Array(512));
  });
});

describe.each(['registered', 'other'] as const)('a WRITE from %s memory', (kind) => {
  const bufferWith = (ends: InitiatorUnderTest, data: Uint8Array) => {
    if (kind === 'other') return data;
    const registered = ends.memoryFor(data.length);
    registered.set(data);
    return registered;
  };

  test.each([
    ['the longest message, where that is shortest', 20_000, { maxSendDataSegmentLength: 4096 }, 4096],
    ['the first burst, where that is shortest', 20_000, { firstBurstLength: 1000 }, 1000],
    ['all of its data, where that is shortest', 700, {}, 700],
    ['nothing, where ImmediateData is No', 20_000, { immediateData: false }, 0],
  ])('brings with it %s, and the rest can be read', async (_name, length, parameters, immediate) => {
    await using ends = await InitiatorUnderTest.logIn({ parameters });
    const data = patternBytes(length);
    ends.end.command(1, { dataOut: bufferWith(ends, data) });
    const { header, pdu: command } = await ends.nextPdu();
    expect(command).toMatchObject({ final: true, expectedDataTransferLength: length });
    expect(command.data).toEqual(data.subarray(0, immediate));
    expect(header.read).toBeUndefined();
    expect(ends.buffers.bytesInRuns).toBe(kind === 'registered' ? 0 : length - immediate);
    if (immediate === length) expect(header.write).toBeUndefined();
    else {
      // The address is that of the first byte which is not in the message.
      const rest = await ends.peer.read(length - immediate, memoryIn(header.write));
      expect(Buffer.compare(rest, data.subarray(immediate))).toBe(0);
    }
    ends.answer({ opcode: 'scsi-response', itt: 1 });
    expect(await ends.end.next()).toMatchObject({ transferred: length });
  });

  it('cannot be read beyond its end', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    ends.end.command(1, { dataOut: bufferWith(ends, patternBytes(20_000)) });
    const { header } = await ends.nextPdu();
    await expect(ends.peer.read(20_000 - 8192 + 1, memoryIn(header.write))).rejects.toThrow(/failed/);
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/beyond the bounds/));
  });

  it('cannot be read before what is advertised, nor written to', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    const dataOut = bufferWith(ends, patternBytes(20_000));
    ends.end.command(1, { dataOut });
    const { header } = await ends.nextPdu();
    const write = memoryIn(header.write);
    ends.providers.wire.inject({ type: 'write', to: write, bytes: new Uint8Array(8) }, 'initiator');
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/not for that/));
    expect(Buffer.compare(dataOut, patternBytes(20_000))).toBe(0);
  });
});

describe('a status', () => {
  it('may revoke the tag of its own task', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    ends.end.command(1, { dataIn: ends.memoryFor(512) });
    ends.end.command(2, { dataOut: ends.memoryFor(20_000) });
    const tags = [memoryIn((await ends.nextPdu()).header.read).tag, memoryIn((await ends.nextPdu()).header.write).tag];
    ends.answer({ opcode: 'scsi-response', itt: 1 }, tags[0]);
    ends.answer({ opcode: 'scsi-response', itt: 2 }, tags[1]);
    expect(await ends.end.next()).toMatchObject({ pdu: { itt: 1 }, transferred: 512 });
    expect(await ends.end.next()).toMatchObject({ pdu: { itt: 2 }, transferred: 20_000 });
  });

  it('that revokes the tag of another task ends the connection', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    ends.end.command(1, { dataIn: ends.memoryFor(512) });
    ends.end.command(2, { dataIn: ends.memoryFor(512) });
    await ends.nextPdu();
    const { header } = await ends.nextPdu();
    ends.answer({ opcode: 'scsi-response', itt: 1 }, memoryIn(header.read).tag);
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/task 1 invalidates tag .* not that task's/));
    expect(ends.end.received).toBe(0);
  });

  it('of a task that does not exist ends the connection, also where it revokes a tag that does', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    ends.end.command(1, { dataIn: ends.memoryFor(512) });
    const { header } = await ends.nextPdu();
    ends.answer({ opcode: 'scsi-response', itt: 9 }, memoryIn(header.read).tag);
    expect(await ends.end.notifications.terminated).toMatchObject({ code: 'protocol-error' });
  });

  it('that comes twice ends the connection', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    ends.end.command(1, { dataIn: ends.memoryFor(512) });
    await ends.nextPdu();
    ends.answer({ opcode: 'scsi-response', itt: 1 });
    ends.answer({ opcode: 'scsi-response', itt: 1 });
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/task that does not exist/));
  });

  it('of a deallocated task is handed up once, with nothing transferred', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    const dataIn = new Uint8Array(512);
    ends.end.command(1, { dataIn });
    const { header } = await ends.nextPdu();
    await ends.peer.write(patternBytes(512), memoryIn(header.read));
    ends.end.datamover.deallocateTask(1);
    ends.answer({ opcode: 'scsi-response', itt: 1 });
    expect(await ends.end.next()).toMatchObject({ pdu: { itt: 1 }, transferred: 0 });
    expect(dataIn).toEqual(new Uint8Array(512));
    ends.answer({ opcode: 'scsi-response', itt: 1 });
    expect(await ends.end.notifications.terminated).toMatchObject({ code: 'protocol-error' });
  });

  test.each<[string, Partial<Pdu<'scsi-response'>>, RegExp]>([
    [
      'a residual that is longer than the transfer',
      { underflow: true, residualCount: 513 },
      /residual of 513 bytes for a transfer of 512/,
    ],
    [
      'both an overflow and an underflow',
      { underflow: true, overflow: true, residualCount: 1 },
      /both an overflow and an underflow/,
    ],
  ])('with %s ends the connection', async (_name, fields, message) => {
    await using ends = await InitiatorUnderTest.logIn();
    const dataIn = new Uint8Array(512);
    ends.end.command(1, { dataIn });
    const { header } = await ends.nextPdu();
    await ends.peer.write(patternBytes(512), memoryIn(header.read));
    ends.answer({ opcode: 'scsi-response', itt: 1, ...fields });
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(message));
    expect(dataIn).toEqual(new Uint8Array(512));
  });

  test.each<[string, Partial<Pdu<'scsi-response'>>, number]>([
    ['an overflow', { overflow: true, residualCount: 70_000 }, 512],
    ['a residual without its flag', { residualCount: 70_000 }, 512],
    ['all of it as the residual', { underflow: true, residualCount: 512 }, 0],
    ['a response that is no completion', { response: 1 }, 0],
  ])('with %s says how much was transferred', async (_name, fields, transferred) => {
    await using ends = await InitiatorUnderTest.logIn();
    ends.end.command(1, { dataIn: new Uint8Array(512) });
    await ends.nextPdu();
    ends.answer({ opcode: 'scsi-response', itt: 1, ...fields });
    expect(await ends.end.next()).toMatchObject({ transferred });
  });
});

describe('a message that breaks the rules ends the connection', () => {
  const plain = (fields: Parameters<typeof pdu>[0]) => messageOf(pdu(fields));
  const withDsl = (message: Uint8Array, length: number) => {
    message.set([length >>> 16, (length >>> 8) & 0xff, length & 0xff], 28 + 5);
    return message;
  };

  test.each<[string, Uint8Array, RegExp]>([
    ['Data-In', plain({ opcode: 'data-in', itt: 1 }), /data-in over iSER/],
    ['R2T', plain({ opcode: 'r2t', itt: 1 }), /r2t over iSER/],
    ['what only initiators send', plain({ opcode: 'nop-out', itt: 1 }), /nop-out, which no target sends/],
    ['Hello', new Uint8Array(28).fill(0x20, 0, 1), /Hello/],
    ['nothing', new Uint8Array(0), /0 bytes is shorter than an iSER header/],
    ['half a header', new Uint8Array(27).fill(0x10, 0, 1), /27 bytes is shorter/],
    ['a header alone', new Uint8Array(28).fill(0x10, 0, 1), /28 bytes is too short for a PDU/],
    ['a data segment that is not there', withDsl(plain({ opcode: 'nop-in', itt: RESERVED_TAG }), 4), /76 bytes with a PDU of 52/],
    ['a data segment of 16 MiB', withDsl(plain({ opcode: 'nop-in', itt: RESERVED_TAG }), 0xffffff), /76 bytes with a PDU/],
    [
      'more than was agreed',
      plain({ opcode: 'nop-in', itt: RESERVED_TAG, data: new Uint8Array(8193) }),
      /8193 bytes of data where at most 8192/,
    ],
    ['more than the receive holds', new Uint8Array(10_000).fill(0x10, 0, 1), /a message of 10000 bytes where the receive has/],
  ])('%s', async (_name, message, error) => {
    await using ends = await InitiatorUnderTest.logIn();
    ends.end.command(1, { dataIn: new Uint8Array(512) });
    await ends.nextPdu();
    await ends.peer.send(message);
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(error));
    expect(ends.end.received).toBe(0);
  });

  it('a PDU other than a status that revokes a tag', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    ends.end.command(1, { dataIn: new Uint8Array(512) });
    const { header } = await ends.nextPdu();
    ends.answer({ opcode: 'nop-in', itt: RESERVED_TAG }, memoryIn(header.read).tag);
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/nop-in that invalidates a tag/));
  });

  it('a Send with Invalidate of a tag that never was', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    ends.answer({ opcode: 'nop-in', itt: RESERVED_TAG }, 0x4711);
    expect(await ends.end.notifications.terminated).toMatchObject(protocolError(/0x4711, which is not in force/));
  });
});

describe('flow control', () => {
  const nopOut = (itt: number, immediate: boolean) => pdu({ opcode: 'nop-out', itt, ttt: RESERVED_TAG, immediate });

  it('lets commands beyond its bound wait, in order, for answers', async () => {
    await using ends = await InitiatorUnderTest.logIn({ options: { maxCommands: 3 } });
    for (let itt = 1; itt <= 6; itt++) ends.end.command(itt, { dataIn: ends.memoryFor(512) });
    await settle();
    expect(ends.peer.received).toBe(3);
    for (let itt = 1; itt <= 3; itt++) expect((await ends.nextPdu()).pdu.itt).toBe(itt);
    for (const [answered, next] of [
      [2, 4],
      [1, 5],
      [4, 6],
    ] as const) {
      ends.answer({ opcode: 'scsi-response', itt: answered });
      await settle();
      expect(ends.peer.received).toBe(1);
      expect((await ends.nextPdu()).pdu.itt).toBe(next);
    }
  });

  it('keeps immediate PDUs in flight few', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    for (let itt = 1; itt <= 10; itt++) ends.end.datamover.sendControl(nopOut(itt, true));
    await settle();
    expect(ends.peer.received).toBe(6);
    ends.answer({ opcode: 'nop-in', itt: 3, ttt: RESERVED_TAG });
    await settle();
    expect(ends.peer.received).toBe(7);
  });

  it('lets nothing overtake what waits', async () => {
    await using ends = await InitiatorUnderTest.logIn({ options: { maxCommands: 1 } });
    ends.end.command(1, {});
    ends.end.command(2, {});
    ends.end.datamover.sendControl(nopOut(3, true));
    await settle();
    expect(ends.peer.received).toBe(1);
    ends.answer({ opcode: 'scsi-response', itt: 1 });
    for (const itt of [1, 2, 3]) expect((await ends.nextPdu()).pdu.itt).toBe(itt);
  });

  it('counts what is rejected as answered, and what is deallocated as gone', async () => {
    await using ends = await InitiatorUnderTest.logIn({ options: { maxCommands: 2 } });
    ends.end.datamover.sendControl(nopOut(1, false));
    ends.end.command(2, {});
    ends.end.command(3, {});
    ends.end.command(4, {});
    await settle();
    expect(ends.peer.received).toBe(2);
    ends.answer({ opcode: 'reject', reason: 9, itt: RESERVED_TAG, data: encodeBhs(nopOut(1, false)) });
    await settle();
    expect(ends.peer.received).toBe(3);
    ends.end.datamover.deallocateTask(2);
    await settle();
    expect(ends.peer.received).toBe(4);
  });

  it('counts the answers to pings, which nobody answers, until they are sent', async () => {
    await using ends = await InitiatorUnderTest.logIn();
    let sent = 0;
    ends.providers.wire.intercept = () => {
      sent++;
      return undefined;
    };
    for (let ttt = 101; ttt <= 110; ttt++)
      ends.end.datamover.sendControl(pdu({ opcode: 'nop-out', itt: RESERVED_TAG, ttt, immediate: true }));
    expect(sent).toBe(6);
    for (let count = 0; count < 10; count++) await ends.nextPdu();
    for (let ttt = 1; ttt <= 40; ttt++) {
      ends.end.datamover.sendControl(pdu({ opcode: 'nop-out', itt: RESERVED_TAG, ttt, immediate: true }));
      await settle();
    }
    expect(ends.peer.received).toBe(40);
  });

  it('has a receive for every answer, and for a few messages that nobody asked for', async () => {
    await using ends = await InitiatorUnderTest.logIn({ options: { maxCommands: 20 } });
    for (let itt = 1; itt <= 20; itt++) ends.end.command(itt, {});
    for (let itt = 101; itt <= 106; itt++) ends.end.datamover.sendControl(nopOut(itt, true));
    await settle();
    // All of it arrives before any of it can be looked at.
    const all: Parameters<typeof pdu>[0][] = [];
    for (let count = 0; count < 16; count++) all.push({ opcode: 'nop-in', itt: RESERVED_TAG, ttt: RESERVED_TAG });
    for (let itt = 1; itt <= 20; itt++) all.push({ opcode: 'scsi-response', itt });
    for (let itt = 101; itt <= 106; itt++) all.push({ opcode: 'nop-in', itt, ttt: RESERVED_TAG });
    for (const fields of all) ends.answer(fields);
    for (const fields of all) expect((await ends.end.next()).pdu.opcode).toBe(fields.opcode);
  });

  it('fits any number of rounds into the same receives', async () => {
    await using ends = await InitiatorUnderTest.logIn({ options: { maxCommands: 4 } });
    const dataIn = ends.memoryFor(64);
    for (let itt = 1; itt <= 500; itt++) {
      ends.end.command(itt, { dataIn });
      await ends.nextPdu();
      ends.answer({ opcode: 'scsi-response', itt });
      await ends.end.next();
    }
    expect(ends.buffers.messagesInUse).toBe(4 + 6 + 16);
  });
});

describe('a task that is ended too early', () => {
  it('leaves its memory alone from then on, whatever of its command is still on its way out', async () => {
    const clock = new VirtualClock();
    const connecting = InitiatorUnderTest.logIn({ providers: { clock, latencyMs: 10 }, options: { clock } });
    await clock.advance(100);
    await using ends = await connecting;
    const dataOut = ends.memoryFor(512).fill(7);
    ends.end.command(1, { dataOut });
    ends.end.datamover.deallocateTask(1);
    dataOut.fill(9); // it is another one's by now
    await clock.advance(20);
    const { pdu: command } = await ends.nextPdu();
    expect(command.data).toEqual(new Uint8Array(512).fill(7));
    const disposed = ends.end.datamover.terminate('abrupt');
    await clock.advance(100);
    await disposed;
  });

  it('costs the connection while its command waits', async () => {
    await using ends = await InitiatorUnderTest.logIn({ options: { maxCommands: 1 } });
    ends.end.command(1, {});
    ends.end.command(2, { dataIn: ends.memoryFor(512) });
    ends.end.datamover.deallocateTask(2);
    expect(await ends.end.notifications.terminated).toMatchObject({ code: 'connection-lost' });
    expect(ends.peer.received).toBeLessThan(2);
  });
});

describe('the end of login', () => {
  test.each([
    ['a digest', { headerDigest: true }, /digests, which iSER does not have/],
    ['no RDMAExtensions', { rdmaExtensions: false }, /did not agree to RDMAExtensions=Yes/],
  ])('is refused with %s', async (_name, parameters, message) => {
    await using ends = await InitiatorUnderTest.logIn();
    expect(() => ends.end.datamover.enable({ ...iserParameters, ...parameters })).toThrow(
      expect.objectContaining({ code: 'login-refused', message: expect.stringMatching(message) }),
    );
  });

  it('is offered no digest, and the keys of iSER only where data is to be moved', async () => {
    await using ends = await InitiatorUnderTest.connect({ options: { initiatorRecvDataSegmentLength: 4096 } });
    expect(ends.end.datamover.keyOffers('normal')).toEqual({
      HeaderDigest: 'None',
      DataDigest: 'None',
      RDMAExtensions: 'Yes',
      InitiatorRecvDataSegmentLength: '4096',
      TargetRecvDataSegmentLength: '8192',
      InitialR2T: 'Yes',
    });
    expect(ends.end.datamover.keyOffers('discovery')).toEqual({
      HeaderDigest: 'None',
      DataDigest: 'None',
      MaxRecvDataSegmentLength: '8192',
    });
  });
});

describe('a peer that has overlooked the first message', () => {
  async function silent(fabric: string) {
    const clock = new VirtualClock();
    const connecting = InitiatorUnderTest.connect({ providers: { clock, fabric }, options: { clock } });
    await clock.advance(0);
    const ends = await connecting;
    const nudges: number[] = [];
    ends.providers.wire.intercept = (message, side) => {
      if (message.type === 'write' && side === 'initiator') {
        expect(message.bytes).toHaveLength(0);
        nudges.push(clock.now());
      }
      return undefined;
    };
    return { clock, ends, nudges };
  }

  it('is woken up by writes of nothing, at growing distances, until it speaks', async () => {
    const { clock, ends, nudges } = await silent('iWARP');
    await clock.advance(1000);
    expect(nudges).toEqual([]); // nothing was sent that it could have overlooked
    ends.end.datamover.sendControl(pdu({ opcode: 'login-request', itt: 0 }));
    await clock.advance(6500);
    expect(nudges).toEqual([1100, 1300, 1700, 2500, 4100, 5700, 7300]);
    ends.answer({ opcode: 'login-response', itt: 0 });
    await clock.advance(100_000);
    expect(nudges).toHaveLength(7);
    expect(ends.end.received).toBe(1);
    expect(clock.pendingTimers).toBe(0);
  });

  it('is left alone where the fabric is another one', async () => {
    const { clock, ends, nudges } = await silent('RoCE');
    ends.end.datamover.sendControl(pdu({ opcode: 'login-request', itt: 0 }));
    await clock.advance(10_000);
    expect(nudges).toEqual([]);
  });

  it('is left alone once the connection has ended', async () => {
    const { clock, ends, nudges } = await silent('iWARP');
    ends.end.datamover.sendControl(pdu({ opcode: 'login-request', itt: 0 }));
    await clock.advance(50);
    ends.providers.wire.cut();
    await clock.advance(10_000);
    expect(nudges).toEqual([]);
    expect(clock.pendingTimers).toBe(0);
  });
});

describe('what is shown of a connection', () => {
  test.each([
    ['welcome to both', Uint8Array.of(0x80, 0, 0, 0), 'on'],
    ['not welcome to the peer', Uint8Array.of(0xc0, 0, 0, 0), 'off'],
    ['not spoken of', new Uint8Array(0), 'off'],
  ])('remote invalidation, where it is %s', async (_name, privateData, shown) => {
    await using ends = await InitiatorUnderTest.connect({ privateData });
    expect(ends.end.datamover.traits['remote invalidate']).toBe(shown);
  });

  it('remote invalidation, where the device does not know it: the peer is told, and each region is taken back here', async () => {
    await using ends = await InitiatorUnderTest.logIn({ providers: { protection: 'region' } });
    expect(ends.peer.queuePair.privateData).toEqual(Uint8Array.of(0xc0, 0, 0, 0));
    expect(ends.end.datamover.traits).toMatchObject({ 'remote invalidate': 'off', protection: 'memory region per command' });
  });
});
