/**
 * Writes that went out on a nexus that was lost before their status came: the target may have executed
 * them, or still may, whenever it likes. Until the target confirms that it holds no task of the old
 * nexus any more, none of them may be issued again and nothing else may be written to their ranges: the old
 * one would overwrite the newer data later. Knows ranges, not how the confirmation is got.
 */

import type { ByteRange } from './command-runner.ts';

export class Fence {
  #suspects: ByteRange[] = [];

  get isNeeded(): boolean {
    return this.#suspects.length > 0;
  }

  /** A write to `range` may still be executed. */
  suspect(range: ByteRange): void {
    this.#suspects.push(range);
  }

  /** The target has confirmed that all old tasks are gone. */
  confirmed(): void {
    this.#suspects = [];
  }

  /** Whether a write to the range could be overtaken by an old one. */
  threatens({ offset, length }: ByteRange): boolean {
    for (const suspect of this.#suspects) {
      if (suspect.offset < offset + length && suspect.offset + suspect.length > offset) return true;
    }
    return false;
  }
}
