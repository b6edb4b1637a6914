/** How connections come about, and how they do not. */

import { expect, it } from 'vitest';
import { IserfsError } from '../../src/errors.ts';
import { formatPortal } from '../../src/iser/iscsi/name.ts';
import type { ConnectionRequest } from '../../src/iser/rdma/provider.ts';
import type { RdmaEnd } from '../support/rdma-end.ts';
import type { RdmaContractPart } from './rdma-provider.ts';

const bytes = (text: string) => new TextEncoder().encode(text);

export const connectingContract: RdmaContractPart = (current, traits) => {
  it('says at both ends who is connected to whom', async () => {
    const { initiator, target } = await current().pair();
    expect(initiator.queuePair.remoteAddress).toBe(target.queuePair.localAddress);
    expect(target.queuePair.remoteAddress).toBe(initiator.queuePair.localAddress);
    expect(initiator.queuePair.localAddress).toMatch(/:\d+$/);
  });

  it('says which device it runs on and how memory is protected', async () => {
    const { initiator, target } = await current().pair();
    for (const { queuePair } of [initiator, target]) {
      expect(queuePair.device).not.toBe('');
      expect(queuePair.fabric).not.toBe('');
      expect(['tag', 'window', 'region']).toContain(queuePair.protection);
    }
    expect(target.queuePair.crc).toBe(initiator.queuePair.crc);
  });

  it('carries private data in both directions', async () => {
    const fixture = current();
    const target = fixture.newTarget();
    let asked: Uint8Array | undefined;
    const { endpoint } = await fixture.listen((request) => {
      asked = request.privateData;
      void fixture.accept(request, target, { privateData: bytes('pong') });
    });
    const initiator = await fixture.connect(endpoint, fixture.newInitiator(), { privateData: bytes('ping') });
    expect(asked?.slice(0, 4)).toEqual(bytes('ping'));
    expect(initiator.queuePair.privateData.slice(0, 4)).toEqual(bytes('pong'));
    // Some fabrics pad it, with zeros.
    expect(initiator.queuePair.privateData.slice(4).every((byte) => byte === 0)).toBe(true);
  });

  it('says what there is to say for where the peer cannot revoke, where it cannot', async () => {
    const fixture = current();
    const target = fixture.newTarget();
    const data = (name: string) => ({ privateData: bytes(name), privateDataWithoutInvalidation: bytes(`no ${name}`) });
    let asked: Uint8Array | undefined;
    let accepted: Promise<unknown> | undefined;
    const { endpoint } = await fixture.listen((request) => {
      asked = request.privateData;
      accepted = fixture.accept(request, target, data('pong'));
    });
    const initiator = await fixture.connect(endpoint, fixture.newInitiator(), data('ping'));
    await accepted;
    const begins = (data: Uint8Array | undefined, text: string) => expect(data?.slice(0, text.length)).toEqual(bytes(text));
    begins(asked, initiator.queuePair.canPeerInvalidate ? 'ping' : 'no ping');
    begins(initiator.queuePair.privateData, target.queuePair.canPeerInvalidate ? 'pong' : 'no pong');
    // Tags of connections and windows of queue pairs can be revoked on all fabrics.
    if (initiator.queuePair.protection !== 'region') expect(initiator.queuePair.canPeerInvalidate).toBe(true);
  });

  it('names the address of who wants to connect', async () => {
    const fixture = current();
    const target = fixture.newTarget();
    let from: string | undefined;
    const { endpoint } = await fixture.listen((request) => {
      from = request.remoteAddress;
      void fixture.accept(request, target);
    });
    const initiator = await fixture.connect(endpoint, fixture.newInitiator());
    expect(from).toBe(initiator.queuePair.localAddress);
  });

  it.runIf(traits.keepsToReadDepths)('agrees on no more reads at a time than either end wants', async () => {
    const { initiator, target } = await current().pair({ initiator: { ird: 3, ord: 5 }, target: { ird: 4, ord: 7 } });
    expect(initiator.queuePair.ord).toBeLessThanOrEqual(4);
    expect(initiator.queuePair.ord).toBeGreaterThan(0);
    expect(target.queuePair.ord).toBeLessThanOrEqual(3);
    expect(target.queuePair.ord).toBeGreaterThan(0);
  });

  it('rejects with unreachable where nobody listens', async () => {
    const fixture = current();
    const listener = await fixture.listen(() => {});
    await listener.close();
    const error = await failureOf(fixture.connect(listener.endpoint, fixture.newInitiator()));
    expect(error.code).toBe('unreachable');
    expect(error.message).toContain(`cannot connect to ${formatPortal(listener.endpoint)}: `);
  });

  it('rejects with unreachable where the listener does not want it', async () => {
    const fixture = current();
    const { endpoint } = await fixture.listen((request) => request.reject());
    expect((await failureOf(fixture.connect(endpoint, fixture.newInitiator()))).code).toBe('unreachable');
  });

  it('rejects with unreachable where the answer does not come in time', async () => {
    const fixture = current();
    const requests: ConnectionRequest[] = [];
    const { endpoint } = await fixture.listen((request) => requests.push(request));
    const error = await failureOf(fixture.connect(endpoint, fixture.newInitiator(), { timeoutMs: 150 }));
    expect(error.code).toBe('unreachable');
    expect(error.message).toContain('timed out');
  });

  it('rejects with aborted where the signal was aborted before', async () => {
    const fixture = current();
    const { endpoint } = await fixture.listen((request) => request.reject());
    const error = await failureOf(fixture.connect(endpoint, fixture.newInitiator(), { signal: AbortSignal.abort() }));
    expect(error.code).toBe('aborted');
  });

  it('rejects with aborted when the signal is aborted while the listener makes up its mind', async () => {
    const fixture = current();
    const controller = new AbortController();
    const { endpoint } = await fixture.listen(() => controller.abort());
    const error = await failureOf(fixture.connect(endpoint, fixture.newInitiator(), { signal: controller.signal }));
    expect(error.code).toBe('aborted');
  });

  it('frees the posted receives of a connection that does not come about', async () => {
    const fixture = current();
    const end = fixture.newInitiator();
    const receives = end.receives(4, 4096);
    const { endpoint } = await fixture.listen((request) => request.reject());
    await failureOf(fixture.connect(endpoint, end, { receives }));
    const target = fixture.newTarget();
    let accepted: Promise<unknown> | undefined;
    const second = await fixture.listen((request) => {
      accepted = fixture.accept(request, target);
    });
    await fixture.connect(second.endpoint, end, { receives });
    await accepted;
    const sent = target.postSend(target.arena.take(100, 7));
    expect((await target.completion(sent)).status).toBe('success');
    await end.until(() => end.completions.length > 0, 'the message');
    expect(end.completions).toHaveLength(1);
  });

  it('calls no events of an accepted connection that does not come about', async () => {
    const fixture = current();
    let seen: ((request: ConnectionRequest) => void) | undefined;
    const asked = new Promise<ConnectionRequest>((resolve) => {
      seen = resolve;
    });
    const { endpoint } = await fixture.listen((request) => seen?.(request));
    const refused = failureOf(fixture.connect(endpoint, fixture.newInitiator(), { timeoutMs: 150 }));
    const request = await asked;
    await refused;
    const late = fixture.newTarget();
    const accepted = await fixture.accept(request, late, { receives: late.receives(2, 4096) }).catch(() => undefined);
    // Where the end of the other side was on its way still, there is a connection, which ends.
    if (accepted === undefined) {
      expect(late.completions).toEqual([]);
      expect(late.isClosed).toBe(false);
    } else {
      await late.closed();
      expect(late.statuses()).toEqual(['flushed', 'flushed']);
    }
  });

  it('takes one answer to a request', async () => {
    const fixture = current();
    const target = fixture.newTarget();
    const spare = fixture.newTarget();
    let second: Promise<unknown> | undefined;
    const { endpoint } = await fixture.listen((request) => {
      void fixture.accept(request, target);
      second = fixture.accept(request, spare).catch((error: unknown) => error);
    });
    const initiator = await fixture.connect(endpoint, fixture.newInitiator());
    expect(await second).toBeInstanceOf(Error);
    expect(initiator.isClosed).toBe(false);
  });

  it('picks a free port for each listener that asks for one', async () => {
    const one = await current().listen(() => {});
    const other = await current().listen(() => {});
    expect(one.endpoint.port).toBeGreaterThan(0);
    expect(other.endpoint.port).not.toBe(one.endpoint.port);
  });

  it('rejects with bad-configuration where the port is taken', async () => {
    const { endpoint } = await current().listen(() => {});
    const error = await failureOf(current().listen(() => {}, endpoint));
    expect(error.code).toBe('bad-configuration');
    expect(error.message).toContain(`cannot listen on ${formatPortal(endpoint)}: `);
  });

  it('lets connections go on when their listener is closed', async () => {
    // `pair` has closed it.
    const { initiator, target } = await current().pair();
    const sent = initiator.postSend(initiator.arena.take(10, 1));
    expect((await initiator.completion(sent)).status).toBe('success');
    await target.until(() => target.completions.length > 0, 'the message');
    expect(target.completions[0]).toMatchObject({ opcode: 'receive', status: 'success', length: 10 });
  });

  it('keeps many connections apart', async () => {
    const fixture = current();
    const targets: RdmaEnd[] = [];
    const accepted: Promise<unknown>[] = [];
    const { endpoint } = await fixture.listen((request) => {
      const target = fixture.newTarget();
      targets.push(target);
      accepted.push(fixture.accept(request, target, { receives: target.receives(1, 64) }));
    });
    const initiators = await Promise.all(
      Array.from({ length: traits.connections }, (_, index) => {
        const end = fixture.newInitiator();
        return fixture.connect(endpoint, end, { receives: end.receives(1, 64), privateData: Uint8Array.of(index) });
      }),
    );
    await Promise.all(accepted);
    for (const [index, end] of initiators.entries()) end.postSend(end.arena.take(index + 1, index + 1));
    for (const target of targets) {
      await target.until(() => target.completions.length > 0, 'the message');
      target.postSend(target.arena.take(target.completions[0]?.length ?? 0, 1));
    }
    for (const [index, end] of initiators.entries()) {
      await end.until(() => end.completions.some(({ opcode }) => opcode === 'receive'), 'the answer');
      expect(end.completions.find(({ opcode }) => opcode === 'receive')?.length).toBe(index + 1);
    }
  });

  it('refuses receives that are not in memory of its own', async () => {
    const fixture = current();
    const { endpoint } = await fixture.listen((request) => request.reject());
    const receives = [{ id: 1, bytes: new Uint8Array(64) }];
    await expect(fixture.connect(endpoint, fixture.newInitiator(), { receives })).rejects.toThrow(TypeError);
  });
};

async function failureOf(promise: Promise<unknown>): Promise<IserfsError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof IserfsError) return error;
    throw new Error('it failed in another way', { cause: error });
  }
  throw new Error('it did not fail');
}
