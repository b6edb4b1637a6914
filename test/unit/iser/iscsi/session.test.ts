import { describe, expect, it } from 'vitest';
import { errorCode, IserfsError, NexusLostError } from '../../../../src/errors.ts';
import {
  AsyncEvent,
  encodeBhs,
  type Pdu,
  pdu,
  RESERVED_TAG,
  RejectReason,
  TaskManagementCode,
  TaskManagementResponseCode,
} from '../../../../src/iser/iscsi/pdu.ts';
import { FIRST_STAT_SN, flush, good, scsiCommands, setUpSession } from '../../../support/session-fixture.ts';

describe('command window', () => {
  it('gives each command the next CmdSN, once', () => {
    const { datamover, submit } = setUpSession();
    for (let count = 0; count < 3; count++) submit();
    expect(scsiCommands(datamover.take()).map(({ cmdSn }) => cmdSn)).toEqual([100, 101, 102]);
  });

  it('holds a command beyond MaxCmdSN until the window opens', () => {
    const { datamover, submit, receive, openWindow } = setUpSession({ window: 1 });
    submit();
    submit();
    const first = scsiCommands(datamover.take());
    expect(first).toHaveLength(1);
    openWindow({ expCmdSn: 101, maxCmdSn: 101 });
    receive(good(first[0]?.itt ?? -1));
    expect(scsiCommands(datamover.take()).map(({ cmdSn }) => cmdSn)).toEqual([101]);
  });

  it('opens through the numbers of PDUs that the data mover keeps to itself', () => {
    const { datamover, session, submit } = setUpSession({ window: 1 });
    submit();
    submit();
    datamover.take();
    session.windowNotify(101, 110);
    expect(scsiCommands(datamover.take())).toHaveLength(1);
  });

  it('numbers across the wrap of 32 bits', () => {
    const { datamover, session, submit } = setUpSession();
    session.windowNotify(100, 0x7fffff00);
    for (let count = 0; count < 2; count++) submit();
    expect(datamover.take()).toHaveLength(2);
  });
});

describe('answers', () => {
  it('gives status, sense and what was transferred', () => {
    const { datamover, submit, receive } = setUpSession();
    const { outcome } = submit({ dataIn: new Uint8Array(512) });
    const [command] = scsiCommands(datamover.take());
    expect(command).toMatchObject({ read: true, write: false, expectedDataTransferLength: 512 });
    const data = Uint8Array.of(0, 3, 0x70, 0, 6, 0xff);
    receive(pdu({ opcode: 'scsi-response', itt: command?.itt ?? -1, status: 2, underflow: true, residualCount: 512, data }));
    expect(outcome).toEqual({ count: 1, result: { status: 2, sense: Uint8Array.of(0x70, 0, 6), transferred: 0 } });
  });

  it('does not believe in more data than arrived', () => {
    const { datamover, submit, receive } = setUpSession();
    const { outcome } = submit({ dataIn: new Uint8Array(512) });
    const [command] = scsiCommands(datamover.take());
    receive(good(command?.itt ?? -1), 100);
    expect(outcome.result?.transferred).toBe(100);
  });

  it('ends the session when StatSN has a gap', async () => {
    const { datamover, session, submit, ended } = setUpSession();
    const { outcome } = submit();
    const [command] = scsiCommands(datamover.take());
    session.handlePdu(
      pdu({ opcode: 'scsi-response', itt: command?.itt ?? -1, statSn: FIRST_STAT_SN + 1, expCmdSn: 101, maxCmdSn: 131 }),
      0,
    );
    await flush();
    expect(errorCode(ended[0]?.reason)).toBe('protocol-error');
    expect(outcome.error).toBeInstanceOf(NexusLostError);
  });

  it('takes responses over RDMA in any order, and one StatSN twice', async () => {
    const { datamover, session, submit, ended } = setUpSession({ isOverRdma: true });
    const outcomes = Array.from({ length: 4 }, () => submit().outcome);
    const commands = scsiCommands(datamover.take());
    for (const [index, ahead] of [1, 0, 2, 2].entries()) {
      const { itt = -1 } = commands[index] ?? {};
      session.handlePdu(
        pdu({ opcode: 'scsi-response', itt, statSn: FIRST_STAT_SN + ahead, expCmdSn: 104, maxCmdSn: 131 + index }),
        0,
      );
    }
    submit();
    await flush();
    expect(ended).toEqual([]);
    expect(outcomes.map(({ result }) => result?.status)).toEqual([0, 0, 0, 0]);
    expect(scsiCommands(datamover.take())).toMatchObject([{ expStatSn: FIRST_STAT_SN + 3 }]);
  });

  it.each([
    ['ahead of', 200],
    ['behind', -200],
  ])('ends the session over RDMA when StatSN is far %s the one that is due', async (_where, distance) => {
    const { datamover, session, submit, ended } = setUpSession({ isOverRdma: true });
    submit();
    const [command] = scsiCommands(datamover.take());
    session.handlePdu(
      pdu({ opcode: 'scsi-response', itt: command?.itt ?? -1, statSn: FIRST_STAT_SN + distance, expCmdSn: 101, maxCmdSn: 131 }),
      0,
    );
    await flush();
    expect(errorCode(ended[0]?.reason)).toBe('protocol-error');
  });

  it.each([
    ['a response to no task', pdu({ opcode: 'scsi-response', itt: 77 })],
    ['a task management response to no request', pdu({ opcode: 'task-management-response', itt: 77 })],
    ['a NOP-In that answers no NOP-Out', pdu({ opcode: 'nop-in', itt: 77, ttt: RESERVED_TAG })],
    ['a login response', pdu({ opcode: 'login-response', itt: 1 })],
    ['a text response to no request', pdu({ opcode: 'text-response', itt: 77, final: true })],
    ['a logout response to no request', pdu({ opcode: 'logout-response', itt: 77 })],
    ['a reject without the rejected header', pdu({ opcode: 'reject', itt: RESERVED_TAG, reason: 4 })],
  ] as const)('ends the session after %s', async (_name, source) => {
    const { receive, ended, datamover } = setUpSession();
    receive(source);
    await flush();
    expect(errorCode(ended[0]?.reason)).toBe('protocol-error');
    expect(datamover.terminated).toBe('abrupt');
  });

  it('does not believe that a target has taken data that it never asked for', () => {
    const { datamover, submit, receive } = setUpSession();
    const { outcome } = submit({ dataOut: new Uint8Array(512) });
    const [command] = scsiCommands(datamover.take());
    receive(good(command?.itt ?? -1), 100);
    expect(outcome.result?.transferred).toBe(100);
  });
});

describe('a rejected command', () => {
  function rejected() {
    const harness = setUpSession();
    const { outcome } = harness.submit();
    const [command] = scsiCommands(harness.datamover.take());
    if (command === undefined) throw new Error('a command was due');
    const reason = RejectReason['invalid-pdu-field'];
    harness.receive(pdu({ opcode: 'reject', itt: RESERVED_TAG, reason, data: encodeBhs(command) }));
    return { ...harness, outcome, command };
  }

  it('leaves a gap in CmdSN, which an ABORT TASK fills', () => {
    const { datamover, command, outcome } = rejected();
    expect(outcome.count).toBe(0);
    expect(datamover.take()).toMatchObject([
      {
        opcode: 'task-management-request',
        function: TaskManagementCode['abort-task'],
        referencedTaskTag: command.itt,
        refCmdSn: command.cmdSn,
      },
    ]);
  });

  it.each(['complete', 'no-such-task'] as const)(
    'fails alone, for the reason given, when the answer to that is %s',
    async (answer) => {
      const { datamover, submit, receive, command, outcome, ended } = rejected();
      const [abort] = datamover.take();
      receive(pdu({ opcode: 'task-management-response', itt: abort?.itt ?? -1, response: TaskManagementResponseCode[answer] }));
      expect(outcome).toMatchObject({ count: 1, error: { code: 'illegal-request' } });
      expect(outcome.error?.message).toMatch(/invalid pdu field/);
      expect(datamover.deallocated).toEqual([command.itt]);
      const other = submit();
      receive(good(scsiCommands(datamover.take())[0]?.itt ?? -1));
      await flush();
      expect(other.outcome.result?.status).toBe(0);
      expect(ended).toEqual([]);
    },
  );

  it('still has its response to come when only data of it was rejected', async () => {
    const { datamover, submit, receive, ended } = setUpSession();
    const { outcome } = submit({ dataOut: new Uint8Array(512) });
    const [command] = scsiCommands(datamover.take());
    const itt = command?.itt ?? -1;
    const dataOut = pdu({ opcode: 'data-out', final: true, itt, ttt: 9 });
    receive(pdu({ opcode: 'reject', itt: RESERVED_TAG, reason: RejectReason['data-digest-error'], data: encodeBhs(dataOut) }));
    receive(pdu({ opcode: 'scsi-response', itt, status: 2 }), 512);
    await flush();
    expect(outcome.result?.status).toBe(2);
    expect(ended).toEqual([]);
  });
});

describe('command time-out', () => {
  it('asks the target to abort the task and reports only what the target confirmed', () => {
    const { datamover, submit, receive, at } = setUpSession();
    const { outcome } = submit({ timeoutMs: 1000 });
    const [command] = scsiCommands(datamover.take());
    at(1000);
    expect(outcome.count).toBe(0);
    const abort = datamover.take().find(({ opcode }) => opcode === 'task-management-request');
    expect(abort).toMatchObject({
      function: TaskManagementCode['abort-task'],
      referencedTaskTag: command?.itt,
      refCmdSn: command?.cmdSn,
      immediate: true,
    });
    receive(pdu({ opcode: 'task-management-response', itt: abort?.itt ?? -1 }));
    expect(errorCode(outcome.error)).toBe('command-timeout');
    expect(datamover.deallocated).toEqual([command?.itt]);
  });

  it('has the deadlines of what it asks besides commands looked after', () => {
    const fixture = setUpSession();
    const { abort } = fixture.submit();
    for (const ask of [
      () => abort(new IserfsError('aborted', 'interrupted')),
      () => void fixture.session.exchangeText([['SendTargets', 'All']]),
      () => void fixture.session.manage('logical-unit-reset', 0n).catch(() => {}),
      () => fixture.session.logout(new Error('end')),
    ]) {
      const before = fixture.moves;
      ask();
      expect(fixture.moves).toBe(before + 1);
    }
  });

  it('takes the response that overtakes the abort', async () => {
    const { datamover, submit, receive, at, ended } = setUpSession();
    const { outcome } = submit({ timeoutMs: 1000 });
    const [command] = scsiCommands(datamover.take());
    at(1000);
    const [abort] = datamover.take().filter(({ opcode }) => opcode === 'task-management-request');
    receive(good(command?.itt ?? -1));
    receive(
      pdu({ opcode: 'task-management-response', itt: abort?.itt ?? -1, response: TaskManagementResponseCode['no-such-task'] }),
    );
    await flush();
    expect(outcome).toMatchObject({ count: 1, result: { status: 0 } });
    expect(ended).toEqual([]);
  });

  it('drops the session when the abort is not answered', async () => {
    const { submit, at, ended, session } = setUpSession();
    const { outcome } = submit({ timeoutMs: 1000 });
    at(1000);
    session.windowNotify(101, 131); // the peer is alive otherwise
    at(11_000);
    await flush();
    expect(outcome.error).toBeInstanceOf(NexusLostError);
    expect(ended).toHaveLength(1);
  });

  it('drops the session when the target does not know the task', async () => {
    const { datamover, submit, receive, at, ended } = setUpSession();
    const { outcome } = submit({ timeoutMs: 1000 });
    at(1000);
    const [abort] = datamover.take().filter(({ opcode }) => opcode === 'task-management-request');
    receive(
      pdu({ opcode: 'task-management-response', itt: abort?.itt ?? -1, response: TaskManagementResponseCode['no-such-task'] }),
    );
    await flush();
    expect(outcome.error).toMatchObject({ mayHaveExecuted: true });
    expect(ended).toHaveLength(1);
  });

  it('fails a command that never got into the window without touching the wire', () => {
    const { datamover, submit, at } = setUpSession({ window: 0 });
    const { outcome } = submit({ timeoutMs: 1000 });
    at(1000);
    expect(errorCode(outcome.error)).toBe('command-timeout');
    expect(datamover.take().filter(({ opcode }) => opcode === 'task-management-request')).toEqual([]);
  });

  it('ends the session when a response comes for a task that the target said it had aborted', async () => {
    const { datamover, submit, receive, at, ended } = setUpSession();
    const { outcome } = submit({ timeoutMs: 1000 });
    const [command] = scsiCommands(datamover.take());
    at(1000);
    const [abort] = datamover.take().filter(({ opcode }) => opcode === 'task-management-request');
    receive(pdu({ opcode: 'task-management-response', itt: abort?.itt ?? -1 }));
    receive(good(command?.itt ?? -1));
    await flush();
    expect(outcome.count).toBe(1);
    expect(errorCode(ended[0]?.reason)).toBe('protocol-error');
  });

  it('aborts for the owner, once', () => {
    const { datamover, submit, receive } = setUpSession();
    const { outcome, abort } = submit();
    datamover.take();
    abort(new IserfsError('aborted', 'interrupted'));
    abort(new IserfsError('aborted', 'interrupted'));
    const aborts = datamover.take();
    expect(aborts).toHaveLength(1);
    receive(pdu({ opcode: 'task-management-response', itt: aborts[0]?.itt ?? -1 }));
    expect(errorCode(outcome.error)).toBe('aborted');
    expect(outcome.count).toBe(1);
  });
});

describe('logical unit reset', () => {
  it('ends the tasks of that logical unit alone', async () => {
    const { datamover, session, submit, receive } = setUpSession();
    const struck = submit({ lun: 1n });
    const spared = submit({ lun: 2n });
    const [, second] = scsiCommands(datamover.take());
    const done = session.manage('logical-unit-reset', 1n);
    const [request] = datamover.take();
    receive(pdu({ opcode: 'task-management-response', itt: request?.itt ?? -1 }));
    await done;
    expect(errorCode(struck.outcome.error)).toBe('aborted');
    receive(good(second?.itt ?? -1));
    expect(spared.outcome.result?.status).toBe(0);
  });

  it('leaves alone what was sent after it', async () => {
    const { datamover, session, submit, receive, ended } = setUpSession();
    const done = session.manage('logical-unit-reset', 1n);
    const [request] = datamover.take();
    const later = submit({ lun: 1n });
    const [command] = scsiCommands(datamover.take());
    receive(pdu({ opcode: 'task-management-response', itt: request?.itt ?? -1 }));
    await done;
    expect(later.outcome.count).toBe(0);
    receive(good(command?.itt ?? -1));
    await flush();
    expect(later.outcome.result?.status).toBe(0);
    expect(ended).toEqual([]);
  });

  it('says when the target cannot', async () => {
    const { datamover, session, receive } = setUpSession();
    const done = session.manage('logical-unit-reset', 1n);
    const [request] = datamover.take();
    receive(
      pdu({ opcode: 'task-management-response', itt: request?.itt ?? -1, response: TaskManagementResponseCode.unsupported }),
    );
    await expect(done).rejects.toMatchObject({ code: 'unsupported' });
  });
});

describe('keepalive', () => {
  it('pings after 5 s of silence and gives up 5 s later', async () => {
    const { datamover, session, submit, at, ended } = setUpSession();
    const { outcome } = submit();
    datamover.take();
    at(4999);
    expect(datamover.take()).toEqual([]);
    at(5000);
    expect(datamover.take()).toMatchObject([{ opcode: 'nop-out', immediate: true, ttt: RESERVED_TAG }]);
    expect(session.pollTimeout()).toBe(10_000);
    at(10_000);
    await flush();
    expect(ended[0]?.reason.message).toMatch(/no answer from the target for 10 s/);
    expect(outcome.error).toBeInstanceOf(NexusLostError);
  });

  it('goes on after an answer', async () => {
    const { datamover, receive, at, ended, session } = setUpSession();
    at(5000);
    const [ping] = datamover.take();
    receive(pdu({ opcode: 'nop-in', itt: ping?.itt ?? -1, ttt: RESERVED_TAG }));
    expect(session.pollTimeout()).toBe(10_000);
    at(10_000);
    expect(datamover.take()).toHaveLength(1);
    await flush();
    expect(ended).toEqual([]);
  });

  it('counts any PDU as a sign of life while a ping is out', async () => {
    const { session, at, ended } = setUpSession();
    at(5000);
    at(9000);
    session.windowNotify(100, 131);
    at(10_000);
    expect(session.pollTimeout()).toBe(14_000);
    at(14_000);
    await flush();
    expect(ended).toHaveLength(1);
  });

  it('answers a ping with its tag and LUN, and a mere NOP-In not at all', () => {
    const { datamover, receive } = setUpSession();
    receive(pdu({ opcode: 'nop-in', itt: RESERVED_TAG, ttt: 0x1234, lun: 5n }));
    expect(datamover.take()).toMatchObject([{ opcode: 'nop-out', itt: RESERVED_TAG, ttt: 0x1234, lun: 5n, immediate: true }]);
    receive(pdu({ opcode: 'nop-in', itt: RESERVED_TAG, ttt: RESERVED_TAG }));
    expect(datamover.take()).toEqual([]);
  });
});

describe('asynchronous messages', () => {
  const message = (event: number, fields: Partial<Pdu<'asynchronous-message'>> = {}) =>
    pdu({ opcode: 'asynchronous-message', itt: RESERVED_TAG, asyncEvent: event, ...fields });

  it('hands sense data up', () => {
    const { receive, asynchronous } = setUpSession();
    receive(message(AsyncEvent['scsi-event'], { lun: 3n, data: Uint8Array.of(0, 2, 0x70, 0) }));
    expect(asynchronous).toEqual([{ lun: 3n, sense: Uint8Array.of(0x70, 0) }]);
  });

  it('logs out when asked, after the commands in flight', async () => {
    const { datamover, submit, receive, ended } = setUpSession();
    const running = submit();
    const [command] = scsiCommands(datamover.take());
    receive(message(AsyncEvent['logout-requested'], { parameter3: 10 }));
    const late = submit();
    expect(datamover.take()).toEqual([]);
    receive(good(command?.itt ?? -1));
    const [logout] = datamover.take();
    expect(logout).toMatchObject({ opcode: 'logout-request', reason: 0 });
    receive(pdu({ opcode: 'logout-response', itt: logout?.itt ?? -1 }));
    await flush();
    expect(running.outcome.result?.status).toBe(0);
    expect(late.outcome.error).toMatchObject({ mayHaveExecuted: false });
    expect(ended).toHaveLength(1);
  });

  it('logs out in time although a command hangs', () => {
    const harness = setUpSession();
    const { datamover, submit, receive, at } = harness;
    submit();
    datamover.take();
    receive(message(AsyncEvent['logout-requested'], { parameter3: 4 }));
    expect(harness.movedTo).toBe(2000);
    at(2000);
    expect(datamover.take()).toMatchObject([{ opcode: 'logout-request' }]);
  });

  it.each([
    ['connection', AsyncEvent['connection-dropped']],
    ['session', AsyncEvent['session-dropped']],
  ])('ends when the target drops the %s, and keeps to Time2Wait', async (_what, event) => {
    const { receive, ended } = setUpSession();
    receive(message(event, { parameter2: 3, parameter3: 20 }));
    await flush();
    expect(ended).toMatchObject([{ waitMs: 3000 }]);
  });

  it('negotiates again when asked', () => {
    const { datamover, receive, session } = setUpSession();
    receive(message(AsyncEvent['negotiation-requested'], { parameter3: 10 }));
    const [request] = datamover.take();
    expect(request).toMatchObject({ opcode: 'text-request', final: true });
    expect(Buffer.from(request?.data ?? []).toString()).toBe('MaxRecvDataSegmentLength=262144\0');
    receive(pdu({ opcode: 'text-response', itt: request?.itt ?? -1, final: true, ttt: RESERVED_TAG }));
    expect(session.state).toBe('LOGGED_IN');
  });
});

describe('text exchange', () => {
  it('collects an answer in pieces', async () => {
    const { datamover, session, receive } = setUpSession();
    const text = session.exchangeText([['SendTargets', 'All']]);
    const [request] = datamover.take();
    expect(Buffer.from(request?.data ?? []).toString()).toBe('SendTargets=All\0');
    const itt = request?.itt ?? -1;
    receive(pdu({ opcode: 'text-response', itt, ttt: 9, continue: true, data: Buffer.from('TargetName=iqn.2001-0') }));
    expect(datamover.take()).toMatchObject([{ opcode: 'text-request', itt, ttt: 9, data: new Uint8Array(0) }]);
    receive(pdu({ opcode: 'text-response', itt, ttt: RESERVED_TAG, final: true, data: Buffer.from('4.com.example:a\0') }));
    expect(Buffer.from(await text).toString()).toBe('TargetName=iqn.2001-04.com.example:a\0');
  });
});
