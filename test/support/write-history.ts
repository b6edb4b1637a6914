/**
 * What a disk may hold, byte by byte, given every write that was asked for and how it ended: the model
 * that random tests compare with. Time is a counter of events.
 *
 * A byte may read as the last write acknowledged before the read began, or as any write that was under
 * way at the same time, or as one that failed since then (a failed write leaves its range unknown). Of two writes that were
 * under way at the same time the one that ended last has won; of a range that is zeroed and a write, either.
 */

interface Write {
  readonly data: Uint8Array;
  readonly offset: number;
  readonly begun: number;
  readonly isZeroing: boolean;
  /** Infinity while it is under way. */
  ended: number;
  failed: boolean;
}

const STRETCH = 64;

export class WriteHistory {
  readonly #initial: Uint8Array;
  /** For each stretch of `STRETCH` bytes the writes that touched it and have ended, in that order. */
  readonly #ended: Write[][];
  readonly #underWay = new Set<Write>();
  #now = 0;

  constructor(initial: Uint8Array) {
    this.#initial = Uint8Array.from(initial);
    this.#ended = Array.from({ length: Math.ceil(initial.length / STRETCH) }, () => []);
  }

  /** The present moment; also makes it pass. */
  tick(): number {
    return ++this.#now;
  }

  /** Call what it returns when the write has ended; and once more with `failed` where it fails although it was acknowledged. */
  begin(offset: number, data: Uint8Array, kind: 'write' | 'zero' = 'write'): (outcome: 'acknowledged' | 'failed') => void {
    const write: Write = {
      data: Uint8Array.from(data),
      offset,
      begun: this.tick(),
      isZeroing: kind === 'zero',
      ended: Number.POSITIVE_INFINITY,
      failed: false,
    };
    this.#underWay.add(write);
    return (outcome) => {
      if (write.ended !== Number.POSITIVE_INFINITY) {
        write.failed ||= outcome === 'failed';
        return;
      }
      write.ended = this.tick();
      write.failed = outcome === 'failed';
      this.#underWay.delete(write);
      const last = Math.floor((offset + data.length - 1) / STRETCH);
      for (let stretch = Math.floor(offset / STRETCH); stretch <= last; stretch++) this.#ended[stretch]?.push(write);
    };
  }

  /**
   * The first byte of `seen` that cannot be there when everything acknowledged up to the moment `since` has to be
   * there, and nothing that began after `until`; undefined where all can.
   */
  firstImpossible(offset: number, seen: Uint8Array, since: number, until: number): number | undefined {
    for (let index = 0; index < seen.length; index++) {
      if (!this.#isPossible(offset + index, seen[index] ?? 0, since, until)) return offset + index;
    }
    return undefined;
  }

  #isPossible(at: number, value: number, since: number, until: number): boolean {
    for (const write of this.#underWay) {
      if (write.begun <= until && write.data[at - write.offset] === value) return true;
    }
    const writes = this.#ended[Math.floor(at / STRETCH)] ?? [];
    /** What ended before this was overwritten for certain, and every write by one that ended after it. */
    let overwrittenAt = 0;
    let writesAreOver = false;
    for (let index = writes.length - 1; index >= 0; index--) {
      const write = writes[index];
      const inside = at - (write?.offset ?? at + 1);
      if (write === undefined || write.begun > until || inside < 0 || inside >= write.data.length) continue;
      if (write.ended <= overwrittenAt) return false;
      if (writesAreOver && !write.isZeroing) continue;
      if (write.data[inside] === value) return true;
      if (write.failed || write.ended > since) continue;
      overwrittenAt = Math.max(overwrittenAt, write.begun);
      writesAreOver ||= !write.isZeroing;
    }
    return overwrittenAt === 0 && this.#initial[at] === value;
  }
}
