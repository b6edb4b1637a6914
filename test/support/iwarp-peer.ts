/**
 * The other end of an iWARP connection, played by a test frame by frame over an ordinary TCP socket. It keeps the numbers that a
 * proper endpoint would use and lets the test give others, sends what it is told in the portions it is told, and never reacts by
 * itself. Frames are `iwarp-codec.ts`'s affair.
 */

import { createServer, connect as netConnect, type Socket } from 'node:net';
import { setImmediate } from 'node:timers/promises';
import type { Endpoint } from '../../src/iser/datamover/datamover.ts';
import {
  decodeFpdu,
  decodeMpa,
  decodeReadRequest,
  decodeSegment,
  decodeTerminate,
  encodeFpdu,
  encodeMpa,
  encodeReadRequest,
  encodeSegment,
  encodeTerminate,
  enhancedPrivateData,
  type FpduOptions,
  type MpaFrame,
  Opcode,
  Queue,
  REPLY_KEY,
  REQUEST_KEY,
  type ReadDepths,
  type ReadRequest,
  type Segment,
  type SegmentFields,
  splitEnhanced,
  type TaggedSegment,
  type TerminateFields,
  terminateName,
  type UntaggedSegment,
} from './iwarp-codec.ts';

/** How long anything that must come is waited for. */
const PATIENCE_MS = 5000;

/** `whole`: as given. `bytes`: one byte after the other. `held`: nothing until `release`, then everything in one piece. */
export type Delivery = 'whole' | 'bytes' | 'held';

/** How a connection ended: in order, or broken. */
export type Ending = 'fin' | 'reset';

export interface MpaOptions extends Partial<Omit<MpaFrame, 'privateData'>> {
  /** `null`: no read depths in front of the private data, also in an enhanced frame. */
  readonly depths?: Partial<ReadDepths> | null;
  /** The ULP's; four bytes of iSER unless said otherwise. */
  readonly privateData?: Uint8Array;
}

/** A whole Send, of however many segments. */
export interface Message {
  readonly opcode: number;
  readonly invalidate: number;
  readonly msn: number;
  readonly payload: Uint8Array;
}

export class IwarpPeer implements AsyncDisposable {
  readonly #socket: Socket;
  #received = new Uint8Array(0);
  #ending: Ending | undefined;
  #wake: () => void = () => {};
  #held: Uint8Array[] = [];
  #sending: Promise<void> = Promise.resolve();
  readonly #nextMsn = new Map<number, number>();
  /** Whether FPDUs have a CRC, both ways. `connected` and `accepted` take it from the set-up. */
  crc = true;
  delivery: Delivery = 'whole';

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (data) => {
      this.#received = joined([this.#received, data]);
      this.#wake();
    });
    socket.on('end', () => this.#end('fin'));
    socket.on('error', () => this.#end('reset'));
    socket.on('close', () => this.#end('reset'));
  }

  /** A TCP connection and nothing more. */
  static async connect(endpoint: Endpoint): Promise<IwarpPeer> {
    const socket = netConnect({ host: endpoint.host, port: endpoint.port, allowHalfOpen: true });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new IwarpPeer(socket);
  }

  static async listen(): Promise<IwarpPeerListener> {
    const accepted: IwarpPeer[] = [];
    const waiting: ((peer: IwarpPeer) => void)[] = [];
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      const peer = new IwarpPeer(socket);
      const next = waiting.shift();
      if (next === undefined) accepted.push(peer);
      else next(peer);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no address');
    const next = () => new Promise<IwarpPeer>((resolve) => waiting.push(resolve));
    return {
      endpoint: { host: '127.0.0.1', port: address.port },
      accept: () => {
        const peer = accepted.shift();
        return peer === undefined ? within(next(), 'a connection') : Promise.resolve(peer);
      },
      [Symbol.asyncDispose]: async () => {
        for (const peer of accepted) await peer[Symbol.asyncDispose]();
        // Connections that were handed out are not its affair any more.
        server.close();
      },
    };
  }

  // ---- set-up ----

  sendRequest(options: MpaOptions = {}): void {
    this.sendBytes(mpaFrame(REQUEST_KEY, options));
  }

  sendReply(options: MpaOptions = {}): void {
    this.sendBytes(mpaFrame(REPLY_KEY, options));
  }

  /** The other end's request or reply. Leaves what follows. */
  async receiveMpa(): Promise<MpaFrame> {
    const { frame, length } = await this.#next(decodeMpa, 'an MPA frame');
    this.#received = this.#received.subarray(length);
    return frame;
  }

  /** The initiator's part of the set-up; resolves to the reply. */
  async connected(options: MpaOptions = {}): Promise<MpaFrame> {
    this.sendRequest(options);
    const reply = await this.receiveMpa();
    this.crc = reply.crc;
    return reply;
  }

  /** The responder's part of the set-up, CRC and read depths as the initiator wants them; resolves to the request. */
  async accepted(options: MpaOptions = {}): Promise<MpaFrame> {
    const request = await this.receiveMpa();
    const wanted = request.enhanced ? splitEnhanced(request.privateData).depths : undefined;
    const depths = wanted === undefined ? null : { ird: wanted.ord, ord: wanted.ird };
    this.sendReply({ crc: request.crc, revision: request.revision, enhanced: request.enhanced, depths, ...options });
    this.crc = options.crc ?? request.crc;
    return request;
  }

  // ---- sending ----

  sendBytes(bytes: Uint8Array): void {
    if (this.delivery === 'held') {
      this.#held.push(bytes);
      return;
    }
    const delivery = this.delivery;
    this.#sending = this.#sending.then(() => this.#deliver(bytes, delivery));
  }

  /** What was held leaves in one piece. */
  release(): void {
    const bytes = joined(this.#held);
    this.#held = [];
    this.delivery = 'whole';
    this.sendBytes(bytes);
  }

  sendFpdu(ulpdu: Uint8Array, options: Partial<FpduOptions> = {}): void {
    this.sendBytes(encodeFpdu(ulpdu, { crc: this.crc, ...options }));
  }

  sendSegment(fields: SegmentFields, options: Partial<FpduOptions> = {}): void {
    this.sendFpdu(encodeSegment(fields), options);
  }

  /** A Send in segments of at most `segmentLength` bytes, with the next MSN of its queue. */
  send(payload: Uint8Array, options: Partial<UntaggedSegment> & { readonly segmentLength?: number } = {}): void {
    const { segmentLength = 16 * 1024, ...fields } = options;
    const msn = options.msn ?? this.takeMsn(options.queue ?? Queue.send);
    for (const { offset, part, last } of portions(payload, segmentLength))
      this.sendSegment({
        opcode: Opcode.send,
        last,
        ...fields,
        tagged: false,
        msn,
        mo: (options.mo ?? 0) + offset,
        payload: part,
      });
  }

  /** An RDMA Write in segments of at most `segmentLength` bytes. */
  write(
    stag: number,
    to: bigint,
    payload: Uint8Array,
    options: Partial<TaggedSegment> & { readonly segmentLength?: number } = {},
  ): void {
    const { segmentLength = 16 * 1024, ...fields } = options;
    for (const { offset, part, last } of portions(payload, segmentLength))
      this.sendSegment({ opcode: Opcode.write, last, ...fields, tagged: true, stag, offset: to + BigInt(offset), payload: part });
  }

  readRequest(request: ReadRequest, options: Partial<UntaggedSegment> = {}): void {
    const queue = options.queue ?? Queue.readRequest;
    const msn = options.msn ?? this.takeMsn(queue);
    this.sendSegment({ opcode: Opcode.readRequest, payload: encodeReadRequest(request), ...options, tagged: false, queue, msn });
  }

  /** The answer to `request`, as it should be. */
  readResponse(request: ReadRequest, payload: Uint8Array, segmentLength = 16 * 1024): void {
    this.write(request.sinkTag, request.sinkOffset, payload, { opcode: Opcode.readResponse, segmentLength });
  }

  sendTerminate(fields: TerminateFields): void {
    this.sendSegment({ tagged: false, opcode: Opcode.terminate, queue: Queue.terminate, payload: encodeTerminate(fields) });
  }

  /** The MSN that the next message of `queue` should have, counting it as sent. */
  takeMsn(queue: number): number {
    const msn = this.#nextMsn.get(queue) ?? 1;
    this.#nextMsn.set(queue, (msn + 1) >>> 0);
    return msn;
  }

  // ---- receiving ----

  /** The next segment; rejects where the connection ends first, or the CRC is wrong. */
  async receiveSegment(): Promise<Segment> {
    const fpdu = await this.#next(decodeFpdu, 'an FPDU');
    this.#received = this.#received.subarray(fpdu.length);
    if (this.crc ? !fpdu.crcIsRight : fpdu.crc !== 0) throw new Error(`FPDU with the CRC field ${fpdu.crc.toString(16)}`);
    return decodeSegment(fpdu.ulpdu);
  }

  /** The next Send, put together; rejects where anything else comes. */
  async receiveMessage(): Promise<Message> {
    const parts: Uint8Array[] = [];
    let length = 0;
    for (;;) {
      const segment = await this.receiveSegment();
      if (segment.tagged || segment.queue !== Queue.send || segment.mo !== length)
        throw new Error(`not the segment of a Send that is due at ${length}: ${describeSegment(segment)}`);
      parts.push(segment.payload);
      length += segment.payload.length;
      if (segment.last)
        return { opcode: segment.opcode, invalidate: segment.invalidate, msn: segment.msn, payload: joined(parts) };
    }
  }

  async receiveReadRequest(): Promise<ReadRequest> {
    const segment = await this.receiveSegment();
    if (segment.tagged || segment.opcode !== Opcode.readRequest)
      throw new Error(`not a Read Request: ${describeSegment(segment)}`);
    return decodeReadRequest(segment.payload);
  }

  /** The payload of the next tagged message, put together; its segments must follow each other. */
  async receiveTagged(): Promise<{
    readonly opcode: number;
    readonly stag: number;
    readonly offset: bigint;
    readonly payload: Uint8Array;
  }> {
    const parts: TaggedSegment[] = [];
    for (;;) {
      const segment = await this.receiveSegment();
      const before = parts.at(-1);
      if (!segment.tagged) throw new Error(`not tagged: ${describeSegment(segment)}`);
      if (before !== undefined && segment.offset !== before.offset + BigInt(before.payload.length))
        throw new Error(`not the next segment: ${describeSegment(segment)}`);
      parts.push(segment);
      if (!segment.last) continue;
      const first = parts[0] ?? segment;
      const payload = joined(parts.map((part) => part.payload));
      return { opcode: first.opcode, stag: first.stag, offset: first.offset, payload };
    }
  }

  /** Reads on to the end of the connection: which error the other end named in a Terminate, and how it ended. */
  async verdict(): Promise<{
    readonly terminate: string | undefined;
    readonly details: TerminateFields | undefined;
    readonly ending: Ending;
  }> {
    const ending = await this.ended();
    let details: TerminateFields | undefined;
    for (;;) {
      const fpdu = decodeFpdu(this.#received);
      if (fpdu === undefined) break;
      this.#received = this.#received.subarray(fpdu.length);
      const segment = decodeSegment(fpdu.ulpdu);
      if (details !== undefined) throw new Error(`after its Terminate: ${describeSegment(segment)}`);
      if (segment.opcode === Opcode.terminate) details = decodeTerminate(segment.payload);
    }
    return { terminate: details === undefined ? undefined : terminateName(details), details, ending };
  }

  /** Until the other end closes or breaks the connection. */
  async ended(patienceMs = PATIENCE_MS): Promise<Ending> {
    while (this.#ending === undefined) await this.#activity('the end of the connection', patienceMs);
    return this.#ending;
  }

  /** Whether nothing can be sent any more, because the connection was reset. */
  get isBroken(): boolean {
    return this.#socket.destroyed;
  }

  /** Leaves what comes in the kernel, until `resume`; the other end finds no room for more some time. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Bytes that came and were not taken. */
  get unread(): Uint8Array {
    return this.#received;
  }

  // ---- ending ----

  /** FIN, after all that was sent. */
  async finish(): Promise<void> {
    await this.#sending;
    this.#socket.end();
  }

  /** RST, after all that was sent. */
  async reset(): Promise<void> {
    await this.#sending;
    this.#socket.resetAndDestroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sending;
    if (this.#socket.closed) return;
    const closed = new Promise<void>((resolve) => this.#socket.once('close', () => resolve()));
    this.#socket.destroy();
    await closed;
  }

  async #deliver(bytes: Uint8Array, delivery: Delivery): Promise<void> {
    if (delivery !== 'bytes') {
      this.#write(bytes);
      return;
    }
    for (let index = 0; index < bytes.length; index++) {
      this.#write(bytes.subarray(index, index + 1));
      await setImmediate();
    }
  }

  #write(bytes: Uint8Array): void {
    if (!this.#socket.destroyed) this.#socket.write(bytes);
  }

  async #next<T>(decode: (bytes: Uint8Array) => T | undefined, what: string): Promise<T> {
    for (;;) {
      const decoded = decode(this.#received);
      if (decoded !== undefined) return decoded;
      if (this.#ending !== undefined) throw new Error(`the connection ended (${this.#ending}) before ${what}`);
      await this.#activity(what);
    }
  }

  #activity(what: string, patienceMs = PATIENCE_MS): Promise<void> {
    const activity = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    return within(activity, what, patienceMs);
  }

  #end(ending: Ending): void {
    this.#ending ??= ending;
    this.#wake();
  }
}

export interface IwarpPeerListener extends AsyncDisposable {
  readonly endpoint: Endpoint;
  /** The next TCP connection that comes. */
  accept(): Promise<IwarpPeer>;
}

/** Rejects where `promise` takes longer than anything here should. */
export async function within<T>(promise: Promise<T>, what: string, milliseconds = PATIENCE_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${milliseconds} ms in vain for ${what}`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function mpaFrame(key: string, options: MpaOptions): Uint8Array {
  const { depths, privateData = Uint8Array.of(0x80, 0, 0, 0), ...fields } = options;
  const enhanced = options.enhanced ?? (options.revision ?? 2) === 2;
  const all = enhanced && depths !== null ? enhancedPrivateData(depths ?? {}, privateData) : privateData;
  return encodeMpa({ key, ...fields, privateData: all });
}

/** `payload` cut; one empty part where it is empty. */
function* portions(payload: Uint8Array, length: number): Generator<{ offset: number; part: Uint8Array; last: boolean }> {
  for (let offset = 0; offset === 0 || offset < payload.length; offset += length) {
    const part = payload.subarray(offset, offset + length);
    yield { offset, part, last: offset + length >= payload.length };
  }
}

/** A copy of all, in one piece. */
function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.concat(parts));
}

function describeSegment(segment: Segment): string {
  const { payload, ...fields } = segment;
  const shown = Object.entries(fields).map(
    ([name, value]) => `${name} ${typeof value === 'boolean' ? value : value.toString(16)}`,
  );
  return `${shown.join(', ')}, ${payload.length} bytes`;
}
