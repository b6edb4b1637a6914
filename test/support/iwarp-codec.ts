/**
 * The frames of iWARP, field by field, for tests: MPA set-up frames (RFC 5044 with RFC 6581), FPDUs, DDP segments (RFC 5041) and
 * RDMAP headers (RFC 5040). Written from those documents to play the peer, so it shares nothing with the provider under test and
 * builds what no proper endpoint would send: every field can be given. Knows no sockets and no order among frames.
 */

// ---- MPA set-up frames ----

export const REQUEST_KEY = 'MPA ID Req Frame';
export const REPLY_KEY = 'MPA ID Rep Frame';

export interface MpaFrame {
  /** 16 ASCII characters. */
  readonly key: string;
  readonly markers: boolean;
  readonly crc: boolean;
  readonly reject: boolean;
  readonly enhanced: boolean;
  /** The low four bits of the flags. */
  readonly reserved: number;
  readonly revision: number;
  /** What the length field says, whatever `privateData` is. */
  readonly privateDataLength: number;
  readonly privateData: Uint8Array;
}

/** An MPA frame: revision 2 with CRC unless said otherwise. */
export function encodeMpa(fields: Partial<MpaFrame> & { readonly key: string }): Uint8Array {
  const privateData = fields.privateData ?? new Uint8Array(0);
  const bytes = new Uint8Array(20 + privateData.length);
  bytes.set(Buffer.from(fields.key, 'latin1').subarray(0, 16), 0);
  bytes[16] =
    (fields.markers === true ? 0x80 : 0) |
    ((fields.crc ?? true) ? 0x40 : 0) |
    (fields.reject === true ? 0x20 : 0) |
    ((fields.enhanced ?? (fields.revision ?? 2) === 2) ? 0x10 : 0) |
    ((fields.reserved ?? 0) & 0x0f);
  bytes[17] = fields.revision ?? 2;
  new DataView(bytes.buffer).setUint16(18, fields.privateDataLength ?? privateData.length);
  bytes.set(privateData, 20);
  return bytes;
}

/** The MPA frame at the start of `bytes`; undefined while it is not whole. */
export function decodeMpa(bytes: Uint8Array): { readonly frame: MpaFrame; readonly length: number } | undefined {
  if (bytes.length < 20) return undefined;
  const view = viewOf(bytes);
  const flags = view.getUint8(16);
  const privateDataLength = view.getUint16(18);
  if (bytes.length < 20 + privateDataLength) return undefined;
  const frame = {
    key: Buffer.from(bytes.subarray(0, 16)).toString('latin1'),
    markers: (flags & 0x80) !== 0,
    crc: (flags & 0x40) !== 0,
    reject: (flags & 0x20) !== 0,
    enhanced: (flags & 0x10) !== 0,
    reserved: flags & 0x0f,
    revision: view.getUint8(17),
    privateDataLength,
    privateData: bytes.slice(20, 20 + privateDataLength),
  };
  return { frame, length: 20 + privateDataLength };
}

/** What RFC 6581 puts in front of the private data of an enhanced frame. */
export interface ReadDepths {
  /** 14 bits. */
  readonly ird: number;
  readonly ord: number;
  /** A: peer-to-peer, the initiator will send a Ready-to-Receive frame. */
  readonly peerToPeer: boolean;
  /** B, C, D: that frame may be a zero-length FPDU (Send), RDMA Write, RDMA Read. */
  readonly sendRtr: boolean;
  readonly writeRtr: boolean;
  readonly readRtr: boolean;
}

/** Four bytes of read depths, then the ULP's private data. */
export function enhancedPrivateData(depths: Partial<ReadDepths>, privateData: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(4 + privateData.length);
  const view = viewOf(bytes);
  const first = (depths.peerToPeer === true ? 0x8000 : 0) | (depths.sendRtr === true ? 0x4000 : 0);
  const second = (depths.writeRtr === true ? 0x8000 : 0) | (depths.readRtr === true ? 0x4000 : 0);
  view.setUint16(0, first | ((depths.ird ?? 16) & 0x3fff));
  view.setUint16(2, second | ((depths.ord ?? 16) & 0x3fff));
  bytes.set(privateData, 4);
  return bytes;
}

export function splitEnhanced(bytes: Uint8Array): { readonly depths: ReadDepths; readonly privateData: Uint8Array } {
  const view = viewOf(bytes);
  const first = view.getUint16(0);
  const second = view.getUint16(2);
  const depths = {
    ird: first & 0x3fff,
    ord: second & 0x3fff,
    peerToPeer: (first & 0x8000) !== 0,
    sendRtr: (first & 0x4000) !== 0,
    writeRtr: (second & 0x8000) !== 0,
    readRtr: (second & 0x4000) !== 0,
  };
  return { depths, privateData: bytes.slice(4) };
}

// ---- FPDUs ----

export interface FpduOptions {
  /** Whether the CRC field has a CRC; without, it is zero. */
  readonly crc: boolean;
  /** What ULPDU_Length says instead of the truth. */
  readonly length?: number;
  /** Flips these bits of the CRC field. */
  readonly crcDamage?: number;
}

/** ULPDU_Length, ULPDU, padding to four bytes, CRC32C with its least significant byte first. */
export function encodeFpdu(ulpdu: Uint8Array, options: FpduOptions): Uint8Array {
  const padded = (2 + ulpdu.length + 3) & ~3;
  const bytes = new Uint8Array(padded + 4);
  const view = viewOf(bytes);
  view.setUint16(0, options.length ?? ulpdu.length);
  bytes.set(ulpdu, 2);
  const crc = options.crc ? crc32c(bytes.subarray(0, padded)) : 0;
  view.setUint32(padded, (crc ^ (options.crcDamage ?? 0)) >>> 0, true);
  return bytes;
}

/** The FPDU at the start of `bytes`; undefined while it is not whole. `crc` is the field as it came. */
export function decodeFpdu(
  bytes: Uint8Array,
): { readonly ulpdu: Uint8Array; readonly crc: number; readonly crcIsRight: boolean; readonly length: number } | undefined {
  if (bytes.length < 2) return undefined;
  const view = viewOf(bytes);
  const ulpduLength = view.getUint16(0);
  const padded = (2 + ulpduLength + 3) & ~3;
  if (bytes.length < padded + 4) return undefined;
  const crc = view.getUint32(padded, true);
  const crcIsRight = crc === crc32c(bytes.subarray(0, padded));
  return { ulpdu: bytes.slice(2, 2 + ulpduLength), crc, crcIsRight, length: padded + 4 };
}

/** What each byte does to Castagnoli's CRC. */
const crcOfByte = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 0 ? crc >>> 1 : (crc >>> 1) ^ 0x82f63b78;
  return crc;
});

/** Castagnoli's CRC, as RFC 5044 takes it from iSCSI. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ (crcOfByte[(crc ^ byte) & 0xff] ?? 0);
  return ~crc >>> 0;
}

// ---- DDP segments with the RDMAP control byte ----

export const Opcode = {
  write: 0,
  readRequest: 1,
  readResponse: 2,
  send: 3,
  sendInvalidate: 4,
  sendSolicited: 5,
  sendSolicitedInvalidate: 6,
  terminate: 7,
} as const satisfies Record<string, number>;

export const Queue = { send: 0, readRequest: 1, terminate: 2 } as const satisfies Record<string, number>;

interface Control {
  readonly last: boolean;
  /** Four bits of the DDP control byte, two of the RDMAP one. */
  readonly ddpReserved: number;
  readonly rdmapReserved: number;
  readonly ddpVersion: number;
  readonly rdmapVersion: number;
  readonly opcode: number;
  readonly payload: Uint8Array;
}

export interface TaggedSegment extends Control {
  readonly tagged: true;
  readonly stag: number;
  readonly offset: bigint;
}

export interface UntaggedSegment extends Control {
  readonly tagged: false;
  /** Of a Send with Invalidate; else reserved. */
  readonly invalidate: number;
  readonly queue: number;
  readonly msn: number;
  readonly mo: number;
}

export type Segment = TaggedSegment | UntaggedSegment;

/** What must be said of a segment; the rest has the value of a well-formed last segment without payload. */
export type SegmentFields =
  | (Partial<TaggedSegment> & { readonly tagged: true; readonly opcode: number })
  | (Partial<UntaggedSegment> & { readonly tagged: false; readonly opcode: number });

export function encodeSegment(fields: SegmentFields): Uint8Array {
  const payload = fields.payload ?? new Uint8Array(0);
  const headerLength = fields.tagged ? 14 : 18;
  const bytes = new Uint8Array(headerLength + payload.length);
  const view = viewOf(bytes);
  const last = (fields.last ?? true) ? 0x40 : 0;
  view.setUint8(0, (fields.tagged ? 0x80 : 0) | last | ((fields.ddpReserved ?? 0) << 2) | (fields.ddpVersion ?? 1));
  view.setUint8(1, ((fields.rdmapVersion ?? 1) << 6) | ((fields.rdmapReserved ?? 0) << 4) | fields.opcode);
  if (fields.tagged) {
    view.setUint32(2, fields.stag ?? 0);
    view.setBigUint64(6, BigInt.asUintN(64, fields.offset ?? 0n));
  } else {
    view.setUint32(2, fields.invalidate ?? 0);
    view.setUint32(6, fields.queue ?? 0);
    view.setUint32(10, fields.msn ?? 1);
    view.setUint32(14, fields.mo ?? 0);
  }
  bytes.set(payload, headerLength);
  return bytes;
}

/** Throws where the ULPDU is shorter than its header. */
export function decodeSegment(ulpdu: Uint8Array): Segment {
  const view = viewOf(ulpdu);
  const ddp = view.getUint8(0);
  const rdmap = view.getUint8(1);
  const control = {
    last: (ddp & 0x40) !== 0,
    ddpReserved: (ddp >> 2) & 0x0f,
    rdmapReserved: (rdmap >> 4) & 0x03,
    ddpVersion: ddp & 0x03,
    rdmapVersion: rdmap >> 6,
    opcode: rdmap & 0x0f,
  };
  if ((ddp & 0x80) !== 0) {
    const payload = ulpdu.slice(14);
    return { tagged: true, ...control, stag: view.getUint32(2), offset: view.getBigUint64(6), payload };
  }
  const untagged = { invalidate: view.getUint32(2), queue: view.getUint32(6), msn: view.getUint32(10), mo: view.getUint32(14) };
  return { tagged: false, ...control, ...untagged, payload: ulpdu.slice(18) };
}

/** What follows the DDP header of an RDMA Read Request. */
export interface ReadRequest {
  readonly sinkTag: number;
  readonly sinkOffset: bigint;
  readonly length: number;
  readonly sourceTag: number;
  readonly sourceOffset: bigint;
}

export function encodeReadRequest(request: ReadRequest): Uint8Array {
  const bytes = new Uint8Array(28);
  const view = viewOf(bytes);
  view.setUint32(0, request.sinkTag);
  view.setBigUint64(4, BigInt.asUintN(64, request.sinkOffset));
  view.setUint32(12, request.length);
  view.setUint32(16, request.sourceTag);
  view.setBigUint64(20, BigInt.asUintN(64, request.sourceOffset));
  return bytes;
}

export function decodeReadRequest(payload: Uint8Array): ReadRequest {
  const view = viewOf(payload);
  return {
    sinkTag: view.getUint32(0),
    sinkOffset: view.getBigUint64(4),
    length: view.getUint32(12),
    sourceTag: view.getUint32(16),
    sourceOffset: view.getBigUint64(20),
  };
}

// ---- Terminate ----

/** Layer, error type, error code, as in `DDP/1/0`: what a Terminate blames. */
export interface TerminateFields {
  readonly layer: number;
  readonly errorType: number;
  readonly errorCode: number;
  /** DDP Segment Length, where it is there. */
  readonly segmentLength?: number | undefined;
  /** The DDP header at fault and the RDMA Read Request header behind it, where they are there. */
  readonly headers?: Uint8Array | undefined;
}

/** A Terminate as RFC 5040 draws it: layer in the upper nibble of the first byte, M, D and R at the upper end of the third. */
export function encodeTerminate(fields: TerminateFields): Uint8Array {
  const headers = fields.headers ?? new Uint8Array(0);
  const hasLength = fields.segmentLength !== undefined;
  const bytes = new Uint8Array(4 + (hasLength ? 2 : 0) + headers.length);
  bytes[0] = (fields.layer << 4) | fields.errorType;
  bytes[1] = fields.errorCode;
  bytes[2] = (hasLength ? 0x80 : 0) | (headers.length > 0 ? 0x40 : 0) | (headers.length > 18 ? 0x20 : 0);
  if (hasLength) viewOf(bytes).setUint16(4, fields.segmentLength ?? 0);
  bytes.set(headers, hasLength ? 6 : 4);
  return bytes;
}

export function decodeTerminate(payload: Uint8Array): TerminateFields {
  const view = viewOf(payload);
  const counts = view.getUint8(2);
  const hasLength = (counts & 0x80) !== 0;
  return {
    layer: view.getUint8(0) >> 4,
    errorType: view.getUint8(0) & 0x0f,
    errorCode: view.getUint8(1),
    segmentLength: hasLength ? view.getUint16(4) : undefined,
    headers: (counts & 0x60) === 0 ? undefined : payload.slice(hasLength ? 6 : 4),
  };
}

/** `DDP/1/0`: layer, error type and error code (decimal) in one word. */
export function terminateName(fields: TerminateFields): string {
  return `${['RDMAP', 'DDP', 'LLP'][fields.layer] ?? fields.layer}/${fields.errorType}/${fields.errorCode}`;
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
