/**
 * The bare end of an RDMA connection, played by a test: it posts receives, keeps the messages that come, and sends,
 * writes and reads what it is told to, also what no well-behaved peer would.
 */

import type {
  Completion,
  QueuePair,
  QueuePairEvents,
  QueuePairOptions,
  RdmaMemory,
  RemoteMemory,
} from '../../src/iser/rdma/provider.ts';

const RECEIVES = 64;
const MESSAGE_LENGTH = 16 * 1024;

/** A message that has come. */
export interface ReceivedMessage {
  readonly bytes: Uint8Array;
  readonly invalidated: number | undefined;
}

export class RdmaPeer implements QueuePairEvents {
  readonly #memory: RdmaMemory;
  readonly #receives: Uint8Array[] = [];
  readonly #inbox: ReceivedMessage[] = [];
  readonly #waiting: ((message: ReceivedMessage) => void)[] = [];
  readonly #posted = new Map<number, (completion: Completion) => void>();
  #nextId = 1;
  #queuePair: QueuePair | undefined;
  /** Resolves with the error that the connection ended with. */
  readonly whenClosed: Promise<Error | undefined>;
  #resolveClosed: (error: Error | undefined) => void = () => {};

  constructor(memory: RdmaMemory) {
    this.#memory = memory;
    for (let id = 0; id < RECEIVES; id++) this.#receives.push(this.memoryFor(MESSAGE_LENGTH));
    this.whenClosed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  options(privateData: Uint8Array): QueuePairOptions {
    return {
      sendDepth: 256,
      receiveDepth: RECEIVES,
      advertisementDepth: 256,
      ird: 16,
      ord: 16,
      crc: true,
      privateData,
      receives: this.#receives.map((bytes, id) => ({ id, bytes })),
    };
  }

  open(queuePair: QueuePair): void {
    this.#queuePair = queuePair;
  }

  get queuePair(): QueuePair {
    if (this.#queuePair === undefined) throw new Error('not connected');
    return this.#queuePair;
  }

  /** Zeroed memory of the provider's. */
  memoryFor(length: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#memory.allocate(length), 0, length);
  }

  /** Messages that have come and were not asked for yet. */
  get received(): number {
    return this.#inbox.length;
  }

  next(): Promise<ReceivedMessage> {
    const message = this.#inbox.shift();
    return message === undefined ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve(message);
  }

  send(message: Uint8Array, invalidate?: number): Promise<Completion> {
    return this.#post((id) => this.queuePair.postSend(id, this.#copy(message), undefined, invalidate));
  }

  write(data: Uint8Array, to: RemoteMemory): Promise<Completion> {
    return this.#post((id) => this.queuePair.postWrite(id, this.#copy(data), to));
  }

  async read(length: number, from: RemoteMemory): Promise<Uint8Array> {
    const sink = this.memoryFor(length);
    const { status } = await this.#post((id) => this.queuePair.postRead(id, sink, from));
    if (status !== 'success') throw new Error(`the RDMA Read ${status}`);
    return sink;
  }

  #copy(bytes: Uint8Array): Uint8Array {
    const copy = this.memoryFor(bytes.length);
    copy.set(bytes);
    return copy;
  }

  #post(post: (id: number) => void): Promise<Completion> {
    const id = this.#nextId++;
    return new Promise((resolve) => {
      this.#posted.set(id, resolve);
      post(id);
    });
  }

  completed(completion: Completion): void {
    if (completion.opcode !== 'receive') {
      this.#posted.get(completion.id)?.({ ...completion });
      this.#posted.delete(completion.id);
      return;
    }
    if (completion.status !== 'success') return;
    const buffer = this.#receives[completion.id];
    if (buffer === undefined) throw new Error(`no receive ${completion.id}`);
    const message = { bytes: buffer.slice(0, completion.length), invalidated: completion.invalidated };
    this.queuePair.postReceive(completion.id, buffer);
    const waiter = this.#waiting.shift();
    if (waiter === undefined) this.#inbox.push(message);
    else waiter(message);
  }

  batchEnded(): void {}

  closed(error: Error | undefined): void {
    this.#resolveClosed(error);
  }
}
