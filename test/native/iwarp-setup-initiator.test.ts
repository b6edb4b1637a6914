import { describe, expect, it, test } from 'vitest';
import { iwarpProvider } from '../../src/iser/rdma/native-provider.ts';
import type { QueuePairOptions } from '../../src/iser/rdma/provider.ts';
import { hexVectors } from '../support/hex-vectors.ts';
import { encodeMpa, encodeSegment, Opcode, REPLY_KEY, REQUEST_KEY, splitEnhanced } from '../support/iwarp-codec.ts';
import { IwarpFixture, queuePairOptions, RecordedEvents } from '../support/iwarp-fixture.ts';
import { IwarpPeer, type IwarpPeerListener, type MpaOptions } from '../support/iwarp-peer.ts';

const siw = hexVectors('iwarp-siw.hex');
const _none = new Uint8Array(0);
const iser = Uint8Array.of(0x80, 0, 0, 0);

describe('as the initiator, iwarp', () => {
  it('asks in one frame of revision 2, with read depths, not peer-to-peer, and without markers', async () => {
    await using listener = await IwarpPeer.listen();
    const { peer, connecting } = await begin(listener, { ird: 16, ord: 3, privateData: iser });
    await using ready = peer;
    const request = await ready.receiveMpa();
    expect(request).toMatchObject({
      key: REQUEST_KEY,
      revision: 2,
      enhanced: true,
      crc: true,
      markers: false,
      reject: false,
      reserved: 0,
    });
    const { depths, privateData } = splitEnhanced(request.privateData);
    expect(depths).toEqual({ ird: 16, ord: 3, peerToPeer: false, sendRtr: false, writeRtr: false, readRtr: false });
    expect(privateData).toEqual(iser);
    expect(ready.unread).toHaveLength(0);
    ready.sendReply({ depths: { ird: 2, ord: 16 }, privateData: Uint8Array.of(7) });
    const queuePair = await connecting;
    expect(queuePair).toMatchObject({
      ird: 16,
      ord: 2,
      crc: true,
      privateData: Uint8Array.of(7),
      device: 'software',
      fabric: 'iWARP',
    });
    queuePair.close('abrupt');
  });

  test.each<{ name: string; asked: boolean; replied: boolean; agreed: boolean }>([
    { name: 'nobody does', asked: false, replied: false, agreed: false },
    { name: 'it does', asked: true, replied: false, agreed: true },
    { name: 'the responder does', asked: false, replied: true, agreed: true },
    { name: 'both do', asked: true, replied: true, agreed: true },
  ])('uses CRCs where one end asks for them: $name', async ({ asked, replied, agreed }) => {
    await using fixture = await IwarpFixture.open({ role: 'initiator', queuePair: { crc: asked }, mpa: { crc: replied } });
    expect(fixture.queuePair.crc).toBe(agreed);
    fixture.peer.crc = agreed;
    await expectExchange(fixture);
  });

  test.each<{ name: string; mpa: MpaOptions; ord: number }>([
    { name: 'revision 1', mpa: { revision: 1 }, ord: 1 },
    { name: 'revision 2 without read depths', mpa: { enhanced: false }, ord: 1 },
    { name: 'reserved flags', mpa: { reserved: 0x0f }, ord: 4 },
    {
      name: 'peer-to-peer bits that it did not ask for',
      mpa: { depths: { ird: 4, ord: 4, peerToPeer: true, writeRtr: true } },
      ord: 4,
    },
    { name: 'depths that are not negotiated', mpa: { depths: { ird: 0x3fff, ord: 0x3fff } }, ord: 4 },
    { name: 'more Reads than it wanted', mpa: { depths: { ird: 128, ord: 1 } }, ord: 4 },
  ])('works with a reply of $name', async ({ mpa, ord }) => {
    await using fixture = await IwarpFixture.open({ role: 'initiator', mpa });
    expect(fixture.queuePair.ord).toBe(ord);
    await expectExchange(fixture);
  });

  it('takes a reply that comes byte by byte, and a message right behind a reply', async () => {
    await using listener = await IwarpPeer.listen();
    for (const delivery of ['bytes', 'held'] as const) {
      const events = new RecordedEvents();
      const receive = iwarpProvider().memory.allocate(64);
      const { peer, connecting } = await begin(listener, { receives: [{ id: 0, bytes: new Uint8Array(receive) }] }, 5000, events);
      await using ready = peer;
      await ready.receiveMpa();
      ready.delivery = delivery;
      ready.sendReply({ depths: { ird: 4, ord: 4 } });
      ready.send(Uint8Array.of(5, 6));
      if (delivery === 'held') ready.release();
      const queuePair = await connecting;
      expect(await events.completion(0)).toMatchObject({ status: 'success', length: 2 });
      queuePair.close('abrupt');
      await events.ended();
      iwarpProvider().memory.free(receive);
    }
  });

  test.each<{ name: string; reply: Uint8Array; error: RegExp }>([
    {
      name: 'a rejection',
      reply: encodeMpa({ key: REPLY_KEY, reject: true, privateData: new Uint8Array(4) }),
      error: /rejected the connection/,
    },
    { name: 'a rejection of revision 1', reply: siw('reply-tgtd-rev1-mc'), error: /rejected the connection/ },
    {
      name: 'markers',
      reply: encodeMpa({ key: REPLY_KEY, markers: true, privateData: new Uint8Array(4) }),
      error: /wants MPA markers/,
    },
    { name: 'an unknown revision', reply: encodeMpa({ key: REPLY_KEY, revision: 3 }), error: /MPA revision 3/ },
    {
      name: 'too much private data',
      reply: encodeMpa({ key: REPLY_KEY, privateData: new Uint8Array(513) }),
      error: /513 bytes of private data/,
    },
    { name: 'an enhanced reply without read depths', reply: encodeMpa({ key: REPLY_KEY, revision: 2 }), error: /no IRD and ORD/ },
    { name: 'a request', reply: encodeMpa({ key: REQUEST_KEY }), error: /does not speak iWARP/ },
    {
      name: 'an answer of iSCSI over TCP',
      reply: Uint8Array.of(0x23, 0x87, ...new Array<number>(46).fill(0)),
      error: /does not speak iWARP/,
    },
    {
      name: 'frames without a reply',
      reply: encodeSegment({ tagged: false, opcode: Opcode.send, payload: new Uint8Array(64) }),
      error: /does not speak iWARP/,
    },
  ])('gives up at $name', async ({ reply, error }) => {
    await using listener = await IwarpPeer.listen();
    const { peer, connecting } = await begin(listener);
    await using ready = peer;
    await ready.receiveMpa();
    ready.sendBytes(reply);
    await expect(connecting).rejects.toMatchObject({ code: 'unreachable', message: expect.stringMatching(error) });
    await ready.ended();
  });

  it('gives up, with the Terminate of RFC 6581, where the peer wants more Reads than it grants', async () => {
    await using listener = await IwarpPeer.listen();
    const { peer, connecting } = await begin(listener, { ird: 4 });
    await using ready = peer;
    await ready.receiveMpa();
    ready.sendReply({ depths: { ird: 4, ord: 5 } });
    await expect(connecting).rejects.toMatchObject({
      code: 'unreachable',
      message: expect.stringContaining('the peer wants 5 RDMA Reads at a time where 4 were granted'),
    });
    expect(await ready.verdict()).toMatchObject({ terminate: 'LLP/0/6', ending: 'fin' });
  });

  test.each([0, 19, 20, 27])('gives up when the peer ends the connection after %d bytes of its reply', async (length) => {
    await using listener = await IwarpPeer.listen();
    for (const end of ['finish', 'reset'] as const) {
      const { peer, connecting } = await begin(listener);
      await using ready = peer;
      await ready.receiveMpa();
      ready.sendBytes(encodeMpa({ key: REPLY_KEY, privateData: new Uint8Array(8) }).subarray(0, length));
      const failing = expect(connecting).rejects.toMatchObject({ code: 'unreachable' });
      await ready[end]();
      await failing;
    }
  });

  test.each([0, 19])('gives up in time when the peer falls silent after %d bytes of its reply', async (length) => {
    await using listener = await IwarpPeer.listen();
    const { peer, connecting } = await begin(listener, {}, 150);
    await using ready = peer;
    await ready.receiveMpa();
    ready.sendBytes(encodeMpa({ key: REPLY_KEY, privateData: new Uint8Array(8) }).subarray(0, length));
    await expect(connecting).rejects.toMatchObject({
      code: 'unreachable',
      message: expect.stringMatching(/timed out after 150 ms/),
    });
    await ready.ended();
  });
});

/** The provider connects; the peer has TCP's connection and nothing more. */
async function begin(
  listener: IwarpPeerListener,
  terms: Partial<QueuePairOptions> = {},
  timeoutMs = 5000,
  events = new RecordedEvents(),
) {
  const connecting = iwarpProvider().connect(listener.endpoint, { ...queuePairOptions(terms), timeoutMs }, events);
  connecting.catch(() => {});
  return { peer: await listener.accept(), connecting };
}

/** A message each way, and a Read. */
async function expectExchange(fixture: IwarpFixture): Promise<void> {
  const { peer, queuePair, memory, events } = fixture;
  queuePair.postSend(100, memory.run(8, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)));
  expect((await peer.receiveMessage()).payload).toEqual(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  await fixture.settle(0);
  const sink = memory.run(4);
  queuePair.postRead(101, sink, { tag: 9, address: 0n });
  peer.readResponse(await peer.receiveReadRequest(), Uint8Array.of(4, 3, 2, 1));
  expect(await events.completion(101)).toMatchObject({ status: 'success' });
  expect(sink).toEqual(Uint8Array.of(4, 3, 2, 1));
  memory.accept(sink);
  expect(memory.changes()).toEqual([]);
}
