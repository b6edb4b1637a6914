/**
 * An `ImageFile` in memory whose writes and flushes a test can hold and fail.
 */

import { IserfsError } from '../../src/errors.ts';
import type { ImageFile } from '../../src/fuse/operations.ts';
import type { Lease, LeaseEnded } from '../../src/scsi/block-device.ts';
import { tell } from '../../src/scsi/ended.ts';
import type { StageWrite, WaitingWrite } from '../../src/scsi/write-staging.ts';

/** A call that waits for the test. */
export interface HeldCall {
  readonly offset: number;
  succeed(): void;
  fail(error: unknown): void;
}

export class MemoryImage implements ImageFile {
  readonly bytes: Uint8Array;
  info: { size: number; writeProtected: boolean };
  /** Leases that were given out and not yet released. */
  leases = 0;
  flushes = 0;
  /** `opened` and `closed`, in order. */
  readonly hooks: string[] = [];
  /** While true, writes wait in `heldWrites`. */
  holdsWrites = false;
  readonly heldWrites: HeldCall[] = [];
  /** While true, whoever seeks waits until it is given up. */
  holdsSeeks = false;
  /** While true, writes are taken before they end. */
  isStaging = false;
  /** What the next writes that are staged wait for before they are taken. */
  readonly room: WaitingWrite[] = [];
  /** What the next calls fail with, one each. */
  readonly readFailures: unknown[] = [];
  readonly writeFailures: unknown[] = [];
  readonly flushFailures: unknown[] = [];
  readonly openFailures: unknown[] = [];
  /** Who listens for failures of writes that were acknowledged. */
  readonly writeErrorListeners = new Set<(error: Error) => void>();

  constructor(size: number) {
    this.bytes = new Uint8Array(size).map((_, offset) => (offset * 7 + (offset >>> 8)) & 0xff);
    this.info = { size, writeProtected: false };
  }

  startRead(offset: number, length: number, ended: LeaseEnded): void {
    this.#read(offset, length).then(ended, (error: unknown) => ended(undefined, { error }));
  }

  async #read(offset: number, length: number): Promise<Lease> {
    if (this.readFailures.length > 0) throw this.readFailures.shift();
    if (offset < 0 || length <= 0 || offset + length > this.info.size) throw new Error(`read of ${length} bytes at ${offset}`);
    this.leases++;
    return {
      segments: [this.bytes.slice(offset, offset + length)],
      release: () => {
        this.leases--;
      },
    };
  }

  async write(offset: number, data: Uint8Array): Promise<void> {
    if (offset < 0 || data.length === 0 || offset + data.length > this.info.size)
      throw new Error(`write of ${data.length} bytes at ${offset}`);
    if (this.holdsWrites) {
      await new Promise<void>((succeed, fail) => this.heldWrites.push({ offset, succeed, fail }));
    }
    if (this.writeFailures.length > 0) throw this.writeFailures.shift();
    this.bytes.set(data, offset);
  }

  get stage(): StageWrite | undefined {
    if (!this.isStaging) return undefined;
    return (offset, data, ended) => {
      const taken = Uint8Array.from(data);
      const take = () => tell(this.write(offset, taken), ended);
      const waiting = this.room.shift();
      if (waiting === undefined) take();
      else void waiting.over.then((isTaken) => isTaken && take());
      return waiting;
    };
  }

  /** While true, ranges wait in `heldWrites` to be zeroed, until they are let go or given up. */
  async zero(offset: number, length: number, options: { readonly signal?: AbortSignal }): Promise<void> {
    if (this.holdsWrites) {
      await new Promise<void>((succeed, fail) => {
        this.heldWrites.push({ offset, succeed, fail });
        options.signal?.addEventListener('abort', () => fail(new IserfsError('aborted', 'given up')));
      });
    }
    if (this.writeFailures.length > 0) throw this.writeFailures.shift();
    this.bytes.fill(0, offset, offset + length);
  }

  /** Runs of 512 zeros are holes. */
  async seek(offset: number, what: 'data' | 'hole', options: { readonly signal?: AbortSignal }): Promise<number | undefined> {
    if (this.holdsSeeks) {
      await new Promise((_, fail) => {
        options.signal?.addEventListener('abort', () => fail(new IserfsError('aborted', 'given up')));
      });
    }
    for (let at = offset; at < this.info.size; at = at - (at % 512) + 512) {
      const block = at - (at % 512);
      const isHole = this.bytes.subarray(block, block + 512).every((byte) => byte === 0);
      if (isHole === (what === 'hole')) return at;
    }
    return what === 'hole' && offset < this.info.size ? this.info.size : undefined;
  }

  async flush(): Promise<void> {
    this.flushes++;
    if (this.flushFailures.length > 0) throw this.flushFailures.shift();
  }

  onWriteError(listener: (error: Error) => void): () => void {
    this.writeErrorListeners.add(listener);
    return () => this.writeErrorListeners.delete(listener);
  }

  async opened(): Promise<void> {
    this.hooks.push('opened');
    if (this.openFailures.length > 0) throw this.openFailures.shift();
  }

  closed(): void {
    this.hooks.push('closed');
  }
}
