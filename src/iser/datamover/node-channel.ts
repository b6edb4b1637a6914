/**
 * A connected `node:net` socket as a `ByteChannel`, for where there is no addon. Holds Node's traps: writes are
 * corked into one system call; 'error' may come after destroy; a socket that is closed only on one side is not
 * left behind. What it receives comes in memory of Node's, and is copied into its place.
 */

import type { Socket } from 'node:net';
import { type ByteChannel, type ChannelUser, LINGER_MS, type OutgoingPdu } from './byte-channel.ts';
import { connectionLost, socketAddresses } from './socket-fault.ts';

export class NodeChannel implements ByteChannel {
  readonly localAddress: string;
  readonly remoteAddress: string;
  #socket: Socket | undefined;
  readonly #user: ChannelUser;
  #error: Error | undefined;
  #linger: NodeJS.Timeout | undefined;

  constructor(socket: Socket, user: ChannelUser) {
    this.#socket = socket;
    this.#user = user;
    const { local, remote } = socketAddresses(socket);
    this.localAddress = local;
    this.remoteAddress = remote;
    socket.on('error', (error) => {
      this.#error ??= error;
    });
    socket.on('end', () => user.ended());
    socket.on('close', () => this.#closed());
    socket.on('data', (chunk: Buffer) => {
      // A Buffer's `slice` does not copy: what goes up is a plain Uint8Array, whose does.
      if (!user.received(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length))) socket.pause();
    });
  }

  write(segments: readonly Uint8Array[], _pdus: readonly OutgoingPdu[], written: () => void): boolean {
    const socket = this.#socket;
    if (socket === undefined || socket.destroyed) return false;
    socket.cork();
    for (let index = 0; index < segments.length; index++) {
      const isLast = index === segments.length - 1;
      socket.write(segments[index] as Uint8Array, isLast ? (error) => error ?? written() : undefined);
    }
    socket.uncork();
    return false;
  }

  pauseReading(): void {
    this.#socket?.pause();
  }

  resumeReading(): void {
    this.#socket?.resume();
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
    this.#user.closed(error === undefined ? undefined : connectionLost(this.remoteAddress, error));
  }
}
