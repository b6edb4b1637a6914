import { describe, expect, it, test } from 'vitest';
import { createIserTransport, type IserOptions } from '../../../../src/iser/datamover/iser.ts';
import { createMemoryProviders } from '../../../../src/iser/rdma/memory.ts';
import { InitiatorEnd, TargetEnd } from '../../../support/datamover-pair.ts';
import { RdmaPeer } from '../../../support/rdma-peer.ts';
import { settle, VirtualClock } from '../../../support/virtual-clock.ts';

const endpoint = { host: '127.0.0.1', port: 0 };
const connecting = { timeoutMs: 10_000 };

describe('the transport', () => {
  it('is named like its provider', () => {
    expect(createIserTransport(createMemoryProviders().initiator).name).toBe('iwarp');
  });

  test.each<[string, Partial<IserOptions>]>([
    ['no RDMA Reads for the peer, without which it cannot fetch data', { ird: 0 }],
    ['more RDMA Reads than eight bits can say', { ord: 256 }],
    ['a receive length below what iSCSI allows', { initiatorRecvDataSegmentLength: 511 }],
    ['a receive length beyond a run', { targetRecvDataSegmentLength: 262_145 }],
    ['no commands', { maxCommands: 0 }],
    ['half a command', { commandWindow: 0.5 }],
  ])('is not made with %s', (_name, options) => {
    expect(() => createIserTransport(createMemoryProviders().initiator, options)).toThrow(RangeError);
  });

  it('asks for what its options say, and tells what was agreed', async () => {
    const { initiator, target } = createMemoryProviders();
    const ends: TargetEnd[] = [];
    const listener = await createIserTransport(target, { ird: 4, ord: 2 }).listen(endpoint, (datamover) => {
      const end = new TargetEnd(datamover);
      ends.push(end);
      return end;
    });
    const datamover = await createIserTransport(initiator, { crc: false, ird: 7, ord: 9 }).connect(
      listener.endpoint,
      new InitiatorEnd(),
      connecting,
    );
    expect(datamover.traits).toMatchObject({
      ird: 2,
      ord: 4,
      crc: 'off',
      'remote invalidate': 'on',
      protection: 'tag per command',
    });
    expect(ends[0]?.datamover.traits).toMatchObject({ ird: 4, ord: 2, crc: 'off', 'remote invalidate': 'on' });
    expect([datamover.transport, datamover.maxTransferLength]).toEqual(['iwarp', 512 * 1024]);
    await datamover.terminate('abrupt');
  });

  it('has its receives posted when the first message can come', async () => {
    const { initiator, target } = createMemoryProviders();
    let posted = 0;
    await target.listen({ ...endpoint, port: 3260 }, (request) => {
      const peer = new RdmaPeer(target.memory);
      request.accept(peer.options(new Uint8Array(0)), peer).then(
        (queuePair) => peer.open(queuePair),
        () => {},
      );
    });
    const counting = {
      ...initiator,
      connect: ((to, options, events) => {
        posted = options.receives.length;
        return initiator.connect(to, options, events);
      }) satisfies typeof initiator.connect,
    };
    const datamover = await createIserTransport(counting, { maxCommands: 10 }).connect(
      { ...endpoint, port: 3260 },
      new InitiatorEnd(),
      connecting,
    );
    expect(posted).toBe(10 + 6 + 16);
    await datamover.terminate('abrupt');
  });
});

describe('a connection that does not come about', () => {
  it('costs no memory', async () => {
    const { initiator } = createMemoryProviders();
    const transport = createIserTransport(initiator);
    for (let round = 0; round < 20; round++) {
      await expect(transport.connect({ ...endpoint, port: 9 }, new InitiatorEnd(), connecting)).rejects.toMatchObject({
        code: 'unreachable',
      });
    }
    // The receives of one attempt, which the next one used again.
    expect(initiator.memory.count).toBe(1);
  });

  it('is told to the initiator when the target has no use for it', async () => {
    const { initiator, target, wire } = createMemoryProviders();
    const listener = await createIserTransport(target).listen(endpoint, () => {
      throw new Error('too many connections');
    });
    const end = new InitiatorEnd();
    await createIserTransport(initiator).connect(listener.endpoint, end, connecting);
    expect(await end.notifications.terminated).toMatchObject({ code: 'connection-lost' });
    await settle();
    expect(wire.connectionCount).toBe(0);
  });

  it('is refused where too many others have not come about yet', async () => {
    const clock = new VirtualClock();
    const { initiator, target } = createMemoryProviders({ clock });
    const halfOpen = {
      ...target,
      listen: ((at, onRequest) =>
        target.listen(at, (request) =>
          onRequest({
            remoteAddress: request.remoteAddress,
            privateData: request.privateData,
            reject: () => request.reject(),
            accept: () => new Promise(() => {}),
          }),
        )) satisfies typeof target.listen,
    };
    const listener = await createIserTransport(halfOpen).listen(endpoint, (datamover) => new TargetEnd(datamover));
    const peer = new RdmaPeer(initiator.memory);
    const options = { ...peer.options(new Uint8Array(0)), timeoutMs: 1000 };
    const attempts = Array.from({ length: 70 }, () => initiator.connect(listener.endpoint, options, peer).catch(String));
    await clock.advance(1000);
    const outcomes = await Promise.all(attempts);
    expect(outcomes.filter((outcome) => /timed out/.test(String(outcome)))).toHaveLength(64);
    expect(outcomes.filter((outcome) => /rejected/.test(String(outcome)))).toHaveLength(6);
  });

  it('leaves nothing at the target where the initiator gives up meanwhile', async () => {
    const { initiator, target, wire } = createMemoryProviders({ latencyMs: 5 });
    const listener = await createIserTransport(target).listen(endpoint, (datamover) => new TargetEnd(datamover));
    const controller = new AbortController();
    const attempt = createIserTransport(initiator).connect(listener.endpoint, new InitiatorEnd(), {
      ...connecting,
      signal: controller.signal,
    });
    while (wire.connectionCount === 0) await new Promise((resolve) => setImmediate(resolve));
    controller.abort();
    await expect(attempt).rejects.toMatchObject({ code: 'aborted' });
    while (wire.connectionCount > 0) await new Promise((resolve) => setImmediate(resolve));
  });
});
