/**
 * The memory that writes are read into: slots of 1 MiB that are lent to the addon, come back with a write, and are lent
 * again when the write is answered, unless somebody retains one. Made when there is need, given back to where they came
 * from when there is none. Knows no request.
 */

import type { SharedMemory } from '../scsi/block-device.ts';
import type { PoolBuffer } from '../scsi/buffer-pool.ts';
import { type AddonConnection, MAX_TRANSFER } from './native-addon.ts';

/**
 * Slots with writes that have no answer: nothing more is read then, not even what is no write. Twice as many as the kernel has
 * out asynchronously (`maxBackground` in `native/fuse/channel.cc`), so that these, all waiting for one device, leave room.
 */
const MAX_UNANSWERED = 128;
/** How many wait for the next writes at least: as many as come while the event loop is busy. */
const WAITING = 2;

/** A slot, and who has it. The channel itself is one user until the reply. */
export class Slot implements SharedMemory {
  readonly number: number;
  readonly buffer: PoolBuffer;
  readonly #slots: NativeSlots;
  #users = 0;

  constructor(slots: NativeSlots, number: number, buffer: PoolBuffer) {
    this.#slots = slots;
    this.number = number;
    this.buffer = buffer;
  }

  /** It comes with a write. */
  begin(): void {
    this.#users = 1;
  }

  retain(): void {
    if (this.#users === 0) throw new Error('memory of a write was retained after its end');
    this.#users++;
  }

  release(): void {
    if (this.#leave()) this.#slots.lendAgain(this);
  }

  /** The reply: true where nobody else has it, so that it can be lent again at once. */
  answered(): boolean {
    return this.#leave();
  }

  /** Nobody may touch its memory but the channel. */
  get isFree(): boolean {
    return this.#users === 0;
  }

  #leave(): boolean {
    if (this.#users === 0) throw new Error('memory of a write was released twice');
    this.#users--;
    return this.#users === 0;
  }
}

export class NativeSlots {
  readonly #connection: AddonConnection;
  readonly #acquire: (length: number) => PoolBuffer;
  /** By number; undefined where the number is free. */
  readonly #slots: (Slot | undefined)[] = [];
  readonly #freeNumbers: number[] = [];
  #unanswered = 0;
  #isClosed = false;

  constructor(connection: AddonConnection, acquire: (length: number) => PoolBuffer) {
    this.#connection = connection;
    this.#acquire = acquire;
  }

  /** Slots that exist: lent, with writes, or retained. */
  get count(): number {
    return this.#slots.length - this.#freeNumbers.length;
  }

  /** Lends as many as are missing. */
  replenish(): void {
    if (this.#isClosed) return;
    for (let free = this.#free(); free < WAITING && this.#unanswered < MAX_UNANSWERED; free++) {
      const slot = this.#make();
      this.#connection.addSlot(slot.number, slot.buffer.bytes);
    }
  }

  /** The slot `number` has come with a write. */
  taken(number: number): Slot {
    const slot = this.#slots[number];
    if (slot === undefined) throw new RangeError(`no slot ${number}`);
    slot.begin();
    this.#unanswered++;
    return slot;
  }

  /** The write in `slot` is answered: the number of the slot where it is to be lent again with the answer, else -1. */
  answered(slot: Slot): number {
    this.#unanswered--;
    if (!slot.answered()) return -1;
    if (!this.#isClosed) return slot.number;
    this.#forget(slot);
    return -1;
  }

  /** Nobody uses it any more, and no answer takes it along. */
  lendAgain(slot: Slot): void {
    if (this.#isClosed || this.#free() >= WAITING) this.#forget(slot);
    else this.#connection.addSlot(slot.number, slot.buffer.bytes);
  }

  /** Gives back what has waited in vain. */
  trim(): void {
    for (let free = this.#isClosed ? 0 : this.#free(); free > 1; free--) {
      const slot = this.#slots[this.#connection.takeSlot()];
      if (slot !== undefined) this.#forget(slot);
    }
  }

  /** After the connection was closed: what is retained or unanswered goes back when its last user lets it go, the rest now. */
  close(): void {
    this.#isClosed = true;
    for (const slot of this.#slots) if (slot?.isFree === true) this.#forget(slot);
  }

  /** No accessor: a private one is slow, and this is asked with every batch of requests. */
  #free(): number {
    return this.#connection.freeSlots() ?? 0;
  }

  #make(): Slot {
    const number = this.#freeNumbers.pop() ?? this.#slots.length;
    const slot = new Slot(this, number, this.#acquire(MAX_TRANSFER));
    this.#slots[number] = slot;
    return slot;
  }

  #forget(slot: Slot): void {
    this.#slots[slot.number] = undefined;
    this.#freeNumbers.push(slot.number);
    slot.buffer.release();
  }
}
