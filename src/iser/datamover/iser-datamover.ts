/**
 * What both roles of the iSER data mover share (RFC 7145): receive buffers and their reposting, the queue of work
 * requests that waits for room, the login's end, and the end of the connection. It knows messages and queue pairs;
 * which work is due and what a PDU means to a task is the subclass's affair.
 *
 * Work is posted in the order in which it is queued, and the fabric keeps that order: a status that is queued after
 * data arrives after it. There is no credit on the wire (RFC 7145 §8): a message for which no receive is posted
 * ends the connection on most fabrics, so each role posts one for whatever its peer may send unasked, and the
 * initiator counts what it asks for.
 *
 * The handler is called from the queue pair's events and from microtasks only, never from inside of a method, and
 * not any more after `connectionTerminated`.
 */

import { IserfsError, ProtocolError } from '../../errors.ts';
import { MAX_LOGIN_DATA } from '../iscsi/login-exchange.ts';
import type { Pdu } from '../iscsi/pdu.ts';
import type {
  Completion,
  PostedReceive,
  Protection,
  ProviderName,
  QueuePair,
  QueuePairEvents,
  QueuePairOptions,
} from '../rdma/provider.ts';
import { type DataParameters, type KeyOffers, MAX_TRANSFER_LENGTH, type Traits } from './datamover.ts';
import { endsLogin } from './end-of-login.ts';
import type { IserBuffers, MessageBuffer } from './iser-buffers.ts';
import { allowsRemoteInvalidate, encodeCmHeader, PLAIN_HEADER } from './iser-header.ts';
import { decodeMessage, encodeMessage, type IserMessage, MESSAGE_HEADER_LENGTH } from './iser-message.ts';
import { type IserOptions, iserKeyOffers } from './iser-options.ts';
import { MessageSend, PendingWork, type Work } from './iser-work.ts';

/** Receives beyond those that are counted: keepalives, asynchronous messages, rejects, and what need not be answered. */
export const UNEXPECTED_MESSAGES = 16;
/** Work requests besides receives that are posted at a time. */
const SEND_DEPTH = 256;

type State =
  | 'open'
  /** Orderly termination: what is queued is being posted, nothing is handed up. */
  | 'draining'
  /** The queue pair is closing. */
  | 'closing'
  | 'closed';

/** A message that has arrived, in the receive buffer with that number. */
interface Arrival {
  readonly receive: number;
  readonly length: number;
  readonly invalidated: number | undefined;
}

export interface IserDatamoverParts {
  readonly transport: ProviderName;
  readonly options: IserOptions;
  readonly buffers: IserBuffers;
}

export abstract class IserDatamover<W extends Work> implements QueuePairEvents {
  readonly transport: ProviderName;
  readonly maxTransferLength = MAX_TRANSFER_LENGTH;
  protected readonly options: IserOptions;
  protected readonly buffers: IserBuffers;
  #queuePair: QueuePair | undefined;
  #state: State = 'open';
  #failure: Error | undefined;
  #isEnabled = false;
  /** Login is over, and what follows must wait for `enable()`. */
  #awaitsEnable = false;
  #longestData = MAX_LOGIN_DATA;

  /** By their numbers. */
  readonly #receives: MessageBuffer[] = [];
  readonly #arrived: Arrival[] = [];
  /** Messages that are queued or on their way, commands not counted. */
  #unsent = 0;
  /** Receives that are not posted again before the peer takes what is sent to it. */
  readonly #keptBack: number[] = [];
  /** That of the message being handed up. */
  #receiving: number | undefined;
  readonly #pending = new PendingWork();
  #queue: W[] = [];

  readonly #closed: Promise<void>;
  #resolveClosed: () => void = () => {};

  constructor({ transport, options, buffers }: IserDatamoverParts, receiveCount: number) {
    this.transport = transport;
    this.options = options;
    this.buffers = buffers;
    for (let index = 0; index < receiveCount; index++) this.#receives.push(buffers.acquireMessage());
    this.#closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  /** What the connection is to be made with. */
  get queuePairOptions(): QueuePairOptions {
    const receives: PostedReceive[] = this.#receives.map(({ bytes }, id) => ({ id, bytes }));
    return {
      sendDepth: SEND_DEPTH,
      receiveDepth: receives.length,
      advertisementDepth: this.advertisementDepth,
      ird: this.options.ird,
      ord: this.options.ord,
      crc: this.options.crc,
      privateData: encodeCmHeader({ sendWithInvalidate: true }),
      privateDataWithoutInvalidation: encodeCmHeader({ sendWithInvalidate: false }),
      receives,
    };
  }

  /** To be called once, before the first event. */
  open(queuePair: QueuePair): void {
    this.#queuePair = queuePair;
  }

  /** Instead of `open`: no connection came about, and nothing refers to the receive buffers. */
  abandon(): void {
    this.#state = 'closed';
    this.#releaseReceives();
    this.#resolveClosed();
  }

  get traits(): Traits {
    const { device, fabric, ird, ord, crc, protection } = this.queuePair;
    return {
      device,
      fabric,
      ird,
      ord,
      ...(crc === undefined ? {} : { crc: crc ? 'CRC32C' : 'off' }),
      'remote invalidate': this.isRemoteInvalidateOn ? 'on' : 'off',
      protection: protectionTexts[protection],
    };
  }

  get localAddress(): string {
    return this.queuePair.localAddress;
  }

  get remoteAddress(): string {
    return this.queuePair.remoteAddress;
  }

  keyOffers(sessionType: 'normal' | 'discovery'): KeyOffers {
    return iserKeyOffers(this.options, sessionType);
  }

  /** Throws `login-refused` where a digest was agreed on, or RDMAExtensions was not: data could not be moved then. */
  enable(parameters: DataParameters): void {
    if (parameters.rdmaExtensions === false) {
      throw new IserfsError('login-refused', 'the peer takes part in no iSER: it did not agree to RDMAExtensions=Yes', {
        hint: 'Ask for this target over TCP.',
      });
    }
    if (parameters.headerDigest || parameters.dataDigest) {
      throw new IserfsError('login-refused', 'the login ended with digests, which iSER does not have');
    }
    this.enableRole(parameters);
    this.#isEnabled = true;
    this.#longestData = parameters.maxRecvDataSegmentLength;
    if (!this.#awaitsEnable) return;
    this.#awaitsEnable = false;
    queueMicrotask(() => this.#deliverArrived());
  }

  terminate(mode: 'orderly' | 'abrupt'): Promise<void> {
    if (mode === 'abrupt') this.#closeAbruptly();
    else if (this.#state === 'open') {
      this.#state = 'draining';
      this.#awaitsEnable = false;
      this.pump();
    }
    return this.#closed;
  }

  // ---- for the subclass ----

  /** Advertisements that may be in force at a time. */
  protected abstract get advertisementDepth(): number;
  protected abstract enableRole(parameters: DataParameters): void;
  /** Whether `work`, the first in the queue, may be posted now; `pump()` asks again. */
  protected abstract mayPost(work: W): boolean;
  /** A message in its turn; `invalidated` is the tag that the peer revoked with it. */
  protected abstract receive(message: IserMessage, invalidated: number | undefined): void;
  /** Nothing is referenced any more: everything under way is to be dropped. All work has ended. */
  protected abstract clear(reason: Error): void;
  protected abstract notifyTermination(error: Error | undefined): void;

  /** Whether something may be handed up, or asked for. */
  protected get isOpen(): boolean {
    return this.#state === 'open';
  }

  protected get queuePair(): QueuePair {
    if (this.#queuePair === undefined) throw new Error('the data mover has no connection yet');
    return this.#queuePair;
  }

  /** Whether the target revokes with its status what the initiator has advertised for the command. */
  protected get isRemoteInvalidateOn(): boolean {
    return allowsRemoteInvalidate(this.queuePair.privateData);
  }

  protected enqueue(work: W): void {
    this.#queue.push(work);
    this.pump();
  }

  /**
   * A Send of `pdu`, which is copied. Throws RangeError where its data is longer than any that may be sent.
   * `invalidate` is a tag of the peer's to be revoked with it.
   */
  protected messageSend(pdu: Pdu, invalidate?: number): MessageSend {
    const buffer = this.buffers.acquireMessage();
    const room = buffer.bytes.length - MESSAGE_HEADER_LENGTH - pdu.ahs.length;
    if (pdu.data.length <= room) {
      const length = encodeMessage(buffer.bytes, PLAIN_HEADER, pdu);
      this.#unsent++;
      return new MessageSend(buffer, length, invalidate, () => {
        this.#unsent--;
      });
    }
    buffer.release();
    throw new RangeError(`${pdu.opcode} with ${pdu.data.length} bytes of data where a message has room for ${room}`);
  }

  /** To be called for a PDU that is queued: the end of login holds up what comes after it. */
  protected noteSent(pdu: Pdu): void {
    if (!this.#isEnabled && endsLogin(pdu)) this.#awaitsEnable = true;
  }

  /** Takes work out of the queue that must not be posted any more; it ends without being done. */
  protected withdraw(isConcerned: (work: W) => boolean): void {
    const withdrawn = this.#queue.filter(isConcerned);
    if (withdrawn.length === 0) return;
    this.#queue = this.#queue.filter((work) => !withdrawn.includes(work));
    for (const work of withdrawn) work.ended(false);
  }

  /** The buffer of the message that is being received: its memory stays as it is until the buffer is released. */
  protected keepMessage(): MessageBuffer {
    const index = this.#receiving;
    const buffer = index === undefined ? undefined : this.#receives[index];
    if (index === undefined || buffer === undefined) throw new Error('no message is being received');
    this.#receives[index] = this.buffers.acquireMessage();
    return buffer;
  }

  /** Posts what is queued, as far as it may be posted. */
  protected pump(): void {
    while (this.#state === 'open' || this.#state === 'draining') {
      const work = this.#queue[0];
      if (work === undefined) {
        if (this.#state === 'draining') this.#closeOrderly();
        return;
      }
      if (this.#pending.count >= SEND_DEPTH || !this.mayPost(work)) return;
      this.#queue.shift();
      const id = this.#pending.add(work);
      try {
        work.post(this.queuePair, id);
      } catch (error) {
        this.#pending.take(id);
        work.ended(false);
        this.fail(error);
      }
    }
  }

  /** Drops the connection for `error`. */
  protected fail(error: unknown): void {
    if (this.#state === 'closing' || this.#state === 'closed') return;
    this.#failure = error instanceof Error ? error : new Error(String(error));
    this.#closeAbruptly();
  }

  protected goneError(reason?: Error): IserfsError {
    return new IserfsError('connection-lost', `the connection to ${this.remoteAddress} is gone`, { cause: reason });
  }

  // ---- the queue pair's events ----

  completed({ id, opcode, status, length, invalidated }: Completion): void {
    if (opcode === 'receive') {
      if (status !== 'success' || !this.#takesMessages) return;
      this.#arrived.push({ receive: id, length, invalidated });
    } else {
      try {
        this.#pending.take(id).ended(status === 'success');
        this.#postReceives();
      } catch (error) {
        this.fail(error);
      }
    }
    this.#deliverArrived();
  }

  batchEnded(): void {
    this.pump();
  }

  closed(error: Error | undefined): void {
    if (this.#state === 'closed') return;
    const reason = this.#failure ?? (this.#state === 'open' ? error : undefined);
    this.#state = 'closed';
    this.#arrived.length = 0;
    for (const work of this.#queue.splice(0)) work.ended(false);
    this.#releaseReceives();
    this.clear(this.goneError(reason));
    this.#resolveClosed();
    this.notifyTermination(reason);
  }

  get #takesMessages(): boolean {
    return this.#state === 'open' || this.#state === 'draining';
  }

  #deliverArrived(): void {
    while (this.#takesMessages && !this.#awaitsEnable) {
      const arrival = this.#arrived.shift();
      if (arrival === undefined) return;
      try {
        this.#deliver(arrival);
      } catch (error) {
        this.fail(error);
        return;
      }
    }
  }

  #deliver({ receive, length, invalidated }: Arrival): void {
    const message = decodeMessage(this.#receiveBuffer(receive).subarray(0, length));
    const { pdu } = message;
    if (pdu.data.length > this.#longestData) {
      throw new ProtocolError(
        `${pdu.opcode} with ${pdu.data.length} bytes of data where at most ${this.#longestData} may come`,
        'RFC 7145 §6',
      );
    }
    this.#receiving = receive;
    this.receive(message, invalidated);
    this.#receiving = undefined;
    if (!this.#isEnabled && this.#state === 'open' && endsLogin(pdu)) this.#awaitsEnable = true;
    this.#keptBack.push(receive);
    this.#postReceives();
  }

  /**
   * Posts receives again. Not while more answers wait than a peer can have asked for that takes them: one that only
   * asks would have this end hold an answer for each. It finds no receive in the end, by which the connection ends.
   */
  #postReceives(): void {
    while (this.#takesMessages && this.#unsent <= this.#receives.length) {
      const receive = this.#keptBack.pop();
      if (receive === undefined) return;
      this.queuePair.postReceive(receive, this.#receiveBuffer(receive));
    }
  }

  #receiveBuffer(index: number): Uint8Array {
    const buffer = this.#receives[index];
    if (buffer === undefined) throw new Error(`no receive ${index} was posted`);
    return buffer.bytes;
  }

  #releaseReceives(): void {
    for (const buffer of this.#receives.splice(0)) buffer.release();
  }

  #closeOrderly(): void {
    this.#state = 'closing';
    this.queuePair.close('orderly');
  }

  #closeAbruptly(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closing';
    this.queuePair.close('abrupt');
  }
}

const protectionTexts: Readonly<Record<Protection, string>> = {
  tag: 'tag per command',
  window: 'memory window per command',
  region: 'memory region per command',
};
