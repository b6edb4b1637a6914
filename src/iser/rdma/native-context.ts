/**
 * One context of the addon with all who take its events: connections that come about, queue pairs and
 * listeners, each by its number. The addon hands over a batch of events in one call; the order for each
 * of them is the order in which things happened.
 */

import { IserfsError } from '../../errors.ts';
import {
  type AddonContext,
  type AddonFacts,
  type AddonFailure,
  type AddonNotice,
  type AddonQueuePairOptions,
  type AddonRequest,
  openAddon,
} from './addon.ts';
import { CompletionRecord, EventKind, eventKindAt, RECORD_WORDS } from './event-records.ts';
import { NativeMemory } from './native-memory.ts';
import { NativeQueuePair } from './native-queue-pair.ts';
import type { Completion, QueuePair, QueuePairEvents, QueuePairOptions } from './provider.ts';

/** Who takes the events of a connection or a listener. */
interface Receiver {
  completed(completion: Completion): void;
  batchEnded(): void;
  established(facts: AddonFacts): void;
  closed(failure: AddonFailure): void;
  requested(request: AddonRequest): void;
}

/** How a connection came about, or why not. */
export type Outcome = { readonly queuePair: QueuePair } | { readonly failure: AddonFailure };

/** A connection that comes about. */
export interface Attempt {
  /** Settles when nothing refers to the posted receives any more, where there is no connection. Never rejects. */
  readonly outcome: Promise<Outcome>;
  /** Gives up: the outcome is a failure. No more than a `close` where the connection has come about. */
  giveUp(): void;
}

export class NativeContext {
  readonly addon: AddonContext;
  readonly memory: NativeMemory;
  readonly #receivers = new Map<number, Receiver>();
  readonly #completion = new CompletionRecord();
  readonly #inBatch: Receiver[] = [];

  /** Throws `unsupported` where there is no addon. */
  constructor() {
    this.addon = openAddon((count, notices) => this.#deliver(count, notices));
    this.memory = new NativeMemory(this.addon);
  }

  /** `start` makes the connection and answers its number. Throws what `start` and wrong options throw. */
  attempt(options: QueuePairOptions, events: QueuePairEvents, start: (options: AddonQueuePairOptions) => number): Attempt {
    const number = start(this.#addonOptions(options));
    let givenUp = false;
    const outcome = new Promise<Outcome>((resolve) => {
      const drop = () => this.#receivers.delete(number);
      this.#receivers.set(number, {
        ...ignoring,
        established: (facts) => {
          if (givenUp) return;
          const queuePair = new NativeQueuePair(this.addon, this.memory, { number, facts, events }, reportLater, drop);
          this.#receivers.set(number, receiverOf(queuePair));
          resolve({ queuePair });
        },
        closed: (failure) => {
          drop();
          this.addon.retire(number);
          resolve({ failure });
        },
      });
    });
    const giveUp = () => {
      givenUp = true;
      if (this.#receivers.has(number)) this.addon.close(number, true);
    };
    return { outcome, giveUp };
  }

  /** `requested` is called for each connection request from now on. */
  receiveRequests(listener: number, requested: (request: AddonRequest) => void): void {
    this.#receivers.set(listener, { ...ignoring, requested });
  }

  /** Idempotent. */
  closeListener(listener: number): void {
    if (this.#receivers.delete(listener)) this.addon.closeListener(listener);
  }

  #addonOptions(options: QueuePairOptions): AddonQueuePairOptions {
    const { sendDepth, receiveDepth, advertisementDepth, ird, ord, crc, receives } = options;
    const { privateData, privateDataWithoutInvalidation } = options;
    const words = receives.flatMap(({ id, bytes }) => [id, this.memory.idOf(bytes.buffer), bytes.byteOffset, bytes.byteLength]);
    if (receives.some(({ id }) => id !== id >>> 0)) throw new RangeError('the id is out of range');
    return {
      ...{ sendDepth, receiveDepth, advertisementDepth, ird, ord, crc },
      ...{ privateData, privateDataWithoutInvalidation },
      receives: Uint32Array.from(words),
    };
  }

  #deliver(count: number, notices: readonly AddonNotice[] | undefined): void {
    const { records } = this.addon;
    const inBatch = this.#inBatch;
    let lastNumber = 0;
    let last: Receiver | undefined;
    for (let at = 0; at < count * RECORD_WORDS; at += RECORD_WORDS) {
      const number = records[at] as number;
      const kind = eventKindAt(records, at);
      if (kind === EventKind.completion) {
        if (number !== lastNumber) {
          lastNumber = number;
          last = this.#receivers.get(number);
          if (last !== undefined) inBatch.push(last);
        }
        this.#completion.read(records, at);
        last?.completed(this.#completion);
      } else {
        lastNumber = 0;
        this.#notify(number, kind, notices?.[records[at + 2] as number]);
      }
    }
    // Those who are in it more than once, or have ended since, know it.
    for (const receiver of inBatch) receiver.batchEnded();
    inBatch.length = 0;
  }

  #notify(number: number, kind: number, notice: AddonNotice | undefined): void {
    const receiver = this.#receivers.get(number);
    if (receiver === undefined || notice === undefined) return;
    if (kind === EventKind.established && 'device' in notice) receiver.established(notice);
    else if (kind === EventKind.closed && 'code' in notice) receiver.closed(notice);
    else if (kind === EventKind.requested && 'request' in notice) receiver.requested(notice);
    else throw new IserfsError('internal', `the RDMA addon reported an event of unknown kind ${kind}`);
  }
}

const ignoring: Receiver = {
  completed: () => {},
  batchEnded: () => {},
  established: () => {},
  closed: () => {},
  requested: () => {},
};

function receiverOf(queuePair: NativeQueuePair): Receiver {
  return {
    ...ignoring,
    completed: (completion) => queuePair.completed(completion),
    batchEnded: () => queuePair.batchEnded(),
    closed: (failure) => queuePair.closed(failure),
  };
}

/** What a handler throws is an uncaught exception, and keeps no event from anyone. */
export function reportLater(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}
