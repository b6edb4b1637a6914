/** The iwarp provider with an account of the arenas that are taken from its memory. */

import { iwarpProvider, rdmaMemory } from '../../src/iser/rdma/native-provider.ts';
import type { RdmaMemory, RdmaProvider } from '../../src/iser/rdma/provider.ts';

export interface CountedMemory extends RdmaMemory {
  /** Arenas that were allocated and not freed. */
  arenas: number;
}

export function countedMemory(): CountedMemory {
  const memory = rdmaMemory();
  return {
    arenas: 0,
    allocate(length) {
      this.arenas++;
      return memory.allocate(length);
    },
    free(arena) {
      this.arenas--;
      memory.free(arena);
    },
    owns: (buffer) => memory.owns(buffer),
  };
}

export function countedProvider(memory: CountedMemory): RdmaProvider {
  const provider = iwarpProvider();
  return {
    name: provider.name,
    memory,
    connect: (endpoint, options, events) => provider.connect(endpoint, options, events),
    listen: (endpoint, onRequest) => provider.listen(endpoint, onRequest),
  };
}
