/**
 * The PDUs of the data path, decoded and encoded without walking their tables: a line per field, which is
 * six times as fast. Field for field what `decodeByTable` and `encodeByTable` do, against which they are
 * tested; opcode and segment lengths are the caller's affair.
 */

import type { OpcodeName, Pdu } from './pdu.ts';
import { final, headers } from './pdu-headers.ts';

type FastDecoder<N extends OpcodeName> = (view: DataView, data: Uint8Array, ahs: Uint8Array) => Pdu<N>;

export const fastDecoders: { readonly [N in OpcodeName]?: FastDecoder<N> } = {
  'scsi-command': (view, data, ahs) => {
    const h = headers['scsi-command'];
    return {
      opcode: 'scsi-command',
      immediate: h.immediate.get(view),
      final: h.final.get(view),
      read: h.read.get(view),
      write: h.write.get(view),
      attribute: h.attribute.get(view),
      lun: h.lun.get(view),
      itt: h.itt.get(view),
      expectedDataTransferLength: h.expectedDataTransferLength.get(view),
      cmdSn: h.cmdSn.get(view),
      expStatSn: h.expStatSn.get(view),
      cdb: h.cdb.get(view),
      data,
      ahs,
    };
  },
  'data-out': (view, data, ahs) => {
    const h = headers['data-out'];
    return {
      opcode: 'data-out',
      final: h.final.get(view),
      lun: h.lun.get(view),
      itt: h.itt.get(view),
      ttt: h.ttt.get(view),
      expStatSn: h.expStatSn.get(view),
      dataSn: h.dataSn.get(view),
      bufferOffset: h.bufferOffset.get(view),
      data,
      ahs,
    };
  },
  'scsi-response': (view, data, ahs) => {
    const h = headers['scsi-response'];
    return {
      opcode: 'scsi-response',
      bidirectionalOverflow: h.bidirectionalOverflow.get(view),
      bidirectionalUnderflow: h.bidirectionalUnderflow.get(view),
      overflow: h.overflow.get(view),
      underflow: h.underflow.get(view),
      response: h.response.get(view),
      status: h.status.get(view),
      itt: h.itt.get(view),
      snackTag: h.snackTag.get(view),
      statSn: h.statSn.get(view),
      expCmdSn: h.expCmdSn.get(view),
      maxCmdSn: h.maxCmdSn.get(view),
      expDataSn: h.expDataSn.get(view),
      bidirectionalResidualCount: h.bidirectionalResidualCount.get(view),
      residualCount: h.residualCount.get(view),
      data,
      ahs,
    };
  },
  'data-in': (view, data, ahs) => {
    const h = headers['data-in'];
    return {
      opcode: 'data-in',
      final: h.final.get(view),
      acknowledge: h.acknowledge.get(view),
      overflow: h.overflow.get(view),
      underflow: h.underflow.get(view),
      hasStatus: h.hasStatus.get(view),
      status: h.status.get(view),
      lun: h.lun.get(view),
      itt: h.itt.get(view),
      ttt: h.ttt.get(view),
      statSn: h.statSn.get(view),
      expCmdSn: h.expCmdSn.get(view),
      maxCmdSn: h.maxCmdSn.get(view),
      dataSn: h.dataSn.get(view),
      bufferOffset: h.bufferOffset.get(view),
      residualCount: h.residualCount.get(view),
      data,
      ahs,
    };
  },
  r2t: (view, data, ahs) => {
    const h = headers.r2t;
    return {
      opcode: 'r2t',
      lun: h.lun.get(view),
      itt: h.itt.get(view),
      ttt: h.ttt.get(view),
      statSn: h.statSn.get(view),
      expCmdSn: h.expCmdSn.get(view),
      maxCmdSn: h.maxCmdSn.get(view),
      r2tSn: h.r2tSn.get(view),
      bufferOffset: h.bufferOffset.get(view),
      desiredDataTransferLength: h.desiredDataTransferLength.get(view),
      data,
      ahs,
    };
  },
};

export type FastEncoder<N extends OpcodeName> = (source: Pdu<N>, view: DataView, at: number) => void;

export const fastEncoders: { readonly [N in OpcodeName]?: FastEncoder<N> } = {
  'scsi-command': (source, view, at) => {
    const h = headers['scsi-command'];
    h.immediate.set(view, source.immediate, at);
    h.final.set(view, source.final, at);
    h.read.set(view, source.read, at);
    h.write.set(view, source.write, at);
    h.attribute.set(view, source.attribute, at);
    h.lun.set(view, source.lun, at);
    h.itt.set(view, source.itt, at);
    h.expectedDataTransferLength.set(view, source.expectedDataTransferLength, at);
    h.cmdSn.set(view, source.cmdSn, at);
    h.expStatSn.set(view, source.expStatSn, at);
    h.cdb.set(view, source.cdb, at);
  },
  'data-out': (source, view, at) => {
    const h = headers['data-out'];
    h.final.set(view, source.final, at);
    h.lun.set(view, source.lun, at);
    h.itt.set(view, source.itt, at);
    h.ttt.set(view, source.ttt, at);
    h.expStatSn.set(view, source.expStatSn, at);
    h.dataSn.set(view, source.dataSn, at);
    h.bufferOffset.set(view, source.bufferOffset, at);
  },
  'scsi-response': (source, view, at) => {
    const h = headers['scsi-response'];
    final.set(view, true, at);
    h.bidirectionalOverflow.set(view, source.bidirectionalOverflow, at);
    h.bidirectionalUnderflow.set(view, source.bidirectionalUnderflow, at);
    h.overflow.set(view, source.overflow, at);
    h.underflow.set(view, source.underflow, at);
    h.response.set(view, source.response, at);
    h.status.set(view, source.status, at);
    h.itt.set(view, source.itt, at);
    h.snackTag.set(view, source.snackTag, at);
    h.statSn.set(view, source.statSn, at);
    h.expCmdSn.set(view, source.expCmdSn, at);
    h.maxCmdSn.set(view, source.maxCmdSn, at);
    h.expDataSn.set(view, source.expDataSn, at);
    h.bidirectionalResidualCount.set(view, source.bidirectionalResidualCount, at);
    h.residualCount.set(view, source.residualCount, at);
  },
  'data-in': (source, view, at) => {
    const h = headers['data-in'];
    h.final.set(view, source.final, at);
    h.acknowledge.set(view, source.acknowledge, at);
    h.overflow.set(view, source.overflow, at);
    h.underflow.set(view, source.underflow, at);
    h.hasStatus.set(view, source.hasStatus, at);
    h.status.set(view, source.status, at);
    h.lun.set(view, source.lun, at);
    h.itt.set(view, source.itt, at);
    h.ttt.set(view, source.ttt, at);
    h.statSn.set(view, source.statSn, at);
    h.expCmdSn.set(view, source.expCmdSn, at);
    h.maxCmdSn.set(view, source.maxCmdSn, at);
    h.dataSn.set(view, source.dataSn, at);
    h.bufferOffset.set(view, source.bufferOffset, at);
    h.residualCount.set(view, source.residualCount, at);
  },
  r2t: (source, view, at) => {
    const h = headers.r2t;
    final.set(view, true, at);
    h.lun.set(view, source.lun, at);
    h.itt.set(view, source.itt, at);
    h.ttt.set(view, source.ttt, at);
    h.statSn.set(view, source.statSn, at);
    h.expCmdSn.set(view, source.expCmdSn, at);
    h.maxCmdSn.set(view, source.maxCmdSn, at);
    h.r2tSn.set(view, source.r2tSn, at);
    h.bufferOffset.set(view, source.bufferOffset, at);
    h.desiredDataTransferLength.set(view, source.desiredDataTransferLength, at);
  },
};
