/**
 * A connected socket as a `ByteChannel`, by way of the addon: bytes are received straight into the memory that the
 * user names, in the moment in which it names it, and sent from where they lie. So nothing is lent, unless a write has
 * to wait for room, and a payload comes with the header behind it in one call of the system.
 */

import type { Socket } from 'node:net';
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import { type AddonStream, openStream } from '../rdma/addon.ts';
import { type ByteChannel, type ChannelUser, LINGER_MS, type OutgoingPdu } from './byte-channel.ts';
import { connectionLost, socketAddresses } from './socket-fault.ts';

const { EAGAIN } = constants.errno;
/** Events of `AddonStream.watch`. */
const READABLE = 1;
const WRITABLE = 2;
/** So many reads; then others have their turn. */
const READS_PER_TURN = 16;

export class NativeChannel implements ByteChannel {
  readonly localAddress: string;
  readonly remoteAddress: string;
  readonly #user: ChannelUser;
  readonly #stream: AddonStream;
  #watched = 0;
  #isReading = true;
  /** The peer has closed its direction. */
  #hasPeerEnded = false;
  /** What of a write has found no room, and whom to tell when it has. */
  #unsent: readonly Uint8Array[] = [];
  #written: (() => void) | undefined;
  #linger: NodeJS.Timeout | undefined;
  #isClosed = false;

  /**
   * Takes a socket over from Node, of which nothing was read yet; what is left of it closes by itself. Undefined, and the
   * socket as it was, where there is no addon, or Node does not tell which descriptor it is.
   */
  static takeOver(socket: Socket, user: ChannelUser): NativeChannel | undefined {
    const descriptor = descriptorOf(socket);
    if (descriptor === undefined) return undefined;
    let channel: NativeChannel | undefined;
    const stream = openStream(descriptor, (isReadable, isWritable) => {
      if (channel !== undefined) channel.#ready(isReadable, isWritable);
    });
    if (stream === undefined) return undefined;
    channel = new NativeChannel(stream, socketAddresses(socket), user);
    socket.on('error', () => {});
    socket.destroy();
    return channel;
  }

  private constructor(stream: AddonStream, addresses: { readonly local: string; readonly remote: string }, user: ChannelUser) {
    this.#stream = stream;
    this.localAddress = addresses.local;
    this.remoteAddress = addresses.remote;
    this.#user = user;
    this.#watch();
  }

  write(segments: readonly Uint8Array[], _pdus: readonly OutgoingPdu[], written: () => void): boolean {
    if (this.#isClosed) return false;
    if (this.#send(segments)) return true;
    if (this.#isClosed) return false;
    this.#written = written;
    this.#watch();
    return false;
  }

  pauseReading(): void {
    this.#isReading = false;
    this.#watch();
  }

  resumeReading(): void {
    this.#isReading = true;
    this.#watch();
  }

  end(): void {
    if (this.#isClosed || this.#linger !== undefined) return;
    this.#stream.endSending();
    if (this.#hasPeerEnded) this.#close();
    else this.#linger = setTimeout(() => this.#close(), LINGER_MS);
  }

  destroy(): void {
    this.#close();
  }

  #watch(): void {
    if (this.#isClosed) return;
    const events = (this.#isReading && !this.#hasPeerEnded ? READABLE : 0) | (this.#written === undefined ? 0 : WRITABLE);
    if (events !== this.#watched) this.#stream.watch(events);
    this.#watched = events;
  }

  #ready(isReadable: boolean, isWritable: boolean): void {
    // Before a send may find the connection reset: what came before that is still there.
    if (isReadable) this.#receive();
    if (isWritable) this.#sendRest();
  }

  #sendRest(): void {
    const written = this.#written;
    if (written === undefined || !this.#send(this.#unsent)) return;
    this.#written = undefined;
    written();
    this.#watch();
  }

  /** Whether all of it has gone; else the rest is `#unsent`, or the connection is lost. */
  #send(segments: readonly Uint8Array[]): boolean {
    let left = segments;
    while (left.length > 0) {
      const count = this.#stream.send(left.length === 1 ? (left[0] as Uint8Array) : left);
      if (count < 0) {
        if (count === -EAGAIN) this.#unsent = left;
        else this.#close(count);
        return false;
      }
      left = without(left, count);
    }
    this.#unsent = left;
    return true;
  }

  /** What has come, as far as it does not fill more reads than a turn has. */
  #receive(): void {
    for (let reads = 0; reads < READS_PER_TURN && this.#isReading && !this.#isClosed; reads++) {
      const buffer = this.#user.nextBuffer();
      const further = this.#user.furtherBuffer();
      const count = this.#stream.receive(buffer, further);
      if (count <= 0) {
        if (count === 0) this.#peerEnded();
        else if (count !== -EAGAIN) this.#close(count);
        return;
      }
      if (!this.#user.filled(count)) this.pauseReading();
      if (count < buffer.length + (further?.length ?? 0)) return;
    }
  }

  #peerEnded(): void {
    this.#hasPeerEnded = true;
    this.#watch();
    this.#user.ended();
    if (this.#linger !== undefined) this.#close();
  }

  /** `fault`: `-errno`. */
  #close(fault?: number): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#linger);
    this.#unsent = [];
    this.#written = undefined;
    this.#stream.close();
    setImmediate(() => this.#user.closed(fault === undefined ? undefined : connectionLost(this.remoteAddress, faultOf(fault))));
  }
}

/** Node has it, though its documentation does not say so; where it is no number, there is another way. */
function descriptorOf(socket: Socket): number | undefined {
  const { _handle: handle } = socket as unknown as { readonly _handle?: { readonly fd?: unknown } | null };
  const descriptor = handle?.fd;
  return typeof descriptor === 'number' && descriptor >= 0 ? descriptor : undefined;
}

const NOTHING: readonly Uint8Array[] = [];

/** What is left of `segments` after their first `count` bytes. */
function without(segments: readonly Uint8Array[], count: number): readonly Uint8Array[] {
  let index = 0;
  let left = count;
  for (let segment = segments[0]; segment !== undefined && left >= segment.length; segment = segments[index]) {
    left -= segment.length;
    index++;
  }
  if (index === segments.length) return NOTHING;
  const [first, ...rest] = segments.slice(index) as [Uint8Array, ...Uint8Array[]];
  return [first.subarray(left), ...rest];
}

/** As Node's own errors are. */
function faultOf(fault: number): Error {
  const code = getSystemErrorName(fault);
  return Object.assign(new Error(code), { code });
}
