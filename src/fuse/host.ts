/**
 * What the product needs of a FUSE implementation, and all it may use. The namespace is data that is
 * pushed down, so that a native host can answer lookups and attributes itself; text is rendered when
 * it is opened; block requests come up in batches. Two hosts: `native-host.ts` (our own channel to /dev/fuse)
 * and `portable-host.ts` (the fuse-native package). Types and their contract only.
 *
 * The process that serves a mount must never touch it (that deadlocks): hosts do not, and callers
 * must not.
 */

import type { SharedMemory } from '../scsi/block-device.ts';
import type { PoolBuffer } from '../scsi/buffer-pool.ts';
import type { PageWindow } from '../scsi/page-window.ts';

/** Inode number of the mount's root directory. */
export const ROOT_INODE = 1;

/** A name in the tree. */
export type Entry = DirectoryEntry | TextEntry | ImageEntry;

interface EntryCommon {
  /** Unique over the life of the mount, and never used again for another file. */
  readonly inode: number;
  /** The directory it stands in; `ROOT_INODE` for the top. */
  readonly parent: number;
  /** One path component: no `/`, no NUL, not `.` or `..`. */
  readonly name: string;
  /** Permission bits. */
  readonly mode: number;
  readonly modifiedMs: number;
}

export interface DirectoryEntry extends EntryCommon {
  readonly kind: 'directory';
  /**
   * What is below it is not known yet: `FuseUpcalls.expand` is asked, and awaited, before anybody looks into
   * it (look-up of a name in it, or reading it; looking it up itself is none). Absent means known.
   */
  readonly isDeferred?: boolean;
}

/** A file whose body is made by `FuseUpcalls.render` at each open and stays as it is for that handle. */
export interface TextEntry extends EntryCommon {
  readonly kind: 'text';
}

/** A file whose bytes are read and written by `FuseUpcalls.requests`. */
export interface ImageEntry extends EntryCommon {
  readonly kind: 'image';
  readonly size: number;
  /** `direct`: the kernel keeps nothing (LUNs that other hosts write); `dropped-at-open`: its pages go at each open. */
  readonly pageCache: 'direct' | 'dropped-at-open';
}

/** What the kernel asks about an image. `handle` names one open; it is a non-negative integer, unique among open handles. */
export type FuseRequest =
  | (RequestCommon & { readonly op: 'open'; readonly access: 'read' | 'write' | 'read-write' })
  | (RequestCommon & {
      readonly op: 'read';
      readonly offset: number;
      readonly length: number;
      /** Answers with bytes where they lie, `length` at most: the host calls `release` when the kernel has copied them. */
      doneWith(segments: readonly Uint8Array[], release: () => void): void;
    })
  | (RequestCommon & {
      readonly op: 'write';
      readonly offset: number;
      /** Memory of the host, valid until the reply; where there is `memory`, for as long as somebody retains that. */
      readonly data: Uint8Array;
      /** What `data` lies in, where the host can do without it for a while: `retain` before the reply to use it beyond. */
      readonly memory?: SharedMemory;
    })
  /** close(2) of one descriptor: comes once per close, also for duplicates, so it is no reference count. */
  | (RequestCommon & { readonly op: 'flush' })
  | (RequestCommon & { readonly op: 'fsync' })
  /** The last descriptor of the handle is gone; the answer reaches nobody. */
  | (RequestCommon & { readonly op: 'release' })
  /** The range is to read as zeros: fallocate(2) with ZERO_RANGE or, with `mayUnmap`, PUNCH_HOLE. Only from hosts with `supports.fallocate`. */
  | (RequestCommon & { readonly op: 'zero'; readonly offset: number; readonly length: number; readonly mayUnmap: boolean })
  /** lseek(2) with SEEK_DATA or SEEK_HOLE, within the size: `done` with the offset found, or -ENXIO. Only from hosts with `supports.seek`. */
  | (RequestCommon & { readonly op: 'seek'; readonly offset: number; readonly what: 'data' | 'hole' });

interface RequestCommon {
  readonly inode: number;
  readonly handle: number;
  /**
   * Answers: 0 or a positive number is success, a negative number is `-errno`. For `read` 0 is the end of the
   * file, for `write` the number of bytes taken. Exactly one of `done` and `doneWith`, once.
   */
  done(result: number): void;
}

/** What a host calls. A host puts a barrier around each call: one that throws answers EIO for that request alone. */
export interface FuseUpcalls {
  /** One call per wake-up. Must not block. */
  requests(batch: readonly FuseRequest[]): void;
  /** The body of a text file, now; asked once per open. */
  render(inode: number): Promise<Uint8Array>;
  /**
   * Somebody wants to look into the deferred directory `inode`: settles when `setEntries` has been told what is
   * below it, for better or worse. The host waits for it with what it was asked, and asks again while the entry is still deferred.
   */
  expand(inode: number): Promise<void>;
  /** Whoever waits for `request`, which has no answer yet, got a signal: answer soon, with EINTR unless it ends by itself. Only from hosts with `supports.interrupt`. */
  interrupted(request: FuseRequest): void;
  /** A request failed inside the product: for the log. */
  failed(error: unknown): void;
}

export interface FuseHostOptions {
  /** Absolute path of an empty directory. */
  readonly mountpoint: string;
  readonly upcalls: FuseUpcalls;
  /** Owner of all files. */
  readonly uid: number;
  readonly gid: number;
  readonly allowOther: boolean;
  readonly readOnly: boolean;
  /** First column in /proc/mounts. */
  readonly source: string;
  /** Whether every image will have the page cache `direct`; `false` if absent. For hosts that can choose only for the whole mount. */
  readonly directIo?: boolean;
  /** Where memory for what is written comes from, so that a transport can send it from there; a host that has its own ignores it. */
  readonly memory?: { acquire(length: number): PoolBuffer };
}

/** How the kernel has ended a mount: `aborted` where its connection was cut. */
export interface MountEnd {
  readonly reason: 'unmounted' | 'aborted';
}

/** A mounted tree. */
export interface FuseHost {
  readonly supports: {
    /** `closed` resolves by itself when the last user is gone. */
    readonly closed: boolean;
    readonly invalidate: boolean;
    readonly fallocate: boolean;
    readonly seek: boolean;
    readonly interrupt: boolean;
  };
  /** Adds entries (or replaces those of the same inode), and removes inodes with all that is below them. Parents come before children. */
  setEntries(add: readonly Entry[], remove?: readonly number[]): void;
  /** Drops the kernel's copy of a range of an image; resolves when it is gone. A host without `supports.invalidate` does nothing. */
  invalidate(inode: number, offset: number, length: number): Promise<void>;
  /** Where the cache of the image `inode` may show its pages, for reads that the host answers by itself; undefined from a host that cannot. */
  window(inode: number): PageWindow | undefined;
  /** How many images are open, as far as the host knows. */
  readonly openImages: number;
  /**
   * `clean`: rejects with `busy` while a file is open. `lazy`: the tree leaves the name space at once and
   * is served until the last user is gone. Idempotent.
   */
  unmount(mode: 'clean' | 'lazy'): Promise<void>;
  /** Resolves when the kernel has ended the mount, by `unmount` or from outside. */
  readonly closed: Promise<MountEnd>;
}

/** Mounts: resolves when the kernel answers requests for the tree. Rejects with `mount-failed`, the cause in words. */
export type MountFuse = (options: FuseHostOptions) => Promise<FuseHost>;
