/** What becomes of a login in time: held, cut, abandoned, tried again. The target is played PDU by PDU, on a virtual clock. */

import { describe, expect, it } from 'vitest';
import { errorCode, IserfsError } from '../../../src/errors.ts';
import { type Connection, openConnection } from '../../../src/iser/connection.ts';
import { discoverTargets } from '../../../src/iser/discovery.ts';
import { Initiator } from '../../../src/iser/initiator.ts';
import type { ChapOptions } from '../../../src/iser/iscsi/login.ts';
import { encodeText } from '../../../src/iser/iscsi/text.ts';
import { testUnitReadyCdb } from '../../../src/scsi/cdb.ts';
import { execute } from '../../../src/scsi/execute.ts';
import { PlayedTarget, SOUND_NUMBERS, TGTD_NUMBERS } from '../../support/played-target.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

const PORTAL = { host: '192.0.2.1', port: 3260 };
const TARGET_NAME = 'iqn.2026-01.io.iserfs.test:played';

function setUp(options: ConstructorParameters<typeof PlayedTarget>[0] = {}) {
  const clock = new VirtualClock();
  const target = new PlayedTarget(options);
  const connectionOptions = {
    initiatorName: 'iqn.2026-01.io.iserfs.test:initiator',
    isid: 0x80_00_00_00_00_01,
    transport: target,
    loginTimeoutMs: 5000,
    clock,
    random: (length: number) => new Uint8Array(length),
  };
  return { clock, target, connectionOptions };
}

/** Begins a login; what has become of it can be looked at any time. */
async function beginLogin(
  options: ConstructorParameters<typeof PlayedTarget>[0] & { readonly chap?: ChapOptions; readonly holdsConnects?: boolean } = {},
) {
  const { clock, target, connectionOptions } = setUp(options);
  target.holdsConnects = options.holdsConnects ?? false;
  const controller = new AbortController();
  const purpose = { sessionType: 'normal', targetName: TARGET_NAME, timeoutMs: 5000 } as const;
  const outcome: { connection?: Connection; error?: unknown } = {};
  const chap = options.chap === undefined ? {} : { chap: options.chap };
  openConnection({ ...connectionOptions, ...chap }, PORTAL, purpose, controller.signal).then(
    (connection) => {
      outcome.connection = connection;
    },
    (error: unknown) => {
      outcome.error = error;
    },
  );
  await clock.advance(0);
  return { clock, target, outcome, abort: () => controller.abort() };
}

describe('a request of the login', () => {
  it.each([
    ['for 100 ms where the response before it has the numbers of tgtd', TGTD_NUMBERS, 100],
    ['for no time with any other target', SOUND_NUMBERS, 0],
  ])('is held %s', async (_how, numbers, heldMs) => {
    const { clock, target, outcome } = await beginLogin();
    target.newest.answerLogin({ csg: 1, ...numbers }, { RDMAExtensions: 'Yes', InitiatorRecvDataSegmentLength: '4096' });
    if (heldMs > 0) {
      await clock.advance(heldMs - 1);
      expect(target.newest.take()).toEqual([]);
    }
    await clock.advance(1);
    target.newest.answerLogin({ transit: true, csg: 1, nsg: 3, tsih: 1, ...numbers }, { TargetRecvDataSegmentLength: '8192' });
    await clock.advance(heldMs);
    expect(outcome.connection).toBeDefined();
  });
});

describe('the first request after a login', () => {
  it('is held for 100 ms where the login response has the numbers of tgtd', async () => {
    const { clock, target, outcome } = await beginLogin();
    target.newest.grantLogin(TGTD_NUMBERS);
    await clock.advance(99);
    expect(outcome).toEqual({});
    await clock.advance(1);
    expect(outcome.connection?.result).toMatchObject({ cmdSn: 1, keys: { RDMAExtensions: true } });
  });

  it('is held for no time with any other target', async () => {
    const { clock, target, outcome } = await beginLogin();
    target.newest.grantLogin(SOUND_NUMBERS);
    await clock.advance(0);
    expect(outcome.connection).toBeDefined();
    expect(clock.pendingTimers).toBe(0);
  });

  it('is not sent on a connection that ends while it is held: the login is tried again', async () => {
    const { clock, target, outcome } = await beginLogin();
    target.newest.grantLogin(TGTD_NUMBERS);
    await clock.advance(50);
    target.newest.close();
    await clock.advance(250);
    expect(target.connections).toHaveLength(2);
    target.newest.grantLogin(TGTD_NUMBERS);
    await clock.advance(100);
    expect(outcome.connection?.datamover).toBe(target.newest.datamover);
  });
});

describe('a login that the peer cuts', () => {
  it('is tried again after 200 and 800 ms over iSER, and fails then', async () => {
    const { clock, target, outcome } = await beginLogin();
    target.newest.close();
    await clock.advance(199);
    expect(target.connections).toHaveLength(1);
    await clock.advance(1);
    expect(target.connections).toHaveLength(2);
    target.newest.close();
    await clock.advance(799);
    expect(target.connections).toHaveLength(2);
    await clock.advance(1);
    expect(target.connections).toHaveLength(3);
    expect(outcome).toEqual({});
    target.newest.close();
    await clock.advance(0);
    expect(errorCode(outcome.error)).toBe('unreachable');
    expect(outcome.error).toMatchObject({ message: expect.stringContaining('closed the connection during login') });
    expect(clock.pendingTimers).toBe(0);
  });

  it('goes on where a later attempt goes through', async () => {
    const { clock, target, outcome } = await beginLogin();
    target.newest.close();
    await clock.advance(200);
    target.newest.grantLogin();
    await clock.advance(0);
    expect(outcome.connection?.datamover).toBe(target.newest.datamover);
  });

  it('is not tried again over TCP', async () => {
    const { clock, target, outcome } = await beginLogin({ name: 'tcp', offers: { MaxRecvDataSegmentLength: '262144' } });
    target.newest.close();
    await clock.advance(5000);
    expect(target.connections).toHaveLength(1);
    expect(errorCode(outcome.error)).toBe('unreachable');
  });

  it('is not tried again beyond its time', async () => {
    const { clock, target, outcome } = await beginLogin();
    await clock.advance(4900);
    target.newest.close();
    await clock.advance(0);
    expect(errorCode(outcome.error)).toBe('unreachable');
    expect(target.connections).toHaveLength(1);
  });

  it('while it proves who it is counts as refused, and is not tried again', async () => {
    const credentials = { user: 'alice', secret: new TextEncoder().encode('in-secret-0001') };
    const { clock, target, outcome } = await beginLogin({ chap: { credentials } });
    target.newest.answerLogin({}, { AuthMethod: 'CHAP' });
    await clock.advance(0);
    target.newest.answerLogin({}, { CHAP_A: '5', CHAP_I: '1', CHAP_C: '0x000102030405060708090a0b0c0d0e0f' });
    await clock.advance(0);
    target.newest.close();
    await clock.advance(5000);
    expect(target.connections).toHaveLength(1);
    expect(outcome.error).toMatchObject({ code: 'authentication-failed', hint: 'Check the CHAP user and secret.' });
  });

  it('is not tried again where the target has said why', async () => {
    const { clock, target, outcome } = await beginLogin();
    target.newest.answerLogin({ statusClass: 2, statusDetail: 3 });
    target.newest.close();
    await clock.advance(5000);
    expect(target.connections).toHaveLength(1);
    expect(errorCode(outcome.error)).toBe('target-not-found');
  });
});

describe('an interrupted login', () => {
  it('has its RDMA connection made first, and the login brought to its end', async () => {
    const { clock, target, outcome, abort } = await beginLogin({ holdsConnects: true });
    abort();
    await clock.advance(1500);
    expect({ aborted: target.abortedConnects, ...outcome }).toEqual({ aborted: 0 });
    target.releaseConnect();
    await clock.advance(0);
    target.newest.grantLogin();
    await clock.advance(0);
    expect(errorCode(outcome.error)).toBe('aborted');
    expect(target.newest.datamover.terminated).toBe('orderly');
    expect(clock.pendingTimers).toBe(0);
  });

  it.each([
    ['within two seconds over RDMA', 'iwarp', 2000],
    ['at once over TCP', 'tcp', 0],
  ] as const)('gives a connection up that is not made: %s', async (_when, name, afterMs) => {
    const { clock, target, outcome, abort } = await beginLogin({ name, holdsConnects: true });
    abort();
    await clock.advance(Math.max(0, afterMs - 1));
    expect(target.abortedConnects).toBe(afterMs === 0 ? 1 : 0);
    await clock.advance(1);
    expect(target.abortedConnects).toBe(1);
    expect(errorCode(outcome.error)).toBe('aborted');
    expect(clock.pendingTimers).toBe(0);
  });

  it('is brought to its end first, what the target proposes answered, and then closed in order', async () => {
    const { clock, target, outcome, abort } = await beginLogin();
    abort();
    await clock.advance(500);
    expect(outcome).toEqual({});
    target.newest.answerLogin({ csg: 1 }, { RDMAExtensions: 'Yes', InitiatorRecvDataSegmentLength: '4096' });
    await clock.advance(0);
    target.newest.answerLogin({ transit: true, csg: 1, nsg: 3, tsih: 1 }, { TargetRecvDataSegmentLength: '8192' });
    await clock.advance(0);
    expect(errorCode(outcome.error)).toBe('aborted');
    expect(target.newest.datamover.terminated).toBe('orderly');
    expect(clock.pendingTimers).toBe(0);
  });

  it('is dropped where the target is silent for two seconds', async () => {
    const { clock, target, outcome, abort } = await beginLogin();
    abort();
    await clock.advance(1999);
    expect({ ...outcome, terminated: target.newest.datamover.terminated }).toEqual({ terminated: undefined });
    await clock.advance(1);
    expect(errorCode(outcome.error)).toBe('aborted');
    expect(target.newest.datamover.terminated).toBe('abrupt');
    expect(clock.pendingTimers).toBe(0);
  });

  it('is not tried again where the target cuts it, or between two attempts', async () => {
    const cut = await beginLogin();
    cut.abort();
    cut.target.newest.close();
    await cut.clock.advance(0);
    expect(cut.outcome.error).toBeInstanceOf(IserfsError);
    const between = await beginLogin();
    between.target.newest.close();
    await between.clock.advance(100);
    between.abort();
    await between.clock.advance(1000);
    expect(errorCode(between.outcome.error)).toBe('aborted');
    expect([cut.target.connections.length, between.target.connections.length]).toEqual([1, 1]);
  });
});

describe('a session whose first request comes too early all the same', () => {
  it('is established again', async () => {
    const { clock, target, connectionOptions } = setUp();
    const log: string[] = [];
    const connecting = Initiator.connect({
      ...connectionOptions,
      targetName: TARGET_NAME,
      portals: [PORTAL],
      commandTimeoutMs: 30_000,
      recoveryTimeoutMs: 60_000,
      keepaliveIntervalMs: 5000,
      keepaliveTimeoutMs: 5000,
      maxCommands: 32,
      log: (line) => log.push(line),
    });
    await clock.advance(0);
    target.newest.grantLogin(TGTD_NUMBERS);
    await clock.advance(100);
    const initiator = await connecting;
    const lost = execute(initiator, { lun: 0n, cdb: testUnitReadyCdb(), nexus: 1 }).catch((error: unknown) => errorCode(error));
    expect(target.newest.takeOne('scsi-command')).toMatchObject({ cmdSn: 1 });
    target.newest.close();
    expect(await lost).toBe('connection-lost');
    await clock.advance(2100); // DefaultTime2Wait, which nobody has negotiated to be less
    expect(target.connections).toHaveLength(2);
    target.newest.grantLogin(TGTD_NUMBERS);
    await clock.advance(100);
    expect(initiator.nexus).toBe(2);
    const answered = execute(initiator, { lun: 0n, cdb: testUnitReadyCdb(), nexus: 2 });
    const { itt } = target.newest.takeOne('scsi-command');
    target.newest.send({ opcode: 'scsi-response', itt, expCmdSn: 2, maxCmdSn: 129 });
    expect(await answered).toMatchObject({ status: 0 });
    expect(initiator.status.commandWindow).toBe(128);
  });

  it.each([
    ['asks again, once, where the numbers were those of tgtd', TGTD_NUMBERS, 2],
    ['fails at once with any other target', SOUND_NUMBERS, 1],
  ])('of discovery: %s', async (_name, numbers, connections) => {
    const { clock, target, connectionOptions } = setUp();
    const found = discoverTargets(connectionOptions, PORTAL).then(
      ({ targets }) => targets.map(({ name }) => name),
      (error: unknown) => errorCode(error),
    );
    for (let count = 1; count <= connections; count++) {
      await clock.advance(0);
      target.newest.answerLogin({ transit: true, nsg: 1, ...numbers }, { AuthMethod: 'None' });
      await clock.advance(100);
      target.newest.grantLogin(numbers);
      await clock.advance(100);
      const { itt } = target.newest.takeOne('text-request');
      if (count === 1) target.newest.close();
      else
        target.newest.send({
          opcode: 'text-response',
          final: true,
          itt,
          ttt: 0xffff_ffff,
          data: encodeText([['TargetName', TARGET_NAME]]),
        });
    }
    await clock.advance(0);
    if (connections > 1) {
      const { itt } = target.newest.takeOne('logout-request');
      target.newest.send({ opcode: 'logout-response', itt });
    }
    expect(await found).toEqual(connections > 1 ? [TARGET_NAME] : 'connection-lost');
    expect(target.connections).toHaveLength(connections);
  });
});
