import { describe, expect, it } from 'vitest';
import { RESERVED_TAG, TaskManagementCode } from '../../../src/iser/iscsi/pdu.ts';
import { IscsiTarget, type IscsiTargetOptions } from '../../../src/iser/target.ts';
import { writeCdb } from '../../../src/scsi/cdb.ts';
import { BlockDeviceServer } from '../../../src/scsi/device-server.ts';
import { MemoryMedium } from '../../../src/scsi/memory-medium.ts';
import { type HandConnection, HandDrivenTransport } from '../../support/hand-driven-transport.ts';
import { ScriptedDeviceServer } from '../../support/scripted-device-server.ts';
import { StallingMedium } from '../../support/stalling-medium.ts';
import { settle, VirtualClock } from '../../support/virtual-clock.ts';

const DISK = 'iqn.2026-01.org.iserfs:disk';

/** A target with one scripted device server, its initiators played by the test. */
async function startTarget(options: Partial<IscsiTargetOptions> = {}) {
  const transport = new HandDrivenTransport();
  const clock = new VirtualClock();
  const server = new ScriptedDeviceServer();
  const lines: string[] = [];
  const target = await IscsiTarget.listen({
    portals: [{ endpoint: { host: '0.0.0.0', port: 0 }, transport }],
    targets: [{ name: DISK, deviceServer: server }],
    clock,
    log: (line) => lines.push(line),
    ...options,
  });
  const connected = async (login: Parameters<HandConnection['login']>[0] = {}) => {
    const connection = transport.connect();
    const { tsih } = await connection.login(login);
    return { connection, tsih };
  };
  return { transport, clock, server, target, lines, connected };
}

/** A command that the scripted device server has until the test ends it. */
function sendWrite(connection: HandConnection, cmdSn: number): number {
  return connection.send({ opcode: 'scsi-command', final: true, write: true, expectedDataTransferLength: 512, cmdSn });
}

describe('login', () => {
  it('gives each session a TSIH and a nexus of its own', async () => {
    const { connected, server, target } = await startTarget();
    const one = await connected({ isid: 1 });
    const two = await connected({ isid: 2 });
    expect(one.tsih).not.toBe(0);
    expect(two.tsih).not.toBe(0);
    expect(two.tsih).not.toBe(one.tsih);
    expect(server.log).toEqual(['nexus 1 established', 'nexus 2 established']);
    expect(one.connection.datamover.enabled).toMatchObject({ maxSendDataSegmentLength: 8192 });
    expect(target.sessions).toMatchObject([
      { targetName: DISK, tsih: one.tsih },
      { targetName: DISK, tsih: two.tsih },
    ]);
  });

  it('executes commands with the CmdSN of the login first', async () => {
    const { connected, server } = await startTarget();
    const { connection } = await connected({ cmdSn: 0x1234 });
    sendWrite(connection, 0x1234);
    expect(server.started).toHaveLength(1);
    server.started[0]?.end();
    expect(await connection.takeOne('scsi-response')).toMatchObject({ expCmdSn: 0x1235 });
  });

  it.each([
    ['a target that does not exist', { targetName: 'iqn.2026-01.org.iserfs:none' }, 0x0203],
    ['no target name', { targetName: null }, 0x0207],
    ['a session that does not exist', { tsih: 77 }, 0x020a],
  ])('refuses %s', async (_, login, status) => {
    const { transport, server } = await startTarget();
    const connection = transport.connect();
    connection.sendLogin(login);
    const response = await connection.takeOne('login-response');
    expect(response.statusClass * 256 + response.statusDetail).toBe(status);
    expect(connection.datamover.terminated).toBe('orderly');
    expect(server.log).toEqual([]);
  });

  it('refuses an initiator that offers no authentication where CHAP is required', async () => {
    const chap = { credentials: { user: 'user', secret: new TextEncoder().encode('twelve bytes and more') } };
    const deviceServer = new ScriptedDeviceServer();
    const { transport } = await startTarget({ targets: [{ name: DISK, deviceServer, chap }] });
    const connection = transport.connect();
    connection.sendLogin();
    expect(await connection.takeOne('login-response')).toMatchObject({ statusClass: 2, statusDetail: 1 });
    expect(deviceServer.log).toEqual([]);
  });

  it('refuses anything but a login on a new connection', async () => {
    const { transport } = await startTarget();
    const connection = transport.connect();
    connection.send({ opcode: 'nop-out', ttt: RESERVED_TAG });
    expect(await connection.takeOne('login-response')).toMatchObject({ statusClass: 2, statusDetail: 0x0b });
    expect(connection.datamover.terminated).toBe('orderly');
  });

  it('gives up on a login that takes too long', async () => {
    const { transport, clock } = await startTarget({ timing: { loginTimeoutMs: 5000 } });
    const connection = transport.connect();
    await clock.advance(4999);
    expect(connection.datamover.terminated).toBeUndefined();
    await clock.advance(1);
    expect(connection.datamover.terminated).toBe('abrupt');
    expect(clock.pendingTimers).toBe(0);
  });

  it('takes no more sessions than it has room for, yet one that is replaced', async () => {
    const { transport, connected } = await startTarget({ limits: { maxSessions: 1 } });
    await connected({ isid: 1 });
    const refused = transport.connect();
    refused.sendLogin({ isid: 2 });
    expect(await refused.takeOne('login-response')).toMatchObject({ statusClass: 3, statusDetail: 2 });
    await connected({ isid: 1 });
  });

  it('does not wait for ever for an initiator that logs out and takes no answer', async () => {
    const { connected, target, server, clock } = await startTarget();
    const { connection } = await connected();
    connection.datamover.holdOrderly = true;
    connection.send({ opcode: 'logout-request', reason: 0, immediate: true, cmdSn: 1 });
    await settle();
    expect(connection.datamover.terminated).toBe('orderly');
    expect(target.sessions).toHaveLength(1);
    await clock.advance(5000);
    expect(target.sessions).toEqual([]);
    expect(server.log).toEqual(['nexus 1 established', 'nexus 1 lost']);
    expect(clock.pendingTimers).toBe(0);
  });

  it('cuts connections off beyond its bound, but not those with a session', async () => {
    const { transport, connected } = await startTarget({ limits: { maxOtherConnections: 2 } });
    for (const isid of [1, 2, 3, 4]) await connected({ isid });
    const idle = [transport.connect(), transport.connect()];
    const beyond = transport.connect();
    await settle();
    expect(idle.map(({ datamover }) => datamover.terminated)).toEqual([undefined, undefined]);
    expect(beyond.datamover.terminated).toBe('abrupt');
    idle[0]?.drop();
    await settle();
    const next = transport.connect();
    await next.login({ isid: 5 });
  });

  it('pings silent initiators and lets go of those that are gone', async () => {
    const { connected, clock, server } = await startTarget({ timing: { keepaliveIntervalMs: 1000, keepaliveTimeoutMs: 500 } });
    const { connection } = await connected();
    await clock.advance(1000);
    await connection.takeOne('nop-in');
    await clock.advance(500);
    expect(connection.datamover.terminated).toBe('abrupt');
    expect(server.log).toEqual(['nexus 1 established', 'nexus 1 lost']);
  });
});

describe('discovery', () => {
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).split('\0').filter(Boolean);

  it('names all targets at the address that the initiator reached', async () => {
    const deviceServer = new ScriptedDeviceServer();
    const other = 'iqn.2026-01.org.iserfs:other';
    const { transport } = await startTarget({
      targets: [
        { name: DISK, deviceServer },
        { name: other, deviceServer },
      ],
    });
    const connection = transport.connect('[2001:db8::7]:3260');
    await connection.login({ sessionType: 'Discovery' });
    connection.send({
      opcode: 'text-request',
      final: true,
      ttt: RESERVED_TAG,
      cmdSn: 1,
      data: new TextEncoder().encode('SendTargets=All\0'),
    });
    expect(text((await connection.takeOne('text-response')).data)).toEqual([
      `TargetName=${DISK}`,
      'TargetAddress=[2001:db8::7]:3260,1',
      `TargetName=${other}`,
      'TargetAddress=[2001:db8::7]:3260,1',
    ]);
    connection.send({ opcode: 'logout-request', reason: 0, cid: 1, cmdSn: 2 });
    expect(await connection.takeOne('logout-response')).toMatchObject({ response: 0 });
    expect(connection.datamover.terminated).toBe('orderly');
    expect(deviceServer.log).toEqual([]);
  });

  it('asks for credentials where discovery is protected', async () => {
    const discoveryChap = { credentials: { user: 'user', secret: new TextEncoder().encode('twelve bytes and more') } };
    const { transport } = await startTarget({ discoveryChap });
    const connection = transport.connect();
    connection.sendLogin({ sessionType: 'Discovery' });
    expect(await connection.takeOne('login-response')).toMatchObject({ statusClass: 2, statusDetail: 1 });
  });
});

describe('reinstatement', () => {
  it('lets the new session in only when the last write of the old one has ended', async () => {
    const medium = new StallingMedium(new MemoryMedium(1024 * 1024));
    const deviceServer = new BlockDeviceServer({ units: [{ lun: 0, medium, blockLength: 512, serial: 'stall' }] });
    const { connected, transport } = await startTarget({ targets: [{ name: DISK, deviceServer }] });
    const write = (connection: HandConnection, itt: number, cmdSn: number, fill: number) => {
      connection.datamover.writeBuffers.set(itt, new Uint8Array(512).fill(fill));
      const cdb = writeCdb({ lba: 3, blocks: 1, size: 10, fua: false });
      connection.send({ opcode: 'scsi-command', final: true, write: true, expectedDataTransferLength: 512, itt, cmdSn, cdb });
    };

    const old = await connected();
    write(old.connection, 0x50, 1, 0);
    await old.connection.takeOne('scsi-response'); // the unit attention of a new nexus
    medium.stall();
    write(old.connection, 0x51, 2, 0xaa);
    await settle();
    expect(medium.writesUnderWay).toBe(1);
    // The initiator loses its connection and comes back, as RFC 7143 §6.3.5 has it.
    old.connection.drop();
    const next = transport.connect();
    next.sendLogin();
    expect(await next.take()).toEqual([]);
    expect(medium.writesUnderWay).toBe(1);

    medium.resume();
    await next.loginResponse();
    expect(medium.writesUnderWay).toBe(0);
    write(next, 0x60, 1, 0);
    await next.takeOne('scsi-response'); // unit attention
    write(next, 0x61, 2, 0xbb);
    expect(await next.takeOne('scsi-response')).toMatchObject({ status: 0 });
    const block = new Uint8Array(512);
    await medium.read(3 * 512, block);
    expect(block).toEqual(new Uint8Array(512).fill(0xbb));
    await deviceServer.close();
  });

  it('ends the old session even where its connection is alive', async () => {
    const { connected, transport, server } = await startTarget();
    const { connection: old } = await connected();
    sendWrite(old, 1);
    const next = transport.connect();
    next.sendLogin();
    expect(await next.take()).toEqual([]);
    expect(old.datamover.terminated).toBe('abrupt');
    expect(server.started[0]?.task.signal.aborted).toBe(true);
    server.started[0]?.end();
    await next.loginResponse();
    expect(await old.take()).toEqual([]);
    expect(server.log).toEqual(['nexus 1 established', 'nexus 1 lost', 'nexus 2 established']);
  });

  it('goes on with the next login where one is given up while it waits', async () => {
    const { connected, transport, server, target } = await startTarget();
    const { connection: old } = await connected();
    sendWrite(old, 1);
    const impatient = transport.connect();
    impatient.sendLogin();
    await settle();
    const patient = transport.connect();
    patient.sendLogin();
    await settle();
    impatient.drop();
    server.started[0]?.end();
    await patient.loginResponse();
    expect(await impatient.take()).toEqual([]);
    expect(server.log).toEqual(['nexus 1 established', 'nexus 1 lost', expect.stringMatching(/^nexus \d established$/)]);
    expect(target.sessions).toHaveLength(1);
  });

  it('gives up on a login that waits too long for a task that never ends', async () => {
    const { connected, transport, server, clock } = await startTarget({ timing: { loginTimeoutMs: 5000 } });
    const { connection: old } = await connected();
    sendWrite(old, 1);
    const next = transport.connect();
    next.sendLogin();
    await clock.advance(5000);
    expect(next.datamover.terminated).toBe('abrupt');
    expect(server.log).toEqual(['nexus 1 established']);
    server.started[0]?.end();
    await settle();
    expect(server.log).toEqual(['nexus 1 established', 'nexus 1 lost']);
  });

  it.each([
    ['another ISID', { isid: 9 }],
    ['another initiator name', { initiatorName: 'iqn.2026-01.org.iserfs:someone' }],
  ])('does not touch the session of %s', async (_, login) => {
    const { connected, server } = await startTarget();
    const { connection: old } = await connected();
    sendWrite(old, 1);
    await connected(login);
    expect(old.datamover.terminated).toBeUndefined();
    expect(server.started[0]?.task.signal.aborted).toBe(false);
  });

  it('replaces the one connection of a session, which keeps its TSIH, and refuses a second one', async () => {
    const { connected, transport, target } = await startTarget();
    const { connection: old, tsih } = await connected({ cid: 3 });
    const second = transport.connect();
    second.sendLogin({ tsih, cid: 4 });
    expect(await second.takeOne('login-response')).toMatchObject({ statusClass: 2, statusDetail: 6 });
    expect(old.datamover.terminated).toBeUndefined();
    const again = await connected({ tsih, cid: 3, cmdSn: 50 });
    expect(again.tsih).toBe(tsih);
    expect(old.datamover.terminated).toBe('abrupt');
    expect(target.sessions).toMatchObject([{ tsih }]);
  });
});

describe('task management over sessions', () => {
  it('resets a logical unit for all nexuses of its target', async () => {
    const { connected, server } = await startTarget();
    const { connection: one } = await connected({ isid: 1 });
    const { connection: two } = await connected({ isid: 2 });
    const itt = sendWrite(two, 1);
    one.send({
      opcode: 'task-management-request',
      immediate: true,
      function: TaskManagementCode['logical-unit-reset'],
      referencedTaskTag: RESERVED_TAG,
      cmdSn: 1,
    });
    expect(await one.take()).toEqual([]);
    server.started[0]?.end();
    expect(await one.takeOne('task-management-response')).toMatchObject({ response: 0 });
    expect(await two.takeOne('scsi-response')).toMatchObject({ itt, status: 0x40 });
    expect(server.log.at(-1)).toBe('logical-unit-reset of lun 0 by nexus 1');
  });

  it('tells initiators that the logical units have changed', async () => {
    const { connected, target } = await startTarget();
    const { connection } = await connected();
    target.reportLogicalUnitsChanged(DISK);
    const message = await connection.takeOne('asynchronous-message');
    expect(message.asyncEvent).toBe(0);
    // 2-byte length, then fixed format sense data: UNIT ATTENTION, REPORTED LUNS DATA HAS CHANGED (SPC).
    expect(message.data[1]).toBe(message.data.length - 2);
    expect([message.data[2], message.data[4], message.data[14], message.data[15]]).toEqual([0x70, 0x06, 0x3f, 0x0e]);
  });
});

describe('close', () => {
  it('asks initiators to log out and is done when they have', async () => {
    const { connected, target, transport, clock, server } = await startTarget();
    const { connection } = await connected();
    const closed = target.close('orderly');
    expect(transport.isListening).toBe(false);
    expect(await connection.takeOne('asynchronous-message')).toMatchObject({ asyncEvent: 1 });
    connection.send({ opcode: 'logout-request', reason: 0, cid: 1, cmdSn: 1 });
    await connection.takeOne('logout-response');
    await closed;
    expect(connection.datamover.terminated).toBe('orderly');
    expect(server.log).toEqual(['nexus 1 established', 'nexus 1 lost']);
    expect(clock.pendingTimers).toBe(0);
  });

  it('does not wait for ever for initiators that ignore it, but for their tasks', async () => {
    const { connected, target, clock, server } = await startTarget();
    const { connection } = await connected();
    sendWrite(connection, 1);
    let isClosed = false;
    const closed = target.close().then(() => {
      isClosed = true;
    });
    await clock.advance(60_000);
    expect(connection.datamover.terminated).toBe('orderly');
    expect(isClosed).toBe(false);
    server.started[0]?.end();
    await closed;
  });

  it('cuts connections at once when it is abrupt', async () => {
    const { connected, target, transport } = await startTarget();
    const { connection } = await connected();
    const inLogin = transport.connect();
    await target.close('abrupt');
    expect(connection.datamover.terminated).toBe('abrupt');
    expect(inLogin.datamover.terminated).toBe('abrupt');
    expect(await connection.take()).toEqual([]);
    await target.close('abrupt');
  });
});

describe('configuration', () => {
  const deviceServer = new ScriptedDeviceServer();
  it.each([
    ['a name that is none', [{ name: 'disk', deviceServer }]],
    [
      'one name twice',
      [
        { name: DISK, deviceServer },
        { name: DISK, deviceServer },
      ],
    ],
  ])('refuses %s', async (_, targets) => {
    await expect(startTarget({ targets })).rejects.toMatchObject({ code: 'bad-configuration' });
  });
});
