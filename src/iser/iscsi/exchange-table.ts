/**
 * The books of an initiator's session: what it has asked the target and not had an answer to, by initiator
 * task tag, and when it stops waiting. Pure; knows no PDU but the tag.
 */

import type { IserfsError } from '../../errors.ts';
import type { StartedCommand } from '../../scsi/port.ts';
import { TagMap } from '../../tag-map.ts';
import type { InitiatorText } from './initiator-text.ts';
import { RESERVED_TAG } from './pdu.ts';
import { serialAdd } from './serial.ts';

export interface ScsiTask {
  readonly kind: 'scsi';
  readonly command: StartedCommand;
  readonly timeoutMs: number;
  readonly deadline: number;
  /** Both set once it is on the wire. */
  itt: number | undefined;
  cmdSn: number;
  /** Why an ABORT TASK is under way for it. */
  aborting: IserfsError | undefined;
  /** The target's Reject of its command, if one has come. */
  rejected: IserfsError | undefined;
}

export type Exchange =
  | ScsiTask
  | {
      readonly kind: 'management';
      readonly deadline: number;
      readonly done: (response: number) => void;
      readonly fail: (error: Error) => void;
    }
  | {
      readonly kind: 'text';
      readonly deadline: number;
      readonly text: InitiatorText;
      readonly done: (text: Uint8Array) => void;
      readonly fail: (error: Error) => void;
    }
  | { readonly kind: 'nop'; deadline: number }
  | { readonly kind: 'logout'; readonly deadline: number };

export class ExchangeTable {
  readonly #exchanges = new TagMap<Exchange>();
  #nextItt = 1;
  /** No exchange and no noted deadline is earlier. */
  #earliestDeadline = Number.POSITIVE_INFINITY;

  get earliestDeadline(): number {
    return this.#earliestDeadline;
  }

  /** Enters an exchange under a tag that is free and not reserved, and returns the tag. */
  register(exchange: Exchange): number {
    while (this.#nextItt === RESERVED_TAG || this.#exchanges.has(this.#nextItt)) this.#nextItt = serialAdd(this.#nextItt, 1);
    const itt = this.#nextItt;
    this.#nextItt = serialAdd(itt, 1);
    this.#exchanges.set(itt, exchange);
    this.noteDeadline(exchange.deadline);
    return itt;
  }

  get(itt: number): Exchange | undefined {
    return this.#exchanges.get(itt);
  }

  /** The exchange of that kind under `itt`; undefined where there is none, or another. */
  find<K extends Exchange['kind']>(itt: number, kind: K): Extract<Exchange, { kind: K }> | undefined {
    const exchange = this.#exchanges.get(itt);
    return exchange?.kind === kind ? (exchange as Extract<Exchange, { kind: K }>) : undefined;
  }

  delete(itt: number): void {
    this.#exchanges.delete(itt);
  }

  /** A copy: entries may be deleted meanwhile. */
  entries(): [itt: number, exchange: Exchange][] {
    return this.#exchanges.entries();
  }

  /** Returns whether it is the earliest now. */
  noteDeadline(deadline: number): boolean {
    if (deadline >= this.#earliestDeadline) return false;
    this.#earliestDeadline = deadline;
    return true;
  }

  /**
   * The exchanges whose deadline has come. Forgets all deadlines but those of the others: what else was noted,
   * and what is still waited for of these, is to be noted again.
   */
  due(now: number): Exchange[] {
    this.#earliestDeadline = Number.POSITIVE_INFINITY;
    const due: Exchange[] = [];
    for (const exchange of this.#exchanges.values()) {
      if (exchange.kind === 'scsi' && exchange.aborting !== undefined) continue; // its ABORT TASK has a deadline
      if (now >= exchange.deadline) due.push(exchange);
      else this.noteDeadline(exchange.deadline);
    }
    return due;
  }
}
