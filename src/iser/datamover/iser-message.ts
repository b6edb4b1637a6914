/**
 * One iSER message, which is one Send: the iSER header, then the iSCSI PDU without digests (RFC 7145 §9). Pure.
 * Padding is not sent. What is received may be padded to 4 bytes, as some peers do: DataSegmentLength says what counts.
 */

import { ProtocolError } from '../../errors.ts';
import { viewOf } from '../../field.ts';
import { BHS_LENGTH, decodeAhs, decodePdu, encodeBhsInto, NO_BYTES, type Pdu, segmentLengths } from '../iscsi/pdu.ts';
import { decodeIserHeader, encodeIserHeader, ISER_HEADER_LENGTH, type IserHeader } from './iser-header.ts';

/** Bytes before the data segment of a PDU without additional header segments. */
export const MESSAGE_HEADER_LENGTH = ISER_HEADER_LENGTH + BHS_LENGTH;
/** What iserfs takes of additional header segments: the default of MaxAHSLength (RFC 7145 §6). */
export const LONGEST_AHS = 256;
export const LONGEST_PADDING = 3;

export interface IserMessage {
  readonly header: IserHeader;
  /** Its segments are views of the message. */
  readonly pdu: Pdu;
}

/** Writes header, BHS and AHS of `pdu` to `into`; returns their length. The data segment follows there, or is sent from elsewhere. */
export function encodeMessageHeader(into: Uint8Array, header: IserHeader, pdu: Pdu): number {
  encodeIserHeader(into, header);
  into.fill(0, ISER_HEADER_LENGTH, MESSAGE_HEADER_LENGTH);
  encodeBhsInto(pdu, viewOf(into), ISER_HEADER_LENGTH);
  if (pdu.ahs.length > 0) into.set(pdu.ahs, MESSAGE_HEADER_LENGTH);
  return MESSAGE_HEADER_LENGTH + pdu.ahs.length;
}

/** Writes all of `pdu` to `into`, which must have room for it; returns the length. */
export function encodeMessage(into: Uint8Array, header: IserHeader, pdu: Pdu): number {
  const length = encodeMessageHeader(into, header, pdu);
  into.set(pdu.data, length);
  return length + pdu.data.length;
}

/** Reads a whole message. Throws `ProtocolError` where it is not what it says it is. */
export function decodeMessage(message: Uint8Array): IserMessage {
  const header = decodeIserHeader(message);
  if (message.length < MESSAGE_HEADER_LENGTH) {
    throw new ProtocolError(`a message of ${message.length} bytes is too short for a PDU`, 'RFC 7145 §9');
  }
  const bhs = message.subarray(ISER_HEADER_LENGTH, MESSAGE_HEADER_LENGTH);
  const { ahsLength, dataSegmentLength } = segmentLengths(bhs);
  const dataStart = MESSAGE_HEADER_LENGTH + ahsLength;
  const end = dataStart + dataSegmentLength;
  if (end > message.length || end + LONGEST_PADDING < message.length) {
    throw new ProtocolError(
      `a message of ${message.length} bytes with a PDU of ${end - ISER_HEADER_LENGTH} bytes in it`,
      'RFC 7143 §11.2.1.6',
    );
  }
  const ahs = ahsLength === 0 ? NO_BYTES : message.subarray(MESSAGE_HEADER_LENGTH, dataStart);
  if (ahsLength > 0) decodeAhs(ahs);
  const data = dataSegmentLength === 0 ? NO_BYTES : message.subarray(dataStart, end);
  return { header, pdu: decodePdu(bhs, data, ahs) };
}
