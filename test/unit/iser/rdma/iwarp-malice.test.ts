import { describe, expect, test } from 'vitest';
import type { Advertisement } from '../../../../src/iser/rdma/provider.ts';
import { IwarpBench } from '../../../support/iwarp-bench.ts';
import { Opcode, Queue, type ReadRequest } from '../../../support/iwarp-codec.ts';
import type { IwarpPeer } from '../../../support/iwarp-peer.ts';
import { SeededRandom } from '../../../support/seeded-random.ts';

const RUN = 4096;

/** A connection with something of everything in force, and a second one beside it that must not notice. */
interface Stage {
  readonly bench: IwarpBench;
  readonly peer: IwarpPeer;
  /** What the peer may write to, may read from, and could write to until it was taken back. */
  readonly writable: Advertisement;
  readonly readable: Advertisement;
  readonly revoked: Advertisement;
  /** The Read that the provider has outstanding at the peer, of `RUN` bytes into `sink`. */
  readonly read: ReadRequest;
  readonly sink: Uint8Array;
  /** Of another connection. */
  readonly foreign: Advertisement;
}

interface Malice {
  readonly name: string;
  /** Layer, error type and code of the Terminate that the RFCs want. */
  readonly terminate: string;
  /** What the user is told. */
  readonly error: RegExp;
  readonly act: (stage: Stage) => void;
  /** Memory that the peer may write and has written, although the connection ended. */
  readonly mayChange?: (stage: Stage) => Uint8Array[];
}

const some = new SeededRandom(7).bytes(RUN);
const at = (advertisement: Advertisement, offset = 0): bigint => BigInt(advertisement.address) + BigInt(offset);
const request = (source: Advertisement, length: number, offset = 0): ReadRequest => ({
  sinkTag: 0x1234,
  sinkOffset: 0n,
  length,
  sourceTag: source.tag,
  sourceOffset: at(source, offset),
});

const tagged: Malice[] = [
  {
    name: 'an STag that never was',
    terminate: 'DDP/1/0',
    error: /wrote with STag 0xdeadbeef, which is not in force/,
    act: ({ peer }) => peer.write(0xdeadbeef, 0n, some),
  },
  {
    name: 'STag 0',
    terminate: 'DDP/1/0',
    error: /wrote with STag 0x00000000/,
    act: ({ peer }) => peer.write(0, 0n, some.subarray(0, 4)),
  },
  {
    name: 'the neighbour of an STag',
    terminate: 'DDP/1/0',
    error: /which is not in force/,
    act: ({ peer, writable }) => peer.write(writable.tag ^ 1, at(writable), some.subarray(0, 4)),
  },
  {
    name: 'an STag that was taken back',
    terminate: 'DDP/1/0',
    error: /which is not in force/,
    act: ({ peer, revoked }) => peer.write(revoked.tag, at(revoked), some.subarray(0, 4)),
  },
  {
    name: 'the STag of another connection',
    terminate: 'DDP/1/0',
    error: /which is not in force|out of the bounds/,
    act: ({ peer, foreign }) => peer.write(foreign.tag, at(foreign), some.subarray(0, 4)),
  },
  {
    name: 'a write where only reading is allowed',
    terminate: 'RDMAP/1/2',
    error: /which does not allow that/,
    act: ({ peer, readable }) => peer.write(readable.tag, at(readable), some.subarray(0, 4)),
  },
  {
    name: 'a write to the sink of a Read',
    terminate: 'RDMAP/1/2',
    error: /which does not allow that/,
    act: ({ peer, read }) => peer.write(read.sinkTag, read.sinkOffset, some.subarray(0, 4)),
  },
  {
    name: 'a write of one byte too many',
    terminate: 'DDP/1/1',
    error: /out of the bounds/,
    act: ({ peer, writable }) => peer.write(writable.tag, at(writable), new Uint8Array(RUN + 1)),
  },
  {
    name: 'a write that begins a byte early',
    terminate: 'DDP/1/1',
    error: /out of the bounds/,
    act: ({ peer, writable }) => peer.write(writable.tag, at(writable, -1), some.subarray(0, 4)),
  },
  {
    name: 'a write that begins behind the end',
    terminate: 'DDP/1/1',
    error: /out of the bounds/,
    act: ({ peer, writable }) => peer.write(writable.tag, at(writable, RUN), some.subarray(0, 1)),
  },
  {
    name: 'a write with the offset of another STag',
    terminate: 'DDP/1/1',
    error: /out of the bounds/,
    act: ({ peer, writable, readable }) => peer.write(writable.tag, at(readable), some.subarray(0, 4)),
  },
  {
    name: 'a write far above, by 2^32',
    terminate: 'DDP/1/1',
    error: /out of the bounds/,
    act: ({ peer, writable }) => peer.write(writable.tag, at(writable) + 2n ** 32n, some.subarray(0, 4)),
  },
  {
    name: 'a write that wraps 2^64',
    terminate: 'DDP/1/3',
    error: /beyond the end of all addresses/,
    act: ({ peer, writable }) => peer.write(writable.tag, 2n ** 64n - 2n, some.subarray(0, 8)),
  },
  {
    name: 'a write whose second segment leaves the bounds',
    terminate: 'DDP/1/1',
    error: /out of the bounds/,
    act: ({ peer, writable }) =>
      peer.write(writable.tag, at(writable, RUN - 100), new Uint8Array(200).fill(0xa5), { segmentLength: 100 }),
  },
  {
    name: 'another STag in the middle of a write',
    terminate: 'DDP/1/0',
    error: /changed the STag in the middle/,
    act: ({ peer, writable, readable }) => {
      peer.write(writable.tag, at(writable), new Uint8Array(0), { last: false });
      peer.write(readable.tag, at(readable), some.subarray(0, 4));
    },
  },
  {
    // RFC 5041 does not oblige a data sink to look. But a hole in a disk's data must not pass for data, and siw looks, too.
    name: 'a gap within a write',
    terminate: 'DDP/1/1',
    error: /left a gap/,
    act: ({ peer, writable }) => {
      peer.write(writable.tag, at(writable), new Uint8Array(0), { last: false });
      peer.write(writable.tag, at(writable, 8), some.subarray(0, 4));
    },
  },
  {
    name: 'a Read Response that nobody asked for',
    terminate: 'DDP/1/0',
    error: /with another STag/,
    act: ({ peer, writable }) => peer.write(writable.tag, at(writable), some.subarray(0, 4), { opcode: Opcode.readResponse }),
  },
  {
    name: 'a Read Response to another place of its sink',
    terminate: 'DDP/1/1',
    error: /at another offset/,
    act: ({ peer, read }) => peer.readResponse({ ...read, sinkOffset: read.sinkOffset + 8n }, some.subarray(8)),
  },
  {
    name: 'a Read Response in front of its sink',
    terminate: 'DDP/1/1',
    error: /at another offset/,
    act: ({ peer, read }) => peer.readResponse({ ...read, sinkOffset: read.sinkOffset - 8n }, some),
  },
  {
    name: 'a Read Response that is too long',
    terminate: 'DDP/1/1',
    error: /with more than was asked for/,
    act: ({ peer, read }) => peer.readResponse(read, new Uint8Array(RUN + 4)),
  },
  {
    name: 'a Read Response that is too short',
    terminate: 'DDP/1/1',
    error: /with less than was asked for/,
    act: ({ peer, read }) => peer.readResponse(read, some.subarray(0, RUN - 4)),
  },
  {
    name: 'a Read Response that has no last segment',
    terminate: 'DDP/1/1',
    error: /did not end its answer/,
    act: ({ peer, read }) => peer.write(read.sinkTag, read.sinkOffset, some, { opcode: Opcode.readResponse, last: false }),
  },
  {
    name: 'a Read Response in the middle of a write',
    terminate: 'RDMAP/2/6',
    error: /in the middle of an RDMA Write/,
    act: ({ peer, writable, read }) => {
      peer.write(writable.tag, at(writable), new Uint8Array(0), { last: false });
      peer.readResponse(read, some);
    },
  },
];

const untagged: Malice[] = [
  {
    name: 'an MSN that is skipped',
    terminate: 'DDP/2/3',
    error: /sent message 3 where 2 was due/,
    act: ({ peer }) => peer.send(some.subarray(0, 16), { msn: 3 }),
  },
  {
    name: 'an MSN that comes again',
    terminate: 'DDP/2/3',
    error: /sent message 1 where 2 was due/,
    act: ({ peer }) => peer.send(some.subarray(0, 16), { msn: 1 }),
  },
  {
    name: 'MSN 0',
    terminate: 'DDP/2/3',
    error: /sent message 0/,
    act: ({ peer }) => peer.send(some.subarray(0, 16), { msn: 0 }),
  },
  {
    name: 'a message that begins in the middle',
    terminate: 'DDP/2/4',
    error: /the bytes from 4 of a message where those from 0 were due/,
    act: ({ peer }) => peer.send(some.subarray(0, 16), { mo: 4 }),
  },
  {
    name: 'an offset far beyond the receive',
    terminate: 'DDP/2/4',
    error: /the bytes from 4294967280 of a message/,
    act: ({ peer }) => peer.send(some.subarray(0, 16), { mo: 0xffff_fff0 }),
  },
  {
    name: 'a second segment that repeats the first',
    terminate: 'DDP/2/4',
    error: /the bytes from 0 of a message where those from 1 were due/,
    act: ({ peer }) => {
      const msn = peer.takeMsn(Queue.send);
      peer.send(Uint8Array.of(0xa5), { msn, last: false });
      peer.send(Uint8Array.of(0xa5), { msn });
    },
  },
  {
    name: 'a message longer than the receive by a byte',
    terminate: 'DDP/2/5',
    error: /longer than the 1024 bytes of the posted receive/,
    act: ({ peer }) => peer.send(new Uint8Array(1025)),
  },
  {
    name: 'a message longer than the receive in its second segment',
    terminate: 'DDP/2/5',
    error: /longer than the 1024 bytes/,
    act: ({ peer }) => peer.send(new Uint8Array(1025).fill(0xa5), { segmentLength: 1024 }),
  },
  {
    name: 'a message of the largest frame',
    terminate: 'DDP/2/5',
    error: /longer than the 1024 bytes/,
    act: ({ peer }) => peer.send(new Uint8Array(65_517), { segmentLength: 65_517 }),
  },
  {
    name: 'a Send on a queue that is not there',
    terminate: 'DDP/2/1',
    error: /a Send on queue 3/,
    act: ({ peer }) => peer.send(some.subarray(0, 16), { queue: 3 }),
  },
  {
    name: 'a Send on the queue of Read Requests',
    terminate: 'DDP/2/1',
    error: /a Send on queue 1/,
    act: ({ peer }) => peer.send(some.subarray(0, 16), { queue: Queue.readRequest }),
  },
  {
    name: 'a Read Request on the queue of Sends',
    terminate: 'DDP/2/1',
    error: /a.* Read Request on queue 0/,
    act: ({ peer, readable }) => peer.readRequest(request(readable, 16), { queue: Queue.send }),
  },
  {
    name: 'another opcode in the middle of a Send',
    terminate: 'RDMAP/2/6',
    error: /changed the opcode in the middle/,
    act: ({ peer, writable }) => {
      const msn = peer.takeMsn(Queue.send);
      peer.send(Uint8Array.of(0xa5), { msn, last: false });
      peer.send(Uint8Array.of(0xa5), { msn, mo: 1, opcode: Opcode.sendInvalidate, invalidate: writable.tag });
    },
  },
  {
    name: 'the next message before the last segment of one',
    terminate: 'DDP/2/3',
    error: /sent message 3 where 2 was due/,
    act: ({ peer }) => {
      peer.send(Uint8Array.of(0xa5), { last: false });
      peer.send(Uint8Array.of(0xa5));
    },
  },
  {
    name: 'a Send with Invalidate of an STag that never was',
    terminate: 'RDMAP/2/9',
    error: /invalidated STag 0xdeadbeef/,
    act: ({ peer }) => peer.send(Uint8Array.of(0xa5), { opcode: Opcode.sendInvalidate, invalidate: 0xdeadbeef }),
  },
  {
    name: 'a Send with Invalidate of an STag of another connection',
    terminate: 'RDMAP/2/9',
    error: /invalidated STag/,
    act: ({ peer, foreign }) => peer.send(Uint8Array.of(0xa5), { opcode: Opcode.sendInvalidate, invalidate: foreign.tag }),
  },
  {
    name: 'a Send with Invalidate of the sink of a Read',
    terminate: 'RDMAP/2/9',
    error: /invalidated STag/,
    act: ({ peer, read }) => peer.send(Uint8Array.of(0xa5), { opcode: Opcode.sendInvalidate, invalidate: read.sinkTag }),
  },
  {
    name: 'a Send with Invalidate of an STag that was taken back',
    terminate: 'RDMAP/2/9',
    error: /invalidated STag/,
    act: ({ peer, revoked }) =>
      peer.send(Uint8Array.of(0xa5), { opcode: Opcode.sendSolicitedInvalidate, invalidate: revoked.tag }),
  },
  {
    name: 'a write with an STag that it had invalidated itself',
    terminate: 'DDP/1/0',
    error: /which is not in force/,
    act: ({ peer, writable }) => {
      peer.send(Uint8Array.of(0xa5), { opcode: Opcode.sendInvalidate, invalidate: writable.tag });
      peer.write(writable.tag, at(writable), some.subarray(0, 4));
    },
  },
];

const reads: Malice[] = [
  {
    name: 'a Read of an STag that never was',
    terminate: 'RDMAP/1/0',
    error: /read with STag 0xdeadbeef/,
    act: ({ peer, readable }) => peer.readRequest({ ...request(readable, 16), sourceTag: 0xdeadbeef }),
  },
  {
    name: 'a Read of an STag that was taken back',
    terminate: 'RDMAP/1/0',
    error: /which is not in force/,
    act: ({ peer, revoked }) => peer.readRequest(request(revoked, 16)),
  },
  {
    name: 'a Read of an STag of another connection',
    terminate: 'RDMAP/1/0',
    error: /read with STag/,
    act: ({ peer, foreign }) => peer.readRequest(request(foreign, 16)),
  },
  {
    name: 'a Read where only writing is allowed',
    terminate: 'RDMAP/1/2',
    error: /read with STag .*, which does not allow that/,
    act: ({ peer, writable }) => peer.readRequest(request(writable, 16)),
  },
  {
    name: 'a Read from the sink of a Read',
    terminate: 'RDMAP/1/2',
    error: /which does not allow that/,
    act: ({ peer, read, readable }) =>
      peer.readRequest({ ...request(readable, 16), sourceTag: read.sinkTag, sourceOffset: read.sinkOffset }),
  },
  {
    name: 'a Read of one byte too many',
    terminate: 'RDMAP/1/1',
    error: /read 4097 bytes out of the bounds/,
    act: ({ peer, readable }) => peer.readRequest(request(readable, RUN + 1)),
  },
  {
    name: 'a Read that begins a byte early',
    terminate: 'RDMAP/1/1',
    error: /out of the bounds/,
    act: ({ peer, readable }) => peer.readRequest(request(readable, 16, -1)),
  },
  {
    name: 'a Read of 4 GiB less a byte',
    terminate: 'RDMAP/1/1',
    error: /out of the bounds/,
    act: ({ peer, readable }) => peer.readRequest(request(readable, 0xffff_ffff)),
  },
  {
    name: 'a Read that wraps 2^64',
    terminate: 'RDMAP/1/4',
    error: /beyond the end of all addresses/,
    act: ({ peer, readable }) => peer.readRequest({ ...request(readable, 16), sourceOffset: 2n ** 64n - 8n }),
  },
  {
    name: 'a Read Request whose MSN is skipped',
    terminate: 'DDP/2/3',
    error: /Read Request 2 where 1 was due/,
    act: ({ peer, readable }) => peer.readRequest(request(readable, 16), { msn: 2 }),
  },
  {
    name: 'a Read Request with an offset',
    terminate: 'DDP/2/4',
    error: /Read Request with an offset/,
    act: ({ peer, readable }) => peer.readRequest(request(readable, 16), { mo: 4 }),
  },
  {
    name: 'a Read Request that is cut off',
    terminate: 'RDMAP/2/7',
    error: /an impossible length/,
    act: ({ peer }) => peer.sendSegment({ tagged: false, opcode: Opcode.readRequest, queue: 1, payload: new Uint8Array(24) }),
  },
  {
    name: 'a Read Request with bytes behind it',
    terminate: 'RDMAP/2/7',
    error: /an impossible length/,
    act: ({ peer }) => peer.sendSegment({ tagged: false, opcode: Opcode.readRequest, queue: 1, payload: new Uint8Array(200) }),
  },
  {
    name: 'a Read Request in two segments',
    terminate: 'RDMAP/2/7',
    error: /an impossible length/,
    act: ({ peer, readable }) => peer.readRequest(request(readable, 16), { last: false }),
  },
  {
    name: 'a Read Request in the middle of a Send',
    terminate: 'RDMAP/2/6',
    error: /in the middle of a Send/,
    act: ({ peer, readable }) => {
      peer.send(Uint8Array.of(0xa5), { last: false });
      peer.readRequest(request(readable, 16));
    },
  },
];

const headers: Malice[] = [
  {
    name: 'DDP version 0 in a tagged segment',
    terminate: 'DDP/1/4',
    error: /DDP version 0/,
    act: ({ peer, writable }) => peer.write(writable.tag, at(writable), some.subarray(0, 4), { ddpVersion: 0 }),
  },
  {
    name: 'DDP version 2 in an untagged segment',
    terminate: 'DDP/2/6',
    error: /DDP version 2/,
    act: ({ peer }) => peer.send(some.subarray(0, 16), { ddpVersion: 2 }),
  },
  {
    name: 'RDMAP version 0',
    terminate: 'RDMAP/2/5',
    error: /RDMAP version 0/,
    act: ({ peer }) => peer.send(some.subarray(0, 16), { rdmapVersion: 0 }),
  },
  {
    name: 'RDMAP version 3',
    terminate: 'RDMAP/2/5',
    error: /RDMAP version 3/,
    act: ({ peer, writable }) => peer.write(writable.tag, at(writable), some.subarray(0, 4), { rdmapVersion: 3 }),
  },
  ...[8, 12, 15].map((opcode) => ({
    name: `opcode ${opcode}`,
    terminate: 'RDMAP/2/6',
    error: new RegExp(`opcode ${opcode} in an untagged segment`),
    act: ({ peer }: Stage) => peer.send(some.subarray(0, 16), { opcode }),
  })),
  {
    name: 'an untagged opcode in a tagged segment',
    terminate: 'RDMAP/2/6',
    error: /opcode 3 in a tagged segment/,
    act: ({ peer, writable }) => peer.write(writable.tag, at(writable), some.subarray(0, 4), { opcode: Opcode.send }),
  },
  {
    name: 'a tagged opcode in an untagged segment',
    terminate: 'RDMAP/2/6',
    error: /opcode 0 in an untagged segment/,
    act: ({ peer }) => peer.send(some.subarray(0, 16), { opcode: Opcode.write }),
  },
  {
    name: 'an FPDU that says it is shorter than its header',
    terminate: 'RDMAP/2/7',
    error: /a frame of 5 bytes, too short for its header/,
    act: ({ peer }) =>
      peer.sendSegment({ tagged: false, opcode: Opcode.send, msn: 2, payload: some.subarray(0, 16) }, { length: 5 }),
  },
  {
    name: 'an FPDU that says it is shorter than it is',
    terminate: 'LLP/0/2',
    error: /the CRC of a frame from the peer is wrong/,
    act: ({ peer }) =>
      peer.sendSegment({ tagged: false, opcode: Opcode.send, msn: 2, payload: new Uint8Array(64).fill(0xa5) }, { length: 50 }),
  },
  {
    name: 'an FPDU that says it is longer than it is',
    terminate: 'LLP/0/2',
    error: /the CRC of a frame from the peer is wrong/,
    act: ({ peer }) => {
      const fill = new Uint8Array(64).fill(0xa5);
      peer.sendSegment({ tagged: false, opcode: Opcode.send, msn: 2, payload: fill }, { length: 18 + 64 + 8 });
      peer.sendBytes(fill);
    },
    mayChange: ({ bench }) => [bench.receives[1] ?? new Uint8Array(0)],
  },
  {
    name: 'a Send whose CRC is wrong by a bit',
    terminate: 'LLP/0/2',
    error: /the CRC of a frame from the peer is wrong/,
    act: ({ peer }) =>
      peer.sendSegment({ tagged: false, opcode: Opcode.send, msn: 2, payload: new Uint8Array(64).fill(0xa5) }, { crcDamage: 1 }),
  },
  {
    name: 'a write whose CRC is wrong',
    terminate: 'LLP/0/2',
    error: /the CRC of a frame from the peer is wrong/,
    act: ({ peer, writable }) =>
      peer.sendSegment(
        { tagged: true, opcode: Opcode.write, stag: writable.tag, offset: at(writable), payload: new Uint8Array(64).fill(0xa5) },
        { crcDamage: 0x8000_0000 },
      ),
  },
  {
    name: 'bytes that are no FPDU',
    terminate: 'DDP/2/6',
    error: /DDP version 0/,
    act: ({ peer }) => peer.sendBytes(new TextEncoder().encode('GET / HTTP/1.1\r\nHost: example\r\n\r\n')),
  },
];

describe.each(['initiator', 'responder'] as const)('as the %s, iwarp ends the connection and no other at', (role) => {
  test.each([...tagged, ...untagged, ...reads, ...headers])('$name', async ({ terminate, error, act, mayChange }) => {
    await using neighbour = await IwarpBench.open({ role });
    const foreignRun = neighbour.memory.run(RUN);
    const foreign = neighbour.queuePair.advertise(foreignRun, 'remote-write');
    await using bench = await IwarpBench.open({ role });
    const stage = await setTheStage(bench, foreign);

    act(stage);

    const verdict = await bench.peer.verdict();
    const ended = await bench.events.ended();
    expect(verdict).toMatchObject({ terminate, ending: 'fin' });
    expect(ended?.message).toMatch(error);
    expect(ended).toMatchObject({ code: 'protocol-error' });
    for (const run of mayChange?.(stage) ?? []) bench.memory.accept(run);
    expect(bench.memory.changes()).toEqual([]);
    expect(neighbour.memory.changes()).toEqual([]);
    expectAllCompletedOnce(bench);
    await expectToWork(neighbour, foreign, foreignRun);
  });
});

async function setTheStage(bench: IwarpBench, foreign: Advertisement): Promise<Stage> {
  const { peer, queuePair, memory } = bench;
  const writableRun = memory.run(RUN);
  const sink = memory.run(RUN);
  const writable = queuePair.advertise(writableRun, 'remote-write');
  const readable = queuePair.advertise(memory.run(RUN), 'remote-read');
  const revoked = queuePair.advertise(memory.run(RUN), 'remote-write');
  queuePair.revoke(revoked.tag);
  // The first message comes from the initiator; it lets a responder send.
  await bench.settle(0);
  queuePair.postRead(100, sink, { tag: 0x77, address: 0x1000n });
  const read = await peer.receiveReadRequest();
  return { bench, peer, writable, readable, revoked, read, sink, foreign };
}

/** Receives from 1 on and the Read were posted and had not completed before. */
function expectAllCompletedOnce({ events, receives }: IwarpBench): void {
  const ids = events.completions.map(({ id }) => id);
  expect(ids.toSorted((one, other) => one - other)).toEqual([...receives.keys(), 100]);
  expect(events.completions.find(({ id }) => id === 100)?.status).not.toBe('success');
}

async function expectToWork(bench: IwarpBench, advertisement: Advertisement, run: Uint8Array): Promise<void> {
  bench.peer.write(advertisement.tag, at(advertisement), some);
  await bench.settle(0);
  expect(run).toEqual(some);
  bench.memory.accept(run);
  expect(bench.memory.changes()).toEqual([]);
}
