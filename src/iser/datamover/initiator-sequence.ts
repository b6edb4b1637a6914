/**
 * Data sequencing at the initiator: which Data-Out PDUs a write makes (immediate, unsolicited, answers to
 * R2T), and what the Data-In and R2T PDUs of a target may be (RFC 7143 §4.2.4, §11.7, §11.8). Sans-I/O:
 * headers and PDUs in, PDUs out. It knows neither sockets nor bytes of a header.
 *
 * ErrorRecoveryLevel 0, DataPDUInOrder and DataSequenceInOrder: nothing is ever asked for again, so a
 * number or an offset out of order is a `ProtocolError`, before a byte is placed. A task's buffers are
 * referenced from `command()` to its status or `deallocate()` (I2), and beyond that only by PDUs that
 * `nextDataOut()` handed out and `sent()` has not returned.
 */

import { ProtocolError } from '../../errors.ts';
import { TagMap } from '../../tag-map.ts';
import {
  describePdu,
  NO_BYTES,
  NO_LUN,
  type Pdu,
  RESERVED_TAG,
  type TargetControlPdu,
  TaskManagementCode,
} from '../iscsi/pdu.ts';
import type { DataParameters, TaskBuffers } from './datamover.ts';
import { TagMemory } from './tag-memory.ts';
import { checkedBuffers } from './task-buffers.ts';
import type { Placement } from './tcp-framer.ts';

/** One SCSI command between its sending and its status. */
export interface InitiatorTask {
  readonly itt: number;
  readonly lun: bigint;
  readonly dataIn: Uint8Array;
  readonly dataOut: Uint8Array;
  /** Valid bytes of `dataIn`, from its start. */
  received: number;
  /** Data-In and R2T PDUs so far: the DataSN or R2TSN that is due. */
  dataSn: number;
  /** Bytes of `dataOut` that were sent unasked or that an R2T asked for, from its start. */
  asked: number;
  outstandingR2Ts: number;
  /** PDUs with bytes of `dataOut` that are handed out and not sent yet. */
  unsent: number;
  /** A task management function is about to end the task: no more data for it. */
  isSuspended: boolean;
}

/** One sequence of Data-Out PDUs: unsolicited, or the answer to an R2T. */
interface Burst {
  readonly task: InitiatorTask;
  readonly ttt: number;
  readonly lun: bigint;
  offset: number;
  readonly end: number;
  dataSn: number;
}

/** What becomes of a received PDU. */
export type InitiatorEvent =
  | { readonly type: 'control'; readonly pdu: TargetControlPdu; readonly transferred: number }
  /** The PDU stays below: its window is all that the session learns. */
  | { readonly type: 'window'; readonly expCmdSn: number; readonly maxCmdSn: number };

export class InitiatorSequence {
  #parameters: DataParameters | undefined;
  readonly #tasks = new TagMap<InitiatorTask>();
  #bursts: Burst[] = [];
  /** Tasks that were deallocated without a status; what still comes for them is discarded. */
  readonly #deallocated = new TagMemory();

  enable(parameters: DataParameters): void {
    this.#parameters = parameters;
  }

  get taskCount(): number {
    return this.#tasks.size;
  }

  /** The task's SCSI Command with `final` and immediate data as negotiated; queues its unsolicited data. */
  command(
    command: Pdu<'scsi-command'>,
    buffers: TaskBuffers,
  ): { readonly pdu: Pdu<'scsi-command'>; readonly task: InitiatorTask } {
    const parameters = this.#parameters;
    if (parameters === undefined) throw new Error('a SCSI command before login has ended');
    const task = newTask(command, buffers);
    if (this.#tasks.has(task.itt)) throw new Error(`task tag ${task.itt} is in use`);
    this.#deallocated.delete(task.itt);
    this.#tasks.set(task.itt, task);
    const unsolicited = Math.min(task.dataOut.length, parameters.firstBurstLength);
    const immediate = parameters.immediateData ? Math.min(unsolicited, parameters.maxSendDataSegmentLength) : 0;
    const final = parameters.initialR2T || immediate === unsolicited;
    task.asked = final ? immediate : unsolicited;
    if (!final) {
      this.#bursts.push({ task, ttt: RESERVED_TAG, lun: NO_LUN, offset: immediate, end: unsolicited, dataSn: 0 });
    }
    if (immediate > 0) task.unsent++;
    const pdu =
      final === command.final && immediate === 0
        ? command
        : withImmediateData(command, final, task.dataOut.subarray(0, immediate));
    return { pdu, task };
  }

  /**
   * To be called for a task management request that is sent: no more data goes out for the tasks that it
   * is to end, so that none of their buffers is on its way when its response comes.
   */
  suspend(request: Pdu<'task-management-request'>): void {
    for (const task of this.#tasks.values()) if (concerns(request, task)) task.isSuspended = true;
    this.#bursts = this.#bursts.filter(({ task }) => !task.isSuspended);
  }

  /** The task ends here; returns it. What still comes for it is discarded. */
  deallocate(itt: number): InitiatorTask | undefined {
    const task = this.#tasks.get(itt);
    if (task === undefined) return undefined;
    this.#forget(task);
    this.#deallocated.add(itt);
    return task;
  }

  /** Forgets everything: the connection is gone. */
  clear(): void {
    this.#tasks.clear();
    this.#bursts = [];
    this.#deallocated.clear();
  }

  // ---- to the target ----

  get hasDataOut(): boolean {
    return this.#bursts.length > 0;
  }

  /** The next Data-Out PDU, if any is due. Its data is a view of the task's `dataOut`; call `sent(token)` when that is free again. */
  nextDataOut(expStatSn: number): { readonly pdu: Pdu<'data-out'>; readonly token: InitiatorTask } | undefined {
    const burst = this.#bursts[0];
    if (burst === undefined || this.#parameters === undefined) return undefined;
    const { task, offset } = burst;
    const length = Math.min(this.#parameters.maxSendDataSegmentLength, burst.end - offset);
    const final = offset + length === burst.end;
    const dataSn = burst.dataSn++;
    burst.offset += length;
    if (final) {
      this.#bursts.shift();
      if (burst.ttt !== RESERVED_TAG) task.outstandingR2Ts--;
    }
    task.unsent++;
    return {
      token: task,
      pdu: {
        opcode: 'data-out',
        final,
        lun: burst.lun,
        itt: task.itt,
        ttt: burst.ttt,
        expStatSn,
        dataSn,
        bufferOffset: offset,
        data: task.dataOut.subarray(offset, offset + length),
        ahs: NO_BYTES,
      },
    };
  }

  /** A PDU with data of `task` needs its memory no more. */
  sent(task: InitiatorTask): void {
    task.unsent--;
  }

  // ---- from the target ----

  /** Whether `received` ends a task of whose data some is still on its way out: it must wait for `sent()`. */
  mustWait(received: Pdu): boolean {
    const ends = received.opcode === 'scsi-response' || (received.opcode === 'data-in' && received.hasStatus);
    return ends && (this.#tasks.get(received.itt)?.unsent ?? 0) > 0;
  }

  /** Checks a header before its `length` bytes of data are taken, and says where they go. */
  begin(header: Pdu, length: number): Placement {
    if (header.opcode === 'data-in') return this.#beginDataIn(header, length);
    if (header.opcode === 'r2t' && length > 0) throw new ProtocolError('R2T with a data segment', 'RFC 7143 §11.8');
    return 'lend';
  }

  receive(received: Pdu): InitiatorEvent {
    switch (received.opcode) {
      case 'data-in':
        return this.#receiveDataIn(received);
      case 'r2t':
        return this.#receiveR2T(received);
      case 'scsi-response':
        return this.#receiveResponse(received);
      default:
        return { type: 'control', pdu: received as TargetControlPdu, transferred: 0 };
    }
  }

  #beginDataIn(header: Pdu<'data-in'>, length: number): Placement {
    const clause = 'RFC 7143 §11.7';
    const task = this.#taskOf(header);
    if (header.hasStatus && !header.final) throw new ProtocolError('Data-In with status, but without the F bit', clause);
    if (task === undefined) return 'discard';
    if (header.dataSn !== task.dataSn) {
      throw new ProtocolError(`Data-In has DataSN ${header.dataSn} where ${task.dataSn} is due`, clause);
    }
    if (length === 0) return 'discard';
    if (task.dataIn.length === 0) throw new ProtocolError('Data-In for a command that reads nothing', clause);
    if (header.bufferOffset !== task.received) {
      throw new ProtocolError(`Data-In has offset ${header.bufferOffset} where ${task.received} is due`, clause);
    }
    if (task.received + length > task.dataIn.length) {
      throw new ProtocolError(
        `Data-In to offset ${task.received + length} of a command that reads ${task.dataIn.length} bytes`,
        clause,
      );
    }
    // All of it, as a rule, where the command is a short one.
    return length === task.dataIn.length ? task.dataIn : task.dataIn.subarray(task.received, task.received + length);
  }

  #receiveDataIn(received: Pdu<'data-in'>): InitiatorEvent {
    const task = this.#tasks.get(received.itt);
    if (task !== undefined) {
      task.dataSn++;
      task.received += received.data.length;
    }
    if (!received.hasStatus) return { type: 'window', expCmdSn: received.expCmdSn, maxCmdSn: received.maxCmdSn };
    return this.#endTask(
      {
        opcode: 'scsi-response',
        bidirectionalOverflow: false,
        bidirectionalUnderflow: false,
        overflow: received.overflow,
        underflow: received.underflow,
        response: 0,
        status: received.status,
        itt: received.itt,
        snackTag: 0,
        statSn: received.statSn,
        expCmdSn: received.expCmdSn,
        maxCmdSn: received.maxCmdSn,
        expDataSn: received.dataSn + 1,
        bidirectionalResidualCount: 0,
        residualCount: received.residualCount,
        data: NO_BYTES,
        ahs: NO_BYTES,
      },
      task,
    );
  }

  #receiveR2T(received: Pdu<'r2t'>): InitiatorEvent {
    const clause = 'RFC 7143 §11.8';
    const task = this.#taskOf(received);
    const event = { type: 'window', expCmdSn: received.expCmdSn, maxCmdSn: received.maxCmdSn } as const;
    if (task === undefined) return event;
    const parameters = this.#parameters as DataParameters;
    const { bufferOffset, desiredDataTransferLength: length } = received;
    if (task.dataOut.length === 0) throw new ProtocolError('R2T for a command that writes nothing', clause);
    if (received.r2tSn !== task.dataSn) {
      throw new ProtocolError(`R2T has R2TSN ${received.r2tSn} where ${task.dataSn} is due`, clause);
    }
    if (received.ttt === RESERVED_TAG) throw new ProtocolError('R2T with the reserved target transfer tag', clause);
    if (length === 0 || length > parameters.maxBurstLength) {
      throw new ProtocolError(`R2T for ${length} bytes where MaxBurstLength is ${parameters.maxBurstLength}`, clause);
    }
    if (bufferOffset + length > task.dataOut.length) {
      throw new ProtocolError(
        `R2T to offset ${bufferOffset + length} of a command that writes ${task.dataOut.length} bytes`,
        clause,
      );
    }
    if (bufferOffset !== task.asked) {
      const fault = bufferOffset < task.asked ? 'overlaps what was asked for or sent before' : 'leaves a gap';
      throw new ProtocolError(`R2T for offset ${bufferOffset} where ${task.asked} is due: it ${fault}`, clause);
    }
    if (task.outstandingR2Ts >= parameters.maxOutstandingR2T) {
      throw new ProtocolError(`more R2Ts at once than MaxOutstandingR2T, which is ${parameters.maxOutstandingR2T}`, clause);
    }
    task.dataSn++;
    task.asked += length;
    task.outstandingR2Ts++;
    if (!task.isSuspended) {
      const { ttt, lun } = received;
      this.#bursts.push({ task, ttt, lun, offset: bufferOffset, end: bufferOffset + length, dataSn: 0 });
    }
    return event;
  }

  #receiveResponse(received: Pdu<'scsi-response'>): InitiatorEvent {
    const task = this.#taskOf(received);
    // A target that counts nothing (0) is no fault: the field is reserved for all but completed reads.
    if (task !== undefined && received.response === 0 && received.expDataSn > task.dataSn) {
      throw new ProtocolError(
        `the target has sent ${received.expDataSn} Data-In or R2T PDUs, of which ${task.dataSn} came`,
        'RFC 7143 §11.4.8',
      );
    }
    return this.#endTask(received, task);
  }

  #endTask(response: Pdu<'scsi-response'>, task: InitiatorTask | undefined): InitiatorEvent {
    if (task === undefined) {
      this.#deallocated.delete(response.itt);
      return { type: 'control', pdu: response, transferred: 0 };
    }
    const transferred = transferredBy(response, task);
    this.#forget(task);
    return { type: 'control', pdu: response, transferred };
  }

  /** The task of a PDU; undefined where it was deallocated. */
  #taskOf(received: Pdu): InitiatorTask | undefined {
    const task = this.#tasks.get(received.itt);
    if (task === undefined && !this.#deallocated.has(received.itt)) {
      throw new ProtocolError(
        `${received.opcode} for a task that does not exist: ${describePdu(received)}`,
        'RFC 7143 §11.2.1.8',
      );
    }
    return task;
  }

  #forget(task: InitiatorTask): void {
    this.#tasks.delete(task.itt);
    if (this.#bursts.length > 0) this.#bursts = this.#bursts.filter((burst) => burst.task !== task);
  }
}

/** The command as it goes out. Field by field: a spread costs more than all else that is done for a command here. */
function withImmediateData(command: Pdu<'scsi-command'>, final: boolean, data: Uint8Array): Pdu<'scsi-command'> {
  return {
    opcode: 'scsi-command',
    immediate: command.immediate,
    final,
    read: command.read,
    write: command.write,
    attribute: command.attribute,
    lun: command.lun,
    itt: command.itt,
    expectedDataTransferLength: command.expectedDataTransferLength,
    cmdSn: command.cmdSn,
    expStatSn: command.expStatSn,
    cdb: command.cdb,
    data,
    ahs: command.ahs,
  };
}

function newTask(command: Pdu<'scsi-command'>, buffers: TaskBuffers): InitiatorTask {
  const { dataIn, dataOut } = checkedBuffers(command, buffers);
  return {
    itt: command.itt,
    lun: command.lun,
    dataIn,
    dataOut,
    received: 0,
    dataSn: 0,
    asked: 0,
    outstandingR2Ts: 0,
    unsent: 0,
    isSuspended: false,
  };
}

/**
 * How many bytes of the task's buffer the target has filled, or asked for. A residual that contradicts
 * what came is an error (RFC 7143 §11.4.5); one that is missing is not, the number returned says it.
 */
function transferredBy(response: Pdu<'scsi-response'>, task: InitiatorTask): number {
  const isRead = task.dataIn.length > 0;
  const done = isRead ? task.received : task.asked;
  if (response.response !== 0) return done;
  const clause = 'RFC 7143 §11.4.5';
  if (response.overflow && response.underflow)
    throw new ProtocolError('SCSI Response with both an overflow and an underflow', clause);
  const expected = isRead ? task.dataIn.length : task.dataOut.length;
  const isBidirectional = isRead && task.dataOut.length > 0;
  if (!response.underflow || isBidirectional) return done;
  if (response.residualCount > expected) {
    throw new ProtocolError(`residual of ${response.residualCount} bytes for a transfer of ${expected}`, clause);
  }
  const claimed = expected - response.residualCount;
  if (isRead && response.status === 0 && claimed > done) {
    throw new ProtocolError(`the target claims to have sent ${claimed} bytes, of which ${done} came`, clause);
  }
  return Math.min(done, claimed);
}

function concerns(request: Pdu<'task-management-request'>, task: InitiatorTask): boolean {
  switch (request.function) {
    case TaskManagementCode['abort-task']:
      return request.referencedTaskTag === task.itt;
    case TaskManagementCode['abort-task-set']:
    case TaskManagementCode['clear-task-set']:
    case TaskManagementCode['logical-unit-reset']:
      return request.lun === task.lun;
    case TaskManagementCode['target-warm-reset']:
    case TaskManagementCode['target-cold-reset']:
      return true;
    default:
      return false;
  }
}
