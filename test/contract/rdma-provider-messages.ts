/** Sends and receives. */

import { expect, it } from 'vitest';
import { assertSameBytes, offsetPattern } from '../support/pattern.ts';
import type { RdmaEnd } from '../support/rdma-end.ts';
import { endsForBreach, RECEIVE_LENGTH } from '../support/rdma-fixture.ts';
import type { RdmaContractPart } from './rdma-provider.ts';

export const messagesContract: RdmaContractPart = (current, traits) => {
  it('delivers messages in order, each into the receive that was posted next', async () => {
    const { initiator, target } = await current().pair({ receives: 0 });
    const lengths = [1, 2, 3, 48, 76, 511, 512, 513, 1460, 4095, 4096, 8191, RECEIVE_LENGTH];
    const buffers = lengths.map(() => target.arena.take(RECEIVE_LENGTH));
    const receives = buffers.map((buffer) => target.postReceive(buffer));
    const messages = lengths.map((length, index) => fill(initiator.arena.take(length), index * 10_000));
    for (const message of messages) initiator.postSend(message);
    await target.completion(receives.at(-1) as number);
    expect(target.completions.map(({ id }) => id)).toEqual(receives);
    expect(target.completions.map(({ length }) => length)).toEqual(lengths);
    for (const [index, length] of lengths.entries()) {
      assertSameBytes((buffers[index] as Uint8Array).subarray(0, length), offsetPattern(index * 10_000, length));
    }
  });

  it('completes sends in order, each with its length', async () => {
    const { initiator } = await current().pair();
    const sends = [5, 6, 7].map((length) => initiator.postSend(initiator.arena.take(length, 1)));
    await initiator.completion(sends[2] as number);
    expect(initiator.completions).toEqual(
      sends.map((id, index) => ({ id, opcode: 'send', status: 'success', length: 5 + index, invalidated: undefined })),
    );
  });

  it('joins the two parts of a message, from two arenas', async () => {
    const { initiator, target } = await current().pair({ receives: 0 });
    const buffer = target.arena.take(RECEIVE_LENGTH);
    const received = target.postReceive(buffer);
    const other = current().newInitiator();
    initiator.postSend(fill(initiator.arena.take(76), 0), fill(other.arena.take(5001), 76));
    const { length } = await target.completion(received);
    expect(length).toBe(5077);
    assertSameBytes(buffer.subarray(0, length), offsetPattern(0, 5077));
  });

  it('sends a second part that is empty', async () => {
    const { initiator, target } = await current().pair();
    initiator.postSend(initiator.arena.take(10, 1), initiator.arena.take(0));
    await target.until(() => target.completions.length === 1, 'the message');
    expect(target.completions[0]?.length).toBe(10);
  });

  it('leaves the rest of a receive alone', async () => {
    const { initiator, target } = await current().pair({ receives: 0 });
    const buffer = target.arena.take(1024, 0xee);
    const received = target.postReceive(buffer.subarray(100, 200));
    initiator.postSend(initiator.arena.take(50, 0x11));
    await target.completion(received);
    expect(buffer.subarray(0, 100).every((byte) => byte === 0xee)).toBe(true);
    expect(buffer.subarray(100, 150).every((byte) => byte === 0x11)).toBe(true);
    expect(buffer.subarray(200).every((byte) => byte === 0xee)).toBe(true);
  });

  it('has the receives of the options ready for a message that is sent at once', async () => {
    const fixture = current();
    const target = fixture.newTarget();
    const { endpoint } = await fixture.listen((request) => {
      void fixture
        .accept(request, target, { receives: target.receives(1, 64) })
        .then(() => target.postSend(target.arena.take(8, 2)));
    });
    const initiator = fixture.newInitiator();
    await fixture.connect(endpoint, initiator, { receives: initiator.receives(1, 64) });
    // A completion before the queue pair is one of the faults that an end looks for.
    initiator.postSend(initiator.arena.take(9, 1));
    await initiator.until(() => initiator.completions.some(({ opcode }) => opcode === 'receive'), 'the message of the target');
    await target.until(() => target.completions.some(({ opcode }) => opcode === 'receive'), 'the message of the initiator');
  });

  it('ends each batch of completions once', async () => {
    const { initiator, target } = await current().pair({ receives: 32 });
    for (let index = 0; index < 32; index++) initiator.postSend(initiator.arena.take(100, 3));
    await target.until(() => target.completions.length === 32, 'the messages');
    await initiator.until(() => initiator.completions.length === 32, 'the completions');
    await initiator.until(() => initiator.batches > 0, 'the end of a batch');
    await target.until(() => target.batches > 0, 'the end of a batch');
    // An end looks for batches without a completion itself.
    expect(target.batches).toBeLessThanOrEqual(32);
  });

  it('takes posts from inside of events', async () => {
    const { initiator, target } = await current().pair({
      receives: 0,
      initiator: { receiveDepth: 4 },
      target: { receiveDepth: 4 },
    });
    const rounds = 60;
    echo(target, rounds + 1);
    const received = echo(initiator, rounds);
    initiator.postSend(initiator.arena.take(16, 1));
    await initiator.until(() => received() === rounds, 'the last round');
  });

  it('goes on for long with the same buffers', async () => {
    const { initiator, target } = await current().pair({ receives: 0, initiator: { sendDepth: 8 }, target: { receiveDepth: 8 } });
    const buffers = Array.from({ length: 8 }, () => target.arena.take(RECEIVE_LENGTH));
    const posted = new Map<number, Uint8Array>();
    for (const buffer of buffers) posted.set(target.postReceive(buffer), buffer);
    let next = 0;
    const total = 1000;
    const wrong: number[] = [];
    target.onCompleted = ({ id, length, status }) => {
      if (status !== 'success') return;
      const buffer = posted.get(id) as Uint8Array;
      if (length !== 4 + (next % 5000) || new DataView(buffer.buffer, buffer.byteOffset).getUint32(0) !== next) wrong.push(next);
      next++;
      posted.set(target.postReceive(buffer), buffer);
    };
    const message = Array.from({ length: 4 }, () => initiator.arena.take(RECEIVE_LENGTH));
    for (let index = 0; index < total; index += message.length) {
      const sends = message.map((buffer, at) => {
        new DataView(buffer.buffer, buffer.byteOffset).setUint32(0, index + at);
        return initiator.postSend(buffer.subarray(0, 4 + ((index + at) % 5000)));
      });
      await initiator.completion(sends.at(-1) as number);
      // As by credits: no more messages than there are receives.
      await target.until(() => next >= index, 'the messages');
    }
    await target.until(() => next === total, 'the last message');
    expect(wrong).toEqual([]);
  });

  it('throws RangeError beyond a depth, and goes on', async () => {
    const { initiator, target } = await current().pair({ receives: 0, target: { receiveDepth: 3 } });
    for (let index = 0; index < 3; index++) target.postReceive(target.arena.take(64));
    expect(() => target.postReceive(target.arena.take(64))).toThrow(RangeError);
    initiator.postSend(initiator.arena.take(10, 1));
    await target.until(() => target.completions.length === 1, 'the message');
    target.postReceive(target.arena.take(64));
  });

  it('throws TypeError for bytes that are not in memory of its own', async () => {
    const { initiator } = await current().pair();
    const foreign = new Uint8Array(64);
    const own = initiator.arena.take(64);
    expect(() => initiator.postReceive(foreign)).toThrow(TypeError);
    expect(() => initiator.postSend(foreign)).toThrow(TypeError);
    expect(() => initiator.postSend(own, foreign)).toThrow(TypeError);
    expect(() => initiator.postWrite(foreign, { tag: 1, address: 0n })).toThrow(TypeError);
    expect(() => initiator.postRead(foreign, { tag: 1, address: 0n })).toThrow(TypeError);
    expect(() => initiator.advertise(foreign, 'remote-read')).toThrow(TypeError);
  });

  it('ends the connection for a message that is longer than the receive, and writes nothing behind it', async () => {
    const { initiator, target } = await current().pair({ receives: 0 });
    const buffer = target.arena.take(1024, 0xee);
    target.postReceive(buffer.subarray(0, 100));
    initiator.postSend(initiator.arena.take(101, 0x11));
    await endsForBreach({ initiator, target }, traits);
    expect(buffer.subarray(100).every((byte) => byte === 0xee)).toBe(true);
    expect(target.statuses()).not.toContain('success');
  });

  it.runIf(traits.endsWithoutReceive)('ends the connection for a message without a receive', async () => {
    const { initiator, target } = await current().pair({ receives: 0 });
    initiator.postSend(initiator.arena.take(10, 1));
    await endsForBreach({ initiator, target }, traits);
  });
};

/** Answers each of `rounds` messages, and counts them. */
function echo(end: RdmaEnd, rounds: number): () => number {
  let count = 0;
  const buffers = new Map<number, Uint8Array>();
  const post = (buffer: Uint8Array) => buffers.set(end.postReceive(buffer), buffer);
  post(end.arena.take(64));
  post(end.arena.take(64));
  const answer = end.arena.take(16, 9);
  end.onCompleted = ({ id, opcode, status }) => {
    if (opcode !== 'receive' || status !== 'success') return;
    post(buffers.get(id) as Uint8Array);
    if (++count < rounds) end.postSend(answer);
  };
  return () => count;
}

function fill(bytes: Uint8Array, offset: number): Uint8Array {
  bytes.set(offsetPattern(offset, bytes.length));
  return bytes;
}
