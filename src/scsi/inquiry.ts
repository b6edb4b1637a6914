/**
 * INQUIRY data (SPC) and the vital product data pages that iserfs uses: 00h, 80h, 83h (SPC), B0h, B1h
 * and B2h (SBC), both ways. Decoders take data that may be cut off anywhere: what is missing reads as
 * zero, as an old device's shorter page means it. Pure.
 */

import { ascii, bit, bits, bytes, layout, lowBits, setFields, u8, u16, u32, u64, viewOf } from '../field.ts';

/** Peripheral device types that matter here (SPC). */
export const DeviceType = {
  'direct-access': 0x00,
  'cd-dvd': 0x05,
  'storage-array-controller': 0x0c,
  'simplified-direct-access': 0x0e,
} as const;

/** Peripheral qualifiers: a unit is there, there is none just now, this port supports none at this LUN. */
export const PeripheralQualifier = { connected: 0, disconnected: 1, unsupported: 3 } as const;

export const VpdPage = {
  'supported-pages': 0x00,
  'unit-serial-number': 0x80,
  'device-identification': 0x83,
  'block-limits': 0xb0,
  'block-characteristics': 0xb1,
  'logical-block-provisioning': 0xb2,
} as const;

const standard = layout(96, {
  peripheralQualifier: bits(0, 7, 5),
  deviceType: bits(0, 4, 0),
  removable: bit(1, 7),
  version: u8(2),
  hierarchicalLuns: bit(3, 4),
  responseDataFormat: bits(3, 3, 0),
  additionalLength: u8(4),
  thirdPartyCopy: bit(5, 3),
  protection: bit(5, 0),
  commandQueuing: bit(7, 1),
  vendor: ascii(8, 8),
  product: ascii(16, 16),
  revision: ascii(32, 4),
  versionDescriptors: bytes(58, 16),
});

export interface StandardInquiry {
  readonly peripheralQualifier: number;
  /** 1Fh: unknown or none. */
  readonly deviceType: number;
  readonly removable: boolean;
  /** VERSION: 5 is SPC-3, 6 SPC-4. */
  readonly version: number;
  readonly protection: boolean;
  readonly commandQueuing: boolean;
  readonly vendor: string;
  readonly product: string;
  readonly revision: string;
  /** Version descriptor codes of the standards that the device claims. */
  readonly versionDescriptors: readonly number[];
}

export function decodeStandardInquiry(data: Uint8Array): StandardInquiry {
  const view = padded(data, 96);
  const claims = viewOf(standard.versionDescriptors.get(view));
  const versionDescriptors = [0, 2, 4, 6, 8, 10, 12, 14].map((offset) => claims.getUint16(offset)).filter((code) => code !== 0);
  return {
    peripheralQualifier: standard.peripheralQualifier.get(view),
    deviceType: standard.deviceType.get(view),
    removable: standard.removable.get(view),
    version: standard.version.get(view),
    protection: standard.protection.get(view),
    commandQueuing: standard.commandQueuing.get(view),
    vendor: standard.vendor.get(view),
    product: standard.product.get(view),
    revision: standard.revision.get(view),
    versionDescriptors,
  };
}

/** 96 bytes. Throws RangeError where a string does not fit or there are more than 8 version descriptors. */
export function encodeStandardInquiry(inquiry: StandardInquiry): Uint8Array {
  const { versionDescriptors, ...values } = inquiry;
  const claims = new Uint8Array(versionDescriptors.length * 2);
  for (const [index, code] of versionDescriptors.entries()) viewOf(claims).setUint16(index * 2, code);
  const data = new Uint8Array(96);
  setFields(standard, viewOf(data), {
    ...values,
    hierarchicalLuns: true,
    responseDataFormat: 2,
    additionalLength: data.length - 5,
    versionDescriptors: claims,
  });
  return data;
}

const pageHeader = layout(4, { peripheralQualifier: bits(0, 7, 5), deviceType: bits(0, 4, 0), page: u8(1), length: u16(2) });

/** A VPD page without its header. */
export interface VpdPageBody {
  readonly page: number;
  /** As much of the body as the data held. A view of it. */
  readonly body: Uint8Array;
  /** Bytes of the whole page with its header: the allocation length that gets all of it. */
  readonly totalLength: number;
}

export function decodeVpdPage(data: Uint8Array): VpdPageBody {
  const view = padded(data.subarray(0, 4), 4);
  const totalLength = 4 + pageHeader.length.get(view);
  return { page: pageHeader.page.get(view), body: data.subarray(4, totalLength), totalLength };
}

/** `device`: the qualifier and type that stand in every page as in the standard data. */
export function encodeVpdPage(
  page: number,
  body: Uint8Array,
  device: { readonly peripheralQualifier: number; readonly deviceType: number } = { peripheralQualifier: 0, deviceType: 0 },
): Uint8Array {
  const data = new Uint8Array(4 + body.length);
  setFields(pageHeader, viewOf(data), { ...device, page, length: body.length });
  data.set(body, 4);
  return data;
}

// Bodies: the functions from here on take and give pages without their header.

/** Page 00h: the page codes that the device has, ascending. */
export const decodeSupportedPages = (body: Uint8Array): number[] => [...body];
export const encodeSupportedPages = (pages: readonly number[]): Uint8Array => Uint8Array.from(pages).sort();

/** Page 80h: the serial number without the padding that devices put on either side. */
export const decodeUnitSerialNumber = (body: Uint8Array): string => text(body).trim();
export const encodeUnitSerialNumber = (serial: string): Uint8Array =>
  Uint8Array.from(serial, (char) => char.charCodeAt(0) & 0x7f);

const designatorHeader = layout(4, {
  protocol: bits(0, 7, 4),
  codeSet: bits(0, 3, 0),
  protocolValid: bit(1, 7),
  association: bits(1, 5, 4),
  type: bits(1, 3, 0),
  length: u8(3),
});

/** What a designator names (SPC). */
export const Association = { 'logical-unit': 0, 'target-port': 1, 'target-device': 2 } as const;
/** How its bytes are written. */
export const CodeSet = { binary: 1, ascii: 2, utf8: 3 } as const;

export const DesignatorType = {
  'vendor-specific': 0x0,
  't10-vendor': 0x1,
  'eui-64': 0x2,
  naa: 0x3,
  'relative-target-port': 0x4,
  'target-port-group': 0x5,
  'logical-unit-group': 0x6,
  'md5-logical-unit': 0x7,
  'scsi-name': 0x8,
  'protocol-specific-port': 0x9,
  uuid: 0xa,
} as const satisfies Record<string, number>;

/** One designation descriptor of page 83h. */
export interface Designator {
  readonly association: number;
  readonly type: number;
  readonly codeSet: number;
  /** PROTOCOL IDENTIFIER where it is valid: 5 is iSCSI. */
  readonly protocol?: number;
  readonly value: Uint8Array;
}

/** Page 83h. Stops at a descriptor that was cut off. The values are copies. */
export function decodeDeviceIdentification(body: Uint8Array): Designator[] {
  const designators: Designator[] = [];
  for (let offset = 0; offset + 4 <= body.length; ) {
    const view = viewOf(body.subarray(offset, offset + 4));
    const end = offset + 4 + designatorHeader.length.get(view);
    if (end > body.length) break;
    designators.push({
      association: designatorHeader.association.get(view),
      type: designatorHeader.type.get(view),
      codeSet: designatorHeader.codeSet.get(view),
      ...(designatorHeader.protocolValid.get(view) ? { protocol: designatorHeader.protocol.get(view) } : {}),
      value: body.slice(offset + 4, end),
    });
    offset = end;
  }
  return designators;
}

export function encodeDeviceIdentification(designators: readonly Designator[]): Uint8Array {
  const body = new Uint8Array(designators.reduce((sum, designator) => sum + 4 + designator.value.length, 0));
  let offset = 0;
  for (const { association, type, codeSet, protocol, value } of designators) {
    setFields(designatorHeader, viewOf(body.subarray(offset, offset + 4)), {
      association,
      type,
      codeSet,
      protocol: protocol ?? 0,
      protocolValid: protocol !== undefined,
      length: value.length,
    });
    body.set(value, offset + 4);
    offset += 4 + value.length;
  }
  return body;
}

/**
 * A designator for people and for comparison: `naa.6001405…`, `eui.…`, `t10.VENDOR …`, an iSCSI name as
 * it is, `uuid.…`, `relative-target-port.1`; others as their type number and hex. Two designators of one
 * association with the same text are the same.
 */
export function designatorText(designator: Designator): string {
  const { value } = designator;
  switch (designator.type) {
    case DesignatorType['t10-vendor']:
      return `t10.${readable(value)}`;
    case DesignatorType['eui-64']:
      return `eui.${hex(value)}`;
    case DesignatorType.naa:
      return `naa.${hex(value)}`;
    case DesignatorType['scsi-name']:
      return readable(value);
    case DesignatorType.uuid:
      return `uuid.${hex(value.subarray(2))}`;
    case DesignatorType['relative-target-port']:
    case DesignatorType['target-port-group']:
    case DesignatorType['logical-unit-group']: {
      const name = Object.entries(DesignatorType).find(([, type]) => type === designator.type)?.[0];
      return value.length === 4 ? `${name}.${viewOf(value).getUint16(2)}` : `${name}.${hex(value)}`;
    }
    case DesignatorType['vendor-specific']:
      return `vendor.${readable(value)}`;
    default:
      return `type-${designator.type.toString(16)}.${hex(value)}`;
  }
}

const blockLimits = layout(60, {
  writeSameNonZero: bit(0, 0),
  maximumCompareAndWriteLength: u8(1),
  optimalTransferLengthGranularity: u16(2),
  maximumTransferLength: u32(4),
  optimalTransferLength: u32(8),
  maximumPrefetchLength: u32(12),
  maximumUnmapLbaCount: u32(16),
  maximumUnmapDescriptorCount: u32(20),
  optimalUnmapGranularity: u32(24),
  unmapAlignmentValid: bit(28, 7),
  unmapAlignment: lowBits(28, 31),
  maximumWriteSameLength: u64(32),
});

/** Page B0h. Lengths and counts are in blocks; 0 means "not reported": no limit is known. */
export interface BlockLimits {
  /** WSNZ: a WRITE SAME of 0 blocks ("to the end") is refused. */
  readonly writeSameNonZero: boolean;
  readonly maximumCompareAndWriteLength: number;
  readonly optimalTransferLengthGranularity: number;
  readonly maximumTransferLength: number;
  readonly optimalTransferLength: number;
  readonly maximumPrefetchLength: number;
  readonly maximumUnmapLbaCount: number;
  readonly maximumUnmapDescriptorCount: number;
  readonly optimalUnmapGranularity: number;
  /** Undefined where the device does not say. */
  readonly unmapGranularityAlignment: number | undefined;
  /** At most 2^53 - 1. */
  readonly maximumWriteSameLength: number;
}

export function decodeBlockLimits(body: Uint8Array): BlockLimits {
  const view = padded(body, 60);
  return {
    writeSameNonZero: blockLimits.writeSameNonZero.get(view),
    maximumCompareAndWriteLength: blockLimits.maximumCompareAndWriteLength.get(view),
    optimalTransferLengthGranularity: blockLimits.optimalTransferLengthGranularity.get(view),
    maximumTransferLength: blockLimits.maximumTransferLength.get(view),
    optimalTransferLength: blockLimits.optimalTransferLength.get(view),
    maximumPrefetchLength: blockLimits.maximumPrefetchLength.get(view),
    maximumUnmapLbaCount: blockLimits.maximumUnmapLbaCount.get(view),
    maximumUnmapDescriptorCount: blockLimits.maximumUnmapDescriptorCount.get(view),
    optimalUnmapGranularity: blockLimits.optimalUnmapGranularity.get(view),
    unmapGranularityAlignment: blockLimits.unmapAlignmentValid.get(view) ? blockLimits.unmapAlignment.get(view) : undefined,
    maximumWriteSameLength: Math.min(Number(blockLimits.maximumWriteSameLength.get(view)), Number.MAX_SAFE_INTEGER),
  };
}

export function encodeBlockLimits(limits: BlockLimits): Uint8Array {
  const { unmapGranularityAlignment, maximumWriteSameLength, ...values } = limits;
  const body = new Uint8Array(60);
  setFields(blockLimits, viewOf(body), {
    ...values,
    unmapAlignmentValid: unmapGranularityAlignment !== undefined,
    unmapAlignment: unmapGranularityAlignment ?? 0,
    maximumWriteSameLength: BigInt(maximumWriteSameLength),
  });
  return body;
}

const blockCharacteristics = layout(60, { rotationRate: u16(0), productType: u8(2), nominalFormFactor: bits(3, 3, 0) });

/** Page B1h. */
export interface BlockCharacteristics {
  /** 0 not reported, 1 solid state, else revolutions per minute. */
  readonly rotationRate: number;
  readonly productType: number;
  readonly nominalFormFactor: number;
}

export function decodeBlockCharacteristics(body: Uint8Array): BlockCharacteristics {
  const view = padded(body, 60);
  return {
    rotationRate: blockCharacteristics.rotationRate.get(view),
    productType: blockCharacteristics.productType.get(view),
    nominalFormFactor: blockCharacteristics.nominalFormFactor.get(view),
  };
}

export function encodeBlockCharacteristics(characteristics: BlockCharacteristics): Uint8Array {
  const body = new Uint8Array(60);
  setFields(blockCharacteristics, viewOf(body), characteristics);
  return body;
}

const provisioning = layout(4, {
  thresholdExponent: u8(0),
  unmap: bit(1, 7),
  writeSame16Unmap: bit(1, 6),
  writeSame10Unmap: bit(1, 5),
  readZeros: bits(1, 4, 2),
  anchor: bit(1, 1),
  provisioningType: bits(2, 2, 0),
});

/** Page B2h: how the device gives space back. */
export interface ThinProvisioning {
  /** LBPU: UNMAP works. */
  readonly unmap: boolean;
  /** LBPWS and LBPWS10: WRITE SAME with the UNMAP bit works. */
  readonly writeSame16Unmap: boolean;
  readonly writeSame10Unmap: boolean;
  /** LBPRZ: bit 0 says that an unmapped block reads as zeros. */
  readonly readZeros: number;
  readonly anchor: boolean;
  /** 0 not reported, 1 resource provisioned, 2 thin provisioned. */
  readonly provisioningType: number;
  readonly thresholdExponent: number;
}

export function decodeThinProvisioning(body: Uint8Array): ThinProvisioning {
  const view = padded(body, 4);
  return {
    unmap: provisioning.unmap.get(view),
    writeSame16Unmap: provisioning.writeSame16Unmap.get(view),
    writeSame10Unmap: provisioning.writeSame10Unmap.get(view),
    readZeros: provisioning.readZeros.get(view),
    anchor: provisioning.anchor.get(view),
    provisioningType: provisioning.provisioningType.get(view),
    thresholdExponent: provisioning.thresholdExponent.get(view),
  };
}

export function encodeThinProvisioning(values: ThinProvisioning): Uint8Array {
  const body = new Uint8Array(4);
  setFields(provisioning, viewOf(body), values);
  return body;
}

/** A view of at least `length` bytes: a zero-filled copy of data that is shorter. */
function padded(data: Uint8Array, length: number): DataView {
  if (data.length >= length) return viewOf(data);
  const whole = new Uint8Array(length);
  whole.set(data);
  return viewOf(whole);
}

const hex = (value: Uint8Array) => Array.from(value, (byte) => byte.toString(16).padStart(2, '0')).join('');

function text(value: Uint8Array): string {
  return new TextDecoder().decode(value).replace(/\0.*$/s, '');
}

/** Text without padding where all of it is printable, else hex: a label of one line whatever a device sends. */
function readable(value: Uint8Array): string {
  const plain = text(value).trimEnd();
  return plain !== '' && /^[\x20-\x7e\u00a1-\uffff]*$/.test(plain) ? plain : hex(value);
}
