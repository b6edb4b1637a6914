/**
 * One target of a mount: its session, its logical units as they come and go, and what its status files
 * say. A session begins when it is asked for. A target that cannot be reached is kept and tried again, by
 * itself or, in a mount that logs in on demand, when somebody looks into it again; a logical unit that cannot be
 * attached is kept by name, with the reason. Knows no tree and no file.
 */

import { aborted, type Clock, sleep } from '../clock.ts';
import { type ConnectionSettings, chapFor, type DirectTarget, wantsLun } from '../config/settings.ts';
import { describeError, errorCode, IserfsError } from '../errors.ts';
import type { TransportChoice } from '../iser/datamover/transport-choice.ts';
import { Initiator, type SessionStatus } from '../iser/initiator.ts';
import { normalizeIscsiName } from '../iser/iscsi/name.ts';
import { quirksOf } from '../iser/iscsi/peer-quirks.ts';
import { type Problem, problemOf } from '../problem.ts';
import type { BlockCache } from '../scsi/block-cache.ts';
import type { BufferPool } from '../scsi/buffer-pool.ts';
import type { LogicalUnitIdentity } from '../scsi/identity.ts';
import { LogicalUnit } from '../scsi/logical-unit.ts';
import { lunLabel } from '../scsi/lun.ts';
import type { Lun } from '../scsi/port.ts';
import { reportLuns } from '../scsi/scan.ts';
import type { LoginTurns } from './login-turns.ts';
import { MountedLun } from './mounted-lun.ts';
import { connectionOptions } from './sessions.ts';
import type { TargetSnapshot } from './snapshot.ts';
import type { Transports } from './transports.ts';

export interface TargetContext {
  readonly settings: ConnectionSettings;
  readonly initiatorName: string;
  readonly transports: Transports;
  readonly pool: BufferPool;
  readonly cache: BlockCache;
  /** See `LogicalUnitOptions`. */
  readonly retainedLimit: number | undefined;
  readonly clock: Clock;
  readonly log: (line: string) => void;
  readonly turns: LoginTurns;
  /** Somebody has to look into the target before a session begins, or before it is tried again. */
  readonly isOnDemand: boolean;
  /** What the tree shows of the target has changed. */
  readonly changed: (target: MountedTarget) => void;
  /** What the kernel keeps of the unit's image may be out of date. */
  readonly outdated: (target: MountedTarget, lun: MountedLun) => void;
}

const KEEPALIVE_MS = 5000;
const MAX_COMMANDS = 128;
const ATTACHING_AT_ONCE = 8;
/** An attempt takes no longer, silence at all portals and a slow scan included. */
const ATTEMPT_MS = 9000;
/** How often a target that could not be logged in to is tried again. */
const RETRY_MS = 30_000;
/** How long a unit that is in recovery may be missing from the target's list: a little longer than its recovery looks for it. */
const LATE_UNITS_MS = 12_000;
/** Reasons that do not go away by waiting, and that some targets answer by locking the account. */
const lastingReasons: ReadonlySet<string> = new Set(['authentication-failed', 'bad-configuration', 'unsupported']);

export class MountedTarget {
  readonly name: string;
  readonly #request: DirectTarget;
  readonly #context: TargetContext;
  readonly #closing = new AbortController();
  readonly #luns = new Map<Lun, MountedLun>();
  /** What the target listed last, wanted or not. */
  #listed: readonly Lun[] = [];
  #transport: TransportChoice | undefined;
  #initiator: Initiator | undefined;
  #isDeferred: boolean;
  /** The attempt under way that `begin` has made. */
  #attempt: Promise<void> | undefined;
  #failure: unknown;
  /** Logins after the first attempt; never rejects. */
  #retries: Promise<void> | undefined;
  /** The scan under way, and whether another one must follow. */
  #scan: Promise<void> | undefined;
  #scanAgain = false;

  constructor(request: DirectTarget, context: TargetContext) {
    this.name = request.name;
    this.#request = request;
    this.#context = context;
    this.#isDeferred = context.isOnDemand;
  }

  /** Whether whoever looks into the target is to wait for `begin`: there was no session yet, or it is time for another attempt. */
  get isDeferred(): boolean {
    return this.#isDeferred;
  }

  /**
   * Has a session begin where there is none; settles when the attempt has ended, one way or the other. Never
   * rejects. `signal` ends the attempt, not what follows. Where the target has just been tried on demand, it is left alone for a while.
   */
  begin(signal?: AbortSignal): Promise<void> {
    if (this.#attempt !== undefined) return this.#attempt;
    const isResting = this.#context.isOnDemand && !this.#isDeferred;
    if (isResting || this.#initiator !== undefined || this.#closing.signal.aborted) return Promise.resolve();
    this.#attempt = this.#try(signal).finally(() => {
      this.#attempt = undefined;
    });
    return this.#attempt;
  }

  /** By ascending LUN. Logical units that are no disks and only manage the target are left out. */
  get luns(): MountedLun[] {
    return [...this.#luns.values()].filter((lun) => !lun.isHidden).sort((one, other) => (one.lun < other.lun ? -1 : 1));
  }

  /** Why there is nothing to read, if so: of the target, or else of each logical unit. */
  get failures(): unknown[] {
    if (this.#failure !== undefined) return [this.#failure];
    if (this.#initiator === undefined) return this.#attempt === undefined ? [] : [this.#noAnswer()];
    const luns = this.luns;
    if (luns.length === 0) return [this.#noUnits()];
    return luns.flatMap((lun) => (lun.failure === undefined ? [] : [lun.failure]));
  }

  snapshot(): TargetSnapshot {
    const session = this.#initiator?.status;
    return {
      name: this.name,
      state: session?.state ?? this.#stateWithoutSession,
      problem: this.#problem(session),
      session,
      transportFallback: session === undefined ? undefined : this.#transport?.fallbackReason,
      luns: this.luns.map((lun) => lun.snapshot()),
    };
  }

  /** Ends the session and all that hangs on it; what was not flushed is not flushed here. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort(new IserfsError('aborted', 'the mount ends'));
    await Promise.all([...this.#luns.values()].map((lun) => lun.close()));
    await this.#initiator?.logout();
    await this.#attempt;
    await this.#retries;
    await this.#scan;
  }

  /** A session that was lost comes back by itself: nothing is to be done about it. */
  #problem(session: SessionStatus | undefined): Problem | undefined {
    if (this.#failure !== undefined) return problemOf(this.#failure);
    if (session?.lastError === undefined || session.state === 'logged-in') return undefined;
    return { text: session.lastError };
  }

  get #stateWithoutSession(): TargetSnapshot['state'] {
    if (this.#failure !== undefined) return 'unavailable';
    return this.#attempt === undefined ? 'not-connected' : 'connecting';
  }

  /** One attempt, and the arrangements for another one. */
  async #try(signal?: AbortSignal): Promise<void> {
    const { isOnDemand, turns, log, changed } = this.#context;
    const stop = signal === undefined ? this.#closing.signal : AbortSignal.any([signal, this.#closing.signal]);
    try {
      await turns.take(() => this.#attemptOnce(stop), stop);
    } catch {
      this.#failure = this.#noAnswer(); // it has never had its turn
    }
    if (this.#closing.signal.aborted) return;
    if (!isOnDemand) {
      if (this.#initiator === undefined) this.#retries = this.#keepTrying();
      return;
    }
    const { failures } = this;
    for (const failure of failures) log(describeError(failure));
    if (failures.length === 0) log(`${this.name}: logged in`);
    this.#isDeferred = false;
    changed(this);
    if (this.#initiator === undefined && !lastingReasons.has(errorCode(this.#failure))) this.#deferAgain();
  }

  /** Logs in and scans, within bounds. Never rejects. */
  async #attemptOnce(stop: AbortSignal): Promise<void> {
    const { clock, settings } = this.#context;
    const timeUp = new AbortController();
    const cancelTimer = clock.schedule(attemptBound(settings), () =>
      timeUp.abort(new IserfsError('aborted', 'no answer in time')),
    );
    const limit = AbortSignal.any([stop, timeUp.signal]);
    try {
      await this.#logIn(limit);
      await Promise.race([this.#scan, aborted(limit)]);
    } finally {
      cancelTimer();
    }
  }

  /** After a while the next one who looks has the target tried again. */
  #deferAgain(): void {
    const { clock, changed } = this.#context;
    const again = () => {
      this.#isDeferred = true;
      changed(this);
    };
    void sleep(clock, RETRY_MS, this.#closing.signal).then(again, () => {});
  }

  /** Logs in and begins to scan. Never rejects: the reason stays in `#failure`. */
  async #logIn(signal: AbortSignal): Promise<void> {
    const { settings, initiatorName, transports, turns, clock, log } = this.#context;
    this.#transport ??= transports.forLogin();
    try {
      const { options } = settings;
      const chap = chapFor(settings, this.name);
      const initiator = await Initiator.connect(
        {
          ...connectionOptions(settings, { initiatorName, transport: this.#transport, chap, clock }),
          targetName: this.name,
          portals: this.#request.portals,
          commandTimeoutMs: options['command-timeout'],
          recoveryTimeoutMs: options['recovery-timeout'],
          keepaliveIntervalMs: KEEPALIVE_MS,
          keepaliveTimeoutMs: KEEPALIVE_MS,
          maxCommands: MAX_COMMANDS,
          log,
          takeTurn: (login, signal) => turns.take(login, signal),
        },
        signal,
      );
      this.#initiator = initiator;
      this.#failure = undefined;
      if (this.#closing.signal.aborted) {
        await initiator.logout();
        return;
      }
      initiator.subscribe((event) => {
        // The units may have changed while nobody could be told.
        if (event.type === 'nexus-established') this.rescan();
      });
      this.rescan(); // not by itself: an event may ask for one at the same time, and two scans would attach a unit twice
    } catch (error) {
      this.#failure = signal.aborted && errorCode(error) === 'aborted' ? this.#noAnswer() : error;
    }
  }

  #noAnswer(): IserfsError {
    return new IserfsError('unreachable', `${this.name}: no login in time`, {
      hint: 'Check the portal, or allow more time with --login-timeout.',
    });
  }

  /** Why there is nothing to show although the target answers. */
  #noUnits(): IserfsError {
    const where = this.#initiator?.description ?? this.name;
    const all = this.#listed.map((lun) => lunLabel(lun));
    if (all.length === 0) {
      return new IserfsError('logical-unit-gone', `${where} shows this initiator no logical units`, {
        hint: `The target may have to be told the initiator name ${this.#context.initiatorName} (an access list).`,
      });
    }
    const { settings } = this.#context;
    const missing = (settings.luns ?? settings.targetLuns[normalizeIscsiName(this.name)])?.filter(
      (label) => !all.includes(label),
    );
    if (missing?.length === 0) {
      const wanted = all.filter((label) => wantsLun(settings, this.name, label));
      return new IserfsError('logical-unit-gone', `${where}: LUN ${wanted.join(' and ')} is no disk`, {
        hint: `It shows LUN ${all.join(', ')}.`,
      });
    }
    const which = missing === undefined ? 'disk' : `LUN ${missing.join(' or ')}`;
    return new IserfsError('logical-unit-gone', `${where}: there is no ${which}`, { hint: `It shows LUN ${all.join(', ')}.` });
  }

  async #keepTrying(): Promise<void> {
    const { turns, clock, log, changed } = this.#context;
    const { signal } = this.#closing;
    try {
      while (this.#initiator === undefined && !lastingReasons.has(errorCode(this.#failure))) {
        await sleep(clock, RETRY_MS, signal);
        const before = this.#failure === undefined ? '' : describeError(this.#failure);
        await turns.take(() => this.#logIn(signal), signal);
        if (this.#initiator !== undefined) log(`${this.name}: logged in`);
        else if (describeError(this.#failure) !== before) log(describeError(this.#failure));
      }
    } catch {
      return; // closed meanwhile
    }
    await this.#scan;
    changed(this);
  }

  /** Looks which logical units there are; once more after the scan under way, if there is one. */
  rescan(): void {
    this.#scanAgain = true;
    this.#scan ??= this.#scanNow().finally(() => {
      this.#scan = undefined;
      if (this.#scanAgain && !this.#closing.signal.aborted) this.rescan();
    });
  }

  /** Never rejects. */
  async #scanNow(): Promise<void> {
    this.#scanAgain = false;
    const initiator = this.#initiator;
    if (initiator === undefined || this.#closing.signal.aborted) return;
    const { settings, clock, log, changed } = this.#context;
    try {
      const all = await reportLuns(initiator, {
        clock,
        commandTimeoutMs: settings.options['command-timeout'],
        onDeferredError: (error) => this.#luns.get(0n)?.noteDeferredError(error),
      });
      this.#listed = all;
      const wanted = all.filter((lun) => wantsLun(settings, this.name, lunLabel(lun)));
      await this.#removeAllBut(new Set(wanted));
      await this.#attachAll(initiator, wanted);
      this.#failure = undefined;
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      // Units that are known go on; without any, the reason is the target's.
      if (this.#luns.size === 0) this.#failure = error;
      log(`${this.name}: the logical units could not be listed: ${describeError(error)}`);
    }
    changed(this);
  }

  /** A target that has just come back may list its units late: one that is in recovery is looked for once more. */
  async #removeAllBut(wanted: ReadonlySet<Lun>): Promise<void> {
    const { clock, log } = this.#context;
    const absent = [...this.#luns].filter(([lun]) => !wanted.has(lun));
    const gone = absent.filter(([, mounted]) => !mounted.isRecovering);
    if (gone.length < absent.length) {
      void sleep(clock, LATE_UNITS_MS, this.#closing.signal).then(
        () => this.rescan(),
        () => {},
      );
    }
    await Promise.all(
      gone.map(([lun, mounted]) => {
        this.#luns.delete(lun);
        const reason = new IserfsError('logical-unit-gone', `${this.name}: logical unit ${mounted.label} is gone`);
        log(reason.message);
        return mounted.close(reason);
      }),
    );
  }

  async #attachAll(initiator: Initiator, wanted: readonly Lun[]): Promise<void> {
    const queue = wanted.filter((lun) => {
      const known = this.#luns.get(lun);
      known?.revalidate();
      return known?.unit === undefined;
    });
    const { settings, cache, changed, outdated } = this.#context;
    const context = { settings, cache, changed: () => changed(this), outdated: (lun: MountedLun) => outdated(this, lun) };
    for (const lun of queue) if (!this.#luns.has(lun)) this.#luns.set(lun, new MountedLun(this.name, lun, context));
    const worker = async () => {
      for (let lun = queue.shift(); lun !== undefined; lun = queue.shift()) await this.#attach(initiator, lun);
    };
    await Promise.all(Array.from({ length: Math.min(ATTACHING_AT_ONCE, queue.length) }, worker));
  }

  /** Never rejects: the reason stays with the logical unit. */
  async #attach(initiator: Initiator, lun: Lun): Promise<void> {
    const { settings, pool, retainedLimit, clock, log, changed } = this.#context;
    const mounted = this.#luns.get(lun);
    const quirks = (identity: LogicalUnitIdentity) => quirksOf({ ...identity, targetAlias: initiator.targetAlias });
    let isBounded = true;
    try {
      const unit = await LogicalUnit.attach(initiator, lun, {
        pool,
        maxTransfer: () => (isBounded ? initiator.maxTransferLength : undefined),
        ...(retainedLimit === undefined ? {} : { retainedLimit }),
        readOnly: settings.options['read-only'],
        commandTimeoutMs: settings.options['command-timeout'],
        recoveryTimeoutMs: settings.options['recovery-timeout'],
        awaitsFence: (identity) => !quirks(identity).terminatesOldTasksOnReinstatement,
        log,
        clock,
        signal: this.#closing.signal,
      });
      isBounded = !quirks(unit.identity).takesLongTransfers;
      if (mounted === undefined || this.#closing.signal.aborted) await unit.close();
      else mounted.attached(unit, () => this.rescan());
    } catch (error) {
      mounted?.failed(error);
    }
    changed(this);
  }
}

/** How long an attempt may take: what a login may take, and something for the scan. */
export function attemptBound({ options }: ConnectionSettings): number {
  return Math.max(ATTEMPT_MS, options['login-timeout'] + 4000);
}
