/**
 * Registered memory of the iSER data mover's own: buffers for messages, and runs for data whose owner brought
 * memory that is not registered. One for all connections of a transport. Knows lengths only.
 */

import { BufferPool, MAX_RUN, type PoolBuffer } from '../../scsi/buffer-pool.ts';
import type { RdmaMemory } from '../rdma/provider.ts';

/** A run that message buffers are cut from. */
interface Slab {
  readonly run: PoolBuffer;
  readonly free: MessageBuffer[];
  /** Buffers in all. */
  readonly count: number;
}

const SLAB_LENGTH = 128 * 1024;
/** Buffers begin at such offsets, so that no two share a cache line. */
const ALIGNMENT = 64;

export class IserBuffers {
  readonly #memory: RdmaMemory;
  readonly #pool: BufferPool;
  readonly #messageLength: number;
  /** Those that have a free buffer. */
  readonly #available = new Set<Slab>();
  #messagesInUse = 0;
  #bytesInRuns = 0;

  /** @param messageLength of each message buffer, at most `MAX_RUN` */
  constructor(memory: RdmaMemory, messageLength: number) {
    this.#memory = memory;
    this.#pool = new BufferPool(memory);
    this.#messageLength = messageLength;
  }

  /** Message buffers that have an owner. */
  get messagesInUse(): number {
    return this.#messagesInUse;
  }

  /** Bytes of runs that have an owner. */
  get bytesInRuns(): number {
    return this.#bytesInRuns;
  }

  /** Whether `data` can be posted and advertised as it is. */
  owns(data: Uint8Array): boolean {
    return this.#memory.owns(data.buffer);
  }

  /** A buffer for one message, with undefined contents. */
  acquireMessage(): MessageBuffer {
    const slab = this.#slab();
    const buffer = slab.free.pop() as MessageBuffer;
    if (slab.free.length === 0) this.#available.delete(slab);
    this.#messagesInUse++;
    buffer.take();
    return buffer;
  }

  /** A run with undefined contents. What is longer than a pool's run gets memory of its own: it comes from no caller that obeys `maxTransferLength`. */
  acquireRun(length: number): PoolBuffer {
    const run = length <= MAX_RUN ? this.#pool.acquire(length) : this.#ownArena(length);
    this.#bytesInRuns += length;
    return {
      bytes: run.bytes,
      release: () => {
        run.release();
        this.#bytesInRuns -= length;
      },
    };
  }

  #ownArena(length: number): PoolBuffer {
    const arena = this.#memory.allocate(length);
    return { bytes: new Uint8Array(arena, 0, length), release: () => this.#memory.free(arena) };
  }

  #slab(): Slab {
    for (const slab of this.#available) return slab;
    const run = this.#pool.acquire(Math.max(SLAB_LENGTH, this.#messageLength));
    const stride = Math.ceil(this.#messageLength / ALIGNMENT) * ALIGNMENT;
    const count = Math.max(1, Math.floor(run.bytes.length / stride));
    const slab: Slab = { run, free: [], count };
    for (let index = count - 1; index >= 0; index--) {
      const bytes = run.bytes.subarray(index * stride, index * stride + this.#messageLength);
      slab.free.push(new MessageBuffer(bytes, (buffer) => this.#giveBack(slab, buffer)));
    }
    this.#available.add(slab);
    return slab;
  }

  #giveBack(slab: Slab, buffer: MessageBuffer): void {
    this.#messagesInUse--;
    slab.free.push(buffer);
    this.#available.add(slab);
    // One is kept, so that a steady load does not come and go.
    if (slab.free.length < slab.count || this.#available.size === 1) return;
    this.#available.delete(slab);
    slab.run.release();
  }
}

/** Memory for one message. Whoever acquired it owns it until `release()`. */
export class MessageBuffer implements PoolBuffer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #giveBack: (buffer: MessageBuffer) => void;
  #isOwned = false;

  constructor(bytes: Uint8Array<ArrayBuffer>, giveBack: (buffer: MessageBuffer) => void) {
    this.bytes = bytes;
    this.#giveBack = giveBack;
  }

  take(): void {
    this.#isOwned = true;
  }

  release(): void {
    if (!this.#isOwned) throw new Error('a message buffer was released twice');
    this.#isOwned = false;
    this.#giveBack(this);
  }
}
