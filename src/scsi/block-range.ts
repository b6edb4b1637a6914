/**
 * Arithmetic between byte ranges and logical blocks: which blocks hold a range, and how a run of blocks
 * is cut into commands. Pure; knows no device. All numbers are safe integers.
 */

/** A run of logical blocks. */
export interface BlockRun {
  readonly lba: number;
  /** At least 1. */
  readonly blocks: number;
}

/** The fewest whole blocks that hold a byte range of at least one byte. Throws RangeError for what is no such range. */
export function coveringBlocks(offset: number, length: number, blockLength: number): BlockRun {
  checkRange(offset, length, blockLength);
  const lba = Math.floor(offset / blockLength);
  const last = Math.floor((offset + length - 1) / blockLength);
  return { lba, blocks: last - lba + 1 };
}

/** What a device wants of the length of one command; 0 stands for "no limit" and "not reported", as in VPD page B0h. */
export interface TransferLimits {
  /** The most blocks that the device takes: a bound. */
  readonly maximumBlocks: number;
  /** The most blocks without a penalty: a wish. */
  readonly optimalBlocks: number;
  /** Lengths and boundaries should be multiples of this many blocks: a wish. */
  readonly granularityBlocks: number;
}

/**
 * The chunk length for `chunkRun`: at most `wantedBlocks` (the caller's own bound, such as the length of
 * its buffers), the device's maximum and its optimal length; a multiple of the granularity where one
 * fits. At least 1.
 */
export function chunkBlocks(wantedBlocks: number, limits: TransferLimits): number {
  let blocks = Math.max(1, wantedBlocks);
  if (limits.maximumBlocks > 0) blocks = Math.min(blocks, limits.maximumBlocks);
  if (limits.optimalBlocks > 0) blocks = Math.min(blocks, limits.optimalBlocks);
  const granularity = limits.granularityBlocks;
  return granularity > 1 && blocks > granularity ? blocks - (blocks % granularity) : blocks;
}

/**
 * Cuts a run into commands of at most `maximum` blocks, in order and without gaps, whose inner
 * boundaries are multiples of `alignment` blocks from LBA 0 wherever `maximum` allows it.
 */
export function* chunkRun(run: BlockRun, maximum: number, alignment = maximum): Generator<BlockRun, void, undefined> {
  if (maximum < 1 || alignment < 1) throw new RangeError('a chunk has at least one block');
  const end = run.lba + run.blocks;
  let { lba } = run;
  while (lba < end) {
    let next = Math.min(lba + maximum, end);
    if (next < end) {
      const aligned = next - (next % alignment);
      if (aligned > lba) next = aligned;
    }
    yield { lba, blocks: next - lba };
    lba = next;
  }
}

function checkRange(offset: number, length: number, blockLength: number): void {
  if (offset < 0 || length < 1 || !Number.isSafeInteger(offset) || !Number.isSafeInteger(offset + length)) {
    throw new RangeError(`no range of ${length} bytes at ${offset}`);
  }
  if (!Number.isInteger(blockLength) || blockLength < 1) throw new RangeError(`no block length of ${blockLength}`);
}
