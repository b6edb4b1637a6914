import { describe, expect, it } from 'vitest';
import { type OpcodeName, pdu, RESERVED_TAG } from '../../../src/iser/iscsi/pdu.ts';
import { quirksOf } from '../../../src/iser/iscsi/peer-quirks.ts';
import { inquiryCdb, readCdb, testUnitReadyCdb, writeCdb } from '../../../src/scsi/cdb.ts';
import { execute } from '../../../src/scsi/execute.ts';
import { decodeStandardInquiry } from '../../../src/scsi/inquiry.ts';
import type { ScsiResult, StartedCommand } from '../../../src/scsi/port.ts';
import { Pair, type PairOptions } from '../../support/pair.ts';
import { offsetPattern } from '../../support/pattern.ts';

/** A pair whose initiator has taken the unit attention that comes with a new nexus. */
async function connected(options: PairOptions): Promise<Pair> {
  const pair = await Pair.connect(options);
  await pair.drive(testUnitReady(pair));
  return pair;
}

function testUnitReady(pair: Pair): Promise<ScsiResult> {
  return execute(pair.initiator, { lun: 0n, cdb: testUnitReadyCdb(), nexus: pair.initiator.nexus ?? 0 });
}

/** Lets no PDU of these kinds pass. */
function drop(pair: Pair, ...opcodes: OpcodeName[]): void {
  pair.wire.intercept = (passing) => (opcodes.includes(passing.opcode) ? [] : undefined);
}

const outcome = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    (error: Error) => error,
  );

describe.each(['stream', 'iser'] as const)('over %s:', (transport) => {
  describe('a session', () => {
    it('logs in, carries SCSI and logs out, and leaves nothing behind', async () => {
      const pair = await connected({ transport });
      const dataIn = new Uint8Array(96);
      const cdb = inquiryCdb({ length: 96 });
      await pair.drive(execute(pair.initiator, { lun: 0n, cdb, dataIn, nexus: 1 }));
      const { vendor } = decodeStandardInquiry(dataIn);
      const { targetAlias } = pair.initiator;
      expect(vendor).toBe('ISERFS');
      expect(quirksOf({ vendor, targetAlias })).toMatchObject({ takesLongTransfers: true });
      expect(await pair.close()).toEqual({ connections: 0, timers: 0 });
    });

    it('carries data both ways', async () => {
      const pair = await connected({ transport });
      await carryDataBothWays(pair);
      await pair.close();
    });

    it('stays up over hours in which nothing happens', async () => {
      const pair = await connected({ transport });
      await pair.clock.advance(2 * 3600 * 1000);
      expect(pair.events).toEqual([]);
      expect((await pair.drive(testUnitReady(pair))).status).toBe(0);
      await pair.close();
    }, 20_000);
  });

  describe('a lost session', () => {
    it('is established again, with the next nexus number', async () => {
      const pair = await connected({ transport });
      pair.wire.cut();
      expect(await pair.drive(waitForNexus(pair, 2))).toBe(2);
      expect(pair.events.map(({ type }) => type)).toEqual(['nexus-lost', 'nexus-established']);
      await pair.close();
    });

    it('is established again when it has its turn', async () => {
      let mayGoOn: () => void = () => {};
      const turn = new Promise<void>((resolve) => {
        mayGoOn = resolve;
      });
      const takeTurn = <T>(login: () => Promise<T>): Promise<T> => turn.then(login);
      const pair = await connected({ transport, initiator: { takeTurn } });
      pair.wire.cut();
      await pair.clock.advance(5000);
      expect(pair.initiator.nexus).toBeUndefined();
      mayGoOn();
      expect(await pair.drive(pair.initiator.established())).toBe(2);
      await pair.close();
    });

    it('takes the commands in flight with it, which are not sent again', async () => {
      const pair = await connected({ transport });
      drop(pair, 'scsi-response');
      const lost = outcome(testUnitReady(pair));
      await pair.clock.advance(50);
      pair.wire.intercept = undefined;
      pair.wire.cut();
      expect(await pair.drive(lost)).toMatchObject({ code: 'connection-lost', mayHaveExecuted: true });
      await pair.close();
    });

    it('refuses commands for the old nexus', async () => {
      const pair = await connected({ transport });
      pair.wire.cut();
      await pair.drive(waitForNexus(pair, 2));
      const stale = outcome(execute(pair.initiator, { lun: 0n, cdb: testUnitReadyCdb(), nexus: 1 }));
      expect(await pair.drive(stale)).toMatchObject({ code: 'connection-lost', mayHaveExecuted: false });
      await pair.close();
    });

    it('lets a command fail after start() has returned, and one that follows from inside of that as well', async () => {
      const pair = await connected({ transport });
      const told: unknown[] = [];
      const command = (failed: (error: Error) => void): StartedCommand => {
        return { lun: 0n, cdb: testUnitReadyCdb(), nexus: 1, ended: (result) => told.push(result), failed };
      };
      const startAnother = (error: Error) => {
        told.push(error);
        pair.initiator.start(command((another) => told.push(another)));
        told.push('started');
      };
      pair.initiator.start(command(startAnother));
      pair.wire.cut();
      expect(told).toEqual([]);
      await pair.drive(waitForNexus(pair, 2));
      expect(told).toMatchObject([{ mayHaveExecuted: true }, 'started', { mayHaveExecuted: false }]);
      await pair.close();
    });

    it('is noticed 10 s after the peer has gone silent', async () => {
      const pair = await connected({ transport });
      pair.wire.intercept = () => [];
      pair.wire.answersConnections = false;
      await pair.clock.advance(9_900);
      expect(pair.events).toEqual([]);
      await pair.clock.advance(200);
      expect(pair.events.map(({ type }) => type)).toEqual(['nexus-lost']);
      await pair.close();
    });

    it('is given up after the recovery time-out, and taken up again when the target returns', async () => {
      const pair = await connected({ transport });
      pair.wire.answersConnections = false;
      pair.wire.cut();
      await pair.clock.advance(10);
      const waiting = outcome(pair.initiator.established());
      await pair.clock.advance(119_000);
      expect(pair.initiator.status.state).toBe('recovering');
      await pair.clock.advance(2000);
      expect(await pair.drive(waiting)).toMatchObject({ code: 'recovery-timeout' });
      expect(await outcome(testUnitReady(pair))).toMatchObject({ code: 'recovery-timeout' });
      expect(pair.initiator.status.state).toBe('failed');
      pair.wire.answersConnections = true;
      await pair.clock.advance(20_000);
      expect(pair.initiator.status).toMatchObject({ state: 'logged-in', reconnects: 1 });
      expect(pair.events.map(({ type }) => type)).toEqual(['nexus-lost', 'failed', 'nexus-established']);
      await pair.close();
    });

    it('is not hammered with a password that the target has come to refuse', async () => {
      const pair = await connected({ transport });
      let logins = 0;
      pair.wire.intercept = (passing) => {
        if (passing.opcode === 'login-request') logins++;
        if (passing.opcode !== 'login-response') return undefined;
        return [{ pdu: { ...passing, transit: false, statusClass: 2, statusDetail: 1 } }];
      };
      pair.wire.cut();
      await pair.clock.advance(25_000);
      expect(logins).toBe(3); // at once, and every 10 s
      pair.wire.intercept = undefined;
      await pair.clock.advance(10_000);
      expect(pair.initiator.status.state).toBe('logged-in');
      await pair.close();
    });

    it('is not looked for any more once the initiator is closed', async () => {
      const pair = await connected({ transport });
      pair.wire.answersConnections = false;
      pair.wire.cut();
      await pair.clock.advance(5000);
      expect(await pair.close()).toEqual({ connections: 0, timers: 0 });
    });

    it('waits for as long as the target asked (Time2Wait)', async () => {
      const pair = await connected({ transport });
      const statSn = await nextStatSn(pair);
      const lostAt = pair.clock.now();
      pair.wire.inject(
        pdu({ opcode: 'asynchronous-message', itt: RESERVED_TAG, statSn, asyncEvent: 2, parameter2: 7 }),
        'initiator',
      );
      expect(await pair.drive(waitForNexus(pair, 2))).toBe(2);
      expect(pair.clock.now() - lostAt).toBeGreaterThanOrEqual(7000);
      await pair.close();
    });
  });

  describe('a target that has moved', () => {
    it.each([
      ['temporarily, where it is looked for first at every login', 'temporarily', 2],
      ['permanently, where it is not looked for again', 'permanently', 1],
    ] as const)('%s', async (_name, moved, logins) => {
      const pair = await connected({ transport, moved });
      expect(pair.initiator.status.portal).toBe('127.0.0.1:3260');
      expect(pair.movedPortal?.logins).toBe(1);
      pair.wire.cut();
      await pair.drive(waitForNexus(pair, 2));
      expect(pair.initiator.status.portal).toBe('127.0.0.1:3260');
      expect(pair.movedPortal?.logins).toBe(logins);
      expect(await pair.close()).toEqual({ connections: 0, timers: 0 });
    });

    it('is given up where the addresses lead in circles', async () => {
      await expect(Pair.connect({ transport, moved: 'in-circles' })).rejects.toMatchObject({
        code: 'login-refused',
        message: expect.stringMatching(/test:pair at 127\.0\.0\.1:3261: .*more than 8 times/),
      });
    });
  });

  describe('closing', () => {
    it('lets a second call wait like the first', async () => {
      const pair = await connected({ transport });
      const closed: string[] = [];
      const first = pair.initiator.logout().then(() => closed.push('first'));
      const second = pair.initiator.logout().then(() => closed.push('second'));
      await Promise.resolve();
      expect(closed).toEqual([]);
      await pair.drive(Promise.all([first, second]));
      expect(await pair.close()).toEqual({ connections: 0, timers: 0 });
    });

    it('leaves no session behind whenever it comes during a login', async () => {
      // Each step of the clock, of a login of some 10 PDUs at 1 ms each.
      for (let wait = 1; wait <= 20; wait++) {
        const pair = await connected({ transport });
        pair.wire.cut();
        await pair.clock.advance(wait);
        await pair.drive(pair.initiator.logout());
        expect(pair.initiator.nexus).toBeUndefined();
        expect(await pair.close()).toEqual({ connections: 0, timers: 0 });
      }
    });
  });

  describe('a target that misbehaves', () => {
    it('loses the session after a PDU that answers nothing, and gets another chance', async () => {
      const pair = await connected({ transport });
      pair.wire.inject(pdu({ opcode: 'scsi-response', itt: 0x7777, statSn: await nextStatSn(pair) }), 'initiator');
      expect(await pair.drive(waitForNexus(pair, 2))).toBe(2);
      expect(pair.events[0]).toMatchObject({ type: 'nexus-lost', reason: { code: 'protocol-error' } });
      await pair.close();
    });

    it('swallows an answer, and the command is not reported as done', async () => {
      const pair = await connected({ transport });
      let swallowed = false;
      pair.wire.intercept = (passing) => {
        if (swallowed || passing.opcode !== 'scsi-response') return undefined;
        swallowed = true;
        return [];
      };
      const first = outcome(testUnitReady(pair));
      await pair.clock.advance(20);
      const second = outcome(testUnitReady(pair));
      if (transport === 'iser') {
        // A number out of turn says nothing there; the time that the command takes does.
        expect(await pair.drive(second)).toBeUndefined();
        expect(await pair.drive(first)).toMatchObject({ code: expect.stringMatching(/command-timeout|connection-lost/) });
      } else {
        expect(await pair.drive(first)).toMatchObject({ code: 'connection-lost', mayHaveExecuted: true });
        expect(await pair.drive(second)).toMatchObject({ code: 'connection-lost' });
      }
      await pair.close();
    });

    it('has a command aborted that it sits on, and keeps the session', async () => {
      const pair = await connected({ transport, initiator: { commandTimeoutMs: 3000 } });
      // The command never reaches the target, which confirms the abort of what it has not seen: its number says that it was sent.
      drop(pair, 'scsi-command');
      const slow = outcome(testUnitReady(pair));
      await pair.clock.advance(2900);
      pair.wire.intercept = undefined;
      expect(await pair.drive(slow)).toMatchObject({ code: expect.stringMatching(/command-timeout|connection-lost/) });
      await pair.close();
    });
  });
});

describe('over a stream', () => {
  it('shows what was negotiated, without the keys of a transport that is not in use', async () => {
    const pair = await connected({});
    const { keys } = pair.initiator.status;
    expect(keys).toMatchObject({ HeaderDigest: 'None', ImmediateData: 'Yes', ErrorRecoveryLevel: '0' });
    expect(Object.keys(keys)).not.toContain('RDMAExtensions');
    await pair.close();
  });

  it.each([
    ['digests', { headerDigest: 'require', dataDigest: 'require' } as const],
    ['segments of 512 bytes', { maxRecvDataSegmentLength: 512 }],
  ])('data goes both ways with %s', async (_name, stream) => {
    const pair = await connected({ stream });
    await carryDataBothWays(pair);
    await pair.close();
  });

  it('a target loses the session for a flipped bit under digests', async () => {
    const pair = await connected({ stream: { headerDigest: 'require', dataDigest: 'require' } });
    let flipped = false;
    pair.wire.intercept = (passing) => {
      if (flipped || passing.opcode !== 'data-in') return undefined;
      flipped = true;
      return [{ pdu: passing, flipBit: (48 + 4 + 100) * 8 }];
    };
    const dataIn = new Uint8Array(4096);
    const read = outcome(execute(pair.initiator, { lun: 0n, cdb: readCdb({ lba: 0, blocks: 8, size: 10 }), dataIn, nexus: 1 }));
    expect(await pair.drive(read)).toMatchObject({ code: 'connection-lost' });
    expect(pair.events[0]).toMatchObject({ type: 'nexus-lost', reason: { code: 'protocol-error' } });
    await pair.close();
  });
});

describe('over iSER', () => {
  it('the keys of iSER are shown, and the connection', async () => {
    const pair = await connected({ transport: 'iser' });
    const { keys, traits, transport } = pair.initiator.status;
    expect(keys).toMatchObject({
      RDMAExtensions: 'Yes',
      InitiatorRecvDataSegmentLength: '8192',
      TargetRecvDataSegmentLength: '8192',
      HeaderDigest: 'None',
      InitialR2T: 'Yes',
    });
    expect(traits).toEqual({
      device: 'memory',
      fabric: 'memory',
      ird: 16,
      ord: 16,
      crc: 'CRC32C',
      'remote invalidate': 'on',
      protection: 'tag per command',
    });
    expect(transport).toBe('iwarp');
    expect(pair.initiator.maxTransferLength).toBe(512 * 1024);
    await pair.close();
  });
});

/** Writes 300 blocks, reads them back, and compares. */
async function carryDataBothWays(pair: Pair): Promise<void> {
  const data = offsetPattern(0, 300 * 512);
  const write = { lun: 0n, cdb: writeCdb({ lba: 8, blocks: 300, size: 10 }), dataOut: data, nexus: 1 };
  expect(await pair.drive(execute(pair.initiator, write))).toMatchObject({ status: 0, transferred: data.length });
  const dataIn = new Uint8Array(data.length);
  const read = { lun: 0n, cdb: readCdb({ lba: 8, blocks: 300, size: 10 }), dataIn, nexus: 1 };
  expect(await pair.drive(execute(pair.initiator, read))).toMatchObject({ status: 0, transferred: data.length });
  expect(Buffer.compare(dataIn, data)).toBe(0);
}

/** The StatSN that the initiator expects next, read off a command that is answered. */
async function nextStatSn(pair: Pair): Promise<number> {
  let expected: number | undefined;
  pair.wire.intercept = (passing) => {
    if (passing.opcode === 'scsi-command') expected = passing.expStatSn + 1;
    return undefined;
  };
  await pair.drive(testUnitReady(pair));
  pair.wire.intercept = undefined;
  if (expected === undefined) throw new Error('no command passed');
  return expected;
}

async function waitForNexus(pair: Pair, nexus: number): Promise<number> {
  while (pair.initiator.nexus !== nexus) await new Promise((resolve) => setImmediate(resolve));
  return nexus;
}
