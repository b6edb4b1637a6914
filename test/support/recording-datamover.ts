import type { DataParameters, InitiatorDatamover, KeyOffers, TaskBuffers } from '../../src/iser/datamover/datamover.ts';
import type { InitiatorControlPdu } from '../../src/iser/iscsi/pdu.ts';

/** A data mover without a peer: keeps what it was asked to send, for a test to answer by hand. */
export class RecordingDatamover implements InitiatorDatamover {
  readonly transport = 'recording';
  readonly traits = {};
  readonly maxTransferLength = 512 * 1024;
  readonly localAddress = '127.0.0.1:1';
  readonly remoteAddress = '127.0.0.1:3260';
  readonly sent: { readonly pdu: InitiatorControlPdu; readonly buffers: TaskBuffers | undefined }[] = [];
  readonly deallocated: number[] = [];
  terminated: 'orderly' | 'abrupt' | undefined;
  /** Every call of `terminate`. */
  readonly terminations: ('orderly' | 'abrupt')[] = [];
  /** Buffers count as referenced until a test calls this after `terminate`. */
  releaseBuffers: () => void = () => {};
  holdTermination = false;

  keyOffers(): KeyOffers {
    return { MaxRecvDataSegmentLength: '262144' };
  }

  enable(_parameters: DataParameters): void {}

  sendControl(pdu: InitiatorControlPdu, buffers?: TaskBuffers): void {
    this.sent.push({ pdu, buffers });
  }

  deallocateTask(itt: number): void {
    this.deallocated.push(itt);
  }

  terminate(mode: 'orderly' | 'abrupt'): Promise<void> {
    this.terminated ??= mode;
    this.terminations.push(mode);
    if (!this.holdTermination) return Promise.resolve();
    return new Promise((resolve) => {
      const releaseForOthers = this.releaseBuffers;
      this.releaseBuffers = () => {
        releaseForOthers();
        resolve();
      };
    });
  }

  /** Takes the PDUs sent since the last call. */
  take(): InitiatorControlPdu[] {
    return this.sent.splice(0).map(({ pdu }) => pdu);
  }
}
