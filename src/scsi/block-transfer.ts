/**
 * Moves byte ranges as READ and WRITE commands: cut to what the device takes, several in flight, partial
 * blocks by read-modify-write. The caller holds the lock on the blocks concerned. Writes to a volatile
 * cache leave a copy behind (`RetainedWrites`). Knows blocks, not why a command is repeated.
 */

import { IserfsError } from '../errors.ts';
import type { SharedMemory } from './block-device.ts';
import { type BlockRun, chunkBlocks, chunkRun, coveringBlocks } from './block-range.ts';
import { type BufferPool, MAX_RUN, type PoolBuffer, SharedRun } from './buffer-pool.ts';
import { readCdb, writeCdb } from './cdb.ts';
import type { CommandRunner, Passage } from './command-runner.ts';
import { type Ended, promised, tell } from './ended.ts';
import type { Gate } from './gate.ts';
import type { Characteristics } from './probe.ts';
import type { Reservation, RetainedWrite, RetainedWrites } from './retained-writes.ts';

export interface BlockTransferOptions {
  readonly runner: CommandRunner;
  readonly passage: Passage;
  readonly pool: BufferPool;
  readonly retained: RetainedWrites;
  readonly gate: Gate;
  /** Changes whenever what the device had cached may be lost. */
  readonly epoch: () => number;
  /** The device as it is now. */
  readonly device: () => Characteristics;
  /** Most bytes of one command at present, below the device's own limits. */
  readonly maxTransfer: () => number;
}

/** How commands address the device. */
interface Format {
  readonly blockLength: number;
  readonly cdbSize: 10 | 16;
  readonly chunkBlocks: number;
  readonly alignment: number;
}

/** READ(10) and WRITE(10) reach this LBA; the larger commands are for what lies beyond. */
const LAST_LBA_OF_10 = 0xffff_ffffn;
const MOST_BLOCKS_OF_10 = 0xffff;
/** An OPTIMAL TRANSFER LENGTH below this is a misunderstanding of the field. */
const LEAST_OPTIMAL_BYTES = 64 * 1024;
const REPLAY_DEPTH = 8;
const MOST_REPETITIONS = 16;

export class BlockTransfer {
  readonly #options: BlockTransferOptions;
  /** How commands address the device that was looked at last, within the bound of then. */
  #formatted: { readonly device: Characteristics; readonly maxTransfer: number; readonly format: Format } | undefined;

  constructor(options: BlockTransferOptions) {
    this.#options = options;
  }

  /** Fills `into` from `offset`; borrows it until `ended` is called, also where it fails early. */
  read(offset: number, into: Uint8Array, signal: AbortSignal | undefined, ended: Ended): void {
    const format = this.#format();
    const run = coveringBlocks(offset, into.length, format.blockLength);
    if (isOneCommand(run, offset, into.length, format)) {
      const read = (told: Ended) => this.#readBlocks(run, into, format, signal, told);
      this.#unlessBoundLowered(read, ended, () => this.#readChunks(run, offset, into, signal));
    } else tell(this.#readChunks(run, offset, into, signal), ended);
  }

  /** Writes `from` at `offset`; borrows it likewise, and where there is `memory` retains it as long as it must. Ends after GOOD for all of it. */
  write(offset: number, from: Uint8Array, options: TransferWriteOptions, ended: Ended): void {
    const format = this.#format();
    const run = coveringBlocks(offset, from.length, format.blockLength);
    if (isOneCommand(run, offset, from.length, format) && !this.#mustCopy(from)) {
      const write = (told: Ended) => this.#writeBlocks(run, from, format, withMemory(options, from.length), told);
      this.#unlessBoundLowered(write, ended, () => this.#writeChunks(run, offset, from, options));
    } else tell(this.#writeChunks(run, offset, from, options), ended);
  }

  /** One command, and if it turned out to be too long, several. */
  #unlessBoundLowered(one: (ended: Ended) => void, ended: Ended, several: () => Promise<void>): void {
    one((failure) => {
      if (failure?.error instanceof BoundLowered) tell(several(), ended);
      else ended(failure);
    });
  }

  #readChunks(run: BlockRun, offset: number, into: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    return this.#forEachChunk(run, (chunk, format) => {
      const start = chunk.lba * format.blockLength - offset;
      const end = start + chunk.blocks * format.blockLength;
      if (start < 0 || end > into.length) return this.#readPart(chunk, start, into, format, signal);
      return promised((ended) => this.#readBlocks(chunk, view(into, start, end), format, signal, ended));
    });
  }

  #writeChunks(run: BlockRun, offset: number, from: Uint8Array, options: TransferWriteOptions): Promise<void> {
    return this.#forEachChunk(run, (chunk, format) => {
      const start = chunk.lba * format.blockLength - offset;
      const end = start + chunk.blocks * format.blockLength;
      const isWhole = start >= 0 && end <= from.length;
      if (!isWhole || this.#mustCopy(from)) return this.#writeStaged(chunk, start, from, format, options);
      const data = view(from, start, end);
      return promised((ended) => this.#writeBlocks(chunk, data, format, withMemory(options, from.length), ended));
    });
  }

  /** Whether the transport cannot send `from` from where it lies. */
  #mustCopy(from: Uint8Array): boolean {
    const { pool } = this.#options;
    return pool.isRegistered && !pool.holds(from);
  }

  /** Writes retained copies again, through `passage`; leaves them retained. */
  async replay(
    writes: readonly RetainedWrite[],
    passage: Passage,
    failed: (write: RetainedWrite, error: unknown) => void,
  ): Promise<void> {
    const format = this.#format();
    const queue = writes[Symbol.iterator]();
    const worker = async () => {
      for (const write of queue) {
        const run = coveringBlocks(write.offset, write.data.length, format.blockLength);
        for (const chunk of chunkRun(run, format.chunkBlocks, format.alignment)) {
          const at = chunk.lba * format.blockLength - write.offset;
          const data = write.data.subarray(at, at + chunk.blocks * format.blockLength);
          try {
            await promised((ended) => this.#issueWrite(chunk, data, format, { fua: false, passage }, ended));
          } catch (error) {
            failed(write, error);
          }
        }
      }
    };
    await all(Array.from({ length: REPLAY_DEPTH }, worker));
  }

  /** Blocks of which `into`, which begins `start` bytes after them, wants a part. */
  async #readPart(
    chunk: BlockRun,
    start: number,
    into: Uint8Array,
    format: Format,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const bounce = this.#options.pool.acquire(chunk.blocks * format.blockLength);
    try {
      await promised((ended) => this.#readBlocks(chunk, bounce.bytes, format, signal, ended));
      const skip = Math.max(0, -start);
      into.set(bounce.bytes.subarray(skip, Math.min(bounce.bytes.length, into.length - start)), start + skip);
    } finally {
      bounce.release();
    }
  }

  /** From a copy: where `from`, which begins `start` bytes after the blocks, is not all of them or lies where the transport cannot send it from. */
  async #writeStaged(
    chunk: BlockRun,
    start: number,
    from: Uint8Array,
    format: Format,
    options: TransferWriteOptions,
  ): Promise<void> {
    const length = chunk.blocks * format.blockLength;
    const isWhole = start >= 0 && start + length <= from.length;
    const buffer = isWhole
      ? this.#stage(from.subarray(start, start + length))
      : await this.#modify(chunk, start, from, format, options.signal);
    const memory = new SharedRun(buffer);
    try {
      await promised((ended) => this.#writeBlocks(chunk, buffer.bytes, format, { ...options, memory }, ended));
    } finally {
      memory.release();
    }
  }

  /** A copy where the transport can send it from. */
  #stage(data: Uint8Array): PoolBuffer {
    const staged = this.#options.pool.acquire(data.length);
    staged.bytes.set(data);
    return staged;
  }

  /** The blocks of `chunk` as they will be: new data in the middle, what the device has at the edges. */
  async #modify(
    chunk: BlockRun,
    start: number,
    from: Uint8Array,
    format: Format,
    signal: AbortSignal | undefined,
  ): Promise<PoolBuffer> {
    const { blockLength } = format;
    const staged = this.#options.pool.acquire(chunk.blocks * blockLength);
    const { bytes } = staged;
    try {
      const edges: number[] = [];
      if (start < 0) edges.push(0);
      const last = chunk.blocks - 1;
      if (start + bytes.length > from.length && !edges.includes(last)) edges.push(last);
      await all(
        edges.map((block) => {
          const into = bytes.subarray(block * blockLength, (block + 1) * blockLength);
          return promised((ended) => this.#readBlocks({ lba: chunk.lba + block, blocks: 1 }, into, format, signal, ended));
        }),
      );
      const skip = Math.max(0, -start);
      bytes.set(from.subarray(start + skip, Math.min(from.length, start + bytes.length)), skip);
      return staged;
    } catch (error) {
      staged.release();
      throw error;
    }
  }

  /**
   * Where the range was written since the last SYNCHRONIZE CACHE, GOOD alone proves nothing: a reset may
   * have taken the newer data, and the unit attention that says so may have gone to a command beside this one (see
   * cache-flush.ts). So those are awaited, and what was read is good if no cache can have been lost.
   */
  #readBlocks(run: BlockRun, into: Uint8Array, format: Format, signal: AbortSignal | undefined, ended: Ended): void {
    this.#readOnce(run, into, format, signal, MOST_REPETITIONS, ended);
  }

  #readOnce(
    run: BlockRun,
    into: Uint8Array,
    format: Format,
    signal: AbortSignal | undefined,
    repetitions: number,
    ended: Ended,
  ): void {
    const { runner, passage, retained, gate, epoch } = this.#options;
    const { lba, blocks } = run;
    const cdb = readCdb({ lba, blocks, size: format.cdbSize });
    let issuedIn = -1;
    const onIssue = () => {
      this.#checkLength(blocks, into.length);
      issuedIn = epoch();
    };
    runner.start({ cdb, dataIn: into, lba, signal, onIssue }, passage, (failure) => {
      if (failure !== undefined || !retained.holds(lba * format.blockLength, into.length)) {
        ended(failure);
        return;
      }
      void gate.settled().then(() => {
        if (epoch() === issuedIn) ended();
        else if (repetitions > 1) this.#readOnce(run, into, format, signal, repetitions - 1, ended);
        else ended({ error: new IserfsError('not-ready', 'the device was reset again and again while it was read') });
      });
    });
  }

  /** `options.memory` is retained for as long as `data`, which lies in it, must stay. */
  #writeBlocks(chunk: BlockRun, data: Uint8Array, format: Format, options: TransferWriteOptions, ended: Ended): void {
    const { retained } = this.#options;
    if (!this.#isVolatile(options)) {
      this.#writeReserved(chunk, data, format, options, undefined, ended);
      return;
    }
    const reservation = retained.tryReserve(data.length);
    if (reservation !== undefined) this.#writeReserved(chunk, data, format, options, reservation, ended);
    else
      retained.reserve(data.length, options.signal).then(
        (late) => this.#writeReserved(chunk, data, format, options, late, ended),
        (error: unknown) => ended({ error }),
      );
  }

  #writeReserved(
    chunk: BlockRun,
    data: Uint8Array,
    format: Format,
    options: TransferWriteOptions,
    reservation: Reservation | undefined,
    ended: Ended,
  ): void {
    const { retained, passage } = this.#options;
    const { signal, fua, memory } = options;
    const offset = chunk.lba * format.blockLength;
    const onIssue = () => this.#checkLength(chunk.blocks, data.length);
    const onGood = () => {
      // The cache may have been switched on or off meanwhile: what holds is what the device says now.
      if (this.#isVolatile(options)) retained.keep(offset, data, memory);
      else retained.supersede(offset, data.length);
    };
    this.#issueWrite(chunk, data, format, { signal, fua, passage, onIssue, onGood }, (failure) => {
      reservation?.cancel();
      ended(failure);
    });
  }

  #isVolatile({ fua }: TransferWriteOptions): boolean {
    return this.#options.device().writeCache !== 'none' && !fua;
  }

  #issueWrite(
    { lba, blocks }: BlockRun,
    data: Uint8Array,
    format: Format,
    options: {
      readonly signal?: AbortSignal | undefined;
      readonly fua: boolean;
      readonly passage: Passage;
      readonly onIssue?: () => void;
      readonly onGood?: () => void;
    },
    ended: Ended,
  ): void {
    const { signal, fua, passage, onIssue, onGood } = options;
    this.#options.runner.start(
      {
        cdb: writeCdb({ lba, blocks, size: format.cdbSize, fua }),
        dataOut: data,
        changes: { offset: lba * format.blockLength, length: data.length },
        lba,
        signal,
        onIssue,
        onGood,
      },
      passage,
      ended,
    );
  }

  /** All chunks side by side. */
  #forEachChunk(run: BlockRun, move: MoveChunk): Promise<void> {
    const format = this.#format();
    return all([...chunkRun(run, format.chunkBlocks, format.alignment)].map((chunk) => this.#moveChunk(chunk, format, move)));
  }

  async #moveChunk(chunk: BlockRun, format: Format, move: MoveChunk): Promise<void> {
    try {
      await move(chunk, format);
    } catch (error) {
      if (!(error instanceof BoundLowered)) throw error;
      await this.#forEachChunk(chunk, move);
    }
  }

  /** A command may wait for a session, and meet one whose transport takes less than the one for which it was cut. */
  #checkLength(blocks: number, length: number): void {
    if (blocks > 1 && length > this.#options.maxTransfer()) throw new BoundLowered();
  }

  #format(): Format {
    const device = this.#options.device();
    const maxTransfer = this.#options.maxTransfer();
    if (this.#formatted?.device !== device || this.#formatted.maxTransfer !== maxTransfer) {
      this.#formatted = { device, maxTransfer, format: formatOf(device, maxTransfer) };
    }
    return this.#formatted.format;
  }
}

interface TransferWriteOptions {
  readonly signal?: AbortSignal | undefined;
  readonly fua: boolean;
  /** What the data lies in. */
  readonly memory?: SharedMemory | undefined;
}

/** Whether a range is all of a run that one command moves. */
function isOneCommand({ lba, blocks }: BlockRun, offset: number, length: number, format: Format): boolean {
  return blocks <= format.chunkBlocks && lba * format.blockLength === offset && blocks * format.blockLength === length;
}

/** `options`, without memory where `length` bytes are not worth keeping it. */
function withMemory(options: TransferWriteOptions, length: number): TransferWriteOptions {
  return isWorthKeeping(options.memory, length) ? options : { signal: options.signal, fua: options.fua };
}

/**
 * Whether `length` bytes are retained in the `memory` they lie in rather than copied. As with a copy, which is rounded up to
 * a power of two, they are to be at least half of what is then out of use.
 */
function isWorthKeeping(memory: SharedMemory | undefined, length: number): boolean {
  return memory !== undefined && length * 2 >= (memory.length ?? MAX_RUN);
}

/** `bytes` from `start` to `end`, themselves where that is all of them. */
function view(bytes: Uint8Array, start: number, end: number): Uint8Array {
  return start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end);
}

type MoveChunk = (chunk: BlockRun, format: Format) => Promise<void>;

/** This command must be cut into shorter ones. Never leaves this file. */
class BoundLowered extends Error {}

function formatOf({ capacity, limits }: Characteristics, maxTransfer: number): Format {
  const { blockLength, lastLba } = capacity;
  const cdbSize = lastLba > LAST_LBA_OF_10 ? 16 : 10;
  const optimalBlocks = limits?.optimalTransferLength ?? 0;
  const granularityBlocks = limits?.optimalTransferLengthGranularity ?? 0;
  const wanted = Math.max(1, Math.floor(Math.min(MAX_RUN, maxTransfer) / blockLength));
  return {
    blockLength,
    cdbSize,
    chunkBlocks: chunkBlocks(cdbSize === 10 ? Math.min(wanted, MOST_BLOCKS_OF_10) : wanted, {
      maximumBlocks: limits?.maximumTransferLength ?? 0,
      optimalBlocks: optimalBlocks * blockLength >= LEAST_OPTIMAL_BYTES ? optimalBlocks : 0,
      granularityBlocks,
    }),
    alignment: Math.max(1, granularityBlocks, 2 ** capacity.logicalBlocksPerPhysicalBlockExponent),
  };
}

/** Settles when the last one has, so that borrowed memory is free then; rejects with the first failure. */
async function all(work: readonly Promise<void>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(work)) {
    if (outcome.status === 'rejected') throw outcome.reason;
  }
}
