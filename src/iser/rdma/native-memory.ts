/**
 * Arenas of the addon as ArrayBuffers. The memory of one is unmapped when its ArrayBuffer is collected or
 * freed and nothing that was posted or advertised refers to it any more, whichever comes last (I4).
 */

import type { AddonContext } from './addon.ts';
import type { RdmaMemory } from './provider.ts';

export class NativeMemory implements RdmaMemory {
  readonly #addon: AddonContext;
  readonly #ids = new WeakMap<ArrayBufferLike, number>();

  constructor(addon: AddonContext) {
    this.#addon = addon;
  }

  /** Throws RangeError where there is no more memory, and for a length of 0. */
  allocate(length: number): ArrayBuffer {
    const { id, buffer } = this.#addon.allocate(length);
    this.#ids.set(buffer, id);
    return buffer;
  }

  /** Detaches it: views of it are empty from now on. */
  free(arena: ArrayBuffer): void {
    this.#addon.free(this.idOf(arena), arena);
    this.#ids.delete(arena);
  }

  owns(buffer: ArrayBufferLike): boolean {
    return this.#ids.has(buffer);
  }

  /** The addon's number for the arena. Throws TypeError for other memory. */
  idOf(buffer: ArrayBufferLike): number {
    const id = this.#ids.get(buffer);
    if (id === undefined) throw new TypeError('the bytes are not in memory that the RDMA provider allocated');
    return id;
  }
}
