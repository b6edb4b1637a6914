/**
 * What the kernel is answered about names and attributes, byte by byte, as of linux/fuse.h (in the machine's byte order).
 * Pure: writes into memory that it is given.
 */

import { constants } from 'node:fs';
import { endianness } from 'node:os';
import type { Entry } from './host.ts';

const LITTLE = endianness() === 'LE';
/** How long the kernel keeps what it is told of names and attributes: it is told when they change. */
const KEPT_SECONDS = 24 * 3600;
const ATTRIBUTES = 88;
/** struct fuse_entry_out, fuse_attr_out, fuse_dirent, fuse_statfs_out. */
const ENTRY = 40 + ATTRIBUTES;
const DIRENT = 24;
export const ATTR_REPLY = 16 + ATTRIBUTES;
export const ENTRY_REPLY = ENTRY;
export const STATFS_REPLY = 80;
/** What a file reports as its preferred transfer: the most that the kernel asks for at once. */
const PREFERRED_TRANSFER = 1024 * 1024;
/**
 * st_blocks counts these. Of a thin disk as well it says that all is there: of less, `cp` would look for the holes and leave
 * them out, and onto another disk, or back from such a copy, they would keep what was there before.
 */
const SECTOR = 512;
const STATFS_BLOCK = 4096;
const MAX_NAME = 255;

/** What stat(2) says of an entry beyond the entry itself. */
export interface FileFacts {
  readonly entry: Entry;
  readonly size: number;
  readonly modifiedMs: number;
  readonly links: number;
}

export class ReplyWriter {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #owner: { readonly uid: number; readonly gid: number };

  constructor(bytes: Uint8Array, owner: { readonly uid: number; readonly gid: number }) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#owner = owner;
  }

  get capacity(): number {
    return this.#bytes.length;
  }

  /** struct fuse_entry_out at `at`. */
  entry(facts: FileFacts, at = 0): number {
    this.#u64(at, facts.entry.inode);
    this.#u64(at + 8, 0);
    this.#u64(at + 16, KEPT_SECONDS);
    this.#u64(at + 24, keptFor(facts.entry));
    this.#u64(at + 32, 0);
    this.#attributes(at + 40, facts);
    return ENTRY_REPLY;
  }

  /** struct fuse_attr_out at 0. */
  attributes(facts: FileFacts): number {
    this.#u64(0, keptFor(facts.entry));
    this.#u64(8, 0);
    this.#attributes(16, facts);
    return ATTR_REPLY;
  }

  /** struct fuse_statfs_out at 0: `size` bytes in `files` files, none of it free. */
  statfs(size: number, files: number): number {
    this.#bytes.fill(0, 0, STATFS_REPLY);
    this.#u64(0, Math.ceil(size / STATFS_BLOCK));
    this.#u64(24, files);
    this.#u32(40, STATFS_BLOCK);
    this.#u32(44, MAX_NAME);
    this.#u32(48, STATFS_BLOCK);
    return STATFS_REPLY;
  }

  /**
   * A line of a directory at `at`, with all that is to be known of it where there are `facts`; `next` is where reading goes on.
   * Its length; 0 where it does not fit before `end`.
   */
  line(
    at: number,
    end: number,
    line: { readonly name: Uint8Array; readonly inode: number; readonly isDirectory: boolean; readonly next: number },
    facts?: FileFacts | 'none',
  ): number {
    const ahead = facts === undefined ? 0 : ENTRY;
    const length = ahead + Math.ceil((DIRENT + line.name.length) / 8) * 8;
    if (at + length > end) return 0;
    this.#bytes.fill(0, at, at + length);
    // `.` and `..` have no inode there: the kernel knows them.
    if (facts !== undefined && facts !== 'none') this.entry(facts, at);
    const start = at + ahead;
    this.#u64(start, line.inode);
    this.#u64(start + 8, line.next);
    this.#u32(start + 16, line.name.length);
    this.#u32(start + 20, (line.isDirectory ? constants.S_IFDIR : constants.S_IFREG) >> 12);
    this.#bytes.set(line.name, start + DIRENT);
    return length;
  }

  #attributes(at: number, { entry, size, modifiedMs, links }: FileFacts): void {
    const seconds = Math.max(0, Math.floor(modifiedMs / 1000));
    const nanoseconds = Math.max(0, Math.floor((modifiedMs % 1000) * 1e6));
    this.#u64(at, entry.inode);
    this.#u64(at + 8, size);
    this.#u64(at + 16, Math.ceil(size / SECTOR));
    for (let time = 0; time < 3; time++) {
      this.#u64(at + 24 + 8 * time, seconds);
      this.#u32(at + 48 + 4 * time, nanoseconds);
    }
    this.#u32(at + 60, (entry.kind === 'directory' ? constants.S_IFDIR : constants.S_IFREG) | entry.mode);
    this.#u32(at + 64, links);
    this.#u32(at + 68, this.#owner.uid);
    this.#u32(at + 72, this.#owner.gid);
    this.#u32(at + 76, 0);
    this.#u32(at + 80, PREFERRED_TRANSFER);
    this.#u32(at + 84, 0);
  }

  #u32(at: number, value: number): void {
    this.#view.setUint32(at, value, LITTLE);
  }

  #u64(at: number, value: number): void {
    const high = Math.floor(value / 2 ** 32);
    this.#view.setUint32(at, LITTLE ? value >>> 0 : high, LITTLE);
    this.#view.setUint32(at + 4, LITTLE ? high : value >>> 0, LITTLE);
  }
}

/** The size of a text is not known before it is made. */
function keptFor(entry: Entry): number {
  return entry.kind === 'text' ? 0 : KEPT_SECONDS;
}
