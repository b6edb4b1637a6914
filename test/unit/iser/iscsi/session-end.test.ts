import { describe, expect, it } from 'vitest';
import { IserfsError, NexusLostError } from '../../../../src/errors.ts';
import { pdu, RESERVED_TAG } from '../../../../src/iser/iscsi/pdu.ts';
import { FIRST_CMD_SN, FIRST_STAT_SN, flush, setUpSession } from '../../../support/session-fixture.ts';

describe('end of the session', () => {
  it('settles tasks only when the data mover has let go of their buffers', async () => {
    const { datamover, session, submit, ended } = setUpSession({ holdTermination: true, window: 1 });
    const sent = submit();
    const queued = submit();
    session.connectionTerminated(new Error('reset by peer'));
    await flush();
    expect(sent.outcome.count + ended.length).toBe(0);
    datamover.releaseBuffers();
    await flush();
    expect(sent.outcome.error).toMatchObject({ mayHaveExecuted: true });
    expect(queued.outcome.error).toMatchObject({ mayHaveExecuted: false });
    expect(ended).toHaveLength(1);
    expect(session.commandsInFlight).toBe(0);
  });

  it('refuses what is submitted afterwards', async () => {
    const { session, submit } = setUpSession();
    session.drop(new Error('gone'));
    await flush();
    expect(submit()).toMatchObject({ isTaken: false, outcome: { count: 0 } });
    await expect(session.manage('logical-unit-reset', 0n)).rejects.toBeInstanceOf(NexusLostError);
    expect(session.pollTimeout()).toBeUndefined();
  });

  it('logs out, and ends although the answer does not come', async () => {
    const { datamover, session, at, ended } = setUpSession();
    session.logout(new Error('enough'));
    expect(datamover.take()).toMatchObject([{ opcode: 'logout-request', reason: 0, immediate: true }]);
    at(10_000);
    await flush();
    expect(ended[0]?.reason.message).toBe('enough');
  });

  it('closes in order when the logout is answered, whatever the target sends after that', async () => {
    const { datamover, session, receive, ended } = setUpSession({ holdTermination: true });
    session.logout(new Error('enough'));
    const [request] = datamover.take();
    // As tgtd does it over iSER: the numbers of its login response again, and a NOP-In behind it.
    session.handlePdu(
      pdu({
        opcode: 'logout-response',
        itt: request?.itt ?? -1,
        statSn: FIRST_STAT_SN,
        expCmdSn: FIRST_CMD_SN + 1,
        maxCmdSn: FIRST_CMD_SN,
      }),
      0,
    );
    receive(pdu({ opcode: 'nop-in', itt: RESERVED_TAG, ttt: 7 }));
    session.connectionTerminated();
    expect(datamover.take()).toEqual([]);
    expect(datamover.terminations[0]).toBe('orderly');
    datamover.releaseBuffers();
    await flush();
    expect(ended).toMatchObject([{ reason: new Error('enough'), waitMs: 0 }]);
  });

  it('cuts the close after a logout short where it does not come to an end', () => {
    const setup = setUpSession({ holdTermination: true });
    const { datamover, session, receive, at } = setup;
    session.logout(new Error('enough'));
    const [request] = datamover.take();
    receive(pdu({ opcode: 'logout-response', itt: request?.itt ?? -1 }));
    expect(setup.movedTo).toBe(1000);
    at(999);
    expect(datamover.terminations).toEqual(['orderly']);
    at(1000);
    expect(datamover.terminations).toEqual(['orderly', 'abrupt']);
    expect(session.pollTimeout()).toBeUndefined();
  });

  it('sends no request after the logout', async () => {
    const { datamover, session, submit, receive } = setUpSession();
    const { abort, outcome } = submit();
    session.logout(new Error('enough'));
    const sent = datamover.take().length;
    abort(new IserfsError('aborted', 'interrupted'));
    receive(pdu({ opcode: 'nop-in', itt: RESERVED_TAG, ttt: 7 }));
    expect(submit()).toMatchObject({ isTaken: false, outcome: { count: 0 } });
    await expect(session.manage('logical-unit-reset', 0n)).rejects.toBeInstanceOf(NexusLostError);
    expect({ sent, more: datamover.take() }).toEqual({ sent: 2, more: [] });
    session.drop(new Error('gone'));
    await flush();
    expect(outcome.count).toBe(1);
  });

  it.each([
    ['nothing after a logout', 0, 0],
    ['what the target says after a logout that failed', 3, 7000],
  ])('has the target left alone for %s', async (_name, response, waitMs) => {
    const { datamover, session, receive, ended } = setUpSession();
    session.logout(new Error('enough'));
    const [request] = datamover.take();
    receive(pdu({ opcode: 'logout-response', itt: request?.itt ?? -1, response, time2Wait: 7 }));
    await flush();
    expect(ended).toMatchObject([{ waitMs }]);
  });

  it('has the target left alone for DefaultTime2Wait after a lost connection', async () => {
    const { session, ended } = setUpSession();
    session.connectionTerminated(new Error('reset by peer'));
    await flush();
    expect(ended).toMatchObject([{ waitMs: 2000 }]);
  });
});
