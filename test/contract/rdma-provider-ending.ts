/** How connections end. That each request completes once and nothing comes after the end is looked for at every end of every test. */

import { expect, it } from 'vitest';
import { assertSameBytes, offsetPattern } from '../support/pattern.ts';
import type { RdmaEnd } from '../support/rdma-end.ts';
import type { RdmaContractPart } from './rdma-provider.ts';

export const endingContract: RdmaContractPart = (current) => {
  it('sends what is posted before an orderly end', async () => {
    const { initiator, target } = await current().pair({ receives: 0 });
    const receives = Array.from({ length: 40 }, () => target.postReceive(target.arena.take(8192)));
    const sends = Array.from({ length: 40 }, (_, index) => initiator.postSend(initiator.arena.take(8192 - index, 1)));
    initiator.queuePair.close('orderly');
    expect(await target.closed()).toBeUndefined();
    expect(await initiator.closed()).toBeUndefined();
    expect(target.completions.map(({ id, status }) => [id, status])).toEqual(receives.map((id) => [id, 'success']));
    expect(initiator.completions.map(({ id, status }) => [id, status])).toEqual(sends.map((id) => [id, 'success']));
  });

  it('writes what is posted before an orderly end', async () => {
    const { initiator, target } = await current().pair();
    const into = initiator.arena.take(1 << 20);
    const data = target.arena.take(1 << 20);
    data.set(offsetPattern(0, data.length));
    target.postWrite(data, initiator.advertise(into, 'remote-write'));
    target.queuePair.close('orderly');
    expect(await initiator.closed()).toBeUndefined();
    assertSameBytes(into, data);
  });

  it('ends in order when both ends close at a time', async () => {
    const { initiator, target } = await current().pair();
    initiator.queuePair.close('orderly');
    target.queuePair.close('orderly');
    expect(await initiator.closed()).toBeUndefined();
    expect(await target.closed()).toBeUndefined();
  });

  it.each(['orderly', 'abrupt'] as const)('flushes receives that are left over at both ends: %s', async (mode) => {
    const { initiator, target } = await current().pair({ receives: 5 });
    initiator.queuePair.close(mode);
    await Promise.all([initiator.closed(), target.closed()]);
    expect(initiator.statuses()).toEqual(Array(5).fill('flushed'));
    expect(target.statuses()).toEqual(Array(5).fill('flushed'));
  });

  it('flushes or completes all that is under way at an abrupt end', async () => {
    const { initiator, target } = await current().pair({ receives: 16 });
    const from = initiator.advertise(initiator.arena.take(1 << 20), 'remote-read');
    const to = initiator.advertise(initiator.arena.take(1 << 20), 'remote-write');
    const data = target.arena.take(1 << 20);
    for (let index = 0; index < 4; index++) {
      target.postWrite(data.subarray(0, 200_000), to);
      target.postRead(data.subarray(index * 200_000, (index + 1) * 200_000), from);
      target.postSend(data.subarray(0, 4096));
    }
    target.queuePair.close('abrupt');
    expect(await target.closed()).toBeUndefined();
    await initiator.closed();
    // 12 requests and 16 receives; that none is without a completion is among the faults of an end.
    expect(target.statuses()).toHaveLength(28);
    expect(target.statuses().slice(0, 16)).toEqual(Array(16).fill('flushed'));
  });

  it('flushes reads that the peer does not answer any more', async () => {
    const { initiator, target } = await current().pair();
    const from = initiator.advertise(initiator.arena.take(1 << 20), 'remote-read');
    for (let index = 0; index < 20; index++) target.postRead(target.arena.take(65_536), from);
    initiator.queuePair.close('abrupt');
    await Promise.all([initiator.closed(), target.closed()]);
    expect(target.outstanding).toBe(0);
  });

  it('cuts an orderly end short when it is closed abruptly, and takes further closing', async () => {
    const { initiator, target } = await current().pair();
    initiator.postSend(initiator.arena.take(100, 1));
    initiator.queuePair.close('orderly');
    initiator.queuePair.close('orderly');
    initiator.queuePair.close('abrupt');
    initiator.queuePair.close('orderly');
    await initiator.closed();
    initiator.queuePair.close('abrupt');
    await target.closed();
  });

  it('closes from inside of a completion', async () => {
    const { initiator, target } = await current().pair({ receives: 8 });
    target.onCompleted = () => target.queuePair.close('abrupt');
    for (let index = 0; index < 8; index++) initiator.postSend(initiator.arena.take(10, 1));
    await Promise.all([initiator.closed(), target.closed()]);
  });

  it('completes as flushed what is posted while the connection ends', async () => {
    const { initiator, target } = await current().pair({ receives: 1 });
    target.queuePair.close('abrupt');
    const late = [
      target.postSend(target.arena.take(10)),
      target.postReceive(target.arena.take(10)),
      target.postWrite(target.arena.take(10), { tag: 1, address: 0n }),
      target.postRead(target.arena.take(10), { tag: 1, address: 0n }),
    ];
    await target.closed();
    for (const id of late) expect((await target.completion(id)).status).toBe('flushed');
    await initiator.closed();
  });

  it('completes as flushed what is posted after a message that the peer sent before it went', async () => {
    const { initiator, target } = await current().pair({ receives: 4 });
    // The first completion comes when the peer is gone already, or goes.
    const late: number[] = [];
    target.onCompleted = ({ status }) => {
      if (status === 'success') late.push(target.postSend(target.arena.take(10)), target.postReceive(target.arena.take(10)));
    };
    initiator.postSend(initiator.arena.take(10, 1));
    initiator.queuePair.close('orderly');
    await Promise.all([initiator.closed(), target.closed()]);
    expect(late).toHaveLength(2);
    expect(target.outstanding).toBe(0);
  });

  it('completes as flushed what is posted at the end of a batch of what the end has flushed', async () => {
    const { initiator, target } = await current().pair({ receives: 4 });
    let isPosted = false;
    target.onBatchEnded = () => {
      if (isPosted || !target.completions.some(({ status }) => status === 'flushed')) return;
      isPosted = true;
      for (let index = 0; index < 4; index++) target.postRead(target.arena.take(10), { tag: 1, address: 0n });
    };
    initiator.queuePair.close('abrupt');
    await Promise.all([initiator.closed(), target.closed()]);
    expect(isPosted).toBe(true);
    expect(target.outstanding).toBe(0);
  });

  it('says nothing more of what is posted after the end', async () => {
    const { initiator, target } = await current().pair({ receives: 0 });
    initiator.queuePair.close('abrupt');
    // Whoever has not heard of it yet goes on.
    initiator.queuePair.advertise(initiator.arena.take(10), 'remote-read');
    await Promise.all([initiator.closed(), target.closed()]);
    for (const end of [initiator, target]) {
      const before = end.completions.length;
      const { queuePair } = end;
      queuePair.postSend(1000, end.arena.take(10));
      queuePair.postReceive(1001, end.arena.take(10));
      queuePair.revoke(queuePair.advertise(end.arena.take(10), 'remote-read').tag);
      queuePair.close('orderly');
      expect(end.completions).toHaveLength(before);
    }
  });

  it('gives the memory back: what arrived stays as it is', async () => {
    const { initiator, target } = await current().pair({ receives: 0 });
    const memory = initiator.arena.take(4096, 0xee);
    initiator.advertise(memory, 'remote-write');
    const receive = initiator.arena.take(4096, 0xee);
    initiator.postReceive(receive);
    target.queuePair.close('abrupt');
    await initiator.closed();
    expect(memory.every((byte) => byte === 0xee)).toBe(true);
    expect(receive.every((byte) => byte === 0xee)).toBe(true);
  });

  it('opens and closes again and again', async () => {
    for (let round = 0; round < 20; round++) {
      const { initiator, target } = await current().pair({ receives: 2 });
      const sent = initiator.postSend(initiator.arena.take(16, 1));
      await initiator.completion(sent);
      const [first, second]: RdmaEnd[] = round % 2 === 0 ? [initiator, target] : [target, initiator];
      first?.queuePair.close(round % 4 < 2 ? 'orderly' : 'abrupt');
      await Promise.all([first?.closed(), second?.closed()]);
    }
  });
};
