/**
 * Data sequencing at the target: Put_Data becomes Data-In PDUs, Get_Data is served from immediate and
 * unsolicited data and then by R2T (RFC 7143 §4.2.4, §11.7, §11.8). Sans-I/O: headers and PDUs in, PDUs
 * out. It knows neither sockets nor what a command means.
 *
 * ErrorRecoveryLevel 0, DataPDUInOrder and DataSequenceInOrder: data out of order is a `ProtocolError`
 * before a byte is placed. Unsolicited data is bounded by FirstBurstLength for each task and kept until
 * the task is deallocated; everything else goes straight into the buffer of a `getData`.
 */

import { IserfsError, ProtocolError } from '../../errors.ts';
import { TagMap } from '../../tag-map.ts';
import { type InitiatorControlPdu, NO_BYTES, NO_LUN, type Pdu, RESERVED_TAG } from '../iscsi/pdu.ts';
import { serialAdd } from '../iscsi/serial.ts';
import type { DataParameters } from './datamover.ts';
import { TagMemory } from './tag-memory.ts';
import type { Placement } from './tcp-framer.ts';

interface Task {
  readonly itt: number;
  readonly lun: bigint;
  readonly expectedDataTransferLength: number;
  /** Room for the unsolicited data. */
  readonly kept: Uint8Array;
  keptLength: number;
  /** DataSN of the next unsolicited Data-Out PDU; undefined when none is to come any more. */
  unsolicitedDataSn: number | undefined;
  /** Shared by Data-In and R2T PDUs. */
  dataSn: number;
  /** Where the next R2T begins. */
  solicited: number;
  /** Where the next Data-In begins. */
  putOffset: number;
  /** Bytes in the present sequence of Data-In PDUs. */
  burstLength: number;
  /** Unfinished `getData` calls, oldest first. */
  readonly gets: Get[];
  outstandingR2Ts: number;
}

interface Get {
  readonly task: Task;
  readonly offset: number;
  readonly into: Uint8Array;
  /** Bytes of `into` that have come or were asked for, from its start; those that have come. */
  asked: number;
  received: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

interface Put {
  readonly task: Task;
  readonly offset: number;
  readonly data: Uint8Array;
  position: number;
  unsent: number;
  /** Why the rest is not sent any more. */
  failure: Error | undefined;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

interface R2T {
  readonly get: Get;
  readonly ttt: number;
  /** From the start of the task's data. */
  next: number;
  readonly end: number;
  dataSn: number;
}

/** Numbers for a PDU that the sequencer makes (`TargetHandler.currentNumbering`). */
export interface Numbering {
  readonly statSn: number;
  readonly expCmdSn: number;
  readonly maxCmdSn: number;
}

/** A PDU with data of a `putData`; `sent()` takes it back. */
export type PutToken = Put;

export class TargetSequence {
  #parameters: DataParameters | undefined;
  readonly #tasks = new TagMap<Task>();
  readonly #r2ts = new TagMap<R2T>();
  #nextTtt = 1;
  /** `getData` calls of which some data is still to be asked for. */
  readonly #toSolicit = new Set<Get>();
  #puts: Put[] = [];
  /** Those with PDUs that are handed out and not sent yet. */
  readonly #sending = new Set<Put>();
  /** Late data to be discarded: unsolicited by task tag, solicited by transfer tag. */
  readonly #lateTasks = new TagMemory();
  readonly #lateTransfers = new TagMemory();

  enable(parameters: DataParameters): void {
    this.#parameters = parameters;
  }

  get taskCount(): number {
    return this.#tasks.size;
  }

  // ---- from the initiator ----

  /** Checks a header before its `length` bytes of data are taken, and says where they go. */
  begin(header: Pdu, length: number): Placement {
    switch (header.opcode) {
      case 'scsi-command':
        return this.#beginCommand(header, length);
      case 'data-out':
        return header.ttt === RESERVED_TAG ? this.#beginUnsolicited(header, length) : this.#beginSolicited(header, length);
      case 'snack':
        throw new ProtocolError('SNACK at ErrorRecoveryLevel 0', 'RFC 7143 §11.16');
      default:
        return 'lend';
    }
  }

  /** The control PDU that goes up, if it is one. */
  receive(received: Pdu): InitiatorControlPdu | undefined {
    if (received.opcode !== 'data-out') return received as InitiatorControlPdu;
    if (received.ttt === RESERVED_TAG) this.#receiveUnsolicited(received);
    else this.#receiveSolicited(received);
    return undefined;
  }

  #beginCommand(header: Pdu<'scsi-command'>, length: number): Placement {
    const clause = 'RFC 7143 §11.3';
    const parameters = this.#parameters;
    if (parameters === undefined) throw new ProtocolError('SCSI Command before login has ended', clause);
    const { itt, final, write } = header;
    const expected = write ? header.expectedDataTransferLength : 0;
    if (this.#tasks.has(itt)) throw new ProtocolError(`task tag ${itt} is in use`, 'RFC 7143 §11.2.1.8');
    if (!final && !write) throw new ProtocolError('SCSI Command with neither the F nor the W bit', clause);
    if (!final && parameters.initialR2T)
      throw new ProtocolError('unsolicited data is announced in spite of InitialR2T=Yes', clause);
    if (length > 0 && !parameters.immediateData) throw new ProtocolError('immediate data in spite of ImmediateData=No', clause);
    const limit = Math.min(expected, parameters.firstBurstLength);
    if (length > limit) throw new ProtocolError(`${length} bytes of immediate data where at most ${limit} may come`, clause);
    const kept = final ? new Uint8Array(length) : new Uint8Array(limit);
    this.#lateTasks.delete(itt);
    this.#tasks.set(itt, {
      itt,
      lun: header.lun,
      expectedDataTransferLength: header.expectedDataTransferLength,
      kept,
      keptLength: length,
      unsolicitedDataSn: final ? undefined : 0,
      dataSn: 0,
      solicited: length,
      putOffset: 0,
      burstLength: 0,
      gets: [],
      outstandingR2Ts: 0,
    });
    return length === 0 ? 'discard' : kept.subarray(0, length);
  }

  #beginUnsolicited(header: Pdu<'data-out'>, length: number): Placement {
    const clause = 'RFC 7143 §11.7';
    const task = this.#tasks.get(header.itt);
    if (task === undefined) {
      if (this.#lateTasks.has(header.itt)) return 'discard';
      throw new ProtocolError(`Data-Out for a task that does not exist: itt=0x${header.itt.toString(16)}`, clause);
    }
    if (task.unsolicitedDataSn === undefined)
      throw new ProtocolError('unsolicited Data-Out after its last, or without announcement', clause);
    checkDataSn(header, task.unsolicitedDataSn);
    checkOffset(header, task.keptLength);
    if (task.keptLength + length > task.kept.length) {
      throw new ProtocolError(
        `${task.keptLength + length} bytes of unsolicited data where at most ${task.kept.length} may come`,
        'RFC 7143 §13.14',
      );
    }
    return length === 0 ? 'discard' : task.kept.subarray(task.keptLength, task.keptLength + length);
  }

  #receiveUnsolicited(received: Pdu<'data-out'>): void {
    const task = this.#tasks.get(received.itt);
    if (task?.unsolicitedDataSn === undefined) {
      if (received.final) this.#lateTasks.delete(received.itt);
      return;
    }
    task.keptLength += received.data.length;
    task.solicited = task.keptLength;
    task.unsolicitedDataSn = received.final ? undefined : task.unsolicitedDataSn + 1;
    for (const get of [...task.gets]) this.#serve(get);
  }

  #beginSolicited(header: Pdu<'data-out'>, length: number): Placement {
    const clause = 'RFC 7143 §11.7';
    const r2t = this.#r2ts.get(header.ttt);
    if (r2t === undefined) {
      if (this.#lateTransfers.has(header.ttt)) return 'discard';
      throw new ProtocolError(`Data-Out for an R2T that does not exist: ttt=0x${header.ttt.toString(16)}`, clause);
    }
    if (header.itt !== r2t.get.task.itt)
      throw new ProtocolError('Data-Out with the task tag of another task than its R2T', clause);
    checkDataSn(header, r2t.dataSn);
    checkOffset(header, r2t.next);
    const end = r2t.next + length;
    if (end > r2t.end) throw new ProtocolError(`Data-Out to offset ${end} where the R2T asked for data to ${r2t.end}`, clause);
    if (header.final !== (end === r2t.end)) {
      const fault = header.final
        ? 'has the F bit before all that was asked for has come'
        : 'ends what was asked for, but lacks the F bit';
      throw new ProtocolError(`Data-Out ${fault}`, clause);
    }
    const { get } = r2t;
    return length === 0 ? 'discard' : get.into.subarray(r2t.next - get.offset, end - get.offset);
  }

  #receiveSolicited(received: Pdu<'data-out'>): void {
    const r2t = this.#r2ts.get(received.ttt);
    if (r2t === undefined) {
      if (received.final) this.#lateTransfers.delete(received.ttt);
      return;
    }
    const { get } = r2t;
    r2t.dataSn++;
    r2t.next += received.data.length;
    get.received += received.data.length;
    if (!received.final) return;
    this.#r2ts.delete(r2t.ttt);
    get.task.outstandingR2Ts--;
    this.#finish(get);
  }

  // ---- the target's side ----

  /** Queues Data-In; `nextPdu` makes it. */
  putData(itt: number, offset: number, data: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      const task = this.#activeTask(itt);
      if (offset !== task.putOffset || offset + data.length > task.expectedDataTransferLength) {
        throw new RangeError(
          `putData of ${data.length} bytes at ${offset} where ${task.putOffset} of ${task.expectedDataTransferLength} is due`,
        );
      }
      if (data.length === 0) {
        resolve();
        return;
      }
      task.putOffset += data.length;
      this.#puts.push({ task, offset, data, position: 0, unsent: 0, failure: undefined, resolve, reject });
    });
  }

  /** R2T and Data-In PDUs of the task so far: the ExpDataSN of its status (RFC 7143 §11.4.8). 0 where there is no such task. */
  dataPduCount(itt: number): number {
    return this.#tasks.get(itt)?.dataSn ?? 0;
  }

  /** Whether Data-In of the task is queued that its status must not overtake. */
  hasQueuedDataIn(itt: number): boolean {
    return this.#puts.some(({ task }) => task.itt === itt);
  }

  getData(itt: number, offset: number, into: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      const task = this.#activeTask(itt);
      if (offset + into.length > task.expectedDataTransferLength) {
        throw new RangeError(`getData of ${into.length} bytes at ${offset} of ${task.expectedDataTransferLength}`);
      }
      const get: Get = { task, offset, into, asked: 0, received: 0, resolve, reject };
      task.gets.push(get);
      this.#serve(get);
    });
  }

  /** Ends the task: what is under way for it rejects with `reason`, late data is discarded. */
  deallocate(itt: number, reason: Error): void {
    const task = this.#tasks.get(itt);
    if (task === undefined) return;
    this.#tasks.delete(itt);
    if (task.unsolicitedDataSn !== undefined) this.#lateTasks.add(itt);
    if (task.outstandingR2Ts > 0)
      for (const r2t of this.#r2ts.values()) {
        if (r2t.get.task !== task) continue;
        this.#r2ts.delete(r2t.ttt);
        this.#lateTransfers.add(r2t.ttt);
      }
    for (const get of task.gets.splice(0)) {
      this.#toSolicit.delete(get);
      get.reject(reason);
    }
    this.#puts = this.#puts.filter((put) => {
      if (put.task !== task) return true;
      put.failure = reason;
      if (put.unsent === 0) put.reject(reason);
      return false;
    });
    for (const put of this.#sending) if (put.task === task) put.failure = reason;
  }

  /** The connection is gone and nothing handed out is referenced any more: all that is under way rejects. */
  clear(reason: Error): void {
    for (const [itt] of this.#tasks.entries()) this.deallocate(itt, reason);
    for (const put of this.#sending) put.reject(reason);
    this.#sending.clear();
    this.#lateTasks.clear();
    this.#lateTransfers.clear();
  }

  /** Whether `nextPdu` may have something. */
  get hasWork(): boolean {
    return this.#puts.length > 0 || this.#toSolicit.size > 0;
  }

  /** The next R2T or Data-In PDU, if any is due. Where it has a token, call `sent(token)` when its data is free again. */
  nextPdu(numbering: Numbering): { readonly pdu: Pdu<'data-in' | 'r2t'>; readonly token: PutToken | undefined } | undefined {
    return this.#nextR2T(numbering) ?? this.#nextDataIn(numbering);
  }

  sent(put: PutToken): void {
    put.unsent--;
    if (put.unsent > 0) return;
    this.#sending.delete(put);
    if (put.failure !== undefined) put.reject(put.failure);
    else if (put.position === put.data.length) put.resolve();
  }

  #nextR2T(numbering: Numbering): { pdu: Pdu<'r2t'>; token: undefined } | undefined {
    const parameters = this.#parameters as DataParameters;
    for (const get of this.#toSolicit) {
      const { task } = get;
      if (task.outstandingR2Ts >= parameters.maxOutstandingR2T) continue;
      const start = get.offset + get.asked;
      const length = Math.min(parameters.maxBurstLength, get.into.length - get.asked);
      const ttt = this.#takeTtt();
      this.#r2ts.set(ttt, { get, ttt, next: start, end: start + length, dataSn: 0 });
      task.outstandingR2Ts++;
      task.solicited = start + length;
      get.asked += length;
      if (get.asked === get.into.length) this.#toSolicit.delete(get);
      return {
        token: undefined,
        pdu: {
          opcode: 'r2t',
          lun: task.lun,
          itt: task.itt,
          ttt,
          ...numbering,
          r2tSn: task.dataSn++,
          bufferOffset: start,
          desiredDataTransferLength: length,
          data: NO_BYTES,
          ahs: NO_BYTES,
        },
      };
    }
    return undefined;
  }

  #nextDataIn(numbering: Numbering): { pdu: Pdu<'data-in'>; token: PutToken } | undefined {
    const put = this.#puts[0];
    if (put === undefined) return undefined;
    const { task } = put;
    const { maxSendDataSegmentLength, maxBurstLength } = this.#parameters as DataParameters;
    const remaining = put.data.length - put.position;
    const length = Math.min(maxSendDataSegmentLength, maxBurstLength - task.burstLength, remaining);
    const start = put.position;
    put.position += length;
    put.unsent++;
    this.#sending.add(put);
    if (length === remaining) this.#puts.shift();
    task.burstLength += length;
    const final = length === remaining || task.burstLength === maxBurstLength;
    if (final) task.burstLength = 0;
    return {
      token: put,
      pdu: {
        opcode: 'data-in',
        final,
        acknowledge: false,
        overflow: false,
        underflow: false,
        hasStatus: false,
        status: 0,
        lun: NO_LUN,
        itt: task.itt,
        ttt: RESERVED_TAG,
        statSn: 0,
        expCmdSn: numbering.expCmdSn,
        maxCmdSn: numbering.maxCmdSn,
        dataSn: task.dataSn++,
        bufferOffset: put.offset + start,
        residualCount: 0,
        data: put.data.subarray(start, start + length),
        ahs: NO_BYTES,
      },
    };
  }

  /** Copies to `get` what has come unsolicited; asks for the rest when no more of that is to come. */
  #serve(get: Get): void {
    const { task } = get;
    const have = Math.min(task.keptLength, get.offset + get.into.length);
    const from = get.offset + get.received;
    if (from < have && get.asked === get.received) {
      get.into.set(task.kept.subarray(from, have), get.received);
      get.received = have - get.offset;
      get.asked = get.received;
    }
    if (get.received === get.into.length) {
      this.#finish(get);
      return;
    }
    if (task.unsolicitedDataSn !== undefined || get.asked === get.into.length || this.#toSolicit.has(get)) return;
    const planned = [...this.#toSolicit].reduce(
      (end, other) => (other.task === task ? other.offset + other.into.length : end),
      task.solicited,
    );
    if (get.offset + get.asked !== planned) {
      task.gets.splice(task.gets.indexOf(get), 1);
      get.reject(new RangeError(`getData at ${get.offset + get.asked} where ${planned} is due: R2Ts go forward without a gap`));
      return;
    }
    this.#toSolicit.add(get);
  }

  #finish(get: Get): void {
    if (get.received < get.into.length) return;
    get.task.gets.splice(get.task.gets.indexOf(get), 1);
    get.resolve();
  }

  #activeTask(itt: number): Task {
    const task = this.#tasks.get(itt);
    if (task === undefined) throw new IserfsError('aborted', `the task ${itt} has ended`);
    return task;
  }

  #takeTtt(): number {
    const ttt = this.#nextTtt;
    this.#nextTtt = serialAdd(ttt, 1);
    if (this.#nextTtt === RESERVED_TAG) this.#nextTtt = 0;
    return ttt;
  }
}

function checkDataSn(header: Pdu<'data-out'>, due: number): void {
  if (header.dataSn === due) return;
  throw new ProtocolError(`Data-Out has DataSN ${header.dataSn} where ${due} is due`, 'RFC 7143 §11.7');
}

function checkOffset(header: Pdu<'data-out'>, due: number): void {
  if (header.bufferOffset === due) return;
  throw new ProtocolError(`Data-Out has offset ${header.bufferOffset} where ${due} is due`, 'RFC 7143 §11.7');
}
