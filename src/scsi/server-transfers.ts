/**
 * The commands of a device server that move or change data: READ, WRITE, VERIFY, WRITE SAME, UNMAP and
 * their like (SBC). Each holds the lock on its blocks from before it touches them until its last access.
 * Data moves in chunks of pool memory, two at most per command, so that the medium works on one while the
 * wire carries the other; what the medium can lend is sent from where it lies. Functions resolve with the command's
 * transfer length in bytes.
 *
 * An aborted task stops at the next chunk; what it has written stays. No function settles while a buffer
 * of its own is in use.
 */

import { errorCode } from '../errors.ts';
import { throwIfAborted } from './abort.ts';
import { type BlockRun, chunkRun } from './block-range.ts';
import type { BufferPool, PoolBuffer } from './buffer-pool.ts';
import { blocksOf, type Cdb } from './cdb.ts';
import {
  type CheckCondition,
  expectedLengthTooShort,
  invalidFieldInCdb,
  lbaOutOfRange,
  miscompare,
  parameterListLengthError,
  spaceAllocationFailed,
  unrecoveredReadError,
  writeError,
  writeProtected,
} from './check-condition.ts';
import type { Failure } from './ended.ts';
import type { ServerTask } from './port.ts';
import {
  decodeUnmapList,
  encodeLbaStatus,
  type LbaStatus,
  lbaStatusRoom,
  ProvisioningStatus,
} from './provisioning-parameters.ts';
import type { ServedUnit } from './served-unit.ts';

/** What a command runs with. */
export interface CommandContext {
  readonly unit: ServedUnit;
  readonly task: ServerTask;
  readonly pool: BufferPool;
}

export type ReadName = 'read-6' | 'read-10' | 'read-12' | 'read-16';
export type WriteName = 'write-6' | 'write-10' | 'write-12' | 'write-16';
export type WriteAndVerifyName = 'write-and-verify-10' | 'write-and-verify-12' | 'write-and-verify-16';
export type VerifyName = 'verify-10' | 'verify-12' | 'verify-16';
export type SynchronizeCacheName = 'synchronize-cache-10' | 'synchronize-cache-16';
export type WriteSameName = 'write-same-10' | 'write-same-16';

const CHUNK = 256 * 1024;

/** How VERIFY compares (BYTCHK). */
const ByteCheck = { none: 0, all: 1, reserved: 2, same: 3 } as const;

export async function read(context: CommandContext, cdb: Cdb<ReadName>): Promise<number> {
  const { unit, task } = context;
  const run = runOf(context, cdb, unit.limits.maximumTransferLength);
  const force = cdb.name !== 'read-6' && cdb.fua;
  return await locked(context, run, 'shared', async () => {
    if (force && unit.medium.isVolatile) await flush(unit, run.lba);
    // What the initiator has no room for is not even read; the residual tells it.
    const room = Math.min(run.blocks, Math.ceil(task.expectedDataTransferLength / unit.blockLength));
    await sendBlocks(context, { lba: run.lba, blocks: room });
    return run.blocks * unit.blockLength;
  });
}

export async function write(context: CommandContext, cdb: Cdb<WriteName>): Promise<number> {
  const run = runOf(context, cdb, context.unit.limits.maximumTransferLength);
  requireWritable(context.unit);
  const fua = cdb.name !== 'write-6' && cdb.fua;
  return await locked(context, run, 'exclusive', () => {
    // Asked under the lock: whoever turns the cache off holds all blocks.
    const force = fua || context.unit.forcesWrites;
    return receiveBlocks(context, run, (chunk, data) => writeChunk(context.unit, chunk, data, force));
  });
}

/** Always forced: what is verified must be on the medium. */
export async function writeAndVerify(context: CommandContext, cdb: Cdb<WriteAndVerifyName>): Promise<number> {
  if (cdb.byteCheck !== ByteCheck.none && cdb.byteCheck !== ByteCheck.all) throw invalidFieldInCdb(1, 2);
  const { unit } = context;
  const run = runOf(context, cdb, unit.limits.maximumTransferLength);
  requireWritable(unit);
  const compare = cdb.byteCheck === ByteCheck.all;
  return await locked(context, run, 'exclusive', () =>
    receiveBlocks(context, run, async (chunk, data) => {
      await writeChunk(unit, chunk, data, true);
      await verifyChunk(context, run, chunk, compare ? data : undefined);
    }),
  );
}

export async function verify(context: CommandContext, cdb: Cdb<VerifyName>): Promise<number> {
  const { unit, pool, task } = context;
  if (cdb.byteCheck === ByteCheck.reserved) throw invalidFieldInCdb(1, 2);
  const run = runOf(context, cdb, cdb.byteCheck === ByteCheck.none ? Number.MAX_SAFE_INTEGER : unit.limits.maximumTransferLength);
  return await locked(context, run, 'shared', async () => {
    if (cdb.byteCheck === ByteCheck.all) {
      return await receiveBlocks(context, run, (chunk, data) => verifyChunk(context, run, chunk, data));
    }
    if (run.blocks === 0) return 0;
    const block = cdb.byteCheck === ByteCheck.same ? await receiveBlock(context) : undefined;
    for (const chunk of chunksOf(unit, run)) {
      throwIfAborted(task);
      const pattern = block === undefined ? undefined : repeated(pool, block, chunk.blocks);
      try {
        await verifyChunk(context, run, chunk, pattern?.bytes);
      } finally {
        pattern?.release();
      }
    }
    return block?.length ?? 0;
  });
}

/** IMMED is not made use of: the status comes when the data is safe. */
export async function synchronizeCache({ unit }: CommandContext, cdb: Cdb<SynchronizeCacheName>): Promise<number> {
  checkRange(unit, cdb.lba, cdb.blocks);
  await flush(unit, cdb.lba);
  return 0;
}

/** Everything that was written goes to stable storage. `lba` is for the sense data. */
export async function flush(unit: ServedUnit, lba = 0): Promise<void> {
  await onMedium(unit, lba, writeError, () => unit.medium.flush());
}

export async function writeSame(context: CommandContext, cdb: Cdb<WriteSameName>): Promise<number> {
  const { unit, task, pool } = context;
  if (cdb.protection !== 0) throw invalidFieldInCdb(1, 7);
  if (cdb.anchor) throw invalidFieldInCdb(1, 4);
  if (cdb.unmap && !unit.medium.isThin) throw invalidFieldInCdb(1, 3);
  const noDataOut = cdb.name === 'write-same-16' && cdb.noDataOut;
  if (cdb.blocks === 0 || cdb.blocks > unit.limits.maximumWriteSameLength) {
    throw invalidFieldInCdb(cdb.name === 'write-same-10' ? 7 : 10);
  }
  checkRange(unit, cdb.lba, cdb.blocks);
  requireWritable(unit);
  return await locked(context, cdb, 'exclusive', async () => {
    const block = noDataOut ? new Uint8Array(unit.blockLength) : await receiveBlock(context);
    if (cdb.unmap && block.every((byte) => byte === 0)) {
      await discard(unit, cdb);
    } else {
      for (const chunk of chunksOf(unit, cdb)) {
        throwIfAborted(task);
        const pattern = repeated(pool, block, chunk.blocks);
        try {
          await writeChunk(unit, chunk, pattern.bytes, unit.forcesWrites);
        } finally {
          pattern.release();
        }
      }
    }
    return noDataOut ? 0 : block.length;
  });
}

export async function unmap(context: CommandContext, cdb: Cdb<'unmap'>): Promise<number> {
  const { unit, task } = context;
  if (cdb.anchor) throw invalidFieldInCdb(1, 0);
  if (cdb.parameterListLength === 0) return 0;
  requireWritable(unit);
  const list = await receiveParameterList(context, cdb.parameterListLength);
  const descriptors = decodeUnmapList(list);
  if (descriptors === undefined) throw parameterListLengthError();
  const runs: BlockRun[] = [];
  for (const run of descriptors) {
    // A descriptor of no blocks may lie right behind the last block: it is no error (SBC, UNMAP).
    if (run.blocks === 0 && run.lba === unit.blocks) continue;
    checkRange(unit, run.lba, run.blocks);
    if (run.blocks > 0) runs.push(run);
  }
  if (runs.length > unit.limits.maximumUnmapDescriptorCount) throw parameterListLengthError();
  for (const run of joined(runs)) {
    throwIfAborted(task);
    await locked(context, run, 'exclusive', () => discard(unit, run));
  }
  return list.length;
}

/** The same blocks in the fewest runs, ascending. */
function joined(runs: readonly BlockRun[]): BlockRun[] {
  const fewest: BlockRun[] = [];
  for (const { lba, blocks } of [...runs].sort((one, other) => one.lba - other.lba)) {
    const last = fewest.at(-1);
    if (last === undefined || last.lba + last.blocks < lba) fewest.push({ lba, blocks });
    else fewest[fewest.length - 1] = { lba: last.lba, blocks: Math.max(last.blocks, lba + blocks - last.lba) };
  }
  return fewest;
}

/** Most descriptors that GET LBA STATUS returns: whoever wants more asks on from the last one's end. */
const MAXIMUM_STATUS_DESCRIPTORS = 256;

/** Parameter data of GET LBA STATUS. What a medium that does not know its holes has is "mapped or unknown". */
export async function lbaStatusData(context: CommandContext, cdb: Cdb<'get-lba-status'>): Promise<Uint8Array> {
  const { unit } = context;
  checkRange(unit, cdb.lba, 1);
  const room = Math.min(MAXIMUM_STATUS_DESCRIPTORS, Math.max(1, lbaStatusRoom(cdb.allocationLength)));
  const run = { lba: cdb.lba, blocks: unit.blocks - cdb.lba };
  return await locked(context, run, 'shared', async () => {
    const statuses: LbaStatus[] = [];
    for (let { lba } = run; lba < unit.blocks && statuses.length < room; ) {
      const { blocks, mapped } = await extentAt(unit, lba);
      statuses.push({ lba, blocks, status: mapped ? ProvisioningStatus.mapped : ProvisioningStatus.deallocated });
      lba += blocks;
    }
    return encodeLbaStatus(statuses);
  });
}

/** A block with any space behind it counts as mapped; an extent is at most 2^32 - 1 blocks long. */
async function extentAt(unit: ServedUnit, lba: number): Promise<{ readonly blocks: number; readonly mapped: boolean }> {
  const most = Math.min(0xffff_ffff, unit.blocks - lba);
  const { medium, blockLength } = unit;
  const extent = await onMedium(
    unit,
    lba,
    unrecoveredReadError,
    async () => await medium.extentAt?.(lba * blockLength, most * blockLength),
  );
  if (extent === undefined) return { blocks: most, mapped: true };
  const blocks = extent.mapped ? Math.ceil(extent.length / blockLength) : Math.floor(extent.length / blockLength);
  return blocks === 0 ? { blocks: 1, mapped: true } : { blocks, mapped: extent.mapped };
}

/** The data of a command with a parameter list. The caller owns it. */
export async function receiveParameterList({ task }: Pick<CommandContext, 'task'>, length: number): Promise<Uint8Array> {
  if (task.expectedDataTransferLength < length) throw expectedLengthTooShort(length);
  const list = new Uint8Array(length);
  await task.receiveDataOut(0, list);
  return list;
}

/** The command's run of blocks, checked. */
function runOf(
  { unit }: CommandContext,
  cdb: Cdb<ReadName | WriteName | WriteAndVerifyName | VerifyName>,
  maximumBlocks: number,
): BlockRun {
  if (cdb.name !== 'read-6' && cdb.name !== 'write-6' && cdb.protection !== 0) throw invalidFieldInCdb(1, 7);
  const run = { lba: cdb.lba, blocks: blocksOf(cdb) };
  if (run.blocks > maximumBlocks) throw invalidFieldInCdb(lengthFieldOffset(cdb.name));
  checkRange(unit, run.lba, run.blocks);
  return run;
}

/** The first byte of TRANSFER LENGTH. */
function lengthFieldOffset(name: string): number {
  if (name.endsWith('-16')) return 10;
  if (name.endsWith('-12')) return 6;
  return name.endsWith('-10') ? 7 : 4;
}

function checkRange(unit: ServedUnit, lba: number, blocks: number): void {
  if (lba >= unit.blocks || lba + blocks > unit.blocks) throw lbaOutOfRange(lba);
}

function requireWritable(unit: ServedUnit): void {
  if (unit.isWriteProtected) throw writeProtected();
}

async function locked<T>(
  { unit, task }: CommandContext,
  run: BlockRun,
  mode: 'shared' | 'exclusive',
  action: () => Promise<T>,
): Promise<T> {
  const { lba, blocks } = run;
  throwIfAborted(task);
  const release = unit.lock.tryAcquire(lba, blocks, mode) ?? (await unit.lock.acquire(lba, blocks, mode, task.signal));
  try {
    return await action();
  } finally {
    release();
  }
}

function chunksOf(unit: ServedUnit, run: BlockRun): Generator<BlockRun> {
  return chunkRun(run, Math.max(1, CHUNK / unit.blockLength));
}

/**
 * What the medium lends goes out from where it lies, all of it at once; the rest through the pool, read ahead by one chunk
 * while the chunk before is on the wire. The caller's lock keeps what is lent as it is.
 */
async function sendBlocks({ unit, task, pool }: CommandContext, run: BlockRun): Promise<void> {
  const { medium, blockLength } = unit;
  const sends = new Sends();
  let copied: Promise<void> = Promise.resolve();
  try {
    for (let done = 0; done < run.blocks; ) {
      throwIfAborted(task);
      const lba = run.lba + done;
      const lent = medium.lend?.(lba * blockLength, (run.blocks - done) * blockLength);
      const offset = done * blockLength;
      if (lent !== undefined) {
        sends.add(task.sendDataIn(offset, lent));
        done += lent.length / blockLength;
        continue;
      }
      const blocks = Math.min(run.blocks - done, Math.max(1, CHUNK / blockLength));
      const buffer = pool.acquire(blocks * blockLength);
      try {
        await readChunk(unit, { lba, blocks }, buffer.bytes);
        await copied;
      } catch (error) {
        buffer.release();
        throw error;
      }
      copied = finish(task.sendDataIn(offset, buffer.bytes), buffer);
      sends.add(copied);
      done += blocks;
    }
  } catch (error) {
    await sends.settled().catch(() => {});
    throw error;
  }
  await sends.settled();
}

/** The sends of one command, side by side. */
class Sends {
  #underWay = 0;
  #failure: Failure | undefined;
  #end: (() => void) | undefined;
  readonly #sent = () => this.#settle();
  readonly #failed = (error: unknown) => {
    this.#failure ??= { error };
    this.#settle();
  };

  add(send: Promise<void>): void {
    this.#underWay++;
    send.then(this.#sent, this.#failed);
  }

  /** Resolves when all have settled; rejects then with the first failure. Called once, after the last `add`. */
  async settled(): Promise<void> {
    if (this.#underWay > 0) {
      await new Promise<void>((resolve) => {
        this.#end = resolve;
      });
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #settle(): void {
    this.#underWay--;
    if (this.#underWay === 0) this.#end?.();
  }
}

/** Receives the next chunk while `consume` has the one before. Resolves with the bytes of the run. */
async function receiveBlocks(
  { unit, task, pool }: CommandContext,
  run: BlockRun,
  consume: (chunk: BlockRun, data: Uint8Array) => Promise<void>,
): Promise<number> {
  const length = run.blocks * unit.blockLength;
  if (task.expectedDataTransferLength < length) throw expectedLengthTooShort(length);
  let consumed: Promise<void> = Promise.resolve();
  try {
    for (const chunk of chunksOf(unit, run)) {
      throwIfAborted(task);
      const buffer = pool.acquire(chunk.blocks * unit.blockLength);
      try {
        await task.receiveDataOut((chunk.lba - run.lba) * unit.blockLength, buffer.bytes);
        await consumed;
        throwIfAborted(task);
      } catch (error) {
        buffer.release();
        throw error;
      }
      consumed = finish(consume(chunk, buffer.bytes), buffer);
    }
  } finally {
    await Promise.allSettled([consumed]);
  }
  await consumed;
  return length;
}

/** Releases the buffer when `use` has settled. A rejection is reported to whoever awaits it next, so it is not unhandled meanwhile. */
function finish(use: Promise<void>, buffer: PoolBuffer): Promise<void> {
  const finished = use.finally(() => buffer.release());
  finished.catch(() => {});
  return finished;
}

async function receiveBlock({ unit, task }: CommandContext): Promise<Uint8Array> {
  return await receiveParameterList({ task }, unit.blockLength);
}

/** A run of pool memory with `block` in it `times` times. */
function repeated(pool: BufferPool, block: Uint8Array, times: number): PoolBuffer {
  const buffer = pool.acquire(block.length * times);
  for (let offset = 0; offset < buffer.bytes.length; offset += block.length) buffer.bytes.set(block, offset);
  return buffer;
}

async function readChunk(unit: ServedUnit, chunk: BlockRun, into: Uint8Array): Promise<void> {
  const { medium, blockLength } = unit;
  try {
    await medium.read(chunk.lba * blockLength, into);
  } catch {
    // Block by block, to name the first that cannot be read.
    for (let index = 0; index < chunk.blocks; index++) {
      const lba = chunk.lba + index;
      const block = into.subarray(index * blockLength, (index + 1) * blockLength);
      await onMedium(unit, lba, unrecoveredReadError, () => medium.read(lba * blockLength, block));
    }
  }
}

function writeChunk(unit: ServedUnit, chunk: BlockRun, data: Uint8Array, fua: boolean): Promise<void> {
  return onMedium(unit, chunk.lba, writeError, () => unit.medium.write(chunk.lba * unit.blockLength, data, { fua }));
}

/** Reads a chunk again and compares it where there is something to compare it with. */
async function verifyChunk(
  { unit, pool }: CommandContext,
  run: BlockRun,
  chunk: BlockRun,
  expected: Uint8Array | undefined,
): Promise<void> {
  const buffer = pool.acquire(chunk.blocks * unit.blockLength);
  try {
    await readChunk(unit, chunk, buffer.bytes);
    if (expected === undefined || Buffer.compare(expected, buffer.bytes) === 0) return;
    const first = buffer.bytes.findIndex((byte, index) => byte !== expected[index]);
    throw miscompare((chunk.lba - run.lba) * unit.blockLength + first);
  } finally {
    buffer.release();
  }
}

async function discard(unit: ServedUnit, run: BlockRun): Promise<void> {
  const { medium, blockLength } = unit;
  await onMedium(unit, run.lba, writeError, () => medium.discard(run.lba * blockLength, run.blocks * blockLength));
  if (unit.forcesWrites) await flush(unit, run.lba);
}

/** Turns a medium's error into sense data. `failure` is for those that have no sense data of their own. */
async function onMedium<T>(
  unit: ServedUnit,
  lba: number,
  failure: (lba: number) => CheckCondition,
  action: () => Promise<T>,
): Promise<T> {
  try {
    return await action();
  } catch (error) {
    switch (errorCode(error)) {
      case 'no-space':
        throw spaceAllocationFailed();
      case 'write-protected':
        throw writeProtected();
      case 'out-of-range':
        throw lbaOutOfRange(Math.min(lba, unit.blocks));
      default:
        throw failure(lba);
    }
  }
}
