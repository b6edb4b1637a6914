/** A SCSI command as the initiator's session puts it on the wire, and what its response says (RFC 7143 §11.3, §11.4). Pure. */

import type { ScsiCommand, ScsiResult } from '../../scsi/port.ts';
import type { TaskBuffers } from '../datamover/datamover.ts';
import { NO_BYTES, type Pdu, TaskAttribute } from './pdu.ts';

/** The SCSI Command of `command`; `final` and immediate data are the data mover's affair. */
export function scsiCommand(command: ScsiCommand, itt: number, cmdSn: number, expStatSn: number): Pdu<'scsi-command'> {
  return {
    opcode: 'scsi-command',
    immediate: false,
    final: true,
    read: command.dataIn !== undefined,
    write: command.dataOut !== undefined,
    attribute: TaskAttribute.simple,
    lun: command.lun,
    itt,
    expectedDataTransferLength: expectedLength(command),
    cmdSn,
    expStatSn,
    cdb: command.cdb,
    data: NO_BYTES,
    ahs: NO_BYTES,
  };
}

/**
 * The result of a task with `buffers`. `transferred` is how much the data mover has placed, or was asked for:
 * a target that claims more than that is not believed.
 */
export function scsiResult(response: Pdu<'scsi-response'>, buffers: TaskBuffers, transferred: number): ScsiResult {
  const expected = expectedLength(buffers);
  const claimed = response.underflow ? Math.max(0, expected - response.residualCount) : expected;
  return { status: response.status, sense: senseData(response.data), transferred: Math.min(claimed, transferred) };
}

/** The sense data of a data segment that begins with its length (RFC 7143 §11.4.7.2). A copy. */
export function senseData(data: Uint8Array): Uint8Array {
  if (data.length < 2) return NO_BYTES;
  const length = (data[0] ?? 0) * 256 + (data[1] ?? 0);
  return data.slice(2, 2 + length);
}

function expectedLength({ dataIn, dataOut }: TaskBuffers): number {
  return dataIn?.length ?? dataOut?.length ?? 0;
}
