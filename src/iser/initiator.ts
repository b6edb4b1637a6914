/**
 * One target, as a SCSI port that stays: connects, logs in, follows redirects, drives the session
 * machine with real time, and when the session is lost logs in again with the same ISID, portal group
 * and transport (session reinstatement, RFC 7143 §6.3.5), bounded by the recovery time-out. It never
 * re-issues a command: each fails with `NexusLostError`, and the logical unit above decides, after its
 * own checks, what is safe (I6, I7). Knows no SCSI beyond the port's contract, and which transport only by name.
 */

import { sleep } from '../clock.ts';
import { describeAt, describeError, errorCode, IserfsError, NexusLostError } from '../errors.ts';
import type { Lun, PortEvent, ScsiPort, StartedCommand } from '../scsi/port.ts';
import { CID, type Connection, type ConnectionOptions, locate, openConnection } from './connection.ts';
import type { Traits } from './datamover/datamover.ts';
import type { ScsiTask } from './iscsi/exchange-table.ts';
import { describeKeys } from './iscsi/keys.ts';
import { formatIsid, formatPortal, isSamePortal, type Portal } from './iscsi/name.ts';
import { InitiatorSession, type SessionEvents } from './iscsi/session.ts';

export interface InitiatorOptions extends ConnectionOptions {
  readonly targetName: string;
  /** Tried in order. */
  readonly portals: readonly Portal[];
  readonly commandTimeoutMs: number;
  readonly recoveryTimeoutMs: number;
  readonly keepaliveIntervalMs: number;
  readonly keepaliveTimeoutMs: number;
  readonly maxCommands: number;
  readonly log: (line: string) => void;
  /** Calls `login` when it may go on: a thousand sessions that are lost together must not all come back at once. Absent: at once. */
  readonly takeTurn?: <T>(login: () => Promise<T>, signal: AbortSignal) => Promise<T>;
}

export type InitiatorState = 'connecting' | 'logged-in' | 'recovering' | 'failed' | 'closed';

/** A snapshot for `status` files. */
export interface SessionStatus {
  readonly state: InitiatorState;
  readonly transport: string;
  /** What the transport has to say of the connection besides: device, IRD and ORD, CRC. */
  readonly traits: Traits;
  readonly portal: string;
  readonly localAddress: string | undefined;
  /** 12 hexadecimal digits. */
  readonly isid: string;
  readonly tsih: number | undefined;
  readonly portalGroupTag: number | undefined;
  readonly targetAlias: string | undefined;
  /** Negotiated keys by their names. */
  readonly keys: Readonly<Record<string, string>>;
  readonly commandsInFlight: number;
  readonly commandsQueued: number;
  readonly commandWindow: number | undefined;
  /** Sessions established after the first. */
  readonly reconnects: number;
  /** When the present session was established. */
  readonly establishedAt: Date | undefined;
  readonly lastError: string | undefined;
}

/** Waits between attempts to recover; the last one is repeated. */
const BACKOFF_MS = [0, 100, 200, 400, 500, 500, 1000, 1000, 1000, 2000];
/** Waits between attempts after recovery has timed out. */
const SLOW_RETRY_MS = 10_000;

export class Initiator implements ScsiPort {
  readonly #options: InitiatorOptions;
  #portals: readonly Portal[];
  readonly #listeners = new Set<(event: PortEvent) => void>();
  readonly #closing = new AbortController();
  #state: InitiatorState = 'connecting';
  #nexusCount = 0;
  #active: { readonly connection: Connection; readonly session: InitiatorSession; readonly since: Date } | undefined;
  /** The last connection, for `status` while there is none. */
  #lastConnection: Connection | undefined;
  #lastError: string | undefined;
  #failure: Error | undefined;
  /** Those who wait for a nexus. */
  #waiting: { resolve: (nexus: number) => void; reject: (error: Error) => void }[] = [];
  #cancelTimer: (() => void) | undefined;
  #timerDue = Number.POSITIVE_INFINITY;
  #sessionEnded: (() => void) | undefined;
  #recovery: Promise<void> | undefined;
  #logout: Promise<void> | undefined;

  private constructor(options: InitiatorOptions) {
    this.#options = options;
    this.#portals = options.portals;
  }

  /**
   * Logs in to the target for the first time: every portal once, in order. Rejects with the last
   * portal's reason: `unreachable`, `authentication-failed`, `target-not-found`, `login-refused`,
   * `protocol-error`.
   */
  static async connect(options: InitiatorOptions, signal?: AbortSignal): Promise<Initiator> {
    const initiator = new Initiator(options);
    initiator.#establish(await initiator.#logInAnywhere(options.loginTimeoutMs, signal));
    return initiator;
  }

  get description(): string {
    const portal = this.#active?.connection.portal ?? this.#lastConnection?.portal ?? this.#portals[0];
    return portal === undefined ? this.#options.targetName : `${this.#options.targetName} at ${formatPortal(portal)}`;
  }

  get nexus(): number | undefined {
    return this.#active === undefined ? undefined : this.#nexusCount;
  }

  /** Most bytes that one command may move, as far as the transport of the present or the last session is concerned; undefined before there was one. */
  get maxTransferLength(): number | undefined {
    return this.#lastConnection?.datamover.maxTransferLength;
  }

  /** What the target of the present or the last session calls itself, if anything (RFC 7143 §13.6). */
  get targetAlias(): string | undefined {
    return this.#lastConnection?.result.targetAlias;
  }

  get status(): SessionStatus {
    const connection = this.#active?.connection ?? this.#lastConnection;
    const portal = connection?.portal ?? this.#portals[0];
    return {
      state: this.#state,
      transport: connection?.datamover.transport ?? this.#options.transport.name,
      traits: connection?.datamover.traits ?? {},
      portal: portal === undefined ? '' : formatPortal(portal),
      localAddress: this.#active?.connection.datamover.localAddress,
      isid: formatIsid(this.#options.isid),
      tsih: this.#active?.connection.result.tsih,
      portalGroupTag: connection?.result.targetPortalGroupTag,
      targetAlias: this.targetAlias,
      keys: connection === undefined ? {} : describeKeys(connection.result.keys),
      commandsInFlight: this.#active?.session.commandsInFlight ?? 0,
      commandsQueued: this.#active?.session.commandsQueued ?? 0,
      commandWindow: this.#active?.session.commandWindow,
      reconnects: Math.max(0, this.#nexusCount - 1),
      establishedAt: this.#active?.since,
      lastError: this.#lastError,
    };
  }

  // ---- ScsiPort ----

  start(command: StartedCommand): void {
    const active = this.#active;
    const { signal } = command;
    if (active === undefined || command.nexus !== this.#nexusCount) refuse(command, this.#noNexus());
    else if (signal === undefined) this.#submit(active.session, command);
    else if (signal.aborted) refuse(command, new IserfsError('aborted', 'interrupted'));
    else this.#submitAbortable(active.session, command, signal);
  }

  #submit(session: InitiatorSession, command: StartedCommand): ScsiTask | undefined {
    const task = session.submit(command, command.timeoutMs ?? this.#options.commandTimeoutMs);
    if (task === undefined)
      refuse(command, this.#located(new NexusLostError('the session has ended', { mayHaveExecuted: false })));
    return task;
  }

  #submitAbortable(session: InitiatorSession, command: StartedCommand, signal: AbortSignal): void {
    const onAbort = () => {
      if (task !== undefined) session.abort(task, new IserfsError('aborted', 'interrupted'));
    };
    const { lun, cdb, dataIn, dataOut, nexus, timeoutMs } = command;
    const abortable: StartedCommand = {
      lun,
      cdb,
      dataIn,
      dataOut,
      nexus,
      timeoutMs,
      ended: (result) => {
        signal.removeEventListener('abort', onAbort);
        command.ended(result);
      },
      failed: (error) => {
        signal.removeEventListener('abort', onAbort);
        command.failed(error);
      },
    };
    signal.addEventListener('abort', onAbort, { once: true });
    const task = this.#submit(session, abortable);
  }

  async resetLogicalUnit(lun: Lun, nexus: number): Promise<void> {
    const active = this.#active;
    if (active === undefined || nexus !== this.#nexusCount) throw this.#noNexus();
    const done = active.session.manage('logical-unit-reset', lun);
    this.#armTimer();
    try {
      await done;
    } catch (error) {
      throw this.#located(error);
    }
  }

  established(): Promise<number> {
    if (this.#active !== undefined) return Promise.resolve(this.#nexusCount);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  subscribe(listener: (event: PortEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Logs the session out and stops all recovery. Commands in flight fail. Resolves when the connection is closed. Idempotent. */
  logout(): Promise<void> {
    this.#logout ??= this.#close();
    return this.#logout;
  }

  async #close(): Promise<void> {
    this.#state = 'closed';
    const reason = new IserfsError('connection-lost', `${this.description}: logged out`);
    this.#failure = reason;
    this.#closing.abort(reason);
    this.#rejectWaiting(reason);
    const active = this.#active;
    if (active === undefined) {
      await this.#recovery;
      return;
    }
    await new Promise<void>((resolve) => {
      this.#sessionEnded = resolve;
      active.session.logout(reason);
      this.#armTimer();
    });
  }

  // ---- sessions ----

  #establish(connection: Connection): void {
    const session = new InitiatorSession({
      datamover: connection.datamover,
      login: connection.result,
      cid: CID,
      now: () => this.#options.clock.now(),
      keepaliveIntervalMs: this.#options.keepaliveIntervalMs,
      keepaliveTimeoutMs: this.#options.keepaliveTimeoutMs,
      managementTimeoutMs: Math.min(this.#options.commandTimeoutMs, MANAGEMENT_TIMEOUT_MS),
      maxCommands: this.#options.maxCommands,
      locate: (error) => this.#located(error),
      events: this.#sessionEvents(),
    });
    const { movedTo } = connection;
    if (movedTo !== undefined) this.#portals = [movedTo, ...this.#portals.filter((portal) => !isSamePortal(portal, movedTo))];
    this.#nexusCount++;
    this.#active = { connection, session, since: new Date() };
    this.#lastConnection = connection;
    this.#state = 'logged-in';
    this.#failure = undefined;
    connection.attach(session);
    this.#armTimer();
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#emit({ type: 'nexus-established', nexus: this.#nexusCount });
    for (const { resolve } of waiting) resolve(this.#nexusCount);
  }

  #sessionEvents(): SessionEvents {
    return {
      ended: (reason, waitMs) => this.#onSessionEnded(reason, waitMs),
      asynchronousSense: (lun, sense) => this.#emit({ type: 'asynchronous-sense', lun, sense }),
      deadlineMoved: () => this.#armTimer(),
    };
  }

  #onSessionEnded(reason: Error, waitMs: number): void {
    const nexus = this.#nexusCount;
    this.#active = undefined;
    this.#stopTimer();
    const located = this.#located(reason);
    this.#emit({ type: 'nexus-lost', nexus, reason: located });
    if (this.#state === 'closed') {
      this.#sessionEnded?.();
      return;
    }
    this.#state = 'recovering';
    this.#lastError = describeError(located);
    this.#options.log(`${describeError(located)}; logging in again`);
    this.#recovery = this.#recover(waitMs);
  }

  /** Logs in again until it works or the initiator is closed; never rejects. Past the time-out, waiting commands fail and attempts go on slowly. */
  async #recover(firstWaitMs: number): Promise<void> {
    const { clock, recoveryTimeoutMs, loginTimeoutMs, log, takeTurn = (login) => login() } = this.#options;
    const { signal } = this.#closing;
    const lostAt = clock.now();
    const cancelDeadline = clock.schedule(recoveryTimeoutMs, () => this.#giveUpFor(lostAt));
    let refused = false;
    for (let attempt = 0; !signal.aborted; attempt++) {
      try {
        const backoff = BACKOFF_MS[Math.min(attempt, BACKOFF_MS.length - 1)] ?? 0;
        const isHopeful = this.#failure === undefined && !refused;
        const wait = attempt === 0 ? firstWaitMs : isHopeful ? backoff : SLOW_RETRY_MS;
        if (wait > 0) await sleep(clock, wait, signal);
        const connection = await takeTurn(() => this.#logInAnywhere(loginTimeoutMs, signal), signal);
        if (signal.aborted) {
          await connection.datamover.terminate('abrupt');
          break;
        }
        cancelDeadline();
        this.#establish(connection);
        log(`${this.description}: session established again`);
        return;
      } catch (error) {
        if (signal.aborted) break;
        // A target may lock an account for which it sees one wrong password after another.
        refused = errorCode(error) === 'authentication-failed';
        const text = describeError(error);
        if (text !== this.#lastError) log(`${text}; trying again`);
        this.#lastError = text;
      }
    }
    cancelDeadline();
  }

  #giveUpFor(lostAt: number): void {
    if (this.#state !== 'recovering') return;
    const { clock, log } = this.#options;
    const seconds = Math.round((clock.now() - lostAt) / 1000);
    const reason = new IserfsError(
      'recovery-timeout',
      describeAt(`${this.description}: no session for ${seconds} s`, this.#lastError ?? 'unknown cause'),
      { hint: 'Reads and writes fail until the target can be reached again.' },
    );
    this.#state = 'failed';
    this.#failure = reason;
    log(reason.message);
    this.#rejectWaiting(reason);
    this.#emit({ type: 'failed', reason });
  }

  async #logInAnywhere(timeoutMs: number, signal: AbortSignal | undefined): Promise<Connection> {
    const { targetName } = this.#options;
    let failure: unknown = new IserfsError('unreachable', `${targetName}: no portal is known`);
    for (const portal of this.#recoveryPortals()) {
      try {
        const connection = await openConnection(this.#options, portal, { sessionType: 'normal', targetName, timeoutMs }, signal);
        const group = this.#lastConnection?.result.targetPortalGroupTag;
        if (group !== undefined && connection.result.targetPortalGroupTag !== group) {
          await connection.datamover.terminate('abrupt');
          throw new IserfsError('login-refused', `${targetName} at ${formatPortal(portal)} is another portal group now`);
        }
        return connection;
      } catch (error) {
        if (signal?.aborted) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  /** After the first login only portals of the same group can reinstate the session (RFC 7143 §4.4.3.1). */
  #recoveryPortals(): readonly Portal[] {
    const group = this.#lastConnection?.result.targetPortalGroupTag;
    if (group === undefined) return this.#portals;
    return this.#portals.filter(({ tpgt }) => tpgt === undefined || tpgt === group);
  }

  // ---- small things ----

  #noNexus(): Error {
    return this.#failure ?? new NexusLostError(`${this.description}: no session`, { mayHaveExecuted: false });
  }

  #located(error: unknown): Error {
    return locate(error, this.description);
  }

  #rejectWaiting(reason: Error): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { reject } of waiting) reject(reason);
  }

  #emit(event: PortEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }

  #armTimer(): void {
    const due = this.#active?.session.pollTimeout();
    if (due === undefined) {
      this.#stopTimer();
      return;
    }
    if (this.#cancelTimer !== undefined && this.#timerDue <= due) return; // it looks again when it fires
    this.#stopTimer();
    const { clock } = this.#options;
    this.#timerDue = due;
    this.#cancelTimer = clock.schedule(Math.max(0, due - clock.now()), () => {
      this.#cancelTimer = undefined;
      this.#active?.session.handleTimeout(clock.now());
      this.#armTimer();
    });
  }

  #stopTimer(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#timerDue = Number.POSITIVE_INFINITY;
  }
}

/** Tells later: never from inside of `start`. */
function refuse(command: StartedCommand, error: Error): void {
  queueMicrotask(() => command.failed(error));
}

/** A task management request or logout that takes longer than this costs the session. */
const MANAGEMENT_TIMEOUT_MS = 10_000;
