/**
 * The target's iSER data mover (RFC 7145): Put_Data is RDMA Write to what the initiator has advertised, Get_Data is
 * the command's immediate data and then RDMA Read. It knows tags and bytes; what a command means is for others.
 *
 * Data in registered memory moves from and to where it lies; other data is copied through memory of our own. A promise
 * settles when nothing refers to its memory any more, also where its task has ended before that. InitialR2T is Yes,
 * so that there is no unsolicited data besides the immediate.
 */

import { Bag } from '../../bag.ts';
import { IserfsError, ProtocolError } from '../../errors.ts';
import { TagMap } from '../../tag-map.ts';
import type { InitiatorControlPdu, Pdu, TargetControlPdu } from '../iscsi/pdu.ts';
import type { RemoteMemory } from '../rdma/provider.ts';
import type { DataParameters, KeyOffers, TargetDatamover, TargetHandler, TargetTask } from './datamover.ts';
import type { MessageBuffer } from './iser-buffers.ts';
import { IserDatamover, type IserDatamoverParts, UNEXPECTED_MESSAGES } from './iser-datamover.ts';
import type { IserHeader } from './iser-header.ts';
import type { IserMessage } from './iser-message.ts';
import { addressIn, CopyMemory, type Direction, Transfer, TransferPart } from './iser-transfer.ts';
import type { MessageSend } from './iser-work.ts';

/** One SCSI command, from its arrival to `deallocateTask`. */
interface Task {
  readonly expectedDataTransferLength: number;
  /** What the initiator has advertised, as far as the command moves data that way. */
  readonly read: RemoteMemory | undefined;
  readonly write: RemoteMemory | undefined;
  /** The data that came with the command, in a receive buffer that is kept for it. */
  readonly immediate: Uint8Array;
  readonly message: MessageBuffer | undefined;
  readonly transfers: Bag<Transfer>;
  /** For when the last of `transfers` has settled. */
  stopWaiting: () => void;
}

type OutgoingWork = MessageSend | TransferPart;

/** What an ended task has under way can only be taken back with the connection; others may wait for its end, such as for a reset. */
const END_PATIENCE_MS = 10_000;

export class IserTarget extends IserDatamover<OutgoingWork> implements TargetDatamover {
  readonly commandWindow: number;
  readonly longestDataSegment: number;
  #handler: TargetHandler | undefined;
  #parameters: DataParameters | undefined;
  readonly #tasks = new TagMap<Task>();
  readonly #copies: CopyMemory;

  constructor(parts: IserDatamoverParts) {
    super(parts, parts.options.commandWindow + UNEXPECTED_MESSAGES);
    this.commandWindow = parts.options.commandWindow;
    // A discovery session agrees on no such length, and initiators declare more there than their receives hold.
    this.longestDataSegment = parts.options.initiatorRecvDataSegmentLength;
    this.#copies = new CopyMemory(parts.buffers);
  }

  /** To be called once, before anything is received. */
  attach(handler: TargetHandler): void {
    this.#handler = handler;
  }

  sendControl(pdu: TargetControlPdu): void {
    if (!this.isOpen) return;
    const invalidate = pdu.opcode === 'scsi-response' ? this.#tagToInvalidate(pdu.itt) : undefined;
    this.enqueue(this.messageSend(pdu, invalidate));
    this.noteSent(pdu);
  }

  putData(task: TargetTask, offset: number, data: Uint8Array): Promise<void> {
    const known = this.#tasks.get(task.itt);
    if (!this.isOpen || known === undefined) return Promise.reject(this.isOpen ? endedError(task.itt) : this.goneError());
    const { read, expectedDataTransferLength } = known;
    if (read === undefined || offset + data.length > expectedDataTransferLength) {
      const length = read === undefined ? 0 : expectedDataTransferLength;
      return Promise.reject(new RangeError(`putData of ${data.length} bytes at ${offset} of ${length}`));
    }
    return this.#move('write', known, data, addressIn(read, offset));
  }

  getData(task: TargetTask, offset: number, into: Uint8Array): Promise<void> {
    const known = this.#tasks.get(task.itt);
    if (!this.isOpen || known === undefined) return Promise.reject(this.isOpen ? endedError(task.itt) : this.goneError());
    const { write, immediate, expectedDataTransferLength } = known;
    if (offset + into.length > expectedDataTransferLength) {
      return Promise.reject(new RangeError(`getData of ${into.length} bytes at ${offset} of ${expectedDataTransferLength}`));
    }
    const present = immediate.subarray(offset, offset + into.length);
    into.set(present);
    if (present.length === into.length) return Promise.resolve();
    if (write === undefined) return Promise.reject(new RangeError('getData for a command that writes nothing'));
    // The address is that of the first byte that did not come with the command.
    const remote = addressIn(write, offset + present.length - immediate.length);
    return this.#move('read', known, into.subarray(present.length), remote);
  }

  deallocateTask(itt: number): void {
    const task = this.#tasks.get(itt);
    if (task === undefined) return;
    this.#tasks.delete(itt);
    task.message?.release();
    if (task.transfers.size === 0) return;
    const reason = endedError(itt);
    const concerned = [...task.transfers];
    for (const transfer of concerned) transfer.fail(reason);
    this.withdraw((work) => work instanceof TransferPart && concerned.includes(work.transfer));
    if (task.transfers.size > 0) {
      task.stopWaiting = this.options.clock.schedule(END_PATIENCE_MS, () =>
        this.fail(new IserfsError('connection-lost', 'the initiator does not answer the RDMA requests of a task that has ended')),
      );
    }
    this.pump();
  }

  /** See `connectionQuirks.unsentImmediateData`. */
  override keyOffers(sessionType: 'normal' | 'discovery'): KeyOffers {
    const offers = super.keyOffers(sessionType);
    return sessionType === 'discovery' || this.isRemoteInvalidateOn ? offers : { ...offers, ImmediateData: 'No' };
  }

  protected override get advertisementDepth(): number {
    return 1; // nothing is advertised, but not every device has queue pairs for nothing
  }

  protected override enableRole(parameters: DataParameters): void {
    if (!parameters.initialR2T) {
      throw new IserfsError('login-refused', 'the login ended with InitialR2T=No, but no unsolicited data is taken over iSER');
    }
    this.#parameters = parameters;
  }

  protected override mayPost(work: OutgoingWork): boolean {
    return !(work instanceof TransferPart) || work.mayPost;
  }

  /** The response of a task also revokes what the initiator has advertised for it, where that is welcome. */
  #tagToInvalidate(itt: number): number | undefined {
    const task = this.#tasks.get(itt);
    if (task === undefined || !this.isRemoteInvalidateOn) return undefined;
    // A Send overtakes the answer to an RDMA Read, and would take the data away from under it.
    for (const { direction } of task.transfers) if (direction === 'read') return undefined;
    return (task.read ?? task.write)?.tag;
  }

  /** `remote`: where `data` is at the initiator. */
  #move(direction: Direction, task: Task, data: Uint8Array, remote: RemoteMemory): Promise<void> {
    if (data.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const transfer: Transfer = new Transfer(direction, data, remote, this.#copies, (failure) => {
        task.transfers.delete(transfer);
        if (task.transfers.size === 0) task.stopWaiting();
        if (failure === undefined) resolve();
        else reject(failure);
      });
      task.transfers.add(transfer);
      for (const part of transfer.parts) this.enqueue(part);
    });
  }

  // ---- from the initiator ----

  protected override receive({ header, pdu }: IserMessage): void {
    switch (pdu.opcode) {
      case 'scsi-command':
        this.#receiveCommand(pdu, header);
        return;
      case 'nop-out':
      case 'task-management-request':
      case 'login-request':
      case 'text-request':
      case 'logout-request':
        this.#notify(pdu);
        return;
      case 'data-out':
        throw new ProtocolError('unsolicited data in spite of InitialR2T=Yes', 'RFC 7145 §7');
      case 'snack':
        throw new ProtocolError('SNACK at ErrorRecoveryLevel 0', 'RFC 7143 §11.16');
      default:
        throw new ProtocolError(`${pdu.opcode}, which no initiator sends`, 'RFC 7143 §11.2.1.2');
    }
  }

  #receiveCommand(command: Pdu<'scsi-command'>, header: IserHeader): void {
    const { itt, data } = command;
    if (this.#tasks.has(itt)) throw new ProtocolError(`task tag ${itt} is in use`, 'RFC 7143 §11.2.1.8');
    checkCommand(command, header, this.#parameters);
    // The window, and what goes by it. A session that has ended takes no more note of commands, nor ends them.
    if (this.#tasks.size === this.commandWindow + 2 * UNEXPECTED_MESSAGES) {
      throw new ProtocolError('more commands than the window and immediate delivery allow', 'RFC 7143 §4.2.2.1');
    }
    const message = data.length === 0 ? undefined : this.keepMessage();
    this.#tasks.set(itt, {
      expectedDataTransferLength: command.expectedDataTransferLength,
      read: command.read ? header.read : undefined,
      write: command.write ? header.write : undefined,
      immediate: data,
      message,
      transfers: new Bag(),
      stopWaiting: () => {},
    });
    this.#notify(command);
  }

  #notify(pdu: InitiatorControlPdu): void {
    if (this.isOpen) this.#handler?.controlNotify(pdu);
  }

  // ---- end ----

  protected override clear(): void {
    for (const { message } of this.#tasks.values()) message?.release();
    this.#tasks.clear();
  }

  protected override notifyTermination(error: Error | undefined): void {
    this.#handler?.connectionTerminated(error);
  }
}

const ADDRESS_END = 2n ** 64n;

/** Throws `ProtocolError` where the command's data does not come as was agreed, or cannot come at all. */
function checkCommand(command: Pdu<'scsi-command'>, header: IserHeader, parameters: DataParameters | undefined): void {
  const clause = 'RFC 7143 §11.3';
  if (parameters === undefined) throw new ProtocolError('SCSI Command before login has ended', clause);
  const { read, write, final, expectedDataTransferLength: expected, data } = command;
  if (!final) throw new ProtocolError('unsolicited data is announced in spite of InitialR2T=Yes', clause);
  if (data.length > 0 && !parameters.immediateData)
    throw new ProtocolError('immediate data in spite of ImmediateData=No', clause);
  const limit = write ? Math.min(expected, parameters.firstBurstLength) : 0;
  if (data.length > limit) {
    throw new ProtocolError(`${data.length} bytes of immediate data where at most ${limit} may come`, clause);
  }
  if (write) checkAdvertised('write', header.write, expected - data.length);
  // The expected length of a command that also writes is that of the data it writes.
  if (read && !write) checkAdvertised('read', header.read, expected);
}

function checkAdvertised(what: Direction, memory: RemoteMemory | undefined, length: number): void {
  if (length === 0) return;
  if (memory === undefined) {
    throw new ProtocolError(`a command to ${what} ${length} bytes by RDMA comes without a ${what} STag`, 'RFC 7145 §7');
  }
  if (memory.address + BigInt(length) > ADDRESS_END) {
    throw new ProtocolError(`${length} bytes at 0x${memory.address.toString(16)} reach beyond all addresses`, 'RFC 7145 §9');
  }
}

function endedError(itt: number): IserfsError {
  return new IserfsError('aborted', `the task ${itt} has ended`);
}
