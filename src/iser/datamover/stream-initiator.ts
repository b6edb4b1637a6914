/**
 * The initiator's data mover over a byte stream: joins the sequencing of tasks to framing and channel.
 * When it lets go of a task's buffers they are free in truth, whatever the stream was doing with them.
 */

import { IserfsError } from '../../errors.ts';
import type { InitiatorControlPdu, Pdu } from '../iscsi/pdu.ts';
import type { DataParameters, InitiatorDatamover, InitiatorHandler, TaskBuffers } from './datamover.ts';
import { InitiatorSequence, type InitiatorTask } from './initiator-sequence.ts';
import { StreamDatamover } from './stream-datamover.ts';
import type { StreamOptions } from './stream-options.ts';
import type { Placement } from './tcp-framer.ts';

export class StreamInitiator extends StreamDatamover<InitiatorTask> implements InitiatorDatamover {
  readonly #handler: InitiatorHandler;
  readonly #sequence = new InitiatorSequence();
  /** A PDU with the status of a task whose data is on its way out; reading is paused. */
  #heldStatus: Pdu | undefined;

  constructor(transport: string, handler: InitiatorHandler, options: StreamOptions) {
    super(transport, 'target', options);
    this.#handler = handler;
  }

  sendControl(pdu: InitiatorControlPdu, buffers: TaskBuffers = {}): void {
    if (!this.isOpen) return;
    if (pdu.opcode === 'scsi-command') {
      const { pdu: command, task } = this.#sequence.command(pdu, buffers);
      this.enqueue(command, command.data.length === 0 ? undefined : task);
      return;
    }
    if (pdu.opcode === 'task-management-request') this.#sequence.suspend(pdu);
    this.enqueue(pdu, undefined);
  }

  deallocateTask(itt: number): void {
    const task = this.#sequence.deallocate(itt);
    if (task === undefined || !this.isOpen) return;
    // Its command may still be queued: the CmdSN must go out, but the data need not be the task's own memory.
    for (let copied = this.copyQueued(task); copied > 0; copied--) this.#sequence.sent(task);
    if (task.unsent > 0) {
      this.fail(new IserfsError('connection-lost', 'a task was ended while the connection did not take its data'));
      return;
    }
    this.reader.discardData(itt);
  }

  begin(header: Pdu, length: number): Placement {
    return this.#sequence.begin(header, length);
  }

  protected override enableSequence(parameters: DataParameters): void {
    this.#sequence.enable(parameters);
  }

  protected override deliver(pdu: Pdu): void {
    if (this.#sequence.mustWait(pdu)) {
      this.#heldStatus = pdu;
      this.pauseFor('held-status');
      return;
    }
    const event = this.#sequence.receive(pdu);
    if (event.type === 'control') {
      this.#handler.controlNotify(event.pdu, event.transferred);
      return;
    }
    this.#handler.windowNotify(event.expCmdSn, event.maxCmdSn);
    if (pdu.opcode === 'r2t') this.scheduleFlush();
  }

  protected override isBlocked(): boolean {
    return false;
  }

  protected override nextData(): { readonly pdu: Pdu; readonly token: InitiatorTask } | undefined {
    if (!this.#sequence.hasDataOut) return undefined;
    return this.#sequence.nextDataOut(this.#handler.currentExpStatSn());
  }

  protected override sent(task: InitiatorTask): void {
    this.#sequence.sent(task);
    const held = this.#heldStatus;
    if (held === undefined || !this.isOpen || this.#sequence.mustWait(held)) return;
    this.#heldStatus = undefined;
    this.deliver(held);
    this.resumeFrom('held-status');
  }

  protected override clear(): void {
    this.#heldStatus = undefined;
    this.#sequence.clear();
  }

  protected override notifyTermination(error: Error | undefined): void {
    this.#handler.connectionTerminated(error);
  }
}
