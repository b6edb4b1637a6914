/** The unit attention conditions of one logical unit, queued per I_T nexus (SAM). Knows no commands. */

export interface UnitAttention {
  readonly asc: number;
  readonly ascq: number;
}

export const Attention = {
  'power-on': { asc: 0x29, ascq: 0x00 },
  /** Hard reset. */
  'bus-reset': { asc: 0x29, ascq: 0x02 },
  /** LOGICAL UNIT RESET. */
  'device-reset': { asc: 0x29, ascq: 0x03 },
  'nexus-loss': { asc: 0x29, ascq: 0x07 },
  'mode-parameters-changed': { asc: 0x2a, ascq: 0x01 },
  'reservations-released': { asc: 0x2a, ascq: 0x04 },
  'capacity-changed': { asc: 0x2a, ascq: 0x09 },
  'reported-luns-changed': { asc: 0x3f, ascq: 0x0e },
} as const satisfies Record<string, UnitAttention>;

const RESET = 0x29;

export class PendingAttentions {
  readonly #pending = new Map<number, UnitAttention[]>();

  addNexus(nexus: number, first: UnitAttention): void {
    this.#pending.set(nexus, [first]);
  }

  removeNexus(nexus: number): void {
    this.#pending.delete(nexus);
  }

  /** Establishes a condition for every nexus but `except`. A reset replaces what came before it; a condition that is pending is not repeated. */
  raise(attention: UnitAttention, except?: number): void {
    for (const [nexus, queue] of this.#pending) {
      if (nexus === except) continue;
      if (attention.asc === RESET) queue.length = 0;
      if (!queue.some((pending) => isSame(pending, attention))) queue.push(attention);
    }
  }

  /** Takes the oldest condition: it is reported now, once. */
  take(nexus: number): UnitAttention | undefined {
    return this.#pending.get(nexus)?.shift();
  }

  /** Clears a condition that the nexus has learnt of in another way. */
  clear(nexus: number, attention: UnitAttention): void {
    const queue = this.#pending.get(nexus);
    const index = queue?.findIndex((pending) => isSame(pending, attention)) ?? -1;
    if (index >= 0) queue?.splice(index, 1);
  }
}

function isSame(one: UnitAttention, other: UnitAttention): boolean {
  return one.asc === other.asc && one.ascq === other.ascq;
}
