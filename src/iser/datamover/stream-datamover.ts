/**
 * What both roles of the data mover over a byte stream share: the queue of PDUs to send, written in
 * batches and with backpressure, the reader, pauses, and the end of the connection. It knows PDUs and
 * bytes; which data PDUs are due is the subclass's affair, and the bytes' way the channel's.
 *
 * Control PDUs overtake queued data, so that a keepalive does not wait behind megabytes; among
 * themselves they keep their order. The handler is called from the channel's events and from microtasks
 * only, never from inside of a method, and not any more after `connectionTerminated`.
 */

import { IserfsError } from '../../errors.ts';
import type { Pdu } from '../iscsi/pdu.ts';
import type { ByteChannel, ChannelUser, OutgoingPdu } from './byte-channel.ts';
import { type DataParameters, type KeyOffers, MAX_TRANSFER_LENGTH, type Traits } from './datamover.ts';
import { endsLogin } from './end-of-login.ts';
import { type Digests, NO_DIGESTS, PduBatch } from './pdu-batch.ts';
import { type DigestPolicy, type StreamOptions, streamKeyOffers } from './stream-options.ts';
import { PduReader, type PduSink, type Placement } from './tcp-framer.ts';

/** A batch is closed when it has this many bytes: more would only delay a control PDU that comes after it. */
const BATCH_LENGTH = 512 * 1024;
/** Reading stops while more than this waits to be sent: a peer that asks without taking answers is left to wait. */
const MAX_QUEUED_PDUS = 4096;
const MAX_QUEUED_BYTES = 4 * 1024 * 1024;

/** Why nothing is read at present. */
type Pause =
  /** Login is over, and what the next PDU looks like is not known before `enable()`. */
  | 'enable'
  /** A status must not go up while data of its task is on its way out. */
  | 'held-status'
  | 'full-queue';

type State =
  | 'open'
  /** Orderly termination: what is queued is being sent, nothing is handed up. */
  | 'draining'
  /** The channel is closing. */
  | 'closing'
  | 'closed';

/** A PDU with memory that belongs to someone: `token` goes to `sent()` when the memory is free again. */
interface QueuedPdu<Token> extends OutgoingPdu {
  readonly token: Token | undefined;
}

export abstract class StreamDatamover<Token> implements ChannelUser, PduSink {
  readonly transport: string;
  readonly maxTransferLength = MAX_TRANSFER_LENGTH;
  protected readonly reader: PduReader;
  readonly #options: StreamOptions;
  #channel: ByteChannel | undefined;
  #state: State = 'open';
  #failure: Error | undefined;
  readonly #pauses = new Set<Pause>();
  #isEnabled = false;
  #digests: Digests = NO_DIGESTS;

  #control: QueuedPdu<Token>[] = [];
  #controlBytes = 0;
  #isFlushScheduled = false;
  /** What the channel has not sent yet. */
  #writing: { readonly batch: PduBatch; readonly pdus: readonly QueuedPdu<Token>[] } | undefined;

  readonly #closed: Promise<void>;
  #resolveClosed: () => void = () => {};

  constructor(transport: string, peer: 'initiator' | 'target', options: StreamOptions) {
    this.transport = transport;
    this.#options = options;
    this.reader = new PduReader(peer, this);
    this.#closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  /** To be called once, before the channel calls anything. */
  open(channel: ByteChannel): void {
    this.#channel = channel;
  }

  get traits(): Traits {
    return {};
  }

  /** Those of the PDUs that it sends at present. */
  get digests(): Digests {
    return this.#digests;
  }

  get localAddress(): string {
    return this.channel.localAddress;
  }

  get remoteAddress(): string {
    return this.channel.remoteAddress;
  }

  keyOffers(sessionType: 'normal' | 'discovery'): KeyOffers {
    return streamKeyOffers(this.#options, sessionType);
  }

  /** Throws `login-refused` where a digest that the options require was not agreed on. */
  enable(parameters: DataParameters): void {
    requireDigest('HeaderDigest', this.#options.headerDigest, parameters.headerDigest);
    requireDigest('DataDigest', this.#options.dataDigest, parameters.dataDigest);
    this.#isEnabled = true;
    this.#digests = { header: parameters.headerDigest, data: parameters.dataDigest };
    this.reader.configure(this.#digests, parameters.maxRecvDataSegmentLength);
    this.enableSequence(parameters);
    this.resumeFrom('enable');
  }

  terminate(mode: 'orderly' | 'abrupt'): Promise<void> {
    if (mode === 'abrupt') this.#close();
    else if (this.#state === 'open') {
      this.#state = 'draining';
      this.channel.resumeReading();
      this.scheduleFlush();
    }
    return this.#closed;
  }

  // ---- for the subclass ----

  protected abstract enableSequence(parameters: DataParameters): void;
  /** A complete PDU, while the connection is open. */
  protected abstract deliver(pdu: Pdu): void;
  abstract begin(header: Pdu, length: number): Placement;
  /** Whether a control PDU must wait until data before it is sent. */
  protected abstract isBlocked(pdu: Pdu): boolean;
  /** The next data PDU that is due, if any. */
  protected abstract nextData(): { readonly pdu: Pdu; readonly token: Token | undefined } | undefined;
  /** The memory of `token` is not referenced any more by one PDU. */
  protected abstract sent(token: Token): void;
  /** Nothing is referenced any more: everything under way is to be dropped. */
  protected abstract clear(reason: Error): void;
  protected abstract notifyTermination(error: Error | undefined): void;

  protected get isOpen(): boolean {
    return this.#state === 'open';
  }

  protected get channel(): ByteChannel {
    if (this.#channel === undefined) throw new Error('the data mover has no channel yet');
    return this.#channel;
  }

  protected enqueue(pdu: Pdu, token: Token | undefined): void {
    const isLogin = pdu.opcode === 'login-request' || pdu.opcode === 'login-response';
    const digests = isLogin ? NO_DIGESTS : this.#digests;
    this.#control.push({ pdu, token, digests });
    if (token === undefined) this.#controlBytes += pdu.data.length;
    if (this.#control.length > MAX_QUEUED_PDUS || this.#controlBytes > MAX_QUEUED_BYTES) this.pauseFor('full-queue');
    if (!this.#isEnabled && endsLogin(pdu)) this.pauseFor('enable');
    this.scheduleFlush();
  }

  /** Copies what is queued with memory of `token`, so that it is not referenced from here. Returns how many PDUs that were. */
  protected copyQueued(token: Token): number {
    let count = 0;
    this.#control = this.#control.map((queued) => {
      if (queued.token !== token) return queued;
      count++;
      this.#controlBytes += queued.pdu.data.length;
      return { ...queued, pdu: { ...queued.pdu, data: queued.pdu.data.slice() }, token: undefined };
    });
    return count;
  }

  /** Has what is due sent, soon: what is queued in the same turn goes out in one batch. */
  protected scheduleFlush(): void {
    if (this.#isFlushScheduled || this.#writing !== undefined) return;
    this.#isFlushScheduled = true;
    // As by `queueMicrotask`, which in Node makes an asynchronous resource each time.
    void NOW.then(this.#flushSoon);
  }

  protected pauseFor(reason: Pause): void {
    if (this.#state !== 'open') return;
    this.#pauses.add(reason);
    this.reader.pause();
    this.channel.pauseReading();
  }

  protected resumeFrom(reason: Pause): void {
    if (this.#pauses.size === 0 || !this.#pauses.delete(reason) || this.#pauses.size > 0) return;
    queueMicrotask(() => {
      if (this.#state !== 'open' || this.#pauses.size > 0) return;
      try {
        this.reader.resume();
      } catch (error) {
        this.fail(error);
        return;
      }
      if (this.#goesOnReading()) this.channel.resumeReading();
    });
  }

  /** Drops the connection for `error`. */
  protected fail(error: unknown): void {
    if (this.#state === 'closing' || this.#state === 'closed') return;
    this.#failure = error instanceof Error ? error : new Error(String(error));
    this.#close();
  }

  // ---- the channel's calls ----

  nextBuffer(): Uint8Array {
    return this.#state === 'open' ? this.reader.nextBuffer() : DRAIN;
  }

  furtherBuffer(): Uint8Array | undefined {
    return this.#state === 'open' ? this.reader.furtherBuffer() : undefined;
  }

  filled(count: number): boolean {
    if (this.#state !== 'open') return true;
    try {
      this.reader.filled(count);
    } catch (error) {
      this.fail(error);
      return false;
    }
    return this.#goesOnReading();
  }

  received(chunk: Uint8Array): boolean {
    if (this.#state !== 'open') return true;
    try {
      this.reader.receive(chunk);
    } catch (error) {
      this.fail(error);
      return false;
    }
    return this.#goesOnReading();
  }

  ended(): void {
    if (this.#state === 'draining') return; // what is queued goes out all the same
    if (this.#state === 'open' && this.reader.isWithinPdu) {
      this.fail(new IserfsError('connection-lost', `${this.remoteAddress} closed the connection in the middle of a PDU`));
    }
    this.#close();
  }

  closed(error?: Error): void {
    if (this.#state === 'closed') return;
    const reason = this.#failure ?? (this.#state === 'open' ? error : undefined);
    this.#state = 'closed';
    this.reader.release();
    this.#control = [];
    this.#writing = undefined;
    this.#pauses.clear();
    this.clear(new IserfsError('connection-lost', `the connection to ${this.remoteAddress} is gone`, { cause: reason }));
    this.#resolveClosed();
    this.notifyTermination(reason);
  }

  /** From the reader. */
  receive(pdu: Pdu): void {
    if (this.#state !== 'open') return;
    this.deliver(pdu);
    if (!this.#isEnabled && endsLogin(pdu)) this.pauseFor('enable');
  }

  #goesOnReading(): boolean {
    return this.#state !== 'open' || !this.reader.isPaused;
  }

  readonly #flushSoon = () => {
    this.#isFlushScheduled = false;
    this.#flush();
  };

  #flush(): void {
    while (this.#writing === undefined && (this.#state === 'open' || this.#state === 'draining')) {
      const batch = PduBatch.take();
      let pdus: QueuedPdu<Token>[];
      try {
        pdus = this.#nextBatch(batch);
      } catch (error) {
        this.fail(error);
        return;
      }
      if (pdus.length === 0) {
        batch.release();
        if (this.#state === 'draining') this.channel.end();
        return;
      }
      this.#writing = { batch, pdus };
      if (this.channel.write(batch.segments, pdus, this.#writtenLater)) this.#written();
      if (this.#control.length <= MAX_QUEUED_PDUS / 2 && this.#controlBytes <= MAX_QUEUED_BYTES / 2)
        this.resumeFrom('full-queue');
    }
  }

  readonly #writtenLater = () => {
    this.#written();
    this.#flush();
  };

  #written(): void {
    if (this.#writing === undefined) return;
    const { batch, pdus } = this.#writing;
    this.#writing = undefined;
    batch.release();
    try {
      for (const { token } of pdus) if (token !== undefined) this.sent(token);
    } catch (error) {
      this.fail(error);
    }
  }

  #nextBatch(batch: PduBatch): QueuedPdu<Token>[] {
    const pdus: QueuedPdu<Token>[] = [];
    let controlTaken = 0;
    while (batch.length < BATCH_LENGTH && !batch.isFull) {
      let next: QueuedPdu<Token>;
      const control = this.#control[controlTaken];
      if (control !== undefined && !this.isBlocked(control.pdu)) {
        controlTaken++;
        if (control.token === undefined) this.#controlBytes -= control.pdu.data.length;
        next = control;
      } else {
        const data = this.nextData();
        if (data === undefined) break;
        next = { pdu: data.pdu, token: data.token, digests: this.#digests };
      }
      batch.add(next.pdu, next.digests);
      pdus.push(next);
    }
    if (controlTaken === this.#control.length) this.#control = [];
    else if (controlTaken > 0) this.#control.splice(0, controlTaken);
    return pdus;
  }

  #close(): void {
    if (this.#state === 'closing' || this.#state === 'closed') return;
    this.#state = 'closing';
    this.channel.destroy();
  }
}

const NOW = Promise.resolve();

/** Where bytes go that nobody wants any more. */
const DRAIN = new Uint8Array(64 * 1024);

function requireDigest(key: string, policy: DigestPolicy, isAgreed: boolean): void {
  if (policy !== 'require' || isAgreed) return;
  throw new IserfsError('login-refused', `the peer refused ${key}=CRC32C, which is required`, {
    hint: 'Allow CRC32C digests on the other side, or ask for "prefer" or "none" here.',
  });
}
