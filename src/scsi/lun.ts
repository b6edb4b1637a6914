/**
 * Logical unit numbers: the 8-byte LUN structure of SAM (SAM-5), its addressing methods, the
 * labels under which people and paths name them, and the parameter data of REPORT LUNS. Pure. Numbers
 * alone do not name a logical unit: peripheral 5 and flat 5 may be two units, so every structure has a
 * label of its own.
 */

import { IserfsError } from '../errors.ts';
import { viewOf } from '../field.ts';
import type { Lun } from './port.ts';

/** What the bytes of a LUN say. Everything but the methods with a plain number is kept as it is. */
export type LunAddress =
  /** Peripheral device addressing: one level, bus 0: 0 to 255. */
  | { readonly method: 'peripheral'; readonly number: number }
  /** Flat space addressing: 0 to 16383. */
  | { readonly method: 'flat'; readonly number: number }
  /** Logical unit addressing: bus, target and LUN behind an SCSI bridge. */
  | { readonly method: 'logical-unit'; readonly bus: number; readonly target: number; readonly number: number }
  /** Extended flat space addressing: 24 bits. */
  | { readonly method: 'extended-flat'; readonly number: number }
  /** Long extended flat space addressing: 40 bits. */
  | { readonly method: 'long-extended-flat'; readonly number: number }
  /** A well-known logical unit: 1 is REPORT LUNS. */
  | { readonly method: 'well-known'; readonly number: number }
  /** Several levels, another bus, or a method that SAM does not name. */
  | { readonly method: 'other' };

/** The REPORT LUNS well-known logical unit. */
export const REPORT_LUNS_WELL_KNOWN: Lun = 0xc101_0000_0000_0000n;

/** Long extended flat numbers end where 40 bits do; `lunFromNumber` stops at 24, the most any plain number needs. */
const MOST_NUMBER = 0xff_ffff;

export function decodeLun(lun: Lun): LunAddress {
  const [b0, b1] = [byteOf(lun, 0), byteOf(lun, 1)];
  switch (b0 >> 6) {
    case 0:
      return b0 === 0 && restIsZero(lun, 2) ? { method: 'peripheral', number: b1 } : { method: 'other' };
    case 1:
      return restIsZero(lun, 2) ? { method: 'flat', number: ((b0 & 0x3f) << 8) | b1 } : { method: 'other' };
    case 2:
      return restIsZero(lun, 2)
        ? { method: 'logical-unit', bus: b1 >> 5, target: b0 & 0x3f, number: b1 & 0x1f }
        : { method: 'other' };
    default:
      return decodeExtended(lun, b0, b1);
  }
}

/** Byte 0 of an extended address is 11b, a length code and the method. */
function decodeExtended(lun: Lun, b0: number, b1: number): LunAddress {
  if (b0 === 0xc1 && restIsZero(lun, 2)) return { method: 'well-known', number: b1 };
  if (b0 === 0xd2 && restIsZero(lun, 4)) return { method: 'extended-flat', number: Number((lun >> 32n) & 0xff_ffffn) };
  if (b0 === 0xe2 && restIsZero(lun, 6)) {
    return { method: 'long-extended-flat', number: Number((lun >> 16n) & 0xff_ffff_ffffn) };
  }
  return { method: 'other' };
}

/** The LUN under which targets report unit `number` (0 to 2^24 - 1): peripheral up to 255, flat up to 16383, extended flat beyond. */
export function lunFromNumber(number: number): Lun {
  if (!Number.isInteger(number) || number < 0 || number > MOST_NUMBER) throw new RangeError(`${number} is no LUN`);
  if (number < 0x100) return BigInt(number) << 48n;
  if (number < 0x4000) return BigInt(0x4000 | number) << 48n;
  return (0xd2n << 56n) | (BigInt(number) << 32n);
}

/** The plain number of a LUN in any of the methods that have one; undefined for bridges, several levels and well-known units. */
export function lunNumber(lun: Lun): number | undefined {
  const address = decodeLun(lun);
  switch (address.method) {
    case 'peripheral':
    case 'flat':
    case 'extended-flat':
    case 'long-extended-flat':
      return address.number;
    default:
      return undefined;
  }
}

/**
 * The name of a LUN: `0`, `300` where the number and the method that targets use for it say all; else
 * the method before the number (`flat-5`, `well-known-1`, `bus-1-target-2-lun-3`) or all 8 bytes
 * (`0x0102000000000000`). Unique per LUN, one path component, and `parseLun` reads it back.
 */
export function lunLabel(lun: Lun): string {
  const address = decodeLun(lun);
  switch (address.method) {
    case 'other':
      return `0x${lun.toString(16).padStart(16, '0')}`;
    case 'logical-unit':
      return `bus-${address.bus}-target-${address.target}-lun-${address.number}`;
    case 'well-known':
      return `well-known-${address.number}`;
    default:
      return address.number <= MOST_NUMBER && lunFromNumber(address.number) === lun
        ? String(address.number)
        : `${address.method}-${address.number}`;
  }
}

/** The LUN that a label names; code `bad-configuration` for what is none. */
export function parseLun(label: string): Lun {
  const lun = lunOf(label);
  if (lun === undefined) {
    throw new IserfsError('bad-configuration', `"${label}" names no LUN`, {
      hint: 'Give a number such as 0, or a label as "iserfs ls" prints it.',
    });
  }
  return lun;
}

function lunOf(label: string): Lun | undefined {
  if (/^0x[0-9a-f]{16}$/i.test(label)) return BigInt(label);
  const bridged = /^bus-(\d)-target-(\d\d?)-lun-(\d\d?)$/.exec(label);
  if (bridged !== null) {
    const [bus, target, number] = bridged.slice(1).map(Number) as [number, number, number];
    if (bus > 7 || target > 63 || number > 31) return undefined;
    return BigInt(0x8000 | (target << 8) | (bus << 5) | number) << 48n;
  }
  const plain = /^(?:([a-z-]+)-)?(0|[1-9]\d{0,12})$/.exec(label);
  if (plain === null) return undefined;
  const number = Number(plain[2]);
  switch (plain[1]) {
    case undefined:
      return number <= MOST_NUMBER ? lunFromNumber(number) : undefined;
    case 'peripheral':
      return number < 0x100 ? BigInt(number) << 48n : undefined;
    case 'flat':
      return number < 0x4000 ? BigInt(0x4000 | number) << 48n : undefined;
    case 'extended-flat':
      return number <= 0xff_ffff ? (0xd2n << 56n) | (BigInt(number) << 32n) : undefined;
    case 'long-extended-flat':
      return number <= 0xff_ffff_ffff ? (0xe2n << 56n) | (BigInt(number) << 16n) : undefined;
    case 'well-known':
      return number < 0x100 ? (0xc1n << 56n) | (BigInt(number) << 48n) : undefined;
    default:
      return undefined;
  }
}

/** Parameter data of REPORT LUNS (SPC). */
export interface LunInventory {
  /** The LUNs that the data held in full. */
  readonly luns: Lun[];
  /** Bytes of the whole inventory, its header included: the allocation length that gets all of it. */
  readonly totalLength: number;
}

const INVENTORY_HEADER = 8;

/** Decodes REPORT LUNS data, whole or cut off anywhere. */
export function decodeReportLuns(data: Uint8Array): LunInventory {
  if (data.length < INVENTORY_HEADER) return { luns: [], totalLength: INVENTORY_HEADER };
  const view = viewOf(data);
  const totalLength = INVENTORY_HEADER + view.getUint32(0);
  const luns: Lun[] = [];
  const end = Math.min(totalLength, data.length);
  for (let offset = INVENTORY_HEADER; offset + 8 <= end; offset += 8) luns.push(view.getBigUint64(offset));
  return { luns, totalLength };
}

export function encodeReportLuns(luns: readonly Lun[]): Uint8Array {
  const data = new Uint8Array(INVENTORY_HEADER + luns.length * 8);
  const view = viewOf(data);
  view.setUint32(0, luns.length * 8);
  for (const [index, lun] of luns.entries()) view.setBigUint64(INVENTORY_HEADER + index * 8, lun);
  return data;
}

function byteOf(lun: Lun, index: number): number {
  return Number((lun >> BigInt(56 - index * 8)) & 0xffn);
}

/** Whether every byte from `index` on is zero: the address has one level. */
function restIsZero(lun: Lun, index: number): boolean {
  return (lun & ((1n << BigInt(64 - index * 8)) - 1n)) === 0n;
}
