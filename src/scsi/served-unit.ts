/**
 * One logical unit of a device server: what it is, its medium, and the state that commands change. What
 * the commands do with it stands in `device-server.ts` and the `server-*.ts` files beside it.
 */

import { IserfsError } from '../errors.ts';
import type { Capacity } from './capacity.ts';
import type { BlockLimits } from './inquiry.ts';
import type { Medium } from './medium.ts';
import { Attention, PendingAttentions } from './pending-attentions.ts';
import { RangeLock } from './range-lock.ts';

export interface ServedUnitOptions {
  /** 0 to 2^24 - 1. */
  readonly lun: number;
  /** Taken: closed with the device server. A multiple of `blockLength` long. */
  readonly medium: Medium;
  /** 512 to 65536, a power of two. */
  readonly blockLength: number;
  /** Names the unit for ever: initiators compare it (VPD 80h, 83h) before they go on after a lost session. Up to 64 printable ASCII characters. */
  readonly serial: string;
  /** Up to 16 printable ASCII characters. */
  readonly product?: string;
  readonly readOnly?: boolean;
  /** Whether the write cache (WCE) is on at first: without it every write is forced to stable storage. By default it is where the medium is volatile. */
  readonly volatileCache?: boolean;
}

/** Longest data transfer of one command. */
const MAXIMUM_TRANSFER = 16 * 1024 * 1024;
/** Lengths beyond this gain nothing. */
const OPTIMAL_TRANSFER = 1024 * 1024;
const PHYSICAL_BLOCK = 4096;
/** Most blocks of one WRITE SAME, which occupies its range while it runs. */
const MAXIMUM_WRITE_SAME = 0x2_0000;
const MAXIMUM_UNMAP_DESCRIPTORS = 256;

export class ServedUnit {
  readonly number: number;
  readonly medium: Medium;
  readonly blockLength: number;
  readonly serial: string;
  readonly product: string;
  readonly limits: BlockLimits;
  /** Ranges of LBAs. Commands that overlap run one after the other, in the order that they came. */
  readonly lock = new RangeLock();
  readonly attentions = new PendingAttentions();
  readonly #writeCacheAtStart: boolean;
  /** WCE of the caching page. */
  writeCacheEnabled: boolean;
  /** D_SENSE of the control page. */
  descriptorSense = false;
  /** SWP of the control page. */
  softwareWriteProtect = false;
  isStopped = false;
  /** The nexus that holds the unit with RESERVE(6). */
  reservedBy: number | undefined;
  #writeProtected: boolean;

  constructor(options: ServedUnitOptions) {
    check(options);
    this.number = options.lun;
    this.medium = options.medium;
    this.blockLength = options.blockLength;
    this.serial = options.serial;
    this.product = options.product ?? 'BLOCK DEVICE';
    this.limits = limitsOf(options);
    this.#writeCacheAtStart = options.volatileCache ?? options.medium.isVolatile;
    this.writeCacheEnabled = this.#writeCacheAtStart;
    this.#writeProtected = options.readOnly ?? false;
  }

  get blocks(): number {
    return Math.floor(this.medium.size / this.blockLength);
  }

  get capacity(): Capacity {
    return {
      lastLba: BigInt(this.blocks) - 1n,
      blockLength: this.blockLength,
      logicalBlocksPerPhysicalBlockExponent: Math.max(0, Math.log2(PHYSICAL_BLOCK / this.blockLength)),
      lowestAlignedLba: 0,
      thin: this.medium.isThin,
      readZeros: this.medium.isThin,
      protectionType: undefined,
    };
  }

  /** Whether writes are refused: by option, by the medium, or by an initiator through the control page. */
  get isWriteProtected(): boolean {
    return this.#writeProtected || this.medium.readOnly || this.softwareWriteProtect;
  }

  /** Whether GOOD for a write without FUA must wait for stable storage. */
  get forcesWrites(): boolean {
    return !this.writeCacheEnabled && this.medium.isVolatile;
  }

  /** Changes write protection; every nexus hears of it. */
  setWriteProtected(writeProtected: boolean): void {
    if (writeProtected === this.#writeProtected) return;
    this.#writeProtected = writeProtected;
    this.attentions.raise(Attention['mode-parameters-changed']);
  }

  /** Changes the capacity; every nexus hears of it. Waits for the commands under way on what a smaller size cuts off. */
  async resize(size: number): Promise<void> {
    if (size % this.blockLength !== 0 || size === 0) {
      throw new IserfsError('bad-configuration', `${size} bytes are not a number of blocks of ${this.blockLength} bytes`);
    }
    const release = await this.lock.acquire(0, Number.MAX_SAFE_INTEGER, 'exclusive');
    try {
      if (size === this.medium.size) return;
      await this.medium.resize(size);
    } finally {
      release();
    }
    this.attentions.raise(Attention['capacity-changed']);
  }

  /** What a logical unit reset undoes: reservations and mode parameters (SAM). */
  reset(): void {
    this.reservedBy = undefined;
    this.writeCacheEnabled = this.#writeCacheAtStart;
    this.softwareWriteProtect = false;
    this.descriptorSense = false;
    this.isStopped = false;
  }
}

function limitsOf({ blockLength, medium }: ServedUnitOptions): BlockLimits {
  return {
    writeSameNonZero: true,
    maximumCompareAndWriteLength: 0,
    optimalTransferLengthGranularity: Math.max(1, PHYSICAL_BLOCK / blockLength),
    maximumTransferLength: MAXIMUM_TRANSFER / blockLength,
    optimalTransferLength: OPTIMAL_TRANSFER / blockLength,
    maximumPrefetchLength: 0,
    maximumUnmapLbaCount: medium.isThin ? 0xffff_ffff : 0,
    maximumUnmapDescriptorCount: medium.isThin ? MAXIMUM_UNMAP_DESCRIPTORS : 0,
    optimalUnmapGranularity: medium.isThin ? Math.max(1, PHYSICAL_BLOCK / blockLength) : 0,
    unmapGranularityAlignment: medium.isThin ? 0 : undefined,
    maximumWriteSameLength: MAXIMUM_WRITE_SAME,
  };
}

function check({ lun, medium, blockLength, serial, product = '' }: ServedUnitOptions): void {
  const refuse = (problem: string) => new IserfsError('bad-configuration', `logical unit ${lun}: ${problem}`);
  if (!Number.isInteger(lun) || lun < 0 || lun > 0xff_ffff) throw refuse('a LUN is a number from 0 to 16777215');
  if (!Number.isInteger(Math.log2(blockLength)) || blockLength < 512 || blockLength > 65536) {
    throw refuse(`a block length of ${blockLength} bytes is not offered; take 512 or 4096`);
  }
  if (medium.size === 0 || medium.size % blockLength !== 0) {
    throw refuse(`${medium.size} bytes are not a number of blocks of ${blockLength} bytes`);
  }
  if (!/^[\x21-\x7e]{1,64}$/.test(serial)) throw refuse('a serial number is 1 to 64 printable ASCII characters');
  if (!/^[\x20-\x7e]{0,16}$/.test(product)) throw refuse('a product name is at most 16 printable ASCII characters');
}
