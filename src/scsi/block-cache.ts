/**
 * The cache of a mount: one `BlockCache`, bounded in bytes over all its devices, each of which is seen through a
 * `CachedDevice`. What is common to them, and which of them stage writes and keep nothing.
 */

import type { BufferPool } from './buffer-pool.ts';
import { CacheStore, LEAST_CAPACITY } from './cache-store.ts';
import { type CacheableDevice, CachedDevice } from './cached-device.ts';

export interface BlockCacheOptions {
  readonly pool: BufferPool;
  /** Bound of the memory that is kept; less than 64 KiB switches the cache, and read-ahead with it, off. */
  readonly bytes: number;
  /** Most bytes to fetch ahead of each sequential reader; 0 switches it off. */
  readonly readahead: number;
  /** Most bytes of each device that are acknowledged before it has them; 0, if absent, switches that off. */
  readonly staged?: number;
}

export interface AttachOptions {
  /** Others write to the device as well: nothing is answered from memory, and nothing is staged. */
  readonly shared?: boolean;
  /** Nothing is staged. */
  readonly writeThrough?: boolean;
}

export interface BlockCacheStats {
  readonly capacity: number;
  readonly bytes: number;
  /** Given up, but still being read or filled. */
  readonly limboBytes: number;
  readonly slots: number;
  readonly evictions: number;
}

export class BlockCache {
  readonly #options: BlockCacheOptions;
  readonly #store: CacheStore | undefined;

  constructor(options: BlockCacheOptions) {
    this.#options = options;
    this.#store = options.bytes < LEAST_CAPACITY ? undefined : new CacheStore(options.pool, options.bytes);
  }

  get stats(): BlockCacheStats {
    const store = this.#store;
    return {
      capacity: store?.capacity ?? 0,
      bytes: store?.bytes ?? 0,
      limboBytes: store?.limboBytes ?? 0,
      slots: store?.slots ?? 0,
      evictions: store?.evictions ?? 0,
    };
  }

  attach(device: CacheableDevice, { shared = false, writeThrough = false }: AttachOptions = {}): CachedDevice {
    const { pool, readahead, staged = 0 } = this.#options;
    return new CachedDevice(device, {
      pool,
      store: shared ? undefined : this.#store,
      readahead,
      staged: shared || writeThrough ? 0 : staged,
    });
  }

  /** Throws where the books do not balance; for tests. */
  checkInvariants(): void {
    this.#store?.checkInvariants();
  }
}
