/**
 * The initiator's full-feature phase of one session with one connection (RFC 7143 §8.1): numbering,
 * the command window, tasks and their abort, keepalive, asynchronous messages, logout. Pure: it talks
 * to an `InitiatorDatamover`, is told the time, and is asked when it wants to be woken. It knows no
 * transport and no SCSI; how a lost session is replaced is `initiator.ts`'s affair.
 *
 * States are those of the RFC's session diagram as far as one connection has them. I1: a command takes
 * the next CmdSN exactly once, inside the window. I2: a task's tag and buffers are its own until its one
 * terminal event, and that comes only when nothing below references the buffers any more.
 */

import { IserfsError, NexusLostError, ProtocolError } from '../../errors.ts';
import type { Lun, StartedCommand, TaskManagementFunction } from '../../scsi/port.ts';
import type { InitiatorDatamover } from '../datamover/datamover.ts';
import { asynchronousRequest } from './asynchronous-message.ts';
import { managementText, rejectText } from './code-text.ts';
import { CommandWindow } from './command-window.ts';
import { type Exchange, ExchangeTable, type ScsiTask } from './exchange-table.ts';
import { Keepalive } from './keepalive.ts';
import {
  BHS_LENGTH,
  decodePdu,
  describePdu,
  NO_BYTES,
  NO_LUN,
  type Pdu,
  pdu,
  RESERVED_TAG,
  type TargetControlPdu,
  TaskManagementCode,
  TaskManagementResponseCode,
} from './pdu.ts';
import { isStatSnTolerated } from './peer-quirks.ts';
import { scsiCommand, scsiResult } from './scsi-exchange.ts';
import { serialAdd, serialLess } from './serial.ts';
import type { SessionOptions } from './session-options.ts';
import { encodeText, TextAssembler } from './text.ts';

export type { SessionEvents, SessionOptions } from './session-options.ts';

type SessionState =
  | { readonly name: 'LOGGED_IN' }
  /** The target asked for a logout; it is sent when the tasks in flight are done, or at `deadline`. */
  | { readonly name: 'LOGOUT_REQUESTED'; readonly deadline: number }
  | { readonly name: 'IN_LOGOUT'; readonly reason: Error }
  /** The connection is gone, or closed in order until `deadline`, and the data mover is letting go of the buffers. */
  | { readonly name: 'CLEANUP_WAIT'; readonly deadline: number }
  | { readonly name: 'FREE' };

/** What is left to be sent or taken when a logout is over is dropped after this. */
const ORDERLY_END_MS = 1000;
/** Longest answer to a text request: SendTargets on a portal with many thousands of targets. */
const MAX_TEXT = 16 * 1024 * 1024;

export class InitiatorSession {
  readonly #options: SessionOptions;
  readonly #datamover: InitiatorDatamover;
  readonly #window: CommandWindow;
  #state: SessionState = { name: 'LOGGED_IN' };
  #expStatSn: number;
  readonly #exchanges = new ExchangeTable();
  /** Commands that wait for the window, oldest first. */
  readonly #queue: ScsiTask[] = [];
  #scsiInFlight = 0;
  readonly #keepalive: Keepalive;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#datamover = options.datamover;
    this.#window = new CommandWindow(options.login.cmdSn);
    this.#window.update(options.login.expCmdSn, options.login.maxCmdSn);
    this.#expStatSn = options.login.expStatSn;
    this.#keepalive = new Keepalive({
      intervalMs: options.keepaliveIntervalMs,
      timeoutMs: options.keepaliveTimeoutMs,
      now: options.now(),
    });
  }

  get state(): SessionState['name'] {
    return this.#state.name;
  }

  get commandsInFlight(): number {
    return this.#scsiInFlight;
  }

  get commandsQueued(): number {
    return this.#queue.length;
  }

  /** Commands that the target has room for, those in flight included. */
  get commandWindow(): number {
    return serialAdd(this.#window.maxCmdSn, 1 - this.#window.expCmdSn);
  }

  /** Whether new requests may be sent: none after a Logout Request (RFC 7143 §11.14). */
  #takesRequests(): boolean {
    return this.#state.name === 'LOGGED_IN' || this.#state.name === 'LOGOUT_REQUESTED';
  }

  /** For PDUs that the data mover makes itself. */
  get expStatSn(): number {
    return this.#expStatSn;
  }

  // ---- what the initiator asks for ----

  /** Sends a SCSI command as soon as the window allows. Undefined, with nothing done or told, where the session has ended. */
  submit(command: StartedCommand, timeoutMs: number): ScsiTask | undefined {
    if (!this.#takesRequests()) return undefined;
    const deadline = this.#options.now() + timeoutMs;
    const task: ScsiTask = {
      kind: 'scsi',
      command,
      timeoutMs,
      deadline,
      itt: undefined,
      cmdSn: 0,
      aborting: undefined,
      rejected: undefined,
    };
    if (this.#exchanges.noteDeadline(deadline)) this.#options.events.deadlineMoved();
    if (this.#queue.length === 0 && this.#maySend()) this.#send(task);
    else {
      this.#queue.push(task);
      this.#sendQueued();
    }
    return task;
  }

  /** Sends a task management request for a logical unit (RFC 7143 §11.5). Resolves when its function is complete. */
  manage(function_: Exclude<TaskManagementFunction, 'abort-task'>, lun: Lun): Promise<void> {
    return new Promise((resolve, reject) => {
      const refCmdSn = this.#window.cmdSn;
      this.#sendManagement(
        pdu({ opcode: 'task-management-request', function: TaskManagementCode[function_], lun, referencedTaskTag: RESERVED_TAG }),
        (response) => {
          if (response !== TaskManagementResponseCode.complete) {
            const unsupported = response === TaskManagementResponseCode.unsupported;
            reject(new IserfsError(unsupported ? 'unsupported' : 'illegal-request', `${function_}: ${managementText(response)}`));
            return;
          }
          // Nothing will be heard of the tasks that the function ended: those sent before it (RFC 7143 §4.2.3.2).
          const isConcerned = ({ command, itt, cmdSn }: ScsiTask) =>
            (function_ === 'target-warm-reset' || command.lun === lun) && itt !== undefined && serialLess(cmdSn, refCmdSn);
          this.#dropTasks(isConcerned, `ended by ${function_}`);
          resolve();
        },
        reject,
      );
    });
  }

  /** One text exchange (RFC 7143 §11.10), continuations included: `key=value` pairs in, the answer's bytes out. */
  exchangeText(pairs: readonly (readonly [string, string])[]): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      if (this.#state.name !== 'LOGGED_IN') {
        reject(new NexusLostError('the session has ended', { mayHaveExecuted: false }));
        return;
      }
      const deadline = this.#options.now() + this.#options.managementTimeoutMs;
      const itt = this.#enter({
        kind: 'text',
        deadline,
        assembler: new TextAssembler(MAX_TEXT),
        done: resolve,
        fail: reject,
      });
      this.#sendText(itt, RESERVED_TAG, encodeText(pairs));
    });
  }

  /** Ends the session in order: no new command, LOGOUT, connection closed. `ended` follows, with `reason`. */
  logout(reason: Error): void {
    if (!this.#takesRequests()) return;
    this.#state = { name: 'IN_LOGOUT', reason };
    this.#failQueue(reason);
    const deadline = this.#options.now() + this.#options.managementTimeoutMs;
    const itt = this.#enter({ kind: 'logout', deadline });
    // Reason code 0: close the session (RFC 7143 §11.14.1).
    this.#datamover.sendControl(pdu({ ...this.#immediate(), opcode: 'logout-request', reason: 0, itt, cid: this.#options.cid }));
  }

  /**
   * Drops the session: every task fails with `NexusLostError` once the data mover has let go of its buffers.
   * `waitMs` is by default what was negotiated for a connection that is lost (RFC 7143 §13.15). Cuts an end in order short.
   */
  drop(reason: Error, waitMs: number = this.#options.login.keys.DefaultTime2Wait * 1000): void {
    if (this.#state.name === 'CLEANUP_WAIT') this.#cutShort();
    this.#terminate('abrupt', reason, waitMs);
  }

  #terminate(mode: 'orderly' | 'abrupt', reason: Error, waitMs: number): void {
    if (this.#state.name === 'CLEANUP_WAIT' || this.#state.name === 'FREE') return;
    const deadline = mode === 'orderly' ? this.#options.now() + ORDERLY_END_MS : Number.POSITIVE_INFINITY;
    this.#state = { name: 'CLEANUP_WAIT', deadline };
    this.#options.events.deadlineMoved();
    const finish = () => {
      this.#state = { name: 'FREE' };
      this.#failQueue(reason);
      for (const [itt, exchange] of this.#exchanges.entries()) {
        this.#exchanges.delete(itt);
        if (exchange.kind === 'nop' || exchange.kind === 'logout') continue;
        const lost = new NexusLostError(reason.message, { mayHaveExecuted: true, cause: reason });
        if (exchange.kind === 'scsi') this.#fail(exchange, lost);
        else exchange.fail(lost);
      }
      this.#options.events.ended(reason, waitMs);
    };
    this.#datamover.terminate(mode).then(finish, finish);
  }

  #cutShort(): void {
    this.#datamover.terminate('abrupt').catch(() => {}); // what comes of it is awaited already
  }

  // ---- what the data mover reports ----

  connectionTerminated(error?: Error): void {
    if (this.#state.name === 'IN_LOGOUT') this.drop(this.#state.reason);
    else this.drop(error ?? new IserfsError('connection-lost', 'the target closed the connection'));
  }

  windowNotify(expCmdSn: number, maxCmdSn: number): void {
    this.#keepalive.heard(this.#options.now());
    this.#window.update(expCmdSn, maxCmdSn);
    if (this.#queue.length > 0) this.#sendQueued();
  }

  /** A control PDU from the target. Whatever the peer does wrong drops the session. */
  handlePdu(received: TargetControlPdu, transferred: number): void {
    if (this.#state.name === 'CLEANUP_WAIT' || this.#state.name === 'FREE') return;
    this.#keepalive.heard(this.#options.now());
    try {
      this.#checkStatSn(received);
      this.#window.update(received.expCmdSn, received.maxCmdSn);
      this.#dispatch(received, transferred);
    } catch (error) {
      this.drop(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    if (this.#queue.length > 0) this.#sendQueued();
    this.#logoutWhenDrained();
  }

  // ---- time ----

  /** When `handleTimeout` wants to be called next. */
  pollTimeout(): number | undefined {
    switch (this.#state.name) {
      case 'FREE':
        return undefined;
      case 'CLEANUP_WAIT':
        return Number.isFinite(this.#state.deadline) ? this.#state.deadline : undefined;
      case 'LOGOUT_REQUESTED':
        return Math.min(this.#state.deadline, this.#exchanges.earliestDeadline, this.#keepaliveDue());
      default:
        return Math.min(this.#exchanges.earliestDeadline, this.#keepaliveDue());
    }
  }

  handleTimeout(now: number): void {
    if (this.#state.name === 'CLEANUP_WAIT' && now >= this.#state.deadline) {
      this.#state = { name: 'CLEANUP_WAIT', deadline: Number.POSITIVE_INFINITY };
      this.#cutShort();
    }
    if (this.#state.name === 'FREE' || this.#state.name === 'CLEANUP_WAIT') return;
    if (now >= this.#exchanges.earliestDeadline) this.#expire(now);
    if (this.#state.name === 'LOGOUT_REQUESTED' && now >= this.#state.deadline) this.#logoutWhenDrained(true);
    if (this.#state.name === 'LOGGED_IN' && now >= this.#keepaliveDue()) this.#sendKeepalive(now);
  }

  // ---- commands ----

  #maySend(): boolean {
    return this.#state.name === 'LOGGED_IN' && this.#window.isOpen && this.#scsiInFlight < this.#options.maxCommands;
  }

  #sendQueued(): void {
    while (this.#queue.length > 0 && this.#maySend()) this.#send(this.#queue.shift() as ScsiTask);
  }

  #send(task: ScsiTask): void {
    const { command } = task;
    const cmdSn = this.#window.take();
    const itt = this.#exchanges.register(task);
    task.itt = itt;
    task.cmdSn = cmdSn;
    this.#scsiInFlight++;
    this.#datamover.sendControl(scsiCommand(command, itt, cmdSn, this.#expStatSn), command);
  }

  /** Ends a task early, where it goes on: its command fails with `reason` once the target has let go of it. */
  abort(task: ScsiTask, reason: IserfsError): void {
    const { itt, cmdSn } = task;
    if (itt === undefined) {
      const index = this.#queue.indexOf(task);
      if (index < 0) return;
      this.#queue.splice(index, 1);
      this.#fail(task, reason);
      return;
    }
    if (this.#exchanges.get(itt) !== task || task.aborting !== undefined) return;
    if (!this.#takesRequests()) return; // it ends with the session
    task.aborting = reason;
    this.#sendManagement(
      pdu({
        opcode: 'task-management-request',
        function: TaskManagementCode['abort-task'],
        lun: task.command.lun,
        referencedTaskTag: itt,
        refCmdSn: cmdSn,
      }),
      (response) => {
        if (this.#exchanges.get(itt) !== task) return; // its own response came first
        const isUnknown = response === TaskManagementResponseCode['no-such-task'];
        if (response === TaskManagementResponseCode.complete || (isUnknown && task.rejected !== undefined)) {
          this.#exchanges.delete(itt);
          this.#datamover.deallocateTask(itt);
          this.#fail(task, task.rejected ?? reason);
          return;
        }
        // The target does not own up to the task, nor has it answered or rejected it: its fate is unknown.
        this.drop(new IserfsError('command-timeout', `${reason.message}; ABORT TASK: ${managementText(response)}`));
      },
      () => {},
    );
  }

  /** The end of a task that is off the books. */
  #fail(task: ScsiTask, error: Error): void {
    if (task.itt !== undefined) this.#scsiInFlight--;
    task.command.failed(this.#options.locate(error));
  }

  #dropTasks(concerned: (task: ScsiTask) => boolean, why: string): void {
    for (const [itt, exchange] of this.#exchanges.entries()) {
      if (exchange.kind !== 'scsi' || !concerned(exchange)) continue;
      this.#exchanges.delete(itt);
      this.#datamover.deallocateTask(itt);
      this.#fail(exchange, exchange.aborting ?? new IserfsError('aborted', `the command was ${why}`));
    }
  }

  #failQueue(reason: Error): void {
    for (const task of this.#queue.splice(0)) {
      this.#fail(task, new NexusLostError(reason.message, { mayHaveExecuted: false, cause: reason }));
    }
  }

  #sendManagement(request: Pdu<'task-management-request'>, done: (response: number) => void, fail: (error: Error) => void): void {
    if (!this.#takesRequests()) {
      fail(new NexusLostError('the session has ended', { mayHaveExecuted: false }));
      return;
    }
    const deadline = this.#options.now() + this.#options.managementTimeoutMs;
    const itt = this.#enter({ kind: 'management', deadline, done, fail });
    this.#datamover.sendControl({ ...request, ...this.#immediate(), itt });
  }

  /** Enters an exchange that is no command, and has its deadline looked after; returns its tag. */
  #enter(exchange: Exchange): number {
    const itt = this.#exchanges.register(exchange);
    this.#options.events.deadlineMoved();
    return itt;
  }

  #sendText(itt: number, ttt: number, data: Uint8Array): void {
    // Immediate, so that a closed command window does not hold it up.
    this.#datamover.sendControl(pdu({ ...this.#immediate(), opcode: 'text-request', final: true, itt, ttt, data }));
  }

  /** Fields of a PDU that takes no CmdSN of its own (RFC 7143 §4.2.2.1). */
  #immediate(): { immediate: true; cmdSn: number; expStatSn: number } {
    return { immediate: true, cmdSn: this.#window.cmdSn, expStatSn: this.#expStatSn };
  }

  // ---- answers ----

  /**
   * StatSN counts every PDU that ends something (RFC 7143 §4.2.2.2). At ErrorRecoveryLevel 0 nothing is
   * sent again, so a gap means that an answer is lost for good, but where `isStatSnTolerated`: there
   * ExpStatSN follows the highest that came.
   */
  #checkStatSn(received: TargetControlPdu): void {
    const consumes = received.opcode !== 'nop-in' || received.itt !== RESERVED_TAG;
    if (!consumes) return;
    const { statSn } = received;
    const overRdma = this.#options.login.keys.RDMAExtensions;
    if (statSn !== this.#expStatSn && !isStatSnTolerated(statSn, this.#expStatSn, { overRdma })) {
      throw new ProtocolError(`${received.opcode} has StatSN ${statSn} where ${this.#expStatSn} is due`, 'RFC 7143 §4.2.2.2');
    }
    if (!serialLess(statSn, this.#expStatSn)) this.#expStatSn = serialAdd(statSn, 1);
  }

  #dispatch(received: TargetControlPdu, transferred: number): void {
    switch (received.opcode) {
      case 'scsi-response':
        this.#onScsiResponse(received, transferred);
        return;
      case 'nop-in':
        this.#onNopIn(received);
        return;
      case 'task-management-response': {
        const exchange = this.#take(received, 'management');
        exchange.done(received.response);
        return;
      }
      case 'text-response':
        this.#onTextResponse(received);
        return;
      case 'logout-response':
        this.#take(received, 'logout');
        // Time2Wait is for a logout that did not succeed; at ErrorRecoveryLevel 0 it says nothing else (RFC 7143 §11.15.3).
        this.#terminate('orderly', this.#logoutReason, received.response === 0 ? 0 : received.time2Wait * 1000);
        return;
      case 'asynchronous-message':
        this.#onAsynchronousMessage(received);
        return;
      case 'reject':
        this.#onReject(received);
        return;
      case 'login-response':
        throw new ProtocolError('Login Response in the full-feature phase', 'RFC 7143 §11.13');
      default:
        received satisfies never;
    }
  }

  /**
   * Takes what `received` answers off the books. A SCSI Response of a task that the target has confirmed to be ended
   * answers nothing either: none is due, the command may be under way again by now, and a target that went on with the
   * old one all the same is kept off by what follows the loss of a session.
   */
  #take<K extends Exchange['kind']>(received: TargetControlPdu, kind: K): Extract<Exchange, { kind: K }> {
    const exchange = this.#answered(received, kind);
    this.#exchanges.delete(received.itt);
    return exchange;
  }

  #answered<K extends Exchange['kind']>(received: TargetControlPdu, kind: K): Extract<Exchange, { kind: K }> {
    const exchange = this.#exchanges.find(received.itt, kind);
    if (exchange === undefined) throw new ProtocolError(`${describePdu(received)} answers nothing that was asked`);
    return exchange;
  }

  #onScsiResponse(received: Pdu<'scsi-response'>, transferred: number): void {
    const task = this.#take(received, 'scsi');
    const { command } = task;
    if (received.response !== 0) {
      const why = `the target could not carry the command out (response ${received.response})`;
      this.#fail(task, new IserfsError('hardware-error', why));
      return;
    }
    this.#scsiInFlight--;
    command.ended(scsiResult(received, command, transferred));
  }

  #onNopIn(received: Pdu<'nop-in'>): void {
    if (received.itt !== RESERVED_TAG) {
      this.#take(received, 'nop');
      this.#keepalive.answered();
      return;
    }
    if (received.ttt === RESERVED_TAG || !this.#takesRequests()) return; // numbering only, or too late
    this.#datamover.sendControl(
      pdu({ ...this.#immediate(), opcode: 'nop-out', lun: received.lun, itt: RESERVED_TAG, ttt: received.ttt }),
    );
  }

  #onTextResponse(received: Pdu<'text-response'>): void {
    const exchange = this.#answered(received, 'text');
    const text = exchange.assembler.add(received.data, received.continue || !received.final);
    if (text === undefined) {
      if (received.ttt === RESERVED_TAG) throw new ProtocolError('a text answer to be continued has no tag', 'RFC 7143 §11.11.4');
      this.#sendText(received.itt, received.ttt, NO_BYTES);
      return;
    }
    this.#exchanges.delete(received.itt);
    exchange.done(text.slice()); // `received.data` is lent for the call
  }

  #onAsynchronousMessage(received: Pdu<'asynchronous-message'>): void {
    const request = asynchronousRequest(received);
    switch (request?.type) {
      case 'sense':
        this.#options.events.asynchronousSense(request.lun, request.sense);
        return;
      case 'log-out':
        if (this.#state.name !== 'LOGGED_IN') return;
        // Half of the time is for the commands in flight.
        this.#state = { name: 'LOGOUT_REQUESTED', deadline: this.#options.now() + request.withinMs / 2 };
        this.#options.events.deadlineMoved();
        return;
      case 'dropped': {
        const reason = new IserfsError('connection-lost', `the target announced that it drops the ${request.what}`);
        this.drop(reason, request.waitMs);
        return;
      }
      case 'negotiate':
        this.#renegotiate();
        return;
      case undefined:
    }
  }

  /** Answers the target's wish to negotiate again by declaring what holds already; the target may then offer. */
  #renegotiate(): void {
    const declared = this.#datamover.keyOffers('normal')['MaxRecvDataSegmentLength'];
    const pairs: [string, string][] = declared === undefined ? [] : [['MaxRecvDataSegmentLength', declared]];
    this.exchangeText(pairs).catch((error: Error) => this.drop(error));
  }

  #onReject(received: Pdu<'reject'>): void {
    const why = rejectText(received.reason);
    if (received.data.length < BHS_LENGTH) throw new ProtocolError(`the target rejected a PDU without saying which: ${why}`);
    const rejected = decodePdu(received.data.slice(0, BHS_LENGTH));
    const error = new IserfsError('illegal-request', `the target rejected ${describePdu(rejected)}: ${why}`);
    const exchange = this.#exchanges.get(rejected.itt);
    if (rejected.opcode === 'nop-out') {
      // It is alive, which is all that was asked.
      if (exchange?.kind !== 'nop') return;
      this.#exchanges.delete(rejected.itt);
      this.#keepalive.answered();
      return;
    }
    if (rejected.opcode === 'scsi-command' && exchange?.kind === 'scsi') {
      // The target counts its CmdSN as not received, and waits for it: ABORT TASK fills the gap (RFC 7143 §7.3).
      exchange.rejected = error;
      this.abort(exchange, error);
      return;
    }
    // A SCSI Response will say what becomes of a task whose data was rejected (RFC 7143 §7.3).
    if (rejected.opcode === 'data-out' && exchange?.kind === 'scsi') return;
    if (exchange?.kind === 'management' || exchange?.kind === 'text') {
      this.#exchanges.delete(rejected.itt);
      exchange.fail(error);
      // An abort that cannot be made leaves its command's fate unknown.
      if (exchange.kind === 'management') this.drop(error);
      return;
    }
    throw error;
  }

  // ---- logout ----

  #logoutWhenDrained(now = false): void {
    if (this.#state.name !== 'LOGOUT_REQUESTED') return;
    if (this.#scsiInFlight > 0 && !now) return;
    this.logout(new IserfsError('connection-lost', 'the target asked for a logout'));
  }

  get #logoutReason(): Error {
    return this.#state.name === 'IN_LOGOUT' ? this.#state.reason : new IserfsError('connection-lost', 'logged out');
  }

  // ---- time ----

  #keepaliveDue(): number {
    return this.#state.name === 'LOGGED_IN' ? this.#keepalive.due : Number.POSITIVE_INFINITY;
  }

  #sendKeepalive(now: number): void {
    const itt = this.#exchanges.register({ kind: 'nop', deadline: this.#keepalive.sent(now) });
    this.#datamover.sendControl(pdu({ ...this.#immediate(), opcode: 'nop-out', lun: NO_LUN, itt, ttt: RESERVED_TAG }));
  }

  #expire(now: number): void {
    const due = this.#exchanges.due(now);
    for (const task of [...this.#queue]) {
      if (now >= task.deadline) this.abort(task, commandTimeout(task, 'the target did not take it'));
      else this.#exchanges.noteDeadline(task.deadline);
    }
    for (const exchange of due) {
      switch (exchange.kind) {
        case 'scsi':
          this.abort(exchange, commandTimeout(exchange, 'the target did not answer'));
          break;
        case 'nop': {
          const { aliveUntil, patienceMs } = this.#keepalive;
          if (now < aliveUntil) {
            // Other PDUs came meanwhile.
            exchange.deadline = aliveUntil;
            this.#exchanges.noteDeadline(aliveUntil);
            break;
          }
          this.drop(new IserfsError('connection-lost', `no answer from the target for ${patienceMs / 1000} s`));
          return;
        }
        case 'logout':
          this.drop(this.#logoutReason);
          return;
        default:
          this.drop(new IserfsError('command-timeout', 'the target did not answer a task management or text request'));
          return;
      }
    }
  }
}

function commandTimeout(task: ScsiTask, why: string): IserfsError {
  return new IserfsError('command-timeout', `command timed out after ${task.timeoutMs / 1000} s: ${why}`);
}
