/**
 * The fields of basic header segments (BHS), one table per PDU (RFC 7143 §11). Offsets are those of the
 * RFC's figures and appear here and nowhere else; what reads and writes by them is in pdu.ts and, for the
 * data path, in pdu-data-path.ts.
 */

import { bit, bits, bytes, type Field, u8, u16, u24, u32, u48, u64 } from '../../field.ts';
import type { OpcodeName } from './pdu.ts';

/** The fields that every BHS has; `total-ahs-length` counts 4-byte words. */
export const common = {
  opcode: bits(0, 5, 0),
  totalAhsLength: u8(4),
  dataSegmentLength: u24(5),
};

export const immediate = bit(0, 6);
export const final = bit(1, 7);
const lun = u64(8);
const itt = u32(16);
const ttt = u32(20);
const cmdSn = u32(24);
const expStatSn = u32(28);
const targetNumbering = { statSn: u32(24), expCmdSn: u32(28), maxCmdSn: u32(32) };
const loginCommon = {
  transit: bit(1, 7),
  continue: bit(1, 6),
  csg: bits(1, 3, 2),
  nsg: bits(1, 1, 0),
  isid: u48(8),
  tsih: u16(14),
  itt,
};

/** The tables, one per PDU. */
export const headers = {
  /** RFC 7143 §11.18 */
  'nop-out': { immediate, lun, itt, ttt, cmdSn, expStatSn },
  /** RFC 7143 §11.3 */
  'scsi-command': {
    immediate,
    final,
    read: bit(1, 6),
    write: bit(1, 5),
    attribute: bits(1, 2, 0),
    lun,
    itt,
    expectedDataTransferLength: u32(20),
    cmdSn,
    expStatSn,
    cdb: bytes(32, 16),
  },
  /** RFC 7143 §11.5 */
  'task-management-request': {
    immediate,
    function: bits(1, 6, 0),
    lun,
    itt,
    referencedTaskTag: u32(20),
    cmdSn,
    expStatSn,
    refCmdSn: u32(32),
    expDataSn: u32(36),
  },
  /** RFC 7143 §11.12 */
  'login-request': {
    ...loginCommon,
    versionMax: u8(2),
    versionMin: u8(3),
    cid: u16(20),
    cmdSn,
    expStatSn,
  },
  /** RFC 7143 §11.10 */
  'text-request': { immediate, final, continue: bit(1, 6), lun, itt, ttt, cmdSn, expStatSn },
  /** RFC 7143 §11.7 */
  'data-out': { final, lun, itt, ttt, expStatSn, dataSn: u32(36), bufferOffset: u32(40) },
  /** RFC 7143 §11.14 */
  'logout-request': { immediate, reason: bits(1, 6, 0), itt, cid: u16(20), cmdSn, expStatSn },
  /** RFC 7143 §11.16 */
  snack: { type: bits(1, 3, 0), lun, itt, ttt, expStatSn, begRun: u32(40), runLength: u32(44) },
  /** RFC 7143 §11.19 */
  'nop-in': { lun, itt, ttt, ...targetNumbering },
  /** RFC 7143 §11.4 */
  'scsi-response': {
    bidirectionalOverflow: bit(1, 4),
    bidirectionalUnderflow: bit(1, 3),
    overflow: bit(1, 2),
    underflow: bit(1, 1),
    response: u8(2),
    status: u8(3),
    itt,
    snackTag: u32(20),
    ...targetNumbering,
    expDataSn: u32(36),
    bidirectionalResidualCount: u32(40),
    residualCount: u32(44),
  },
  /** RFC 7143 §11.6 */
  'task-management-response': { response: u8(2), itt, ...targetNumbering },
  /** RFC 7143 §11.13 */
  'login-response': {
    ...loginCommon,
    versionMax: u8(2),
    versionActive: u8(3),
    ...targetNumbering,
    statusClass: u8(36),
    statusDetail: u8(37),
  },
  /** RFC 7143 §11.11 */
  'text-response': { final, continue: bit(1, 6), lun, itt, ttt, ...targetNumbering },
  /** RFC 7143 §11.7 */
  'data-in': {
    final,
    acknowledge: bit(1, 6),
    overflow: bit(1, 2),
    underflow: bit(1, 1),
    hasStatus: bit(1, 0),
    status: u8(3),
    lun,
    itt,
    ttt,
    ...targetNumbering,
    dataSn: u32(36),
    bufferOffset: u32(40),
    residualCount: u32(44),
  },
  /** RFC 7143 §11.15 */
  'logout-response': { response: u8(2), itt, ...targetNumbering, time2Wait: u16(40), time2Retain: u16(42) },
  /** RFC 7143 §11.8 */
  r2t: {
    lun,
    itt,
    ttt,
    ...targetNumbering,
    r2tSn: u32(36),
    bufferOffset: u32(40),
    desiredDataTransferLength: u32(44),
  },
  /** RFC 7143 §11.9 */
  'asynchronous-message': {
    lun,
    itt,
    ...targetNumbering,
    asyncEvent: u8(36),
    asyncVCode: u8(37),
    parameter1: u16(38),
    parameter2: u16(40),
    parameter3: u16(42),
  },
  /** RFC 7143 §11.17 */
  reject: { reason: u8(2), itt, ...targetNumbering, dataSn: u32(36) },
} as const satisfies Record<OpcodeName, Record<string, Field<unknown>>>;
