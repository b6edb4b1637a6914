import { describe, test } from 'vitest';
import type { Advertisement } from '../../src/iser/rdma/provider.ts';
import { Opcode, type ReadRequest } from '../support/iwarp-codec.ts';
import { at, expectToEnd, type Malice, RUN, some } from '../support/iwarp-malice.ts';

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

describe.each(['initiator', 'responder'] as const)('as the %s, iwarp ends the connection and no other at', (role) => {
  test.each([...tagged, ...reads])('$name', (malice) => expectToEnd(role, malice));
});
