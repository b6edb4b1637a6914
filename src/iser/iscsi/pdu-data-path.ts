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

export type FastEncoder<N extends OpcodeName> = (source: Pdu<N>, view: DataView) => void;

export const fastEncoders: { readonly [N in OpcodeName]?: FastEncoder<N> } = {
  'scsi-command': (source, view) => {
    const h = headers['scsi-command'];
    h.immediate.set(view, source.immediate);
    h.final.set(view, source.final);
    h.read.set(view, source.read);
    h.write.set(view, source.write);
    h.attribute.set(view, source.attribute);
    h.lun.set(view, source.lun);
    h.itt.set(view, source.itt);
    h.expectedDataTransferLength.set(view, source.expectedDataTransferLength);
    h.cmdSn.set(view, source.cmdSn);
    h.expStatSn.set(view, source.expStatSn);
    h.cdb.set(view, source.cdb);
  },
  'data-out': (source, view) => {
    const h = headers['data-out'];
    h.final.set(view, source.final);
    h.lun.set(view, source.lun);
    h.itt.set(view, source.itt);
    h.ttt.set(view, source.ttt);
    h.expStatSn.set(view, source.expStatSn);
    h.dataSn.set(view, source.dataSn);
    h.bufferOffset.set(view, source.bufferOffset);
  },
  'scsi-response': (source, view) => {
    const h = headers['scsi-response'];
    final.set(view, true);
    h.bidirectionalOverflow.set(view, source.bidirectionalOverflow);
    h.bidirectionalUnderflow.set(view, source.bidirectionalUnderflow);
    h.overflow.set(view, source.overflow);
    h.underflow.set(view, source.underflow);
    h.response.set(view, source.response);
    h.status.set(view, source.status);
    h.itt.set(view, source.itt);
    h.snackTag.set(view, source.snackTag);
    h.statSn.set(view, source.statSn);
    h.expCmdSn.set(view, source.expCmdSn);
    h.maxCmdSn.set(view, source.maxCmdSn);
    h.expDataSn.set(view, source.expDataSn);
    h.bidirectionalResidualCount.set(view, source.bidirectionalResidualCount);
    h.residualCount.set(view, source.residualCount);
  },
  'data-in': (source, view) => {
    const h = headers['data-in'];
    h.final.set(view, source.final);
    h.acknowledge.set(view, source.acknowledge);
    h.overflow.set(view, source.overflow);
    h.underflow.set(view, source.underflow);
    h.hasStatus.set(view, source.hasStatus);
    h.status.set(view, source.status);
    h.lun.set(view, source.lun);
    h.itt.set(view, source.itt);
    h.ttt.set(view, source.ttt);
    h.statSn.set(view, source.statSn);
    h.expCmdSn.set(view, source.expCmdSn);
    h.maxCmdSn.set(view, source.maxCmdSn);
    h.dataSn.set(view, source.dataSn);
    h.bufferOffset.set(view, source.bufferOffset);
    h.residualCount.set(view, source.residualCount);
  },
  r2t: (source, view) => {
    const h = headers.r2t;
    final.set(view, true);
    h.lun.set(view, source.lun);
    h.itt.set(view, source.itt);
    h.ttt.set(view, source.ttt);
    h.statSn.set(view, source.statSn);
    h.expCmdSn.set(view, source.expCmdSn);
    h.maxCmdSn.set(view, source.maxCmdSn);
    h.r2tSn.set(view, source.r2tSn);
    h.bufferOffset.set(view, source.bufferOffset);
    h.desiredDataTransferLength.set(view, source.desiredDataTransferLength);
  },
};
