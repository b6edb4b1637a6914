import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it, test } from 'vitest';
import { hexVectors } from '../support/hex-vectors.ts';
import { encodeFpdu, encodeSegment, Opcode, Queue } from '../support/iwarp-codec.ts';
import { type FixtureOptions, IwarpFixture } from '../support/iwarp-fixture.ts';
import { SeededRandom } from '../support/seeded-random.ts';

const siw = hexVectors('iwarp-siw.hex');
const random = new SeededRandom(5);
const data = random.bytes(4096);

/** What the peer is in the middle of when the connection ends. */
const moments: { name: string; begin: (fixture: IwarpFixture) => void | Promise<void>; isClean: boolean }[] = [
  { name: 'nothing', begin: () => {}, isClean: true },
  { name: 'a Read of ours', begin: (fixture) => postRead(fixture).then(() => {}), isClean: true },
  {
    name: 'the length field of a frame',
    begin: ({ peer }) => peer.sendBytes(Uint8Array.of(0)),
    isClean: false,
  },
  {
    name: 'the header of a frame',
    begin: ({ peer }) => peer.sendBytes(frame().subarray(0, 11)),
    isClean: false,
  },
  {
    name: 'the payload of a message',
    begin: ({ peer }) => peer.sendBytes(frame().subarray(0, 60)),
    isClean: false,
  },
  {
    name: 'the CRC of a frame',
    begin: ({ peer }) => peer.sendBytes(frame().subarray(0, -1)),
    isClean: false,
  },
  {
    name: 'a message, between its segments',
    begin: ({ peer }) => peer.send(new Uint8Array(10).fill(0xa5), { last: false }),
    isClean: false,
  },
  {
    name: 'an RDMA Write, between its segments',
    begin: (fixture) => {
      const { tag, address } = fixture.queuePair.advertise(fixture.memory.run(64), 'remote-write');
      fixture.peer.write(tag, BigInt(address), new Uint8Array(10).fill(0xa5), { last: false });
    },
    isClean: false,
  },
  {
    name: 'the payload of an RDMA Write',
    begin: (fixture) => {
      const { tag, address } = fixture.queuePair.advertise(fixture.memory.run(64), 'remote-write');
      const fields = { tagged: true, opcode: Opcode.write, stag: tag, offset: BigInt(address) } as const;
      const whole = encodeFpdu(encodeSegment({ ...fields, payload: new Uint8Array(64).fill(0xa5) }), { crc: true });
      fixture.peer.sendBytes(whole.subarray(0, 40));
    },
    isClean: false,
  },
  {
    name: 'the answer to a Read of ours',
    begin: async (fixture) => {
      const read = await postRead(fixture);
      fixture.peer.write(read.sinkTag, read.sinkOffset, new Uint8Array(10).fill(0xa5), {
        opcode: Opcode.readResponse,
        last: false,
      });
    },
    isClean: false,
  },
];

const roles = ['initiator', 'responder'] as const;
const cases = roles.flatMap((role) => moments.map((moment) => ({ role, ...moment })));

describe('when the connection ends in the middle', () => {
  test.each(cases)('of $name, with FIN, iwarp as the $role says whether that was in order', async ({ role, begin, isClean }) => {
    await using fixture = await established({ role });
    await begin(fixture);
    await fixture.peer.finish();
    const ended = await fixture.events.ended();
    if (isClean) expect(ended).toBeUndefined();
    else expect(ended).toMatchObject({ code: 'connection-lost', message: expect.stringContaining('in the middle of a message') });
    expectFlushed(fixture);
  });

  test.each(cases)('of $name, with RST, iwarp as the $role says that it was lost', async ({ role, begin }) => {
    await using fixture = await established({ role });
    await begin(fixture);
    await fixture.peer.reset();
    expect(await fixture.events.ended()).toMatchObject({ code: 'connection-lost' });
    expectFlushed(fixture);
  });

  test.each(cases)('of $name, by its owner, iwarp as the $role lets go of the memory at once', async ({ role, begin }) => {
    await using fixture = await established({ role });
    await begin(fixture);
    fixture.queuePair.close('abrupt');
    expect(await fixture.events.ended()).toBeUndefined();
    expectFlushed(fixture);
    fixture.peer.write(1, 0n, data);
    expect(await fixture.peer.ended()).toBe('reset');
    expect(fixture.memory.changes()).toEqual([]);
  });
});

describe('an orderly end by the owner', () => {
  test.each(roles)('lets the peer have all that is posted, as the %s', async (role) => {
    await using fixture = await established({ role });
    fixture.queuePair.postSend(100, fixture.memory.run(64, data.subarray(0, 64)));
    fixture.queuePair.close('orderly');
    expect((await fixture.peer.receiveMessage()).payload).toEqual(data.slice(0, 64));
    expect(await fixture.peer.ended()).toBe('fin');
    await fixture.peer.finish();
    expect(await fixture.events.ended()).toBeUndefined();
    expect(fixture.events.completions).toContainEqual(expect.objectContaining({ id: 100, status: 'success' }));
  });

  test.each(roles)('waits for the answer to a Read, as the %s', async (role) => {
    await using fixture = await established({ role });
    const read = await postRead(fixture);
    fixture.queuePair.close('orderly');
    fixture.peer.readResponse(read, new Uint8Array(64).fill(0xa5));
    expect(await fixture.peer.ended()).toBe('fin');
    await fixture.peer.finish();
    expect(await fixture.events.ended()).toBeUndefined();
    expect(fixture.events.completions).toContainEqual(expect.objectContaining({ id: 100, status: 'success' }));
  });

  test.each(['finish', 'reset'] as const)('takes it as it comes when the peer, in its turn, ends with %s', async (end) => {
    await using fixture = await established({ role: 'initiator' });
    fixture.queuePair.close('orderly');
    expect(await fixture.peer.ended()).toBe('fin');
    await fixture.peer[end]();
    expect(await fixture.events.ended()).toBeUndefined();
    expectFlushed(fixture);
  });

  it('is still an end when the peer breaks a rule meanwhile', async () => {
    await using fixture = await established({ role: 'responder' });
    fixture.queuePair.close('orderly');
    expect(await fixture.peer.ended()).toBe('fin');
    fixture.peer.write(0xdeadbeef, 0n, data);
    expect(await fixture.events.ended()).toMatchObject({ code: 'protocol-error' });
    expectFlushed(fixture);
  });
});

describe('a Terminate message', () => {
  test.each([
    ['terminate-write-bad-stag', /Terminate \(DDP: invalid STag\)/],
    ['terminate-send-msn-skip', /Terminate \(DDP: message sequence number out of range\)/],
    ['terminate-send-mo-wrong', /Terminate \(DDP: invalid message offset\)/],
    ['terminate-send-too-long', /Terminate \(DDP: no buffer posted for the message\)/],
    ['terminate-send-bad-queue', /Terminate \(DDP: invalid queue number\)/],
    ['terminate-crc', /MPA: CRC error/],
    ['terminate-opcode-8', /RDMAP: unexpected opcode/],
    ['terminate-rdmap-version', /RDMAP: invalid version/],
    ['terminate-ddp-version-tagged', /DDP: invalid version in a tagged segment/],
    ['terminate-ddp-version-untagged', /DDP: invalid version in an untagged segment/],
    ['terminate-read-bad-stag', /RDMAP: invalid STag/],
    ['terminate-read-msn-skip', /DDP: message sequence number out of range/],
    ['terminate-invalidate-foreign', /RDMAP: an STag cannot be invalidated/],
  ])('of siw, %s, is told in words', async (name, words) => {
    await using fixture = await established({ role: 'initiator' });
    fixture.peer.sendBytes(siw(name));
    expect(await fixture.events.ended()).toMatchObject({ code: 'connection-lost', message: expect.stringMatching(words) });
    expectFlushed(fixture);
  });

  test.each([
    [{ layer: 0, errorType: 1, errorCode: 1 }, /RDMAP: out of the bounds of an STag/],
    [{ layer: 1, errorType: 2, errorCode: 5, segmentLength: 40, headers: data.subarray(0, 18) }, /DDP: message too long/],
    [{ layer: 2, errorType: 0, errorCode: 2 }, /MPA: CRC error/],
    [{ layer: 15, errorType: 15, errorCode: 255 }, /layer 15, type 15, code 0xff/],
  ])('as RFC 5040 draws it, %j, is told in words', async (fields, words) => {
    await using fixture = await established({ role: 'responder' });
    fixture.peer.sendTerminate(fields);
    expect(await fixture.events.ended()).toMatchObject({ code: 'connection-lost', message: expect.stringMatching(words) });
    expectFlushed(fixture);
  });

  test.each(moments.filter(({ name }) => !/frame|payload/.test(name)))(
    'in the middle of $name ends the connection',
    async ({ begin }) => {
      await using fixture = await established({ role: 'initiator' });
      await begin(fixture);
      fixture.peer.sendTerminate({ layer: 0, errorType: 0, errorCode: 0 });
      expect(await fixture.events.ended()).toMatchObject({
        code: 'connection-lost',
        message: expect.stringMatching(/RDMAP: catastrophic error/),
      });
      expectFlushed(fixture);
    },
  );

  test.each([0, 1, 2, 3, 128, 129, 4000])('with %d bytes in it is one', async (length) => {
    await using fixture = await established({ role: 'initiator' });
    fixture.peer.sendSegment({
      tagged: false,
      opcode: Opcode.terminate,
      queue: Queue.terminate,
      payload: data.subarray(0, length),
    });
    expect(await fixture.events.ended()).toMatchObject({ message: expect.stringMatching(/Terminate/) });
    expectFlushed(fixture);
  });
});

describe('memory that is taken back', () => {
  it('does not change any more, whatever the peer writes at that moment', async () => {
    for (let round = 0; round < 15; round++) {
      await using fixture = await established({ role: 'responder' });
      const run = fixture.memory.run(64 * 1024);
      const { tag, address } = fixture.queuePair.advertise(run, 'remote-write');
      for (let copy = 0; copy < 8; copy++)
        fixture.peer.write(tag, BigInt(address), random.bytes(run.length), { segmentLength: 5000 });
      await delay(random.below(4));
      fixture.queuePair.revoke(tag);
      fixture.memory.accept(run);
      fixture.peer.write(tag, BigInt(address), data);
      await fixture.events.ended();
      expect(fixture.memory.changes()).toEqual([]);
    }
  });

  it('does not wait for a peer that stalls in the middle of a write to it, and the rest goes nowhere', async () => {
    await using fixture = await established({ role: 'initiator' });
    const run = fixture.memory.run(4096);
    const { tag, address } = fixture.queuePair.advertise(run, 'remote-write');
    const segment = encodeSegment({ tagged: true, opcode: Opcode.write, stag: tag, offset: BigInt(address), payload: data });
    const whole = encodeFpdu(segment, { crc: true });
    fixture.peer.sendBytes(whole.subarray(0, 2000));
    await changed(run);
    fixture.queuePair.revoke(tag);
    fixture.memory.accept(run);
    fixture.peer.sendBytes(whole.subarray(2000));
    expect(await fixture.events.ended()).toMatchObject({
      code: 'connection-lost',
      message: expect.stringContaining('memory was taken back while the peer was using it'),
    });
    expect(fixture.memory.changes()).toEqual([]);
  });

  it('does not wait for a peer that does not take what it read of it', async () => {
    await using fixture = await established({ role: 'responder', queuePair: { ird: 64 }, mpa: { depths: { ird: 64, ord: 64 } } });
    const run = fixture.memory.run(1024 * 1024);
    const { tag, address } = fixture.queuePair.advertise(run, 'remote-read');
    fixture.peer.pause();
    for (let index = 0; index < 64; index++)
      fixture.peer.readRequest({ sinkTag: 1, sinkOffset: 0n, length: run.length, sourceTag: tag, sourceOffset: BigInt(address) });
    await fixture.settle(1);
    fixture.queuePair.revoke(tag);
    run.fill(0);
    fixture.memory.accept(run);
    expect(await fixture.events.ended()).toMatchObject({ code: 'connection-lost' });
    expect(fixture.memory.changes()).toEqual([]);
  });
});

describe('a peer that asks for too much', () => {
  it('is cut off when it has more Reads outstanding than agreed', async () => {
    await using fixture = await established({ role: 'responder' });
    const run = fixture.memory.run(1024 * 1024);
    const { tag, address } = fixture.queuePair.advertise(run, 'remote-read');
    fixture.peer.pause();
    for (let index = 0; index < 64; index++)
      fixture.peer.readRequest({ sinkTag: 1, sinkOffset: 0n, length: run.length, sourceTag: tag, sourceOffset: BigInt(address) });
    expect(await fixture.events.ended()).toMatchObject({
      code: 'protocol-error',
      message: expect.stringContaining('the peer has more RDMA Reads outstanding than the 4 that were agreed'),
    });
    expectFlushed(fixture);
    fixture.peer.resume();
    await fixture.peer.ended();
  });

  it('is cut off when it sends more messages than receives are posted', async () => {
    await using fixture = await established({ role: 'initiator', receives: 3 });
    for (let index = 0; index < 3; index++) fixture.peer.send(Uint8Array.of(index));
    expect(await fixture.peer.verdict()).toMatchObject({ terminate: 'DDP/2/2', ending: 'fin' });
    expect(await fixture.events.ended()).toMatchObject({
      code: 'protocol-error',
      message: expect.stringContaining('no receive was posted'),
    });
    expect(fixture.events.completions.map(({ id, status }) => `${id} ${status}`)).toEqual([
      '0 success',
      '1 success',
      '2 success',
    ]);
  });

  it('may not read at all where it was granted no Reads', async () => {
    await using fixture = await established({ role: 'responder', queuePair: { ird: 0 } });
    const { tag, address } = fixture.queuePair.advertise(fixture.memory.run(16, data.subarray(0, 16)), 'remote-read');
    fixture.peer.readRequest({ sinkTag: 1, sinkOffset: 0n, length: 16, sourceTag: tag, sourceOffset: BigInt(address) });
    expect(await fixture.peer.verdict()).toMatchObject({ terminate: 'DDP/2/2', ending: 'fin' });
    expect(await fixture.events.ended()).toMatchObject({
      code: 'protocol-error',
      message: expect.stringContaining('more RDMA Reads'),
    });
  });

  it('does not keep the owner from closing when it takes nothing any more', async () => {
    await using fixture = await established({ role: 'initiator' });
    fixture.peer.pause();
    const run = fixture.memory.run(1024 * 1024);
    for (let id = 100; id < 132; id++) fixture.queuePair.postWrite(id, run, { tag: 1, address: 0n });
    await delay(20);
    fixture.queuePair.close('abrupt');
    expect(await fixture.events.ended()).toBeUndefined();
    const statuses = fixture.events.completions.filter(({ opcode }) => opcode === 'write').map(({ status }) => status);
    expect(statuses).toHaveLength(32);
    expect(statuses).toContain('flushed');
    expect(statuses.lastIndexOf('success')).toBeLessThan(statuses.indexOf('flushed'));
  });
});

/** A connection both of whose ends may send. */
async function established(options: FixtureOptions): Promise<IwarpFixture> {
  const fixture = await IwarpFixture.open(options);
  await fixture.settle(0);
  return fixture;
}

async function postRead({ queuePair, memory, peer }: IwarpFixture) {
  queuePair.postRead(100, memory.run(64), { tag: 1, address: 0n });
  return await peer.receiveReadRequest();
}

/** The frame of a message that changes nothing in memory full of canaries. */
const frame = () =>
  encodeFpdu(encodeSegment({ tagged: false, opcode: Opcode.send, msn: 2, payload: new Uint8Array(64).fill(0xa5) }), {
    crc: true,
  });

/** All that was posted has completed once, and what had not before as flushed; nothing was written. */
function expectFlushed({ events, memory, receives }: IwarpFixture): void {
  const ids = events.completions.map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
  expect(ids).toEqual(expect.arrayContaining([...receives.keys()]));
  for (const { id, status } of events.completions) if (id > 0) expect(status).toBe('flushed');
  expect(memory.changes()).toEqual([]);
}

async function changed(run: Uint8Array): Promise<void> {
  const before = run.slice();
  for (let attempt = 0; Buffer.compare(run, before) === 0; attempt++) {
    if (attempt === 2000) throw new Error('nothing was written');
    await delay(1);
  }
}
