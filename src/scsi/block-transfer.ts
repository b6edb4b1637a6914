/**
 * Moves byte ranges as READ and WRITE commands: cut to what the device takes, several in flight, partial
 * blocks by read-modify-write. The caller holds the lock on the blocks concerned. Writes to a volatile
 * cache leave a copy behind (`RetainedWrites`). Knows blocks, not why a command is repeated.
 */

import {
  type BlockAddressing,
  type BlockCommandParts,
  BlockRead,
  BlockWrite,
  type BlockWriteOptions,
  BoundLowered,
} from './block-commands.ts';
import type { SharedMemory } from './block-device.ts';
import { type BlockRun, chunkBlocks, chunkRun, coveringBlocks } from './block-range.ts';
import { type BufferPool, MAX_RUN, type PoolBuffer, SharedRun } from './buffer-pool.ts';
import { writeCdb } from './cdb.ts';
import type { Passage } from './command-runner.ts';
import { type Ended, promised, tell } from './ended.ts';
import type { Characteristics } from './probe.ts';
import type { RetainedWrite } from './retained-writes.ts';

export interface BlockTransferOptions extends BlockCommandParts {
  readonly pool: BufferPool;
}

/** How ranges are cut into commands, and how these address the device. */
interface Format extends BlockAddressing {
  readonly chunkBlocks: number;
  readonly alignment: number;
}

/** READ(10) and WRITE(10) reach this LBA; the larger commands are for what lies beyond. */
const LAST_LBA_OF_10 = 0xffff_ffffn;
const MOST_BLOCKS_OF_10 = 0xffff;
/** An OPTIMAL TRANSFER LENGTH below this is a misunderstanding of the field. */
const LEAST_OPTIMAL_BYTES = 64 * 1024;
const REPLAY_DEPTH = 8;

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
    if (isOneCommand(run, offset, into.length, format)) this.#readBlocks(run, into, format, signal, ended);
    else tell(this.#readChunks(run, offset, into, signal), ended);
  }

  /** Writes `from` at `offset`; borrows it likewise, and where there is `memory` retains it as long as it must. Ends after GOOD for all of it. */
  write(offset: number, from: Uint8Array, options: BlockWriteOptions, ended: Ended): void {
    const format = this.#format();
    const run = coveringBlocks(offset, from.length, format.blockLength);
    const isOne = isOneCommand(run, offset, from.length, format) && !this.#mustCopy(from);
    if (isOne) this.#writeBlocks(run, from, format, withMemory(options, from.length), ended);
    else tell(this.#writeChunks(run, offset, from, options), ended);
  }

  #readChunks(run: BlockRun, offset: number, into: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    return this.#forEachChunk(run, (chunk, format) => {
      const start = chunk.lba * format.blockLength - offset;
      const end = start + chunk.blocks * format.blockLength;
      if (start < 0 || end > into.length) return this.#readPart(chunk, start, into, format, signal);
      return promised((ended) => this.#readBlocks(chunk, view(into, start, end), format, signal, ended));
    });
  }

  #writeChunks(run: BlockRun, offset: number, from: Uint8Array, options: BlockWriteOptions): Promise<void> {
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
            await this.#rewrite(chunk, data, format, passage);
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
    options: BlockWriteOptions,
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

  /** One command, and if it turned out to be too long, several. */
  #readBlocks(run: BlockRun, into: Uint8Array, format: Format, signal: AbortSignal | undefined, ended: Ended): void {
    const told: Ended = (failure) => {
      if (failure?.error instanceof BoundLowered) tell(this.#readChunks(run, run.lba * format.blockLength, into, signal), ended);
      else ended(failure);
    };
    new BlockRead(this.#options, run, into, format, signal, told).start();
  }

  /** Likewise. `options.memory` is retained for as long as `data`, which lies in it, must stay. */
  #writeBlocks(run: BlockRun, data: Uint8Array, format: Format, options: BlockWriteOptions, ended: Ended): void {
    const told: Ended = (failure) => {
      if (failure?.error instanceof BoundLowered)
        tell(this.#writeChunks(run, run.lba * format.blockLength, data, options), ended);
      else ended(failure);
    };
    new BlockWrite(this.#options, run, data, format, options, told).start();
  }

  async #rewrite({ lba, blocks }: BlockRun, data: Uint8Array, { blockLength, cdbSize }: Format, passage: Passage): Promise<void> {
    const cdb = writeCdb({ lba, blocks, size: cdbSize });
    const changes = { offset: lba * blockLength, length: data.length };
    await this.#options.runner.run({ cdb, dataOut: data, changes, lba }, passage);
  }

  /** All chunks side by side. */
  #forEachChunk(run: BlockRun, move: (chunk: BlockRun, format: Format) => Promise<void>): Promise<void> {
    const format = this.#format();
    return all([...chunkRun(run, format.chunkBlocks, format.alignment)].map((chunk) => move(chunk, format)));
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

/** Whether a range is all of a run that one command moves. */
function isOneCommand({ lba, blocks }: BlockRun, offset: number, length: number, format: Format): boolean {
  return blocks <= format.chunkBlocks && lba * format.blockLength === offset && blocks * format.blockLength === length;
}

/** `options`, without memory where `length` bytes are not worth keeping it. */
function withMemory(options: BlockWriteOptions, length: number): BlockWriteOptions {
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
