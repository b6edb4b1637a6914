/**
 * RDMA at the level of verbs, as the iSER data mover sees it: queue pairs that send, receive, write and
 * read; memory that is advertised to the peer for one purpose at a time; connections with private data. It
 * knows nothing of iSCSI. `native/provider/provider.h` is the same interface one language down; the memory
 * provider is another implementation. Types and their contract only.
 *
 * All `bytes` are views of memory that the provider's `RdmaMemory` allocated; other memory throws TypeError.
 * They belong to the provider from the post until the completion, and must not be touched in between.
 * Events come on the JavaScript thread, in order, never from inside a method.
 */

import type { ArenaSource } from '../../scsi/buffer-pool.ts';
import type { Endpoint } from '../datamover/datamover.ts';

export type ProviderName = 'iwarp' | 'verbs';

/** Memory that can be posted and advertised. */
export interface RdmaMemory extends ArenaSource {
  /** Whether `buffer` came from here. */
  owns(buffer: ArrayBufferLike): boolean;
}

export type Opcode = 'send' | 'receive' | 'write' | 'read';

/** `flushed`: the connection ended first. `failed`: the request was at fault, and the connection ends because of it. */
export type CompletionStatus = 'success' | 'flushed' | 'failed';

/** What became of a work request. Borrowed until the call that hands it over returns. */
export interface Completion {
  /** As it was posted: an unsigned 32-bit number. */
  readonly id: number;
  readonly opcode: Opcode;
  readonly status: CompletionStatus;
  /** Of a receive: the length of the message. */
  readonly length: number;
  /** Of a receive: the tag that the peer revoked with it (Send with Invalidate). */
  readonly invalidated: number | undefined;
}

export interface QueuePairEvents {
  /** Each work request completes exactly once, also when the connection ends. */
  completed(completion: Completion): void;
  /** After the last completion of a batch: the time to send what they led to. */
  batchEnded(): void;
  /**
   * Last event. Everything posted has completed, everything advertised is revoked. Comes by itself when the
   * peer closes (without an error) or something fails, and after `close`.
   */
  closed(error: Error | undefined): void;
}

/** Memory of the peer, in the peer's terms. */
export interface RemoteMemory {
  /** STag, R_Key. */
  readonly tag: number;
  readonly address: bigint;
}

/** Memory of ours that the peer may reach. */
export interface Advertisement {
  readonly tag: number;
  /** Below 2^53. */
  readonly address: number;
}

/** How the peer is kept from memory beyond what is advertised to it. */
export type Protection = 'tag' | 'window' | 'region';

/** A connection. Posting takes effect in order; on one that has ended it completes as `flushed`. Posting beyond a depth throws RangeError. */
export interface QueuePair {
  /** `rxe0`, `siw0`, `mlx5_0`; `software` for iwarp. */
  readonly device: string;
  /** `iWARP`, `RoCE`, `InfiniBand`, `memory`. */
  readonly fabric: string;
  readonly localAddress: string;
  readonly remoteAddress: string;
  /** RDMA Reads that the peer may have outstanding at us, and we at the peer, as agreed. */
  readonly ird: number;
  readonly ord: number;
  /** Undefined where the fabric has its own check. */
  readonly crc: boolean | undefined;
  readonly protection: Protection;
  /** Whether a Send with Invalidate of the peer revokes what is advertised to it. Where not, one may end the connection. */
  readonly canPeerInvalidate: boolean;
  /** What the peer said when the connection was made; some fabrics pad it with zeros. */
  readonly privateData: Uint8Array;

  postReceive(id: number, bytes: Uint8Array): void;
  /** One message, of one or two parts. `invalidate` revokes that tag of the peer's with it. */
  postSend(id: number, first: Uint8Array, second?: Uint8Array, invalidate?: number): void;
  /** RDMA Write. Empty `bytes` are legal, move nothing and need no valid tag. */
  postWrite(id: number, bytes: Uint8Array, to: RemoteMemory): void;
  /** RDMA Read. Waits by itself while `ord` of them are outstanding. */
  postRead(id: number, bytes: Uint8Array, from: RemoteMemory): void;
  /**
   * Gives the peer access to exactly `bytes`, before anything that is posted afterwards is sent; to nothing where the
   * connection ends. Throws where there is no more memory or room.
   */
  advertise(bytes: Uint8Array, access: 'remote-write' | 'remote-read'): Advertisement;
  /**
   * Takes it back: on return the peer cannot reach the memory and nothing under way touches it, if need be
   * because the connection was ended. A tag that is not in force is ignored.
   */
  revoke(tag: number): void;
  /** `orderly` sends what is posted first. Idempotent; `abrupt` cuts `orderly` short. `closed` comes when it is done. */
  close(mode: 'orderly' | 'abrupt'): void;
}

export interface PostedReceive {
  readonly id: number;
  readonly bytes: Uint8Array;
}

export interface QueuePairOptions {
  /** Work requests of each kind that may be posted and not completed at a time. */
  readonly sendDepth: number;
  readonly receiveDepth: number;
  /** Advertisements that may be in force at a time. */
  readonly advertisementDepth: number;
  /** RDMA Reads: see `QueuePair`. What is agreed may be less. */
  readonly ird: number;
  readonly ord: number;
  /** iwarp: ask for CRC32C. A listener does what it is asked for. */
  readonly crc: boolean;
  readonly privateData: Uint8Array;
  /** Instead, where the peer cannot revoke what is advertised to it: see `QueuePair.canPeerInvalidate`. Default: the same. */
  readonly privateDataWithoutInvalidation?: Uint8Array | undefined;
  /** Posted before the peer's first message can arrive. */
  readonly receives: readonly PostedReceive[];
}

export interface RdmaConnectOptions extends QueuePairOptions {
  readonly signal?: AbortSignal;
  /** Bound on name look-up and everything up to the established connection. */
  readonly timeoutMs: number;
}

/** Someone wants to connect. To be answered once. */
export interface ConnectionRequest {
  readonly remoteAddress: string;
  readonly privateData: Uint8Array;
  /** Resolves when the peer can be sent to. Rejects when that does not come about; `events` is not called then. */
  accept(options: QueuePairOptions, events: QueuePairEvents): Promise<QueuePair>;
  reject(): void;
}

export interface RdmaListener {
  readonly endpoint: Endpoint;
  /** Stops listening; open connections go on. */
  close(): Promise<void>;
}

export interface RdmaProvider {
  readonly name: ProviderName;
  readonly memory: RdmaMemory;
  /**
   * Rejects with `unreachable` and the cause in words, `aborted`, or `unsupported` where no device leads there.
   * `events` is called only once the promise has resolved.
   */
  connect(endpoint: Endpoint, options: RdmaConnectOptions, events: QueuePairEvents): Promise<QueuePair>;
  /** Port 0 picks a free one. Rejects with `bad-configuration` where the address cannot be had. */
  listen(endpoint: Endpoint, onRequest: (request: ConnectionRequest) => void): Promise<RdmaListener>;
}
