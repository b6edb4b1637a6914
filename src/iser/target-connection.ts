/**
 * One connection of the embedded target from its first PDU to its last: the login phase, then a
 * `TargetSession` in full-feature phase. Owns the timers and the end: whatever ends the connection, `closed`
 * resolves only when the data mover holds no buffer and every task of the session has left its task set.
 * Which targets exist, who may log in and what happens to an older session is the host's affair.
 */

import type { Clock } from '../clock.ts';
import { describeError, ProtocolError } from '../errors.ts';
import type { TargetDatamover, TargetHandler, Traits } from './datamover/datamover.ts';
import {
  LoginStatus,
  type SessionKeys,
  TargetLogin,
  type TargetLoginDecision,
  type TargetLoginRequest,
  type TargetLoginResult,
} from './iscsi/login.ts';
import { type InitiatorControlPdu, type Pdu, pdu } from './iscsi/pdu.ts';
import { OWN_TARGET_ALIAS } from './iscsi/peer-quirks.ts';
import { TargetSession } from './iscsi/target-session.ts';
import type { SessionTarget } from './iscsi/target-task-management.ts';
import type { TextPairs } from './iscsi/target-text.ts';

/** Times of the embedded target, in milliseconds. */
export interface TargetTiming {
  /** From the connection to full-feature phase, the wait for the tasks of a reinstated session included. */
  readonly loginTimeoutMs: number;
  readonly keepaliveIntervalMs: number;
  readonly keepaliveTimeoutMs: number;
}

/** What the connection needs to know of the session it has logged in to. */
export interface SessionGrant {
  readonly target: SessionTarget | undefined;
  readonly nexus: number;
  answerText(pairs: TextPairs): TextPairs;
  /** Called once, when nothing of the session goes on any more. */
  ended(): void;
}

/** The target as its connections see it. */
export interface ConnectionHost {
  readonly clock: Clock;
  readonly timing: TargetTiming;
  /** Commands that a session may have outstanding. */
  readonly windowSize: number;
  readonly random: (length: number) => Uint8Array;
  log(line: string): void;
  /** Decides on a login from what its first request says. */
  decide(request: TargetLoginRequest, connection: TargetConnection): TargetLoginDecision;
  /**
   * Makes way for a login that has succeeded; calls `open` with the session's share of the target, once all
   * of an older session has ended. `open` returns whether the login still stands.
   */
  establish(result: TargetLoginResult, connection: TargetConnection, open: (grant: SessionGrant) => boolean): Promise<void>;
  /** The connection has ended. Called once. */
  closed(connection: TargetConnection): void;
}

type ConnectionState =
  | { readonly name: 'IN_LOGIN'; readonly login: TargetLogin }
  /** The login has succeeded; its last response waits for the end of an older session. */
  | { readonly name: 'ESTABLISHING' }
  | { readonly name: 'LOGGED_IN'; readonly session: TargetSession; readonly grant: SessionGrant }
  | { readonly name: 'CLOSED' };

/** What is still to be sent at an orderly end is dropped after this: an initiator may take nothing any more. */
const ORDERLY_END_MS = 5000;

/** Unsolicited data has to be kept for every command of the window: short first bursts bound it. */
const SESSION_KEYS: Partial<SessionKeys> = { FirstBurstLength: 65_536 };

export class TargetConnection implements TargetHandler {
  readonly #host: ConnectionHost;
  readonly #datamover: TargetDatamover;
  /** Resolves when nothing of the connection goes on any more. */
  readonly whenClosed: Promise<void>;
  #resolveWhenClosed: () => void = () => {};
  #state: ConnectionState;
  #cancelTimer: () => void;
  #closed: Promise<void> | undefined;

  constructor(host: ConnectionHost, datamover: TargetDatamover) {
    this.#host = host;
    this.#datamover = datamover;
    this.whenClosed = new Promise((resolve) => {
      this.#resolveWhenClosed = resolve;
    });
    const login = new TargetLogin({
      accept: (request) => host.decide(request, this),
      offers: (sessionType) => datamover.keyOffers(sessionType),
      sessionKeys: SESSION_KEYS,
      targetAlias: OWN_TARGET_ALIAS,
      windowSize: this.#windowSize,
      random: host.random,
    });
    this.#state = { name: 'IN_LOGIN', login };
    this.#cancelTimer = host.clock.schedule(host.timing.loginTimeoutMs, () =>
      this.#closeInBackground('abrupt', 'login took too long'),
    );
  }

  get isLoggedIn(): boolean {
    return this.#state.name === 'LOGGED_IN';
  }

  get session(): TargetSession | undefined {
    return this.#state.name === 'LOGGED_IN' ? this.#state.session : undefined;
  }

  get remoteAddress(): string {
    return this.#datamover.remoteAddress;
  }

  get localAddress(): string {
    return this.#datamover.localAddress;
  }

  get transport(): string {
    return this.#datamover.transport;
  }

  get traits(): Traits {
    return this.#datamover.traits;
  }

  /** Commands that a session over this connection may have outstanding. */
  get #windowSize(): number {
    return Math.min(this.#host.windowSize, this.#datamover.commandWindow ?? Number.POSITIVE_INFINITY);
  }

  /** Asks the initiator to log out within `seconds`. A connection that is not logged in is closed instead. */
  requestLogout(seconds: number): void {
    if (this.#state.name !== 'LOGGED_IN') {
      this.#closeInBackground('abrupt', 'the target shuts down');
      return;
    }
    this.#state.session.requestLogout(seconds);
    this.#armSessionTimer();
  }

  /** Ends the connection and its session; resolves when nothing of either goes on. Idempotent. */
  close(mode: 'orderly' | 'abrupt', reason: string): Promise<void> {
    this.#closed ??= this.#close(mode, reason);
    return this.#closed;
  }

  /** Cuts an orderly close short: what is still to be sent is dropped. */
  async abort(reason: string): Promise<void> {
    const closed = this.close('abrupt', reason);
    await this.#datamover.terminate('abrupt');
    await closed;
  }

  // ---- TargetHandler ----

  controlNotify(received: InitiatorControlPdu): void {
    try {
      switch (this.#state.name) {
        case 'IN_LOGIN':
          this.#handleLogin(this.#state.login, received);
          break;
        case 'ESTABLISHING':
          throw new ProtocolError(`${received.opcode} before the login has ended`, 'RFC 7143 §6.3');
        case 'LOGGED_IN':
          this.#state.session.handlePdu(received);
          break;
        case 'CLOSED':
          break;
      }
    } catch (error) {
      this.#closeInBackground('abrupt', describeError(error));
    }
  }

  currentNumbering(): { readonly statSn: number; readonly expCmdSn: number; readonly maxCmdSn: number } {
    return this.session?.numbering ?? { statSn: 0, expCmdSn: 0, maxCmdSn: 0 };
  }

  connectionTerminated(error?: Error): void {
    this.#closeInBackground('abrupt', error === undefined ? 'closed by the initiator' : describeError(error));
  }

  // ---- login ----

  #handleLogin(login: TargetLogin, received: InitiatorControlPdu): void {
    if (received.opcode !== 'login-request') {
      this.#datamover.sendControl(pdu({ opcode: 'login-response', itt: received.itt, ...LoginStatus.invalidDuringLogin }));
      this.#closeInBackground('orderly', `${received.opcode} during login`);
      return;
    }
    const step = login.handleRequest(received);
    if (step.complete !== undefined) {
      this.#state = { name: 'ESTABLISHING' };
      this.#establish(step.complete, step.pdu).catch((error: unknown) => this.#closeInBackground('abrupt', describeError(error)));
      return;
    }
    this.#datamover.sendControl(step.pdu);
    if (step.failed) this.#closeInBackground('orderly', `login refused: ${step.reason ?? 'no reason given'}`);
  }

  #establish(result: TargetLoginResult, lastResponse: Pdu<'login-response'>): Promise<void> {
    return this.#host.establish(result, this, (grant) => {
      if (this.#state.name !== 'ESTABLISHING') return false;
      const { clock, timing } = this.#host;
      const session = new TargetSession({
        datamover: this.#datamover,
        target: grant.target,
        nexus: grant.nexus,
        cid: result.cid,
        expCmdSn: result.expCmdSn,
        statSn: result.statSn,
        windowSize: this.#windowSize,
        maxSendDataSegmentLength: Math.min(
          result.data.maxSendDataSegmentLength,
          this.#datamover.longestDataSegment ?? Number.POSITIVE_INFINITY,
        ),
        answerText: (pairs) => grant.answerText(pairs),
        now: () => clock.now(),
        keepaliveIntervalMs: timing.keepaliveIntervalMs,
        keepaliveTimeoutMs: timing.keepaliveTimeoutMs,
        disconnect: (mode, reason) => this.#closeInBackground(mode, reason),
      });
      this.#state = { name: 'LOGGED_IN', session, grant };
      this.#datamover.sendControl(lastResponse);
      this.#datamover.enable(result.data);
      this.#armSessionTimer();
      this.#host.log(
        `${this.remoteAddress}: ${result.initiatorName} logged in${result.targetName === undefined ? ' for discovery' : ` to ${result.targetName}`}`,
      );
      return true;
    });
  }

  // ---- time ----

  #armSessionTimer(): void {
    this.#cancelTimer();
    const { clock } = this.#host;
    const session = this.session;
    const due = session?.pollTimeout();
    if (session === undefined || due === undefined) return;
    this.#cancelTimer = clock.schedule(Math.max(0, due - clock.now()), () => {
      session.handleTimeout(clock.now());
      this.#armSessionTimer();
    });
  }

  // ---- end ----

  async #close(mode: 'orderly' | 'abrupt', reason: string): Promise<void> {
    const state = this.#state;
    this.#state = { name: 'CLOSED' };
    this.#cancelTimer();
    this.#host.log(`${this.remoteAddress}: connection closed: ${reason}`);
    const sessionEnded = state.name === 'LOGGED_IN' ? state.session.end() : Promise.resolve();
    const cancelCut = this.#host.clock.schedule(ORDERLY_END_MS, () => {
      this.#datamover.terminate('abrupt').catch(() => {}); // what comes of it is awaited below
    });
    await Promise.allSettled([this.#datamover.terminate(mode).finally(cancelCut), sessionEnded]);
    if (state.name === 'LOGGED_IN') state.grant.ended();
    this.#host.closed(this);
    this.#resolveWhenClosed();
  }

  #closeInBackground(mode: 'orderly' | 'abrupt', reason: string): void {
    this.close(mode, reason).catch((error: unknown) => this.#host.log(`${this.remoteAddress}: ${describeError(error)}`));
  }
}
