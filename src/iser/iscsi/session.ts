/**
 * The initiator's full-feature phase of one session with one connection (RFC 7143 §8.1): its states, what each PDU
 * of the target means to them, keepalive, logout, and what is overdue. Pure: it talks to an `InitiatorDatamover`,
 * is told the time, and is asked when it wants to be woken. It knows no transport and no SCSI; how a lost
 * session is replaced is `initiator.ts`'s affair.
 *
 * Its parts are the numbers (session-numbers.ts), the tasks and how they are ended early (initiator-tasks.ts,
 * initiator-task-management.ts), text exchanges (initiator-text.ts), and the books of what has not been answered
 * (exchange-table.ts), which they share. States are those of the RFC's session diagram as far as one connection has
 * them.
 */

import { IserfsError, NexusLostError, ProtocolError } from '../../errors.ts';
import type { Lun, StartedCommand, TaskManagementFunction } from '../../scsi/port.ts';
import type { InitiatorDatamover } from '../datamover/datamover.ts';
import { asynchronousRequest } from './asynchronous-message.ts';
import { rejectText } from './code-text.ts';
import { type Exchange, ExchangeTable, type ScsiTask } from './exchange-table.ts';
import { InitiatorTaskManagement } from './initiator-task-management.ts';
import { commandTimeout, InitiatorTasks } from './initiator-tasks.ts';
import { InitiatorText } from './initiator-text.ts';
import { Keepalive } from './keepalive.ts';
import { BHS_LENGTH, decodePdu, describePdu, NO_LUN, type Pdu, pdu, RESERVED_TAG, type TargetControlPdu } from './pdu.ts';
import { SessionNumbers } from './session-numbers.ts';
import type { SessionOptions } from './session-options.ts';
import type { TextPair } from './text.ts';

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

export class InitiatorSession {
  readonly #options: SessionOptions;
  readonly #datamover: InitiatorDatamover;
  readonly #numbers: SessionNumbers;
  readonly #exchanges = new ExchangeTable();
  readonly #tasks: InitiatorTasks;
  readonly #management: InitiatorTaskManagement;
  readonly #keepalive: Keepalive;
  #state: SessionState = { name: 'LOGGED_IN' };

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#datamover = options.datamover;
    this.#numbers = new SessionNumbers(options.login);
    this.#tasks = new InitiatorTasks({
      datamover: this.#datamover,
      exchanges: this.#exchanges,
      numbers: this.#numbers,
      maxCommands: options.maxCommands,
      mayIssue: () => this.#state.name === 'LOGGED_IN',
      locate: options.locate,
    });
    this.#management = new InitiatorTaskManagement({
      tasks: this.#tasks,
      numbers: this.#numbers,
      takesRequests: () => this.#takesRequests(),
      request: (request, done, fail) => {
        if (this.#takesRequests()) this.#ask(request, { kind: 'management', deadline: this.#answerDue(), done, fail });
        else fail(hasEnded());
      },
      dropSession: (reason) => this.drop(reason),
    });
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
    return this.#tasks.inFlight;
  }

  get commandsQueued(): number {
    return this.#tasks.queued;
  }

  /** Commands that the target has room for, those in flight included. */
  get commandWindow(): number {
    return this.#numbers.commandWindow;
  }

  /** Whether new requests may be sent: none after a Logout Request (RFC 7143 §11.14). */
  #takesRequests(): boolean {
    return this.#state.name === 'LOGGED_IN' || this.#state.name === 'LOGOUT_REQUESTED';
  }

  /** For PDUs that the data mover makes itself. */
  get expStatSn(): number {
    return this.#numbers.expStatSn;
  }

  // ---- what the initiator asks for ----

  /** Sends a SCSI command as soon as the window allows. Undefined, with nothing done or told, where the session has ended. */
  submit(command: StartedCommand, timeoutMs: number): ScsiTask | undefined {
    if (!this.#takesRequests()) return undefined;
    const deadline = this.#options.now() + timeoutMs;
    if (this.#exchanges.noteDeadline(deadline)) this.#options.events.deadlineMoved();
    return this.#tasks.submit(command, timeoutMs, deadline);
  }

  /** Ends a task early, where it goes on: its command fails with `reason` once the target has let go of it. */
  abort(task: ScsiTask, reason: IserfsError): void {
    this.#management.abort(task, reason);
  }

  /** Sends a task management request for a logical unit (RFC 7143 §11.5). Resolves when its function is complete. */
  manage(function_: Exclude<TaskManagementFunction, 'abort-task'>, lun: Lun): Promise<void> {
    return this.#management.manage(function_, lun);
  }

  /** One text exchange (RFC 7143 §11.10), continuations included: `key=value` pairs in, the answer's bytes out. */
  exchangeText(pairs: readonly TextPair[]): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      if (this.#state.name !== 'LOGGED_IN') {
        reject(hasEnded());
        return;
      }
      const text = new InitiatorText();
      this.#ask(text.start(pairs), { kind: 'text', deadline: this.#answerDue(), text, done: resolve, fail: reject });
    });
  }

  /** Ends the session in order: no new command, LOGOUT, connection closed. `ended` follows, with `reason`. */
  logout(reason: Error): void {
    if (!this.#takesRequests()) return;
    this.#state = { name: 'IN_LOGOUT', reason };
    this.#tasks.failQueued(reason);
    // Reason code 0: close the session (RFC 7143 §11.14.1).
    const request = pdu({ opcode: 'logout-request', reason: 0, cid: this.#options.cid });
    this.#ask(request, { kind: 'logout', deadline: this.#answerDue() });
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
      this.#tasks.failQueued(reason);
      for (const [itt, exchange] of this.#exchanges.entries()) {
        this.#exchanges.delete(itt);
        if (exchange.kind === 'nop' || exchange.kind === 'logout') continue;
        const lost = new NexusLostError(reason.message, { mayHaveExecuted: true, cause: reason });
        if (exchange.kind === 'scsi') this.#tasks.fail(exchange, lost);
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
    this.#numbers.windowNotify(expCmdSn, maxCmdSn);
    this.#tasks.sendQueued();
  }

  /** A control PDU from the target. Whatever the peer does wrong drops the session. */
  handlePdu(received: TargetControlPdu, transferred: number): void {
    if (this.#state.name === 'CLEANUP_WAIT' || this.#state.name === 'FREE') return;
    this.#keepalive.heard(this.#options.now());
    try {
      this.#numbers.received(received);
      this.#dispatch(received, transferred);
    } catch (error) {
      this.drop(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    this.#tasks.sendQueued();
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

  // ---- requests besides commands ----

  /**
   * Sends a request under a tag of its own, has the deadline of its answer looked after, and enters what the answer is
   * for. It is immediate, so that a closed command window does not hold it up.
   */
  #ask(request: Pdu<'task-management-request' | 'text-request' | 'logout-request'>, exchange: Exchange): void {
    const itt = this.#exchanges.register(exchange);
    this.#options.events.deadlineMoved();
    this.#datamover.sendControl({ ...request, ...this.#numbers.immediate(), itt });
  }

  /** When the answer to one that is sent now is overdue. */
  #answerDue(): number {
    return this.#options.now() + this.#options.managementTimeoutMs;
  }

  // ---- answers ----

  #dispatch(received: TargetControlPdu, transferred: number): void {
    switch (received.opcode) {
      case 'scsi-response':
        this.#tasks.answered(this.#take(received, 'scsi'), received, transferred);
        return;
      case 'nop-in':
        this.#onNopIn(received);
        return;
      case 'task-management-response':
        this.#take(received, 'management').done(received.response);
        return;
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

  #onNopIn(received: Pdu<'nop-in'>): void {
    if (received.itt !== RESERVED_TAG) {
      this.#take(received, 'nop');
      this.#keepalive.answered();
      return;
    }
    if (received.ttt === RESERVED_TAG || !this.#takesRequests()) return; // numbering only, or too late
    this.#datamover.sendControl(
      pdu({ ...this.#numbers.immediate(), opcode: 'nop-out', lun: received.lun, itt: RESERVED_TAG, ttt: received.ttt }),
    );
  }

  #onTextResponse(received: Pdu<'text-response'>): void {
    const exchange = this.#answered(received, 'text');
    const step = exchange.text.handle(received);
    if (step.type === 'send') {
      this.#datamover.sendControl({ ...step.pdu, ...this.#numbers.immediate(), itt: received.itt });
      return;
    }
    this.#exchanges.delete(received.itt);
    exchange.done(step.text);
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
    if (this.#tasks.inFlight > 0 && !now) return;
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
    this.#datamover.sendControl(pdu({ ...this.#numbers.immediate(), opcode: 'nop-out', lun: NO_LUN, itt, ttt: RESERVED_TAG }));
  }

  #expire(now: number): void {
    const due = this.#exchanges.due(now);
    this.#tasks.expireQueued(now);
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

function hasEnded(): NexusLostError {
  return new NexusLostError('the session has ended', { mayHaveExecuted: false });
}
