/**
 * One SCSI task at the target: a SCSI Command PDU as the device server sees it (SAM's data transfer
 * services over the data mover), and the SCSI Response that its end makes (RFC 7143 §11.4). Knows no
 * order, no numbering and no medium.
 */

import { IserfsError } from '../../errors.ts';
import { throwIfAborted } from '../../scsi/abort.ts';
import type { Cancellation } from '../../scsi/cancellation.ts';
import type { Lun, ServerResult, ServerTask } from '../../scsi/port.ts';
import { Status } from '../../scsi/status.ts';
import type { TaskOrder } from '../../scsi/task-set.ts';
import type { TargetDatamover } from '../datamover/datamover.ts';
import { AhsType, decodeAhs, NO_BYTES, type Pdu, type PduFields, TaskAttribute } from './pdu.ts';

/** Service responses of a SCSI Response (RFC 7143 §11.4.3). */
const ServiceResponse = { commandCompleted: 0x00, targetFailure: 0x01 } as const;

/** A response without its numbering. */
export type ResponseFields = Omit<PduFields<'scsi-response'>, 'statSn' | 'expCmdSn' | 'maxCmdSn'>;

export class TargetTask implements ServerTask {
  readonly nexus: number;
  readonly lun: Lun;
  readonly cdb: Uint8Array;
  readonly expectedDataTransferLength: number;
  readonly #cancellation: Cancellation;
  readonly #command: Pdu<'scsi-command'>;
  readonly #datamover: TargetDatamover;
  /** Which way the device server wanted data to go, if any. */
  #wanted: 'none' | 'in' | 'out' = 'none';

  /** `cdb` is the task's own copy: that in `command` is only borrowed. */
  constructor(options: {
    readonly nexus: number;
    readonly command: Pdu<'scsi-command'>;
    readonly cdb: Uint8Array;
    readonly datamover: TargetDatamover;
    readonly cancellation: Cancellation;
  }) {
    this.nexus = options.nexus;
    this.lun = options.command.lun;
    this.cdb = options.cdb;
    this.#cancellation = options.cancellation;
    this.#command = options.command;
    this.#datamover = options.datamover;
    const { read, write, expectedDataTransferLength } = options.command;
    this.expectedDataTransferLength = read || write ? expectedDataTransferLength : 0;
  }

  get isAborted(): boolean {
    return this.#cancellation.isAborted;
  }

  get signal(): AbortSignal {
    return this.#cancellation.signal;
  }

  sendDataIn(offset: number, data: Uint8Array): Promise<void> {
    if (this.isAborted) return Promise.reject(this.signal.reason);
    this.#wanted = 'in';
    const room = this.#command.read ? this.expectedDataTransferLength - offset : 0;
    if (room <= 0 || data.length === 0) return Promise.resolve();
    return this.#datamover.putData(this.#command, offset, room < data.length ? data.subarray(0, room) : data);
  }

  async receiveDataOut(offset: number, into: Uint8Array): Promise<void> {
    throwIfAborted(this);
    this.#wanted = 'out';
    const available = this.#command.write ? this.expectedDataTransferLength : 0;
    if (offset + into.length > available) {
      throw new IserfsError(
        'illegal-request',
        `the initiator has ${available} bytes of data to give, not ${offset + into.length}`,
      );
    }
    if (into.length > 0) await this.#datamover.getData(this.#command, offset, into);
  }

  /** The SCSI Response for `result`, with the residual against what the initiator expected to move (RFC 7143 §11.4.5). */
  response(result: ServerResult): ResponseFields {
    const { read, write, itt } = this.#command;
    const isWrongWay = (this.#wanted === 'in' && !read) || (this.#wanted === 'out' && !write);
    const expected = isWrongWay ? 0 : this.expectedDataTransferLength;
    const residual = result.transferLength - expected;
    return {
      opcode: 'scsi-response',
      itt,
      response: ServiceResponse.commandCompleted,
      status: result.status,
      overflow: residual > 0,
      underflow: residual < 0,
      residualCount: Math.min(Math.abs(residual), 0xffffffff),
      data: senseSegment(result.sense),
    };
  }
}

/** The response of a task whose execution broke down inside the target. */
export function targetFailure(itt: number): ResponseFields {
  return { opcode: 'scsi-response', itt, response: ServiceResponse.targetFailure };
}

/** The response of a task that another nexus aborted: its initiator must learn of it. */
export function taskAborted(command: Pdu<'scsi-command'>): ResponseFields {
  const expected = command.read || command.write ? command.expectedDataTransferLength : 0;
  return {
    opcode: 'scsi-response',
    itt: command.itt,
    response: ServiceResponse.commandCompleted,
    status: Status['task-aborted'],
    underflow: expected > 0,
    residualCount: expected,
  };
}

/** The order that the command's task attribute asks for. ACA is not supported and orders nothing. */
export function taskOrder(command: Pdu<'scsi-command'>): TaskOrder {
  if (command.attribute === TaskAttribute.ordered) return 'ordered';
  if (command.attribute === TaskAttribute['head-of-queue']) return 'head-of-queue';
  return 'simple';
}

/** A copy of the CDB, with the rest of a long one from its additional header (RFC 7143 §11.2.2.3). Throws `ProtocolError`. */
export function copyCdb(command: Pdu<'scsi-command'>): Uint8Array {
  if (command.ahs.length === 0) return command.cdb.slice();
  for (const { type, body } of decodeAhs(command.ahs)) {
    if (type !== AhsType['extended-cdb']) continue;
    const cdb = new Uint8Array(command.cdb.length + body.length - 1);
    cdb.set(command.cdb);
    cdb.set(body.subarray(1), command.cdb.length);
    return cdb;
  }
  return command.cdb.slice();
}

/** Sense data behind its 2-byte length (RFC 7143 §11.4.7.2); nothing where there is none. */
export function senseSegment(sense: Uint8Array): Uint8Array {
  if (sense.length === 0) return NO_BYTES;
  const segment = new Uint8Array(2 + sense.length);
  segment[0] = sense.length >>> 8;
  segment[1] = sense.length & 0xff;
  segment.set(sense, 2);
  return segment;
}
