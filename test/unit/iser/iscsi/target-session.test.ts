import { describe, expect, it } from 'vitest';
import {
  decodePdu,
  encodeBhs,
  type Pdu,
  type PduFields,
  pdu,
  RESERVED_TAG,
  type TargetControlPdu,
  TaskManagementCode,
} from '../../../../src/iser/iscsi/pdu.ts';
import { answerTextRequest } from '../../../../src/iser/iscsi/send-targets.ts';
import { TargetSession, type TargetSessionOptions } from '../../../../src/iser/iscsi/target-session.ts';
import { TaskSets } from '../../../../src/scsi/task-set.ts';
import { RecordingTargetDatamover } from '../../../support/recording-target-datamover.ts';
import { ScriptedDeviceServer } from '../../../support/scripted-device-server.ts';
import { settle } from '../../../support/virtual-clock.ts';

const NAME = 'iqn.2026-01.org.iserfs:disk';

/** A session in full-feature phase, its peer played by the test. */
class Bench {
  readonly datamover = new RecordingTargetDatamover();
  readonly server: ScriptedDeviceServer;
  readonly tasks: TaskSets;
  readonly session: TargetSession;
  readonly disconnects: string[] = [];
  now = 0;
  cmdSn: number;
  #itt = 0x100;

  constructor(
    options: {
      server?: ScriptedDeviceServer;
      tasks?: TaskSets;
      nexus?: number;
      discovery?: boolean;
      session?: Partial<TargetSessionOptions>;
    } = {},
  ) {
    this.server = options.server ?? new ScriptedDeviceServer();
    this.tasks = options.tasks ?? new TaskSets();
    this.cmdSn = options.session?.expCmdSn ?? 10;
    const own = options.discovery ? undefined : NAME;
    const all = [
      { name: NAME, addresses: ['192.0.2.1:3260,1'] },
      { name: 'iqn.2026-01.org.iserfs:other', addresses: ['192.0.2.1:3260,1'] },
    ];
    this.session = new TargetSession({
      datamover: this.datamover,
      target: options.discovery ? undefined : { deviceServer: this.server, tasks: this.tasks },
      nexus: options.nexus ?? 1,
      cid: 7,
      expCmdSn: 10,
      statSn: 1000,
      windowSize: 8,
      maxSendDataSegmentLength: 64,
      answerText: (pairs) => answerTextRequest(pairs, all, own),
      now: () => this.now,
      keepaliveIntervalMs: 1000,
      keepaliveTimeoutMs: 500,
      disconnect: (mode, reason) => this.disconnects.push(`${mode}: ${reason}`),
      ...options.session,
    });
  }

  /** Sends a PDU as the initiator would: through its bytes, with the next CmdSN unless it is immediate or has one. */
  send(
    fields: PduFields<
      'nop-out' | 'scsi-command' | 'task-management-request' | 'text-request' | 'logout-request' | 'login-request'
    >,
  ): number {
    const itt = fields.itt ?? this.#itt++;
    const isImmediate = 'immediate' in fields && fields.immediate === true;
    const cmdSn = fields.cmdSn ?? (isImmediate ? this.cmdSn : this.cmdSn++);
    const whole = pdu({ ...fields, itt, cmdSn } as PduFields<'nop-out'>);
    this.session.handlePdu(decodePdu(encodeBhs(whole), whole.data, whole.ahs) as Pdu<'nop-out'>);
    return itt;
  }

  read(length: number, fields: Partial<PduFields<'scsi-command'>> = {}): number {
    return this.send({ opcode: 'scsi-command', final: true, read: true, expectedDataTransferLength: length, ...fields });
  }

  write(length: number, fields: Partial<PduFields<'scsi-command'>> = {}): number {
    return this.send({ opcode: 'scsi-command', final: true, write: true, expectedDataTransferLength: length, ...fields });
  }

  manage(name: keyof typeof TaskManagementCode, fields: Partial<PduFields<'task-management-request'>> = {}): number {
    return this.send({
      opcode: 'task-management-request',
      immediate: true,
      function: TaskManagementCode[name],
      referencedTaskTag: RESERVED_TAG,
      ...fields,
    });
  }

  async take(): Promise<TargetControlPdu[]> {
    await settle();
    return this.datamover.take();
  }

  async takeOne<N extends TargetControlPdu['opcode']>(opcode: N): Promise<Pdu<N>> {
    const sent = await this.take();
    expect(sent.map((each) => each.opcode)).toEqual([opcode]);
    return sent[0] as unknown as Pdu<N>;
  }
}

describe('SCSI commands', () => {
  it('executes commands and answers with the next StatSN, the command numbers and the residual', async () => {
    const bench = new Bench();
    const itt = bench.read(512, { cdb: Uint8Array.of(0x28, 0, 0, 0, 0, 9), lun: 5n << 48n });
    const command = bench.server.started[0];
    expect(command?.task.lun).toBe(5n << 48n);
    expect(command?.task.cdb).toEqual(Uint8Array.of(0x28, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    expect(command?.task.expectedDataTransferLength).toBe(512);
    await command?.task.sendDataIn(0, new Uint8Array(512).fill(3));
    command?.end();
    expect(await bench.takeOne('scsi-response')).toMatchObject({
      itt,
      status: 0,
      statSn: 1000,
      expCmdSn: 11,
      overflow: false,
      underflow: false,
      residualCount: 0,
    });
    expect(bench.datamover.puts).toEqual([{ itt, offset: 0, data: new Uint8Array(512).fill(3) }]);
    expect(bench.datamover.deallocated).toContain(itt);
    expect(bench.session.tasksInProgress).toBe(0);
  });

  it('cuts data beyond the expected length and reports an overflow', async () => {
    const bench = new Bench();
    bench.read(10);
    const command = bench.server.started[0];
    await command?.task.sendDataIn(0, new Uint8Array(8));
    await command?.task.sendDataIn(8, new Uint8Array(8));
    await command?.task.sendDataIn(16, new Uint8Array(8));
    command?.end({ transferLength: 24 });
    expect(await bench.takeOne('scsi-response')).toMatchObject({ overflow: true, underflow: false, residualCount: 14 });
    expect(bench.datamover.puts.map(({ offset, data }) => [offset, data.length])).toEqual([
      [0, 8],
      [8, 2],
    ]);
  });

  it('reports an underflow where less was moved than expected', async () => {
    const bench = new Bench();
    bench.read(255);
    bench.server.started[0]?.end({ transferLength: 36 });
    expect(await bench.takeOne('scsi-response')).toMatchObject({ overflow: false, underflow: true, residualCount: 219 });
  });

  it('sends nothing to an initiator that expects to write, and all of it is residual', async () => {
    const bench = new Bench();
    bench.write(512);
    await bench.server.started[0]?.task.sendDataIn(0, new Uint8Array(512));
    bench.server.started[0]?.end({ transferLength: 512 });
    expect(await bench.takeOne('scsi-response')).toMatchObject({ overflow: true, residualCount: 512 });
    expect(bench.datamover.puts).toEqual([]);
  });

  it('refuses to fetch more than the initiator has to give', async () => {
    const bench = new Bench();
    bench.write(4);
    const into = new Uint8Array(8);
    await expect(bench.server.started[0]?.task.receiveDataOut(0, into)).rejects.toMatchObject({ code: 'illegal-request' });
  });

  it('puts a 2-byte length before sense data', async () => {
    const bench = new Bench();
    bench.read(0);
    bench.server.started[0]?.end({ status: 2, sense: Uint8Array.of(0x70, 0, 5, 0), transferLength: 0 });
    const response = await bench.takeOne('scsi-response');
    expect(response.status).toBe(2);
    expect(response.data).toEqual(Uint8Array.of(0, 4, 0x70, 0, 5, 0));
  });

  it('reports a target failure where the device server breaks down', async () => {
    const bench = new Bench();
    bench.read(0);
    bench.server.started[0]?.fail();
    expect(await bench.takeOne('scsi-response')).toMatchObject({ response: 1 });
  });

  it('puts a long CDB together from its additional header', async () => {
    const bench = new Bench();
    // AHSLength 5, type 1, reserved, 4 more CDB bytes (RFC 7143 §11.2.2.3).
    bench.read(0, { cdb: Uint8Array.of(0x7f), ahs: Uint8Array.of(0, 5, 1, 0, 0xa, 0xb, 0xc, 0xd) });
    expect(bench.server.started[0]?.task.cdb).toEqual(Uint8Array.of(0x7f, ...new Array(15).fill(0), 0xa, 0xb, 0xc, 0xd));
  });

  it('closes the window as commands pile up and opens it as they end', async () => {
    const bench = new Bench({ session: { windowSize: 4 } });
    const before = bench.session.numbering.maxCmdSn;
    for (let count = 0; count < 4; count++) bench.read(0);
    const full = bench.session.numbering;
    expect(full.expCmdSn).toBe(14);
    expect(full.maxCmdSn - full.expCmdSn + 1).toBeLessThanOrEqual(1);
    for (const { end } of bench.server.started) end();
    await settle();
    expect(bench.session.numbering.maxCmdSn).toBe(before + 4);
  });

  it('never takes more commands than the window says, whatever the initiator sends', async () => {
    const bench = new Bench({ session: { windowSize: 4 } });
    for (let count = 0; count < 50; count++) bench.read(0);
    expect(bench.session.tasksInProgress).toBeLessThanOrEqual(5);
  });

  it('rejects immediate commands beyond its bound', async () => {
    const bench = new Bench();
    for (let count = 0; count < 17; count++) bench.read(0, { immediate: true });
    expect(await bench.takeOne('reject')).toMatchObject({ reason: 0x06 });
    expect(bench.session.numbering.expCmdSn).toBe(10);
  });

  it('drops the connection of an initiator that uses a task tag twice', () => {
    const bench = new Bench();
    const itt = bench.read(0);
    expect(() => bench.read(0, { itt })).toThrow(/in use/);
  });

  it('rejects a bidirectional command, with its header as data', async () => {
    const bench = new Bench();
    const itt = bench.read(512, { write: true });
    const reject = await bench.takeOne('reject');
    expect(reject).toMatchObject({ reason: 0x05, itt: RESERVED_TAG, statSn: 1000 });
    expect(decodePdu(reject.data)).toMatchObject({ opcode: 'scsi-command', itt, read: true, write: true });
    expect(bench.server.started).toEqual([]);
    expect(bench.datamover.deallocated).toEqual([itt]);
  });

  it('rejects a SCSI command in a discovery session', async () => {
    const bench = new Bench({ discovery: true });
    bench.read(0);
    expect(await bench.takeOne('reject')).toMatchObject({ reason: 0x05 });
  });
});

describe('command order', () => {
  it('executes in the order of CmdSN, over the wrap of the serial number', async () => {
    const bench = new Bench({ session: { expCmdSn: 0xffffffff } });
    bench.read(3, { cmdSn: 1 });
    bench.read(2, { cmdSn: 0 });
    expect(bench.server.started).toEqual([]);
    bench.read(1, { cmdSn: 0xffffffff });
    expect(bench.server.started.map(({ task }) => task.expectedDataTransferLength)).toEqual([1, 2, 3]);
    expect(bench.session.numbering.expCmdSn).toBe(2);
  });

  it('keeps what it holds even though the PDU was only borrowed', async () => {
    const bench = new Bench();
    const data = new TextEncoder().encode('ping');
    bench.send({ opcode: 'nop-out', cmdSn: 11, ttt: RESERVED_TAG, data });
    data.fill(0);
    bench.send({ opcode: 'nop-out', cmdSn: 10, ttt: RESERVED_TAG });
    const [, second] = await bench.take();
    expect(new TextDecoder().decode(second?.data)).toBe('ping');
  });

  it('discards a command outside of the window or seen before, with its data', async () => {
    const bench = new Bench();
    bench.read(0, { cmdSn: 9, itt: 1 });
    bench.read(0, { cmdSn: 60, itt: 2 });
    expect(bench.server.started).toEqual([]);
    expect(bench.datamover.deallocated).toEqual([1, 2]);
    expect(await bench.take()).toEqual([]);
  });

  it('does not drop the data of a task in progress when its command comes twice', () => {
    const bench = new Bench();
    const itt = bench.write(8);
    bench.write(8, { itt, cmdSn: 10 });
    expect(bench.datamover.deallocated).toEqual([]);
  });

  it('runs an ORDERED command after those before it', async () => {
    const bench = new Bench();
    bench.read(1, { attribute: 1 });
    bench.read(2, { attribute: 2 });
    bench.read(3, { attribute: 1 });
    expect(bench.server.started).toHaveLength(1);
    bench.server.started[0]?.end();
    await settle();
    expect(bench.server.started).toHaveLength(2);
    bench.server.started[1]?.end();
    await settle();
    expect(bench.server.started.map(({ task }) => task.expectedDataTransferLength)).toEqual([1, 2, 3]);
  });
});

describe('task management', () => {
  it('answers ABORT TASK only when the task has really ended, and sends nothing for the task', async () => {
    const bench = new Bench();
    bench.datamover.holdData = true;
    let released = false;
    bench.server.script = async (task) => {
      await task.receiveDataOut(0, new Uint8Array(8)).catch(() => {});
      await new Promise<void>((resolve) => {
        bench.server.log.push('stalled');
        release = () => {
          released = true;
          resolve();
        };
      });
      return { status: 0, sense: new Uint8Array(0), transferLength: 8 };
    };
    let release = () => {};
    const itt = bench.write(8);
    bench.manage('abort-task', { referencedTaskTag: itt, refCmdSn: 10 });
    // The data mover let go of the task at once; the medium has not.
    expect(await bench.take()).toEqual([]);
    expect(bench.datamover.deallocated).toContain(itt);
    expect(bench.server.log).toEqual(['stalled']);
    release();
    expect(await bench.takeOne('task-management-response')).toMatchObject({ response: 0 });
    expect(released).toBe(true);
    expect(bench.session.tasksInProgress).toBe(0);
  });

  it('says that there is no such task once it has answered it', async () => {
    const bench = new Bench();
    const itt = bench.read(0);
    bench.server.started[0]?.end();
    await bench.takeOne('scsi-response');
    bench.manage('abort-task', { referencedTaskTag: itt, refCmdSn: 10 });
    expect(await bench.takeOne('task-management-response')).toMatchObject({ response: 1 });
  });

  it('does not abort a task of another logical unit', async () => {
    const bench = new Bench();
    const itt = bench.read(0, { lun: 0n });
    bench.manage('abort-task', { referencedTaskTag: itt, refCmdSn: 10, lun: 1n << 48n });
    expect(await bench.takeOne('task-management-response')).toMatchObject({ response: 1 });
    expect(bench.server.started[0]?.task.signal.aborted).toBe(false);
  });

  it('counts the number of an aborted command that never came as received', async () => {
    const bench = new Bench();
    bench.cmdSn = 11; // the command with CmdSN 10 was lost
    bench.manage('abort-task', { referencedTaskTag: 0x77, refCmdSn: 10 });
    expect(await bench.takeOne('task-management-response')).toMatchObject({ response: 0, expCmdSn: 11 });
    bench.read(0);
    expect(bench.server.started).toHaveLength(1);
  });

  it('never executes a held command that was aborted', async () => {
    const bench = new Bench();
    const itt = bench.read(1, { cmdSn: 11 });
    bench.cmdSn = 12;
    bench.manage('abort-task', { referencedTaskTag: itt, refCmdSn: 11 });
    expect(await bench.takeOne('task-management-response')).toMatchObject({ response: 0 });
    bench.read(2, { cmdSn: 10 });
    expect(bench.server.started.map(({ task }) => task.expectedDataTransferLength)).toEqual([2]);
    expect(bench.session.numbering.expCmdSn).toBe(12);
  });

  it('lets set functions wait for the commands before them', async () => {
    const bench = new Bench();
    bench.cmdSn = 11;
    bench.manage('abort-task-set');
    expect(await bench.take()).toEqual([]);
    bench.read(0, { cmdSn: 10 });
    expect(bench.server.started[0]?.task.signal.aborted).toBe(true);
    bench.server.started[0]?.end();
    expect(await bench.takeOne('task-management-response')).toMatchObject({ response: 0 });
  });

  it('keeps ABORT TASK SET to its own nexus and CLEAR TASK SET to its logical unit', async () => {
    const server = new ScriptedDeviceServer([0n, 1n << 48n]);
    const tasks = new TaskSets();
    const one = new Bench({ server, tasks, nexus: 1 });
    const two = new Bench({ server, tasks, nexus: 2 });
    one.read(0);
    const theirs = two.read(16);
    two.read(0, { lun: 1n << 48n });
    const [mine, other, elsewhere] = server.started;
    one.manage('abort-task-set');
    expect([mine, other, elsewhere].map((each) => each?.task.signal.aborted)).toEqual([true, false, false]);
    mine?.end();
    expect(await one.takeOne('task-management-response')).toMatchObject({ response: 0 });

    one.manage('clear-task-set');
    expect([other, elsewhere].map((each) => each?.task.signal.aborted)).toEqual([true, false]);
    expect(await one.take()).toEqual([]);
    other?.end();
    expect(await one.takeOne('task-management-response')).toMatchObject({ response: 0 });
    // The other initiator is told: it asked for no abort.
    expect(await two.takeOne('scsi-response')).toMatchObject({ itt: theirs, status: 0x40, residualCount: 16, underflow: true });
  });

  it('resets the logical unit after its tasks have ended, those of other nexuses too', async () => {
    const server = new ScriptedDeviceServer();
    const tasks = new TaskSets();
    const one = new Bench({ server, tasks, nexus: 1 });
    const two = new Bench({ server, tasks, nexus: 2 });
    two.read(0);
    one.manage('logical-unit-reset');
    expect(await one.take()).toEqual([]);
    expect(server.log).toEqual([]);
    server.started[0]?.end();
    expect(await one.takeOne('task-management-response')).toMatchObject({ response: 0 });
    expect(server.log).toEqual(['logical-unit-reset of lun 0 by nexus 1']);
  });

  it('answers functions for a logical unit that does not exist, and those it does not support', async () => {
    const bench = new Bench();
    bench.manage('logical-unit-reset', { lun: 9n << 48n });
    bench.manage('abort-task-set', { lun: 9n << 48n });
    bench.manage('clear-task-set', { lun: 9n << 48n });
    bench.manage('target-warm-reset');
    bench.manage('target-cold-reset');
    bench.manage('clear-aca');
    bench.manage('task-reassign');
    bench.send({ opcode: 'task-management-request', immediate: true, function: 99, referencedTaskTag: RESERVED_TAG });
    const responses = (await bench.take()).map((each) =>
      each.opcode === 'task-management-response' ? each.response : each.opcode,
    );
    expect([...responses].sort()).toEqual([0, 2, 2, 2, 255, 4, 5, 5].sort());
    expect(bench.server.log).toEqual(['target-warm-reset of lun 0 by nexus 1']);
  });
});

describe('NOP', () => {
  it('echoes ping data, cut to what the initiator takes', async () => {
    const bench = new Bench();
    const data = new Uint8Array(100).fill(7);
    const itt = bench.send({ opcode: 'nop-out', ttt: RESERVED_TAG, data });
    const answer = await bench.takeOne('nop-in');
    expect(answer).toMatchObject({ itt, ttt: RESERVED_TAG, statSn: 1000, expCmdSn: 11 });
    expect(answer.data).toEqual(data.subarray(0, 64));
  });

  it('answers nothing to a NOP-Out without a task tag', async () => {
    const bench = new Bench();
    bench.send({ opcode: 'nop-out', itt: RESERVED_TAG, ttt: RESERVED_TAG, immediate: true });
    expect(await bench.take()).toEqual([]);
  });

  it('pings an initiator that is silent, without using up a StatSN, and goes on when it answers', async () => {
    const bench = new Bench();
    expect(bench.session.pollTimeout()).toBe(1000);
    bench.now = 1000;
    bench.session.handleTimeout(1000);
    const ping = await bench.takeOne('nop-in');
    expect(ping).toMatchObject({ itt: RESERVED_TAG, statSn: 1000 });
    expect(ping.ttt).not.toBe(RESERVED_TAG);
    bench.now = 1400;
    bench.send({ opcode: 'nop-out', itt: RESERVED_TAG, ttt: ping.ttt, immediate: true });
    bench.session.handleTimeout(1500);
    expect(bench.disconnects).toEqual([]);
    expect(bench.session.pollTimeout()).toBe(2400);
    bench.send({ opcode: 'nop-out', ttt: RESERVED_TAG });
    expect((await bench.takeOne('nop-in')).statSn).toBe(1000);
  });

  it('disconnects an initiator that does not answer', () => {
    const bench = new Bench();
    bench.session.handleTimeout(1000);
    expect(bench.session.pollTimeout()).toBe(1500);
    bench.session.handleTimeout(1500);
    expect(bench.disconnects).toEqual(['abrupt: the initiator does not answer']);
    expect(bench.session.pollTimeout()).toBeUndefined();
  });
});

describe('text', () => {
  const text = (pairs: string) => new TextEncoder().encode(pairs);
  const read = (data: Uint8Array | undefined) => new TextDecoder().decode(data);
  const own = `TargetName=${NAME}\0TargetAddress=192.0.2.1:3260,1\0`;
  const both = `${own}TargetName=iqn.2026-01.org.iserfs:other\0TargetAddress=192.0.2.1:3260,1\0`;

  it('shows a normal session its own target alone', async () => {
    const bench = new Bench({ session: { maxSendDataSegmentLength: 8192 } });
    for (const [request, answer] of [
      ['SendTargets=\0', own],
      [`SendTargets=${NAME}\0`, own],
      ['SendTargets=iqn.2026-01.org.iserfs:other\0', ''],
      ['SendTargets=All\0', 'SendTargets=Reject\0'],
      ['X-com.example.what=1\0', 'X-com.example.what=NotUnderstood\0'],
      ['MaxRecvDataSegmentLength=4096\0', 'MaxRecvDataSegmentLength=Reject\0'],
    ] as const) {
      bench.send({ opcode: 'text-request', final: true, ttt: RESERVED_TAG, data: text(request) });
      const response = await bench.takeOne('text-response');
      expect(read(response.data)).toBe(answer);
      expect(response).toMatchObject({ final: true, continue: false, ttt: RESERVED_TAG });
    }
  });

  it('shows a discovery session all targets, or one', async () => {
    const bench = new Bench({ discovery: true, session: { maxSendDataSegmentLength: 8192 } });
    for (const [request, answer] of [
      ['SendTargets=All\0', both],
      [`SendTargets=${NAME}\0`, own],
      ['SendTargets=iqn.2026-01.org.iserfs:none\0', ''],
      ['SendTargets=\0', 'SendTargets=Reject\0'],
    ] as const) {
      bench.send({ opcode: 'text-request', final: true, ttt: RESERVED_TAG, data: text(request) });
      expect(read((await bench.takeOne('text-response')).data)).toBe(answer);
    }
  });

  it('sends a long answer in parts, each asked for with the tag of the one before', async () => {
    const bench = new Bench({ discovery: true });
    const itt = bench.send({ opcode: 'text-request', final: true, ttt: RESERVED_TAG, data: text('SendTargets=All\0') });
    let whole = '';
    for (;;) {
      const response = await bench.takeOne('text-response');
      expect(response.data.length).toBeLessThanOrEqual(64);
      whole += read(response.data);
      if (response.final) break;
      expect(response.continue).toBe(true);
      expect(response.ttt).not.toBe(RESERVED_TAG);
      bench.send({ opcode: 'text-request', final: true, itt, ttt: response.ttt });
    }
    expect(whole).toBe(both);
  });

  it('takes a request in parts', async () => {
    const bench = new Bench({ session: { maxSendDataSegmentLength: 8192 } });
    const itt = bench.send({ opcode: 'text-request', continue: true, ttt: RESERVED_TAG, data: text('SendTar') });
    const partial = await bench.takeOne('text-response');
    expect(partial).toMatchObject({ final: false, continue: false });
    expect(partial.data.length).toBe(0);
    bench.send({ opcode: 'text-request', final: true, itt, ttt: partial.ttt, data: text('gets=\0') });
    expect(read((await bench.takeOne('text-response')).data)).toBe(own);
  });

  it('rejects a tag that it did not give, and text that is none', async () => {
    const bench = new Bench();
    bench.send({ opcode: 'text-request', final: true, ttt: 5, data: text('SendTargets=\0') });
    expect(await bench.takeOne('reject')).toMatchObject({ reason: 0x09 });
    bench.send({ opcode: 'text-request', final: true, ttt: RESERVED_TAG, data: text('no equals sign\0') });
    expect(await bench.takeOne('reject')).toMatchObject({ reason: 0x04 });
  });
});

describe('logout and end', () => {
  it('answers a logout when the tasks have ended, then disconnects', async () => {
    const bench = new Bench();
    bench.read(0);
    const itt = bench.send({ opcode: 'logout-request', reason: 0, cid: 7 });
    expect(await bench.take()).toEqual([]);
    bench.server.started[0]?.end();
    expect(await bench.takeOne('logout-response')).toMatchObject({ itt, response: 0, statSn: 1000 });
    expect(bench.disconnects).toEqual(['orderly: logged out']);
    bench.read(0);
    expect(bench.server.started).toHaveLength(1);
  });

  it('refuses to close a connection that it does not have, and connection recovery', async () => {
    const bench = new Bench();
    bench.send({ opcode: 'logout-request', reason: 1, cid: 8 });
    expect(await bench.takeOne('logout-response')).toMatchObject({ response: 1 });
    bench.send({ opcode: 'logout-request', reason: 2, cid: 7 });
    expect(await bench.takeOne('logout-response')).toMatchObject({ response: 2 });
    bench.send({ opcode: 'logout-request', reason: 1, cid: 7 });
    expect(await bench.takeOne('logout-response')).toMatchObject({ response: 0 });
    expect(bench.disconnects).toHaveLength(1);
  });

  it('asks for a logout and disconnects an initiator that ignores it', async () => {
    const bench = new Bench();
    bench.session.requestLogout(2);
    expect(await bench.takeOne('asynchronous-message')).toMatchObject({ asyncEvent: 1, parameter3: 2, itt: RESERVED_TAG });
    bench.now = 1900;
    bench.send({ opcode: 'nop-out', ttt: RESERVED_TAG });
    expect(bench.session.pollTimeout()).toBe(2000);
    bench.session.handleTimeout(2000);
    expect(bench.disconnects).toEqual(['orderly: the initiator did not log out when asked to']);
  });

  it('ends only when its tasks have ended, and sends nothing more', async () => {
    const bench = new Bench();
    bench.read(0);
    let isOver = false;
    const ended = bench.session.end().then(() => {
      isOver = true;
    });
    await settle();
    expect(isOver).toBe(false);
    expect(bench.server.started[0]?.task.signal.aborted).toBe(true);
    bench.server.started[0]?.end();
    await ended;
    expect(await bench.take()).toEqual([]);
  });

  it('takes nothing but a NOP-Out without a tag, and no second login', () => {
    const bench = new Bench();
    expect(() => bench.read(0, { itt: RESERVED_TAG })).toThrow(/without a task tag/);
    expect(() => bench.send({ opcode: 'login-request' })).toThrow(/Login Request/);
  });
});
