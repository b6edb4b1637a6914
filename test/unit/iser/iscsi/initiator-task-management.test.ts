import { describe, expect, it } from 'vitest';
import { errorCode, IserfsError, NexusLostError } from '../../../../src/errors.ts';
import {
  encodeBhs,
  pdu,
  RESERVED_TAG,
  RejectReason,
  TaskManagementCode,
  TaskManagementResponseCode,
} from '../../../../src/iser/iscsi/pdu.ts';
import { flush, good, scsiCommands, setUpSession } from '../../../support/session-fixture.ts';

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
