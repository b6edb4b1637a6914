/**
 * Names and attributes as the kernel asks for them by inode: answered from the entries that were pushed down, at once but
 * where a deferred directory has to be looked into or a text to be made for its length. Remembers what the kernel was told
 * and keeps, and says what it must forget when entries change.
 */

import { Errno } from './errno.ts';
import { type DirectoryEntry, type Entry, type FuseHostOptions, ROOT_INODE } from './host.ts';
import { Namespace } from './namespace.ts';
import type { AddonConnection } from './native-addon.ts';
import { type FileFacts, ReplyWriter } from './native-replies.ts';
import type { TextBodies } from './text-bodies.ts';

/** Bits of `valid` in struct fuse_setattr_in. */
const FATTR = { MODE: 1, UID: 2, GID: 4, SIZE: 8, TIMES: 0x10 | 0x20 | 0x80 | 0x100 | 0x400 } as const;

/** A line of a directory, as it was when reading began. */
interface Line {
  readonly name: Uint8Array;
  readonly inode: number;
}

/** Fields of a SETATTR. */
export interface SetAttributes {
  readonly valid: number;
  readonly size: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

export class NativeNames {
  readonly #options: FuseHostOptions;
  readonly #connection: AddonConnection;
  readonly #texts: TextBodies;
  readonly #namespace: Namespace;
  readonly #writer: ReplyWriter;
  /** Inodes that the kernel knows, and keeps attributes of. */
  readonly #told = new Set<number>([ROOT_INODE]);
  /** By inode of the directory. */
  readonly #expanding = new Map<number, Promise<void>>();
  readonly #directories = new Map<number, Line[]>();
  readonly #encoder = new TextEncoder();
  #totals: { readonly size: number; readonly files: number } | undefined;

  constructor(options: FuseHostOptions, connection: AddonConnection, texts: TextBodies) {
    this.#options = options;
    this.#connection = connection;
    this.#texts = texts;
    this.#namespace = new Namespace({ mode: options.allowOther ? 0o555 : 0o500, modifiedMs: Date.now() });
    this.#writer = new ReplyWriter(connection.scratch, options);
  }

  get(inode: number): Entry | undefined {
    return this.#namespace.get(inode);
  }

  /** As `FuseHost.setEntries`. */
  update(add: readonly Entry[], remove: readonly number[]): void {
    const before = new Map<number, Entry>();
    for (const inode of [...remove, ...add.map((entry) => entry.inode)]) {
      const entry = this.#namespace.get(inode);
      if (entry !== undefined) before.set(inode, entry);
    }
    const gone = this.#namespace.update(add, remove);
    this.#totals = undefined;
    /** Directories whose number of subdirectories is another. */
    const parents = new Set<number>();
    for (const [inode, entry] of before) {
      const now = this.#namespace.get(inode);
      const hasMoved = now === undefined || now.name !== entry.name || now.parent !== entry.parent;
      if (hasMoved && entry.kind === 'directory') parents.add(entry.parent);
      if (!this.#told.has(inode)) continue;
      if (hasMoved) this.#connection.forgetName(entry.parent, entry.name);
      if (now !== undefined) this.#connection.forgetInode(inode, -1, 0, 0);
    }
    for (const entry of add) {
      if (entry.kind === 'image') this.#connection.setSize(entry.inode, entry.size);
      if (entry.kind === 'directory' && !before.has(entry.inode)) parents.add(entry.parent);
    }
    for (const inode of gone) {
      this.#texts.forget(inode);
      this.#connection.drop(inode);
      this.#told.delete(inode);
    }
    for (const inode of parents) if (this.#told.has(inode)) this.#connection.forgetInode(inode, -1, 0, 0);
  }

  lookup(token: number, directory: number, name: string): void {
    this.#looked(token, directory, () => {
      const entry = this.#namespace.child(directory, name);
      if (entry === undefined) return this.#connection.answer(token, -Errno.ENOENT, -1);
      this.#told.add(entry.inode);
      this.#connection.answerScratch(token, this.#writer.entry(this.#facts(entry)));
    });
  }

  attributes(token: number, inode: number): void {
    const entry = this.#namespace.get(inode);
    if (entry?.kind !== 'text') {
      if (entry === undefined) this.#connection.answer(token, -Errno.ENOENT, -1);
      else this.#answerAttributes(token, entry);
      return;
    }
    const answer = (length: number) => this.#answerAttributes(token, entry, length);
    // A text that cannot be made still has a name and attributes: its open says what is wrong.
    this.#texts.length(inode).then(answer, (error: unknown) => {
      this.#options.upcalls.failed(error);
      answer(0);
    });
  }

  /** A disk has one size: within it truncation succeeds and changes nothing, so that programs that truncate what they copy to work. */
  setAttributes(token: number, inode: number, wanted: SetAttributes): void {
    const entry = this.#namespace.get(inode);
    const error = entry === undefined ? Errno.ENOENT : this.#refusal(entry, wanted);
    if (entry === undefined || error !== 0) this.#connection.answer(token, -error, -1);
    else this.#answerAttributes(token, entry);
  }

  statfs(token: number): void {
    if (this.#totals === undefined) {
      const images = this.#namespace.images();
      this.#totals = { size: images.reduce((sum, { size }) => sum + size, 0), files: images.length };
    }
    this.#connection.answerScratch(token, this.#writer.statfs(this.#totals.size, this.#totals.files));
  }

  openDirectory(token: number, inode: number, handle: number): void {
    this.#looked(token, inode, () => {
      this.#directories.set(handle, []);
      this.#connection.answerOpen(token, handle, 0);
    });
  }

  /** From `offset`, which is the number of lines before it, as much as fits in `length` bytes. */
  readDirectory(token: number, inode: number, handle: number, offset: number, length: number, plus: boolean): void {
    const directory = this.#namespace.get(inode);
    if (directory?.kind !== 'directory') {
      this.#connection.answer(token, -Errno.ENOENT, -1);
      return;
    }
    this.#looked(token, inode, () => {
      if (offset === 0) this.#directories.set(handle, this.#lines(directory));
      const lines = this.#directories.get(handle) ?? [];
      const end = Math.min(length, this.#writer.capacity);
      let at = 0;
      for (let next = offset; next < lines.length; next++) {
        const line = lines[next];
        const entry = line === undefined ? undefined : this.#namespace.get(line.inode);
        // What has gone since reading began is left out.
        if (line === undefined || entry === undefined) continue;
        const isDot = next < 2;
        const facts = plus ? (isDot ? 'none' : this.#facts(entry)) : undefined;
        const written = this.#writer.line(at, end, { ...line, isDirectory: entry.kind === 'directory', next: next + 1 }, facts);
        if (written === 0) break;
        if (plus && !isDot) this.#told.add(entry.inode);
        at += written;
      }
      this.#connection.answerScratch(token, at);
    });
  }

  closeDirectory(token: number, handle: number): void {
    this.#directories.delete(handle);
    this.#connection.answer(token, 0, -1);
  }

  /** Answers when it is known what is in the directory: now, where it is. */
  #looked(token: number, inode: number, answer: () => void): void {
    const directory = this.#namespace.get(inode);
    if (directory?.kind !== 'directory' || directory.isDeferred !== true) {
      answer();
      return;
    }
    let expanding = this.#expanding.get(inode);
    if (expanding === undefined) {
      expanding = Promise.resolve()
        .then(() => this.#options.upcalls.expand(inode))
        .finally(() => this.#expanding.delete(inode));
      this.#expanding.set(inode, expanding);
    }
    expanding.then(answer).catch((error: unknown) => {
      this.#options.upcalls.failed(error);
      this.#connection.answer(token, -Errno.EIO, -1);
    });
  }

  #refusal(entry: Entry, { valid, size, mode, uid, gid }: SetAttributes): number {
    if ((valid & FATTR.SIZE) !== 0) {
      if (entry.kind === 'directory') return Errno.EISDIR;
      if (entry.kind === 'text') return Errno.EACCES;
      if ((entry.mode & 0o200) === 0) return Errno.EROFS;
      if (size > entry.size) return Errno.EFBIG;
    } else if ((valid & FATTR.TIMES) !== 0 && entry.kind !== 'image' && (valid & (FATTR.MODE | FATTR.UID | FATTR.GID)) === 0) {
      return Errno.EPERM;
    }
    if ((valid & FATTR.MODE) !== 0 && (mode & 0o7777) !== entry.mode) return Errno.EPERM;
    if ((valid & FATTR.UID) !== 0 && uid !== this.#options.uid) return Errno.EPERM;
    if ((valid & FATTR.GID) !== 0 && gid !== this.#options.gid) return Errno.EPERM;
    return 0;
  }

  #answerAttributes(token: number, entry: Entry, textLength = 0): void {
    this.#connection.answerScratch(token, this.#writer.attributes(this.#facts(entry, textLength)));
  }

  #lines(directory: DirectoryEntry): Line[] {
    const line = (name: string, inode: number) => ({ name: this.#encoder.encode(name), inode });
    const children = this.#namespace.children(directory).map((entry) => line(entry.name, entry.inode));
    return [line('.', directory.inode), line('..', directory.parent), ...children];
  }

  #facts(entry: Entry, textLength = 0): FileFacts {
    return {
      entry,
      size: entry.kind === 'image' ? entry.size : textLength,
      modifiedMs: entry.kind === 'text' ? Date.now() : entry.modifiedMs,
      links: entry.kind === 'directory' ? 2 + this.#namespace.countSubdirectories(entry) : 1,
    };
  }
}
