/**
 * Mode parameter data: the lists of MODE SENSE and MODE SELECT (6) and (10) (SPC) with their headers,
 * block descriptors and pages, the caching page (SBC) and the control page (SPC), both ways. Pure.
 */

import { bit, bits, type FieldValues, layout, setFields, u8, u16, viewOf } from '../field.ts';

export const ModePage = { caching: 0x08, control: 0x0a, all: 0x3f } as const;

const header6 = layout(4, {
  dataLength: u8(0),
  mediumType: u8(1),
  writeProtected: bit(2, 7),
  dpoFua: bit(2, 4),
  blockDescriptorLength: u8(3),
});
const header10 = layout(8, {
  dataLength: u16(0),
  mediumType: u8(2),
  writeProtected: bit(3, 7),
  dpoFua: bit(3, 4),
  longLba: bit(4, 0),
  blockDescriptorLength: u16(6),
});

/** Which of the two formats: that of the 6-byte or of the 10-byte commands. */
export type ModeFormat = 6 | 10;

/** One mode page without its header. */
export interface ModePageBody {
  readonly page: number;
  /** 0 for pages without subpages. */
  readonly subpage: number;
  readonly body: Uint8Array;
}

export interface ModeParameters {
  readonly mediumType: number;
  /** WP of the device specific parameter: writes are refused, for whatever reason. */
  readonly writeProtected: boolean;
  /** DPOFUA: the device knows the DPO and FUA bits. */
  readonly dpoFua: boolean;
  /** Block descriptors as they came; `longLba` says whether they are 16 bytes each instead of 8. */
  readonly blockDescriptors: Uint8Array;
  readonly longLba: boolean;
  /** Pages in the order that they came. Bodies are views of the data. */
  readonly pages: readonly ModePageBody[];
  /** Bytes of all mode parameters: the allocation length that gets them. For MODE SELECT data, where the field is reserved, no more than it says. */
  readonly totalLength: number;
}

const SUBPAGE_FORMAT = 0x40;

/** Decodes mode parameters, whole or cut off: pages that are incomplete are left out. Undefined where not even the header is there. */
export function decodeModeParameters(data: Uint8Array, format: ModeFormat): ModeParameters | undefined {
  const headerLength = format === 6 ? 4 : 8;
  if (data.length < headerLength) return undefined;
  const view = viewOf(data);
  const header = format === 6 ? header6 : header10;
  const pagesOffset = headerLength + header.blockDescriptorLength.get(view);
  return {
    mediumType: header.mediumType.get(view),
    writeProtected: header.writeProtected.get(view),
    dpoFua: header.dpoFua.get(view),
    blockDescriptors: data.subarray(headerLength, pagesOffset),
    longLba: format === 10 && header10.longLba.get(view),
    pages: decodePages(data.subarray(Math.min(pagesOffset, data.length))),
    totalLength: (format === 6 ? 1 : 2) + header.dataLength.get(view),
  };
}

function decodePages(data: Uint8Array): ModePageBody[] {
  const pages: ModePageBody[] = [];
  for (let offset = 0; offset + 2 <= data.length; ) {
    const first = data[offset] ?? 0;
    const hasSubpage = (first & SUBPAGE_FORMAT) !== 0;
    if (hasSubpage && offset + 4 > data.length) break;
    const start = offset + (hasSubpage ? 4 : 2);
    const length = hasSubpage ? viewOf(data).getUint16(offset + 2) : (data[offset + 1] ?? 0);
    if (start + length > data.length) break;
    pages.push({
      page: first & 0x3f,
      subpage: hasSubpage ? (data[offset + 1] ?? 0) : 0,
      body: data.subarray(start, start + length),
    });
    offset = start + length;
  }
  return pages;
}

/** What goes into a list of mode parameters; the rest follows from it. */
export type ModeValues = Pick<ModeParameters, 'writeProtected' | 'dpoFua' | 'pages'> &
  Partial<Pick<ModeParameters, 'mediumType' | 'blockDescriptors' | 'longLba'>>;

/** Encodes what MODE SENSE returns. Throws RangeError where it does not fit the 6-byte format. */
export function encodeModeParameters(values: ModeValues, format: ModeFormat): Uint8Array {
  const blockDescriptors = values.blockDescriptors ?? new Uint8Array(0);
  const parts = values.pages.map(encodePage);
  const headerLength = format === 6 ? 4 : 8;
  const total = headerLength + blockDescriptors.length + parts.reduce((sum, part) => sum + part.length, 0);
  const data = new Uint8Array(total);
  const common = {
    mediumType: values.mediumType ?? 0,
    writeProtected: values.writeProtected,
    dpoFua: values.dpoFua,
    blockDescriptorLength: blockDescriptors.length,
  };
  if (format === 6) setFields(header6, viewOf(data), { ...common, dataLength: total - 1 });
  else setFields(header10, viewOf(data), { ...common, dataLength: total - 2, longLba: values.longLba ?? false });
  let offset = headerLength;
  for (const part of [blockDescriptors, ...parts]) {
    data.set(part, offset);
    offset += part.length;
  }
  return data;
}

function encodePage({ page, subpage, body }: ModePageBody): Uint8Array {
  const head =
    subpage === 0
      ? Uint8Array.of(page, body.length)
      : Uint8Array.of(page | SUBPAGE_FORMAT, subpage, body.length >> 8, body.length & 0xff);
  const data = new Uint8Array(head.length + body.length);
  data.set(head);
  data.set(body, head.length);
  return data;
}

/**
 * A short block descriptor (8 bytes), as MODE SENSE without LONGLBA has it: block count, or all ones
 * where it does not fit, and block length.
 */
export function encodeBlockDescriptor(blocks: number, blockLength: number): Uint8Array {
  const data = new Uint8Array(8);
  viewOf(data).setUint32(0, Math.min(blocks, 0xffff_ffff));
  viewOf(data).setUint32(4, blockLength & 0xff_ffff);
  return data;
}

/** A long block descriptor (16 bytes). */
export function encodeLongBlockDescriptor(blocks: number, blockLength: number): Uint8Array {
  const data = new Uint8Array(16);
  viewOf(data).setBigUint64(0, BigInt(blocks));
  viewOf(data).setUint32(12, blockLength);
  return data;
}

/** Offsets are within the body: 2 less than in the standard's figure. */
const caching = layout(18, {
  initiatorControl: bit(0, 7),
  writeCacheEnabled: bit(0, 2),
  readCacheDisabled: bit(0, 0),
  disableReadAhead: bit(10, 5),
  nonVolatileCacheDisabled: bit(10, 0),
});

/** The caching page (08h). `writeCacheEnabled` (WCE): GOOD for a write may come before the data is on the medium. */
export type CachingPage = Readonly<FieldValues<typeof caching>>;

/** Reads a body that may be shorter, as old devices have it (10 bytes). */
export function decodeCachingPage(body: Uint8Array): CachingPage {
  const view = padded(body, 18);
  return {
    initiatorControl: caching.initiatorControl.get(view),
    writeCacheEnabled: caching.writeCacheEnabled.get(view),
    readCacheDisabled: caching.readCacheDisabled.get(view),
    disableReadAhead: caching.disableReadAhead.get(view),
    nonVolatileCacheDisabled: caching.nonVolatileCacheDisabled.get(view),
  };
}

export function encodeCachingPage(values: Partial<CachingPage>): ModePageBody {
  const body = new Uint8Array(18);
  setFields(caching, viewOf(body), values);
  return { page: ModePage.caching, subpage: 0, body };
}

const control = layout(10, {
  taskSetType: bits(0, 7, 5),
  descriptorSense: bit(0, 2),
  queueAlgorithmModifier: bits(1, 7, 4),
  queueErrorManagement: bits(1, 2, 1),
  unitAttentionInterlock: bits(2, 5, 4),
  softwareWriteProtect: bit(2, 3),
  taskAbortedStatus: bit(3, 6),
  busyTimeoutPeriod: u16(6),
});

/** The control page (0Ah). `queueAlgorithmModifier` 1: SIMPLE tasks may be reordered without regard to overlap. */
export type ControlPage = Readonly<FieldValues<typeof control>>;

export function decodeControlPage(body: Uint8Array): ControlPage {
  const view = padded(body, 10);
  return {
    taskSetType: control.taskSetType.get(view),
    descriptorSense: control.descriptorSense.get(view),
    queueAlgorithmModifier: control.queueAlgorithmModifier.get(view),
    queueErrorManagement: control.queueErrorManagement.get(view),
    unitAttentionInterlock: control.unitAttentionInterlock.get(view),
    softwareWriteProtect: control.softwareWriteProtect.get(view),
    taskAbortedStatus: control.taskAbortedStatus.get(view),
    busyTimeoutPeriod: control.busyTimeoutPeriod.get(view),
  };
}

export function encodeControlPage(values: Partial<ControlPage>): ModePageBody {
  const body = new Uint8Array(10);
  setFields(control, viewOf(body), values);
  return { page: ModePage.control, subpage: 0, body };
}

function padded(data: Uint8Array, length: number): DataView {
  const whole = new Uint8Array(length);
  whole.set(data.subarray(0, length));
  return viewOf(whole);
}
