/** What every data mover asks of the buffers that come with a SCSI command at the initiator. */

import { NO_BYTES, type Pdu } from '../iscsi/pdu.ts';
import type { TaskBuffers } from './datamover.ts';

/** Both buffers, empty where there is none. Throws RangeError where they are not what `command` says that it moves. */
export function checkedBuffers(
  { read, write, expectedDataTransferLength }: Pdu<'scsi-command'>,
  { dataIn = NO_BYTES, dataOut = NO_BYTES }: TaskBuffers,
): { readonly dataIn: Uint8Array; readonly dataOut: Uint8Array } {
  const length = write ? dataOut.length : dataIn.length;
  if ((dataIn.length > 0 && !read) || (dataOut.length > 0 && !write)) {
    throw new RangeError('the R and W bits of a SCSI command and its buffers disagree');
  }
  if (length !== expectedDataTransferLength) {
    throw new RangeError(`a buffer of ${length} bytes for a transfer of ${expectedDataTransferLength}`);
  }
  return { dataIn, dataOut };
}
