/**
 * The FUSE addon, `native/fuse-addon`: the only place that loads it. What it exports is checked once; the types
 * below are the contract with `native/fuse-addon/connection_exports.cc`. Requests and slots are numbers to it.
 */

import { loadOwnAddon, type OwnAddon } from '../own-addon.ts';

const fuseAddon: OwnAddon = {
  title: 'the FUSE addon',
  file: 'iserfs_fuse.node',
  /** Changes together with `interfaceVersion` in `native/fuse-addon/records.h`. */
  version: 3,
  functions: ['mount', 'open', 'allocate'],
};

/** Numbers of a record, and bytes of a name's place, as of `native/fuse-addon/records.h`. */
export const RECORD_FIELDS = 12;
export const NAME_STRIDE = 256;
/** Bytes of a slot, and the most of one request. */
export const MAX_TRANSFER = 1024 * 1024;

export interface AddonMountOptions {
  /** Absolute. */
  readonly mountpoint: string;
  readonly source: string;
  readonly subtype: string;
  readonly allowOther: boolean;
  readonly readOnly: boolean;
  /** By fusermount3 instead of mount(2). */
  readonly viaHelper: boolean;
}

/** `count` requests are in `records`; a slot is wanted; the kernel has ended the connection, and this is the last call; notices that are done. */
export type Deliver = (count: number, isStarved: boolean, hasEnded: boolean, done: Uint32Array | undefined) => void;

/** Numbers throw RangeError where they are out of range. A token that was answered before is ignored. */
export interface AddonConnection {
  /** As `writeRecord` in `native/fuse-addon/records.h` puts them. */
  readonly records: Float64Array;
  /** UTF-8, one name of `NAME_STRIDE` bytes at most for each record. */
  readonly names: Uint8Array;
  /** Where answers of bytes are made. */
  readonly scratch: Uint8Array;
  /** `-errno`, 0, or a number of bytes or an offset as the request wants it. `slot` is lent again; -1 for none. */
  answer(token: number, result: number, slot: number): void;
  answerOpen(token: number, handle: number, flags: number): void;
  /** With the first `length` bytes of `scratch`. */
  answerScratch(token: number, length: number): void;
  /** The kernel has copied them when it returns. */
  answerData(token: number, data: Uint8Array | readonly Uint8Array[]): void;
  /** Lends `MAX_TRANSFER` bytes, until they come with a write or `takeSlot` answers their number. */
  addSlot(number: number, bytes: Uint8Array): void;
  /** A slot that nothing was read into, back; -1 where there is none. */
  takeSlot(): number;
  setSize(inode: number, size: number): void;
  drop(inode: number): void;
  show(inode: number, offset: number, bytes: Uint8Array): void;
  hide(inode: number, offset: number, length: number): void;
  /** How many offsets there are now; undefined after `close`, as of the next. */
  takeHits(inode: number, offsets: Float64Array): number | undefined;
  hits(inode: number): number | undefined;
  /** An offset of -1 for the attributes alone; a length of 0 for everything behind the offset. `id` comes back as done, but 0. */
  forgetInode(inode: number, offset: number, length: number, id: number): void;
  forgetName(directory: number, name: string): void;
  /** Undefined after `close`. */
  freeSlots(): number | undefined;
  /** For looks now and then: it makes an object. */
  figures(): AddonFigures | undefined;
  /** Answers EIO to who still waits, and lets go of the event loop. Everything is ignored from now on. */
  close(): void;
}

export interface AddonFigures {
  readonly isInitialised: boolean;
  /** The kernel is coherent between direct and cached handles of one file. */
  readonly mixesDirectIo: boolean;
  readonly unanswered: number;
  readonly messagesRead: number;
  /** Of these, what was read while the event loop was busy. */
  readonly readByGuard: number;
}

export interface FuseAddon {
  /** Resolves with a descriptor of /dev/fuse. */
  mount(options: AddonMountOptions): Promise<number>;
  /** Serves `descriptor`, which is the connection's own from now on. */
  open(descriptor: number, deliver: Deliver): AddonConnection;
  /** Memory that begins with a page. */
  allocate(length: number): ArrayBuffer;
}

let loaded: FuseAddon | undefined;

/** Throws `unsupported` where there is no addon that can be used. */
export function loadFuseAddon(): FuseAddon {
  loaded ??= loadOwnAddon(fuseAddon) as FuseAddon;
  return loaded;
}
