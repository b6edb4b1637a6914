/**
 * The scene for a peer that breaks a rule: an iwarp connection with something of everything in force, another one beside it that must
 * not notice, and memory around all of it that must not change.
 */

import { expect } from 'vitest';
import type { Advertisement } from '../../src/iser/rdma/provider.ts';
import type { ReadRequest } from './iwarp-codec.ts';
import { IwarpFixture } from './iwarp-fixture.ts';
import type { IwarpPeer } from './iwarp-peer.ts';
import { SeededRandom } from './seeded-random.ts';

/** Length of everything that is advertised. */
export const RUN = 4096;
export const some = new SeededRandom(7).bytes(RUN);

/** A connection with something of everything in force, and a second one beside it that must not notice. */
export interface Stage {
  readonly fixture: IwarpFixture;
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

export interface Malice {
  readonly name: string;
  /** Layer, error type and code of the Terminate that the RFCs want. */
  readonly terminate: string;
  /** What the user is told. */
  readonly error: RegExp;
  readonly act: (stage: Stage) => void;
  /** Memory that the peer may write and has written, although the connection ended. */
  readonly mayChange?: (stage: Stage) => Uint8Array[];
}

export const at = (advertisement: Advertisement, offset = 0): bigint => BigInt(advertisement.address) + BigInt(offset);

/** Plays the scene, with iwarp as the `role`: the connection must end as `malice` says, and nothing else may happen. */
export async function expectToEnd(role: 'initiator' | 'responder', malice: Malice): Promise<void> {
  await using neighbour = await IwarpFixture.open({ role });
  const foreignRun = neighbour.memory.run(RUN);
  const foreign = neighbour.queuePair.advertise(foreignRun, 'remote-write');
  await using fixture = await IwarpFixture.open({ role });
  const stage = await setTheStage(fixture, foreign);

  malice.act(stage);

  const verdict = await fixture.peer.verdict();
  const ended = await fixture.events.ended();
  expect(verdict).toMatchObject({ terminate: malice.terminate, ending: 'fin' });
  expect(ended?.message).toMatch(malice.error);
  expect(ended).toMatchObject({ code: 'protocol-error' });
  for (const run of malice.mayChange?.(stage) ?? []) fixture.memory.accept(run);
  expect(fixture.memory.changes()).toEqual([]);
  expect(neighbour.memory.changes()).toEqual([]);
  expectAllCompletedOnce(fixture);
  await expectToWork(neighbour, foreign, foreignRun);
}

async function setTheStage(fixture: IwarpFixture, foreign: Advertisement): Promise<Stage> {
  const { peer, queuePair, memory } = fixture;
  const writableRun = memory.run(RUN);
  const sink = memory.run(RUN);
  const writable = queuePair.advertise(writableRun, 'remote-write');
  const readable = queuePair.advertise(memory.run(RUN), 'remote-read');
  const revoked = queuePair.advertise(memory.run(RUN), 'remote-write');
  queuePair.revoke(revoked.tag);
  // The first message comes from the initiator; it lets a responder send.
  await fixture.settle(0);
  queuePair.postRead(100, sink, { tag: 0x77, address: 0x1000n });
  const read = await peer.receiveReadRequest();
  return { fixture, peer, writable, readable, revoked, read, sink, foreign };
}

/** Receives from 1 on and the Read were posted and had not completed before. */
function expectAllCompletedOnce({ events, receives }: IwarpFixture): void {
  const ids = events.completions.map(({ id }) => id);
  expect(ids.toSorted((one, other) => one - other)).toEqual([...receives.keys(), 100]);
  expect(events.completions.find(({ id }) => id === 100)?.status).not.toBe('success');
}

async function expectToWork(fixture: IwarpFixture, advertisement: Advertisement, run: Uint8Array): Promise<void> {
  fixture.peer.write(advertisement.tag, at(advertisement), some);
  await fixture.settle(0);
  expect(run).toEqual(some);
  fixture.memory.accept(run);
  expect(fixture.memory.changes()).toEqual([]);
}
