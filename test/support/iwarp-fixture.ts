/**
 * A queue pair of the iwarp provider with a hand-played peer at the other end of its TCP connection, in either role, and guarded
 * memory. What the queue pair reports is written down and can be waited for.
 */

import { iwarpProvider, rdmaMemory } from '../../src/iser/rdma/native-provider.ts';
import type {
  Completion,
  ConnectionRequest,
  QueuePair,
  QueuePairEvents,
  QueuePairOptions,
  RdmaListener,
} from '../../src/iser/rdma/provider.ts';
import { GuardedMemory } from './guarded-memory.ts';
import { IwarpPeer, type MpaOptions, within } from './iwarp-peer.ts';

export interface FixtureOptions {
  /** What the provider is: the end that connects, or the one that listens. */
  readonly role: 'initiator' | 'responder';
  readonly queuePair?: Partial<QueuePairOptions>;
  /** The peer's part of the set-up. */
  readonly mpa?: MpaOptions;
  /** Receives that are posted from the start, with ids from 0, and how long they are. */
  readonly receives?: number;
  readonly receiveLength?: number;
}

/** Writes down what a queue pair reports. */
export class RecordedEvents implements QueuePairEvents {
  readonly completions: Completion[] = [];
  #ending: { readonly error: Error | undefined } | undefined;
  #wake: (() => void)[] = [];

  completed(completion: Completion): void {
    if (this.#ending !== undefined) throw new Error('completion after the end');
    this.completions.push({ ...completion });
    this.#changed();
  }

  batchEnded(): void {}

  closed(error: Error | undefined): void {
    if (this.#ending !== undefined) throw new Error('closed twice');
    this.#ending = { error };
    this.#changed();
  }

  get isClosed(): boolean {
    return this.#ending !== undefined;
  }

  /** Why the connection ended, once it has; undefined: in order. */
  async ended(patienceMs?: number): Promise<Error | undefined> {
    while (this.#ending === undefined) await this.#change('the end of the queue pair', patienceMs);
    return this.#ending.error;
  }

  /** The completion of the work request with that id. */
  async completion(id: number): Promise<Completion> {
    for (;;) {
      const found = this.completions.find((completion) => completion.id === id);
      if (found !== undefined) return found;
      if (this.#ending !== undefined)
        throw this.#ending.error ?? new Error(`the connection ended before request ${id} completed`);
      await this.#change(`the completion of request ${id}`);
    }
  }

  #change(what: string, patienceMs?: number): Promise<void> {
    return within(new Promise<void>((resolve) => this.#wake.push(resolve)), what, patienceMs);
  }

  #changed(): void {
    const waiting = this.#wake;
    this.#wake = [];
    for (const wake of waiting) wake();
  }
}

export class IwarpFixture implements AsyncDisposable {
  readonly peer: IwarpPeer;
  readonly queuePair: QueuePair;
  readonly events: RecordedEvents;
  readonly memory: GuardedMemory;
  /** The memory of the receives, by id. */
  readonly receives: readonly Uint8Array<ArrayBuffer>[];

  private constructor(
    peer: IwarpPeer,
    queuePair: QueuePair,
    events: RecordedEvents,
    memory: GuardedMemory,
    receives: readonly Uint8Array<ArrayBuffer>[],
  ) {
    this.peer = peer;
    this.queuePair = queuePair;
    this.events = events;
    this.memory = memory;
    this.receives = receives;
  }

  /** An established connection. As the responder the provider has had a first message from the peer already if `receives` is not 0. */
  static async open(options: FixtureOptions): Promise<IwarpFixture> {
    const memory = new GuardedMemory(rdmaMemory());
    const receives = Array.from({ length: options.receives ?? 4 }, () => memory.run(options.receiveLength ?? 1024));
    const posted = receives.map((bytes, id) => ({ id, bytes }));
    const terms = queuePairOptions({ receives: posted, ...options.queuePair });
    const events = new RecordedEvents();
    const connect = options.role === 'initiator' ? connectToPeer : acceptPeer;
    const { peer, queuePair } = await connect(terms, events, options.mpa);
    return new IwarpFixture(peer, queuePair, events, memory, receives);
  }

  /** The bytes of the message in receive `id`. */
  async received(id: number): Promise<Uint8Array> {
    const completion = await this.events.completion(id);
    if (completion.status !== 'success') throw new Error(`receive ${id}: ${completion.status}`);
    const receive = this.receives[id];
    if (receive === undefined) throw new Error(`no receive ${id}`);
    this.memory.accept(receive, 0, completion.length);
    return receive.slice(0, completion.length);
  }

  /** Waits until the provider has taken all that was sent: a message arrives behind it. Uses receive `id`. */
  async settle(id: number): Promise<void> {
    this.peer.send(new Uint8Array([id]));
    await this.received(id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.queuePair.close('abrupt');
    await this.peer[Symbol.asyncDispose]();
    await this.events.ended();
    this.memory.free();
  }
}

/** Terms for a test's queue pair. */
export function queuePairOptions(options: Partial<QueuePairOptions> = {}): QueuePairOptions {
  return {
    sendDepth: 32,
    receiveDepth: 32,
    advertisementDepth: 32,
    ird: 4,
    ord: 4,
    crc: true,
    privateData: new Uint8Array(0),
    receives: [],
    ...options,
  };
}

type Connected = Promise<{ readonly peer: IwarpPeer; readonly queuePair: QueuePair }>;

async function connectToPeer(terms: QueuePairOptions, events: QueuePairEvents, mpa?: MpaOptions): Connected {
  await using listener = await IwarpPeer.listen();
  const connecting = iwarpProvider().connect(listener.endpoint, { ...terms, timeoutMs: 5000 }, events);
  const peer = await listener.accept();
  await peer.accepted(mpa);
  return { peer, queuePair: await connecting };
}

async function acceptPeer(terms: QueuePairOptions, events: QueuePairEvents, mpa?: MpaOptions): Connected {
  await using listening = await RequestQueue.listen();
  const peer = await IwarpPeer.connect(listening.endpoint);
  peer.sendRequest(mpa);
  const accepting = (await listening.next()).accept(terms, events);
  peer.crc = (await peer.receiveMpa()).crc;
  return { peer, queuePair: await accepting };
}

/** A listener of the iwarp provider whose requests are answered by the test. */
export class RequestQueue implements AsyncDisposable {
  readonly #listener: RdmaListener;
  readonly #requests: ConnectionRequest[];
  #wake: () => void = () => {};

  private constructor(listener: RdmaListener, requests: ConnectionRequest[]) {
    this.#listener = listener;
    this.#requests = requests;
  }

  static async listen(): Promise<RequestQueue> {
    const requests: ConnectionRequest[] = [];
    let wake = () => {};
    const listener = await iwarpProvider().listen({ host: '127.0.0.1', port: 0 }, (request) => {
      requests.push(request);
      wake();
    });
    const queue = new RequestQueue(listener, requests);
    wake = () => queue.#wake();
    return queue;
  }

  get endpoint() {
    return this.#listener.endpoint;
  }

  /** How many wait for an answer. */
  get length(): number {
    return this.#requests.length;
  }

  async next(): Promise<ConnectionRequest> {
    for (;;) {
      const request = this.#requests.shift();
      if (request !== undefined) return request;
      const activity = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      await within(activity, 'a connection request');
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#listener.close();
  }
}
