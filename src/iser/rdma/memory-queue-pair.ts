/**
 * One end of a connection inside the process: what `provider.ts` promises of a queue pair, with the strictness of
 * hardware. Memory of the sender is read when a message arrives, not when it is posted, and completions come
 * later still: who touches a buffer too early is found out. It knows its peer, a way to send messages there, and the
 * time; connections come about elsewhere.
 */

import { IserfsError, ProtocolError } from '../../errors.ts';
import type { MemoryArenas } from './memory-arenas.ts';
import type {
  Advertisement,
  Completion,
  CompletionStatus,
  Opcode,
  QueuePair,
  QueuePairEvents,
  QueuePairOptions,
  RemoteMemory,
} from './provider.ts';

/** What travels. `bytes` are the sender's own until it arrives. */
export type RdmaMessage =
  | { readonly type: 'send'; readonly bytes: Uint8Array; readonly invalidate?: number | undefined }
  | { readonly type: 'write'; readonly bytes: Uint8Array; readonly to: RemoteMemory }
  | { readonly type: 'read-request'; readonly from: RemoteMemory; readonly length: number; readonly read: number }
  | { readonly type: 'read-response'; readonly bytes: Uint8Array; readonly read: number };

/** The way to the peer. */
export interface Outlet {
  /** Takes `message` there, after all that was sent before it; then `arrived` is told what became of it. */
  send(message: RdmaMessage, arrived: (outcome: 'taken' | 'refused' | 'lost') => void): void;
  /** The peer learns, after all that was sent before it, that there is nothing more: for `error`, if any. */
  end(error: Error | undefined): void;
}

export interface QueuePairParts {
  readonly localAddress: string;
  readonly remoteAddress: string;
  readonly fabric: string;
  readonly protection: 'tag' | 'region';
  readonly ird: number;
  readonly ord: number;
  readonly crc: boolean;
  readonly peerPrivateData: Uint8Array;
  readonly options: QueuePairOptions;
  readonly events: QueuePairEvents;
  readonly arenas: MemoryArenas;
  readonly outlet: Outlet;
  /** How long after the arrival of a Send or a Write the sender hears of it. */
  readonly completionDelayMs: () => number;
  readonly schedule: (delayMs: number, callback: () => void) => void;
  readonly onClosed: () => void;
}

interface Request {
  readonly id: number;
  readonly opcode: Exclude<Opcode, 'receive'>;
  readonly length: number;
}

interface ReadRequest extends Request {
  readonly sink: Uint8Array;
  readonly from: RemoteMemory;
}

interface InForce {
  readonly bytes: Uint8Array;
  readonly address: number;
  readonly access: 'remote-write' | 'remote-read';
}

type State =
  | 'open'
  /** Orderly close: what was posted is on its way. */
  | 'draining'
  /** The peer has been told. */
  | 'ending'
  | 'closed';

export class MemoryQueuePair implements QueuePair {
  readonly device = 'memory';
  readonly protection: 'tag' | 'region';
  readonly canPeerInvalidate: boolean;
  readonly fabric: string;
  readonly localAddress: string;
  readonly remoteAddress: string;
  readonly ird: number;
  readonly ord: number;
  readonly crc: boolean;
  readonly privateData: Uint8Array;
  readonly #parts: QueuePairParts;
  #state: State = 'open';
  readonly #receives: { readonly id: number; readonly bytes: Uint8Array }[] = [];
  readonly #requests = new Set<Request>();
  /** Sent and not answered, by their numbers on the wire; and those that wait for one of them to end. */
  readonly #reads = new Map<number, ReadRequest>();
  readonly #waitingReads: ReadRequest[] = [];
  #nextRead = 1;
  readonly #advertised = new Map<number, InForce>();
  #nextTag = 0x1000;
  #completions: Completion[] = [];
  #isNotifying = false;
  #isOver = false;
  #error: Error | undefined;

  constructor(parts: QueuePairParts) {
    this.#parts = parts;
    this.protection = parts.protection;
    this.canPeerInvalidate = parts.protection === 'tag';
    this.fabric = parts.fabric;
    this.localAddress = parts.localAddress;
    this.remoteAddress = parts.remoteAddress;
    this.ird = parts.ird;
    this.ord = parts.ord;
    this.crc = parts.crc;
    this.privateData = parts.peerPrivateData;
    for (const { id, bytes } of parts.options.receives) this.postReceive(id, bytes);
  }

  // ---- for its user ----

  postReceive(id: number, bytes: Uint8Array): void {
    this.#parts.arenas.addressOf(bytes);
    if (this.#state === 'closed') {
      this.#complete(id, 'receive', 'flushed', 0);
      return;
    }
    if (this.#receives.length >= this.#parts.options.receiveDepth) throw new RangeError('more receives than receiveDepth');
    this.#receives.push({ id, bytes });
  }

  postSend(id: number, first: Uint8Array, second?: Uint8Array, invalidate?: number): void {
    this.#parts.arenas.addressOf(first);
    if (second !== undefined) this.#parts.arenas.addressOf(second);
    const request = this.#post({ id, opcode: 'send', length: first.length + (second?.length ?? 0) });
    if (request === undefined) return;
    this.#send(request, {
      type: 'send',
      get bytes() {
        return second === undefined ? first : Buffer.concat([first, second]);
      },
      invalidate,
    });
  }

  postWrite(id: number, bytes: Uint8Array, to: RemoteMemory): void {
    this.#parts.arenas.addressOf(bytes);
    const request = this.#post({ id, opcode: 'write', length: bytes.length });
    if (request !== undefined) this.#send(request, { type: 'write', bytes, to });
  }

  postRead(id: number, bytes: Uint8Array, from: RemoteMemory): void {
    this.#parts.arenas.addressOf(bytes);
    const request = this.#post({ id, opcode: 'read', length: bytes.length, sink: bytes, from } satisfies ReadRequest);
    if (request === undefined) return;
    this.#waitingReads.push(request);
    this.#sendReads();
  }

  advertise(bytes: Uint8Array, access: 'remote-write' | 'remote-read'): Advertisement {
    const address = this.#parts.arenas.addressOf(bytes);
    if (this.#advertised.size >= this.#parts.options.advertisementDepth) {
      throw new RangeError('more advertisements than advertisementDepth');
    }
    const tag = this.#nextTag++;
    this.#advertised.set(tag, { bytes, address, access });
    return { tag, address };
  }

  revoke(tag: number): void {
    this.#advertised.delete(tag);
  }

  close(mode: 'orderly' | 'abrupt'): void {
    if (this.#state === 'closed') return;
    if (mode === 'abrupt') {
      this.#parts.outlet.end(resetError());
      this.#finish(undefined);
    } else if (this.#state === 'open') {
      this.#state = 'draining';
      this.#endWhenDrained();
    }
  }

  // ---- for the wire ----

  /** Returns false where the message breaks a rule: the connection ends then. */
  arrive(message: RdmaMessage): boolean {
    if (this.#state === 'closed') return true;
    try {
      this.#take(message);
      return true;
    } catch (error) {
      this.#parts.outlet.end(new IserfsError('connection-lost', `the peer ended the connection: ${String(error)}`));
      this.#finish(error as Error);
      return false;
    }
  }

  /** The peer, or whatever is in between, has ended the connection. */
  ended(error: Error | undefined): void {
    if (this.#state === 'closed') return;
    if (this.#state !== 'ending') this.#parts.outlet.end(undefined);
    this.#finish(error);
  }

  #take(message: RdmaMessage): void {
    switch (message.type) {
      case 'send':
        this.#takeSend(message.bytes, message.invalidate);
        return;
      case 'write':
        if (message.bytes.length > 0) this.#memoryFor(message.to, message.bytes.length, 'remote-write').set(message.bytes);
        return;
      case 'read-request': {
        const { from, length, read } = message;
        const bytes = length === 0 ? new Uint8Array(0) : this.#memoryFor(from, length, 'remote-read').slice();
        this.#parts.outlet.send({ type: 'read-response', bytes, read }, () => {});
        return;
      }
      case 'read-response':
        this.#takeReadResponse(message.bytes, message.read);
        return;
      default:
        message satisfies never;
    }
  }

  #takeSend(bytes: Uint8Array, invalidate: number | undefined): void {
    const receive = this.#receives[0];
    if (receive === undefined) throw new ProtocolError('a message for which no receive is posted');
    if (bytes.length > receive.bytes.length) {
      throw new ProtocolError(`a message of ${bytes.length} bytes where the receive has ${receive.bytes.length}`);
    }
    if (invalidate !== undefined && !(this.canPeerInvalidate && this.#advertised.delete(invalidate))) {
      const why = this.canPeerInvalidate ? 'is not in force' : 'the peer cannot revoke';
      throw new ProtocolError(`a Send with Invalidate of tag 0x${invalidate.toString(16)}, which ${why}`);
    }
    this.#receives.shift();
    receive.bytes.set(bytes);
    this.#complete(receive.id, 'receive', 'success', bytes.length, invalidate);
  }

  #takeReadResponse(bytes: Uint8Array, read: number): void {
    const request = this.#reads.get(read);
    if (request === undefined || bytes.length !== request.length)
      throw new ProtocolError('a Read Response that nobody asked for');
    this.#reads.delete(read);
    request.sink.set(bytes);
    this.#completeRequest(request, 'success');
    this.#sendReads();
  }

  #memoryFor({ tag, address }: RemoteMemory, length: number, access: 'remote-write' | 'remote-read'): Uint8Array {
    const inForce = this.#advertised.get(tag);
    const name = `tag 0x${tag.toString(16)}`;
    if (inForce === undefined) throw new ProtocolError(`an access with ${name}, which is not in force`);
    if (inForce.access !== access) throw new ProtocolError(`an access with ${name}, which is not for that`);
    const offset = address - BigInt(inForce.address);
    if (offset < 0n || offset + BigInt(length) > BigInt(inForce.bytes.length)) {
      throw new ProtocolError(`an access of ${length} bytes beyond the bounds of ${name}`);
    }
    return inForce.bytes.subarray(Number(offset), Number(offset) + length);
  }

  // ---- requests ----

  #post<R extends Request>(request: R): R | undefined {
    if (this.#state !== 'open') {
      this.#complete(request.id, request.opcode, 'flushed', request.length);
      return undefined;
    }
    if (this.#requests.size >= this.#parts.options.sendDepth) throw new RangeError('more work requests than sendDepth');
    this.#requests.add(request);
    return request;
  }

  #send(request: Request, message: RdmaMessage): void {
    this.#parts.outlet.send(message, (outcome) => {
      if (outcome === 'refused') {
        this.#completeRequest(request, 'failed');
        return;
      }
      this.#parts.schedule(this.#parts.completionDelayMs(), () => this.#completeRequest(request, 'success'));
    });
  }

  #sendReads(): void {
    while (this.#reads.size < this.ord) {
      const request = this.#waitingReads.shift();
      if (request === undefined) return;
      const read = this.#nextRead++;
      this.#reads.set(read, request);
      this.#parts.outlet.send({ type: 'read-request', from: request.from, length: request.length, read }, (outcome) => {
        if (outcome === 'refused') this.#completeRequest(request, 'failed');
      });
    }
  }

  #completeRequest(request: Request, status: CompletionStatus): void {
    if (!this.#requests.delete(request)) return; // flushed before
    this.#complete(request.id, request.opcode, status, request.length);
    this.#endWhenDrained();
  }

  // ---- end ----

  #endWhenDrained(): void {
    if (this.#state !== 'draining' || this.#requests.size > 0) return;
    this.#state = 'ending';
    this.#parts.outlet.end(undefined);
  }

  #finish(error: Error | undefined): void {
    this.#state = 'closed';
    this.#error = error;
    for (const { id, opcode, length } of this.#requests) this.#complete(id, opcode, 'flushed', length);
    for (const { id } of this.#receives.splice(0)) this.#complete(id, 'receive', 'flushed', 0);
    this.#requests.clear();
    this.#reads.clear();
    this.#waitingReads.length = 0;
    this.#advertised.clear();
    this.#parts.onClosed();
    this.#notify();
  }

  // ---- events ----

  #complete(id: number, opcode: Opcode, status: CompletionStatus, length: number, invalidated?: number): void {
    if (this.#isOver) return; // what is posted after the last event has nobody to tell
    this.#completions.push({ id, opcode, status, length, invalidated });
    this.#notify();
  }

  #notify(): void {
    if (this.#isNotifying) return;
    this.#isNotifying = true;
    this.#parts.schedule(0, () => {
      this.#isNotifying = false;
      const batch = this.#completions;
      this.#completions = [];
      const { events } = this.#parts;
      for (const completion of batch) events.completed(completion);
      if (batch.length > 0) events.batchEnded();
      if (this.#state !== 'closed' || this.#isOver) return;
      if (this.#completions.length > 0) return; // posted meanwhile: they come first
      this.#isOver = true;
      events.closed(this.#error);
    });
  }
}

function resetError(): IserfsError {
  return new IserfsError('connection-lost', 'the connection was reset');
}
