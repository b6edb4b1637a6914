/**
 * Space behind blocks: ranges that are to read as zeros, and where a device has stored nothing. The
 * caller holds the lock on the blocks that are zeroed (I7). Knows which command can be relied upon for what;
 * not how commands are retried, nor who asks.
 *
 * What guarantees zeros. UNMAP is a request: a device may leave out what it likes, and what it left out
 * reads as before. WRITE SAME with the UNMAP bit and a block of zeros must leave zeros behind, with or without space
 * behind them, where unmapped blocks read as zeros (LBPRZ); so it comes first where space may be given back. A device
 * that has UNMAP alone is asked by GET LBA STATUS what it has left out, and that is written. Else WRITE SAME writes
 * the zeros, and where that is refused, WRITE does. What a device refuses once it is not asked again.
 *
 * Volatile caches (I6). Zeros of WRITE SAME may be in the cache only, and no copy of them is retained as of
 * writes: so the cache is synchronised before they count, and if it may have been lost between the first command and
 * the end of that, all is done over. Until then retained copies of older data may be written again over the zeros,
 * which that repetition puts right; afterwards there are none, since whatever was acknowledged before is on the
 * medium. Zeros that go out as WRITEs are retained as any write.
 */

import { errorCode, IserfsError } from '../errors.ts';
import type { BlockCommandParts } from './block-commands.ts';
import type { DeviceExtent } from './block-device.ts';
import { type BlockRun, chunkRun, coveringBlocks } from './block-range.ts';
import { type BufferPool, MAX_RUN } from './buffer-pool.ts';
import type { Capacity } from './capacity.ts';
import { encodeCdb } from './cdb.ts';
import type { Characteristics } from './probe.ts';
import {
  decodeLbaStatus,
  encodeUnmapList,
  type LbaStatus,
  lbaStatusLength,
  ProvisioningStatus,
} from './provisioning-parameters.ts';

export interface BlockProvisioningOptions extends Omit<BlockCommandParts, 'maxTransfer'> {
  readonly pool: BufferPool;
  /** Writes as any write, unaligned edges included; `from` lies in the pool. */
  readonly write: (offset: number, from: Uint8Array, signal: AbortSignal | undefined) => Promise<void>;
  /** Resolves when everything acknowledged before is on the medium. */
  readonly flush: (signal: AbortSignal | undefined) => Promise<void>;
}

export interface ZeroOptions {
  /** The space may be given back. */
  readonly mayUnmap: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** Ways to have a run of blocks read as zeros, with their limits; WRITE is what remains. */
type Method = 'write-same-16-unmap' | 'write-same-10-unmap' | 'unmap' | 'write-same-16' | 'write-same-10';
type Refusable = Method | 'get-lba-status';

/** Longest command where the device reports no limit, and always where it may have to write all of it. */
const LONGEST_COMMAND = 64 * 1024 * 1024;
/** What is locked at a time: others may use the device in between. */
const PIECE = 64 * 1024 * 1024;
/** Giving space back is no work in proportion to the length. */
const UNMAP_PIECE = 1024 * 1024 * 1024;
/** Shorter ranges are written: dearer commands, and a SYNCHRONIZE CACHE, would not pay. */
const LEAST_COMMAND = 64 * 1024;
const MOST_BLOCKS_OF_10 = 0xffff;
const BLOCKS_OF_10 = 0x1_0000_0000;
const MOST_BLOCKS = 0xffff_ffff;
/** WRITEs of zeros in flight for one range. */
const WRITE_DEPTH = 4;
const STATUS_DESCRIPTORS = 1023;
const MOST_REPETITIONS = 16;

export class BlockProvisioning {
  readonly #options: BlockProvisioningOptions;
  readonly #refused = new Set<Refusable>();

  constructor(options: BlockProvisioningOptions) {
    this.#options = options;
  }

  /** Where the piece that begins at `offset` ends, of a range that is to be zeroed up to `end`: as much as is locked at a time. */
  pieceEnd(offset: number, end: number, mayUnmap: boolean): number {
    const device = this.#options.device();
    const { blockLength } = device.capacity;
    const whole = coveringBlocks(offset, end - offset, blockLength);
    const gives = this.#methods(whole, mayUnmap).some((method) => givesBack(method));
    const { blocks } = alignedChunk(device, whole, Math.max(1, Math.floor((gives ? UNMAP_PIECE : PIECE) / blockLength)), gives);
    return Math.min(end, (whole.lba + blocks) * blockLength);
  }

  /** Zeroes one piece. After a failure its content is unknown. */
  async zero(offset: number, length: number, { mayUnmap, signal }: ZeroOptions): Promise<void> {
    const { blockLength } = this.#options.device().capacity;
    const end = offset + length;
    const first = Math.ceil(offset / blockLength);
    const blocks = Math.floor(end / blockLength) - first;
    if (blocks <= 0) return await this.#write(offset, length, signal);
    await this.#write(offset, first * blockLength - offset, signal);
    await this.#zeroBlocks({ lba: first, blocks }, { mayUnmap, signal });
    const tail = (first + blocks) * blockLength;
    await this.#write(tail, end - tail, signal);
  }

  /**
   * What the device says of the blocks from `offset` on: extents without gaps, the first of which holds `offset`. A
   * device that does not say has data up to its end.
   */
  async extentsFrom(offset: number, signal: AbortSignal | undefined): Promise<readonly DeviceExtent[]> {
    const { capacity, size } = this.#options.device();
    const unknown = [{ offset, length: size - offset, isHole: false }];
    if (!holesReadZeros(capacity) || this.#refused.has('get-lba-status')) return unknown;
    const { blockLength } = capacity;
    const statuses = await this.#statusFrom(Math.floor(offset / blockLength), signal);
    if (statuses === undefined || statuses.length === 0) return unknown;
    return statuses.map(({ lba, blocks, status }) => ({
      offset: lba * blockLength,
      length: blocks * blockLength,
      isHole: status === ProvisioningStatus.deallocated,
    }));
  }

  async #zeroBlocks(run: BlockRun, options: ZeroOptions): Promise<void> {
    const { epoch, device, flush } = this.#options;
    for (let repetition = 0; repetition < MOST_REPETITIONS; repetition++) {
      const begunIn = epoch();
      const [method] = this.#methods(run, options.mayUnmap);
      if (method === undefined) {
        const { blockLength } = device().capacity;
        return await this.#write(run.lba * blockLength, run.blocks * blockLength, options.signal);
      }
      try {
        await this.#apply(method, run, options.signal);
      } catch (error) {
        if (!this.#isRefusal(method, error)) throw error;
        continue;
      }
      if (device().writeCache === 'none') return;
      await flush(options.signal);
      if (epoch() === begunIn) return;
    }
    throw new IserfsError('not-ready', 'the device was reset again and again while a range was zeroed');
  }

  /** The ways that this device has not refused yet, the best first. */
  #methods(run: BlockRun, mayUnmap: boolean): Method[] {
    const { capacity, provisioning, limits } = this.#options.device();
    const methods: Method[] = [];
    if (mayUnmap && holesReadZeros(capacity)) {
      if (provisioning?.writeSame16Unmap === true) methods.push('write-same-16-unmap');
      if (provisioning?.writeSame10Unmap === true) methods.push('write-same-10-unmap');
      const unmaps = provisioning?.unmap === true && (limits?.maximumUnmapLbaCount ?? 0) > 0;
      if (unmaps && !this.#refused.has('get-lba-status')) methods.push('unmap');
    }
    if (run.blocks * capacity.blockLength > LEAST_COMMAND) methods.push('write-same-16', 'write-same-10');
    const reaches10 = run.lba + run.blocks <= BLOCKS_OF_10;
    return methods.filter((method) => !this.#refused.has(method) && (reaches10 || !method.startsWith('write-same-10')));
  }

  async #apply(method: Method, run: BlockRun, signal: AbortSignal | undefined): Promise<void> {
    const device = this.#options.device();
    const most = mostBlocks(method, device);
    for (let { lba } = run, end = run.lba + run.blocks; lba < end; ) {
      signal?.throwIfAborted();
      const chunk = alignedChunk(device, { lba, blocks: end - lba }, most, givesBack(method));
      if (method === 'unmap') await this.#unmap(chunk, signal);
      else await this.#writeSame(method, chunk, device.capacity.blockLength, signal);
      lba += chunk.blocks;
    }
  }

  async #writeSame(
    method: Method,
    { lba, blocks }: BlockRun,
    blockLength: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const values = { lba, blocks, unmap: givesBack(method) };
    const is16 = method === 'write-same-16' || method === 'write-same-16-unmap';
    const cdb = is16 ? encodeCdb('write-same-16', values) : encodeCdb('write-same-10', values);
    await this.#change(cdb, new Uint8Array(blockLength), { lba, blocks }, signal);
  }

  /** UNMAP, then zeros for what has kept its space. */
  async #unmap(chunk: BlockRun, signal: AbortSignal | undefined): Promise<void> {
    const list = encodeUnmapList([chunk]);
    await this.#change(encodeCdb('unmap', { parameterListLength: list.length }), list, chunk, signal);
    const end = chunk.lba + chunk.blocks;
    for (let { lba } = chunk; lba < end; ) {
      const statuses = await this.#statusFrom(lba, signal);
      if (statuses === undefined || statuses.length === 0) {
        throw new IserfsError('unsupported', 'the device does not tell what UNMAP has left out');
      }
      for (const { blocks, status, ...found } of statuses) {
        const until = Math.min(end, found.lba + blocks);
        if (status !== ProvisioningStatus.deallocated && lba < until) {
          await this.#zeroBlocks({ lba, blocks: until - lba }, { mayUnmap: false, signal });
        }
        lba = Math.max(lba, until);
      }
    }
  }

  async #change(cdb: Uint8Array, dataOut: Uint8Array, { lba, blocks }: BlockRun, signal: AbortSignal | undefined): Promise<void> {
    const { runner, passage, retained, device } = this.#options;
    const { blockLength } = device().capacity;
    const changes = { offset: lba * blockLength, length: blocks * blockLength };
    const onGood = () => retained.supersede(changes.offset, changes.length);
    await runner.run({ cdb, dataOut, changes, lba, signal, onGood }, passage);
  }

  /**
   * GET LBA STATUS, put in order: runs without gaps from `lba` on, within the device. Undefined where the device cannot
   * tell. As for reads (see block-commands.ts), a hole where a write is retained may be one that a reset has made
   * and nobody has reported yet.
   */
  async #statusFrom(lba: number, signal: AbortSignal | undefined): Promise<LbaStatus[] | undefined> {
    const { runner, passage, retained, gate, epoch, device } = this.#options;
    const dataIn = new Uint8Array(lbaStatusLength(STATUS_DESCRIPTORS));
    const cdb = encodeCdb('get-lba-status', { lba, allocationLength: dataIn.length });
    for (let repetition = 0; repetition < MOST_REPETITIONS; repetition++) {
      let issuedIn = -1;
      const onIssue = () => {
        issuedIn = epoch();
      };
      let length: number;
      try {
        length = await runner.run({ cdb, dataIn, allowShort: true, lba, signal, onIssue }, passage);
      } catch (error) {
        if (this.#isRefusal('get-lba-status', error) || isDeviceError(error)) return undefined;
        throw error;
      }
      const { capacity } = device();
      const statuses = inOrder(decodeLbaStatus(dataIn.subarray(0, length)), lba, Number(capacity.lastLba) + 1);
      const isDoubtful = statuses.some(
        (each) =>
          each.status === ProvisioningStatus.deallocated &&
          retained.holds(each.lba * capacity.blockLength, each.blocks * capacity.blockLength),
      );
      if (!isDoubtful) return statuses;
      await gate.settled();
      if (epoch() === issuedIn) return statuses;
    }
    throw new IserfsError('not-ready', 'the device was reset again and again while it was asked for its holes');
  }

  /** Zeros as ordinary writes. */
  async #write(offset: number, length: number, signal: AbortSignal | undefined): Promise<void> {
    if (length <= 0) return;
    const { pool, write } = this.#options;
    const zeros = pool.acquire(Math.min(MAX_RUN, length));
    zeros.bytes.fill(0);
    let at = offset;
    let hasFailed = false;
    const worker = async () => {
      while (at < offset + length && !hasFailed) {
        const from = at;
        at = Math.min(offset + length, from - (from % MAX_RUN) + MAX_RUN);
        try {
          await write(from, zeros.bytes.subarray(0, at - from), signal);
        } catch (error) {
          hasFailed = true;
          throw error;
        }
      }
    };
    const outcomes = await Promise.allSettled(Array.from({ length: WRITE_DEPTH }, worker));
    zeros.release();
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  /** The device does not have the command, or not this form of it; remembers that. */
  #isRefusal(what: Refusable, error: unknown): boolean {
    const code = errorCode(error);
    if (code !== 'unsupported' && code !== 'illegal-request') return false;
    this.#refused.add(what);
    return true;
  }
}

function givesBack(method: Method): boolean {
  return method === 'unmap' || method === 'write-same-16-unmap' || method === 'write-same-10-unmap';
}

/** LBPME and LBPRZ: blocks may be without space, and read as zeros then. */
function holesReadZeros({ thin, readZeros }: Capacity): boolean {
  return thin && readZeros;
}

/** Most blocks of one command. */
function mostBlocks(method: Method, { capacity, limits }: Characteristics): number {
  const sane = Math.max(1, Math.floor(LONGEST_COMMAND / capacity.blockLength));
  if (method === 'unmap') return Math.min(limits?.maximumUnmapLbaCount ?? sane, MOST_BLOCKS);
  const reported = limits?.maximumWriteSameLength ?? 0;
  const most = reported === 0 ? sane : Math.min(reported, givesBack(method) ? MOST_BLOCKS : sane);
  return method.startsWith('write-same-10') ? Math.min(most, MOST_BLOCKS_OF_10) : most;
}

/** The beginning of a run, at most `most` blocks: to be given back, it ends where a granule of the device does, which a cut would leave mapped. */
function alignedChunk({ limits }: Characteristics, run: BlockRun, most: number, givesBack: boolean): BlockRun {
  const granularity = givesBack ? Math.max(1, limits?.optimalUnmapGranularity ?? 1) : 1;
  const shift = (granularity - ((limits?.unmapGranularityAlignment ?? 0) % granularity)) % granularity;
  const [first] = chunkRun({ lba: run.lba + shift, blocks: run.blocks }, most, granularity);
  return { lba: run.lba, blocks: first?.blocks ?? run.blocks };
}

/** As much of what the device said as makes sense: from `lba` on, without gaps, within the device; neighbours that are alike become one. */
function inOrder(statuses: readonly LbaStatus[], lba: number, blocks: number): LbaStatus[] {
  const ordered: LbaStatus[] = [];
  let at = lba;
  for (const each of statuses) {
    const end = Math.min(blocks, each.lba + each.blocks);
    if (each.lba > at || end <= at || !Number.isSafeInteger(end)) break;
    const last = ordered.at(-1);
    const isHole = each.status === ProvisioningStatus.deallocated;
    if (last !== undefined && (last.status === ProvisioningStatus.deallocated) === isHole) {
      ordered[ordered.length - 1] = { ...last, blocks: end - last.lba };
    } else ordered.push({ lba: at, blocks: end - at, status: each.status });
    at = end;
  }
  return ordered;
}

/** The device has the command, and it failed: nothing is known, and nothing lost. */
function isDeviceError(error: unknown): boolean {
  const code = errorCode(error);
  return code === 'medium-error' || code === 'hardware-error';
}
