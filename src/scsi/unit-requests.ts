/**
 * What is asked of a logical unit: the blocks that a request touches are locked while it is carried out, over retries and
 * the loss of the nexus (I7), and how it ended, and when, is counted once. Knows no command: what a request does is
 * for whoever makes it.
 */

import type { Clock } from '../clock.ts';
import { IserfsError } from '../errors.ts';
import { abortError } from './abort.ts';
import type { BlockDeviceInfo } from './block-device.ts';
import type { Ended, Failure } from './ended.ts';
import { type LockMode, RangeLock } from './range-lock.ts';
import type { RequestKind, RequestStatistics } from './request-statistics.ts';

/** A read or write. */
export interface UnitRequest {
  readonly kind: 'read' | 'write';
  readonly offset: number;
  readonly length: number;
  readonly signal: AbortSignal | undefined;
  readonly startedAt: number;
  /** Carries it out, with its blocks locked. Not called where there is nothing to move. */
  readonly begin: (ended: Ended) => void;
  /** Forces what was written, without the lock. */
  readonly force: (() => Promise<void>) | undefined;
  readonly told: Ended;
}

export interface UnitRequestsOptions {
  /** Portal, target and LUN, for messages. */
  readonly description: string;
  /** The unit as it is now. */
  readonly info: () => BlockDeviceInfo;
  readonly clock: Clock;
  readonly statistics: RequestStatistics;
}

export class UnitRequests {
  readonly #options: UnitRequestsOptions;
  readonly #ranges = new RangeLock();

  constructor(options: UnitRequestsOptions) {
    this.#options = options;
  }

  /** Carries a request out, as soon as its blocks are free. What is wrong with it is told like any failure. */
  start(request: UnitRequest): void {
    const { kind, offset, length, signal } = request;
    const mode = kind === 'read' ? 'shared' : 'exclusive';
    let release: (() => void) | undefined;
    try {
      if (kind === 'write') this.checkWritable();
      release = this.#tryLock(offset, length, mode, signal);
    } catch (error) {
      this.#failed(request, error);
      return;
    }
    if (release !== undefined) this.#run(request, release);
    else
      this.lock(offset, length, mode, signal).then(
        (late) => this.#run(request, late),
        (error: unknown) => this.#failed(request, error),
      );
  }

  /** Counts what is no mere read or write, as one request that moves nothing. */
  async counted(kind: RequestKind, work: () => Promise<void>): Promise<void> {
    const { clock, statistics } = this.#options;
    const start = clock.now();
    try {
      await work();
    } catch (error) {
      statistics.failed(kind, error, clock.now() - start);
      throw error;
    }
    statistics.succeeded(kind, 0, clock.now() - start);
  }

  /** Locks the blocks that a range touches; resolves with what unlocks them. Rejects as `blocksOf` throws, and when `signal` is aborted. */
  async lock(offset: number, length: number, mode: LockMode, signal: AbortSignal | undefined): Promise<() => void> {
    const { start, end } = this.blocksOf(offset, length);
    try {
      return await this.#ranges.acquire(start, end - start, mode, signal);
    } catch (error) {
      throw signal?.aborted === true ? abortError(signal) : error;
    }
  }

  /** The blocks that a range touches, in bytes. Throws `out-of-range`. */
  blocksOf(offset: number, length: number): { readonly start: number; readonly end: number } {
    const { description, info } = this.#options;
    const { size, blockLength } = info();
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + length > size) {
      throw new IserfsError('out-of-range', `${description}: ${length} bytes at ${offset} are not within ${size} bytes`);
    }
    return { start: offset - (offset % blockLength), end: Math.ceil((offset + length) / blockLength) * blockLength };
  }

  /** Throws `write-protected`. */
  checkWritable(): void {
    const { description, info } = this.#options;
    if (info().writeProtected) throw new IserfsError('write-protected', `${description} is write protected`);
  }

  /** As `lock` where nobody is in the way; undefined where it has to wait. */
  #tryLock(offset: number, length: number, mode: LockMode, signal: AbortSignal | undefined): (() => void) | undefined {
    if (signal?.aborted === true) throw abortError(signal);
    const { start, end } = this.blocksOf(offset, length);
    return this.#ranges.tryAcquire(start, end - start, mode);
  }

  #run(request: UnitRequest, release: () => void): void {
    const ended = (failure?: Failure) => {
      release();
      if (failure !== undefined) this.#failed(request, failure.error);
      else if (request.force === undefined) this.#succeeded(request);
      else
        request.force().then(
          () => this.#succeeded(request),
          (error: unknown) => this.#failed(request, error),
        );
    };
    try {
      if (request.length > 0) request.begin(ended);
      else ended();
    } catch (error) {
      ended({ error });
    }
  }

  #succeeded({ kind, length, startedAt, told }: UnitRequest): void {
    const { clock, statistics } = this.#options;
    statistics.succeeded(kind, length, clock.now() - startedAt);
    told();
  }

  #failed({ kind, startedAt, told }: UnitRequest, error: unknown): void {
    const { clock, statistics } = this.#options;
    statistics.failed(kind, error, clock.now() - startedAt);
    told({ error });
  }
}
