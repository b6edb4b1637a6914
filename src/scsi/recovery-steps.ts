/**
 * What recovery asks of a logical unit, step by step: who it is, whether it has forgotten the tasks of an old nexus, what
 * it is like now, and the writes that its cache may have lost. When, in which order and how often is
 * `recovery.ts`'s affair; here is what each step finds out, and who is told.
 */

import { describeError, IserfsError, NexusLostError } from '../errors.ts';
import type { BlockTransfer } from './block-transfer.ts';
import type { CommandRunner, Passage } from './command-runner.ts';
import type { DeviceChange } from './device-change.ts';
import type { LogicalUnitIdentity } from './identity.ts';
import type { KnownDevice } from './known-device.ts';
import type { Lun, ScsiPort } from './port.ts';
import { awaitReady, type RunCommand } from './probe.ts';
import type { RecoverySteps } from './recovery.ts';
import type { RetainedWrite, RetainedWrites } from './retained-writes.ts';
import { mayPass } from './write-errors.ts';

export interface UnitRecoveryStepsOptions {
  readonly port: ScsiPort;
  readonly lun: Lun;
  /** Portal, target and LUN, for messages. */
  readonly description: string;
  readonly runner: CommandRunner;
  readonly known: KnownDevice;
  readonly retained: RetainedWrites;
  readonly rewrite: BlockTransfer['replay'];
  /** See `LogicalUnitOptions`. */
  readonly awaitsFence: (identity: LogicalUnitIdentity) => boolean;
  readonly log: (line: string) => void;
  readonly changed: (change: DeviceChange) => void;
  /** An acknowledged write is not where it should be, and will not be. */
  readonly writeFailed: (error: Error) => void;
}

export class UnitRecoverySteps implements RecoverySteps {
  readonly #options: UnitRecoveryStepsOptions;
  #replayedWrites = 0;

  constructor(options: UnitRecoveryStepsOptions) {
    this.#options = options;
  }

  /** Retained writes that were written again. */
  get replayedWrites(): number {
    return this.#replayedWrites;
  }

  /** Before there is anything to recover: asks for everything. */
  probe(passage: Passage): Promise<void> {
    return this.#options.known.probe(this.#runOn(passage));
  }

  awaitReady(passage: Passage): Promise<void> {
    return awaitReady(this.#runOn(passage));
  }

  verify(passage: Passage): Promise<void> {
    return this.#options.known.verify(this.#runOn(passage));
  }

  /** By LOGICAL UNIT RESET, unless the peer is proven not to need it. */
  async fence(nexus: number): Promise<boolean> {
    const { port, lun, known, awaitsFence, log } = this.#options;
    if (!awaitsFence(known.identity)) return true;
    try {
      await port.resetLogicalUnit(lun, nexus);
      return true;
    } catch (error) {
      if (error instanceof NexusLostError) throw error;
      log(`LOGICAL UNIT RESET failed, writes in flight are given up: ${describeError(error)}`);
      return false;
    }
  }

  async refresh(passage: Passage): Promise<void> {
    const { known, log, changed } = this.#options;
    const { resized, info } = await known.refresh(this.#runOn(passage));
    if (resized) {
      log(`the size is ${known.disk.size} bytes now`);
      changed({ type: 'contents' });
    }
    if (info) changed({ type: 'info' });
  }

  /** What fails for good is lost: that is a write error, and nothing else can be done about it. */
  async replay(passage: Passage): Promise<void> {
    const { description, retained, rewrite, writeFailed } = this.#options;
    const lost: { readonly write: RetainedWrite; readonly error: unknown }[] = [];
    const { writes } = retained;
    if (writes.length === 0) return;
    this.#replayedWrites += writes.length;
    await rewrite(writes, passage, (write, error) => {
      if (mayPass(error)) throw error;
      lost.push({ write, error });
    });
    for (const { write, error } of lost) {
      const { offset, data } = write;
      const message = `${description}: ${data.length} bytes at ${offset} were lost with the device's cache and cannot be written again`;
      writeFailed(new IserfsError('data-lost', message, { cause: error }));
      retained.supersede(offset, data.length);
    }
  }

  #runOn(passage: Passage): RunCommand {
    return (request) => this.#options.runner.run(request, passage);
  }
}
