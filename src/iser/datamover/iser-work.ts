/** Work requests of an iSER connection: what a data mover queues, and the numbers under which they are posted. */

import type { PoolBuffer } from '../../scsi/buffer-pool.ts';
import type { QueuePair } from '../rdma/provider.ts';

export interface Work {
  /** Hands it to the queue pair under `id`. Not called where the connection ends first. */
  post(queuePair: QueuePair, id: number): void;
  /** Nothing refers to its memory any more; called once. `isDone` is false where it failed, or was never posted. */
  ended(isDone: boolean): void;
}

/** What is posted and has not completed. Numbers are used again, so that they stay small. */
export class PendingWork {
  readonly #works: (Work | undefined)[] = [];
  readonly #freeIds: number[] = [];

  get count(): number {
    return this.#works.length - this.#freeIds.length;
  }

  add(work: Work): number {
    const id = this.#freeIds.pop() ?? this.#works.length;
    this.#works[id] = work;
    return id;
  }

  /** Throws where nothing is pending under `id`. */
  take(id: number): Work {
    const work = this.#works[id];
    if (work === undefined) throw new Error(`no work request ${id} is pending`);
    this.#works[id] = undefined;
    this.#freeIds.push(id);
    return work;
  }
}

/** A message that lies complete in memory of the data mover's own. */
export class MessageSend implements Work {
  readonly #buffer: PoolBuffer;
  readonly #length: number;
  readonly #invalidate: number | undefined;
  readonly #ended: () => void;

  /** Takes `buffer`, of which `length` bytes are to be sent, and with them `invalidate`, a tag of the peer's. `ended` is called once. */
  constructor(buffer: PoolBuffer, length: number, invalidate: number | undefined, ended: () => void) {
    this.#buffer = buffer;
    this.#length = length;
    this.#invalidate = invalidate;
    this.#ended = ended;
  }

  post(queuePair: QueuePair, id: number): void {
    queuePair.postSend(id, this.#buffer.bytes.subarray(0, this.#length), undefined, this.#invalidate);
  }

  ended(): void {
    this.#buffer.release();
    this.#ended();
  }
}
