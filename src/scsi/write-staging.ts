/**
 * Write-behind of our own, for one device: a write is taken, and acknowledged to whoever wrote, before the
 * device has it. Commands go out at once while few are in flight; what has to wait is joined with what follows
 * it, up to one command. Bounded: where too much is staged, a write waits until it is taken. No timer: nothing
 * waits but for a command that is under way.
 *
 * What others may rely on: writes go out in the order in which they were taken, so that the device, which keeps
 * overlapping commands apart in the order in which they come (I7), ends with the newest; `ended` is called exactly
 * once for each, with its error; and `settledWithin` is what a read of the device has to wait for. Until it has ended the staged
 * memory is the only copy of a write: a flush waits for it. Knows neither the cache nor who writes.
 */

import { Bag, type Placed, UNPLACED } from '../bag.ts';
import type { BlockDevice, SharedMemory } from './block-device.ts';
import { type BufferPool, MAX_RUN, type PoolBuffer, runLengthFor, SharedRun } from './buffer-pool.ts';
import type { Ended } from './ended.ts';

/**
 * Takes a write. `data` may be used again when it is taken: when the call returns, or, where it has to wait for room, when
 * that wait is over; where `memory` is given, that may be retained instead. Where it throws, or the wait rejects, for want of
 * memory, nothing is taken, and `ended` is not called.
 */
export type StageWrite = (offset: number, data: Uint8Array, ended: Ended, memory?: SharedMemory) => WaitingWrite | undefined;

/** A write that waits for room. */
export interface WaitingWrite {
  /** Resolves with whether the write was taken: false where it was given up before. */
  readonly over: Promise<boolean>;
  /** Nobody wants it any more: where it still waits it is not taken, and `ended` is not called. */
  giveUp(): void;
}

export interface WriteStagingOptions {
  readonly device: Pick<BlockDevice, 'write'>;
  readonly pool: BufferPool;
  /** Most bytes that are staged, or one write where that is more. */
  readonly bytes: number;
  /** A write is taken: from now on everybody has to see it. */
  readonly taken: (offset: number, data: Uint8Array) => void;
  /** A write has failed: what the device has there is unknown. Called before its `ended`. */
  readonly failed: (offset: number, length: number) => void;
}

/** Most commands in flight: as many as a logical unit lets out. */
const MOST_COMMANDS = 32;
/** Most bytes in flight: more of the largest commands does not make a target faster. */
const MOST_BYTES_IN_FLIGHT = 8 * 1024 * 1024;
/** Most commands that are staged, half of them waiting: with small writes this is the bound. More wait longer, and cost the garbage collector more. */
const MOST_STAGED = 64;
/** Adjacent commands in flight; the next one of such a stream waits, and grows, for as long as it can. */
const STREAM_DEPTH = 4;
/** What is cheaper to copy than to keep its host's memory for. */
const SMALL = 16 * 1024;
/** Longer writes are commands of their own: joining costs a copy. */
const LONGEST_TO_JOIN = 256 * 1024;

/** Adjacent commands, as far as they are in flight. */
interface Stream {
  inFlight: number;
}

interface Command extends Placed {
  readonly offset: number;
  data: Uint8Array;
  memory: SharedMemory;
  /** The pool run behind it; undefined where it is the memory of a host. */
  run: PoolBuffer | undefined;
  /** Since it has gone out. */
  stream: Stream | undefined;
  /** Whose write it carries. */
  readonly ended: Ended;
  /** Those whose writes were joined to it, and those who wait for it. */
  others: Ended[] | undefined;
}

interface Waiter {
  readonly offset: number;
  readonly data: Uint8Array;
  readonly ended: Ended;
  readonly memory: SharedMemory | undefined;
  readonly resolve: (isTaken: boolean) => void;
  readonly reject: (error: unknown) => void;
}

export class WriteStaging {
  readonly #options: WriteStagingOptions;
  /** Taken and not ended. */
  readonly #staged = new Bag<Command>();
  /** Of these, those that have not gone out. */
  readonly #queue: Command[] = [];
  readonly #waiting: Waiter[] = [];
  #inFlight = 0;
  #bytesInFlight = 0;
  #bytes = 0;

  constructor(options: WriteStagingOptions) {
    this.#options = options;
  }

  /** Bytes that were taken and are not at the device. */
  get bytes(): number {
    return this.#bytes;
  }

  /** See `StageWrite`. At most `MAX_RUN` bytes. */
  stage(offset: number, data: Uint8Array, ended: Ended, memory?: SharedMemory): WaitingWrite | undefined {
    if (this.#waiting.length === 0 && this.#hasRoom(data.length)) {
      this.#take(offset, data, ended, memory);
      return undefined;
    }
    let giveUp = () => {};
    const over = new Promise<boolean>((resolve, reject) => {
      const waiter: Waiter = { offset, data, ended, memory, resolve, reject };
      this.#waiting.push(waiter);
      giveUp = () => this.#giveUp(waiter);
    });
    return { over, giveUp };
  }

  /** Resolves when what is staged now has ended, with its first failure. */
  settled(): Promise<{ readonly error: unknown } | undefined> {
    return ended([...this.#staged]);
  }

  /** Resolves when what is staged of the range now has ended, well or not; undefined where there is nothing. */
  settledWithin(offset: number, length: number): Promise<unknown> | undefined {
    if (this.#staged.size === 0) return undefined;
    const concerned: Command[] = [];
    for (const command of this.#staged) {
      if (command.offset < offset + length && endOf(command) > offset) concerned.push(command);
    }
    return concerned.length === 0 ? undefined : ended(concerned);
  }

  /** Those behind it may have waited for its turn alone. */
  #giveUp(waiter: Waiter): void {
    const index = this.#waiting.indexOf(waiter);
    if (index < 0) return;
    this.#waiting.splice(index, 1);
    waiter.resolve(false);
    this.#admit();
  }

  #hasRoom(length: number): boolean {
    if (this.#bytes === 0) return true;
    return this.#bytes + length <= this.#options.bytes && this.#staged.size < MOST_STAGED;
  }

  #take(offset: number, data: Uint8Array, ended: Ended, memory: SharedMemory | undefined): void {
    if (!this.#join(offset, data, ended)) this.#add(offset, data, ended, memory);
    this.#bytes += data.length;
    this.#options.taken(offset, data);
    this.#sendQueued();
  }

  #add(offset: number, data: Uint8Array, ended: Ended, memory: SharedMemory | undefined): void {
    let command: Command;
    if (memory !== undefined && data.length > SMALL) {
      memory.retain();
      command = { offset, data, memory, run: undefined, stream: undefined, ended, others: undefined, place: UNPLACED };
    } else {
      const run = this.#acquire(data.length);
      run.bytes.set(data);
      command = {
        offset,
        data: startOf(run, data.length),
        memory: new SharedRun(run),
        run,
        stream: undefined,
        ended,
        others: undefined,
        place: UNPLACED,
      };
    }
    this.#staged.add(command);
    this.#queue.push(command);
  }

  /** Appends to the last command where that waits and ends here: nothing that was taken in between may overlap it. */
  #join(offset: number, data: Uint8Array, ended: Ended): boolean {
    const last = this.#queue.at(-1);
    if (last === undefined || endOf(last) !== offset) return false;
    const before = last.data.length;
    const length = before + data.length;
    if (data.length >= LONGEST_TO_JOIN || length > MAX_RUN || !this.#mayGrow(last)) return false;
    this.#lengthen(last, length);
    last.data.set(data, before);
    alsoTell(last, ended);
    return true;
  }

  /** Makes room at the end of a command that has not gone out: twice as much each time, so that what is copied stays in proportion. */
  #lengthen(command: Command, length: number): void {
    const { data, run, memory } = command;
    let longer = run;
    if (longer === undefined || longer.bytes.length < length) {
      longer = this.#acquire(length);
      longer.bytes.set(data);
      memory.release();
      command.run = longer;
      command.memory = new SharedRun(longer);
    }
    command.data = startOf(longer, length);
  }

  /** All of a run of the pool, whatever of it is wanted now. */
  #acquire(length: number): PoolBuffer {
    return this.#options.pool.acquire(runLengthFor(length));
  }

  /** In order, as far as may be: whatever waits in front is waited for. */
  #sendQueued(): void {
    for (let command = this.#queue[0]; command !== undefined && this.#maySend(command); command = this.#queue[0]) {
      this.#queue.shift();
      this.#send(command);
    }
  }

  #maySend(command: Command): boolean {
    if (this.#inFlight === 0) return true;
    if (this.#inFlight >= MOST_COMMANDS || this.#bytesInFlight + command.data.length > MOST_BYTES_IN_FLIGHT) return false;
    const stream = this.#streamUpTo(command.offset);
    return stream === undefined || stream.inFlight < STREAM_DEPTH || !this.#mayGrow(command);
  }

  /** The stream of a command that is in flight and ends at `offset`. */
  #streamUpTo(offset: number): Stream | undefined {
    for (const command of this.#staged) if (command.stream !== undefined && endOf(command) === offset) return command.stream;
    return undefined;
  }

  #mayGrow(command: Command): boolean {
    if (this.#queue.at(-1) !== command) return false;
    return command.data.length < (command.run === undefined ? LONGEST_TO_JOIN : MAX_RUN);
  }

  #send(command: Command): void {
    const { offset, data, memory } = command;
    const stream = this.#streamUpTo(offset) ?? { inFlight: 0 };
    command.stream = stream;
    stream.inFlight++;
    this.#inFlight++;
    this.#bytesInFlight += data.length;
    this.#options.device.write(offset, data, { memory }).then(
      () => this.#end(command, stream, undefined),
      (error: unknown) => this.#end(command, stream, { error }),
    );
  }

  #end(command: Command, stream: Stream, failure: { readonly error: unknown } | undefined): void {
    const { offset, data, memory, others } = command;
    stream.inFlight--;
    this.#inFlight--;
    this.#bytesInFlight -= data.length;
    this.#staged.delete(command);
    this.#bytes -= data.length;
    memory.release();
    if (failure !== undefined) this.#options.failed(offset, data.length);
    command.ended(failure);
    if (others !== undefined) for (const ended of others) ended(failure);
    this.#sendQueued();
    this.#admit();
  }

  #admit(): void {
    for (let next = this.#waiting[0]; next !== undefined && this.#hasRoom(next.data.length); next = this.#waiting[0]) {
      this.#waiting.shift();
      try {
        this.#take(next.offset, next.data, next.ended, next.memory);
        next.resolve(true);
      } catch (error) {
        next.reject(error);
      }
    }
  }
}

function startOf(run: PoolBuffer, length: number): Uint8Array {
  return run.bytes.length === length ? run.bytes : run.bytes.subarray(0, length);
}

function endOf({ offset, data }: Command): number {
  return offset + data.length;
}

function alsoTell(command: Command, ended: Ended): void {
  command.others ??= [];
  command.others.push(ended);
}

/** Resolves when all of `commands` have ended, with the first failure among them. */
function ended(commands: readonly Command[]): Promise<{ readonly error: unknown } | undefined> {
  if (commands.length === 0) return Promise.resolve(undefined);
  return new Promise((resolve) => {
    let left = commands.length;
    let first: { readonly error: unknown } | undefined;
    for (const command of commands) {
      alsoTell(command, (failure) => {
        first ??= failure;
        if (--left === 0) resolve(first);
      });
    }
  });
}
