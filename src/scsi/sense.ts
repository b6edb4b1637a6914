/**
 * Sense data (SPC): fixed format (response codes 70h, 71h) and descriptor format (72h, 73h), both ways,
 * its wording for people, and the one place that turns it into an error code. Pure; what a condition
 * means for a logical unit (retry, re-read, re-scan) is decided elsewhere.
 */

import { type ErrorCode, IserfsError } from '../errors.ts';
import { bit, bits, bytes, layout, setFields, u8, u16, u32, u64, viewOf } from '../field.ts';
import { additionalSenseText } from './additional-sense.ts';

export const SenseKey = {
  'no-sense': 0x0,
  'recovered-error': 0x1,
  'not-ready': 0x2,
  'medium-error': 0x3,
  'hardware-error': 0x4,
  'illegal-request': 0x5,
  'unit-attention': 0x6,
  'data-protect': 0x7,
  'blank-check': 0x8,
  'vendor-specific': 0x9,
  'copy-aborted': 0xa,
  'aborted-command': 0xb,
  'volume-overflow': 0xd,
  miscompare: 0xe,
  completed: 0xf,
} as const satisfies Record<string, number>;

/** The byte, and the bit where it is known, of a command or its parameter list that the device server refuses. */
export interface FieldPointer {
  /** In the CDB; else in the parameter list. */
  readonly inCdb: boolean;
  readonly byte: number;
  /** 7 = most significant bit of the field. */
  readonly bit?: number;
}

export interface Sense {
  readonly key: number;
  readonly asc: number;
  readonly ascq: number;
  /** 71h and 73h: the condition belongs to an earlier command that ended GOOD; the command that carried it was not executed. */
  readonly deferred: boolean;
  readonly descriptorFormat: boolean;
  /** INFORMATION where it is valid: for medium errors the first LBA in error, for a MISCOMPARE the offset of the first byte that differs. */
  readonly information?: bigint;
  readonly commandSpecific?: bigint;
  /** ILI: the length that was asked for is not the block's. */
  readonly incorrectLength: boolean;
  /** With ILLEGAL REQUEST. */
  readonly fieldPointer?: FieldPointer;
  /** With RECOVERED, MEDIUM and HARDWARE ERROR: how often the device tried. */
  readonly retryCount?: number;
  /** With NO SENSE and NOT READY: how much of a long operation is done, 0 to 1. */
  readonly progress?: number;
}

/** What `encodeSense` needs; the rest has the value of "nothing to say". */
export type SenseValues = Pick<Sense, 'key' | 'asc' | 'ascq'> & Partial<Sense>;

const fixed = layout(18, {
  valid: bit(0, 7),
  responseCode: bits(0, 6, 0),
  incorrectLength: bit(2, 5),
  key: bits(2, 3, 0),
  information: u32(3),
  additionalLength: u8(7),
  commandSpecific: u32(8),
  asc: u8(12),
  ascq: u8(13),
  fieldReplaceableUnit: u8(14),
  keySpecific: bytes(15, 3),
});

const descriptorHeader = layout(8, {
  responseCode: bits(0, 6, 0),
  key: bits(1, 3, 0),
  asc: u8(2),
  ascq: u8(3),
  additionalLength: u8(7),
});

/** Descriptors of the descriptor format, by DESCRIPTOR TYPE; the lengths include the two bytes of their header. */
const DescriptorType = {
  information: 0x00,
  'command-specific': 0x01,
  'key-specific': 0x02,
  'block-commands': 0x05,
  'direct-access-block': 0x0d,
} as const;

const descriptor = layout(12, { type: u8(0), length: u8(1), valid: bit(2, 7), value: u64(4) });
const keySpecificDescriptor = layout(8, { type: u8(0), length: u8(1), value: bytes(4, 3) });
const blockDescriptor = layout(4, { type: u8(0), length: u8(1), incorrectLength: bit(3, 5) });
const directAccessDescriptor = layout(32, {
  type: u8(0),
  length: u8(1),
  valid: bit(2, 7),
  incorrectLength: bit(2, 5),
  keySpecific: bytes(4, 3),
  information: u64(8),
  commandSpecific: u64(16),
});

/** The three SENSE KEY SPECIFIC bytes; their meaning hangs on the sense key. */
const keySpecific = layout(3, {
  valid: bit(0, 7),
  inCdb: bit(0, 6),
  bitPointerValid: bit(0, 3),
  bitPointer: bits(0, 2, 0),
  value: u16(1),
});

/**
 * Decodes sense data that may be cut off anywhere: what is missing reads as zero or undefined. Undefined
 * where there is no sense key to be had: too short, or a response code of none of the two formats.
 */
export function decodeSense(data: Uint8Array): Sense | undefined {
  const responseCode = (data[0] ?? 0) & 0x7f;
  if (responseCode < 0x70 || responseCode > 0x73) return undefined;
  const deferred = (responseCode & 1) === 1;
  return responseCode < 0x72 ? decodeFixed(data, deferred) : decodeDescriptors(data, deferred);
}

function decodeFixed(data: Uint8Array, deferred: boolean): Sense | undefined {
  if (data.length < 3) return undefined;
  // A copy of the full length, so that what was cut off reads as zero. A field of several bytes counts whole or not at all.
  const length = declaredLength(data);
  const whole = new Uint8Array(18);
  whole.set(data.subarray(0, Math.min(18, length)));
  const view = viewOf(whole);
  const key = fixed.key.get(view);
  return {
    key,
    asc: fixed.asc.get(view),
    ascq: fixed.ascq.get(view),
    deferred,
    descriptorFormat: false,
    incorrectLength: fixed.incorrectLength.get(view),
    ...(length >= 7 && fixed.valid.get(view) ? { information: BigInt(fixed.information.get(view)) } : {}),
    ...(length >= 12 && fixed.commandSpecific.get(view) !== 0
      ? { commandSpecific: BigInt(fixed.commandSpecific.get(view)) }
      : {}),
    ...(length >= 18 ? decodeKeySpecific(key, fixed.keySpecific.get(view)) : {}),
  };
}

function decodeDescriptors(data: Uint8Array, deferred: boolean): Sense | undefined {
  if (data.length < 4) return undefined;
  const header = new Uint8Array(8);
  header.set(data.subarray(0, 8));
  const view = viewOf(header);
  const key = descriptorHeader.key.get(view);
  const found: { -readonly [K in keyof Sense]?: Sense[K] } = {};
  const end = declaredLength(data);
  for (let offset = 8; offset + 2 <= end; ) {
    const length = 2 + (data[offset + 1] ?? 0);
    if (offset + length > end) break;
    Object.assign(found, decodeDescriptor(key, data.subarray(offset, offset + length)));
    offset += length;
  }
  return {
    key,
    asc: descriptorHeader.asc.get(view),
    ascq: descriptorHeader.ascq.get(view),
    deferred,
    descriptorFormat: true,
    incorrectLength: false,
    ...found,
  };
}

function decodeDescriptor(key: number, data: Uint8Array): Partial<Sense> {
  const view = viewOf(data);
  switch (data[0]) {
    case DescriptorType.information:
      return data.length >= 12 && descriptor.valid.get(view) ? { information: descriptor.value.get(view) } : {};
    case DescriptorType['command-specific']:
      return data.length >= 12 ? { commandSpecific: descriptor.value.get(view) } : {};
    case DescriptorType['key-specific']:
      return data.length >= 7 ? decodeKeySpecific(key, keySpecificDescriptor.value.get(view)) : {};
    case DescriptorType['block-commands']:
      return data.length >= 4 ? { incorrectLength: blockDescriptor.incorrectLength.get(view) } : {};
    case DescriptorType['direct-access-block']:
      if (data.length < 32) return {};
      return {
        incorrectLength: directAccessDescriptor.incorrectLength.get(view),
        ...(directAccessDescriptor.valid.get(view) ? { information: directAccessDescriptor.information.get(view) } : {}),
        commandSpecific: directAccessDescriptor.commandSpecific.get(view),
        ...decodeKeySpecific(key, directAccessDescriptor.keySpecific.get(view)),
      };
    default:
      return {};
  }
}

function decodeKeySpecific(key: number, data: Uint8Array): Partial<Sense> {
  const view = viewOf(data);
  if (!keySpecific.valid.get(view)) return {};
  const value = keySpecific.value.get(view);
  switch (key) {
    case SenseKey['illegal-request']:
      return {
        fieldPointer: {
          inCdb: keySpecific.inCdb.get(view),
          byte: value,
          ...(keySpecific.bitPointerValid.get(view) ? { bit: keySpecific.bitPointer.get(view) } : {}),
        },
      };
    case SenseKey['recovered-error']:
    case SenseKey['medium-error']:
    case SenseKey['hardware-error']:
      return { retryCount: value };
    case SenseKey['no-sense']:
    case SenseKey['not-ready']:
      return { progress: value / 0x1_0000 };
    default:
      return {};
  }
}

/** Bytes that the sense data says it has, and has: ADDITIONAL SENSE LENGTH counts from byte 8 in both formats. */
function declaredLength(data: Uint8Array): number {
  const additional = data[7];
  return additional === undefined ? data.length : Math.min(data.length, 8 + additional);
}

/**
 * Encodes sense data: fixed format (18 bytes) unless `descriptorFormat`. An INFORMATION beyond 32 bits
 * has no place in the fixed format and is left out, as SPC has it.
 */
export function encodeSense(sense: SenseValues): Uint8Array {
  return sense.descriptorFormat === true ? encodeDescriptors(sense) : encodeFixed(sense);
}

function encodeFixed(sense: SenseValues): Uint8Array {
  const data = new Uint8Array(18);
  const { information, commandSpecific } = sense;
  const informationFits = information !== undefined && information <= 0xffff_ffffn;
  setFields(fixed, viewOf(data), {
    responseCode: sense.deferred === true ? 0x71 : 0x70,
    valid: informationFits,
    information: informationFits ? Number(information) : 0,
    commandSpecific: commandSpecific !== undefined && commandSpecific <= 0xffff_ffffn ? Number(commandSpecific) : 0,
    incorrectLength: sense.incorrectLength ?? false,
    key: sense.key,
    asc: sense.asc,
    ascq: sense.ascq,
    additionalLength: data.length - 8,
    keySpecific: encodeKeySpecific(sense) ?? new Uint8Array(3),
  });
  return data;
}

function encodeDescriptors(sense: SenseValues): Uint8Array {
  const parts: Uint8Array[] = [];
  if (sense.information !== undefined) parts.push(encodeValue(DescriptorType.information, sense.information));
  if (sense.commandSpecific !== undefined) parts.push(encodeValue(DescriptorType['command-specific'], sense.commandSpecific));
  const specific = encodeKeySpecific(sense);
  if (specific !== undefined) {
    const part = new Uint8Array(8);
    setFields(keySpecificDescriptor, viewOf(part), { type: DescriptorType['key-specific'], length: 6, value: specific });
    parts.push(part);
  }
  if (sense.incorrectLength === true) {
    const part = new Uint8Array(4);
    setFields(blockDescriptor, viewOf(part), { type: DescriptorType['block-commands'], length: 2, incorrectLength: true });
    parts.push(part);
  }
  const data = new Uint8Array(8 + parts.reduce((sum, part) => sum + part.length, 0));
  setFields(descriptorHeader, viewOf(data), {
    responseCode: sense.deferred === true ? 0x73 : 0x72,
    key: sense.key,
    asc: sense.asc,
    ascq: sense.ascq,
    additionalLength: data.length - 8,
  });
  let offset = 8;
  for (const part of parts) {
    data.set(part, offset);
    offset += part.length;
  }
  return data;
}

function encodeValue(type: number, value: bigint): Uint8Array {
  const part = new Uint8Array(12);
  setFields(descriptor, viewOf(part), { type, length: 10, valid: type === DescriptorType.information, value });
  return part;
}

function encodeKeySpecific(sense: SenseValues): Uint8Array | undefined {
  const { fieldPointer, retryCount, progress } = sense;
  const data = new Uint8Array(3);
  const view = viewOf(data);
  if (fieldPointer !== undefined) {
    setFields(keySpecific, view, {
      valid: true,
      inCdb: fieldPointer.inCdb,
      bitPointerValid: fieldPointer.bit !== undefined,
      bitPointer: fieldPointer.bit ?? 0,
      value: fieldPointer.byte,
    });
    return data;
  }
  if (retryCount === undefined && progress === undefined) return undefined;
  const value = retryCount ?? Math.min(0xffff, Math.floor((progress ?? 0) * 0x1_0000));
  setFields(keySpecific, view, { valid: true, value });
  return data;
}

/** `MEDIUM ERROR`; `sense key Ch` for the reserved one. */
export function senseKeyName(key: number): string {
  for (const [name, code] of Object.entries(SenseKey)) {
    if (code === key) return name.replaceAll('-', ' ').toUpperCase();
  }
  return `sense key ${key.toString(16).toUpperCase()}h`;
}

/** One line: `ILLEGAL REQUEST: logical block address out of range (21h/00h)`, with what else the sense data says. */
export function senseText(sense: Sense): string {
  const notes = [`${hexByte(sense.asc)}/${hexByte(sense.ascq)}`];
  if (sense.information !== undefined) notes.push(`information ${sense.information}`);
  if (sense.fieldPointer !== undefined) notes.push(fieldPointerText(sense.fieldPointer));
  if (sense.progress !== undefined) notes.push(`${Math.floor(sense.progress * 100)} % done`);
  const kind = sense.deferred ? 'deferred ' : '';
  return `${kind}${senseKeyName(sense.key)}: ${additionalSenseText(sense.asc, sense.ascq)} (${notes.join(', ')})`;
}

function fieldPointerText(pointer: FieldPointer): string {
  const where = pointer.inCdb ? 'CDB' : 'parameter list';
  return `${where} byte ${pointer.byte}${pointer.bit === undefined ? '' : ` bit ${pointer.bit}`}`;
}

const hexByte = (value: number) => `${value.toString(16).toUpperCase().padStart(2, '0')}h`;

/** Where a condition came up, for its message. */
export interface SenseContext {
  /** Portal, target and LUN. */
  readonly description: string;
  /** The command's name, such as `READ(16)`. */
  readonly command: string;
  readonly lba?: number;
}

/** The error for a command that ended in CHECK CONDITION. */
export function senseError(sense: Sense, context: SenseContext): IserfsError {
  const where = context.lba === undefined ? '' : ` at LBA ${context.lba}`;
  return new IserfsError(codeOf(sense), `${context.description}: ${context.command}${where}: ${senseText(sense)}`);
}

/** Additional sense codes that say more than their sense key, as `ASC << 8 | ASCQ`. */
const codesByAdditionalSense: ReadonlyMap<number, ErrorCode> = new Map<number, ErrorCode>([
  [0x2000, 'unsupported'],
  [0x2100, 'out-of-range'],
  [0x2500, 'logical-unit-gone'],
  [0x2700, 'write-protected'],
  [0x2701, 'write-protected'],
  [0x2702, 'write-protected'],
  [0x2703, 'write-protected'],
  [0x2704, 'write-protected'],
  [0x2705, 'write-protected'],
  [0x2706, 'write-protected'],
  [0x2707, 'no-space'],
  [0x3a00, 'not-ready'],
  [0x3f05, 'logical-unit-changed'],
]);

const codesByKey: ReadonlyMap<number, ErrorCode> = new Map<number, ErrorCode>([
  [SenseKey['not-ready'], 'not-ready'],
  [SenseKey['medium-error'], 'medium-error'],
  [SenseKey['hardware-error'], 'hardware-error'],
  [SenseKey['illegal-request'], 'illegal-request'],
  [SenseKey['unit-attention'], 'logical-unit-changed'],
  [SenseKey['data-protect'], 'write-protected'],
  [SenseKey['blank-check'], 'medium-error'],
  [SenseKey['aborted-command'], 'hardware-error'],
  [SenseKey['volume-overflow'], 'no-space'],
  [SenseKey.miscompare, 'medium-error'],
]);

function codeOf(sense: Sense): ErrorCode {
  return codesByAdditionalSense.get((sense.asc << 8) | sense.ascq) ?? codesByKey.get(sense.key) ?? 'hardware-error';
}
