/**
 * What the native host does with each request of the kernel that reaches JavaScript: names and attributes go to
 * `NativeNames`, text is read from rendered bodies, and what concerns images goes up, all that came together in one batch.
 * A barrier stands around the upcalls: each request gets one answer, whatever happens. Knows open handles; mounting and its
 * end are `native-host.ts`.
 */

import { constants } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { TagMap } from '../tag-map.ts';
import { Errno, errnoOf } from './errno.ts';
import type { FuseHostOptions, ImageEntry } from './host.ts';
import { type AddonConnection, NAME_STRIDE, RECORD_FIELDS } from './native-addon.ts';
import { NativeNames } from './native-names.ts';
import {
  type AnyNativeRequest,
  OpenRequest,
  PlainRequest,
  ReadRequest,
  ReleaseRequest,
  type RequestHome,
  SeekRequest,
  WriteRequest,
  ZeroRequest,
} from './native-requests.ts';
import type { NativeSlots } from './native-slots.ts';
import { accessOf } from './open-access.ts';
import { TextBodies } from './text-bodies.ts';

/** Opcodes of linux/fuse.h. */
const Opcode = {
  LOOKUP: 1,
  GETATTR: 3,
  SETATTR: 4,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  FLUSH: 25,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  INTERRUPT: 36,
  IOCTL: 39,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  LSEEK: 46,
} as const;

/** Of struct fuse_open_out. */
const FOPEN_DIRECT_IO = 1;
const FOPEN_PARALLEL_DIRECT_WRITES = 64;
/** Modes of fallocate(2). */
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const ZERO_RANGE = 16;
/** lseek(2). */
const SEEK_DATA = 3;
/** ioctl(2): the size of a block device in bytes. */
const BLKGETSIZE64 = 0x8008_1272;
/** struct fuse_ioctl_out, in front of what the ioctl answers. */
const IOCTL_HEAD = 16;

/** A request as it came. */
interface Message {
  readonly token: number;
  readonly inode: number;
  readonly handle: number;
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
}

export class NativeHandlers implements RequestHome {
  readonly connection: AddonConnection;
  readonly slots: NativeSlots;
  readonly names: NativeNames;
  readonly #options: FuseHostOptions;
  readonly #texts: TextBodies;
  readonly #nameBytes: Buffer;
  /** Inodes of open images, by handle. */
  readonly #openImages = new Map<number, number>();
  /** Requests that went up and have no answer yet, by token. */
  readonly #up = new TagMap<AnyNativeRequest>();
  #lastHandle = 0;

  constructor(options: FuseHostOptions, connection: AddonConnection, slots: NativeSlots) {
    this.#options = options;
    this.connection = connection;
    this.slots = slots;
    const { buffer, byteOffset, byteLength } = connection.names;
    this.#nameBytes = Buffer.from(buffer, byteOffset, byteLength);
    this.#texts = new TextBodies({
      render: (inode) => options.upcalls.render(inode),
      direct: true,
      now: () => performance.now(),
    });
    this.names = new NativeNames(options, connection, this.#texts);
  }

  get openImages(): number {
    return this.#openImages.size;
  }

  answered(token: number): void {
    this.#up.delete(token);
  }

  /** The first `count` records of the connection. */
  deliver(count: number): void {
    const batch: AnyNativeRequest[] = [];
    /** Tokens of requests whose callers got a signal; the requests may be in this very batch. */
    const interrupted: number[] = [];
    const { records } = this.connection;
    for (let at = 0; at < count; at++) {
      const first = at * RECORD_FIELDS;
      const token = records[first] as number;
      if (records[first + 1] === Opcode.INTERRUPT) {
        interrupted.push(token);
        continue;
      }
      try {
        const request = this.#take(records, first, at);
        if (request === undefined) continue;
        this.#up.set(token, request);
        batch.push(request);
      } catch (error) {
        this.#failed(error);
        this.connection.answer(token, -errnoOf(error), -1);
      }
    }
    if (batch.length > 0) this.#send(batch);
    for (const token of interrupted) this.#interrupt(token);
  }

  /** Sends the release of each image that is still open: the kernel drops those that come as the mount ends. */
  async releaseAll(): Promise<void> {
    const releases = [...this.#openImages].map(
      ([handle, inode]) =>
        new Promise<void>((resolve) => {
          this.#send([new ReleaseRequest(this, 0, inode, handle, resolve)]);
        }),
    );
    await Promise.all(releases);
    this.#openImages.clear();
  }

  /** A request that is to go up, where it is one. */
  #take(records: Float64Array, first: number, at: number): AnyNativeRequest | undefined {
    const field = (index: number) => records[first + index] as number;
    const opcode = field(1);
    const token = field(0);
    const inode = field(2);
    const message: Message = { token, inode, handle: field(3), offset: field(4), length: field(5), flags: field(6) };
    switch (opcode) {
      case Opcode.READ:
        return this.#read(message);
      case Opcode.WRITE:
        return this.#write(message, field(7));
      case Opcode.LOOKUP: {
        const start = at * NAME_STRIDE;
        this.names.lookup(token, inode, this.#nameBytes.toString('utf8', start, start + field(11)));
        return undefined;
      }
      case Opcode.GETATTR:
        this.names.attributes(token, inode);
        return undefined;
      case Opcode.SETATTR: {
        const wanted = { valid: message.flags, size: message.offset, mode: field(8), uid: field(9), gid: field(10) };
        this.names.setAttributes(token, inode, wanted);
        return undefined;
      }
      case Opcode.STATFS:
        this.names.statfs(token);
        return undefined;
      case Opcode.OPENDIR:
        this.names.openDirectory(token, inode, this.#newHandle());
        return undefined;
      case Opcode.READDIR:
      case Opcode.READDIRPLUS:
        this.names.readDirectory(token, inode, message.handle, message.offset, message.length, opcode === Opcode.READDIRPLUS);
        return undefined;
      case Opcode.RELEASEDIR:
        this.names.closeDirectory(token, message.handle);
        return undefined;
      case Opcode.OPEN:
        return this.#open(message);
      case Opcode.RELEASE:
        return this.#release(message);
      case Opcode.FLUSH:
      case Opcode.FSYNC:
        return this.#plain(message, opcode === Opcode.FLUSH ? 'flush' : 'fsync');
      case Opcode.FALLOCATE:
        return this.#allocate(message);
      case Opcode.LSEEK:
        return this.#seek(message);
      case Opcode.IOCTL:
        this.#control(message);
        return undefined;
      default:
        return this.#answer(token, -Errno.EIO);
    }
  }

  #answer(token: number, result: number): undefined {
    this.connection.answer(token, result, -1);
    return undefined;
  }

  #open({ token, inode, flags }: Message): AnyNativeRequest | undefined {
    const entry = this.names.get(inode);
    if (entry === undefined) return this.#answer(token, -Errno.ENOENT);
    if (entry.kind === 'directory') return this.#answer(token, -Errno.EISDIR);
    const access = accessOf(flags);
    const handle = this.#newHandle();
    if (entry.kind === 'text')
      return access === 'read' ? this.#openText(token, inode, handle) : this.#answer(token, -Errno.EACCES);
    this.#openImages.set(handle, inode);
    return new OpenRequest(this, token, inode, handle, access, (result) => {
      if (result >= 0) return this.connection.answerOpen(token, handle, this.#openFlags(entry, flags));
      this.#openImages.delete(handle);
      this.connection.answer(token, result, -1);
    });
  }

  #openText(token: number, inode: number, handle: number): undefined {
    this.#texts.open(inode, handle).then(
      () => this.connection.answerOpen(token, handle, FOPEN_DIRECT_IO),
      (error: unknown) => {
        this.#failed(error);
        this.connection.answer(token, -errnoOf(error), -1);
      },
    );
    return undefined;
  }

  /** Who opens with O_DIRECT wants no page cache: told that, the kernel lets several write at once. */
  #openFlags({ pageCache }: ImageEntry, flags: number): number {
    const isDirect =
      pageCache === 'direct' || ((flags & constants.O_DIRECT) !== 0 && this.connection.figures()?.mixesDirectIo === true);
    return isDirect ? FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES : 0;
  }

  #read({ token, handle, offset, length }: Message): AnyNativeRequest | undefined {
    const inode = this.#openImages.get(handle);
    if (inode !== undefined) return new ReadRequest(this, token, inode, handle, offset, length);
    const text = this.#texts.read(handle, offset, length);
    if (text === undefined) return this.#answer(token, -Errno.EBADF);
    this.connection.answerData(token, text);
    return undefined;
  }

  #write({ token, handle, offset, length }: Message, slotNumber: number): AnyNativeRequest | undefined {
    const slot = this.slots.taken(slotNumber);
    const inode = this.#openImages.get(handle);
    const request = new WriteRequest(this, token, inode ?? 0, handle, offset, length, slot);
    if (inode !== undefined) return request;
    request.done(-Errno.EBADF);
    return undefined;
  }

  #plain({ token, handle }: Message, op: 'flush' | 'fsync'): AnyNativeRequest | undefined {
    const inode = this.#openImages.get(handle);
    if (inode !== undefined) return new PlainRequest(this, token, inode, handle, op);
    if (!this.#texts.has(handle)) return this.#answer(token, -Errno.EBADF);
    if (op === 'flush') this.#texts.flushed(handle);
    return this.#answer(token, 0);
  }

  #release({ token, handle }: Message): AnyNativeRequest | undefined {
    const inode = this.#openImages.get(handle);
    if (inode === undefined) {
      this.#texts.release(handle);
      return this.#answer(token, 0);
    }
    return new ReleaseRequest(this, token, inode, handle, () => this.#openImages.delete(handle));
  }

  #allocate({ token, inode, handle, offset, length, flags }: Message): AnyNativeRequest | undefined {
    const entry = this.names.get(inode);
    if (entry?.kind !== 'image' || !this.#openImages.has(handle)) return this.#answer(token, -Errno.EBADF);
    const isPunch = flags === (PUNCH_HOLE | KEEP_SIZE);
    const isZero = (flags & ~KEEP_SIZE) === ZERO_RANGE;
    if (flags !== 0 && !isPunch && !isZero) return this.#answer(token, -Errno.EOPNOTSUPP);
    // All of a disk is allocated, and it does not grow.
    if ((flags & KEEP_SIZE) === 0 && offset + length > entry.size) return this.#answer(token, -Errno.ENOSPC);
    const within = Math.min(length, entry.size - offset);
    if (flags === 0 || within <= 0) return this.#answer(token, 0);
    return new ZeroRequest(this, token, inode, handle, { offset, length: within, mayUnmap: isPunch });
  }

  #seek({ token, inode, handle, offset, flags }: Message): AnyNativeRequest | undefined {
    const entry = this.names.get(inode);
    if (entry?.kind !== 'image' || !this.#openImages.has(handle)) return this.#answer(token, -Errno.EINVAL);
    if (offset >= entry.size) return this.#answer(token, -Errno.ENXIO);
    const what = flags === SEEK_DATA ? 'data' : 'hole';
    return new SeekRequest(this, token, inode, handle, { offset, what, fallback: what === 'data' ? offset : entry.size });
  }

  #control({ token, inode, length, flags }: Message): void {
    const entry = this.names.get(inode);
    if (entry?.kind !== 'image' || flags !== BLKGETSIZE64 || length < 8) {
      this.#answer(token, -Errno.ENOTTY);
      return;
    }
    const { scratch } = this.connection;
    scratch.fill(0, 0, IOCTL_HEAD);
    new BigUint64Array(scratch.buffer, scratch.byteOffset + IOCTL_HEAD, 1)[0] = BigInt(entry.size);
    this.connection.answerScratch(token, IOCTL_HEAD + 8);
  }

  #interrupt(token: number): void {
    const request = this.#up.get(token);
    if (request === undefined) return;
    try {
      this.#options.upcalls.interrupted(request);
    } catch (error) {
      this.#failed(error);
      request.fail();
    }
  }

  #send(batch: readonly AnyNativeRequest[]): void {
    try {
      this.#options.upcalls.requests(batch);
    } catch (error) {
      this.#failed(error);
      for (const request of batch) request.fail();
    }
  }

  #failed(error: unknown): void {
    try {
      this.#options.upcalls.failed(error);
    } catch {
      // The log itself failed: there is nobody left to tell.
    }
  }

  #newHandle(): number {
    this.#lastHandle++;
    return this.#lastHandle;
  }
}
