/**
 * The initiator's side of one logical unit: a `BlockDevice` over a `ScsiPort`. This file puts the parts
 * together and holds what they share; each idea has its own file: what is asked at attach (probe.ts), how
 * requests are locked and counted (unit-requests.ts), how one command is driven (command-runner.ts), the gate
 * that all commands pass (gate.ts), what happens when the nexus is lost or a unit attention comes (recovery.ts,
 * recovery-steps.ts, fence.ts), how ranges become commands (block-transfer.ts, block-commands.ts), how they
 * become zeros and where holes are (block-provisioning.ts), what is written again after a cache was lost
 * (retained-writes.ts, retained-relief.ts) and what a flush proves (cache-flush.ts). Must not know which transport
 * the port uses, nor who reads and writes.
 */

import { type Clock, systemClock } from '../clock.ts';
import { describeError, errorCode, IserfsError, NexusLostError } from '../errors.ts';
import { abortError } from './abort.ts';
import type { BlockDevice, BlockDeviceInfo, DeviceExtent, WriteOptions } from './block-device.ts';
import { BlockProvisioning } from './block-provisioning.ts';
import { BlockTransfer } from './block-transfer.ts';
import { type BufferPool, MAX_RUN } from './buffer-pool.ts';
import { CacheFlush } from './cache-flush.ts';
import { synchronizeCacheCdb } from './cdb.ts';
import { CommandRunner } from './command-runner.ts';
import type { DeviceChange, DeviceChangeListener, WriteErrorListener } from './device-change.ts';
import { type Ended, promised } from './ended.ts';
import { Fence } from './fence.ts';
import { Gate } from './gate.ts';
import type { LogicalUnitIdentity } from './identity.ts';
import { KnownDevice } from './known-device.ts';
import { lunLabel } from './lun.ts';
import type { Lun, PortEvent, ScsiPort } from './port.ts';
import { type Characteristics, hasImage } from './probe.ts';
import { Recovery, type RecoveryState } from './recovery.ts';
import { UnitRecoverySteps } from './recovery-steps.ts';
import { type RequestCounts, RequestStatistics } from './request-statistics.ts';
import { RetainedRelief } from './retained-relief.ts';
import { RetainedWrites } from './retained-writes.ts';
import { decodeSense, SenseKey, senseError } from './sense.ts';
import { UnitRequests } from './unit-requests.ts';
import { WriteErrors } from './write-errors.ts';

export interface LogicalUnitOptions {
  readonly pool: BufferPool;
  /** Writes are refused whatever the device says. */
  readonly readOnly: boolean;
  readonly commandTimeoutMs: number;
  /** Most bytes of one command at present, which may change with the session; at most `MAX_RUN`, which undefined stands for. */
  readonly maxTransfer?: () => number | undefined;
  /** Most bytes of copies of writes that may be in a volatile cache only; 64 MiB by default. */
  readonly retainedLimit?: number;
  /** Most commands in flight; 32 by default. */
  readonly queueDepth?: number;
  /** How long requests wait for a unit that does not come back although its session does; 120 s by default. */
  readonly recoveryTimeoutMs?: number;
  /**
   * Whether writes of a lost session must be fenced by LOGICAL UNIT RESET before they are issued again.
   * `false` only for peers that are proven to wait for the old session's tasks.
   */
  readonly awaitsFence: (identity: LogicalUnitIdentity) => boolean;
  readonly log?: (line: string) => void;
  readonly clock?: Clock;
  /** 0 to 1, for the jitter of retries. */
  readonly random?: () => number;
  readonly signal?: AbortSignal;
}

export interface LogicalUnitStatus extends RequestCounts {
  readonly state: 'ready' | 'recovering' | 'failed' | 'gone';
  /** Why it is not ready: an error where nothing is served, one line while it recovers. */
  readonly reason: Error | string | undefined;
  /** Commands that were issued again, for whatever reason. */
  readonly retries: number;
  /** Of these, those whose session was lost. */
  readonly reconnectReplays: number;
  /** Retained writes that were written again because a cache may have been lost. */
  readonly replayedWrites: number;
  readonly unitAttentions: number;
  readonly commandTimeouts: number;
  readonly recoveries: number;
  readonly commandsInFlight: number;
  /** Commands that had to wait because the queue was full. */
  readonly queueWaits: number;
  /** Memory of the copies that a lost cache would call for. */
  readonly retainedBytes: number;
}

const DEFAULT_QUEUE_DEPTH = 32;
const DEFAULT_RETAINED_LIMIT = 64 * 1024 * 1024;
const DEFAULT_RECOVERY_TIMEOUT_MS = 120_000;
const MOST_PROBES = 5;

export class LogicalUnit implements BlockDevice, AsyncDisposable {
  readonly lun: Lun;
  /** Portal, target and LUN, for messages. */
  readonly description: string;
  readonly #known: KnownDevice;
  readonly #options: LogicalUnitOptions;
  readonly #clock: Clock;
  readonly #requests: UnitRequests;
  readonly #gate: Gate;
  readonly #runner: CommandRunner;
  readonly #recoverySteps: UnitRecoverySteps;
  readonly #recovery: Recovery;
  readonly #retained: RetainedWrites;
  readonly #relief: RetainedRelief;
  readonly #transfer: BlockTransfer;
  readonly #flush: CacheFlush;
  readonly #provisioning: BlockProvisioning;
  readonly #unsubscribe: () => void;
  readonly #changeListeners = new Set<DeviceChangeListener>();
  readonly #writeErrors = new WriteErrors();
  readonly #statistics = new RequestStatistics();
  #closing: Promise<void> | undefined;
  /** Made when it is asked for first: it is asked for with every request. */
  #info: { readonly device: Characteristics | undefined; readonly info: BlockDeviceInfo } | undefined;

  /**
   * Probes the unit at `lun` and resolves with it, ready for use. Rejects with `logical-unit-gone` where
   * there is none, `unsupported` where it is larger than 2^53 - 1 bytes, and as `ScsiPort.start` fails.
   * A unit that is no disk has an identity, and no bytes (`hasImage`).
   */
  static async attach(port: ScsiPort, lun: Lun, options: LogicalUnitOptions): Promise<LogicalUnit> {
    const unit = new LogicalUnit(port, lun, options);
    try {
      for (let attempt = 1; ; attempt++) {
        const nexus = await port.established();
        if (options.signal?.aborted === true) throw abortError(options.signal);
        try {
          await unit.#recovery.start(nexus, (passage) => unit.#recoverySteps.probe(passage));
          return unit;
        } catch (error) {
          if (!(error instanceof NexusLostError) || attempt === MOST_PROBES) throw error;
        }
      }
    } catch (error) {
      await unit.close();
      throw error;
    }
  }

  private constructor(port: ScsiPort, lun: Lun, options: LogicalUnitOptions) {
    this.lun = lun;
    this.description = `${port.description} LUN ${lunLabel(lun)}`;
    this.#known = new KnownDevice(this.description);
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#requests = new UnitRequests({
      description: this.description,
      info: () => this.info,
      clock: this.#clock,
      statistics: this.#statistics,
    });
    this.#gate = new Gate(options.queueDepth ?? DEFAULT_QUEUE_DEPTH);
    this.#runner = new CommandRunner({
      port,
      lun,
      description: this.description,
      clock: this.#clock,
      random: options.random ?? Math.random,
      commandTimeoutMs: options.commandTimeoutMs,
      onDeferredError: (error) => this.#writeFailedSince(error),
    });
    this.#retained = new RetainedWrites(options.pool, options.retainedLimit ?? DEFAULT_RETAINED_LIMIT, () =>
      this.#relief.begin(),
    );
    this.#recoverySteps = new UnitRecoverySteps({
      port,
      lun,
      description: this.description,
      runner: this.#runner,
      known: this.#known,
      retained: this.#retained,
      rewrite: (writes, passage, failed) => this.#transfer.replay(writes, passage, failed),
      awaitsFence: options.awaitsFence,
      log: (line) => this.#log(line),
      changed: (change) => this.#tell(change),
      writeFailed: (error) => this.#writeFailedSince(error),
    });
    this.#recovery = new Recovery({
      port,
      gate: this.#gate,
      fence: new Fence(),
      steps: this.#recoverySteps,
      clock: this.#clock,
      patienceMs: options.recoveryTimeoutMs ?? DEFAULT_RECOVERY_TIMEOUT_MS,
      log: (line) => this.#log(line),
      onState: (state) => this.#stateChanged(state),
      onNexusLost: () => this.#tell({ type: 'contents' }),
      onUnitAttention: (policy) => {
        if (policy.contentsMayDiffer) this.#tell({ type: 'contents' });
        if (policy.rescan) this.#tell({ type: 'logical-units' });
      },
    });
    const parts = {
      runner: this.#runner,
      passage: this.#recovery.passage,
      pool: options.pool,
      retained: this.#retained,
      gate: this.#gate,
      epoch: () => this.#recovery.epoch,
      device: () => this.#known.disk,
    };
    this.#transfer = new BlockTransfer({ ...parts, maxTransfer: () => options.maxTransfer?.() ?? MAX_RUN });
    this.#flush = new CacheFlush({ ...parts, synchronize: (onIssue) => this.#synchronizeCache(onIssue) });
    this.#relief = new RetainedRelief({
      retained: this.#retained,
      flush: () => this.#flush.flush(),
      writeFailed: (error) => this.#writeFailedSince(error),
    });
    this.#provisioning = new BlockProvisioning({
      ...parts,
      write: (offset, from, signal) => promised((ended) => this.#transfer.write(offset, from, { signal, fua: false }, ended)),
      flush: (signal) => this.#flush.flush(signal),
    });
    this.#unsubscribe = port.subscribe((event) => this.#handlePortEvent(event));
  }

  get identity(): LogicalUnitIdentity {
    return this.#known.identity;
  }

  /** Whether the device has blocks to show: it is a disk. */
  get hasImage(): boolean {
    return hasImage(this.identity.deviceType);
  }

  /** What the device said of itself last; undefined for one that is no disk. */
  get characteristics(): Characteristics | undefined {
    return this.#known.characteristics;
  }

  get info(): BlockDeviceInfo {
    const device = this.#known.characteristics;
    if (this.#info === undefined || this.#info.device !== device) this.#info = { device, info: this.#infoOf(device) };
    return this.#info.info;
  }

  #infoOf(device: Characteristics | undefined): BlockDeviceInfo {
    return {
      size: device?.size ?? 0,
      blockLength: device?.capacity.blockLength ?? 512,
      writeProtected: this.#options.readOnly || device === undefined || device.writeProtected,
      volatileCache: device !== undefined && device.writeCache !== 'none',
    };
  }

  get status(): LogicalUnitStatus {
    const { state } = this.#recovery;
    const { retries, reissues, unitAttentions, timeouts } = this.#runner.counters;
    return {
      state: state.type,
      reason: state.type === 'ready' ? undefined : state.reason,
      ...this.#statistics.counts,
      retries,
      reconnectReplays: reissues,
      replayedWrites: this.#recoverySteps.replayedWrites,
      unitAttentions,
      commandTimeouts: timeouts,
      recoveries: this.#recovery.recoveries,
      commandsInFlight: this.#gate.inFlight,
      queueWaits: this.#gate.queued,
      retainedBytes: this.#retained.bytes,
    };
  }

  /** Calls `listener` synchronously at each change; returns the function that ends it. */
  onChange(listener: DeviceChangeListener): () => void {
    this.#changeListeners.add(listener);
    return () => this.#changeListeners.delete(listener);
  }

  /** Calls `listener` when a write that was acknowledged turns out to have failed. Where nobody listens, the next flush fails instead. */
  onWriteError(listener: WriteErrorListener): () => void {
    return this.#writeErrors.subscribe(listener);
  }

  /** Takes in a deferred error that came with a command of somebody else: a write that was acknowledged has failed. */
  noteDeferredError(error: IserfsError): void {
    this.#writeFailedSince(error);
  }

  /** Looks again at who the unit is and how large, as after a rescan that found it. */
  revalidate(): void {
    this.#recovery.revalidate('asked to look again');
  }

  read(offset: number, into: Uint8Array, options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    return promised((told) => this.startRead(offset, into, told, options.signal));
  }

  /** `read`, told by a call. */
  startRead(offset: number, into: Uint8Array, told: Ended, signal?: AbortSignal): void {
    const begin = (ended: Ended) => this.#transfer.read(offset, into, signal, ended);
    this.#requests.start({
      kind: 'read',
      offset,
      length: into.length,
      signal,
      startedAt: this.#clock.now(),
      begin,
      force: undefined,
      told,
    });
  }

  write(offset: number, from: Uint8Array, options: WriteOptions = {}): Promise<void> {
    const { signal, memory } = options;
    const forced = options.fua === true && this.info.volatileCache;
    const fua = forced && this.#known.disk.dpoFua;
    const begin = (ended: Ended) => this.#transfer.write(offset, from, { signal, fua, memory }, ended);
    const force = forced && !fua ? () => this.#flush.flush(signal) : undefined;
    return promised((told) =>
      this.#requests.start({
        kind: 'write',
        offset,
        length: from.length,
        signal,
        startedAt: this.#clock.now(),
        begin,
        force,
        told,
      }),
    );
  }

  /** The range is locked, and zeroed, piece by piece. */
  zero(offset: number, length: number, options: { readonly mayUnmap: boolean; readonly signal?: AbortSignal }): Promise<void> {
    return this.#requests.counted('write', async () => {
      this.#requests.checkWritable();
      this.#requests.blocksOf(offset, length);
      for (let at = offset; at < offset + length; ) {
        const end = this.#provisioning.pieceEnd(at, offset + length, options.mayUnmap);
        const release = await this.#requests.lock(at, end - at, 'exclusive', options.signal);
        try {
          await this.#provisioning.zero(at, end - at, options);
        } finally {
          release();
        }
        at = end;
      }
    });
  }

  /** Locks nothing: what is written meanwhile may be in the answer or not. */
  async extentsFrom(offset: number, options: { readonly signal?: AbortSignal } = {}): Promise<readonly DeviceExtent[]> {
    this.#requests.blocksOf(offset, 1);
    return await this.#provisioning.extentsFrom(offset, options.signal);
  }

  flush(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    return this.#requests.counted('flush', async () => {
      this.#writeErrors.throwUntold();
      const { count } = this.#writeErrors;
      // With copies left from when there was a volatile cache, there is still something to do.
      const hasWork = !this.#options.readOnly && (this.info.volatileCache || !this.#retained.isEmpty);
      if (hasWork) await this.#flush.flush(options.signal);
      else if (this.#recovery.state.type !== 'ready') await this.#pass(options.signal);
      this.#writeErrors.throwSince(count);
    });
  }

  /** Ends all that goes on; requests that wait are rejected with `reason`. Does not flush. Idempotent. */
  close(reason: Error = new IserfsError('aborted', `${this.description} is closed`)): Promise<void> {
    this.#closing ??= this.#close(reason);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(reason: Error): Promise<void> {
    this.#unsubscribe();
    this.#relief.stop();
    const stopped = this.#recovery.stop();
    this.#gate.refuse(reason);
    this.#retained.refuseWaiting(reason);
    await stopped;
    // Recovery may have had the last word on the gate.
    this.#gate.refuse(reason);
    await this.#gate.settled();
    this.#retained.discardUpTo(this.#retained.sequence);
  }

  /** Waits for the unit as any command does. */
  async #pass(signal: AbortSignal | undefined): Promise<void> {
    const ticket = await this.#gate.enter(signal).catch((error: unknown) => {
      throw signal?.aborted === true ? abortError(signal) : error;
    });
    ticket.leave();
  }

  /** The whole device, IMMED = 0 (SBC: LBA 0 and 0 blocks). */
  async #synchronizeCache(onIssue: () => void): Promise<void> {
    const size = this.#known.disk.capacity.lastLba > 0xffff_ffffn ? 16 : 10;
    try {
      await this.#runner.run({ cdb: synchronizeCacheCdb({ size }), onIssue }, this.#recovery.passage);
    } catch (error) {
      if (errorCode(error) !== 'unsupported' || !this.#known.refusedToSynchronize()) throw error;
      this.#log('it knows neither the caching mode page nor SYNCHRONIZE CACHE: taken to have no volatile cache');
    }
  }

  #handlePortEvent(event: PortEvent): void {
    if (event.type !== 'asynchronous-sense') {
      this.#recovery.handlePortEvent(event);
      return;
    }
    const sense = decodeSense(event.sense);
    if (event.lun !== this.lun || sense === undefined) return;
    if (sense.key === SenseKey['unit-attention']) this.#recovery.handleAsynchronousSense(sense);
    else if (sense.deferred) {
      this.#writeFailedSince(senseError(sense, { description: this.description, command: 'asynchronous event' }));
    }
  }

  #stateChanged(state: RecoveryState): void {
    if (state.type === 'ready') this.#log('ready');
    else this.#log(`${state.type}: ${state.reason instanceof Error ? describeError(state.reason) : state.reason}`);
    this.#tell({ type: 'state' });
  }

  /** An acknowledged write is not where it should be. */
  #writeFailedSince(error: Error): void {
    this.#statistics.noteError(error);
    this.#log(`an acknowledged write has failed: ${describeError(error)}`);
    this.#writeErrors.report(error);
    this.#tell({ type: 'contents' });
  }

  #tell(change: DeviceChange): void {
    for (const listener of this.#changeListeners) listener(change);
  }

  #log(line: string): void {
    this.#options.log?.(`${this.description}: ${line}`);
  }
}
