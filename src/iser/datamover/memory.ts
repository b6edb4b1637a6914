/**
 * Both ends of a transport inside one process, for tests and wherever no network is wanted: the stream
 * data movers over a wire in memory that a test can meddle with. Every PDU is encoded and read back, so
 * framing, digests and sequencing are the same as on TCP; only the sockets are missing. Time is the
 * given clock's: with a virtual one nothing moves unless the test moves it.
 */

import type { Clock } from '../../clock.ts';
import { IserfsError } from '../../errors.ts';
import { formatPortal } from '../iscsi/name.ts';
import type { Pdu } from '../iscsi/pdu.ts';
import type { ByteChannel, ChannelUser, OutgoingPdu } from './byte-channel.ts';
import type {
  ConnectOptions,
  Endpoint,
  InitiatorDatamover,
  InitiatorHandler,
  InitiatorTransport,
  TargetDatamover,
  TargetHandler,
  TargetListener,
  TargetTransport,
} from './datamover.ts';
import { type Digests, encodePdu } from './pdu-batch.ts';
import { StreamInitiator } from './stream-initiator.ts';
import { type StreamOptions, streamOptions } from './stream-options.ts';
import { StreamTarget } from './stream-target.ts';

export type WireEnd = 'initiator' | 'target';

/** One PDU as it is to arrive. */
export interface Delivery {
  readonly pdu: Pdu;
  /** On top of the wire's latency; what is sent later is not held up by it. */
  readonly delayMs?: number;
  /** A bit of the encoded PDU to be inverted, counted from its first byte's most significant: what a digest is for. */
  readonly flipBit?: number;
}

/** Decides what becomes of a PDU: `[]` drops it, two deliveries duplicate it, another PDU replaces it, undefined lets it pass. */
export type Interceptor = (pdu: Pdu, from: WireEnd) => readonly Delivery[] | undefined;

export interface MemoryOptions {
  /** Default: as soon as possible, without waiting for any time. */
  readonly clock?: Clock;
  /** How long a PDU, or the news of an end, is on its way. */
  readonly latencyMs?: number;
  readonly intercept?: Interceptor;
  readonly initiatorOptions?: Partial<StreamOptions>;
  readonly targetOptions?: Partial<StreamOptions>;
}

/** The test's hand on all connections of a pair. */
export interface MemoryWire {
  intercept: Interceptor | undefined;
  /** False: attempts to connect are not answered, and time out. */
  answersConnections: boolean;
  /** Connections that are open. */
  readonly connectionCount: number;
  /** Lets `pdu` arrive at `to`, on the newest connection, as if the other end had sent it. */
  inject(pdu: Pdu, to: WireEnd): void;
  /** Breaks all connections: both ends see `error`, or a reset. */
  cut(error?: Error): void;
}

export interface MemoryPair {
  readonly initiator: InitiatorTransport;
  readonly target: TargetTransport;
  readonly wire: MemoryWire;
}

/** A pair of transports of which one reaches what listens on the other. */
export function createMemoryPair(options: MemoryOptions = {}): MemoryPair {
  const network = new MemoryNetwork(options);
  return {
    initiator: { name: 'tcp', connect: (endpoint, handler, connecting) => network.connect(endpoint, handler, connecting) },
    target: { name: 'tcp', listen: (endpoint, accept) => network.listen(endpoint, accept) },
    wire: network,
  };
}

/** A sender is told to wait while this much is on its way or not taken yet. */
const WINDOW_LENGTH = 256 * 1024;
const FIRST_FREE_PORT = 49152;

interface MemoryConnection {
  readonly initiator: MemoryChannel;
  readonly target: MemoryChannel;
  readonly digestsOf: (end: WireEnd) => Digests;
}

type Schedule = (delayMs: number, callback: () => void) => void;

class MemoryNetwork implements MemoryWire {
  intercept: Interceptor | undefined;
  answersConnections = true;
  readonly #schedule: Schedule;
  readonly #latencyMs: number;
  readonly #initiatorOptions: StreamOptions;
  readonly #targetOptions: StreamOptions;
  readonly #listeners = new Map<string, (datamover: TargetDatamover) => TargetHandler>();
  readonly #connections = new Set<MemoryConnection>();
  #nextPort = FIRST_FREE_PORT;

  constructor({ clock, latencyMs = 0, intercept, initiatorOptions = {}, targetOptions = {} }: MemoryOptions) {
    this.#schedule = clock === undefined ? scheduleSoon : (delayMs, callback) => clock.schedule(delayMs, callback);
    this.#latencyMs = latencyMs;
    this.intercept = intercept;
    this.#initiatorOptions = streamOptions(initiatorOptions);
    this.#targetOptions = streamOptions(targetOptions);
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  inject(pdu: Pdu, to: WireEnd): void {
    const newest = [...this.#connections].at(-1);
    if (newest === undefined) throw new Error('there is no connection to inject into');
    const from = to === 'target' ? 'initiator' : 'target';
    newest[from].inject(pdu, newest.digestsOf(from));
  }

  cut(error: Error = new IserfsError('connection-lost', 'the connection was reset')): void {
    for (const { initiator, target } of [...this.#connections]) {
      initiator.cut(error);
      target.cut(error);
    }
  }

  async listen(endpoint: Endpoint, accept: (datamover: TargetDatamover) => TargetHandler): Promise<TargetListener> {
    const bound = { host: endpoint.host, port: endpoint.port === 0 ? this.#nextPort++ : endpoint.port };
    const name = formatPortal(bound);
    if (this.#listeners.has(name)) throw new IserfsError('bad-configuration', `cannot listen on ${name}: the address is in use`);
    this.#listeners.set(name, accept);
    return {
      endpoint: bound,
      close: async () => {
        this.#listeners.delete(name);
      },
    };
  }

  connect(endpoint: Endpoint, handler: InitiatorHandler, { signal, timeoutMs }: ConnectOptions): Promise<InitiatorDatamover> {
    const name = formatPortal(endpoint);
    return new Promise((resolve, reject) => {
      const onAbort = () => reject(new IserfsError('aborted', `connecting to ${name} was aborted`, { cause: signal?.reason }));
      const unreachable = (why: string) => reject(new IserfsError('unreachable', `cannot connect to ${name}: ${why}`));
      if (signal?.aborted) {
        onAbort();
        return;
      }
      signal?.addEventListener('abort', onAbort, { once: true });
      const roundTripMs = 2 * this.#latencyMs;
      const isAnswered = this.answersConnections && roundTripMs <= timeoutMs;
      this.#schedule(isAnswered ? roundTripMs : timeoutMs, () => {
        signal?.removeEventListener('abort', onAbort);
        if (signal?.aborted) return;
        const accept = this.#listeners.get(name);
        if (!isAnswered) unreachable(`timed out after ${timeoutMs} ms`);
        else if (accept === undefined) unreachable('connection refused');
        else resolve(this.#join(name, handler, accept));
      });
    });
  }

  #join(name: string, handler: InitiatorHandler, accept: (datamover: TargetDatamover) => TargetHandler): InitiatorDatamover {
    const initiator = new StreamInitiator('memory', handler, this.#initiatorOptions);
    const target = new StreamTarget('memory', this.#targetOptions);
    const near = formatPortal({ host: '127.0.0.1', port: this.#nextPort++ });
    const ends: MemoryConnection = {
      digestsOf: (end) => (end === 'initiator' ? initiator : target).digests,
      initiator: new MemoryChannel(near, name, initiator, this.#schedule, this.#latencyMs, (pdu) =>
        this.intercept?.(pdu, 'initiator'),
      ),
      target: new MemoryChannel(name, near, target, this.#schedule, this.#latencyMs, (pdu) => this.intercept?.(pdu, 'target')),
    };
    const forget = () => {
      if (ends.initiator.isClosed && ends.target.isClosed) this.#connections.delete(ends);
    };
    ends.initiator.join(ends.target, forget);
    ends.target.join(ends.initiator, forget);
    this.#connections.add(ends);
    target.open(ends.target);
    initiator.open(ends.initiator);
    target.attach(accept(target));
    return initiator;
  }
}

class MemoryChannel implements ByteChannel {
  readonly localAddress: string;
  readonly remoteAddress: string;
  readonly #user: ChannelUser;
  readonly #schedule: Schedule;
  readonly #latencyMs: number;
  readonly #intercept: (pdu: Pdu) => readonly Delivery[] | undefined;
  #peer: MemoryChannel | undefined;
  #onClosed: () => void = () => {};
  /** What has arrived and is not taken yet; `undefined` is the peer's end. */
  readonly #arrived: (Uint8Array | undefined)[] = [];
  /** Bytes on their way to this end, or arrived. */
  #backlog = 0;
  /** The peer's write that waits for room here. */
  #waitingWriter: (() => void) | undefined;
  #isPaused = false;
  #isPumping = false;
  #hasEnded = false;
  #hasPeerEnded = false;
  isClosed = false;

  constructor(
    localAddress: string,
    remoteAddress: string,
    user: ChannelUser,
    schedule: Schedule,
    latencyMs: number,
    intercept: (pdu: Pdu) => readonly Delivery[] | undefined,
  ) {
    this.localAddress = localAddress;
    this.remoteAddress = remoteAddress;
    this.#user = user;
    this.#schedule = schedule;
    this.#latencyMs = latencyMs;
    this.#intercept = intercept;
  }

  join(peer: MemoryChannel, onClosed: () => void): void {
    this.#peer = peer;
    this.#onClosed = onClosed;
  }

  /** Each PDU by itself, since each may be intercepted: as they come together, they are the segments. */
  write(_segments: readonly Uint8Array[], pdus: readonly OutgoingPdu[], written: () => void): boolean {
    if (this.isClosed) return false;
    for (const { pdu, digests } of pdus) {
      for (const delivery of this.#intercept(pdu) ?? [{ pdu }]) {
        const bytes = join(encodePdu(delivery.pdu, digests));
        const { flipBit } = delivery;
        if (flipBit !== undefined) bytes[flipBit >>> 3] = (bytes[flipBit >>> 3] ?? 0) ^ (0x80 >>> (flipBit & 7));
        this.#send(bytes, delivery.delayMs ?? 0);
      }
    }
    const done = () => {
      if (!this.isClosed) written();
    };
    this.#schedule(0, () => {
      const peer = this.#peer;
      if (peer === undefined || peer.isClosed || peer.#backlog <= WINDOW_LENGTH) done();
      else peer.#waitingWriter = done;
    });
    return false;
  }

  inject(pdu: Pdu, digests: Digests): void {
    this.#send(join(encodePdu(pdu, digests)), 0);
  }

  pauseReading(): void {
    this.#isPaused = true;
  }

  resumeReading(): void {
    this.#isPaused = false;
    this.#schedule(0, () => this.#pump());
  }

  end(): void {
    if (this.#hasEnded || this.isClosed) return;
    this.#hasEnded = true;
    this.#schedule(this.#latencyMs, () => this.#peer?.arrive(undefined));
    if (this.#hasPeerEnded) this.destroy();
  }

  destroy(): void {
    if (this.isClosed) return;
    this.end();
    if (!this.isClosed) this.#close(undefined);
  }

  cut(error: Error): void {
    if (!this.isClosed) this.#close(error);
  }

  arrive(bytes: Uint8Array | undefined): void {
    if (this.isClosed) return;
    this.#arrived.push(bytes);
    this.#pump();
  }

  #send(bytes: Uint8Array, delayMs: number): void {
    const peer = this.#peer;
    if (peer === undefined) return;
    peer.#backlog += bytes.length;
    this.#schedule(this.#latencyMs + delayMs, () => peer.arrive(bytes));
  }

  #close(error: Error | undefined): void {
    this.isClosed = true;
    this.#arrived.length = 0;
    this.#releaseWriter();
    this.#onClosed();
    this.#schedule(0, () => this.#user.closed(error));
  }

  #pump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    while (!this.#isPaused && !this.isClosed && this.#arrived.length > 0) {
      const bytes = this.#arrived[0];
      if (bytes === undefined) {
        this.#arrived.shift();
        this.#hasPeerEnded = true;
        this.#user.ended();
        if (this.#hasEnded && !this.isClosed) this.destroy();
        continue;
      }
      const buffer = this.#user.nextBuffer();
      const count = Math.min(buffer.length, bytes.length);
      buffer.set(bytes.subarray(0, count));
      if (count === bytes.length) this.#arrived.shift();
      else this.#arrived[0] = bytes.subarray(count);
      this.#backlog -= count;
      if (!this.#user.filled(count)) this.#isPaused = true;
    }
    this.#isPumping = false;
    if (this.#backlog <= WINDOW_LENGTH) this.#releaseWriter();
  }

  #releaseWriter(): void {
    const writer = this.#waitingWriter;
    this.#waitingWriter = undefined;
    if (writer !== undefined) this.#schedule(0, writer);
  }
}

function join(segments: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(segments.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const segment of segments) {
    joined.set(segment, at);
    at += segment.length;
  }
  return joined;
}

function scheduleSoon(delayMs: number, callback: () => void): void {
  if (delayMs === 0) setImmediate(callback);
  else setTimeout(callback, delayMs);
}
