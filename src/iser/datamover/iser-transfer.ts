/**
 * Data of one `putData` or `getData` at the target on its way by RDMA: one work request, or several where the data has to
 * be copied through memory of our own. It knows tags, addresses and bytes, no tasks.
 */

import { type Placed, UNPLACED } from '../../bag.ts';
import { IserfsError } from '../../errors.ts';
import type { PoolBuffer } from '../../scsi/buffer-pool.ts';
import type { QueuePair, RemoteMemory } from '../rdma/provider.ts';
import type { IserBuffers } from './iser-buffers.ts';
import type { Work } from './iser-work.ts';

/** `write`: RDMA Write to the initiator; `read`: RDMA Read from it. */
export type Direction = 'write' | 'read';

/** Data that has to be copied moves in parts of this length. */
const COPIED_PART = 256 * 1024;
/** So much of it is in memory of our own at a time. */
const MOST_COPIED = 4 * 1024 * 1024;

/** The registered memory through which a connection copies, and its bound. */
export class CopyMemory {
  readonly #buffers: IserBuffers;
  #inUse = 0;

  constructor(buffers: IserBuffers) {
    this.#buffers = buffers;
  }

  hasRoom(length: number): boolean {
    return this.#inUse + length <= MOST_COPIED;
  }

  needsCopy(data: Uint8Array): boolean {
    return !this.#buffers.owns(data);
  }

  acquire(length: number): PoolBuffer {
    const run = this.#buffers.acquireRun(length);
    this.#inUse += length;
    return run;
  }

  release(run: PoolBuffer): void {
    this.#inUse -= run.bytes.length;
    run.release();
  }
}

/** One `putData` or `getData`: settles when the last of its parts has ended, whatever became of them. */
export class Transfer implements Placed {
  place = UNPLACED;
  readonly direction: Direction;
  readonly parts: readonly TransferPart[];
  readonly #settled: (failure: Error | undefined) => void;
  #partsLeft: number;
  #failure: Error | undefined;

  /** `remote`: where `data`, which is not empty, begins at the initiator. `settled` is called once. */
  constructor(
    direction: Direction,
    data: Uint8Array,
    remote: RemoteMemory,
    copies: CopyMemory,
    settled: (failure: Error | undefined) => void,
  ) {
    this.direction = direction;
    this.#settled = settled;
    const isCopied = copies.needsCopy(data);
    const partLength = isCopied ? COPIED_PART : data.length;
    const parts: TransferPart[] = [];
    for (let offset = 0; offset < data.length; offset += partLength) {
      const part = data.subarray(offset, offset + partLength);
      parts.push(new TransferPart(this, part, addressIn(remote, offset), isCopied ? copies : undefined));
    }
    this.parts = parts;
    this.#partsLeft = parts.length;
  }

  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /** It is not to succeed any more. It settles all the same when its parts have ended, not before. */
  fail(reason: Error): void {
    this.#failure ??= reason;
  }

  partEnded(): void {
    this.#partsLeft--;
    if (this.#partsLeft === 0) this.#settled(this.#failure);
  }
}

export class TransferPart implements Work {
  readonly transfer: Transfer;
  readonly #data: Uint8Array;
  readonly #remote: RemoteMemory;
  /** Undefined where the data moves from or to where it lies. */
  readonly #copies: CopyMemory | undefined;
  #copy: PoolBuffer | undefined;

  constructor(transfer: Transfer, data: Uint8Array, remote: RemoteMemory, copies: CopyMemory | undefined) {
    this.transfer = transfer;
    this.#data = data;
    this.#remote = remote;
    this.#copies = copies;
  }

  /** Whether there is memory to post it with. */
  get mayPost(): boolean {
    return this.#copies === undefined || this.#copies.hasRoom(this.#data.length);
  }

  post(queuePair: QueuePair, id: number): void {
    this.#copy = this.#copies?.acquire(this.#data.length);
    const bytes = this.#copy?.bytes ?? this.#data;
    if (this.transfer.direction === 'read') {
      queuePair.postRead(id, bytes, this.#remote);
      return;
    }
    this.#copy?.bytes.set(this.#data);
    queuePair.postWrite(id, bytes, this.#remote);
  }

  ended(isDone: boolean): void {
    const copy = this.#copy;
    this.#copy = undefined;
    if (copy !== undefined) {
      const isWanted = isDone && this.transfer.direction === 'read' && !this.transfer.hasFailed;
      if (isWanted) this.#data.set(copy.bytes);
      this.#copies?.release(copy);
    }
    if (!isDone) this.transfer.fail(new IserfsError('connection-lost', 'the connection ended before the data had moved'));
    this.transfer.partEnded();
  }
}

/** `offset` bytes further on in the peer's memory. */
export function addressIn({ tag, address }: RemoteMemory, offset: number): RemoteMemory {
  return { tag, address: address + BigInt(offset) };
}
