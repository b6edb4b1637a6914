/** Peers that say nothing: each is given up after a time of the provider's own, so these tests run side by side. */

import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { encodeMpa, Opcode, REQUEST_KEY } from '../support/iwarp-codec.ts';
import { IwarpFixture, queuePairOptions, RecordedEvents, RequestQueue } from '../support/iwarp-fixture.ts';
import { IwarpPeer } from '../support/iwarp-peer.ts';

const PATIENCE_MS = 8000;

describe.concurrent('a peer that falls silent', { timeout: 12_000 }, () => {
  it.each([0, 1, 20, 27])('after %d bytes of its request is hung up on, and others are not kept waiting', async (length) => {
    await using requests = await RequestQueue.listen();
    await using peer = await IwarpPeer.connect(requests.endpoint);
    peer.sendBytes(encodeMpa({ key: REQUEST_KEY, privateData: new Uint8Array(8) }).subarray(0, length));
    await using other = await IwarpPeer.connect(requests.endpoint);
    other.sendRequest();
    (await requests.next()).reject();
    expect(await other.receiveMpa()).toMatchObject({ reject: true });
    await peer.ended(PATIENCE_MS);
    expect(requests.length).toBe(0);
  });

  it('instead of saying that it is ready, in peer-to-peer mode, is given up', async () => {
    await using requests = await RequestQueue.listen();
    await using peer = await IwarpPeer.connect(requests.endpoint);
    peer.sendRequest({ depths: { peerToPeer: true, writeRtr: true } });
    const accepting = (await requests.next()).accept(queuePairOptions(), new RecordedEvents());
    await expect(accepting).rejects.toMatchObject({
      code: 'connection-lost',
      message: expect.stringContaining('did not send its ready-to-receive message'),
    });
    await peer.ended();
  });

  it('as an initiator is written to after a while, though it should speak first', async () => {
    await using fixture = await IwarpFixture.open({ role: 'responder' });
    fixture.queuePair.postSend(100, fixture.memory.run(4));
    expect(await fixture.peer.receiveMessage()).toMatchObject({ opcode: Opcode.send, msn: 1 });
  });

  it('after an orderly end is not waited for', async () => {
    await using fixture = await IwarpFixture.open({ role: 'initiator' });
    fixture.queuePair.close('orderly');
    expect(await fixture.peer.ended()).toBe('fin');
    expect(await fixture.events.ended()).toBeUndefined();
  });

  it('in the middle of a message does not keep an orderly end from coming', async () => {
    await using fixture = await IwarpFixture.open({ role: 'initiator' });
    fixture.peer.send(new Uint8Array(8), { last: false });
    fixture.queuePair.close('orderly');
    expect(await fixture.events.ended()).toBeUndefined();
  });

  it('does not get to hear a Terminate for longer than a while', async () => {
    await using fixture = await IwarpFixture.open({ role: 'initiator' });
    fixture.peer.write(1, 0n, new Uint8Array(4));
    expect(await fixture.events.ended()).toMatchObject({ code: 'protocol-error' });
    expect(await fixture.peer.verdict()).toMatchObject({ terminate: 'DDP/1/0', ending: 'fin' });
    // It has not ended its half; the provider's socket is gone all the same, so that what it sends is answered by a reset.
    for (let attempt = 0; attempt < 400 && !fixture.peer.isBroken; attempt++) {
      fixture.peer.sendBytes(new Uint8Array(1));
      await delay(10);
    }
    expect(fixture.peer.isBroken).toBe(true);
  });

  it('and takes nothing, while there is something to send, is given up at an orderly end', async () => {
    await using fixture = await IwarpFixture.open({ role: 'initiator' });
    fixture.peer.pause();
    const run = fixture.memory.run(1024 * 1024);
    for (let id = 100; id < 132; id++) fixture.queuePair.postWrite(id, run, { tag: 1, address: 0n });
    fixture.queuePair.close('orderly');
    const ended = await fixture.events.ended(PATIENCE_MS);
    expect(ended).toMatchObject({
      code: 'connection-lost',
      message: expect.stringContaining('did not take what was left to send'),
    });
    expect(fixture.events.completions).toHaveLength(4 + 32);
  });
});
