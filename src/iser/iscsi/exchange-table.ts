/**
 * The books of an initiator's session: what it has asked the target and not had an answer to, by initiator
 * task tag, and when it stops waiting. Pure; knows no PDU but the tag.
 */

import { type IserfsError, ProtocolError } from '../../errors.ts';
import type { Lun, ScsiResult } from '../../scsi/port.ts';
import { TagMap } from '../../tag-map.ts';
import type { TaskBuffers } from '../datamover/datamover.ts';
import { RESERVED_TAG } from './pdu.ts';
import { serialAdd } from './serial.ts';
import type { TextAssembler } from './text.ts';

/** A SCSI command to submit; buffers are borrowed until one of the callbacks, of which exactly one is called, once. */
export interface TaskRequest extends TaskBuffers {
  readonly lun: Lun;
  readonly cdb: Uint8Array;
  readonly timeoutMs: number;
  readonly succeed: (result: ScsiResult) => void;
  readonly fail: (error: Error) => void;
}

export interface ScsiTask {
  readonly kind: 'scsi';
  readonly request: TaskRequest;
  readonly deadline: number;
  /** Set once it is on the wire. */
  sent: { readonly itt: number; readonly cmdSn: number } | undefined;
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
      readonly assembler: TextAssembler;
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

  /** The exchange of that kind under `itt`. Throws `ProtocolError`, naming `answer`, where there is none. */
  expect<K extends Exchange['kind']>(itt: number, kind: K, answer: () => string): Extract<Exchange, { kind: K }> {
    const exchange = this.#exchanges.get(itt);
    if (exchange?.kind !== kind) throw new ProtocolError(`${answer()} answers nothing that was asked`);
    return exchange as Extract<Exchange, { kind: K }>;
  }

  delete(itt: number): void {
    this.#exchanges.delete(itt);
  }

  /** A copy: entries may be deleted meanwhile. */
  entries(): [itt: number, exchange: Exchange][] {
    return this.#exchanges.entries();
  }

  noteDeadline(deadline: number): void {
    if (deadline < this.#earliestDeadline) this.#earliestDeadline = deadline;
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
