/**
 * The FUSE host on our own channel to /dev/fuse (`native/fuse`, by way of the addon): needs no libfuse. Mounts, knows when
 * the kernel has ended the mount, and lends memory for what is written. What the cache shows in a `window` is read
 * without JavaScript, also while the event loop is busy. Knows no request; `native-handlers.ts` answers them.
 */

import { writeFile } from 'node:fs/promises';
import { describeError, IserfsError } from '../errors.ts';
import type { PoolBuffer } from '../scsi/buffer-pool.ts';
import type { PageWindow } from '../scsi/page-window.ts';
import type { Entry, FuseHost, FuseHostOptions, MountEnd, MountFuse } from './host.ts';
import { checkFuse, hintOfRefusal, MOUNT_TYPE } from './mountpoint.ts';
import { type AddonConnection, type FuseAddon, loadFuseAddon } from './native-addon.ts';
import { NativeHandlers } from './native-handlers.ts';
import { NativeSlots } from './native-slots.ts';
import { NativeWindow } from './native-window.ts';
import { endedAtOnce, OwnMount } from './own-mount.ts';

/** The kernel reads ahead no more than 128 KiB if it is not told otherwise, which root may. */
const READ_AHEAD_KB = 1024;
/** Without a request for so long, memory for writes goes back. */
const IDLE_MS = 10_000;
/** The kernel's first question comes with the mount. */
const FIRST_REQUEST_MS = 10_000;

/** Why this machine cannot use the native host, or undefined where it can. */
export function whyNotNative(): IserfsError | undefined {
  try {
    loadFuseAddon();
    return undefined;
  } catch (error) {
    return error instanceof IserfsError ? error : new IserfsError('unsupported', describeError(error), { cause: error });
  }
}

/** Mounts through the addon. Rejects with `unsupported` where there is none, with `mount-failed` where the kernel or fusermount3 refuses, and as `checkFuse` does. */
export const mountNative: MountFuse = async (options) => {
  const addon = loadFuseAddon();
  await checkFuse({ allowOther: options.allowOther, helpers: ['fusermount3'] });
  const isRoot = process.geteuid?.() === 0;
  let descriptor: number;
  try {
    descriptor = await addon.mount({
      mountpoint: options.mountpoint,
      source: options.source,
      subtype: MOUNT_TYPE.slice('fuse.'.length),
      allowOther: options.allowOther,
      readOnly: options.readOnly,
      viaHelper: !isRoot,
    });
  } catch (cause) {
    throw new IserfsError('mount-failed', `cannot mount on ${options.mountpoint}`, {
      cause,
      ...hintOfRefusal(describeError(cause)),
    });
  }
  const host = new NativeHost(addon, descriptor, options);
  await host.begin(isRoot);
  return host;
};

class NativeHost implements FuseHost {
  readonly supports = { closed: true, invalidate: true, fallocate: true, seek: true, interrupt: true };
  readonly closed: Promise<MountEnd>;
  readonly #options: FuseHostOptions;
  readonly #connection: AddonConnection;
  readonly #handlers: NativeHandlers;
  readonly #slots: NativeSlots;
  readonly #windows = new Map<number, NativeWindow>();
  /** Who waits for a notice, by its id. */
  readonly #notices = new Map<number, () => void>();
  #lastNotice = 0;
  /** Undefined until it is ready. */
  #mount: OwnMount | undefined;
  #idle: NodeJS.Timeout | undefined;
  #messagesBefore = 0;
  #resolveClosed: (end: MountEnd) => void = () => {};
  #settleReady: () => void = () => {};
  #hasEnded = false;

  constructor(addon: FuseAddon, descriptor: number, options: FuseHostOptions) {
    this.#options = options;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.#connection = addon.open(descriptor, (count, isStarved, hasEnded, done) => {
      this.#deliver(count, isStarved, hasEnded, done);
    });
    this.#slots = new NativeSlots(this.#connection, (length) => options.memory?.acquire(length) ?? ownMemory(addon, length));
    this.#handlers = new NativeHandlers(options, this.#connection, this.#slots);
    this.#slots.replenish();
    this.#idle = setInterval(() => this.#trim(), IDLE_MS);
    this.#idle.unref();
  }

  get openImages(): number {
    return this.#handlers.openImages;
  }

  /** Resolves when the kernel has agreed to the terms and the mount is in its table. */
  async begin(isRoot: boolean): Promise<void> {
    const { mountpoint } = this.#options;
    if (await this.#isReady()) this.#mount = await OwnMount.find(mountpoint);
    if (this.#mount === undefined || this.#hasEnded) {
      const failure = await endedAtOnce(mountpoint);
      this.#close();
      throw failure;
    }
    if (!isRoot) return;
    // Not everywhere is /sys there, and writable.
    await writeFile(`/sys/class/bdi/${this.#mount.device}/read_ahead_kb`, String(READ_AHEAD_KB)).catch(() => {});
  }

  setEntries(add: readonly Entry[], remove: readonly number[] = []): void {
    this.#handlers.names.update(add, remove);
    for (const inode of this.#windows.keys()) if (this.#handlers.names.get(inode) === undefined) this.#windows.delete(inode);
  }

  invalidate(inode: number, offset: number, length: number): Promise<void> {
    if (this.#hasEnded || length === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#lastNotice++;
      this.#notices.set(this.#lastNotice, resolve);
      this.#connection.forgetInode(inode, offset, length, this.#lastNotice);
    });
  }

  window(inode: number): PageWindow {
    let window = this.#windows.get(inode);
    if (window === undefined) {
      window = new NativeWindow(this.#connection, inode);
      this.#windows.set(inode, window);
    }
    return window;
  }

  async unmount(mode: 'clean' | 'lazy'): Promise<void> {
    if (!this.#hasEnded) await this.#mount?.unmount(mode);
  }

  #deliver(count: number, isStarved: boolean, hasEnded: boolean, done: Uint32Array | undefined): void {
    if (count > 0) this.#handlers.deliver(count);
    if (isStarved || count > 0) this.#slots.replenish();
    for (const id of done ?? []) {
      this.#notices.get(id)?.();
      this.#notices.delete(id);
    }
    this.#settleReady();
    if (!hasEnded) return;
    this.#hasEnded = true;
    void this.#end();
  }

  /** Leaves no dead mount behind, and lets go of the event loop. */
  async #end(): Promise<void> {
    const end = await this.#mount?.ended((error) => this.#options.upcalls.failed(error));
    await this.#handlers.releaseAll();
    this.#close();
    this.#resolveClosed(end ?? { reason: 'unmounted' });
  }

  #close(): void {
    clearInterval(this.#idle);
    this.#connection.close();
    this.#slots.close();
    for (const resolve of this.#notices.values()) resolve();
    this.#notices.clear();
  }

  #isReady(): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), FIRST_REQUEST_MS);
      const look = () => {
        if (!this.#hasEnded && this.#connection.figures()?.isInitialised !== true) return;
        this.#settleReady = () => {};
        clearTimeout(timer);
        resolve(!this.#hasEnded);
      };
      this.#settleReady = look;
      look();
    });
  }

  #trim(): void {
    const messages = this.#connection.figures()?.messagesRead ?? 0;
    if (messages === this.#messagesBefore) this.#slots.trim();
    this.#messagesBefore = messages;
  }
}

/** For those who bring none. */
function ownMemory(addon: FuseAddon, length: number): PoolBuffer {
  const bytes = new Uint8Array(addon.allocate(length));
  return { bytes, release: () => {} };
}
