/**
 * What the stream data mover asks of a connection: a reliable stream of bytes that says where it wants
 * them put. `tcp.ts` makes one of a socket, `memory.ts` one inside the process. Types and their contract.
 */

import type { Pdu } from '../iscsi/pdu.ts';
import type { Digests } from './pdu-batch.ts';

/** A PDU on its way out, and how it is encoded. */
export interface OutgoingPdu {
  readonly pdu: Pdu;
  readonly digests: Digests;
}

export interface ByteChannel {
  /** `ADDRESS:PORT` of the two ends. */
  readonly localAddress: string;
  readonly remoteAddress: string;
  /**
   * Sends all segments in order; `pdus` says what they are. They are borrowed until `written`, which is never
   * called from inside of this method, and not at all once the channel is closed. One call at a time.
   */
  write(segments: readonly Uint8Array[], pdus: readonly OutgoingPdu[], written: () => void): void;
  /** Nothing is received until `resumeReading()`. */
  pauseReading(): void;
  resumeReading(): void;
  /**
   * The buffer that `nextBuffer()` named last must not be filled: another one is asked for at once.
   * Returns false where that cannot be done.
   */
  takeBackBuffer(): boolean;
  /** Closes our direction after what was written; then waits a bounded time for the peer to close its own. */
  end(): void;
  /** Closes at once. On return no memory of any segment or buffer is referenced. `closed` follows, later. */
  destroy(): void;
}

/** What a channel calls, never from inside of one of its own methods (`nextBuffer` excepted). */
export interface ChannelUser {
  /** Where the next bytes go. */
  nextBuffer(): Uint8Array;
  /** `count` bytes have been put there. Returns whether to go on reading. */
  filled(count: number): boolean;
  /** Instead of the two: bytes in memory of the channel's own that it does not use again. Returns whether to go on reading. */
  received(chunk: Uint8Array): boolean;
  /** The peer has closed its direction. */
  ended(): void;
  /** The channel is closed and references nothing; the last call, made once. */
  closed(error?: Error): void;
}
