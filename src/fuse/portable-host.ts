/**
 * The FUSE host on the fuse-native package and libfuse 2, the only place that loads it. Mounts, knows
 * when the mount has ended, and keeps the package's traps away from everyone else: no time limit of its
 * own, requests of 128 KiB instead of 4 KiB, no shell. What libfuse 2 cannot do: fallocate,
 * invalidation, a choice of page cache per file (so `directIo` is decided for the whole mount). Knows no
 * request; `portable-handlers.ts` answers them.
 *
 * The package does not say when a mount has ended. But libfuse closes its descriptor of /dev/fuse when
 * the kernel has ended the connection, which is after the last user has gone: that descriptor is watched.
 */

import type Fuse from 'fuse-native';
import { describeError, IserfsError } from '../errors.ts';
import { fuseDescriptors, isFuseDescriptor } from './fuse-descriptors.ts';
import type { Entry, FuseHost, FuseHostOptions, MountEnd, MountFuse } from './host.ts';
import { checkFuse, MOUNT_TYPE } from './mountpoint.ts';
import { endedAtOnce, OwnMount } from './own-mount.ts';
import { PortableHandlers } from './portable-handlers.ts';

type FuseClass = typeof Fuse;

/** Largest request of libfuse 2, both ways. */
const MAX_TRANSFER = 128 * 1024;
/** The addon copies the options and the path of the mount point to buffers of this size, and cuts what is longer. */
const ADDON_BUFFER = 1024;
/**
 * libfuse 2 ends a worker thread when more than ten are idle, and for each thread that it starts the addon
 * keeps a handle in the event loop for good. Background requests (read-ahead, write-back) are held below
 * that; more requests than this from programs at once still make threads come and go.
 */
const MAX_BACKGROUND = 9;
/** So many threads slow every request down. */
const TOO_MANY_THREADS = 5000;
/** How often the descriptor is looked at: while nothing is expected, and while an end is. */
const WATCH_MS = 250;
const WATCH_CLOSELY_MS = 10;

/** Mounts go one after the other, so that each finds its own descriptor. */
let previousMount: Promise<unknown> = Promise.resolve();

/** Mounts through fuse-native. Rejects with `mount-failed` where libfuse 2 is missing or refuses, and as `checkFuse` does. */
export const mountPortable: MountFuse = (options) => {
  const mounted = previousMount.then(() => mountOne(options));
  previousMount = mounted.catch(() => {});
  return mounted;
};

async function mountOne(options: FuseHostOptions): Promise<FuseHost> {
  await checkFuse({ allowOther: options.allowOther, helpers: ['fusermount'] });
  const handlers = new PortableHandlers(options);
  const fuse = createFuse(await loadFuse(), options, handlers);
  const before = new Set(fuseDescriptors());
  await new Promise<void>((resolve, reject) => {
    fuse.mount((error) => (error ? reject(mountFailure(options.mountpoint, error)) : resolve()));
  });
  const descriptor = fuseDescriptors().find((candidate) => !before.has(candidate));
  const mount = await OwnMount.find(options.mountpoint);
  if (descriptor === undefined || mount === undefined) throw await endedAtOnce(options.mountpoint);
  return new PortableHost(options, handlers, { fuse, descriptor, mount });
}

/** What is watched, and let go of at the end. */
interface Mounted {
  readonly fuse: Fuse;
  readonly descriptor: number;
  readonly mount: OwnMount;
}

class PortableHost implements FuseHost {
  readonly supports = { closed: true, invalidate: false, fallocate: false, seek: false, interrupt: false };
  readonly closed: Promise<MountEnd>;
  readonly #options: FuseHostOptions;
  readonly #handlers: PortableHandlers;
  readonly #mounted: Mounted;
  #watch: NodeJS.Timeout | undefined;
  #hasEnded = false;

  constructor(options: FuseHostOptions, handlers: PortableHandlers, mounted: Mounted) {
    this.#options = options;
    this.#handlers = handlers;
    this.#mounted = mounted;
    this.closed = new Promise((resolve) => this.#watchEvery(WATCH_MS, resolve));
  }

  get openImages(): number {
    return this.#handlers.openImages;
  }

  setEntries(add: readonly Entry[], remove: readonly number[] = []): void {
    this.#handlers.setEntries(add, remove);
  }

  invalidate(): Promise<void> {
    return Promise.resolve();
  }

  window(): undefined {
    return undefined;
  }

  async unmount(mode: 'clean' | 'lazy'): Promise<void> {
    if (this.#hasEnded) return;
    await this.#mounted.mount.unmount(mode);
    this.#lookSoon();
  }

  #lookSoon: () => void = () => {};

  #watchEvery(intervalMs: number, resolve: (end: MountEnd) => void): void {
    clearTimeout(this.#watch);
    this.#lookSoon = () => this.#watchEvery(WATCH_CLOSELY_MS, resolve);
    this.#watch = setTimeout(() => {
      if (isFuseDescriptor(this.#mounted.descriptor)) return this.#watchEvery(intervalMs, resolve);
      this.#hasEnded = true;
      void this.#end().then(resolve);
    }, intervalMs);
  }

  /** Leaves no dead mount behind, and lets go of the event loop. */
  async #end(): Promise<MountEnd> {
    const { fuse, mount } = this.#mounted;
    const end = await mount.ended((error) => this.#options.upcalls.failed(error));
    await this.#handlers.releaseAll();
    await new Promise((resolve) => fuse.unmount(resolve));
    return end;
  }
}

function createFuse(FuseNative: FuseClass, options: FuseHostOptions, handlers: PortableHandlers): Fuse {
  const optionString = `-o${mountOptions(options).join(',')}`;
  for (const text of [optionString, options.mountpoint]) {
    if (Buffer.byteLength(text) >= ADDON_BUFFER) throw new IserfsError('mount-failed', `too long for libfuse: ${text}`);
  }
  let threadsStarted = 0;
  class ConfiguredFuse extends FuseNative {
    override _fuseOptions(): string {
      return optionString;
    }

    override _malloc(size: number): Buffer {
      threadsStarted++;
      if (threadsStarted === TOO_MANY_THREADS) options.upcalls.failed(tooManyThreads(options.mountpoint));
      return super._malloc(size);
    }
  }
  return new ConfiguredFuse(options.mountpoint, handlers.table(), { timeout: false });
}

function mountOptions(options: FuseHostOptions): string[] {
  return [
    'big_writes',
    `max_write=${MAX_TRANSFER}`,
    `max_readahead=${MAX_TRANSFER}`,
    `max_background=${MAX_BACKGROUND}`,
    `congestion_threshold=${MAX_BACKGROUND - 2}`,
    // The kernel checks owners and modes; inode numbers are ours; nothing is renamed where it cannot be removed.
    'default_permissions',
    'use_ino',
    'hard_remove',
    // There is no way to tell the kernel of a change: it asks each time.
    'attr_timeout=0',
    'entry_timeout=0',
    'negative_timeout=0',
    `subtype=${MOUNT_TYPE.slice('fuse.'.length)}`,
    `fsname=${options.source.replace(/[\\,]/g, '\\$&')}`,
    ...(options.directIo === true ? ['direct_io'] : []),
    ...(options.allowOther ? ['allow_other'] : []),
    ...(options.readOnly ? ['ro'] : []),
  ];
}

/** Loaded when it is needed: without libfuse 2 the package cannot be, and the rest of the product can do without. */
async function loadFuse(): Promise<FuseClass> {
  let loaded: FuseClass;
  try {
    ({ default: loaded } = await import('fuse-native'));
  } catch (cause) {
    throw new IserfsError('mount-failed', `the package fuse-native cannot be loaded: ${describeError(cause)}`, {
      cause,
      hint: 'Install the package libfuse2 (newer Debian and Ubuntu releases call it libfuse2t64).',
    });
  }
  // Its own way is fusermount through a shell; by the time this is called, the mount has ended.
  loaded.unmount = (_mountpoint, callback) => callback(null);
  return loaded;
}

function tooManyThreads(mountpoint: string): IserfsError {
  return new IserfsError(
    'internal',
    `fuse-native has kept what ${TOO_MANY_THREADS} threads of ${mountpoint} needed, and grows slow`,
    {
      hint: 'Mount anew when it suits; it comes from more than ten requests at once, again and again.',
    },
  );
}

function mountFailure(mountpoint: string, cause: Error): IserfsError {
  return new IserfsError('mount-failed', `libfuse could not mount on ${mountpoint}`, {
    cause,
    hint: 'It wrote the reason above; in a container, mounting needs the SYS_ADMIN capability and /dev/fuse.',
  });
}
