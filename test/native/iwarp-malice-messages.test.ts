import { describe, test } from 'vitest';
import type { Advertisement } from '../../src/iser/rdma/provider.ts';
import { Opcode, Queue, type ReadRequest } from '../support/iwarp-codec.ts';
import { at, expectToEnd, type Malice, type Stage, some } from '../support/iwarp-malice.ts';

const request = (source: Advertisement, length: number, offset = 0): ReadRequest => ({
  sinkTag: 0x1234,
  sinkOffset: 0n,
  length,
  sourceTag: source.tag,
  sourceOffset: at(source, offset),
});

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
    mayChange: ({ fixture }) => [fixture.receives[1] ?? new Uint8Array(0)],
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
  test.each([...untagged, ...headers])('$name', (malice) => expectToEnd(role, malice));
});
