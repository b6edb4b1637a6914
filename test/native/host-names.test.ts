/** Providers take numbers; users write names, of which some have several addresses. */

import { lookup } from 'node:dns/promises';
import { afterEach, expect, it } from 'vitest';
import { errorCode } from '../../src/errors.ts';
import { iwarpProvider } from '../../src/iser/rdma/native-provider.ts';
import { RdmaFixture } from '../support/rdma-fixture.ts';

const fixture = () => new RdmaFixture(iwarpProvider(), iwarpProvider(), { host: '127.0.0.1', port: 0 });
let current = fixture();

afterEach(async () => {
  expect(await current.end()).toEqual([]);
  current = fixture();
});

it('connects to a name', async () => {
  const target = current.newTarget();
  const { endpoint } = await current.listen((request) => void current.accept(request, target));
  const initiator = await current.connect({ host: 'localhost', port: endpoint.port }, current.newInitiator());
  expect(initiator.queuePair.remoteAddress).toBe(`127.0.0.1:${endpoint.port}`);
});

it('listens at a name, and says the name', async () => {
  const { endpoint } = await current.listen(() => {}, { host: 'localhost', port: 0 });
  expect(endpoint.host).toBe('localhost');
  expect(endpoint.port).toBeGreaterThan(0);
});

it('says why once where no address of a name takes the connection', async () => {
  const listener = await current.listen(() => {});
  await listener.close();
  const { port } = listener.endpoint;
  expect((await lookup('localhost', { all: true })).length).toBeGreaterThan(0);
  await expect(current.connect({ host: 'localhost', port }, current.newInitiator())).rejects.toMatchObject({
    code: 'unreachable',
    message: `cannot connect to localhost:${port}: connection refused`,
    hint: 'Is the target running and the port right?',
  });
});

it('rejects with unreachable where the name is not known', async () => {
  const connecting = current.connect({ host: 'no-such-host.invalid', port: 3260 }, current.newInitiator());
  await expect(connecting).rejects.toMatchObject({ code: 'unreachable' });
  await expect(connecting).rejects.toThrow('cannot connect to no-such-host.invalid:3260: the name');
});

it('rejects with bad-configuration where it is to listen at a name that is not known', async () => {
  const error = await current.listen(() => {}, { host: 'no-such-host.invalid', port: 0 }).catch((reason: unknown) => reason);
  expect(errorCode(error)).toBe('bad-configuration');
});

it('rejects with aborted when the signal is aborted during the look-up', async () => {
  const controller = new AbortController();
  const { signal } = controller;
  const connecting = current.connect({ host: 'no-such-host.invalid', port: 3260 }, current.newInitiator(), { signal });
  controller.abort();
  await expect(connecting).rejects.toMatchObject({ code: 'aborted' });
});
