/**
 * READ and WRITE of a run of blocks, each one object from the first attempt to the end of the command: what it
 * checks when it goes out, and what its status proves. Knows nothing of ranges that are no whole blocks.
 */

import { IserfsError } from '../errors.ts';
import type { SharedMemory } from './block-device.ts';
import type { BlockRun } from './block-range.ts';
import { readCdb, writeCdb } from './cdb.ts';
import type { ByteRange, CommandRunner, Passage, StartedRequest } from './command-runner.ts';
import type { Ended, Failure } from './ended.ts';
import type { Gate } from './gate.ts';
import type { Characteristics } from './probe.ts';
import type { Reservation, RetainedWrites } from './retained-writes.ts';

/** What the commands of a unit share. */
export interface BlockCommandParts {
  readonly runner: CommandRunner;
  readonly passage: Passage;
  readonly retained: RetainedWrites;
  readonly gate: Gate;
  /** Changes whenever what the device had cached may be lost. */
  readonly epoch: () => number;
  /** The device as it is now. */
  readonly device: () => Characteristics;
  /** Most bytes of one command at present, below the device's own limits. */
  readonly maxTransfer: () => number;
}

/** How commands address the device. */
export interface BlockAddressing {
  readonly blockLength: number;
  readonly cdbSize: 10 | 16;
}

/** This command must be cut into shorter ones: `BlockTransfer` does that. */
export class BoundLowered extends Error {}

const MOST_REPETITIONS = 16;

/**
 * Where the range was written since the last SYNCHRONIZE CACHE, GOOD alone proves nothing: a reset may
 * have taken the newer data, and the unit attention that says so may have gone to a command beside this one (see
 * cache-flush.ts). So those are awaited, and what was read is good if no cache can have been lost.
 */
export class BlockRead implements StartedRequest {
  readonly cdb: Uint8Array;
  readonly dataIn: Uint8Array;
  readonly signal: AbortSignal | undefined;
  readonly lba: number;
  readonly #parts: BlockCommandParts;
  readonly #run: BlockRun;
  readonly #offset: number;
  readonly #told: Ended;
  #issuedIn = -1;
  #repetitions = MOST_REPETITIONS;

  /** Fills `into`, which has the length of `run`. `told` may be called with `BoundLowered`. */
  constructor(
    parts: BlockCommandParts,
    run: BlockRun,
    into: Uint8Array,
    { blockLength, cdbSize }: BlockAddressing,
    signal: AbortSignal | undefined,
    told: Ended,
  ) {
    this.cdb = readCdb({ lba: run.lba, blocks: run.blocks, size: cdbSize });
    this.dataIn = into;
    this.signal = signal;
    this.lba = run.lba;
    this.#parts = parts;
    this.#run = run;
    this.#offset = run.lba * blockLength;
    this.#told = told;
  }

  start(): void {
    this.#parts.runner.start(this, this.#parts.passage);
  }

  onIssue(): void {
    checkLength(this.#parts, this.#run.blocks, this.dataIn.length);
    this.#issuedIn = this.#parts.epoch();
  }

  ended(failure?: Failure): void {
    if (failure === undefined && this.#parts.retained.holds(this.#offset, this.dataIn.length)) {
      void this.#parts.gate.settled().then(() => this.#othersEnded());
    } else this.#told(failure);
  }

  #othersEnded(): void {
    if (this.#parts.epoch() === this.#issuedIn) this.#told();
    else if (--this.#repetitions > 0) this.start();
    else this.#told({ error: new IserfsError('not-ready', 'the device was reset again and again while it was read') });
  }
}

export interface BlockWriteOptions {
  readonly signal?: AbortSignal | undefined;
  readonly fua: boolean;
  /** What the data lies in: it is retained there, not copied. */
  readonly memory?: SharedMemory | undefined;
}

/** Leaves its data behind with what is retained, where the device may have it in a volatile cache only. */
export class BlockWrite implements StartedRequest {
  readonly cdb: Uint8Array;
  readonly dataOut: Uint8Array;
  readonly changes: ByteRange;
  readonly signal: AbortSignal | undefined;
  readonly lba: number;
  readonly #parts: BlockCommandParts;
  readonly #run: BlockRun;
  readonly #options: BlockWriteOptions;
  readonly #told: Ended;
  #reservation: Reservation | undefined;

  /** Writes `from`, which has the length of `run`. `told` may be called with `BoundLowered`. */
  constructor(
    parts: BlockCommandParts,
    run: BlockRun,
    from: Uint8Array,
    { blockLength, cdbSize }: BlockAddressing,
    options: BlockWriteOptions,
    told: Ended,
  ) {
    this.cdb = writeCdb({ lba: run.lba, blocks: run.blocks, size: cdbSize, fua: options.fua });
    this.dataOut = from;
    this.changes = { offset: run.lba * blockLength, length: from.length };
    this.signal = options.signal;
    this.lba = run.lba;
    this.#parts = parts;
    this.#run = run;
    this.#options = options;
    this.#told = told;
  }

  /** Goes out when there is room for what it may leave behind. */
  start(): void {
    const { retained } = this.#parts;
    const { length } = this.dataOut;
    if (!this.#isVolatile()) {
      this.#goOut(undefined);
      return;
    }
    const reservation = retained.tryReserve(length);
    if (reservation !== undefined) this.#goOut(reservation);
    else
      retained.reserve(length, this.signal).then(
        (late) => this.#goOut(late),
        (error: unknown) => this.#told({ error }),
      );
  }

  onIssue(): void {
    checkLength(this.#parts, this.#run.blocks, this.dataOut.length);
  }

  onGood(): void {
    const { retained } = this.#parts;
    const { offset, length } = this.changes;
    // The cache may have been switched on or off meanwhile: what holds is what the device says now.
    if (this.#isVolatile()) retained.keep(offset, this.dataOut, this.#options.memory);
    else retained.supersede(offset, length);
  }

  ended(failure?: Failure): void {
    this.#reservation?.cancel();
    this.#told(failure);
  }

  #goOut(reservation: Reservation | undefined): void {
    this.#reservation = reservation;
    this.#parts.runner.start(this, this.#parts.passage);
  }

  #isVolatile(): boolean {
    return this.#parts.device().writeCache !== 'none' && !this.#options.fua;
  }
}

/** A command may wait for a session, and meet one whose transport takes less than the one for which it was cut. */
function checkLength({ maxTransfer }: BlockCommandParts, blocks: number, length: number): void {
  if (blocks > 1 && length > maxTransfer()) throw new BoundLowered();
}
