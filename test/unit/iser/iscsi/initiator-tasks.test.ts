import { describe, expect, it } from 'vitest';
import { pdu } from '../../../../src/iser/iscsi/pdu.ts';
import { good, scsiCommands, setUpSession } from '../../../support/session-fixture.ts';

describe('tasks and the command window', () => {
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

describe('the result of a task', () => {
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

  it('does not believe that a target has taken data that it never asked for', () => {
    const { datamover, submit, receive } = setUpSession();
    const { outcome } = submit({ dataOut: new Uint8Array(512) });
    const [command] = scsiCommands(datamover.take());
    receive(good(command?.itt ?? -1), 100);
    expect(outcome.result?.transferred).toBe(100);
  });
});
