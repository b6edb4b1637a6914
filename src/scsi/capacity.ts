/** READ CAPACITY parameter data (SBC), both ways. Pure. */

import { bit, bits, layout, lowBits, setFields, u32, u64, viewOf } from '../field.ts';

const capacity10 = layout(8, { lastLba: u32(0), blockLength: u32(4) });
const capacity16 = layout(32, {
  lastLba: u64(0),
  blockLength: u32(8),
  protectionType: bits(12, 3, 1),
  protection: bit(12, 0),
  physicalBlockExponent: bits(13, 3, 0),
  thin: bit(14, 7),
  readZeros: bit(14, 6),
  lowestAlignedLba: lowBits(12, 14),
});

/** The last LBA that READ CAPACITY(10) gives where the true one does not fit: ask READ CAPACITY(16). */
export const CAPACITY_10_OVERFLOW = 0xffff_ffff;

export const CAPACITY_10_LENGTH = 8;
export const CAPACITY_16_LENGTH = 32;

export interface Capacity {
  readonly lastLba: bigint;
  /** Bytes per logical block. */
  readonly blockLength: number;
  /** 2^n logical blocks make one physical block. */
  readonly logicalBlocksPerPhysicalBlockExponent: number;
  readonly lowestAlignedLba: number;
  /** LBPME: the device manages which blocks have space behind them. */
  readonly thin: boolean;
  /** LBPRZ: blocks without space read as zeros. */
  readonly readZeros: boolean;
  /** Protection information: its type (1 to 3); undefined where the device is not formatted with any. */
  readonly protectionType: number | undefined;
}

/** Decodes READ CAPACITY(10) data; undefined where it is too short or the block length is 0. */
export function decodeCapacity10(data: Uint8Array): Capacity | undefined {
  if (data.length < CAPACITY_10_LENGTH) return undefined;
  const view = viewOf(data);
  const blockLength = capacity10.blockLength.get(view);
  if (blockLength === 0) return undefined;
  return {
    lastLba: BigInt(capacity10.lastLba.get(view)),
    blockLength,
    logicalBlocksPerPhysicalBlockExponent: 0,
    lowestAlignedLba: 0,
    thin: false,
    readZeros: false,
    protectionType: undefined,
  };
}

/** Decodes READ CAPACITY(16) data; what follows the block length may be missing. Undefined as above. */
export function decodeCapacity16(data: Uint8Array): Capacity | undefined {
  if (data.length < 12) return undefined;
  const whole = new Uint8Array(CAPACITY_16_LENGTH);
  whole.set(data.subarray(0, CAPACITY_16_LENGTH));
  const view = viewOf(whole);
  const blockLength = capacity16.blockLength.get(view);
  if (blockLength === 0) return undefined;
  return {
    lastLba: capacity16.lastLba.get(view),
    blockLength,
    logicalBlocksPerPhysicalBlockExponent: capacity16.physicalBlockExponent.get(view),
    lowestAlignedLba: capacity16.lowestAlignedLba.get(view),
    thin: capacity16.thin.get(view),
    readZeros: capacity16.readZeros.get(view),
    protectionType: capacity16.protection.get(view) ? capacity16.protectionType.get(view) + 1 : undefined,
  };
}

/** READ CAPACITY(10) data: a last LBA that does not fit becomes `CAPACITY_10_OVERFLOW`. */
export function encodeCapacity10(capacity: Pick<Capacity, 'lastLba' | 'blockLength'>): Uint8Array {
  const data = new Uint8Array(CAPACITY_10_LENGTH);
  const lastLba = capacity.lastLba < BigInt(CAPACITY_10_OVERFLOW) ? Number(capacity.lastLba) : CAPACITY_10_OVERFLOW;
  setFields(capacity10, viewOf(data), { lastLba, blockLength: capacity.blockLength });
  return data;
}

export function encodeCapacity16(capacity: Capacity): Uint8Array {
  const data = new Uint8Array(CAPACITY_16_LENGTH);
  setFields(capacity16, viewOf(data), {
    lastLba: capacity.lastLba,
    blockLength: capacity.blockLength,
    protection: capacity.protectionType !== undefined,
    protectionType: (capacity.protectionType ?? 1) - 1,
    physicalBlockExponent: capacity.logicalBlocksPerPhysicalBlockExponent,
    thin: capacity.thin,
    readZeros: capacity.readZeros,
    lowestAlignedLba: capacity.lowestAlignedLba,
  });
  return data;
}
