import { describe, expect, it, test } from 'vitest';
import { iwarpProvider, rdmaMemory } from '../../../../src/iser/rdma/native-provider.ts';
import type { QueuePair, QueuePairOptions } from '../../../../src/iser/rdma/provider.ts';
import { GuardedMemory } from '../../../support/guarded-memory.ts';
import { hexVectors } from '../../../support/hex-vectors.ts';
import { IwarpBench, queuePairOptions, RecordedEvents, RequestQueue } from '../../../support/iwarp-bench.ts';
import {
  decodeMpa,
  encodeMpa,
  encodeSegment,
  Opcode,
  REPLY_KEY,
  REQUEST_KEY,
  splitEnhanced,
} from '../../../support/iwarp-codec.ts';
import { IwarpPeer, type IwarpPeerListener, type MpaOptions } from '../../../support/iwarp-peer.ts';

const siw = hexVectors('iwarp-siw.hex');
const none = new Uint8Array(0);
const iser = Uint8Array.of(0x80, 0, 0, 0);
/** What tgtd and LIO grant behind siw; LIO says something itself. */
const likeSiw = { ird: 16, ord: 16, privateData: none } satisfies Partial<QueuePairOptions>;

describe('as the responder, iwarp answers like siw', () => {
  const plain = { privateData: none } satisfies MpaOptions;
  test.each<{ name: string; request: MpaOptions; reply: string; terms?: Partial<QueuePairOptions> }>([
    { name: 'revision 0', request: { ...plain, revision: 0, crc: false }, reply: 'reply-tgtd-rev0' },
    { name: 'revision 1', request: { ...plain, revision: 1, crc: false }, reply: 'reply-tgtd-rev1' },
    { name: 'revision 1 with CRC', request: { ...plain, revision: 1 }, reply: 'reply-tgtd-rev1-c' },
    { name: 'revision 2 without read depths', request: { ...plain, enhanced: false }, reply: 'reply-tgtd-rev2-c' },
    { name: 'revision 2', request: { depths: { ird: 16, ord: 16 } }, reply: 'reply-tgtd-rev2-cs-16-16' },
    {
      name: 'revision 2 with private data of both',
      request: { depths: { ird: 16, ord: 16 } },
      reply: 'reply-lio-rev2-cs-16-16-80',
      terms: { privateData: iser },
    },
    {
      name: 'no read depths at all',
      request: { depths: { ird: 0, ord: 0 } },
      reply: 'reply-lio-rev2-cs-0-0',
      terms: { privateData: iser },
    },
  ])('$name', async ({ request, reply, terms }) => {
    await using responder = await Responder.open({ ...likeSiw, ...terms });
    await using peer = await responder.connect();
    peer.sendRequest(request);
    await responder.accept();
    expect(await peer.receiveMpa()).toEqual(decodeMpa(siw(reply))?.frame);
    expect(peer.unread).toHaveLength(0);
    peer.crc = request.crc ?? true;
    await responder.expectToWork(peer);
  });

  test.each<{ name: string; request: MpaOptions; reply: string }>([
    { name: 'markers', request: { ...plain, revision: 1, crc: false, markers: true }, reply: 'reply-tgtd-rev1-m' },
    { name: 'markers and CRC', request: { ...plain, revision: 1, markers: true }, reply: 'reply-tgtd-rev1-mc' },
    { name: 'revision 2 whose read depths are missing', request: { ...plain, depths: null }, reply: 'reply-tgtd-rev2-cs-empty' },
  ])('$name: with a rejection, without asking anybody', async ({ request, reply }) => {
    await using responder = await Responder.open(likeSiw);
    await using peer = await responder.connect();
    peer.sendRequest(request);
    const frame = await peer.receiveMpa();
    const expected = decodeMpa(siw(reply))?.frame;
    expect(frame).toMatchObject({
      key: REPLY_KEY,
      reject: true,
      crc: expected?.crc,
      revision: expected?.revision,
      markers: false,
    });
    expect(await peer.ended()).toBe('fin');
    expect(responder.requests.length).toBe(0);
    await responder.expectToAcceptOthers();
  });

  test.each<{ name: string; bytes: Uint8Array }>([
    { name: 'an unknown revision', bytes: encodeMpa({ key: REQUEST_KEY, revision: 3 }) },
    { name: '600 bytes of private data', bytes: encodeMpa({ key: REQUEST_KEY, revision: 1, privateData: new Uint8Array(600) }) },
    { name: '65535 bytes of private data that never come', bytes: encodeMpa({ key: REQUEST_KEY, privateDataLength: 0xffff }) },
    { name: 'a reply instead of a request', bytes: encodeMpa({ key: REPLY_KEY }) },
    { name: 'another protocol', bytes: new TextEncoder().encode('GET / HTTP/1.1\r\nHost: example\r\n\r\n') },
    { name: 'a login by iSCSI over TCP', bytes: Uint8Array.of(0x43, 0x87, ...new Array<number>(46).fill(0)) },
  ])('$name: by hanging up', async ({ bytes }) => {
    await using responder = await Responder.open(likeSiw);
    await using peer = await responder.connect();
    peer.sendBytes(bytes);
    await peer.ended();
    expect(peer.unread).toHaveLength(0);
    expect(responder.requests.length).toBe(0);
    await responder.expectToAcceptOthers();
  });
});

describe('as the responder, iwarp', () => {
  it('grants no more Reads than both want', async () => {
    await using responder = await Responder.open({ ird: 3, ord: 5 });
    await using peer = await responder.connect();
    peer.sendRequest({ depths: { ird: 2, ord: 16 } });
    const { queuePair } = await responder.accept();
    expect(splitEnhanced((await peer.receiveMpa()).privateData).depths).toMatchObject({ ird: 3, ord: 2 });
    expect(queuePair).toMatchObject({ ird: 3, ord: 2 });
  });

  it('takes its own where the depths are not negotiated', async () => {
    await using responder = await Responder.open({ ird: 3, ord: 5 });
    await using peer = await responder.connect();
    peer.sendRequest({ depths: { ird: 0x3fff, ord: 0x3fff } });
    const { queuePair } = await responder.accept();
    expect(splitEnhanced((await peer.receiveMpa()).privateData).depths).toMatchObject({ ird: 3, ord: 5 });
    expect(queuePair).toMatchObject({ ird: 3, ord: 5 });
  });

  it('hands over the private data, without the read depths', async () => {
    await using responder = await Responder.open();
    await using peer = await responder.connect();
    const privateData = Uint8Array.from({ length: 508 }, (_, index) => index & 0xff);
    peer.sendRequest({ privateData });
    const request = await responder.requests.next();
    expect(request.privateData).toEqual(privateData);
    request.reject();
    expect(await peer.receiveMpa()).toMatchObject({ reject: true });
    expect(await peer.ended()).toBe('fin');
  });

  it('ignores flags that are reserved', async () => {
    await using responder = await Responder.open();
    await using peer = await responder.connect();
    peer.sendRequest({ reserved: 0x0f });
    await responder.accept();
    expect(await peer.receiveMpa()).toMatchObject({ reject: false, reserved: 0 });
    await responder.expectToWork(peer);
  });

  it('takes a request that comes byte by byte', async () => {
    await using responder = await Responder.open();
    await using peer = await responder.connect();
    peer.delivery = 'bytes';
    peer.sendRequest();
    await responder.accept();
    expect(await peer.receiveMpa()).toMatchObject({ reject: false });
    await responder.expectToWork(peer);
  });

  it('takes a message that comes right behind the request', async () => {
    await using responder = await Responder.open();
    await using peer = await responder.connect();
    peer.delivery = 'held';
    peer.sendRequest();
    peer.send(Uint8Array.of(1, 2, 3));
    peer.release();
    await responder.accept();
    await peer.receiveMpa();
    expect(await responder.received(0)).toEqual(Uint8Array.of(1, 2, 3));
  });

  test.each([0, 1, 19, 20, 27])('forgets a connection that ends after %d bytes of its request', async (length) => {
    await using responder = await Responder.open();
    for (const end of ['finish', 'reset'] as const) {
      await using peer = await responder.connect();
      peer.sendBytes(encodeMpa({ key: REQUEST_KEY, privateData: new Uint8Array(8) }).subarray(0, length));
      await peer[end]();
      await peer.ended();
    }
    expect(responder.requests.length).toBe(0);
    await responder.expectToAcceptOthers();
  });

  test.each(['finish', 'reset'] as const)('says so when the peer has gone (%s) before it is accepted', async (end) => {
    await using responder = await Responder.open();
    await using peer = await responder.connect();
    peer.sendRequest();
    const request = await responder.requests.next();
    await peer[end]();
    await peer.ended();
    const accepting = request.accept(queuePairOptions(), new RecordedEvents());
    await expect(accepting).rejects.toMatchObject({
      code: 'connection-lost',
      message: expect.stringContaining('did not come about'),
    });
    await responder.expectToAcceptOthers();
  });

  test.each<{ name: string; depths: MpaOptions['depths']; reply: object; send: (peer: IwarpPeer) => void; segments: number }>([
    {
      name: 'an RDMA Write',
      depths: { peerToPeer: true, writeRtr: true, readRtr: true, sendRtr: true },
      reply: { peerToPeer: true, writeRtr: true, readRtr: false, sendRtr: false },
      send: (peer) => peer.write(0, 0n, none),
      segments: 0,
    },
    {
      name: 'an RDMA Read',
      depths: { peerToPeer: true, readRtr: true, sendRtr: true },
      reply: { peerToPeer: true, writeRtr: false, readRtr: true, sendRtr: false },
      send: (peer) => peer.readRequest({ sinkTag: 0, sinkOffset: 0n, length: 0, sourceTag: 0, sourceOffset: 0n }),
      segments: 1,
    },
    {
      name: 'an empty Send',
      depths: { peerToPeer: true, sendRtr: true },
      reply: { peerToPeer: true, writeRtr: false, readRtr: false, sendRtr: true },
      send: (peer) => peer.send(none),
      segments: 0,
    },
  ])('waits in peer-to-peer mode until the initiator is ready, by $name', async ({ depths, reply, send, segments }) => {
    await using responder = await Responder.open();
    await using peer = await responder.connect();
    peer.sendRequest({ ...(depths === undefined ? {} : { depths }) });
    let isAccepted = false;
    const accepting = responder.accept().then((accepted) => {
      isAccepted = true;
      return accepted;
    });
    expect(splitEnhanced((await peer.receiveMpa()).privateData).depths).toMatchObject(reply);
    expect(isAccepted).toBe(false);
    send(peer);
    const { events } = await accepting;
    for (let index = 0; index < segments; index++)
      expect(await peer.receiveSegment()).toMatchObject({ opcode: Opcode.readResponse, last: true });
    expect(events.completions).toEqual([]);
    await responder.expectToWork(peer);
  });

  it('rejects peer-to-peer mode in which the initiator has no way to say that it is ready', async () => {
    await using responder = await Responder.open();
    await using peer = await responder.connect();
    peer.sendRequest({ depths: { peerToPeer: true } });
    expect(await peer.receiveMpa()).toMatchObject({ reject: true });
    expect(await peer.ended()).toBe('fin');
  });

  it('ends a connection in peer-to-peer mode that begins with a wrong frame', async () => {
    await using responder = await Responder.open();
    await using peer = await responder.connect();
    peer.sendRequest({ depths: { peerToPeer: true, writeRtr: true } });
    const accepting = expect(responder.accept()).rejects.toMatchObject({ code: 'connection-lost' });
    await peer.receiveMpa();
    peer.send(none, { msn: 9 });
    expect(await peer.verdict()).toMatchObject({ terminate: 'DDP/2/3' });
    await accepting;
  });
});

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
    await using bench = await IwarpBench.open({ role: 'initiator', queuePair: { crc: asked }, mpa: { crc: replied } });
    expect(bench.queuePair.crc).toBe(agreed);
    bench.peer.crc = agreed;
    await expectExchange(bench);
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
    await using bench = await IwarpBench.open({ role: 'initiator', mpa });
    expect(bench.queuePair.ord).toBe(ord);
    await expectExchange(bench);
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

/** A listener of the provider, and what it accepts on given terms. */
class Responder implements AsyncDisposable {
  readonly requests: RequestQueue;
  readonly #terms: Partial<QueuePairOptions>;
  readonly #memory = new GuardedMemory(rdmaMemory());
  readonly #accepted: { queuePair: QueuePair; events: RecordedEvents; receives: Uint8Array[] }[] = [];

  private constructor(requests: RequestQueue, terms: Partial<QueuePairOptions>) {
    this.requests = requests;
    this.#terms = terms;
  }

  static async open(terms: Partial<QueuePairOptions> = {}): Promise<Responder> {
    return new Responder(await RequestQueue.listen(), terms);
  }

  connect(): Promise<IwarpPeer> {
    return IwarpPeer.connect(this.requests.endpoint);
  }

  async accept() {
    const events = new RecordedEvents();
    const receives = [this.#memory.run(64)];
    const posted = receives.map((bytes, id) => ({ id, bytes }));
    const request = await this.requests.next();
    const queuePair = await request.accept(queuePairOptions({ receives: posted, ...this.#terms }), events);
    this.#accepted.push({ queuePair, events, receives });
    return { queuePair, events };
  }

  /** A message on the connection that was accepted last. */
  async received(id: number): Promise<Uint8Array> {
    const accepted = this.#accepted.at(-1);
    const completion = await accepted?.events.completion(id);
    return (accepted?.receives[id] ?? none).slice(0, completion?.length);
  }

  async expectToWork(peer: IwarpPeer): Promise<void> {
    peer.send(Uint8Array.of(1, 2, 3));
    expect(await this.received(0)).toEqual(Uint8Array.of(1, 2, 3));
  }

  async expectToAcceptOthers(): Promise<void> {
    await using peer = await this.connect();
    peer.sendRequest();
    await this.accept();
    expect(await peer.receiveMpa()).toMatchObject({ reject: false });
    await this.expectToWork(peer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { queuePair, events } of this.#accepted) {
      queuePair.close('abrupt');
      await events.ended();
    }
    await this.requests[Symbol.asyncDispose]();
    this.#memory.free();
  }
}

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
async function expectExchange(bench: IwarpBench): Promise<void> {
  const { peer, queuePair, memory, events } = bench;
  queuePair.postSend(100, memory.run(8, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)));
  expect((await peer.receiveMessage()).payload).toEqual(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  await bench.settle(0);
  const sink = memory.run(4);
  queuePair.postRead(101, sink, { tag: 9, address: 0n });
  peer.readResponse(await peer.receiveReadRequest(), Uint8Array.of(4, 3, 2, 1));
  expect(await events.completion(101)).toMatchObject({ status: 'success' });
  expect(sink).toEqual(Uint8Array.of(4, 3, 2, 1));
  memory.accept(sink);
  expect(memory.changes()).toEqual([]);
}
