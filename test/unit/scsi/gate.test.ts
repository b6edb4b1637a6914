import { describe, expect, it } from 'vitest';
import { Gate } from '../../../src/scsi/gate.ts';
import { settle } from '../../support/virtual-clock.ts';

describe('the gate', () => {
  it('lets nobody pass before it opens', async () => {
    const gate = new Gate(2);
    let passed = false;
    const entered = gate.enter().then((ticket) => {
      passed = true;
      return ticket;
    });
    await settle();
    expect(passed).toBe(false);
    gate.open(7);
    expect((await entered).nexus).toBe(7);
  });

  it('bounds the commands in flight, first come first served', async () => {
    const gate = new Gate(2);
    gate.open(1);
    const tickets = await Promise.all([gate.enter(), gate.enter()]);
    const order: number[] = [];
    const third = gate.enter().then(() => order.push(3));
    const fourth = gate.enter().then(() => order.push(4));
    await settle();
    expect([order, gate.inFlight, gate.queued]).toEqual([[], 2, 2]);
    tickets[0]?.leave();
    await third;
    expect(order).toEqual([3]);
    tickets[1]?.leave();
    await fourth;
    expect(order).toEqual([3, 4]);
  });

  it('gives a ticket at once where one is free, and to nobody past those who wait', async () => {
    const gate = new Gate(1);
    expect(gate.tryEnter()).toBeUndefined();
    gate.open(3);
    const ticket = gate.tryEnter();
    expect(ticket?.nexus).toBe(3);
    expect(gate.tryEnter()).toBeUndefined();
    const waiting = gate.enter();
    ticket?.leave();
    expect(gate.tryEnter()).toBeUndefined();
    (await waiting).leave();
    gate.refuse(new Error('no'));
    expect(gate.tryEnter()).toBeUndefined();
    expect(gate.queued).toBe(1);
  });

  it('does not admit who waits while it is closed, and hands out the new nexus afterwards', async () => {
    const gate = new Gate(1);
    gate.open(1);
    const first = await gate.enter();
    const second = gate.enter();
    gate.close();
    first.leave();
    await settle();
    expect(gate.inFlight).toBe(0);
    gate.open(2);
    expect((await second).nexus).toBe(2);
  });

  it('rejects who waits and who comes while it refuses', async () => {
    const gate = new Gate(1);
    const waiting = gate.enter().catch(String);
    gate.refuse(new Error('given up'));
    expect([await waiting, await gate.enter().catch(String)]).toEqual(['Error: given up', 'Error: given up']);
    gate.open(1);
    expect((await gate.enter()).nexus).toBe(1);
  });

  it('lets go of who is aborted', async () => {
    const gate = new Gate(1);
    const abort = new AbortController();
    const waiting = gate.enter(abort.signal).catch(String);
    abort.abort(new Error('enough'));
    expect(await waiting).toBe('Error: enough');
    expect(await gate.enter(abort.signal).catch(String)).toBe('Error: enough');
    gate.open(1);
    await settle();
    expect(gate.inFlight).toBe(0);
  });

  it('is settled when the tickets that were out have come back, whoever came since', async () => {
    const gate = new Gate(3);
    gate.open(1);
    const [one, other] = [await gate.enter(), await gate.enter()];
    let settled = false;
    const wait = gate.settled().then(() => {
      settled = true;
    });
    await gate.enter();
    one.leave();
    await settle();
    expect(settled).toBe(false);
    other.leave();
    await wait;
  });

  it('throws when a ticket is given back twice', async () => {
    const gate = new Gate(1);
    gate.open(1);
    const ticket = await gate.enter();
    ticket.leave();
    expect(() => ticket.leave()).toThrow('twice');
  });
});
