/**
 * A connection of the addon once it is established. Its first events wait until those who were promised
 * the queue pair have it: whatever they do before they give the event loop back is done before an event
 * comes. What is posted in one turn of the event loop goes out together at its end. When the connection ends, what the
 * provider did not complete, because it was posted while the end was on its way, completes as flushed.
 */

import { setImmediate } from 'node:timers';
import type { AddonContext, AddonFacts, AddonFailure } from './addon.ts';
import { flushedCompletions } from './event-records.ts';
import type { NativeMemory } from './native-memory.ts';
import type { Advertisement, Completion, Protection, QueuePair, QueuePairEvents, RemoteMemory } from './provider.ts';
import { closingFault } from './provider-fault.ts';

/** In the order of `Protection` in `native/provider/provider.h`. */
const protections: readonly Protection[] = ['tag', 'window', 'region'];

export class NativeQueuePair implements QueuePair {
  readonly device: string;
  readonly fabric: string;
  readonly localAddress: string;
  readonly remoteAddress: string;
  readonly ird: number;
  readonly ord: number;
  readonly crc: boolean | undefined;
  readonly protection: Protection;
  readonly canPeerInvalidate: boolean;
  readonly privateData: Uint8Array;
  readonly #addon: AddonContext;
  readonly #memory: NativeMemory;
  readonly #number: number;
  readonly #events: QueuePairEvents;
  readonly #report: (error: unknown) => void;
  readonly #onEnd: () => void;
  /** What came too early; undefined once events pass straight on. */
  #held: Completion[] | undefined = [];
  #failure: AddonFailure | undefined;
  /** Whether there were completions since the last `batchEnded`. */
  #inBatch = false;
  #ended = false;
  #isCorked = false;

  /** `report` takes what a handler throws. `onEnd`: the number names nothing from now on. */
  constructor(
    addon: AddonContext,
    memory: NativeMemory,
    connection: { readonly number: number; readonly facts: AddonFacts; readonly events: QueuePairEvents },
    report: (error: unknown) => void,
    onEnd: () => void,
  ) {
    const { number, facts, events } = connection;
    this.device = facts.device;
    this.fabric = facts.fabric;
    this.localAddress = facts.localAddress;
    this.remoteAddress = facts.remoteAddress;
    this.ird = facts.ird;
    this.ord = facts.ord;
    this.crc = facts.crc;
    this.protection = protections[facts.protection] ?? 'region';
    this.canPeerInvalidate = facts.canPeerInvalidate;
    this.privateData = facts.privateData;
    this.#addon = addon;
    this.#memory = memory;
    this.#number = number;
    this.#events = events;
    this.#report = report;
    this.#onEnd = onEnd;
    // After all that runs because of the promise.
    setImmediate(() => this.#passOn());
  }

  postReceive(id: number, bytes: Uint8Array): void {
    const arena = this.#memory.idOf(bytes.buffer);
    if (this.#mayPost()) this.#addon.postReceive(this.#number, id, arena, bytes.byteOffset, bytes.byteLength);
  }

  postSend(id: number, first: Uint8Array, second?: Uint8Array, invalidate?: number): void {
    const arena = this.#memory.idOf(first.buffer);
    if (second === undefined) {
      if (this.#mayPost()) this.#addon.postSend(this.#number, id, invalidate, arena, first.byteOffset, first.byteLength);
      return;
    }
    const { byteOffset, byteLength } = second;
    const secondArena = this.#memory.idOf(second.buffer);
    if (!this.#mayPost()) return;
    this.#addon.postSend(
      this.#number,
      id,
      invalidate,
      arena,
      first.byteOffset,
      first.byteLength,
      secondArena,
      byteOffset,
      byteLength,
    );
  }

  postWrite(id: number, bytes: Uint8Array, { tag, address }: RemoteMemory): void {
    const arena = this.#memory.idOf(bytes.buffer);
    if (this.#mayPost()) this.#addon.postWrite(this.#number, id, tag, address, arena, bytes.byteOffset, bytes.byteLength);
  }

  postRead(id: number, bytes: Uint8Array, { tag, address }: RemoteMemory): void {
    const arena = this.#memory.idOf(bytes.buffer);
    if (this.#mayPost()) this.#addon.postRead(this.#number, id, tag, address, arena, bytes.byteOffset, bytes.byteLength);
  }

  advertise(bytes: Uint8Array, access: 'remote-write' | 'remote-read'): Advertisement {
    const arena = this.#memory.idOf(bytes.buffer);
    if (this.#ended) return { tag: 0, address: 0 };
    this.#addon.advertise(this.#number, access === 'remote-write' ? 0 : 1, arena, bytes.byteOffset, bytes.byteLength);
    const { advertised } = this.#addon;
    return { tag: advertised[0] as number, address: advertised[1] as number };
  }

  revoke(tag: number): void {
    if (!this.#ended) this.#addon.revoke(this.#number, tag);
  }

  close(mode: 'orderly' | 'abrupt'): void {
    if (!this.#ended) this.#addon.close(this.#number, mode === 'abrupt');
  }

  /** Whether anything can be posted still. If so, it goes out with all else of this turn, and what completes by that is told soon after. */
  #mayPost(): boolean {
    if (this.#ended) return false;
    if (this.#isCorked) return true;
    this.#isCorked = true;
    this.#addon.cork(this.#number);
    setImmediate(() => {
      this.#isCorked = false;
      if (!this.#ended) this.#addon.uncork(this.#number);
    });
    return true;
  }

  /** Of the addon. `completion` is borrowed. */
  completed(completion: Completion): void {
    if (this.#held !== undefined) this.#held.push(copyOf(completion));
    else if (!this.#ended) this.#complete(completion);
  }

  /** Of the addon; also where nothing has completed. */
  batchEnded(): void {
    if (!this.#inBatch || this.#ended) return;
    this.#inBatch = false;
    try {
      this.#events.batchEnded();
    } catch (error) {
      this.#report(error);
    }
  }

  /** Of the addon, its last. */
  closed(failure: AddonFailure): void {
    this.#failure = failure;
    if (this.#held === undefined) this.#end(failure);
  }

  #passOn(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const completion of held) this.#complete(completion);
    this.batchEnded();
    if (this.#failure !== undefined) this.#end(this.#failure);
  }

  #end(failure: AddonFailure): void {
    // Handlers may post still, at the end of a batch as well: that completes too, and ends its batch.
    for (;;) {
      this.batchEnded();
      const left = this.#addon.flush(this.#number);
      if (left === undefined) break;
      for (const completion of flushedCompletions(left)) this.#complete(completion);
    }
    this.#ended = true;
    this.#addon.retire(this.#number);
    this.#onEnd();
    try {
      this.#events.closed(closingFault(this.remoteAddress, failure));
    } catch (error) {
      this.#report(error);
    }
  }

  #complete(completion: Completion): void {
    this.#inBatch = true;
    try {
      this.#events.completed(completion);
    } catch (error) {
      this.#report(error);
    }
  }
}

function copyOf({ id, opcode, status, length, invalidated }: Completion): Completion {
  return { id, opcode, status, length, invalidated };
}
