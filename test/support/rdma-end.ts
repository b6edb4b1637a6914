/**
 * One end of an RDMA connection in a test. It posts with ids of its own making, remembers what has been posted, and finds out
 * when the rules of events are broken: a completion for nothing, or twice, or an event after `closed`.
 */

import type {
  Completion,
  CompletionStatus,
  Opcode,
  PostedReceive,
  QueuePair,
  QueuePairEvents,
  QueuePairOptions,
  RdmaMemory,
  RemoteMemory,
} from '../../src/iser/rdma/provider.ts';

export const ordinaryOptions: QueuePairOptions = {
  sendDepth: 64,
  receiveDepth: 64,
  advertisementDepth: 64,
  ird: 16,
  ord: 16,
  crc: true,
  privateData: new Uint8Array(0),
  receives: [],
};

interface Posted {
  readonly opcode: Opcode;
  completion: Completion | undefined;
}

/** Memory with a bump allocator: nothing of it is used twice, so whoever writes where it should not is seen. */
export class TestArena {
  readonly bytes: Uint8Array<ArrayBuffer>;
  #used = 0;

  constructor(memory: RdmaMemory, length: number) {
    this.bytes = new Uint8Array(memory.allocate(length));
  }

  /** `length` bytes, each of them `fill`, or zero. */
  take(length: number, fill = 0): Uint8Array<ArrayBuffer> {
    const taken = this.bytes.subarray(this.#used, this.#used + length);
    if (taken.length < length) throw new Error('the test needs a larger arena');
    this.#used += length;
    return fill === 0 ? taken : taken.fill(fill);
  }
}

export class RdmaEnd {
  /** For `connect` and `accept`. */
  readonly events: QueuePairEvents = {
    completed: (completion) => this.#completed(completion),
    batchEnded: () => this.#batchEnded(),
    closed: (error) => this.#closed(error),
  };
  readonly arena: TestArena;
  /** In order, copies. */
  readonly completions: Completion[] = [];
  /** What was wrong with the events that came. */
  readonly faults: string[] = [];
  batches = 0;
  isClosed = false;
  error: Error | undefined;
  /** Called inside of events. */
  onCompleted: ((completion: Completion) => void) | undefined;
  onBatchEnded: (() => void) | undefined;
  #queuePair: QueuePair | undefined;
  #nextId = 1;
  #inBatch = false;
  readonly #posted = new Map<number, Posted>();
  #wakers: (() => void)[] = [];

  constructor(memory: RdmaMemory, arenaLength = 4 * 1024 * 1024) {
    this.arena = new TestArena(memory, arenaLength);
  }

  get queuePair(): QueuePair {
    if (this.#queuePair === undefined) throw new Error('there is no queue pair yet');
    return this.#queuePair;
  }

  /** To be called as soon as the promise of the queue pair has resolved. */
  attach(queuePair: QueuePair): this {
    this.#queuePair = queuePair;
    return this;
  }

  /** `count` receives to post with the options, and their memory by id. */
  receives(count: number, length: number): PostedReceive[] {
    return Array.from({ length: count }, () => {
      const bytes = this.arena.take(length);
      return { id: this.#post('receive'), bytes };
    });
  }

  postReceive(bytes: Uint8Array): number {
    return this.#attempt('receive', (id) => this.queuePair.postReceive(id, bytes));
  }

  postSend(first: Uint8Array, second?: Uint8Array, invalidate?: number): number {
    return this.#attempt('send', (id) => this.queuePair.postSend(id, first, second, invalidate));
  }

  postWrite(bytes: Uint8Array, to: RemoteMemory): number {
    return this.#attempt('write', (id) => this.queuePair.postWrite(id, bytes, to));
  }

  postRead(bytes: Uint8Array, from: RemoteMemory): number {
    return this.#attempt('read', (id) => this.queuePair.postRead(id, bytes, from));
  }

  /** Advertises `bytes` and says where they are in the peer's terms. */
  advertise(bytes: Uint8Array, access: 'remote-write' | 'remote-read'): RemoteMemory {
    const { tag, address } = this.queuePair.advertise(bytes, access);
    return { tag, address: BigInt(address) };
  }

  /** The completion of `id`, when it has come. */
  async completion(id: number): Promise<Completion> {
    await this.until(() => this.#posted.get(id)?.completion !== undefined || this.isClosed, `completion ${id}`);
    const completion = this.#posted.get(id)?.completion;
    if (completion === undefined) throw new Error(`${this.#posted.get(id)?.opcode} ${id} did not complete before the end`);
    return completion;
  }

  /** Resolves with the error when the connection has ended. */
  async closed(): Promise<Error | undefined> {
    await this.until(() => this.isClosed, 'the end of the connection');
    return this.error;
  }

  async until(condition: () => boolean, what: string): Promise<void> {
    const deadline = performance.now() + 20_000;
    while (!condition()) {
      const left = deadline - performance.now();
      if (left <= 0) throw new Error(`${what} did not come`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wakers.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  /** How the posted requests ended, in the order of posting. */
  statuses(): (CompletionStatus | undefined)[] {
    return [...this.#posted.values()].map(({ completion }) => completion?.status);
  }

  /** Posted and not completed. */
  get outstanding(): number {
    return [...this.#posted.values()].filter(({ completion }) => completion === undefined).length;
  }

  #completed(completion: Completion): void {
    if (this.isClosed) this.faults.push('a completion after the end');
    if (this.#queuePair === undefined) this.faults.push('a completion before there is a queue pair');
    const posted = this.#posted.get(completion.id);
    if (posted === undefined) this.faults.push(`a completion for nothing: ${completion.id}`);
    else if (posted.completion !== undefined) this.faults.push(`a second completion of ${completion.id}`);
    else if (posted.opcode !== completion.opcode) this.faults.push(`a ${posted.opcode} completed as ${completion.opcode}`);
    const { id, opcode, status, length, invalidated } = completion;
    const copy = { id, opcode, status, length, invalidated };
    if (posted !== undefined) posted.completion = copy;
    this.completions.push(copy);
    this.#inBatch = true;
    this.onCompleted?.(copy);
    this.#wake();
  }

  #batchEnded(): void {
    if (this.isClosed) this.faults.push('a batch ended after the end');
    if (!this.#inBatch) this.faults.push('a batch ended that had nothing in it');
    this.#inBatch = false;
    this.batches++;
    this.onBatchEnded?.();
    this.#wake();
  }

  #closed(error: Error | undefined): void {
    if (this.isClosed) this.faults.push('a second end');
    if (this.#inBatch) this.faults.push('the end came in the middle of a batch');
    if (this.outstanding > 0) this.faults.push(`${this.outstanding} requests did not complete before the end`);
    this.isClosed = true;
    this.error = error;
    this.#wake();
  }

  #post(opcode: Opcode): number {
    const id = this.#nextId++;
    this.#posted.set(id, { opcode, completion: undefined });
    return id;
  }

  #attempt(opcode: Opcode, post: (id: number) => void): number {
    const id = this.#post(opcode);
    try {
      post(id);
    } catch (error) {
      this.#posted.delete(id);
      throw error;
    }
    return id;
  }

  #wake(): void {
    const wakers = this.#wakers;
    this.#wakers = [];
    for (const wake of wakers) wake();
  }
}
