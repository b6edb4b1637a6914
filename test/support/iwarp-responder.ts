/** A listener of the iwarp provider that accepts on given terms, for tests in which peers come and go. */

import { expect } from 'vitest';
import { rdmaMemory } from '../../src/iser/rdma/native-provider.ts';
import type { QueuePair, QueuePairOptions } from '../../src/iser/rdma/provider.ts';
import { GuardedMemory } from './guarded-memory.ts';
import { queuePairOptions, RecordedEvents, RequestQueue } from './iwarp-fixture.ts';
import { IwarpPeer } from './iwarp-peer.ts';

const none = new Uint8Array(0);

export class Responder implements AsyncDisposable {
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
