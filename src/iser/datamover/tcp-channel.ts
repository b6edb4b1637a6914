/**
 * A connected `node:net` socket as a `ByteChannel`. Holds Node's traps: writes are corked into one
 * system call; 'error' may come after destroy; a socket that is closed only on
 * one side is not left behind.
 */

import type { Socket } from 'node:net';
import { IserfsError } from '../../errors.ts';
import { formatPortal } from '../iscsi/name.ts';
import type { ByteChannel, ChannelUser, OutgoingPdu } from './byte-channel.ts';
import { faultText } from './socket-fault.ts';

/** How long an orderly end may take before the socket is destroyed. */
const LINGER_MS = 2000;

export class TcpChannel implements ByteChannel {
  readonly localAddress: string;
  readonly remoteAddress: string;
  #socket: Socket | undefined;
  readonly #user: ChannelUser;
  #error: Error | undefined;
  #linger: NodeJS.Timeout | undefined;

  /** `receiving`: whether the socket was made with `onread`, or its 'data' events are to be used. */
  constructor(socket: Socket, user: ChannelUser, receiving: 'onread' | 'data-events') {
    this.#socket = socket;
    this.#user = user;
    this.localAddress = formatPortal({ host: plainAddress(socket.localAddress), port: socket.localPort ?? 0 });
    this.remoteAddress = formatPortal({ host: plainAddress(socket.remoteAddress), port: socket.remotePort ?? 0 });
    socket.on('error', (error) => {
      this.#error ??= error;
    });
    socket.on('end', () => user.ended());
    socket.on('close', () => this.#closed());
    if (receiving === 'data-events') {
      socket.on('data', (chunk: Buffer) => {
        // A Buffer's `slice` does not copy: what goes up is a plain Uint8Array, whose does.
        if (!user.received(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length))) socket.pause();
      });
    }
  }

  write(segments: readonly Uint8Array[], _pdus: readonly OutgoingPdu[], written: () => void): void {
    const socket = this.#socket;
    if (socket === undefined || socket.destroyed) return;
    if (segments.length === 1) {
      socket.write(segments[0] as Uint8Array, (error) => error ?? written());
      return;
    }
    socket.cork();
    for (let index = 0; index < segments.length; index++) {
      const isLast = index === segments.length - 1;
      socket.write(segments[index] as Uint8Array, isLast ? (error) => error ?? written() : undefined);
    }
    socket.uncork();
  }

  pauseReading(): void {
    this.#socket?.pause();
  }

  resumeReading(): void {
    this.#socket?.resume();
  }

  takeBackBuffer(): boolean {
    // Node offers no public way to exchange the buffer of `onread` before it is filled. Where this one is
    // missing, the caller drops the connection, which frees the buffer as well.
    const handle = (this.#socket as unknown as { readonly _handle?: { useUserBuffer?(buffer: Uint8Array): void } } | undefined)
      ?._handle;
    if (typeof handle?.useUserBuffer !== 'function') return false;
    handle.useUserBuffer(this.#user.nextBuffer());
    return true;
  }

  end(): void {
    const socket = this.#socket;
    if (socket === undefined || this.#linger !== undefined) return;
    this.#linger = setTimeout(() => socket.destroy(), LINGER_MS);
    socket.end();
  }

  destroy(): void {
    this.#socket?.destroy();
  }

  #closed(): void {
    clearTimeout(this.#linger);
    this.#socket = undefined;
    const error = this.#error;
    if (error === undefined) this.#user.closed();
    else {
      const message = `the connection to ${this.remoteAddress} was lost: ${faultText(error)}`;
      this.#user.closed(new IserfsError('connection-lost', message));
    }
  }
}

/** Without the form that IPv4 addresses have on an IPv6 socket. */
function plainAddress(address: string | undefined): string {
  return address?.replace(/^::ffff:(?=\d+\.)/, '') ?? '';
}
