/**
 * iSCSI PDUs (RFC 7143 §11): one type per PDU, decode and encode, by the tables of fields in pdu-headers.ts.
 * Pure. Digests and padding belong to the TCP data mover, the 28 bytes before a BHS on RDMA to the iSER one;
 * neither is here.
 *
 * Reserved fields are written as zero and ignored when read. `data` is the data segment without
 * padding, borrowed from whoever made the PDU; its length becomes DataSegmentLength.
 */

import { ProtocolError } from '../../errors.ts';
import { type Field, layout, setFields, viewOf } from '../../field.ts';
import { type FastEncoder, fastDecoders, fastEncoders } from './pdu-data-path.ts';
import { common, final, headers, immediate } from './pdu-headers.ts';

export const BHS_LENGTH = 48;
/** The value of a task tag that names no task. */
export const RESERVED_TAG = 0xffffffff;

/** Operation codes (RFC 7143 §11.2.1.2). */
export const Opcode = {
  'nop-out': 0x00,
  'scsi-command': 0x01,
  'task-management-request': 0x02,
  'login-request': 0x03,
  'text-request': 0x04,
  'data-out': 0x05,
  'logout-request': 0x06,
  snack: 0x10,
  'nop-in': 0x20,
  'scsi-response': 0x21,
  'task-management-response': 0x22,
  'login-response': 0x23,
  'text-response': 0x24,
  'data-in': 0x25,
  'logout-response': 0x26,
  r2t: 0x31,
  'asynchronous-message': 0x32,
  reject: 0x3f,
} as const satisfies Record<string, number>;
export type OpcodeName = keyof typeof Opcode;

/** Task attributes of a SCSI Command (RFC 7143 §11.3.1). */
export const TaskAttribute = { untagged: 0, simple: 1, ordered: 2, 'head-of-queue': 3, aca: 4 } as const;

/** Functions of a Task Management Function Request (RFC 7143 §11.5.1). */
export const TaskManagementCode = {
  'abort-task': 1,
  'abort-task-set': 2,
  'clear-aca': 3,
  'clear-task-set': 4,
  'logical-unit-reset': 5,
  'target-warm-reset': 6,
  'target-cold-reset': 7,
  'task-reassign': 8,
} as const;

/** Responses of a Task Management Function Response (RFC 7143 §11.6.1). */
export const TaskManagementResponseCode = {
  complete: 0,
  'no-such-task': 1,
  'no-such-lun': 2,
  'task-still-allegiant': 3,
  'reassignment-unsupported': 4,
  unsupported: 5,
  'authorization-failed': 6,
  rejected: 255,
} as const;

/** Events of an Asynchronous Message (RFC 7143 §11.9.1). */
export const AsyncEvent = {
  'scsi-event': 0,
  'logout-requested': 1,
  'connection-dropped': 2,
  'session-dropped': 3,
  'negotiation-requested': 4,
  'vendor-specific': 255,
} as const;

/** Reasons of a Reject (RFC 7143 §11.17.1). */
export const RejectReason = {
  'data-digest-error': 0x02,
  'snack-reject': 0x03,
  'protocol-error': 0x04,
  'command-not-supported': 0x05,
  'too-many-immediate-commands': 0x06,
  'task-in-progress': 0x07,
  'invalid-data-ack': 0x08,
  'invalid-pdu-field': 0x09,
  'out-of-resources': 0x0a,
  'negotiation-reset': 0x0b,
  'waiting-for-logout': 0x0c,
} as const;

// A field that leaves the BHS or overlaps another one is found when this is loaded.
for (const fields of [common, ...Object.values(headers)]) layout(BHS_LENGTH, fields);

/** The fields of PDU `N`, plus its segments. */
export type Pdu<N extends OpcodeName = OpcodeName> = {
  [K in N]: {
    readonly opcode: K;
    /** Data segment without padding; empty where there is none. */
    readonly data: Uint8Array;
    /** Additional header segments, raw (RFC 7143 §11.2.2); empty where there are none. A multiple of 4 bytes. */
    readonly ahs: Uint8Array;
  } & { readonly [F in keyof FieldValuesOf<K>]: FieldValuesOf<K>[F] };
}[N];

type FieldValuesOf<N extends OpcodeName> = {
  [F in keyof (typeof headers)[N]]: (typeof headers)[N][F] extends Field<infer T> ? T : never;
};

/** What an initiator sends. */
export type InitiatorPdu = Pdu<
  | 'nop-out'
  | 'scsi-command'
  | 'task-management-request'
  | 'login-request'
  | 'text-request'
  | 'data-out'
  | 'logout-request'
  | 'snack'
>;
/** What a target sends. */
export type TargetPdu = Pdu<
  | 'nop-in'
  | 'scsi-response'
  | 'task-management-response'
  | 'login-response'
  | 'text-response'
  | 'data-in'
  | 'logout-response'
  | 'r2t'
  | 'asynchronous-message'
  | 'reject'
>;
/** PDUs that a data mover makes and takes by itself; the layers above it never see one. */
export type DataPdu = Pdu<'data-in' | 'data-out' | 'r2t' | 'snack'>;
export type InitiatorControlPdu = Exclude<InitiatorPdu, DataPdu>;
export type TargetControlPdu = Exclude<TargetPdu, DataPdu>;

export const NO_BYTES = new Uint8Array(0);
export const NO_LUN = 0n;

const nameByCode: (OpcodeName | undefined)[] = Array.from({ length: 0x40 });
for (const [name, code] of Object.entries(Opcode)) nameByCode[code] = name as OpcodeName;

/** The PDU that opcode `code` names, if any. */
export function opcodeName(code: number): OpcodeName | undefined {
  return nameByCode[code];
}

/** Segment lengths of the PDU whose BHS is `bhs`, in bytes and without padding. */
export function segmentLengths(bhs: Uint8Array): { readonly ahsLength: number; readonly dataSegmentLength: number } {
  const view = viewOf(bhs);
  return { ahsLength: ahsLengthOf(view), dataSegmentLength: dataSegmentLengthOf(view) };
}

/** As `segmentLengths`, of the PDU whose BHS `view` begins with. */
export function ahsLengthOf(view: DataView): number {
  return common.totalAhsLength.get(view) * 4;
}

/** Likewise. */
export function dataSegmentLengthOf(view: DataView): number {
  return common.dataSegmentLength.get(view);
}

/** The opcode byte of `bhs` without the immediate bit. */
export function opcodeOf(bhs: Uint8Array): number {
  return (bhs[0] ?? 0) & 0x3f;
}

/**
 * Reads a BHS. The result borrows `bhs` (its `cdb`, if any), `ahs` and `data`. Throws `ProtocolError`
 * for an unknown opcode.
 */
export function decodePdu(bhs: Uint8Array, data: Uint8Array = NO_BYTES, ahs: Uint8Array = NO_BYTES): Pdu {
  return decodeBhs(viewOf(bhs), data, ahs);
}

/** The same, of the BHS that `view` begins with. */
export function decodeBhs(view: DataView, data: Uint8Array, ahs: Uint8Array): Pdu {
  const code = view.getUint8(0) & 0x3f;
  const opcode = nameByCode[code];
  if (opcode === undefined) {
    throw new ProtocolError(`unknown opcode 0x${code.toString(16).padStart(2, '0')}`, 'RFC 7143 §11.2.1.2');
  }
  const fast = fastDecoders[opcode];
  return fast === undefined ? decodeByTable(opcode, view, data, ahs) : fast(view, data, ahs);
}

/** As `decodePdu`, by walking the table: the plain way, and the one that the fast decoders are tested against. */
export function decodeByTable(opcode: OpcodeName, view: DataView, data: Uint8Array, ahs: Uint8Array): Pdu {
  const values: Record<string, unknown> = { opcode, data, ahs };
  for (const [name, field] of Object.entries(headers[opcode] as Record<string, Field<unknown>>)) values[name] = field.get(view);
  return values as unknown as Pdu;
}

/** What a PDU's maker may leave out: segments are empty, numbers and flags are 0. */
export type PduFields<N extends OpcodeName> = N extends OpcodeName
  ? { readonly opcode: N } & Partial<Omit<Pdu<N>, 'opcode'>>
  : never;

/** A complete PDU from the fields that matter. */
export function pdu<N extends OpcodeName>(fields: PduFields<N>): Pdu<N> {
  return { ...blankPdu(fields.opcode), ...fields } as unknown as Pdu<N>;
}

/** The PDU of that opcode whose fields are all 0. Shared: not to be changed. */
function blankPdu(opcode: OpcodeName): Pdu {
  const known = blankPdus.get(opcode);
  if (known !== undefined) return known;
  const values: Record<string, unknown> = { opcode, data: NO_BYTES, ahs: NO_BYTES };
  for (const [name, field] of Object.entries(headers[opcode] as Record<string, Field<unknown>>)) values[name] = zeroOf(field);
  const blank = values as unknown as Pdu;
  blankPdus.set(opcode, blank);
  return blank;
}
const blankPdus = new Map<OpcodeName, Pdu>();

/** The 48 bytes of the PDU's BHS. Throws RangeError where a value does not fit in its field. */
export function encodeBhs(source: Pdu): Uint8Array<ArrayBuffer> {
  const bhs = new Uint8Array(BHS_LENGTH);
  encodeBhsInto(source, viewOf(bhs), 0);
  return bhs;
}

/** Writes the PDU's BHS to the 48 bytes of `view` from `at` on, which must be zero. Throws as `encodeBhs`. */
export function encodeBhsInto(source: Pdu, view: DataView, at: number): void {
  const { opcode } = source;
  const fast = fastEncoders[opcode] as FastEncoder<OpcodeName> | undefined;
  if (fast === undefined) encodeByTable(source, view, at);
  else fast(source, view, at);
  common.opcode.set(view, Opcode[opcode], at);
  common.totalAhsLength.set(view, source.ahs.length / 4, at);
  common.dataSegmentLength.set(view, source.data.length, at);
}

/** The fields of a PDU, by walking its table: the plain way, and the one that the fast encoders are tested against. */
export function encodeByTable(source: Pdu, view: DataView, at = 0): void {
  const table = headers[source.opcode] as Record<string, Field<unknown>>;
  setFields(table, view, source as unknown as Record<string, unknown>, at);
  // Where the RFC's figure has a constant 1 in place of the F bit, and for Login the I bit.
  if (table['final'] === undefined && table['transit'] === undefined) final.set(view, true, at);
  if (source.opcode === 'login-request') immediate.set(view, true, at);
}

/** One line for logs: the PDU's name and those of its fields that are not 0. */
export function describePdu(source: Pdu): string {
  const parts: string[] = [source.opcode];
  for (const [name, value] of Object.entries(source)) {
    if (name === 'opcode' || name === 'data' || name === 'ahs' || value === 0 || value === 0n || value === false) continue;
    if (value instanceof Uint8Array) parts.push(`${name}=${Buffer.from(value).toString('hex')}`);
    else if (typeof value === 'number' || typeof value === 'bigint') parts.push(`${name}=0x${value.toString(16)}`);
    else parts.push(name);
  }
  if (source.data.length > 0) parts.push(`data=${source.data.length}`);
  return parts.join(' ');
}

/** AHS types (RFC 7143 §11.2.2.1). */
export const AhsType = { 'extended-cdb': 1, 'bidirectional-read-length': 2 } as const;

export interface AdditionalHeader {
  readonly type: number;
  /** AHS-specific bytes, from the reserved byte after the type (as AHSLength counts them). */
  readonly body: Uint8Array;
}

/** Splits additional header segments. Throws `ProtocolError` where they do not fill `ahs`. */
export function decodeAhs(ahs: Uint8Array): AdditionalHeader[] {
  const found: AdditionalHeader[] = [];
  let offset = 0;
  while (offset < ahs.length) {
    if (offset + 4 > ahs.length) throw new ProtocolError('additional header cut short', 'RFC 7143 §11.2.2');
    const view = viewOf(ahs.subarray(offset));
    const bodyLength = view.getUint16(0);
    if (bodyLength === 0 || offset + 3 + bodyLength > ahs.length) {
      throw new ProtocolError(`additional header of ${bodyLength} bytes does not fit`, 'RFC 7143 §11.2.2');
    }
    found.push({ type: view.getUint8(2), body: ahs.subarray(offset + 3, offset + 3 + bodyLength) });
    offset += Math.ceil((3 + bodyLength) / 4) * 4;
  }
  return found;
}

/** Additional header segments, each padded to 4 bytes. */
export function encodeAhs(segments: readonly AdditionalHeader[]): Uint8Array<ArrayBuffer> {
  const length = segments.reduce((sum, { body }) => sum + Math.ceil((3 + body.length) / 4) * 4, 0);
  const ahs = new Uint8Array(length);
  let offset = 0;
  for (const { type, body } of segments) {
    const view = viewOf(ahs.subarray(offset));
    view.setUint16(0, body.length);
    view.setUint8(2, type);
    ahs.set(body, offset + 3);
    offset += Math.ceil((3 + body.length) / 4) * 4;
  }
  return ahs;
}

function zeroOf(field: Field<unknown>): unknown {
  const value = field.get(ZERO_VIEW);
  return value instanceof Uint8Array ? new Uint8Array(value.length) : value;
}
const ZERO_VIEW = new DataView(new ArrayBuffer(BHS_LENGTH));
