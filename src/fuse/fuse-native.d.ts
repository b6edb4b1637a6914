/**
 * Types of the parts of the fuse-native package (2.2.6) that `portable-host.ts` uses. The package has
 * none of its own; these were read from its index.js and fuse-native.c. Members whose name starts with
 * `_` are its internals, overridden on purpose.
 */

declare module 'fuse-native' {
  namespace Fuse {
    /** First argument of every callback: 0, `-errno`, or for `read` and `write` the number of bytes. */
    type Result = number;

    interface Attributes {
      readonly mode: number;
      readonly size: number;
      readonly ino: number;
      readonly nlink: number;
      readonly uid: number;
      readonly gid: number;
      readonly blksize: number;
      /** In units of 512 bytes. */
      readonly blocks: number;
      /** Milliseconds, as the other two. */
      readonly atime: number;
      readonly mtime: number;
      readonly ctime: number;
    }

    /** All are passed to the kernel as 32-bit numbers. */
    interface FileSystemAttributes {
      readonly bsize: number;
      readonly frsize: number;
      readonly blocks: number;
      readonly bfree: number;
      readonly bavail: number;
      readonly files: number;
      readonly ffree: number;
      readonly favail: number;
      readonly namemax: number;
    }

    type Callback<T extends readonly unknown[] = []> = (result: Result, ...values: Partial<T>) => void;

    /** What is not here is answered with ENOSYS by libfuse. Calling back twice corrupts the addon's memory. */
    interface Handlers {
      getattr(path: string, callback: Callback<[Attributes]>): void;
      statfs(path: string, callback: Callback<[FileSystemAttributes]>): void;
      readdir(path: string, callback: Callback<[names: string[], attributes: Attributes[]]>): void;
      /** `flags` as of open(2). */
      open(path: string, flags: number, callback: Callback<[handle: number]>): void;
      /** `buffer` is memory of a FUSE thread: it is detached after the callback. */
      read(path: string, handle: number, buffer: Buffer, length: number, offset: number, callback: Callback): void;
      write(path: string, handle: number, buffer: Buffer, length: number, offset: number, callback: Callback): void;
      flush(path: string, handle: number, callback: Callback): void;
      fsync(path: string, isDataOnly: number, handle: number, callback: Callback): void;
      fsyncdir(path: string, isDataOnly: number, handle: number, callback: Callback): void;
      release(path: string, handle: number, callback: Callback): void;
      truncate(path: string, size: number, callback: Callback): void;
      utimens(path: string, accessedMs: number, modifiedMs: number, callback: Callback): void;
      /** `mode` with or without the type bits. */
      chmod(path: string, mode: number, callback: Callback): void;
      /** 0xffffffff leaves one of the two as it is. */
      chown(path: string, uid: number, gid: number, callback: Callback): void;
      create(path: string, mode: number, callback: Callback<[handle: number]>): void;
      mknod(path: string, mode: number, device: number, callback: Callback): void;
      mkdir(path: string, mode: number, callback: Callback): void;
      unlink(path: string, callback: Callback): void;
      rmdir(path: string, callback: Callback): void;
      rename(from: string, to: string, callback: Callback): void;
      link(from: string, to: string, callback: Callback): void;
      symlink(from: string, to: string, callback: Callback): void;
    }

    interface Options {
      /** `false`: a handler may take as long as it needs. Otherwise 15 s, then ETIMEDOUT behind its back. */
      readonly timeout: false;
    }
  }

  class Fuse {
    constructor(mountpoint: string, handlers: Partial<Fuse.Handlers>, options: Fuse.Options);
    /** Calls back when the kernel has sent INIT. */
    mount(callback: (error: Error | null | undefined) => void): void;
    /** Calls `Fuse.unmount`, and lets go of the event loop. */
    unmount(callback: (error: Error | null | undefined) => void): void;
    /** Runs fusermount through a shell. */
    static unmount(mountpoint: string, callback: (error: Error | null) => void): void;
    /** The one `-o` argument of fuse_mount(), at most 1023 bytes long. */
    _fuseOptions(): string;
    /** Memory for one more thread of libfuse, kept for ever. */
    _malloc(size: number): Buffer;
  }

  export = Fuse;
}
