/** The target's data mover over a byte stream: joins the sequencing of tasks to framing and channel. */

import { IserfsError } from '../../errors.ts';
import type { Pdu, TargetControlPdu } from '../iscsi/pdu.ts';
import type { DataParameters, TargetDatamover, TargetHandler, TargetTask } from './datamover.ts';
import { StreamDatamover } from './stream-datamover.ts';
import type { StreamOptions } from './stream-options.ts';
import { type PutToken, TargetSequence } from './target-sequence.ts';
import type { Placement } from './tcp-framer.ts';

export class StreamTarget extends StreamDatamover<PutToken> implements TargetDatamover {
  #handler: TargetHandler | undefined;
  readonly #sequence = new TargetSequence();

  constructor(transport: string, options: StreamOptions) {
    super(transport, 'initiator', options);
  }

  /** To be called once, before anything is received. */
  attach(handler: TargetHandler): void {
    this.#handler = handler;
  }

  sendControl(pdu: TargetControlPdu): void {
    if (!this.isOpen) return;
    const counted = pdu.opcode === 'scsi-response' ? { ...pdu, expDataSn: this.#sequence.dataPduCount(pdu.itt) } : pdu;
    this.enqueue(counted, undefined);
  }

  putData(task: TargetTask, offset: number, data: Uint8Array): Promise<void> {
    if (!this.isOpen) return Promise.reject(this.#goneError());
    const done = this.#sequence.putData(task.itt, offset, data);
    this.scheduleFlush();
    return done;
  }

  getData(task: TargetTask, offset: number, into: Uint8Array): Promise<void> {
    if (!this.isOpen) return Promise.reject(this.#goneError());
    const done = this.#sequence.getData(task.itt, offset, into);
    this.scheduleFlush();
    return done;
  }

  deallocateTask(itt: number): void {
    this.#sequence.deallocate(itt, new IserfsError('aborted', `the task ${itt} has ended`));
    if (!this.isOpen) return;
    this.reader.discardData(itt);
    this.scheduleFlush();
  }

  begin(header: Pdu, length: number): Placement {
    return this.#sequence.begin(header, length);
  }

  protected override enableSequence(parameters: DataParameters): void {
    this.#sequence.enable(parameters);
  }

  protected override deliver(pdu: Pdu): void {
    const control = this.#sequence.receive(pdu);
    if (control === undefined) this.scheduleFlush();
    else this.#handler?.controlNotify(control);
  }

  protected override isBlocked(pdu: Pdu): boolean {
    return pdu.opcode === 'scsi-response' && this.#sequence.hasQueuedDataIn(pdu.itt);
  }

  protected override nextData(): { readonly pdu: Pdu; readonly token: PutToken | undefined } | undefined {
    if (this.#handler === undefined || !this.#sequence.hasWork) return undefined;
    return this.#sequence.nextPdu(this.#handler.currentNumbering());
  }

  protected override sent(put: PutToken): void {
    this.#sequence.sent(put);
  }

  protected override clear(reason: Error): void {
    this.#sequence.clear(reason);
  }

  protected override notifyTermination(error: Error | undefined): void {
    this.#handler?.connectionTerminated(error);
  }

  #goneError(): IserfsError {
    return new IserfsError('connection-lost', `the connection to ${this.remoteAddress} is gone`);
  }
}
