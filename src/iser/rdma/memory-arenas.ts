/** The memory of an in-process provider: ordinary ArrayBuffers, with addresses made up for them. Knows no connection. */

import type { RdmaMemory } from './provider.ts';

const FIRST_ADDRESS = 0x1000_0000_0000;
/** Between two arenas nothing is: who runs beyond an end does not arrive in another one. */
const GAP = 0x10_0000;

export class MemoryArenas implements RdmaMemory {
  readonly #addresses = new Map<ArrayBufferLike, number>();
  #nextAddress = FIRST_ADDRESS;

  /** Arenas that are not freed. */
  get count(): number {
    return this.#addresses.size;
  }

  allocate(length: number): ArrayBuffer {
    const arena = new ArrayBuffer(length);
    this.#addresses.set(arena, this.#nextAddress);
    this.#nextAddress += Math.ceil(length / GAP) * GAP + GAP;
    return arena;
  }

  free(arena: ArrayBuffer): void {
    if (!this.#addresses.delete(arena)) throw new Error('an arena was freed that was not allocated here');
  }

  owns(buffer: ArrayBufferLike): boolean {
    return this.#addresses.has(buffer);
  }

  /** Where `bytes` begin. Throws TypeError where they are not in an arena. */
  addressOf(bytes: Uint8Array): number {
    const base = this.#addresses.get(bytes.buffer);
    if (base === undefined) throw new TypeError('the bytes are not in memory of the provider');
    return base + bytes.byteOffset;
  }
}
