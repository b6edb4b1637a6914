/**
 * The RDMA addon, `native/addon`: the only place that loads it. What it exports is checked once; the types
 * below are the contract with `native/addon/context_exports.cc`. Connections, listeners, requests and
 * arenas are numbers to it.
 */

import { loadOwnAddon, type OwnAddon, otherVersion } from '../../own-addon.ts';
import type { ProviderName } from './provider.ts';

const rdmaAddon: OwnAddon = {
  title: 'the RDMA addon',
  file: 'iserfs_rdma.node',
  /** Changes together with `interfaceVersion` in `native/addon/records.h`. */
  version: 6,
  functions: ['open', 'openStream', 'crc32c', 'seek'],
};

export interface AddonQueuePairOptions {
  readonly sendDepth: number;
  readonly receiveDepth: number;
  readonly advertisementDepth: number;
  readonly ird: number;
  readonly ord: number;
  readonly crc: boolean;
  readonly privateData: Uint8Array;
  readonly privateDataWithoutInvalidation: Uint8Array | undefined;
  /** Four words each: id, arena, offset, length. */
  readonly receives: Uint32Array;
}

/** Comes with `established`. */
export interface AddonFacts {
  readonly device: string;
  readonly fabric: string;
  readonly localAddress: string;
  readonly remoteAddress: string;
  readonly ird: number;
  readonly ord: number;
  readonly crc: boolean | undefined;
  /** `Protection` in `native/provider/provider.h`. */
  readonly protection: number;
  readonly canPeerInvalidate: boolean;
  readonly privateData: Uint8Array;
}

/** Comes with `closed`. What the addon throws has the same code as its `failure`. */
export interface AddonFailure {
  /** `FailureCode` in `native/provider/provider.h`. */
  readonly code: number;
  readonly text: string;
}

/** Comes with `requested`. */
export interface AddonRequest {
  readonly request: number;
  readonly remoteAddress: string;
  readonly privateData: Uint8Array;
}

export type AddonNotice = AddonFacts | AddonFailure | AddonRequest;

/** `count` events are in `records`; a notice for each that is no completion. */
export type Deliver = (count: number, notices: readonly AddonNotice[] | undefined) => void;

/**
 * Numbers throw RangeError where they are out of range, TypeError where they name nothing (any more).
 * Segments are an arena's number, an offset and a length.
 */
export interface AddonContext {
  /** See `event-records.ts`. */
  readonly records: Uint32Array;
  /** Tag and address, as the last `advertise` answered. */
  readonly advertised: Float64Array;
  allocate(length: number): { readonly id: number; readonly buffer: ArrayBuffer };
  free(id: number, buffer: ArrayBuffer): void;
  openProvider(provider: ProviderName): void;
  listDevices(): { name: string; fabric: string }[];
  connect(provider: ProviderName, host: string, port: number, options: AddonQueuePairOptions, timeoutMs: number): number;
  listen(provider: ProviderName, host: string, port: number): { readonly listener: number; readonly localAddress: string };
  closeListener(listener: number): void;
  accept(request: number, options: AddonQueuePairOptions): number;
  /** Ignored where the request was answered. */
  reject(request: number): void;
  postReceive(connection: number, id: number, arena: number, offset: number, length: number): void;
  postSend(
    connection: number,
    id: number,
    invalidate: number | undefined,
    ...segments: [number, number, number] | [number, number, number, number, number, number]
  ): void;
  postWrite(connection: number, id: number, tag: number, address: bigint, arena: number, offset: number, length: number): void;
  postRead(connection: number, id: number, tag: number, address: bigint, arena: number, offset: number, length: number): void;
  /** What is posted until `uncork` may go out together then. */
  cork(connection: number): void;
  /** Also delivers what is complete by that. */
  uncork(connection: number): void;
  /** `access`: 0 for remote write, 1 for remote read. Answers in `advertised`. */
  advertise(connection: number, access: number, arena: number, offset: number, length: number): void;
  revoke(connection: number, tag: number): void;
  close(connection: number, abruptly: boolean): void;
  /** After `closed`: takes out the requests that did not complete, as three words each: opcode, id, length. */
  flush(connection: number): Uint32Array | undefined;
  /** After `closed`: forgets the connection, whose number names nothing from now on. */
  retire(connection: number): void;
}

/** A TCP socket. What moves bytes answers how many, or `-errno`; `EAGAIN` is for not now, `EBADF` for not any more. */
export interface AddonStream {
  /** Fills `bytes`, and then `further`. 0 is the peer's end. */
  receive(bytes: Uint8Array, further?: Uint8Array): number;
  /** Sends of the segments, in order, what can be sent at once. One alone may come without the array. */
  send(segments: readonly Uint8Array[] | Uint8Array): number;
  /** What `ready` is called for, again and again: 1 readable, 2 writable. Nothing at first. */
  watch(events: number): void;
  endSending(): void;
  close(): void;
}

export type StreamReady = (isReadable: boolean, isWritable: boolean) => void;

/** The CRC32C of what `previous` is that of (0: of nothing), followed by `bytes`. */
export type Crc32c = (bytes: Uint8Array, previous: number) => number;

/**
 * lseek(2) with SEEK_HOLE or SEEK_DATA on a descriptor, whose position moves: the offset found, at least `offset`, or `-errno`. Nothing
 * waits for it but its caller, who may close the descriptor meanwhile.
 */
export type SeekFile = (descriptor: number, offset: number, isHole: boolean) => Promise<number>;

interface Addon {
  open(deliver: Deliver): AddonContext;
  openStream(descriptor: number, ready: StreamReady): AddonStream;
  readonly crc32c: Crc32c;
  readonly seek: SeekFile;
}

const methods = [
  'allocate',
  'free',
  'openProvider',
  'listDevices',
  'connect',
  'listen',
  'closeListener',
  'accept',
  'reject',
  'postReceive',
  'postSend',
  'postWrite',
  'postRead',
  'cork',
  'uncork',
  'advertise',
  'revoke',
  'close',
  'flush',
  'retire',
] as const satisfies readonly (keyof AddonContext)[];

/** A context of the addon, whose events `deliver` is called with. Throws `unsupported` where there is no addon that can be used. */
export function openAddon(deliver: Deliver): AddonContext {
  const context = loadAddon().open(deliver);
  if (!isContext(context)) throw otherVersion(rdmaAddon);
  return context;
}

/** Of a copy of `descriptor`, a connected socket; undefined where there is no addon that can be used, or no descriptor is free. */
export function openStream(descriptor: number, ready: StreamReady): AddonStream | undefined {
  try {
    return loadAddon().openStream(descriptor, ready);
  } catch {
    return undefined;
  }
}

/** The processor's own CRC32C; undefined where there is no addon that can be used. */
export function nativeCrc32c(): Crc32c | undefined {
  try {
    return loadAddon().crc32c;
  } catch {
    return undefined;
  }
}

/** Finds the holes of files; undefined where there is no addon that can be used. */
export function nativeSeek(): SeekFile | undefined {
  try {
    return loadAddon().seek;
  } catch {
    return undefined;
  }
}

function loadAddon(): Addon {
  return loadOwnAddon(rdmaAddon) as Addon;
}

function isContext(value: unknown): value is AddonContext {
  if (typeof value !== 'object' || value === null) return false;
  const context = value as Readonly<Record<string, unknown>>;
  return (
    context['records'] instanceof Uint32Array &&
    context['advertised'] instanceof Float64Array &&
    methods.every((name) => typeof context[name] === 'function')
  );
}
