/**
 * What the fuse-native package calls for each request of the kernel. Names and attributes are answered
 * from the entries pushed down and text from rendered bodies; what concerns images goes up as requests.
 * A barrier stands around every handler: each request gets one answer, whatever happens in it. Memory
 * that the package lends is not touched after the answer (I5). Knows paths and open handles; mounting
 * and its end are `portable-host.ts`.
 */

import { performance } from 'node:perf_hooks';
import type Fuse from 'fuse-native';
import { IserfsError } from '../errors.ts';
import { attributesOf, statfsOf } from './attributes.ts';
import { Errno, errnoOf } from './errno.ts';
import type { Entry, FuseHostOptions, FuseRequest } from './host.ts';
import { Namespace } from './namespace.ts';
import { accessOf } from './open-access.ts';
import { TextBodies } from './text-bodies.ts';

/** A result as the package takes it (0, `-errno` or bytes), with the values that go with it. */
type Answer = number | readonly [result: number, ...values: readonly unknown[]];
type Callback = (result: number, ...values: unknown[]) => void;
/** The package's handlers, with an answer in place of the callback that is their last argument. */
type Handlers = { readonly [K in keyof Fuse.Handlers]: Answering<Fuse.Handlers[K]> };
type Answering<F> = F extends (...args: [...infer A, infer _Callback]) => void ? (...args: A) => Answer | Promise<Answer> : never;
type AnyHandler = (...args: unknown[]) => Answer | Promise<Answer>;

/** Handles pass through a signed 32-bit number, and 0 means none. */
const MAX_HANDLE = 0x7fff_ffff;

export class PortableHandlers {
  readonly #options: FuseHostOptions;
  readonly #isDirect: boolean;
  readonly #namespace: Namespace;
  readonly #texts: TextBodies;
  /** Inodes of open images, by handle. */
  readonly #openImages = new Map<number, number>();
  #lastHandle = 0;

  constructor(options: FuseHostOptions) {
    this.#options = options;
    this.#isDirect = options.directIo ?? false;
    this.#namespace = new Namespace({ mode: options.allowOther ? 0o555 : 0o500, modifiedMs: Date.now() });
    this.#texts = new TextBodies({
      render: (inode) => options.upcalls.render(inode),
      direct: this.#isDirect,
      now: () => performance.now(),
    });
  }

  get openImages(): number {
    return this.#openImages.size;
  }

  /** As `FuseHost.setEntries`; throws `unsupported` for an image whose page cache is not that of the mount. */
  setEntries(add: readonly Entry[], remove: readonly number[]): void {
    for (const entry of add) {
      if (entry.kind === 'image' && (entry.pageCache === 'direct') !== this.#isDirect) {
        throw new IserfsError(
          'unsupported',
          'fuse-native has one page cache policy for all images: `directIo`, given at the mount',
        );
      }
    }
    for (const inode of this.#namespace.update(add, remove)) this.#texts.forget(inode);
  }

  /** Sends the release of each image that is still open: the kernel drops those that come as the mount ends. */
  async releaseAll(): Promise<void> {
    await Promise.all([...this.#openImages.keys()].map((handle) => this.#release(handle).catch((error) => this.#failed(error))));
  }

  /** The table of handlers. Extended attributes are left out: libfuse's ENOSYS makes the kernel answer for them by itself. */
  table(): Partial<Fuse.Handlers> {
    const refuse = () => -Errno.EPERM;
    const handlers: Handlers = {
      getattr: (path) => this.#getattr(path),
      statfs: () => [0, statfsOf(this.#namespace.images())],
      readdir: (path) => this.#readdir(path),
      open: (path, flags) => this.#open(path, flags),
      read: (_path, handle, buffer, length, offset) => this.#read(handle, buffer.subarray(0, length), offset),
      write: (_path, handle, buffer, length, offset) =>
        this.#request(handle, (common) => ({ op: 'write', ...common, offset, data: buffer.subarray(0, length) })),
      flush: (_path, handle) => this.#flush(handle),
      fsync: (_path, _isDataOnly, handle) =>
        this.#texts.has(handle) ? 0 : this.#request(handle, (common) => ({ op: 'fsync', ...common })),
      fsyncdir: () => 0,
      release: (_path, handle) => this.#release(handle),
      truncate: (path, size) => this.#truncate(path, size),
      utimens: async (path) => ((await this.#lookup(path))?.kind === 'image' ? 0 : -Errno.EPERM),
      chmod: async (path, mode) => ((mode & 0o7777) === (await this.#lookup(path))?.mode ? 0 : -Errno.EPERM),
      chown: (_path, uid, gid) => (isUnchanged(uid, this.#options.uid) && isUnchanged(gid, this.#options.gid) ? 0 : -Errno.EPERM),
      create: refuse,
      mknod: refuse,
      mkdir: refuse,
      unlink: refuse,
      rmdir: refuse,
      rename: refuse,
      link: refuse,
      symlink: refuse,
    };
    const guarded = Object.entries(handlers).map(([name, handler]) => [name, this.#answered(handler as AnyHandler)]);
    return Object.fromEntries(guarded) as Fuse.Handlers;
  }

  /** The barrier: a handler that throws or rejects fails its one request, and the failure is logged. */
  #answered(handler: AnyHandler): (...args: unknown[]) => void {
    const answer = async (args: unknown[]): Promise<Answer> => {
      try {
        return await handler(...args);
      } catch (error) {
        this.#failed(error);
        return -errnoOf(error);
      }
    };
    return (...args) => {
      const callback = args.pop() as Callback;
      void answer(args).then((result) => {
        if (typeof result === 'number') callback(result);
        else callback(...result);
      });
    };
  }

  #failed(error: unknown): void {
    try {
      this.#options.upcalls.failed(error);
    } catch {
      // The log itself failed: there is nobody left to tell.
    }
  }

  /** The entry at `path`, when what lies on the way to it is known. With `itself`, what is in it is known then as well. */
  async #lookup(path: string, { itself = false } = {}): Promise<Entry | undefined> {
    const asked = new Set<number>();
    for (;;) {
      const deferred = this.#namespace.deferredOn(path, { itself });
      if (deferred === undefined || asked.has(deferred.inode)) return this.#namespace.lookup(path);
      asked.add(deferred.inode);
      await this.#options.upcalls.expand(deferred.inode);
    }
  }

  async #getattr(path: string): Promise<Answer> {
    const entry = await this.#lookup(path);
    if (entry === undefined) return -Errno.ENOENT;
    return [0, this.#attributes(entry, entry.kind === 'text' ? await this.#textLength(entry.inode) : undefined)];
  }

  /** A text that cannot be made still has a name and attributes: its open says what is wrong. */
  async #textLength(inode: number): Promise<number> {
    try {
      return await this.#texts.length(inode);
    } catch (error) {
      this.#failed(error);
      return 0;
    }
  }

  async #readdir(path: string): Promise<Answer> {
    const entry = await this.#lookup(path, { itself: true });
    if (entry === undefined) return -Errno.ENOENT;
    if (entry.kind !== 'directory') return -Errno.ENOTDIR;
    const parent = this.#namespace.get(entry.parent) ?? entry;
    const children = this.#namespace.children(entry);
    // Of these attributes the kernel takes the inode and the type: no body need be made for its length.
    const attributes = [entry, parent, ...children].map((each) => this.#attributes(each));
    return [0, ['.', '..', ...children.map(({ name }) => name)], attributes];
  }

  async #open(path: string, flags: number): Promise<Answer> {
    const entry = await this.#lookup(path);
    if (entry === undefined) return -Errno.ENOENT;
    if (entry.kind === 'directory') return -Errno.EISDIR;
    const access = accessOf(flags);
    const handle = this.#newHandle();
    if (entry.kind === 'text') {
      if (access !== 'read') return -Errno.EACCES;
      await this.#texts.open(entry.inode, handle);
      return [0, handle];
    }
    this.#openImages.set(handle, entry.inode);
    let result = -Errno.EIO;
    try {
      result = await this.#request(handle, (common) => ({ op: 'open', ...common, access }));
    } finally {
      if (result < 0) this.#openImages.delete(handle);
    }
    return [result, handle];
  }

  #read(handle: number, into: Buffer, offset: number): Answer | Promise<Answer> {
    const text = this.#texts.read(handle, offset, into.length);
    if (text === undefined) return this.#readImage(handle, into, offset);
    into.set(text);
    return text.length;
  }

  #readImage(handle: number, into: Buffer, offset: number): Promise<number> {
    return this.#request(handle, (common) => ({
      op: 'read',
      ...common,
      offset,
      length: into.length,
      doneWith: (segments, release) => {
        let copied = 0;
        try {
          for (const segment of segments) {
            into.set(segment, copied);
            copied += segment.length;
          }
        } finally {
          release();
        }
        common.done(copied);
      },
    }));
  }

  #flush(handle: number): Answer | Promise<Answer> {
    if (!this.#texts.has(handle)) return this.#request(handle, (common) => ({ op: 'flush', ...common }));
    this.#texts.flushed(handle);
    return 0;
  }

  async #release(handle: number): Promise<Answer> {
    if (this.#texts.has(handle)) {
      this.#texts.release(handle);
      return 0;
    }
    try {
      return await this.#request(handle, (common) => ({ op: 'release', ...common }));
    } finally {
      this.#openImages.delete(handle);
    }
  }

  /** A disk has one size: within it truncation succeeds and changes nothing, so that programs that truncate what they copy to work. */
  async #truncate(path: string, size: number): Promise<Answer> {
    const entry = await this.#lookup(path);
    if (entry === undefined) return -Errno.ENOENT;
    if (entry.kind === 'directory') return -Errno.EISDIR;
    if (entry.kind === 'text') return -Errno.EACCES;
    if ((entry.mode & 0o200) === 0) return -Errno.EROFS;
    return size <= entry.size ? 0 : -Errno.EFBIG;
  }

  /** Sends a request up; resolves with the first answer to it, rejects where the upcall throws before that. */
  #request(handle: number, create: (common: Pick<FuseRequest, 'inode' | 'handle' | 'done'>) => FuseRequest): Promise<number> {
    const inode = this.#openImages.get(handle);
    if (inode === undefined) return Promise.resolve(-Errno.EBADF);
    return new Promise((resolve, reject) => {
      try {
        this.#options.upcalls.requests([create({ inode, handle, done: resolve })]);
      } catch (error) {
        reject(error);
      }
    });
  }

  /** Numbers go round; one that is still in use is left out. */
  #newHandle(): number {
    do {
      this.#lastHandle = this.#lastHandle === MAX_HANDLE ? 1 : this.#lastHandle + 1;
    } while (this.#openImages.has(this.#lastHandle) || this.#texts.has(this.#lastHandle));
    return this.#lastHandle;
  }

  #attributes(entry: Entry, textLength = 0): Fuse.Attributes {
    const file = {
      entry,
      size: entry.kind === 'image' ? entry.size : textLength,
      modifiedMs: entry.kind === 'text' ? Date.now() : entry.modifiedMs,
      subdirectories: entry.kind === 'directory' ? this.#namespace.countSubdirectories(entry) : 0,
    };
    return attributesOf(file, this.#options);
  }
}

/** chown(2) passes -1 for an id that is to stay as it is. */
function isUnchanged(id: number, owner: number): boolean {
  return id === owner || id === 0xffff_ffff;
}
