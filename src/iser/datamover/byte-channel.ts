/**
 * What the stream data mover asks of a connection: a reliable stream of bytes that says where it wants
 * them put. `native-channel.ts` and `node-channel.ts` make one of a socket, `memory.ts` one inside the process.
 * Types and their contract.
 */

import type { Pdu } from '../iscsi/pdu.ts';
import type { Digests } from './pdu-batch.ts';

/** How long an orderly end may take before the connection is dropped. */
export const LINGER_MS = 2000;

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
   * Sends all segments in order; `pdus` says what they are. Returns whether that is done; else they are borrowed
   * until `written`, which is never called from inside of this method, and not at all once the channel is
   * closed. One call at a time.
   */
  write(segments: readonly Uint8Array[], pdus: readonly OutgoingPdu[], written: () => void): boolean;
  /** Nothing is received until `resumeReading()`. */
  pauseReading(): void;
  resumeReading(): void;
  /** Closes our direction after what was written; then waits `LINGER_MS` for the peer to close its own. */
  end(): void;
  /** Closes at once. On return no memory of any segment or buffer is referenced. `closed` follows, later. */
  destroy(): void;
}

/** What a channel calls, never from inside of one of its own methods. */
export interface ChannelUser {
  /** Where the next bytes go. From here to `filled` is one step, in which nothing else happens. */
  nextBuffer(): Uint8Array;
  /** Where those go that come behind a full `nextBuffer()`, if any may at once. Asked after it, or not at all. */
  furtherBuffer(): Uint8Array | undefined;
  /** `count` bytes have been put there. Returns whether to go on reading. */
  filled(count: number): boolean;
  /** Instead of these: bytes in memory of the channel's own that it does not use again. Returns whether to go on reading. */
  received(chunk: Uint8Array): boolean;
  /** The peer has closed its direction. */
  ended(): void;
  /** The channel is closed and references nothing; the last call, made once. */
  closed(error?: Error): void;
}
