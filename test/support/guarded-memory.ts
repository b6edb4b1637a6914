/**
 * Memory for a queue pair under attack: each run lies between canaries in an arena of its own, so that a byte written outside of
 * what was offered is found, wherever it lands.
 */

import type { RdmaMemory } from '../../src/iser/rdma/provider.ts';

const GUARD = 4096;
const CANARY = 0xa5;

interface Run {
  readonly arena: ArrayBuffer;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** What the arena held when it was last looked at. */
  readonly expected: Uint8Array;
}

export class GuardedMemory {
  readonly #memory: RdmaMemory;
  readonly #runs: Run[] = [];

  constructor(memory: RdmaMemory) {
    this.#memory = memory;
  }

  /** `length` bytes; canaries or a copy of `contents`. */
  run(length: number, contents?: Uint8Array): Uint8Array<ArrayBuffer> {
    const arena = this.#memory.allocate(2 * GUARD + length);
    const whole = new Uint8Array(arena).fill(CANARY);
    const bytes = whole.subarray(GUARD, GUARD + length);
    if (contents !== undefined) bytes.set(contents);
    this.#runs.push({ arena, bytes, expected: whole.slice() });
    return bytes;
  }

  /** The test itself, or a peer that is allowed to, may have changed these bytes of `run`. */
  accept(run: Uint8Array, start = 0, end = run.length): void {
    const found = this.#runs.find(({ bytes }) => bytes.buffer === run.buffer);
    if (found === undefined) throw new Error('not memory of this test');
    const first = run.byteOffset + start;
    found.expected.set(new Uint8Array(found.arena, first, end - start), first);
  }

  /** Every byte that is not what it was, as ranges: `run 2: 0 to 4`; negative: in front of the run. */
  changes(): string[] {
    return this.#runs.flatMap(({ arena, expected }, index) => {
      const found: string[] = [];
      const now = new Uint8Array(arena);
      if (Buffer.compare(now, expected) === 0) return found;
      for (let start = 0; start < now.length; start++) {
        if (now[start] === expected[start]) continue;
        let end = start + 1;
        while (end < now.length && now[end] !== expected[end]) end++;
        found.push(`run ${index}: ${start - GUARD} to ${end - GUARD}`);
        start = end;
      }
      return found;
    });
  }

  /** Once no transfer is under way. */
  free(): void {
    for (const { arena } of this.#runs) this.#memory.free(arena);
    this.#runs.length = 0;
  }
}
