/** How the device server's parts end a command in CHECK CONDITION: they throw one of these. */

import { SenseKey, type SenseValues } from './sense.ts';

export class CheckCondition extends Error {
  readonly sense: SenseValues;
  /** What the command would have moved, in bytes, where the sense data is about that: the transport's residual then says how much was missing. */
  readonly transferLength: number;

  constructor(sense: SenseValues, transferLength = 0) {
    super(`CHECK CONDITION ${sense.key.toString(16)}h/${sense.asc.toString(16)}h/${sense.ascq.toString(16)}h`);
    this.sense = sense;
    this.transferLength = transferLength;
  }
}

const illegal = (asc: number, ascq: number, more: Partial<SenseValues> = {}) =>
  new CheckCondition({ key: SenseKey['illegal-request'], asc, ascq, ...more });

/** Byte of the CDB, and its most significant bit where the field is not the whole byte. */
export const invalidFieldInCdb = (byte: number, bit?: number) =>
  illegal(0x24, 0x00, { fieldPointer: { inCdb: true, byte, ...(bit === undefined ? {} : { bit }) } });

export const invalidFieldInParameterList = (byte: number, bit?: number) =>
  illegal(0x26, 0x00, { fieldPointer: { inCdb: false, byte, ...(bit === undefined ? {} : { bit }) } });

export const invalidOperationCode = () => illegal(0x20, 0x00, { fieldPointer: { inCdb: true, byte: 0 } });
export const lbaOutOfRange = (lba: number) => illegal(0x21, 0x00, Number.isSafeInteger(lba) ? { information: BigInt(lba) } : {});
export const logicalUnitNotSupported = () => illegal(0x25, 0x00);
export const parameterListLengthError = () => illegal(0x1a, 0x00);
export const savingParametersNotSupported = () => illegal(0x39, 0x00);

/** The transport announced less data than the `length` bytes that the command needs (invalid field in command information unit). */
export const expectedLengthTooShort = (length: number) =>
  new CheckCondition({ key: SenseKey['illegal-request'], asc: 0x0e, ascq: 0x03 }, length);

export const unitAttention = (asc: number, ascq: number) => new CheckCondition({ key: SenseKey['unit-attention'], asc, ascq });
export const writeProtected = () => new CheckCondition({ key: SenseKey['data-protect'], asc: 0x27, ascq: 0x00 });
export const spaceAllocationFailed = () => new CheckCondition({ key: SenseKey['data-protect'], asc: 0x27, ascq: 0x07 });
export const internalTargetFailure = () => new CheckCondition({ key: SenseKey['hardware-error'], asc: 0x44, ascq: 0x00 });

/** Stopped by START STOP UNIT: initializing command required. */
export const notReady = () => new CheckCondition({ key: SenseKey['not-ready'], asc: 0x04, ascq: 0x02 });

export const unrecoveredReadError = (lba: number) =>
  new CheckCondition({ key: SenseKey['medium-error'], asc: 0x11, ascq: 0x00, information: BigInt(lba) });
export const writeError = (lba: number) =>
  new CheckCondition({ key: SenseKey['medium-error'], asc: 0x0c, ascq: 0x00, information: BigInt(lba) });

/** `offset`: of the first byte that differs, in the data that was compared. */
export const miscompare = (offset: number) =>
  new CheckCondition({ key: SenseKey.miscompare, asc: 0x1d, ascq: 0x00, information: BigInt(offset) });
