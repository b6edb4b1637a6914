import { describe, expect, it } from 'vitest';
import { errorCode, IserfsError, NexusLostError } from '../../../../src/errors.ts';
import { AsyncEvent, type Pdu, pdu, RESERVED_TAG } from '../../../../src/iser/iscsi/pdu.ts';
import { flush, good, scsiCommands, setUpSession } from '../../../support/session-fixture.ts';

describe('answers', () => {
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
});

describe('deadlines', () => {
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
