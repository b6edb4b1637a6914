/**
 * A pair of RDMA providers inside one process, for tests and wherever no network is wanted: real queue pairs (see
 * memory-queue-pair.ts) over a wire that a test can meddle with. Time is the given clock's: with a virtual one
 * nothing moves unless the test moves it.
 */

import { type Clock, systemClock } from '../../clock.ts';
import { IserfsError } from '../../errors.ts';
import type { Endpoint } from '../datamover/datamover.ts';
import { formatPortal } from '../iscsi/name.ts';
import { MemoryArenas } from './memory-arenas.ts';
import { MemoryQueuePair, type Outlet, type RdmaMessage } from './memory-queue-pair.ts';
import type {
  ConnectionRequest,
  QueuePair,
  QueuePairEvents,
  QueuePairOptions,
  RdmaConnectOptions,
  RdmaListener,
  RdmaProvider,
} from './provider.ts';

export type { RdmaMessage } from './memory-queue-pair.ts';

/** Who connected, and who listened. */
export type RdmaEnd = 'initiator' | 'target';

/** One message as it is to arrive. */
export interface RdmaDelivery {
  readonly message: RdmaMessage;
  /** On top of the wire's latency. What is sent later comes later all the same. */
  readonly delayMs?: number;
}

/** Decides what becomes of a message: `[]` loses it, another message replaces it, undefined lets it pass. */
export type RdmaInterceptor = (message: RdmaMessage, from: RdmaEnd) => readonly RdmaDelivery[] | undefined;

export interface MemoryProviderOptions {
  /** Default: as soon as possible, without waiting for any time. */
  readonly clock?: Clock;
  /** How long a message, or the news of an end, is on its way. */
  readonly latencyMs?: number;
  /** How long after a message's arrival its sender hears of its completion. */
  readonly completionDelayMs?: number;
  /** What the connections say that they are. */
  readonly fabric?: string;
  /** `region`: like a device without memory windows, where the peer cannot revoke what is advertised to it. */
  readonly protection?: 'tag' | 'region';
}

/** The test's hand on all connections of a pair. */
export interface RdmaWire {
  intercept: RdmaInterceptor | undefined;
  completionDelayMs: number;
  /** False: attempts to connect are not answered, and time out. */
  answersConnections: boolean;
  /** Connections of which an end is open. */
  readonly connectionCount: number;
  /** Lets `message` arrive at `to`, on the newest connection, as if the other end had sent it. */
  inject(message: RdmaMessage, to: RdmaEnd): void;
  /** Breaks all connections: both ends see `error`, or a reset. */
  cut(error?: Error): void;
}

export interface MemoryProviders {
  readonly initiator: RdmaProvider & { readonly memory: MemoryArenas };
  readonly target: RdmaProvider & { readonly memory: MemoryArenas };
  readonly wire: RdmaWire;
}

/** Two providers, each with memory of its own, that reach what listens on either. */
export function createMemoryProviders(options: MemoryProviderOptions = {}): MemoryProviders {
  const network = new MemoryNetwork(options);
  return { initiator: network.provider(), target: network.provider(), wire: network };
}

const FIRST_FREE_PORT = 49152;

interface Listening {
  readonly arenas: MemoryArenas;
  readonly onRequest: (request: ConnectionRequest) => void;
}

/** Someone who wants to connect, until that has come about or not. */
interface Connecting {
  readonly name: string;
  readonly options: RdmaConnectOptions;
  readonly events: QueuePairEvents;
  readonly arenas: MemoryArenas;
  isSettled: boolean;
  connected(queuePair: QueuePair): void;
  refused(why: string): void;
}

class MemoryNetwork implements RdmaWire {
  intercept: RdmaInterceptor | undefined;
  completionDelayMs: number;
  answersConnections = true;
  readonly #clock: Clock;
  readonly #latencyMs: number;
  readonly #fabric: string;
  readonly #protection: 'tag' | 'region';
  readonly #listeners = new Map<string, Listening>();
  readonly #connections = new Set<MemoryConnection>();
  #nextPort = FIRST_FREE_PORT;

  constructor(options: MemoryProviderOptions) {
    const { clock = soonClock, latencyMs = 0, completionDelayMs = 0, fabric = 'memory', protection = 'tag' } = options;
    this.#protection = protection;
    this.#clock = clock;
    this.#latencyMs = latencyMs;
    this.#fabric = fabric;
    this.completionDelayMs = completionDelayMs;
  }

  provider(): RdmaProvider & { readonly memory: MemoryArenas } {
    const arenas = new MemoryArenas();
    return {
      name: 'iwarp',
      memory: arenas,
      connect: (endpoint, options, events) => this.#connect(endpoint, options, events, arenas),
      listen: async (endpoint, onRequest) => this.#listen(endpoint, { arenas, onRequest }),
    };
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  inject(message: RdmaMessage, to: RdmaEnd): void {
    const newest = [...this.#connections].at(-1);
    if (newest === undefined) throw new Error('there is no connection to inject into');
    newest.inject(message, to);
  }

  cut(error: Error = new IserfsError('connection-lost', 'the connection was reset')): void {
    for (const connection of [...this.#connections]) connection.cut(error);
  }

  #listen(endpoint: Endpoint, listening: Listening): RdmaListener {
    const bound = { host: endpoint.host, port: endpoint.port === 0 ? this.#nextPort++ : endpoint.port };
    const name = formatPortal(bound);
    if (this.#listeners.has(name)) throw new IserfsError('bad-configuration', `cannot listen on ${name}: the address is in use`);
    this.#listeners.set(name, listening);
    return {
      endpoint: bound,
      close: async () => {
        this.#listeners.delete(name);
      },
    };
  }

  #connect(endpoint: Endpoint, options: RdmaConnectOptions, events: QueuePairEvents, arenas: MemoryArenas): Promise<QueuePair> {
    const name = formatPortal(endpoint);
    const { signal, timeoutMs } = options;
    return new Promise((resolve, reject) => {
      for (const { bytes } of options.receives) arenas.addressOf(bytes);
      const settle = () => {
        const wasSettled = connecting.isSettled;
        connecting.isSettled = true;
        signal?.removeEventListener('abort', onAbort);
        cancelTimeout();
        return !wasSettled;
      };
      const onAbort = () => {
        if (settle()) reject(new IserfsError('aborted', `connecting to ${name} was aborted`, { cause: signal?.reason }));
      };
      const connecting: Connecting = {
        name,
        options,
        events,
        arenas,
        isSettled: false,
        connected: (queuePair) => {
          if (settle()) resolve(queuePair);
        },
        refused: (why) => {
          if (settle()) reject(new IserfsError('unreachable', `cannot connect to ${name}: ${why}`));
        },
      };
      const cancelTimeout = this.#clock.schedule(timeoutMs, () => connecting.refused(`timed out after ${timeoutMs} ms`));
      if (signal?.aborted) {
        onAbort();
        return;
      }
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#clock.schedule(this.#latencyMs, () => this.#request(connecting));
    });
  }

  #request(connecting: Connecting): void {
    if (!this.answersConnections || connecting.isSettled) return;
    const listening = this.#listeners.get(connecting.name);
    const answer = (act: () => void) => this.#clock.schedule(this.#latencyMs, act);
    if (listening === undefined) {
      answer(() => connecting.refused('connection refused'));
      return;
    }
    const near = formatPortal({ host: '127.0.0.1', port: this.#nextPort++ });
    let isAnswered = false;
    listening.onRequest({
      remoteAddress: near,
      privateData: this.#privateDataOf(connecting.options),
      accept: async (options, events) => {
        if (isAnswered) throw new TypeError('the connection request was answered before');
        for (const { bytes } of options.receives) listening.arenas.addressOf(bytes);
        isAnswered = true;
        if (connecting.isSettled) throw new IserfsError('connection-lost', `${near} does not want to connect any more`);
        const connection = this.#join(connecting, near, listening.arenas, options, events);
        answer(() => {
          if (connecting.isSettled) connection.initiator.close('abrupt');
          else connecting.connected(connection.initiator);
        });
        return connection.target;
      },
      reject: () => {
        if (isAnswered) return;
        isAnswered = true;
        answer(() => connecting.refused('the connection was rejected'));
      },
    });
  }

  #privateDataOf({ privateData, privateDataWithoutInvalidation = privateData }: QueuePairOptions): Uint8Array {
    return this.#protection === 'region' ? privateDataWithoutInvalidation : privateData;
  }

  #join(
    connecting: Connecting,
    near: string,
    arenas: MemoryArenas,
    options: QueuePairOptions,
    events: QueuePairEvents,
  ): MemoryConnection {
    const common = {
      fabric: this.#fabric,
      protection: this.#protection,
      crc: connecting.options.crc,
      completionDelayMs: () => this.completionDelayMs,
      schedule: (delayMs: number, callback: () => void) => {
        this.#clock.schedule(delayMs, callback);
      },
    };
    const connection = new MemoryConnection({
      clock: this.#clock,
      latencyMs: this.#latencyMs,
      intercept: (message, from) => this.intercept?.(message, from),
      onClosed: () => this.#connections.delete(connection),
      makeEnd: (end, outlet, onClosed) => {
        const [own, peer] = end === 'initiator' ? [connecting.options, options] : [options, connecting.options];
        return new MemoryQueuePair({
          ...common,
          localAddress: end === 'initiator' ? near : connecting.name,
          remoteAddress: end === 'initiator' ? connecting.name : near,
          ird: Math.min(own.ird, peer.ord),
          ord: Math.min(own.ord, peer.ird),
          peerPrivateData: this.#privateDataOf(peer).slice(),
          options: own,
          events: end === 'initiator' ? connecting.events : events,
          arenas: end === 'initiator' ? connecting.arenas : arenas,
          outlet,
          onClosed,
        });
      },
    });
    this.#connections.add(connection);
    return connection;
  }
}

interface MemoryConnectionParts {
  readonly clock: Clock;
  readonly latencyMs: number;
  readonly intercept: RdmaInterceptor;
  /** Both ends are closed. */
  readonly onClosed: () => void;
  readonly makeEnd: (end: RdmaEnd, outlet: Outlet, onClosed: () => void) => MemoryQueuePair;
}

class MemoryConnection {
  readonly initiator: MemoryQueuePair;
  readonly target: MemoryQueuePair;
  readonly #toInitiator: Lane;
  readonly #toTarget: Lane;

  constructor({ clock, latencyMs, intercept, onClosed, makeEnd }: MemoryConnectionParts) {
    this.#toInitiator = new Lane(clock, latencyMs);
    this.#toTarget = new Lane(clock, latencyMs);
    let open = 2;
    const closed = () => {
      open--;
      if (open === 0) onClosed();
    };
    const outlet = (from: RdmaEnd, lane: Lane, peer: () => MemoryQueuePair): Outlet => ({
      send: (message, arrived) => {
        const deliveries = intercept(message, from) ?? [{ message }];
        if (deliveries.length === 0) lane.put(0, () => arrived('lost'));
        for (const [index, delivery] of deliveries.entries()) {
          const isLast = index === deliveries.length - 1;
          lane.put(delivery.delayMs ?? 0, () => {
            const isTaken = peer().arrive(delivery.message);
            if (isLast) arrived(isTaken ? 'taken' : 'refused');
          });
        }
      },
      end: (error) => lane.put(0, () => peer().ended(error)),
    });
    this.initiator = makeEnd(
      'initiator',
      outlet('initiator', this.#toTarget, () => this.target),
      closed,
    );
    this.target = makeEnd(
      'target',
      outlet('target', this.#toInitiator, () => this.initiator),
      closed,
    );
  }

  inject(message: RdmaMessage, to: RdmaEnd): void {
    const [lane, peer] = to === 'target' ? [this.#toTarget, this.target] : [this.#toInitiator, this.initiator];
    lane.put(0, () => peer.arrive(message));
  }

  cut(error: Error): void {
    this.initiator.ended(error);
    this.target.ended(error);
  }
}

/** One direction of a connection: everything arrives in the order in which it was put. */
class Lane {
  readonly #clock: Clock;
  readonly #latencyMs: number;
  readonly #queue: (() => void)[] = [];
  #lastDue = 0;

  constructor(clock: Clock, latencyMs: number) {
    this.#clock = clock;
    this.#latencyMs = latencyMs;
  }

  put(delayMs: number, arrive: () => void): void {
    const now = this.#clock.now();
    this.#lastDue = Math.max(this.#lastDue, now + this.#latencyMs + delayMs);
    this.#queue.push(arrive);
    // As many timers as entries: whichever fires first serves the first entry.
    this.#clock.schedule(this.#lastDue - now, () => this.#queue.shift()?.());
  }
}

/** Real time, in which what is due at once waits for no timer. */
const soonClock: Clock = {
  now: () => systemClock.now(),
  schedule: (delayMs, callback) => {
    if (delayMs > 0) return systemClock.schedule(delayMs, callback);
    const immediate = setImmediate(callback);
    return () => clearImmediate(immediate);
  },
};
