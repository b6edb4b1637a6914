/**
 * The embedded iSCSI target: portals, each over a `TargetTransport` of its own, on all of which the same
 * targets are offered, each with a `DeviceServer` of its own. Decides who may log in to what, gives sessions
 * their TSIH and nexus, and closes in order. Portal group tag 1 is the only portal group. Device servers and
 * their media belong to the caller and outlive the target. Knows no transport and no SCSI beyond the device
 * server's interface.
 */

import { randomBytes } from 'node:crypto';
import { type Clock, sleep, systemClock } from '../clock.ts';
import { IserfsError } from '../errors.ts';
import type { DeviceServer } from '../scsi/port.ts';
import { encodeSense, SenseKey } from '../scsi/sense.ts';
import { TaskSets } from '../scsi/task-set.ts';
import type { Endpoint, TargetDatamover, TargetHandler, TargetListener, TargetTransport, Traits } from './datamover/datamover.ts';
import { describeKeys, type NegotiatedKeys } from './iscsi/keys.ts';
import {
  type ChapCredentials,
  LoginStatus,
  type TargetLoginDecision,
  type TargetLoginRequest,
  type TargetLoginResult,
} from './iscsi/login.ts';
import { isValidIscsiName } from './iscsi/name.ts';
import { NO_LUN } from './iscsi/pdu.ts';
import { answerTextRequest, type TargetRecord } from './iscsi/send-targets.ts';
import type { TextPairs } from './iscsi/target-text.ts';
import { type OpenPortal, portalAddresses } from './portal-addresses.ts';
import { type NexusName, type OpenSession, SessionRegistry } from './session-registry.ts';
import { type ConnectionHost, type SessionGrant, TargetConnection, type TargetTiming } from './target-connection.ts';

/** How initiators prove who they are; with `mutual`, the target proves itself in return. */
export interface TargetChap {
  readonly credentials: ChapCredentials;
  readonly mutual?: ChapCredentials;
}

export interface TargetDefinition {
  /** iSCSI name. */
  readonly name: string;
  readonly deviceServer: DeviceServer;
  /** Without it, every initiator may log in. */
  readonly chap?: TargetChap;
}

/** Where to listen, and how. */
export interface TargetPortal {
  /** Port 0 picks a free one. */
  readonly endpoint: Endpoint;
  readonly transport: TargetTransport;
}

export interface IscsiTargetOptions {
  /** At least one. */
  readonly portals: readonly TargetPortal[];
  readonly targets: readonly TargetDefinition[];
  /** Required of discovery sessions; without it, they are open to all. */
  readonly discoveryChap?: TargetChap;
  readonly limits?: Partial<TargetLimits>;
  readonly timing?: Partial<TargetTiming>;
  readonly clock?: Clock;
  readonly random?: (length: number) => Uint8Array;
  readonly log?: (line: string) => void;
}

export interface TargetLimits {
  /** Normal sessions, over all targets. */
  readonly maxSessions: number;
  /** Connections beyond those of normal sessions: logins under way and discovery sessions. */
  readonly maxOtherConnections: number;
  /** Commands that one session may have outstanding; bounds the memory for unsolicited data with FirstBurstLength. */
  readonly commandsPerSession: number;
}

/** One normal session, for people. */
export interface TargetSessionSummary {
  readonly targetName: string;
  readonly initiatorName: string;
  readonly remoteAddress: string;
  readonly transport: string;
  readonly traits: Traits;
  /** Negotiated keys by their names. */
  readonly keys: Readonly<Record<string, string>>;
  readonly tsih: number;
  readonly tasksInProgress: number;
}

export const PORTAL_GROUP_TAG = 1;

const DEFAULT_LIMITS: TargetLimits = { maxSessions: 128, maxOtherConnections: 64, commandsPerSession: 64 };
const DEFAULT_TIMING: TargetTiming = { loginTimeoutMs: 15_000, keepaliveIntervalMs: 15_000, keepaliveTimeoutMs: 30_000 };
/** How long an orderly close waits for initiators to log out, and then for what is queued to leave. */
const LOGOUT_SECONDS = 3;
const DRAIN_MS = 1000;

/** A target and the tasks of all its sessions. */
interface OfferedTarget extends TargetDefinition {
  readonly tasks: TaskSets;
}

/** What a login under way has been promised. */
interface PendingLogin {
  readonly target: OfferedTarget | undefined;
  readonly tsih: number;
}

interface ActiveSession extends OpenSession {
  readonly name: NexusName;
  readonly cid: number;
  readonly keys: NegotiatedKeys;
  readonly connection: TargetConnection;
}

export class IscsiTarget implements ConnectionHost {
  readonly clock: Clock;
  readonly timing: TargetTiming;
  readonly windowSize: number;
  readonly random: (length: number) => Uint8Array;
  readonly log: (line: string) => void;
  readonly #limits: TargetLimits;
  readonly #targets = new Map<string, OfferedTarget>();
  readonly #discoveryChap: TargetChap | undefined;
  readonly #registry: SessionRegistry<ActiveSession>;
  /** Each with the portal that it came to. */
  readonly #connections = new Map<TargetConnection, TargetPortal>();
  readonly #pending = new Map<TargetConnection, PendingLogin>();
  readonly #sessions = new Map<TargetConnection, ActiveSession>();
  readonly #portals = new Map<TargetPortal, OpenPortal & { readonly listener: TargetListener }>();
  #lastNexus = 0;
  #closed: Promise<void> | undefined;

  private constructor(options: IscsiTargetOptions) {
    this.clock = options.clock ?? systemClock;
    this.timing = { ...DEFAULT_TIMING, ...options.timing };
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.windowSize = this.#limits.commandsPerSession;
    this.random = options.random ?? ((length) => randomBytes(length));
    this.log = options.log ?? (() => {});
    this.#discoveryChap = options.discoveryChap;
    this.#registry = new SessionRegistry(this.#limits.maxSessions);
    for (const target of options.targets) {
      if (!isValidIscsiName(target.name)) throw new IserfsError('bad-configuration', `"${target.name}" is not an iSCSI name`);
      if (this.#targets.has(target.name)) throw new IserfsError('bad-configuration', `target ${target.name} is defined twice`);
      this.#targets.set(target.name, { ...target, tasks: new TaskSets() });
    }
  }

  /** Starts a target that listens. Rejects where a portal cannot be listened on or a target's name is not valid; nothing listens then. */
  static async listen(options: IscsiTargetOptions): Promise<IscsiTarget> {
    const target = new IscsiTarget(options);
    try {
      for (const portal of options.portals) await target.#open(portal);
    } catch (error) {
      await target.close('abrupt');
      throw error;
    }
    return target;
  }

  async #open(portal: TargetPortal): Promise<void> {
    const { transport } = portal;
    const listener = await transport.listen(portal.endpoint, (datamover) => this.#accept(datamover, portal));
    this.#portals.set(portal, { endpoint: listener.endpoint, transport: transport.name, listener });
  }

  /** Where it listens, with the ports that were picked, in the order of the options. */
  get portals(): readonly OpenPortal[] {
    return [...this.#portals.values()];
  }

  /** Where the first portal listens. */
  get endpoint(): Endpoint {
    const [first] = this.#portals.values();
    if (first === undefined) throw new IserfsError('internal', 'the target does not listen');
    return first.endpoint;
  }

  /** The normal sessions. */
  get sessions(): TargetSessionSummary[] {
    return [...this.#sessions.values()].map(({ name, tsih, keys, connection }) => ({
      targetName: name.targetName,
      initiatorName: name.initiatorName,
      remoteAddress: connection.remoteAddress,
      transport: connection.transport,
      traits: connection.traits,
      keys: describeKeys(keys),
      tsih,
      tasksInProgress: connection.session?.tasksInProgress ?? 0,
    }));
  }

  /** Tells the initiators of `targetName` that its logical units have changed (asynchronous event with sense 3F/0E). */
  reportLogicalUnitsChanged(targetName: string): void {
    const sense = encodeSense({ key: SenseKey['unit-attention'], asc: 0x3f, ascq: 0x0e });
    for (const { name, connection } of this.#sessions.values()) {
      if (name.targetName === targetName) connection.session?.sendAsynchronousSense(NO_LUN, sense);
    }
  }

  /**
   * Stops listening and ends all sessions; resolves when every task has ended. `orderly` asks the initiators
   * to log out and gives them a few seconds; `abrupt` cuts the connections. Idempotent; an abrupt close cuts an orderly one short.
   */
  async close(mode: 'orderly' | 'abrupt' = 'orderly'): Promise<void> {
    this.#closed ??= this.#close(mode);
    if (mode === 'abrupt') await this.#abortConnections();
    await this.#closed;
  }

  async #close(mode: 'orderly' | 'abrupt'): Promise<void> {
    await Promise.all([...this.#portals.values()].map(({ listener }) => listener.close()));
    if (mode === 'orderly' && this.#connections.size > 0) {
      for (const connection of this.#connections.keys()) connection.requestLogout(LOGOUT_SECONDS);
      const timeUp = new AbortController();
      const allClosed = this.#allClosed();
      await Promise.race([allClosed, sleep(this.clock, LOGOUT_SECONDS * 1000 + DRAIN_MS, timeUp.signal).catch(() => {})]);
      timeUp.abort();
    }
    await this.#abortConnections();
  }

  async #allClosed(): Promise<void> {
    await Promise.all([...this.#connections.keys()].map((connection) => connection.whenClosed));
  }

  async #abortConnections(): Promise<void> {
    await Promise.all([...this.#connections.keys()].map((connection) => connection.abort('the target shuts down')));
  }

  // ---- connections ----

  #accept(datamover: TargetDatamover, portal: TargetPortal): TargetHandler {
    const connection = new TargetConnection(this, datamover);
    this.#connections.set(connection, portal);
    const others = this.#connections.size - this.#sessions.size;
    if (this.#closed !== undefined || others > this.#limits.maxOtherConnections) {
      connection.abort('too many connections').catch(() => {});
    }
    return connection;
  }

  closed(connection: TargetConnection): void {
    this.#connections.delete(connection);
    const pending = this.#pending.get(connection);
    this.#pending.delete(connection);
    if (pending !== undefined) this.#registry.releaseTsih(pending.tsih);
  }

  // ---- ConnectionHost: login ----

  decide(request: TargetLoginRequest, connection: TargetConnection): TargetLoginDecision {
    if (this.#closed !== undefined) return refuse(LoginStatus.serviceUnavailable);
    if (request.sessionType === 'discovery') return this.#grantLogin(connection, undefined, request.tsih);
    const target = this.#targets.get(request.targetName ?? '');
    if (target === undefined) return refuse(LoginStatus.targetNotFound);
    const name: NexusName = { initiatorName: request.initiatorName, isid: request.isid, targetName: target.name };
    if (request.tsih !== 0) {
      const session = this.#findSession(request.tsih, name);
      if (session === undefined) return refuse(LoginStatus.sessionDoesNotExist);
      // A session has one connection: a login to an existing session can only replace it (RFC 7143 §6.3.4).
      if (session.cid !== request.cid) return refuse(LoginStatus.tooManyConnections);
    } else if (!this.#registry.hasRoomFor(name)) {
      return refuse(LoginStatus.outOfResources);
    }
    return this.#grantLogin(connection, target, request.tsih);
  }

  #grantLogin(connection: TargetConnection, target: OfferedTarget | undefined, requestedTsih: number): TargetLoginDecision {
    let tsih: number | undefined = requestedTsih;
    if (target === undefined && requestedTsih !== 0) return refuse(LoginStatus.sessionDoesNotExist);
    if (requestedTsih === 0) tsih = this.#registry.allocateTsih();
    else this.#registry.holdTsih(requestedTsih);
    if (tsih === undefined) return refuse(LoginStatus.outOfResources);
    this.#pending.set(connection, { target, tsih });
    const chap = target === undefined ? this.#discoveryChap : target.chap;
    return { ok: true, tsih, tpgt: PORTAL_GROUP_TAG, ...(chap === undefined ? {} : { chap }) };
  }

  #findSession(tsih: number, name: NexusName): ActiveSession | undefined {
    const session = this.#registry.find(name);
    return session?.tsih === tsih ? session : undefined;
  }

  async establish(
    result: TargetLoginResult,
    connection: TargetConnection,
    open: (grant: SessionGrant) => boolean,
  ): Promise<void> {
    const pending = this.#pending.get(connection);
    if (pending === undefined) return;
    const { target, tsih } = pending;
    if (target === undefined) {
      open({
        target: undefined,
        nexus: 0,
        answerText: (pairs) => this.#answerText(pairs, connection, undefined),
        ended: () => {},
      });
      return;
    }
    const name: NexusName = { initiatorName: result.initiatorName, isid: result.isid, targetName: target.name };
    const { cid, keys } = result;
    await this.#registry.establish(name, () => this.#openSession({ name, tsih, cid, keys, connection, target }, open));
  }

  #openSession(
    options: {
      readonly name: NexusName;
      readonly tsih: number;
      readonly cid: number;
      readonly keys: NegotiatedKeys;
      readonly connection: TargetConnection;
      readonly target: OfferedTarget;
    },
    open: (grant: SessionGrant) => boolean,
  ): ActiveSession | undefined {
    const { name, tsih, cid, keys, connection, target } = options;
    this.#lastNexus++;
    const nexus = this.#lastNexus;
    const session: ActiveSession = { name, tsih, cid, keys, connection, close: (reason) => connection.close('abrupt', reason) };
    const isOpen = open({
      target: { deviceServer: target.deviceServer, tasks: target.tasks },
      nexus,
      answerText: (pairs) => this.#answerText(pairs, connection, target.name),
      ended: () => {
        this.#sessions.delete(connection);
        this.#registry.remove(name, session);
        target.deviceServer.nexusLost(nexus);
      },
    });
    if (!isOpen) return undefined;
    target.deviceServer.nexusEstablished(nexus);
    this.#sessions.set(connection, session);
    return session;
  }

  #answerText(pairs: TextPairs, connection: TargetConnection, own: string | undefined): TextPairs {
    const portal = this.#connections.get(connection);
    const asked = portal === undefined ? undefined : this.#portals.get(portal);
    const addresses = portalAddresses(this.portals, asked, connection.localAddress).map(
      (address) => `${address},${PORTAL_GROUP_TAG}`,
    );
    const all: TargetRecord[] = [...this.#targets.keys()].map((name) => ({ name, addresses }));
    return answerTextRequest(pairs, all, own);
  }
}

function refuse(status: { readonly statusClass: number; readonly statusDetail: number }): TargetLoginDecision {
  return { ok: false, ...status };
}
