/** What a test can do to connections inside the process; that they keep the contract of a provider is in memory-contract.test.ts. */

import { describe, expect, it } from 'vitest';
import { createMemoryProviders, type MemoryProviderOptions, type RdmaMessage } from '../../../../src/iser/rdma/memory.ts';
import { RdmaPeer } from '../../../support/rdma-peer.ts';
import { VirtualClock } from '../../../support/virtual-clock.ts';

const endpoint = { host: '192.0.2.1', port: 3260 };
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');
const bytesOf = (from: string) => Buffer.from(from, 'latin1');

/** Two peers on a virtual clock, connected after two latencies. */
async function connected(options: MemoryProviderOptions = {}) {
  const clock = new VirtualClock();
  const providers = createMemoryProviders({ clock, ...options });
  const [initiator, target] = [new RdmaPeer(providers.initiator.memory), new RdmaPeer(providers.target.memory)];
  const listener = await providers.target.listen(endpoint, (request) => {
    request.accept(target.options(new Uint8Array(4)), target).then(
      (queuePair) => target.open(queuePair),
      () => {},
    );
  });
  const connecting = providers.initiator.connect(
    endpoint,
    { ...initiator.options(new Uint8Array(4)), timeoutMs: 1000 },
    initiator,
  );
  await clock.advance(2 * (options.latencyMs ?? 0));
  initiator.open(await connecting);
  return { clock, wire: providers.wire, providers, initiator, target, listener };
}

describe('time', () => {
  it('passes before a message arrives, and before its completion does', async () => {
    const { clock, initiator, target } = await connected({ latencyMs: 10, completionDelayMs: 5 });
    let completedAt: number | undefined;
    const start = clock.now();
    initiator.send(bytesOf('one')).then(
      () => {
        completedAt = clock.now() - start;
      },
      () => {},
    );
    await clock.advance(9);
    expect(target.received).toBe(0);
    await clock.advance(1);
    expect(target.received).toBe(1);
    await clock.advance(20);
    expect(completedAt).toBe(15);
  });

  it('runs out for a connection that is not answered', async () => {
    const clock = new VirtualClock();
    const { initiator, wire } = createMemoryProviders({ clock });
    wire.answersConnections = false;
    const peer = new RdmaPeer(initiator.memory);
    const connecting = initiator.connect(endpoint, { ...peer.options(new Uint8Array(0)), timeoutMs: 700 }, peer);
    const outcome = expect(connecting).rejects.toMatchObject({
      code: 'unreachable',
      message: 'cannot connect to 192.0.2.1:3260: timed out after 700 ms',
    });
    await clock.advance(699);
    expect(clock.pendingTimers).toBe(1);
    await clock.advance(1);
    await outcome;
  });
});

describe('the memory of a sender', () => {
  it('is read when the message arrives: who changes it before that is found out', async () => {
    const { clock, providers, initiator, target } = await connected({ latencyMs: 10 });
    const message = new Uint8Array(providers.initiator.memory.allocate(5));
    message.set(bytesOf('early'));
    initiator.queuePair.postSend(1, message);
    await clock.advance(5);
    message.set(bytesOf('later'));
    await clock.advance(5);
    expect(text((await target.next()).bytes)).toBe('later');
  });
});

describe('an interceptor', () => {
  it('sees what travels, and from whom', async () => {
    const { clock, wire, initiator, target } = await connected();
    const seen: [string, string][] = [];
    wire.intercept = (message, from) => {
      seen.push([message.type, from]);
      return undefined;
    };
    const memory = target.memoryFor(8);
    const { tag, address } = target.queuePair.advertise(memory, 'remote-read');
    const read = initiator.read(8, { tag, address: BigInt(address) });
    const sent = target.send(bytesOf('hello'));
    await clock.advance(0);
    await Promise.all([read, sent]);
    expect(seen).toEqual([
      ['read-request', 'initiator'],
      ['send', 'target'],
      ['read-response', 'target'],
    ]);
  });

  it('can lose a message, of which the sender learns nothing', async () => {
    const { clock, wire, initiator, target } = await connected();
    wire.intercept = () => [];
    const lost = initiator.send(bytesOf('lost'));
    await clock.advance(0);
    expect((await lost).status).toBe('success');
    expect(target.received).toBe(0);
  });

  it('can replace a message, or have it come twice', async () => {
    const { clock, wire, initiator, target } = await connected();
    wire.intercept = (message) => [{ message }, { message: { type: 'send', bytes: bytesOf('other') } }];
    initiator.send(bytesOf('one')).catch(() => {});
    await clock.advance(0);
    expect([text((await target.next()).bytes), text((await target.next()).bytes)]).toEqual(['one', 'other']);
  });

  it('can hold a message up, and with it all that follow', async () => {
    const { clock, wire, initiator, target } = await connected({ latencyMs: 1 });
    let delayMs = 50;
    wire.intercept = (message: RdmaMessage) => [{ message, delayMs }];
    initiator.send(bytesOf('one')).catch(() => {});
    delayMs = 0;
    initiator.send(bytesOf('two')).catch(() => {});
    await clock.advance(50);
    expect(target.received).toBe(0);
    await clock.advance(1);
    expect([text((await target.next()).bytes), text((await target.next()).bytes)]).toEqual(['one', 'two']);
  });
});

describe('an injected message', () => {
  it('arrives like one of the peer', async () => {
    const { clock, wire, initiator, target } = await connected();
    wire.inject({ type: 'send', bytes: bytesOf('false') }, 'initiator');
    await clock.advance(0);
    expect(text((await initiator.next()).bytes)).toBe('false');
    expect(target.received).toBe(0);
  });

  it('that writes out of bounds touches nothing and ends the connection', async () => {
    const { clock, wire, initiator, target } = await connected();
    const memory = initiator.memoryFor(64);
    const { tag, address } = initiator.queuePair.advertise(memory.subarray(16, 32), 'remote-write');
    wire.inject({ type: 'write', bytes: bytesOf('0123456789'), to: { tag, address: BigInt(address) + 7n } }, 'initiator');
    await clock.advance(0);
    expect(await initiator.whenClosed).toMatchObject({
      code: 'protocol-error',
      message: expect.stringMatching(/10 bytes beyond the bounds/),
    });
    expect(await target.whenClosed).toMatchObject({
      code: 'connection-lost',
      message: expect.stringMatching(/the peer ended the connection/),
    });
    expect(memory).toEqual(new Uint8Array(64));
  });
});

describe('a wire that is cut', () => {
  it('ends every connection at both ends, with the error that it is cut with', async () => {
    const { clock, wire, initiator, target } = await connected({ latencyMs: 10 });
    expect(wire.connectionCount).toBe(1);
    const error = new Error('pulled out');
    const sent = initiator.send(bytesOf('too late'));
    await clock.advance(5);
    wire.cut(error);
    await clock.advance(20);
    expect(await Promise.all([initiator.whenClosed, target.whenClosed])).toEqual([error, error]);
    expect((await sent).status).toBe('flushed');
    expect(target.received).toBe(0);
    expect([wire.connectionCount, clock.pendingTimers]).toEqual([0, 0]);
  });
});

describe('memory', () => {
  it('belongs to the provider that allocated it, until it is freed', () => {
    const { initiator, target } = createMemoryProviders();
    const arena = initiator.memory.allocate(4096);
    expect([initiator.memory.owns(arena), target.memory.owns(arena), initiator.memory.owns(new ArrayBuffer(8))]).toEqual([
      true,
      false,
      false,
    ]);
    expect(() => target.memory.free(arena)).toThrow(/not allocated here/);
    initiator.memory.free(arena);
    expect(initiator.memory.owns(arena)).toBe(false);
  });
});
