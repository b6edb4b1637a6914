import { describe, expect, it, test } from 'vitest';
import type { QueuePairOptions } from '../../src/iser/rdma/provider.ts';
import { hexVectors } from '../support/hex-vectors.ts';
import { decodeMpa, encodeMpa, Opcode, REPLY_KEY, REQUEST_KEY, splitEnhanced } from '../support/iwarp-codec.ts';
import { queuePairOptions, RecordedEvents } from '../support/iwarp-fixture.ts';
import type { IwarpPeer, MpaOptions } from '../support/iwarp-peer.ts';
import { Responder } from '../support/iwarp-responder.ts';

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
