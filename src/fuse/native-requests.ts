/**
 * Requests about images on their way up, and their answers on the way back: one object for each that the kernel has
 * sent, as `host.ts` describes it, over the number that the addon has for it. Each is answered once, however often it is
 * tried. Knows no names and no handles.
 */

import type { SharedMemory } from '../scsi/block-device.ts';
import { Errno } from './errno.ts';
import type { AddonConnection } from './native-addon.ts';
import type { NativeSlots, Slot } from './native-slots.ts';

/** What a request needs of its host. */
export interface RequestHome {
  readonly connection: AddonConnection;
  readonly slots: NativeSlots;
  /** The request has its answer. */
  answered(token: number): void;
}

abstract class NativeRequest {
  readonly inode: number;
  readonly handle: number;
  readonly token: number;
  protected readonly home: RequestHome;
  #isAnswered = false;

  constructor(home: RequestHome, token: number, inode: number, handle: number) {
    this.home = home;
    this.token = token;
    this.inode = inode;
    this.handle = handle;
  }

  /** Whether this is the answer: the first. */
  protected first(): boolean {
    if (this.#isAnswered) return false;
    this.#isAnswered = true;
    this.home.answered(this.token);
    return true;
  }

  done(result: number): void {
    if (this.first()) this.home.connection.answer(this.token, result, -1);
  }

  /** Its upcall threw: nobody else will answer. */
  fail(): void {
    this.done(-Errno.EIO);
  }
}

export class ReadRequest extends NativeRequest {
  readonly op = 'read';
  readonly offset: number;
  readonly length: number;

  constructor(home: RequestHome, token: number, inode: number, handle: number, offset: number, length: number) {
    super(home, token, inode, handle);
    this.offset = offset;
    this.length = length;
  }

  doneWith(segments: readonly Uint8Array[], release: () => void): void {
    try {
      const only = segments.length === 1 ? segments[0] : undefined;
      if (this.first()) this.home.connection.answerData(this.token, only ?? segments);
    } finally {
      release();
    }
  }
}

export class WriteRequest extends NativeRequest {
  readonly op = 'write';
  readonly offset: number;
  readonly data: Uint8Array;
  readonly #slot: Slot;
  #hasSlot = true;

  constructor(home: RequestHome, token: number, inode: number, handle: number, offset: number, length: number, slot: Slot) {
    super(home, token, inode, handle);
    this.offset = offset;
    this.#slot = slot;
    this.data = slot.buffer.bytes.subarray(0, length);
  }

  get memory(): SharedMemory {
    return this.#slot;
  }

  override done(result: number): void {
    const slot = this.#hasSlot ? this.home.slots.answered(this.#slot) : -1;
    this.#hasSlot = false;
    if (this.first()) this.home.connection.answer(this.token, result, slot);
    // It failed before, with the slot kept from new data: whoever had the request is done with it only now.
    else if (slot >= 0) this.home.slots.lendAgain(this.#slot);
  }

  /** Its memory may still be in use: the slot is kept until `done`. */
  override fail(): void {
    if (this.first()) this.home.connection.answer(this.token, -Errno.EIO, -1);
  }
}

export class OpenRequest extends NativeRequest {
  readonly op = 'open';
  readonly access: 'read' | 'write' | 'read-write';
  readonly #opened: (result: number) => void;

  constructor(
    home: RequestHome,
    token: number,
    inode: number,
    handle: number,
    access: 'read' | 'write' | 'read-write',
    opened: (result: number) => void,
  ) {
    super(home, token, inode, handle);
    this.access = access;
    this.#opened = opened;
  }

  override done(result: number): void {
    if (this.first()) this.#opened(result);
  }
}

export class PlainRequest extends NativeRequest {
  readonly op: 'flush' | 'fsync';

  constructor(home: RequestHome, token: number, inode: number, handle: number, op: 'flush' | 'fsync') {
    super(home, token, inode, handle);
    this.op = op;
  }
}

export class ReleaseRequest extends NativeRequest {
  readonly op = 'release';
  readonly #released: () => void;

  constructor(home: RequestHome, token: number, inode: number, handle: number, released: () => void) {
    super(home, token, inode, handle);
    this.#released = released;
  }

  override done(result: number): void {
    if (!this.first()) return;
    this.#released();
    this.home.connection.answer(this.token, result, -1);
  }
}

export class ZeroRequest extends NativeRequest {
  readonly op = 'zero';
  readonly offset: number;
  readonly length: number;
  readonly mayUnmap: boolean;

  constructor(
    home: RequestHome,
    token: number,
    inode: number,
    handle: number,
    range: { readonly offset: number; readonly length: number; readonly mayUnmap: boolean },
  ) {
    super(home, token, inode, handle);
    this.offset = range.offset;
    this.length = range.length;
    this.mayUnmap = range.mayUnmap;
  }
}

export class SeekRequest extends NativeRequest {
  readonly op = 'seek';
  readonly offset: number;
  readonly what: 'data' | 'hole';
  readonly #fallback: number;

  /** `fallback`: the answer where nobody knows of holes. */
  constructor(
    home: RequestHome,
    token: number,
    inode: number,
    handle: number,
    sought: { readonly offset: number; readonly what: 'data' | 'hole'; readonly fallback: number },
  ) {
    super(home, token, inode, handle);
    this.offset = sought.offset;
    this.what = sought.what;
    this.#fallback = sought.fallback;
  }

  override done(result: number): void {
    super.done(result === -Errno.EOPNOTSUPP ? this.#fallback : result);
  }
}

export type AnyNativeRequest =
  | ReadRequest
  | WriteRequest
  | OpenRequest
  | PlainRequest
  | ReleaseRequest
  | ZeroRequest
  | SeekRequest;
