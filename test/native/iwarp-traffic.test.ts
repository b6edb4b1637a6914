import { describe, expect, it, test } from 'vitest';
import { Opcode, Queue, type ReadRequest } from '../support/iwarp-codec.ts';
import { IwarpFixture } from '../support/iwarp-fixture.ts';
import type { Delivery } from '../support/iwarp-peer.ts';
import { SeededRandom } from '../support/seeded-random.ts';

const random = new SeededRandom(11);
const none = new Uint8Array(0);
const message = random.bytes(1000);
const data = random.bytes(4096);

const roles = [
  { role: 'initiator', crc: true },
  { role: 'initiator', crc: false },
  { role: 'responder', crc: true },
  { role: 'responder', crc: false },
] as const;

describe.each(roles)('as the $role with CRC $crc, iwarp takes', ({ role, crc }) => {
  const open = async (options: { receives?: number; receiveLength?: number } = {}) => {
    const fixture = await IwarpFixture.open({ role, queuePair: { crc }, mpa: { crc }, ...options });
    expect(fixture.queuePair.crc).toBe(crc);
    return fixture;
  };

  test.each([1, 2, 3, 4, 5, 7, 333, 999, 1000])('a message in segments of %d bytes', async (segmentLength) => {
    await using fixture = await open();
    fixture.peer.send(message, { segmentLength });
    expect(await fixture.received(0)).toEqual(message);
    expect(fixture.memory.changes()).toEqual([]);
  });

  test.each([1, 3, 4, 1486, 4095])(
    'an RDMA Write in segments of %d bytes, in place before the message behind it',
    async (segmentLength) => {
      await using fixture = await open();
      const run = fixture.memory.run(data.length);
      const { tag, address } = fixture.queuePair.advertise(run, 'remote-write');
      fixture.peer.write(tag, BigInt(address), data, { segmentLength });
      await fixture.settle(0);
      expect(run).toEqual(data);
      fixture.memory.accept(run);
      expect(fixture.memory.changes()).toEqual([]);
    },
  );

  it('an RDMA Write of part of what is advertised, and no other byte', async () => {
    await using fixture = await open();
    const run = fixture.memory.run(4096);
    const { tag, address } = fixture.queuePair.advertise(run.subarray(100, 3000), 'remote-write');
    fixture.peer.write(tag, BigInt(address), Uint8Array.of(1));
    fixture.peer.write(tag, BigInt(address) + 2899n, Uint8Array.of(2));
    await fixture.settle(0);
    expect([run[100], run[2999]]).toEqual([1, 2]);
    fixture.memory.accept(run, 100, 101);
    fixture.memory.accept(run, 2999, 3000);
    expect(fixture.memory.changes()).toEqual([]);
  });

  it('RDMA Writes in any order, on top of each other', async () => {
    await using fixture = await open();
    const run = fixture.memory.run(64);
    const { tag, address } = fixture.queuePair.advertise(run, 'remote-write');
    const base = BigInt(address);
    fixture.peer.write(tag, base + 32n, data.subarray(32, 64));
    fixture.peer.write(tag, base, new Uint8Array(64));
    fixture.peer.write(tag, base + 16n, data.subarray(16, 64), { segmentLength: 5 });
    fixture.peer.write(tag, base, data.subarray(0, 16));
    await fixture.settle(0);
    expect(run).toEqual(data.subarray(0, 64));
  });

  test.each([
    { name: 'a Send with Invalidate', opcode: Opcode.sendInvalidate },
    { name: 'a Send with Solicited Event and Invalidate', opcode: Opcode.sendSolicitedInvalidate },
  ])('$name, and revokes that tag', async ({ opcode }) => {
    await using fixture = await open();
    const { tag } = fixture.queuePair.advertise(fixture.memory.run(64), 'remote-read');
    const other = fixture.queuePair.advertise(fixture.memory.run(64), 'remote-read');
    fixture.peer.send(message, { opcode, invalidate: tag, segmentLength: 600 });
    expect(await fixture.received(0)).toEqual(message);
    expect((await fixture.events.completion(0)).invalidated).toBe(tag);
    fixture.queuePair.revoke(tag);
    fixture.peer.readRequest({
      sinkTag: 1,
      sinkOffset: 0n,
      length: 4,
      sourceTag: other.tag,
      sourceOffset: BigInt(other.address),
    });
    expect(await fixture.peer.receiveTagged()).toMatchObject({ opcode: Opcode.readResponse, stag: 1 });
    fixture.peer.readRequest({ sinkTag: 1, sinkOffset: 0n, length: 4, sourceTag: tag, sourceOffset: 0n });
    expect(await fixture.peer.verdict()).toMatchObject({ terminate: 'RDMAP/1/0' });
  });

  it('a Send with Solicited Event as a Send', async () => {
    await using fixture = await open();
    fixture.peer.send(message, { opcode: Opcode.sendSolicited, segmentLength: 400 });
    expect(await fixture.received(0)).toEqual(message);
    expect((await fixture.events.completion(0)).invalidated).toBeUndefined();
  });

  it('bits that are reserved', async () => {
    await using fixture = await open();
    fixture.peer.send(message, { ddpReserved: 0x0f, rdmapReserved: 0x03, invalidate: 0x1234 });
    expect(await fixture.received(0)).toEqual(message);
    expect((await fixture.events.completion(0)).invalidated).toBeUndefined();
  });

  it('segments of RDMA Writes and of a Send in turn', async () => {
    await using fixture = await open();
    const run = fixture.memory.run(300);
    const { tag, address } = fixture.queuePair.advertise(run, 'remote-write');
    const msn = fixture.peer.takeMsn(Queue.send);
    for (let part = 0; part < 3; part++) {
      const last = part === 2;
      const bytes = data.subarray(part * 100, part * 100 + 100);
      fixture.peer.send(bytes, { msn, mo: part * 100, last });
      fixture.peer.write(tag, BigInt(address) + BigInt(part * 100), bytes, { last });
    }
    expect(await fixture.received(0)).toEqual(data.subarray(0, 300));
    await fixture.settle(1);
    expect(run).toEqual(data.subarray(0, 300));
  });

  it('nothing at all: messages, writes, reads, segments of length zero', async () => {
    await using fixture = await open({ receives: 6 });
    const { peer, queuePair, events } = fixture;
    peer.send(none);
    expect(await fixture.received(0)).toHaveLength(0);
    peer.write(0xdeadbeef, 2n ** 64n - 1n, none);
    peer.write(0, 0n, none, { last: false });
    peer.write(0, 0n, none);
    peer.readRequest({ sinkTag: 0xabcd, sinkOffset: 77n, length: 0, sourceTag: 0xdeadbeef, sourceOffset: 2n ** 64n - 1n });
    expect(await peer.receiveSegment()).toMatchObject({
      opcode: Opcode.readResponse,
      last: true,
      stag: 0xabcd,
      offset: 77n,
      payload: none,
    });
    const msn = peer.takeMsn(Queue.send);
    peer.send(none, { msn, last: false });
    peer.send(Uint8Array.of(1), { msn, last: false });
    peer.send(none, { msn, mo: 1, last: false });
    peer.send(none, { msn, mo: 1 });
    expect(await fixture.received(1)).toEqual(Uint8Array.of(1));
    queuePair.postSend(100, fixture.memory.run(0));
    expect((await peer.receiveMessage()).payload).toHaveLength(0);
    queuePair.postWrite(101, fixture.memory.run(0), { tag: 0xdeadbeef, address: 2n ** 64n - 1n });
    expect(await peer.receiveSegment()).toMatchObject({ opcode: Opcode.write, last: true, payload: none });
    queuePair.postRead(102, fixture.memory.run(0), { tag: 3, address: 0n });
    peer.readResponse(await peer.receiveReadRequest(), none);
    for (const id of [100, 101, 102]) expect(await events.completion(id)).toMatchObject({ status: 'success', length: 0 });
    expect(fixture.memory.changes()).toEqual([]);
  });

  test.each([1, 5, 1000, 4096])('Read Responses in segments of %d bytes, for several Reads, in order', async (segmentLength) => {
    await using fixture = await open();
    const { peer, queuePair, events, memory } = fixture;
    await fixture.settle(0);
    const sinks = [memory.run(4096), memory.run(1), memory.run(1000)];
    sinks.forEach((sink, index) => {
      queuePair.postRead(100 + index, sink, { tag: index, address: BigInt(index) });
    });
    const requests: ReadRequest[] = [];
    for (const sink of sinks) {
      const request = await peer.receiveReadRequest();
      expect(request.length).toBe(sink.length);
      requests.push(request);
    }
    expect(requests.map(({ sourceTag, sourceOffset }) => [sourceTag, sourceOffset])).toEqual([
      [0, 0n],
      [1, 1n],
      [2, 2n],
    ]);
    for (const request of requests) peer.readResponse(request, data.subarray(0, request.length), segmentLength);
    for (const [index, sink] of sinks.entries()) {
      expect(await events.completion(100 + index)).toMatchObject({ opcode: 'read', status: 'success', length: sink.length });
      expect(sink).toEqual(data.subarray(0, sink.length));
      memory.accept(sink);
    }
    expect(memory.changes()).toEqual([]);
  });

  it('as many Read Requests as agreed at a time, and answers in order', async () => {
    await using fixture = await open();
    const { peer, queuePair, memory } = fixture;
    const run = memory.run(data.length, data);
    const { tag, address } = queuePair.advertise(run, 'remote-read');
    peer.delivery = 'held';
    for (let index = 0; index < 4; index++) {
      const sourceOffset = BigInt(address + index * 1000);
      peer.readRequest({ sinkTag: index, sinkOffset: 2n ** 63n, length: 1000 - index, sourceTag: tag, sourceOffset });
    }
    peer.release();
    for (let index = 0; index < 4; index++) {
      const response = await peer.receiveTagged();
      expect(response).toMatchObject({ opcode: Opcode.readResponse, stag: index, offset: 2n ** 63n });
      expect(response.payload).toEqual(data.slice(index * 1000, index * 1000 + 1000 - index));
    }
    expect(memory.changes()).toEqual([]);
  });

  it('frames of the largest size', async () => {
    await using fixture = await open({ receiveLength: 65_517 });
    const large = random.bytes(65_521);
    const run = fixture.memory.run(large.length);
    const { tag, address } = fixture.queuePair.advertise(run, 'remote-write');
    fixture.peer.write(tag, BigInt(address), large, { segmentLength: large.length });
    fixture.peer.send(large.subarray(4), { segmentLength: large.length });
    expect(Buffer.compare(await fixture.received(0), large.subarray(4))).toBe(0);
    expect(Buffer.compare(run, large)).toBe(0);
    fixture.memory.accept(run);
    expect(fixture.memory.changes()).toEqual([]);
  });

  test.each<Delivery>(['bytes', 'held'])('a mixture of everything, delivered %s', async (delivery) => {
    await using fixture = await open({ receives: 8 });
    const { peer, queuePair, memory, events } = fixture;
    const run = memory.run(600);
    const readable = queuePair.advertise(memory.run(64, data.subarray(0, 64)), 'remote-read');
    const writable = queuePair.advertise(run, 'remote-write');
    const sink = memory.run(100);
    await fixture.settle(0);
    queuePair.postRead(100, sink, { tag: 5, address: 5n });
    const read = await peer.receiveReadRequest();

    peer.delivery = delivery;
    peer.send(message.subarray(0, 101), { segmentLength: 50 });
    peer.write(writable.tag, BigInt(writable.address), data.subarray(0, 600), { segmentLength: 199 });
    peer.readRequest({ sinkTag: 1, sinkOffset: 0n, length: 64, sourceTag: readable.tag, sourceOffset: BigInt(readable.address) });
    peer.readResponse(read, data.subarray(0, 100), 33);
    peer.write(0, 0n, none);
    peer.send(none);
    peer.send(Uint8Array.of(1), { opcode: Opcode.sendInvalidate, invalidate: writable.tag });
    if (delivery === 'held') peer.release();

    expect(await fixture.received(1)).toEqual(message.subarray(0, 101));
    expect(await fixture.received(2)).toHaveLength(0);
    expect(await fixture.received(3)).toEqual(Uint8Array.of(1));
    expect(events.completions.map(({ id }) => id)).toEqual([0, 1, 100, 2, 3]);
    expect(run).toEqual(data.subarray(0, 600));
    expect(sink).toEqual(data.subarray(0, 100));
    expect((await peer.receiveTagged()).payload).toEqual(data.slice(0, 64));
    memory.accept(run);
    memory.accept(sink);
    expect(memory.changes()).toEqual([]);
  });

  it('a megabyte that is written, and sends one', async () => {
    await using fixture = await open();
    const { peer, queuePair, memory, events } = fixture;
    const megabyte = random.bytes(1024 * 1024);
    const run = memory.run(megabyte.length);
    const { tag, address } = queuePair.advertise(run, 'remote-write');
    peer.write(tag, BigInt(address), megabyte, { segmentLength: 1436 });
    await fixture.settle(0);
    expect(Buffer.compare(run, megabyte)).toBe(0);
    queuePair.postWrite(100, run, { tag: 0x77, address: 2n ** 64n - BigInt(megabyte.length) });
    const written = await peer.receiveTagged();
    expect(written).toMatchObject({ opcode: Opcode.write, stag: 0x77, offset: 2n ** 64n - BigInt(megabyte.length) });
    expect(Buffer.compare(written.payload, megabyte)).toBe(0);
    expect(await events.completion(100)).toMatchObject({ status: 'success' });
  });
});

describe.each(roles)('as the $role with CRC $crc, iwarp sends', ({ role, crc }) => {
  const open = () => IwarpFixture.open({ role, queuePair: { crc }, mpa: { crc } });

  it('messages of one and two parts, numbered from 1, with and without an invalidation', async () => {
    await using fixture = await open();
    const { peer, queuePair, memory } = fixture;
    await fixture.settle(0);
    const first = memory.run(1000, message);
    const second = memory.run(7, data.subarray(0, 7));
    queuePair.postSend(100, first);
    queuePair.postSend(101, first, second);
    queuePair.postSend(102, second, first.subarray(0, 0), 0xcafe0001);
    const plain = { opcode: Opcode.send, invalidate: 0 };
    expect(await peer.receiveMessage()).toEqual({ ...plain, msn: 1, payload: message });
    const both = Uint8Array.of(...message, ...data.subarray(0, 7));
    expect(await peer.receiveMessage()).toEqual({ ...plain, msn: 2, payload: both });
    const invalidating = { opcode: Opcode.sendInvalidate, invalidate: 0xcafe0001 };
    expect(await peer.receiveMessage()).toEqual({ ...invalidating, msn: 3, payload: data.slice(0, 7) });
    expect(memory.changes()).toEqual([]);
  });

  it('no more Read Requests than the peer takes at a time, and what is posted behind them meanwhile', async () => {
    await using fixture = await IwarpFixture.open({
      role,
      queuePair: { crc, ord: 16 },
      mpa: { crc, depths: { ird: 2, ord: 2 } },
    });
    const { peer, queuePair, memory, events } = fixture;
    expect(queuePair.ord).toBe(2);
    await fixture.settle(0);
    const sinks = Array.from({ length: 5 }, () => memory.run(16));
    sinks.forEach((sink, index) => {
      queuePair.postRead(100 + index, sink, { tag: index, address: 0n });
    });
    queuePair.postSend(200, memory.run(4, Uint8Array.of(1, 2, 3, 4)));
    const due = [await peer.receiveReadRequest(), await peer.receiveReadRequest()];
    expect(await peer.receiveMessage()).toMatchObject({ payload: Uint8Array.of(1, 2, 3, 4) });
    for (const [index, sink] of sinks.entries()) {
      const request = due[index];
      if (request === undefined) throw new Error('no request');
      peer.readResponse(request, data.subarray(index, index + 16));
      if (index + 2 < sinks.length) due.push(await peer.receiveReadRequest());
      await events.completion(100 + index);
      expect(sink).toEqual(data.subarray(index, index + 16));
    }
    expect(peer.unread).toHaveLength(0);
    expect(new Set(due.map(({ sinkTag }) => sinkTag)).size).toBeGreaterThan(1);
  });
});
