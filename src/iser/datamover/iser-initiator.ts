/**
 * The initiator's iSER data mover (RFC 7145): SCSI commands with their buffers advertised to the target for as long
 * as the command lives, and control PDUs as they are. It knows tags and bytes; what a command means is for others.
 *
 * Buffers in registered memory are advertised where they lie; others go through a run of our own. What is advertised
 * is the task's alone, and taken back before its end is handed up. Immediate data travels in the message. At most as
 * many requests are in flight as there are receives for their answers; more wait, in order.
 */

import { IserfsError, ProtocolError } from '../../errors.ts';
import type { PoolBuffer } from '../../scsi/buffer-pool.ts';
import { TagMap } from '../../tag-map.ts';
import {
  BHS_LENGTH,
  decodePdu,
  describePdu,
  type InitiatorControlPdu,
  NO_BYTES,
  type Pdu,
  RESERVED_TAG,
  type TargetControlPdu,
} from '../iscsi/pdu.ts';
import { connectionQuirks } from '../iscsi/peer-quirks.ts';
import type { Advertisement, QueuePair, RemoteMemory } from '../rdma/provider.ts';
import type { DataParameters, InitiatorDatamover, InitiatorHandler, TaskBuffers } from './datamover.ts';
import { IserDatamover, type IserDatamoverParts, UNEXPECTED_MESSAGES } from './iser-datamover.ts';
import { encodeMessageHeader, type IserMessage, MESSAGE_HEADER_LENGTH } from './iser-message.ts';
import { IserNudge } from './iser-nudge.ts';
import type { Work } from './iser-work.ts';
import { TagMemory } from './tag-memory.ts';
import { checkedBuffers } from './task-buffers.ts';

/** Immediate PDUs in flight at a time: no window bounds them, and targets have receives for a few. */
const MAX_IMMEDIATE = 6;

/** What a PDU in flight counts against: the commands, or the immediate PDUs. */
type Credit = 'command' | 'immediate';

interface OutgoingWork extends Work {
  /** Undefined: it is bounded by something else. */
  readonly credit: Credit | undefined;
}

/** One SCSI command from `sendControl` to its status. */
interface Task {
  readonly itt: number;
  readonly dataIn: Uint8Array;
  readonly dataOut: Uint8Array;
  /** In the place of buffers that are not in registered memory. */
  readBounce: PoolBuffer | undefined;
  writeBounce: PoolBuffer | undefined;
  /** In force at the target. */
  readTag: number | undefined;
  writeTag: number | undefined;
  /** Whether its command waits for its turn. */
  isQueued: boolean;
}

export class IserInitiator extends IserDatamover<OutgoingWork> implements InitiatorDatamover {
  readonly #handler: InitiatorHandler;
  readonly #nudge: IserNudge;
  #parameters: DataParameters | undefined;
  readonly #tasks = new TagMap<Task>();
  /** Tasks that were deallocated without a status. */
  readonly #deallocated = new TagMemory();
  /** By task tag: what is in flight and will be answered. */
  readonly #awaited = new TagMap<Credit>();
  readonly #inFlight: Record<Credit, number> = { command: 0, immediate: 0 };

  constructor(parts: IserDatamoverParts, handler: InitiatorHandler) {
    super(parts, parts.options.maxCommands + MAX_IMMEDIATE + UNEXPECTED_MESSAGES);
    this.#handler = handler;
    const { firstNudgeMs, longestNudgeIntervalMs } = connectionQuirks.lateWakeUp;
    this.#nudge = new IserNudge({
      clock: parts.options.clock,
      firstWaitMs: firstNudgeMs,
      longestWaitMs: longestNudgeIntervalMs,
      send: () => this.#sendNothing(),
    });
  }

  sendControl(pdu: InitiatorControlPdu, buffers: TaskBuffers = {}): void {
    if (!this.isOpen) return;
    if (pdu.opcode === 'scsi-command') this.#sendCommand(pdu, buffers);
    else this.#sendOther(pdu);
  }

  deallocateTask(itt: number): void {
    const task = this.#tasks.get(itt);
    if (task === undefined) return;
    this.#deallocated.add(itt);
    this.#end(task, { invalidated: undefined, transferred: 0 });
    if (!this.isOpen) return;
    if (task.isQueued) {
      // Its command must go out, but there is no memory any more that it could be sent with.
      this.fail(new IserfsError('connection-lost', 'a task was ended before its command was sent'));
      return;
    }
    this.pump();
  }

  protected override get advertisementDepth(): number {
    return 2 * this.options.maxCommands;
  }

  protected override get isRemoteInvalidateOn(): boolean {
    return this.queuePair.canPeerInvalidate && super.isRemoteInvalidateOn;
  }

  protected override enableRole(parameters: DataParameters): void {
    this.#parameters = parameters;
  }

  protected override mayPost({ credit }: OutgoingWork): boolean {
    if (credit === undefined) return true;
    return this.#inFlight[credit] < (credit === 'command' ? this.options.maxCommands : MAX_IMMEDIATE);
  }

  // ---- to the target ----

  #sendCommand(command: Pdu<'scsi-command'>, buffers: TaskBuffers): void {
    const parameters = this.#parameters;
    if (parameters === undefined) throw new Error('a SCSI command before login has ended');
    const task = newTask(command, buffers);
    if (this.#tasks.has(task.itt)) throw new Error(`task tag ${task.itt} is in use`);
    this.#deallocated.delete(task.itt);
    this.#tasks.set(task.itt, task);
    let message: PoolBuffer | undefined;
    this.enqueue({
      credit: 'command',
      post: (queuePair, id) => {
        message = this.buffers.acquireMessage();
        this.#postCommand(queuePair, id, message.bytes, command, task, parameters);
        this.#count(task.itt, 'command');
      },
      ended: () => message?.release(),
    });
  }

  #postCommand(
    queuePair: QueuePair,
    id: number,
    message: Uint8Array,
    command: Pdu<'scsi-command'>,
    task: Task,
    { immediateData, firstBurstLength, maxSendDataSegmentLength }: DataParameters,
  ): void {
    const { dataIn, dataOut } = task;
    const longest = Math.min(
      firstBurstLength,
      maxSendDataSegmentLength,
      message.length - MESSAGE_HEADER_LENGTH - command.ahs.length,
    );
    const immediate = immediateData ? Math.min(dataOut.length, longest) : 0;
    let read: RemoteMemory | undefined;
    let write: RemoteMemory | undefined;
    if (dataIn.length > 0) {
      const advertised = queuePair.advertise(this.#readable(task), 'remote-write');
      task.readTag = advertised.tag;
      read = remoteMemory(advertised);
    }
    if (dataOut.length > immediate) {
      // From the first byte on that the message does not hold: so Linux understands the address, at both ends.
      const advertised = queuePair.advertise(this.#writable(task, immediate), 'remote-read');
      task.writeTag = advertised.tag;
      write = remoteMemory(advertised);
    }
    const data = immediate === 0 ? NO_BYTES : dataOut.subarray(0, immediate);
    const length = encodeMessageHeader(message, { read, write }, { ...command, final: true, data });
    // A copy of a few kilobytes: so nothing refers to the task's own memory that could not be revoked at once.
    message.set(data, length);
    task.isQueued = false;
    queuePair.postSend(id, message.subarray(0, length + immediate));
  }

  /** Memory for the target to write the task's data to. */
  #readable(task: Task): Uint8Array {
    if (this.buffers.owns(task.dataIn)) return task.dataIn;
    task.readBounce = this.buffers.acquireRun(task.dataIn.length);
    return task.readBounce.bytes;
  }

  /** Memory for the target to read the task's data from, as of offset `from`. */
  #writable(task: Task, from: number): Uint8Array {
    const data = task.dataOut.subarray(from);
    if (this.buffers.owns(data)) return data;
    task.writeBounce = this.buffers.acquireRun(data.length);
    task.writeBounce.bytes.set(data);
    return task.writeBounce.bytes;
  }

  #sendOther(pdu: Exclude<InitiatorControlPdu, Pdu<'scsi-command'>>): void {
    const send = this.messageSend(pdu);
    // A login is one request at a time; everything else says of itself whether the window bounds it.
    const credit = pdu.opcode === 'login-request' || !pdu.immediate ? 'command' : 'immediate';
    const isAnswered = pdu.itt !== RESERVED_TAG;
    this.enqueue({
      credit,
      post: (queuePair, id) => {
        send.post(queuePair, id);
        if (isAnswered) this.#count(pdu.itt, credit);
        else this.#inFlight[credit]++;
        if (this.queuePair.fabric === 'iWARP') this.#nudge.sent();
      },
      ended: () => {
        send.ended();
        if (!isAnswered) this.#inFlight[credit]--;
      },
    });
  }

  /** An RDMA Write of no bytes: something on the wire that means nothing to the peer. */
  #sendNothing(): void {
    const message = this.buffers.acquireMessage();
    this.enqueue({
      credit: undefined,
      post: (queuePair, id) => queuePair.postWrite(id, message.bytes.subarray(0, 0), { tag: 0, address: 0n }),
      ended: () => message.release(),
    });
  }

  #count(itt: number, credit: Credit): void {
    this.#settle(itt);
    this.#awaited.set(itt, credit);
    this.#inFlight[credit]++;
  }

  /** What was sent with that tag is answered, or will never be. */
  #settle(itt: number): void {
    const credit = this.#awaited.get(itt);
    if (credit === undefined) return;
    this.#awaited.delete(itt);
    this.#inFlight[credit]--;
  }

  // ---- from the target ----

  protected override receive({ pdu }: IserMessage, invalidated: number | undefined): void {
    this.#nudge.stop();
    switch (pdu.opcode) {
      case 'scsi-response':
        this.#receiveResponse(pdu, invalidated);
        return;
      case 'login-response':
      case 'text-response':
      case 'task-management-response':
      case 'logout-response':
      case 'nop-in':
      case 'reject':
      case 'asynchronous-message':
        if (invalidated !== undefined) throw new ProtocolError(`${pdu.opcode} that invalidates a tag`, 'RFC 7145 §7');
        this.#settle(pdu.opcode === 'reject' ? rejectedTag(pdu) : pdu.itt);
        this.#notify(pdu, 0);
        return;
      case 'data-in':
      case 'r2t':
        throw new ProtocolError(`${pdu.opcode} over iSER, where data moves by RDMA`, 'RFC 7145 §7');
      default:
        throw new ProtocolError(`${pdu.opcode}, which no target sends`, 'RFC 7143 §11.2.1.2');
    }
  }

  #receiveResponse(response: Pdu<'scsi-response'>, invalidated: number | undefined): void {
    const task = this.#tasks.get(response.itt);
    const isOwnTag = invalidated === undefined || invalidated === task?.readTag || invalidated === task?.writeTag;
    if (!isOwnTag) {
      throw new ProtocolError(
        `the response to task ${response.itt} invalidates tag 0x${invalidated.toString(16)}, which is not that task's`,
        'RFC 7145 §7',
      );
    }
    if (task === undefined || task.isQueued) {
      if (!this.#deallocated.has(response.itt)) {
        throw new ProtocolError(`scsi-response for a task that does not exist: ${describePdu(response)}`, 'RFC 7143 §11.2.1.8');
      }
      this.#deallocated.delete(response.itt);
      this.#notify(response, 0);
      return;
    }
    const transferred = transferredBy(response, task);
    this.#end(task, { invalidated, transferred });
    this.#notify(response, transferred);
  }

  #notify(pdu: TargetControlPdu, transferred: number): void {
    if (this.isOpen) this.#handler.controlNotify(pdu, transferred);
  }

  /** Takes back what the task has advertised, as far as the target has not done so itself, and hands over what it has read. */
  #end(task: Task, outcome: { readonly invalidated: number | undefined; readonly transferred: number }): void {
    for (const tag of [task.readTag, task.writeTag]) {
      if (tag !== undefined && tag !== outcome.invalidated) this.queuePair.revoke(tag);
    }
    if (task.readBounce !== undefined) task.dataIn.set(task.readBounce.bytes.subarray(0, outcome.transferred));
    this.#tasks.delete(task.itt);
    this.#settle(task.itt);
    releaseBounces(task);
  }

  // ---- end ----

  override abandon(): void {
    this.#nudge.stop();
    super.abandon();
  }

  protected override clear(): void {
    this.#nudge.stop();
    for (const task of this.#tasks.values()) releaseBounces(task);
    this.#tasks.clear();
    this.#deallocated.clear();
    this.#awaited.clear();
  }

  protected override notifyTermination(error: Error | undefined): void {
    this.#handler.connectionTerminated(error);
  }
}

function remoteMemory({ tag, address }: Advertisement): RemoteMemory {
  return { tag, address: BigInt(address) };
}

function releaseBounces(task: Task): void {
  task.readBounce?.release();
  task.writeBounce?.release();
  task.readBounce = undefined;
  task.writeBounce = undefined;
}

function newTask(command: Pdu<'scsi-command'>, buffers: TaskBuffers): Task {
  return {
    itt: command.itt,
    ...checkedBuffers(command, buffers),
    readBounce: undefined,
    writeBounce: undefined,
    readTag: undefined,
    writeTag: undefined,
    isQueued: true,
  };
}

/**
 * How many bytes of the task's buffer the target has written or read: all but the residual (RFC 7143 §11.4.5). There
 * is nothing else that would tell, since RDMA Writes are not counted at this end.
 */
function transferredBy(response: Pdu<'scsi-response'>, { dataIn, dataOut }: Task): number {
  const clause = 'RFC 7143 §11.4.5';
  if (response.response !== 0) return 0;
  if (response.overflow && response.underflow) {
    throw new ProtocolError('SCSI Response with both an overflow and an underflow', clause);
  }
  const isRead = dataIn.length > 0;
  const isBidirectional = isRead && dataOut.length > 0;
  const expected = isRead ? dataIn.length : dataOut.length;
  const isUnderflow = isBidirectional ? response.bidirectionalUnderflow : response.underflow;
  if (!isUnderflow) return expected;
  const residual = isBidirectional ? response.bidirectionalResidualCount : response.residualCount;
  if (residual > expected) throw new ProtocolError(`residual of ${residual} bytes for a transfer of ${expected}`, clause);
  return expected - residual;
}

/** The tag of the task that a Reject is about: its data is the header of what is rejected (RFC 7143 §11.17). */
function rejectedTag({ data }: Pdu<'reject'>): number {
  return data.length < BHS_LENGTH ? RESERVED_TAG : decodePdu(data.subarray(0, BHS_LENGTH)).itt;
}
