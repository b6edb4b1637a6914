/**
 * What stat(2) and statfs(2) tell about entries, in the form in which fuse-native takes it. Pure.
 */

import { constants } from 'node:fs';
import type Fuse from 'fuse-native';
import type { Entry, ImageEntry } from './host.ts';

/** What a file reports as its preferred transfer, so that programs use few, large requests: the most that libfuse 2 takes at once. */
const PREFERRED_TRANSFER = 128 * 1024;
/** st_blocks counts these. */
const BLOCK = 512;
/** Numbers of blocks pass through the addon as 32-bit numbers. */
const MAX_STATFS_BLOCKS = 0xffff_ffff;

export interface Attributed {
  readonly entry: Entry;
  /** Bytes. */
  readonly size: number;
  readonly modifiedMs: number;
  /** Directories directly below. */
  readonly subdirectories: number;
}

export function attributesOf(file: Attributed, owner: { readonly uid: number; readonly gid: number }): Fuse.Attributes {
  const { entry, size, modifiedMs } = file;
  const isDirectory = entry.kind === 'directory';
  return {
    mode: (isDirectory ? constants.S_IFDIR : constants.S_IFREG) | entry.mode,
    size,
    ino: entry.inode,
    nlink: isDirectory ? 2 + file.subdirectories : 1,
    uid: owner.uid,
    gid: owner.gid,
    blksize: PREFERRED_TRANSFER,
    blocks: Math.ceil(size / BLOCK),
    atime: modifiedMs,
    mtime: modifiedMs,
    ctime: modifiedMs,
  };
}

/** The capacity of all images, none of it free; in blocks large enough that their number fits. */
export function statfsOf(images: readonly ImageEntry[]): Fuse.FileSystemAttributes {
  const total = images.reduce((sum, { size }) => sum + size, 0);
  let blockLength = 4096;
  while (total / blockLength > MAX_STATFS_BLOCKS) blockLength *= 2;
  return {
    bsize: blockLength,
    frsize: blockLength,
    blocks: Math.ceil(total / blockLength),
    bfree: 0,
    bavail: 0,
    files: images.length,
    ffree: 0,
    favail: 0,
    namemax: 255,
  };
}
