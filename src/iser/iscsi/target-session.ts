/**
 * The target's full-feature phase of one session with one connection (RFC 7143 §8.2): command ordering,
 * numbering, SCSI tasks, task management, text, keepalive, logout. Pure: it talks to a `TargetDatamover`,
 * hands tasks to the target's `TaskSets`, is told the time, and is asked when it wants to be woken. It
 * knows no transport, no login and no other session; what is common to the sessions of one target is in
 * the task sets, through which task management reaches across them.
 *
 * What initiators rely on: a task management response, a logout response and `end()` come only after the
 * tasks concerned have left their task set, when nothing of them can change the medium any more. Nothing
 * is sent for a task that its own nexus aborted; one that another nexus aborted ends with TASK ABORTED.
 */

import { ProtocolError } from '../../errors.ts';
import type { Lun } from '../../scsi/port.ts';
import type { Task, TaskSets } from '../../scsi/task-set.ts';
import { TagMap } from '../../tag-map.ts';
import type { TargetDatamover } from '../datamover/datamover.ts';
import { TargetCommandWindow } from './command-window.ts';
import {
  AsyncEvent,
  encodeBhs,
  type InitiatorControlPdu,
  type Pdu,
  type PduFields,
  pdu,
  RESERVED_TAG,
  RejectReason,
  type TargetControlPdu,
  TaskManagementCode,
  TaskManagementResponseCode,
} from './pdu.ts';
import { serialAdd, serialLess, serialLessOrEqual } from './serial.ts';
import { copyCdb, type ResponseFields, senseSegment, TargetTask, targetFailure, taskAborted, taskOrder } from './target-task.ts';
import { manageTasks, type SessionTarget } from './target-task-management.ts';
import { TargetText, type TextPairs } from './target-text.ts';

export interface TargetSessionOptions {
  readonly datamover: TargetDatamover;
  /** `undefined` for a discovery session. */
  readonly target: SessionTarget | undefined;
  readonly nexus: number;
  readonly cid: number;
  /** CmdSN that the first command will have, and the StatSN that follows the last login response. */
  readonly expCmdSn: number;
  readonly statSn: number;
  /** Commands that the initiator may have outstanding. */
  readonly windowSize: number;
  /** Largest data segment that the initiator takes. */
  readonly maxSendDataSegmentLength: number;
  /** Answers a text request, all keys at once. */
  readonly answerText: (pairs: TextPairs) => TextPairs;
  /** Milliseconds, only ever growing. */
  readonly now: () => number;
  /** A NOP-In goes out after this long without a PDU from the initiator; the initiator is dead when nothing has come for `keepaliveTimeoutMs` after it. */
  readonly keepaliveIntervalMs: number;
  readonly keepaliveTimeoutMs: number;
  /** The session has no more use for its connection; called at most once. `end()` is the owner's to call. */
  readonly disconnect: (mode: 'orderly' | 'abrupt', reason: string) => void;
}

/** Immediate commands that may be in progress beyond the window (RFC 7143 §4.2.2.1 asks for a few). */
const MAX_IMMEDIATE_COMMANDS = 16;

type SessionState =
  | { readonly name: 'LOGGED_IN' }
  /** An Asynchronous Message has asked the initiator to log out until `deadline`. */
  | { readonly name: 'LOGOUT_REQUESTED'; readonly deadline: number }
  /** A Logout Request waits for the tasks to end, or its response has gone out. */
  | { readonly name: 'IN_LOGOUT' }
  | { readonly name: 'FREE' };

/** A PDU that takes part in command ordering. */
type OrderedPdu = Exclude<InitiatorControlPdu, Pdu<'login-request'>>;

export class TargetSession {
  readonly #options: TargetSessionOptions;
  readonly #datamover: TargetDatamover;
  readonly #window: TargetCommandWindow;
  readonly #text: TargetText;
  #state: SessionState = { name: 'LOGGED_IN' };
  #statSn: number;
  #nextTtt = 1;
  /** SCSI tasks in progress by initiator task tag. */
  readonly #tasks = new TagMap<Task>();
  #immediateCommands = 0;
  /** What came too early by CmdSN, to be done in its turn. */
  readonly #held = new Map<number, () => void>();
  /** Immediate task management that must wait until every command before it has come. */
  #plugged: { readonly cmdSn: number; readonly act: () => void }[] = [];
  #lastReceived: number;
  #pingDeadline: number | undefined;
  #ended: Promise<void> | undefined;

  constructor(options: TargetSessionOptions) {
    this.#options = options;
    this.#datamover = options.datamover;
    this.#window = new TargetCommandWindow(options.expCmdSn, options.windowSize);
    this.#statSn = options.statSn;
    this.#lastReceived = options.now();
    this.#text = new TargetText({
      answer: options.answerText,
      maxDataSegmentLength: () => options.maxSendDataSegmentLength,
      nextTtt: () => this.#takeTtt(),
    });
  }

  get state(): SessionState['name'] {
    return this.#state.name;
  }

  get tasksInProgress(): number {
    return this.#tasks.size;
  }

  /** For PDUs that the data mover makes itself. */
  get numbering(): { readonly statSn: number; readonly expCmdSn: number; readonly maxCmdSn: number } {
    return { statSn: this.#statSn, expCmdSn: this.#window.expCmdSn, maxCmdSn: this.#window.maxCmdSn };
  }

  // ---- what the owner asks for ----

  /** Asks the initiator to log out within `seconds`; disconnects when it does not. */
  requestLogout(seconds: number): void {
    if (this.#state.name !== 'LOGGED_IN') return;
    this.#state = { name: 'LOGOUT_REQUESTED', deadline: this.#options.now() + seconds * 1000 };
    this.#send({
      opcode: 'asynchronous-message',
      itt: RESERVED_TAG,
      asyncEvent: AsyncEvent['logout-requested'],
      parameter3: seconds,
    });
  }

  /** Reports sense data of a logical unit outside of any command (RFC 7143 §11.9.1, event 0). */
  sendAsynchronousSense(lun: Lun, sense: Uint8Array): void {
    if (this.#state.name !== 'LOGGED_IN' || this.#options.target === undefined) return;
    this.#send({
      opcode: 'asynchronous-message',
      lun,
      itt: RESERVED_TAG,
      asyncEvent: AsyncEvent['scsi-event'],
      data: senseSegment(sense),
    });
  }

  /** Ends the session: nothing is sent any more, its tasks are aborted. Resolves when all have ended. Idempotent. */
  end(): Promise<void> {
    this.#state = { name: 'FREE' };
    this.#held.clear();
    this.#plugged = [];
    this.#ended ??= this.#endTasks();
    return this.#ended;
  }

  // ---- what the data mover reports ----

  /** A PDU from the initiator. Throws `ProtocolError` for what the connection must be dropped for. */
  handlePdu(received: InitiatorControlPdu): void {
    if (this.#state.name === 'FREE' || this.#state.name === 'IN_LOGOUT') return;
    this.#lastReceived = this.#options.now();
    this.#pingDeadline = undefined;
    if (received.opcode === 'login-request') throw new ProtocolError('Login Request in full-feature phase', 'RFC 7143 §11.12');
    if (received.itt === RESERVED_TAG) {
      // Nothing but a NOP-Out goes without a tag: an answer to our NOP-In, or a mere sign of life.
      if (received.opcode !== 'nop-out') throw new ProtocolError(`${received.opcode} without a task tag`, 'RFC 7143 §11.2.1.8');
      return;
    }
    this.#order(received);
  }

  // ---- time ----

  /** When `handleTimeout` wants to be called next. */
  pollTimeout(): number | undefined {
    if (this.#state.name === 'FREE' || this.#state.name === 'IN_LOGOUT') return undefined;
    const keepalive = this.#pingDeadline ?? this.#lastReceived + this.#options.keepaliveIntervalMs;
    return this.#state.name === 'LOGOUT_REQUESTED' ? Math.min(keepalive, this.#state.deadline) : keepalive;
  }

  handleTimeout(now: number): void {
    if (this.#state.name === 'FREE' || this.#state.name === 'IN_LOGOUT') return;
    if (this.#state.name === 'LOGOUT_REQUESTED' && now >= this.#state.deadline) {
      this.#disconnect('orderly', 'the initiator did not log out when asked to');
    } else if (this.#pingDeadline !== undefined) {
      if (now >= this.#pingDeadline) this.#disconnect('abrupt', 'the initiator does not answer');
    } else if (now >= this.#lastReceived + this.#options.keepaliveIntervalMs) {
      this.#pingDeadline = now + this.#options.keepaliveTimeoutMs;
      this.#send({ opcode: 'nop-in', itt: RESERVED_TAG, ttt: this.#takeTtt() });
    }
  }

  // ---- order ----

  #order(received: OrderedPdu): void {
    const { cmdSn, immediate } = received;
    switch (this.#window.arrive(cmdSn, immediate)) {
      case 'discard':
        // Outside the window or seen before: silently ignored (RFC 7143 §4.2.2.1).
        this.#forgetData(received);
        return;
      case 'hold': {
        const kept = keep(received);
        this.#held.set(cmdSn, () => this.#dispatch(kept));
        return;
      }
      case 'execute':
        this.#dispatch(received);
        this.#doHeld();
    }
  }

  /** Does what was held for the numbers that have now come. */
  #doHeld(): void {
    for (;;) {
      const { expCmdSn } = this.#window;
      const act = this.#held.get(expCmdSn);
      if (act === undefined) break;
      this.#held.delete(expCmdSn);
      this.#window.advance();
      act();
    }
    const due = this.#plugged.filter(({ cmdSn }) => serialLessOrEqual(cmdSn, this.#window.expCmdSn));
    if (due.length === 0) return;
    this.#plugged = this.#plugged.filter((entry) => !due.includes(entry));
    for (const { act } of due) act();
  }

  #dispatch(received: OrderedPdu): void {
    switch (received.opcode) {
      case 'scsi-command':
        this.#scsiCommand(received);
        break;
      case 'nop-out':
        this.#send({
          opcode: 'nop-in',
          itt: received.itt,
          ttt: RESERVED_TAG,
          lun: received.lun,
          data: received.data.slice(0, this.#options.maxSendDataSegmentLength),
        });
        break;
      case 'text-request':
        this.#textRequest(received);
        break;
      case 'task-management-request':
        this.#taskManagement(received);
        break;
      case 'logout-request':
        this.#logout(received);
        break;
    }
  }

  // ---- SCSI commands ----

  #scsiCommand(command: Pdu<'scsi-command'>): void {
    const { target, nexus } = this.#options;
    const { itt, immediate } = command;
    if (this.#tasks.has(itt)) throw new ProtocolError(`task tag ${itt} is in use`, 'RFC 7143 §11.2.1.8');
    if (target === undefined || (command.read && command.write)) {
      this.#refuse(command, RejectReason['command-not-supported']);
      return;
    }
    if (immediate && this.#immediateCommands >= MAX_IMMEDIATE_COMMANDS) {
      this.#refuse(command, RejectReason['too-many-immediate-commands']);
      return;
    }
    const cdb = copyCdb(command);
    if (immediate) this.#immediateCommands++;
    else this.#window.begin();
    let answer: ResponseFields = targetFailure(itt);
    const task = target.tasks.submit({
      nexus,
      lun: command.lun,
      order: taskOrder(command),
      run: async (cancellation) => {
        const serverTask = new TargetTask({ nexus, command, cdb, datamover: this.#datamover, cancellation });
        answer = serverTask.response(await target.deviceServer.execute(serverTask));
      },
      onAborted: () => this.#datamover.deallocateTask(itt),
      onEnded: (end) => {
        this.#tasks.delete(itt);
        if (immediate) this.#immediateCommands--;
        else this.#window.finish();
        if (end.type === 'completed') this.#send(answer);
        else if (end.byNexus !== nexus) this.#send(taskAborted(command));
        this.#datamover.deallocateTask(itt);
      },
    });
    this.#tasks.set(itt, task);
  }

  // ---- task management ----

  #taskManagement(request: Pdu<'task-management-request'>): void {
    if (this.#options.target === undefined) {
      this.#refuse(request, RejectReason['command-not-supported']);
      return;
    }
    const reachesBack = request.function !== TaskManagementCode['abort-task'];
    if (reachesBack && request.immediate && serialLess(this.#window.expCmdSn, request.cmdSn)) {
      // Commands before it are still to come and are concerned too (RFC 7143 §4.2.3.2).
      const kept = keep(request);
      this.#plugged.push({ cmdSn: request.cmdSn, act: () => this.#manage(kept) });
      return;
    }
    this.#manage(request);
  }

  #manage(request: Pdu<'task-management-request'>): void {
    const { itt } = request;
    const respond = (response: number) => this.#send({ opcode: 'task-management-response', itt, response });
    const { target, nexus } = this.#options;
    if (target === undefined) return;
    const done =
      request.function === TaskManagementCode['abort-task']
        ? this.#abortTask(request, target.tasks)
        : manageTasks(request, nexus, target);
    done.then(respond, () => respond(TaskManagementResponseCode.rejected));
  }

  /** ABORT TASK (RFC 7143 §11.5.1 and the table of §11.6.1). */
  async #abortTask(request: Pdu<'task-management-request'>, tasks: TaskSets): Promise<number> {
    const task = this.#tasks.get(request.referencedTaskTag);
    if (task !== undefined && task.lun === request.lun) {
      await tasks.abort(task, this.#options.nexus);
      return TaskManagementResponseCode.complete;
    }
    const { refCmdSn } = request;
    const isStillToCome = serialLessOrEqual(this.#window.expCmdSn, refCmdSn) && serialLess(refCmdSn, request.cmdSn);
    if (!isStillToCome) return TaskManagementResponseCode['no-such-task'];
    // The command was lost on its way, or is held: its number counts as received and nothing is executed for it.
    const isHeld = this.#held.has(refCmdSn);
    if (isHeld) this.#datamover.deallocateTask(request.referencedTaskTag);
    if (isHeld || this.#window.arrive(refCmdSn, false) === 'hold') this.#held.set(refCmdSn, () => {});
    else this.#doHeld();
    return TaskManagementResponseCode.complete;
  }

  // ---- text and logout ----

  #textRequest(request: Pdu<'text-request'>): void {
    const reply = this.#text.handle(request);
    if (reply.type === 'reject') {
      this.#reject(request, reply.reason);
      return;
    }
    this.#send({
      opcode: 'text-response',
      itt: request.itt,
      lun: request.lun,
      final: reply.final,
      continue: reply.continue,
      ttt: reply.ttt,
      data: reply.data,
    });
  }

  #logout(request: Pdu<'logout-request'>): void {
    const { itt } = request;
    if (request.reason === LogoutReason.removeForRecovery) {
      this.#send({ opcode: 'logout-response', itt, response: LogoutResponse.recoveryNotSupported });
      return;
    }
    if (request.reason !== LogoutReason.closeSession && request.reason !== LogoutReason.closeConnection) {
      this.#reject(request, RejectReason['invalid-pdu-field']);
      return;
    }
    if (request.reason === LogoutReason.closeConnection && request.cid !== this.#options.cid) {
      this.#send({ opcode: 'logout-response', itt, response: LogoutResponse.cidNotFound });
      return;
    }
    // Either ends the session: it has one connection. The response says that no task is left (RFC 7143 §11.14).
    this.#state = { name: 'IN_LOGOUT' };
    const finish = () => {
      if (this.#state.name !== 'IN_LOGOUT') return;
      this.#send({ opcode: 'logout-response', itt, response: LogoutResponse.closed });
      this.#options.disconnect('orderly', 'logged out');
    };
    this.#endTasks().then(finish, finish);
  }

  // ---- sending ----

  /** Numbers a PDU and sends it. StatSN counts all but a NOP-In of our own (RFC 7143 §11.19). */
  #send(fields: PduFields<TargetControlPdu['opcode']>): void {
    if (this.#state.name === 'FREE') return;
    const numbered = pdu({ ...fields, ...this.numbering } as PduFields<TargetControlPdu['opcode']>);
    if (numbered.opcode !== 'nop-in' || numbered.itt !== RESERVED_TAG) this.#statSn = serialAdd(this.#statSn, 1);
    this.#datamover.sendControl(numbered);
  }

  /** Reject, with the header of what is rejected (RFC 7143 §11.17). */
  #reject(rejected: OrderedPdu, reason: number): void {
    this.#send({ opcode: 'reject', itt: RESERVED_TAG, reason, data: encodeBhs(rejected) });
  }

  /** Rejects a command that will not be executed. */
  #refuse(command: OrderedPdu, reason: number): void {
    this.#reject(command, reason);
    this.#forgetData(command);
  }

  /** Lets the data mover drop the data of a command that will not be executed. */
  #forgetData(received: OrderedPdu): void {
    if (received.opcode === 'scsi-command' && !this.#tasks.has(received.itt)) this.#datamover.deallocateTask(received.itt);
  }

  #endTasks(): Promise<void> {
    const { target, nexus } = this.#options;
    return target === undefined ? Promise.resolve() : target.tasks.abortScope({ nexus }, nexus);
  }

  #disconnect(mode: 'orderly' | 'abrupt', reason: string): void {
    this.#state = { name: 'FREE' };
    this.#options.disconnect(mode, reason);
  }

  #takeTtt(): number {
    const ttt = this.#nextTtt;
    this.#nextTtt = serialAdd(ttt, 1) === RESERVED_TAG ? 1 : serialAdd(ttt, 1);
    return ttt;
  }
}

/** Reasons of a Logout Request (RFC 7143 §11.14.1). */
const LogoutReason = { closeSession: 0, closeConnection: 1, removeForRecovery: 2 } as const;
/** Responses to it (RFC 7143 §11.15.1). */
const LogoutResponse = { closed: 0, cidNotFound: 1, recoveryNotSupported: 2 } as const;

/** `received` with segments of its own: what came is borrowed only for the call. */
function keep<P extends OrderedPdu>(received: P): P {
  const kept = { ...received, data: received.data.slice(), ahs: received.ahs.slice() };
  return received.opcode === 'scsi-command' ? { ...kept, cdb: received.cdb.slice() } : kept;
}
