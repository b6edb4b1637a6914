/**
 * The initiator's side of one logical unit: a `BlockDevice` over a `ScsiPort`. This file puts the parts
 * together and holds what they share; each idea has its own file: what is asked at attach (probe.ts), how
 * one command is driven (command-runner.ts), the gate that all commands pass (gate.ts), what happens when
 * the nexus is lost or a unit attention comes (recovery.ts, fence.ts), how ranges become commands
 * (block-transfer.ts, block-commands.ts), how they become zeros and where holes are (block-provisioning.ts), what is written again after a cache was lost (retained-writes.ts) and what a flush
 * proves (cache-flush.ts). Must not know which transport the port uses, nor who reads and writes.
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
import { CommandRunner, type Passage } from './command-runner.ts';
import type { DeviceChange, DeviceChangeListener, WriteErrorListener } from './device-change.ts';
import { type Ended, type Failure, promised } from './ended.ts';
import { Fence } from './fence.ts';
import { Gate } from './gate.ts';
import type { LogicalUnitIdentity } from './identity.ts';
import { KnownDevice } from './known-device.ts';
import { lunLabel } from './lun.ts';
import type { Lun, PortEvent, ScsiPort } from './port.ts';
import { awaitReady, type Characteristics, hasImage, type RunCommand } from './probe.ts';
import { type LockMode, RangeLock } from './range-lock.ts';
import { Recovery, type RecoveryState } from './recovery.ts';
import { type RequestCounts, RequestStatistics } from './request-statistics.ts';
import { type RetainedWrite, RetainedWrites } from './retained-writes.ts';
import { decodeSense, SenseKey, senseError } from './sense.ts';
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
  /** Why it is not ready. */
  readonly reason: string | undefined;
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

/** Errors of a replayed write that another attempt may overcome; any other means that its data is lost. */
const passingErrors: ReadonlySet<string> = new Set([
  'aborted',
  'busy',
  'command-timeout',
  'connection-lost',
  'logical-unit-gone',
  'not-ready',
  'recovery-timeout',
]);

/** A read or write under way. */
interface UnitRequest {
  readonly kind: 'read' | 'write';
  readonly offset: number;
  readonly length: number;
  readonly signal: AbortSignal | undefined;
  readonly startedAt: number;
  readonly begin: (ended: Ended) => void;
  readonly force: (() => Promise<void>) | undefined;
  readonly told: Ended;
}

export class LogicalUnit implements BlockDevice, AsyncDisposable {
  readonly lun: Lun;
  /** Portal, target and LUN, for messages. */
  readonly description: string;
  readonly #port: ScsiPort;
  readonly #known: KnownDevice;
  readonly #options: LogicalUnitOptions;
  readonly #clock: Clock;
  readonly #gate: Gate;
  readonly #fence = new Fence();
  readonly #runner: CommandRunner;
  readonly #recovery: Recovery;
  readonly #retained: RetainedWrites;
  readonly #transfer: BlockTransfer;
  readonly #flush: CacheFlush;
  readonly #provisioning: BlockProvisioning;
  readonly #ranges = new RangeLock();
  readonly #unsubscribe: () => void;
  readonly #changeListeners = new Set<DeviceChangeListener>();
  readonly #writeErrors = new WriteErrors();
  readonly #statistics: RequestStatistics;
  #replayedWrites = 0;
  /** The device's cache is being synchronised to make room for copies. */
  #relieving = false;
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
          await unit.#recovery.start(nexus, (passage) => unit.#known.probe(unit.#runOn(passage)));
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
    this.#port = port;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#statistics = new RequestStatistics();
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
    this.#recovery = this.#makeRecovery();
    this.#retained = new RetainedWrites(options.pool, options.retainedLimit ?? DEFAULT_RETAINED_LIMIT, () => this.#relieve());
    this.#transfer = new BlockTransfer({
      runner: this.#runner,
      passage: this.#recovery.passage,
      pool: options.pool,
      retained: this.#retained,
      gate: this.#gate,
      epoch: () => this.#recovery.epoch,
      device: () => this.#known.disk,
      maxTransfer: () => options.maxTransfer?.() ?? MAX_RUN,
    });
    this.#flush = new CacheFlush({
      retained: this.#retained,
      gate: this.#gate,
      epoch: () => this.#recovery.epoch,
      synchronize: (onIssue) => this.#synchronizeCache(onIssue),
    });
    this.#provisioning = new BlockProvisioning({
      runner: this.#runner,
      passage: this.#recovery.passage,
      pool: options.pool,
      retained: this.#retained,
      gate: this.#gate,
      epoch: () => this.#recovery.epoch,
      device: () => this.#known.disk,
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
    const reason = state.type === 'ready' ? undefined : state.reason;
    return {
      state: state.type,
      reason: reason instanceof Error ? describeError(reason) : reason,
      ...this.#statistics.counts,
      retries,
      reconnectReplays: reissues,
      replayedWrites: this.#replayedWrites,
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
    this.#begin({
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
      this.#begin({ kind: 'write', offset, length: from.length, signal, startedAt: this.#clock.now(), begin, force, told }),
    );
  }

  /** Locks the range for what `begin` begins, forces what was written, without the lock, and counts how all of it ends. */
  #begin(request: UnitRequest): void {
    const { kind, offset, length, signal } = request;
    const mode = kind === 'read' ? 'shared' : 'exclusive';
    let release: (() => void) | undefined;
    try {
      if (kind === 'write' && this.info.writeProtected) {
        throw new IserfsError('write-protected', `${this.description} is write protected`);
      }
      release = this.#tryLock(offset, length, mode, signal);
    } catch (error) {
      this.#failed(request, error);
      return;
    }
    if (release !== undefined) this.#run(request, release);
    else
      this.#lock(offset, length, mode, signal).then(
        (late) => this.#run(request, late),
        (error: unknown) => this.#failed(request, error),
      );
  }

  #run(request: UnitRequest, release: () => void): void {
    const ended = (failure?: Failure) => {
      release();
      if (failure !== undefined) this.#failed(request, failure.error);
      else if (request.force === undefined) this.#succeeded(request);
      else
        request.force().then(
          () => this.#succeeded(request),
          (error: unknown) => this.#failed(request, error),
        );
    };
    try {
      if (request.length > 0) request.begin(ended);
      else ended();
    } catch (error) {
      ended({ error });
    }
  }

  #succeeded({ kind, length, startedAt, told }: UnitRequest): void {
    this.#statistics.succeeded(kind, length, this.#clock.now() - startedAt);
    told();
  }

  #failed({ kind, startedAt, told }: UnitRequest, error: unknown): void {
    this.#statistics.failed(kind, error, this.#clock.now() - startedAt);
    told({ error });
  }

  /** The range is locked, and zeroed, piece by piece. */
  async zero(
    offset: number,
    length: number,
    options: { readonly mayUnmap: boolean; readonly signal?: AbortSignal },
  ): Promise<void> {
    const start = this.#clock.now();
    try {
      if (this.info.writeProtected) throw new IserfsError('write-protected', `${this.description} is write protected`);
      this.#blocksOf(offset, length);
      for (let at = offset; at < offset + length; ) {
        const end = this.#provisioning.pieceEnd(at, offset + length, options.mayUnmap);
        const release = await this.#lock(at, end - at, 'exclusive', options.signal);
        try {
          await this.#provisioning.zero(at, end - at, options);
        } finally {
          release();
        }
        at = end;
      }
    } catch (error) {
      this.#statistics.failed('write', error, this.#clock.now() - start);
      throw error;
    }
    this.#statistics.succeeded('write', 0, this.#clock.now() - start);
  }

  /** Locks nothing: what is written meanwhile may be in the answer or not. */
  async extentsFrom(offset: number, options: { readonly signal?: AbortSignal } = {}): Promise<readonly DeviceExtent[]> {
    this.#blocksOf(offset, 1);
    return await this.#provisioning.extentsFrom(offset, options.signal);
  }

  async flush(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const start = this.#clock.now();
    try {
      this.#writeErrors.throwUntold();
      const { count } = this.#writeErrors;
      // With copies left from when there was a volatile cache, there is still something to do.
      const hasWork = !this.#options.readOnly && (this.info.volatileCache || !this.#retained.isEmpty);
      if (hasWork) await this.#flush.flush(options.signal);
      else if (this.#recovery.state.type !== 'ready') await this.#pass(options.signal);
      this.#writeErrors.throwSince(count);
    } catch (error) {
      this.#statistics.failed('flush', error, this.#clock.now() - start);
      throw error;
    }
    this.#statistics.succeeded('flush', 0, this.#clock.now() - start);
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
    const stopped = this.#recovery.stop();
    this.#gate.refuse(reason);
    this.#retained.refuseWaiting(reason);
    await stopped;
    // Recovery may have had the last word on the gate.
    this.#gate.refuse(reason);
    await this.#gate.settled();
    this.#retained.discardUpTo(this.#retained.sequence);
  }

  /** Locks the blocks that a range touches (I7); the lock is held over retries and the loss of the nexus. */
  async #lock(offset: number, length: number, mode: LockMode, signal: AbortSignal | undefined): Promise<() => void> {
    const { start, end } = this.#blocksOf(offset, length);
    try {
      return await this.#ranges.acquire(start, end - start, mode, signal);
    } catch (error) {
      throw signal?.aborted === true ? abortError(signal) : error;
    }
  }

  /** The same where nobody is in the way; undefined where it has to wait. */
  #tryLock(offset: number, length: number, mode: LockMode, signal: AbortSignal | undefined): (() => void) | undefined {
    if (signal?.aborted === true) throw abortError(signal);
    const { start, end } = this.#blocksOf(offset, length);
    return this.#ranges.tryAcquire(start, end - start, mode);
  }

  /** The blocks that a range touches, in bytes. Throws `out-of-range`. */
  #blocksOf(offset: number, length: number): { readonly start: number; readonly end: number } {
    const { size, blockLength } = this.info;
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + length > size) {
      throw new IserfsError('out-of-range', `${this.description}: ${length} bytes at ${offset} are not within ${size} bytes`);
    }
    return { start: offset - (offset % blockLength), end: Math.ceil((offset + length) / blockLength) * blockLength };
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

  /** Copies take much room, or somebody waits for some: has the device make them superfluous. */
  #relieve(): void {
    if (this.#relieving || this.#retained.isEmpty || this.#closing !== undefined) return;
    this.#relieving = true;
    const relieved = this.#flush.flush().catch((error: unknown) => this.#notRelieved(error));
    void relieved.then(() => {
      this.#relieving = false;
      if (this.#retained.hasWaiters) this.#relieve();
    });
  }

  #notRelieved(error: unknown): void {
    const failure = error instanceof Error ? error : new Error(String(error));
    if (errorCode(error) === 'unsupported') {
      // Every flush fails on this device; no copy will ever be superfluous, and room is needed.
      this.#retained.discardUpTo(this.#retained.sequence);
      return;
    }
    // The device may report such a failure once only, and then claim that all is well.
    if (!passingErrors.has(errorCode(error))) this.#writeFailedSince(failure);
    this.#retained.refuseWaiting(failure);
  }

  #makeRecovery(): Recovery {
    return new Recovery({
      port: this.#port,
      gate: this.#gate,
      fence: this.#fence,
      clock: this.#clock,
      patienceMs: this.#options.recoveryTimeoutMs ?? DEFAULT_RECOVERY_TIMEOUT_MS,
      log: (line) => this.#log(line),
      onState: (state) => this.#stateChanged(state),
      onNexusLost: () => this.#tell({ type: 'contents' }),
      onUnitAttention: (policy) => {
        if (policy.contentsMayDiffer) this.#tell({ type: 'contents' });
        if (policy.rescan) this.#tell({ type: 'logical-units' });
      },
      steps: {
        awaitReady: (passage) => awaitReady(this.#runOn(passage)),
        verify: (passage) => this.#known.verify(this.#runOn(passage)),
        fence: (nexus) => this.#resetUnit(nexus),
        refresh: (passage) => this.#refresh(passage),
        replay: (passage) => this.#replay(passage),
      },
    });
  }

  #runOn(passage: Passage): RunCommand {
    return (request) => this.#runner.run(request, passage);
  }

  async #resetUnit(nexus: number): Promise<boolean> {
    if (!this.#options.awaitsFence(this.identity)) return true;
    try {
      await this.#port.resetLogicalUnit(this.lun, nexus);
      return true;
    } catch (error) {
      if (error instanceof NexusLostError) throw error;
      this.#log(`LOGICAL UNIT RESET failed, writes in flight are given up: ${describeError(error)}`);
      return false;
    }
  }

  async #refresh(passage: Passage): Promise<void> {
    const { resized, info } = await this.#known.refresh(this.#runOn(passage));
    if (resized) {
      this.#log(`the size is ${this.info.size} bytes now`);
      this.#tell({ type: 'contents' });
    }
    if (info) this.#tell({ type: 'info' });
  }

  /** What fails for good is lost: that is a write error, and nothing else can be done about it. */
  async #replay(passage: Passage): Promise<void> {
    const lost: { readonly write: RetainedWrite; readonly error: unknown }[] = [];
    const { writes } = this.#retained;
    if (writes.length === 0) return;
    this.#replayedWrites += writes.length;
    await this.#transfer.replay(writes, passage, (write, error) => {
      if (passingErrors.has(errorCode(error))) throw error;
      lost.push({ write, error });
    });
    for (const { write, error } of lost) {
      const { offset, data } = write;
      const message = `${this.description}: ${data.length} bytes at ${offset} were lost with the device's cache and cannot be written again`;
      this.#writeFailedSince(new IserfsError('data-lost', message, { cause: error }));
      this.#retained.supersede(offset, data.length);
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
