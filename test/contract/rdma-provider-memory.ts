/** RDMA Write, RDMA Read and what they may reach. */

import { expect, it } from 'vitest';
import type { RemoteMemory } from '../../src/iser/rdma/provider.ts';
import { assertSameBytes, offsetPattern } from '../support/pattern.ts';
import type { RdmaEnd } from '../support/rdma-end.ts';
import { endsForBreach, type RdmaPair } from '../support/rdma-fixture.ts';
import type { RdmaContractPart } from './rdma-provider.ts';

const MIB = 1024 * 1024;
const lengths = [1, 3, 4, 511, 512, 1459, 4096, 8193, 65_536, 262_143, MIB];

export const memoryContract: RdmaContractPart = (current, traits) => {
  const breachEnds = (pair: RdmaPair) => endsForBreach(pair, traits);

  it.each(lengths)('writes %i bytes exactly where they belong', async (length) => {
    const { initiator, target } = await current().pair();
    const around = initiator.arena.take(length + 64, 0xee);
    const into = around.subarray(32, 32 + length);
    const to = initiator.advertise(into, 'remote-write');
    const written = target.postWrite(fill(target.arena.take(length), 8), to);
    await arrived({ initiator, target });
    expect(await target.completion(written)).toMatchObject({ opcode: 'write', status: 'success', length });
    assertSameBytes(into, offsetPattern(8, length));
    expect(isUntouched(around.subarray(0, 32)) && isUntouched(around.subarray(32 + length))).toBe(true);
  });

  it.each(lengths)('reads %i bytes exactly to where they belong', async (length) => {
    const { initiator, target } = await current().pair();
    const from = initiator.advertise(fill(initiator.arena.take(length), 16), 'remote-read');
    const around = target.arena.take(length + 64, 0xee);
    const read = target.postRead(around.subarray(32, 32 + length), from);
    expect(await target.completion(read)).toMatchObject({ opcode: 'read', status: 'success', length });
    assertSameBytes(around.subarray(32, 32 + length), offsetPattern(16, length));
    expect(isUntouched(around.subarray(0, 32)) && isUntouched(around.subarray(32 + length))).toBe(true);
  });

  it('writes and reads in the middle of what is advertised', async () => {
    const { initiator, target } = await current().pair();
    const memory = fill(initiator.arena.take(10_000), 0);
    const readable = initiator.advertise(memory, 'remote-read');
    const into = target.arena.take(1000);
    await target.completion(target.postRead(into, at(readable, 5000)));
    assertSameBytes(into, offsetPattern(5000, 1000));
    const writable = initiator.advertise(initiator.arena.take(10_000), 'remote-write');
    target.postWrite(into, at(writable, 9000));
    await arrived({ initiator, target });
  });

  it('writes nothing anywhere, without a valid tag', async () => {
    const { initiator, target } = await current().pair();
    const written = target.postWrite(target.arena.take(0), { tag: 0, address: 0n });
    await arrived({ initiator, target });
    expect((await target.completion(written)).status).toBe('success');
    expect(initiator.isClosed).toBe(false);
  });

  it('has written everything when a message that was sent afterwards arrives', async () => {
    const { initiator, target } = await current().pair();
    const into = initiator.arena.take(8 * 65_536);
    const to = initiator.advertise(into, 'remote-write');
    for (let index = 0; index < 8; index++) {
      target.postWrite(fill(target.arena.take(65_536), index * 65_536), at(to, index * 65_536));
    }
    await arrived({ initiator, target });
    assertSameBytes(into, offsetPattern(0, into.length));
  });

  it.each([1, 16])('completes more reads than may be outstanding, in order, where that is %i', async (ord) => {
    const { initiator, target } = await current().pair({ initiator: { ird: ord }, target: { ord } });
    expect(target.queuePair.ord).toBe(ord);
    const memory = fill(initiator.arena.take(40 * 3000), 0);
    const from = initiator.advertise(memory, 'remote-read');
    const into = target.arena.take(memory.length);
    const reads = Array.from({ length: 40 }, (_, index) => {
      return target.postRead(into.subarray(index * 3000, (index + 1) * 3000), at(from, index * 3000));
    });
    for (const read of reads) expect((await target.completion(read)).status).toBe('success');
    expect(target.completions.filter(({ opcode }) => opcode === 'read').map(({ id }) => id)).toEqual(reads);
    assertSameBytes(into, memory);
  });

  it('moves data in both directions at a time', async () => {
    const { initiator, target } = await current().pair();
    const done: Promise<unknown>[] = [];
    const checks: (() => void)[] = [];
    for (const [one, other] of [
      [initiator, target],
      [target, initiator],
    ] as const) {
      const from = one.advertise(fill(one.arena.take(MIB / 2), 0), 'remote-read');
      const into = one.arena.take(MIB / 2);
      const to = one.advertise(into, 'remote-write');
      const back = other.arena.take(MIB / 2);
      const read = other.postRead(back, from);
      other.postWrite(fill(other.arena.take(MIB / 2), 0), to);
      done.push(other.completion(read), arrivedAt(one, other));
      checks.push(() => assertSameBytes(back, offsetPattern(0, MIB / 2)));
      checks.push(() => assertSameBytes(into, offsetPattern(0, MIB / 2)));
    }
    await Promise.all(done);
    for (const check of checks) check();
  });

  it('gives advertisements tags of their own, at addresses below 2^53', async () => {
    const { initiator } = await current().pair();
    const advertised = Array.from({ length: 32 }, () => initiator.queuePair.advertise(initiator.arena.take(100), 'remote-write'));
    expect(new Set(advertised.map(({ tag }) => tag)).size).toBe(32);
    expect(advertised.every(({ address }) => Number.isSafeInteger(address) && address >= 0)).toBe(true);
  });

  it('throws beyond the depth of advertisements, until one is revoked', async () => {
    const { initiator } = await current().pair({ initiator: { advertisementDepth: 2 } });
    const first = initiator.advertise(initiator.arena.take(100), 'remote-write');
    initiator.advertise(initiator.arena.take(100), 'remote-write');
    expect(() => initiator.advertise(initiator.arena.take(100), 'remote-write')).toThrow(RangeError);
    initiator.queuePair.revoke(first.tag);
    initiator.advertise(initiator.arena.take(100), 'remote-write');
  });

  it('ignores the revocation of a tag that is not in force', async () => {
    const { initiator, target } = await current().pair();
    const { tag } = initiator.advertise(initiator.arena.take(100), 'remote-write');
    initiator.queuePair.revoke(tag);
    initiator.queuePair.revoke(tag);
    initiator.queuePair.revoke(0x7fff_ff00);
    await arrived({ initiator, target });
  });

  if (traits.canPeersInvalidate) {
    it('revokes with a message (Send with Invalidate), and says which tag', async () => {
      const { initiator, target } = await current().pair();
      expect(initiator.queuePair.canPeerInvalidate).toBe(true);
      const memory = initiator.arena.take(100, 0xee);
      const to = initiator.advertise(memory, 'remote-write');
      target.postWrite(target.arena.take(50, 0x11), to);
      target.postSend(target.arena.take(10), undefined, to.tag);
      await initiator.until(() => initiator.completions.length > 0, 'the message');
      const invalidated = traits.saysInvalidated ? to.tag : undefined;
      expect(initiator.completions[0]).toMatchObject({ opcode: 'receive', status: 'success', length: 10, invalidated });
      initiator.queuePair.revoke(to.tag);
      target.postWrite(target.arena.take(50, 0x22), at(to, 50));
      await breachEnds({ initiator, target });
      expect(isUntouched(memory.subarray(50))).toBe(true);
    });
  } else {
    it('ends the connection for a Send with Invalidate that it does not allow', async () => {
      const { initiator, target } = await current().pair();
      expect(initiator.queuePair.canPeerInvalidate).toBe(false);
      const { tag } = initiator.advertise(initiator.arena.take(100), 'remote-write');
      target.postSend(target.arena.take(10), undefined, tag);
      await breachEnds({ initiator, target });
    });
  }

  it('says of a message that revokes nothing that it does not', async () => {
    const { initiator, target } = await current().pair();
    await arrived({ initiator, target });
    expect(initiator.completions[0]?.invalidated).toBeUndefined();
  });

  interface Trespass {
    readonly what: string;
    readonly access: 'remote-write' | 'remote-read';
    readonly trespass: (target: RdmaEnd, memory: RemoteMemory, initiator: RdmaEnd) => void;
  }
  const trespasses: readonly Trespass[] = [
    {
      what: 'a write that begins before the memory',
      access: 'remote-write',
      trespass: (target, memory) => target.postWrite(target.arena.take(10, 1), at(memory, -1)),
    },
    {
      what: 'a write that ends behind the memory',
      access: 'remote-write',
      trespass: (target, memory) => target.postWrite(target.arena.take(101, 1), memory),
    },
    {
      what: 'a write far behind the memory',
      access: 'remote-write',
      trespass: (target, memory) => target.postWrite(target.arena.take(10, 1), at(memory, 1 << 20)),
    },
    {
      what: 'a write whose end wraps around',
      access: 'remote-write',
      trespass: (target, { tag }) => target.postWrite(target.arena.take(10, 1), { tag, address: 2n ** 64n - 4n }),
    },
    {
      what: 'a write with a tag that never was',
      access: 'remote-write',
      trespass: (target, { tag, address }) => target.postWrite(target.arena.take(10, 1), { tag: (tag ^ 0x55) >>> 0, address }),
    },
    {
      what: 'a write with a tag that was revoked',
      access: 'remote-write',
      trespass: (target, memory, initiator) => {
        initiator.queuePair.revoke(memory.tag);
        target.postWrite(target.arena.take(10, 1), memory);
      },
    },
    {
      what: 'a write to memory that may be read',
      access: 'remote-read',
      trespass: (target, memory) => target.postWrite(target.arena.take(10, 1), memory),
    },
    {
      what: 'a read that ends behind the memory',
      access: 'remote-read',
      trespass: (target, memory) => target.postRead(target.arena.take(101), memory),
    },
    {
      what: 'a read with a tag that was revoked',
      access: 'remote-read',
      trespass: (target, memory, initiator) => {
        initiator.queuePair.revoke(memory.tag);
        target.postRead(target.arena.take(10), memory);
      },
    },
  ];

  it.each(trespasses)('ends the connection for $what, and touches nothing', async ({ access, trespass }) => {
    const pair = await current().pair();
    const around = pair.initiator.arena.take(300, 0xee);
    trespass(pair.target, pair.initiator.advertise(around.subarray(100, 200), access), pair.initiator);
    await breachEnds(pair);
    expect(isUntouched(around)).toBe(true);
    expect(pair.target.completions.filter(({ opcode }) => opcode === 'read').map(({ status }) => status)).not.toContain(
      'success',
    );
  });

  it.runIf(traits.keepsReadersOut)(
    'ends the connection for a read from memory that may be written, and gives nothing',
    async () => {
      const pair = await current().pair();
      const into = pair.target.arena.take(100, 0xee);
      pair.target.postRead(into, pair.initiator.advertise(pair.initiator.arena.take(100, 0x11), 'remote-write'));
      await breachEnds(pair);
      expect(isUntouched(into)).toBe(true);
    },
  );

  it('gives one connection no access to what is advertised to another', async () => {
    const one = await current().pair();
    const other = await current().pair();
    const memory = one.initiator.arena.take(100, 0xee);
    const to = one.initiator.advertise(memory, 'remote-write');
    other.target.postWrite(other.target.arena.take(10, 1), to);
    await breachEnds(other);
    expect(isUntouched(memory)).toBe(true);
    await arrived(one);
  });
};

/** A message from the target to the initiator has arrived, and so all that the target posted before. */
async function arrived({ initiator, target }: RdmaPair): Promise<void> {
  await arrivedAt(initiator, target);
}

async function arrivedAt(end: RdmaEnd, from: RdmaEnd): Promise<void> {
  const count = () => end.completions.filter(({ opcode, status }) => opcode === 'receive' && status === 'success').length;
  const before = count();
  from.postSend(from.arena.take(4, 1));
  await end.until(() => count() > before, 'a message');
}

function at({ tag, address }: RemoteMemory, offset: number): RemoteMemory {
  return { tag, address: address + BigInt(offset) };
}

function isUntouched(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0xee);
}

function fill(bytes: Uint8Array, offset: number): Uint8Array {
  bytes.set(offsetPattern(offset, bytes.length));
  return bytes;
}
