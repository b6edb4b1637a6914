/**
 * One logical unit of a mount: attached and cached, or there by name with the reason why it cannot be
 * read. Makes its part of the snapshot.
 */

import type { ConnectionSettings } from '../config/settings.ts';
import { IserfsError } from '../errors.ts';
import { problemOf } from '../problem.ts';
import type { BlockCache } from '../scsi/block-cache.ts';
import type { CachedDevice } from '../scsi/cached-device.ts';
import { DeviceType, designatorText } from '../scsi/inquiry.ts';
import type { LogicalUnit } from '../scsi/logical-unit.ts';
import { lunLabel } from '../scsi/lun.ts';
import type { Lun } from '../scsi/port.ts';
import type { LunCounters, LunIdentity, LunSnapshot } from './snapshot.ts';

interface LunContext {
  readonly settings: ConnectionSettings;
  readonly cache: BlockCache;
  readonly changed: () => void;
  /** What was read of the unit may be out of date, above its cache too, which is empty by now. */
  readonly outdated: (lun: MountedLun) => void;
}

export class MountedLun {
  readonly lun: Lun;
  readonly label: string;
  readonly #target: string;
  readonly #context: LunContext;
  #unit: LogicalUnit | undefined;
  #device: CachedDevice | undefined;
  #failure: unknown;

  constructor(target: string, lun: Lun, context: LunContext) {
    this.lun = lun;
    this.label = lunLabel(lun);
    this.#target = target;
    this.#context = context;
  }

  get unit(): LogicalUnit | undefined {
    return this.#unit;
  }

  /** For messages. */
  get description(): string {
    return this.#unit?.description ?? `${this.#target} LUN ${this.label}`;
  }

  /** What can be read and written; undefined where there is none. */
  get device(): CachedDevice | undefined {
    return this.#device;
  }

  /** A logical unit that only manages the target, such as tgtd's LUN 0, is nothing to look at. */
  get isHidden(): boolean {
    return this.#unit?.identity.deviceType === DeviceType['storage-array-controller'];
  }

  /** What tells this unit from another one that may come to stand at its LUN. */
  get identityKey(): string | undefined {
    const identity = this.#unit?.identity;
    if (identity === undefined) return undefined;
    return [identity.vendor, identity.product, identity.serial ?? '', ...identity.designators.map(designatorText)].join('\n');
  }

  /** Why there is nothing to read. */
  get failure(): unknown {
    if (this.#device !== undefined) return undefined;
    return this.#failure ?? new IserfsError('not-ready', `${this.description}: no answer yet`);
  }

  attached(unit: LogicalUnit, rescan: () => void): void {
    this.#unit = unit;
    this.#failure = undefined;
    const { shared, 'write-through': writeThrough } = this.#context.settings.options;
    if (unit.hasImage) this.#device = this.#context.cache.attach(unit, { shared, writeThrough });
    else {
      const type = deviceTypeName(unit.identity.deviceType);
      this.#failure = new IserfsError('unsupported', `${unit.description} is no disk but a ${type}`);
    }
    // After the cache, which listens too: what is read anew must not come from there.
    unit.onChange((change) => {
      if (change.type === 'logical-units') rescan();
      else if (change.type === 'info') this.#context.changed();
      else if (change.type === 'contents') this.#context.outdated(this);
    });
  }

  failed(error: unknown): void {
    this.#failure = error;
  }

  /** It is not known yet whether the unit is still there. */
  get isRecovering(): boolean {
    return this.#unit?.status.state === 'recovering';
  }

  /** See `LogicalUnit.noteDeferredError`. */
  noteDeferredError(error: IserfsError): void {
    this.#unit?.noteDeferredError(error);
  }

  /** After a rescan that found it again: it may have been given up meanwhile. */
  revalidate(): void {
    const state = this.#unit?.status.state;
    if (state === 'gone' || state === 'failed') this.#unit?.revalidate();
  }

  /** Requests that wait are rejected with `reason`, where there is one. */
  async close(reason?: Error): Promise<void> {
    this.#device?.detach();
    await this.#unit?.close(reason);
  }

  snapshot(): LunSnapshot {
    const unit = this.#unit;
    const status = unit?.status;
    const failure = this.failure;
    const reason = failure ?? status?.reason;
    return {
      label: this.label,
      state: failure === undefined ? (status?.state ?? 'ready') : 'unavailable',
      problem: reason === undefined ? undefined : problemOf(reason),
      identity: unit === undefined ? undefined : identityOf(unit),
      counters: unit === undefined || this.#device === undefined ? undefined : countersOf(unit, this.#device),
    };
  }
}

function identityOf(unit: LogicalUnit): LunIdentity {
  const { identity, info, characteristics } = unit;
  const { blockLength } = info;
  const inBytes = (blocks: number | undefined) => (blocks === undefined || blocks === 0 ? undefined : blocks * blockLength);
  const limits = characteristics?.limits;
  return {
    vendor: identity.vendor,
    product: identity.product,
    revision: identity.revision,
    serial: identity.serial,
    designators: identity.designators.map(designatorText),
    deviceType: deviceTypeName(identity.deviceType),
    capacity: info.size,
    blockLength,
    physicalBlockLength: blockLength * 2 ** (characteristics?.capacity.logicalBlocksPerPhysicalBlockExponent ?? 0),
    maximumTransferLength: inBytes(limits?.maximumTransferLength),
    optimalTransferLength: inBytes(limits?.optimalTransferLength),
    optimalTransferGranularity: inBytes(limits?.optimalTransferLengthGranularity),
    thin: characteristics?.capacity.thin ?? false,
    volatileCache: info.volatileCache,
    writeProtected: characteristics?.writeProtected ?? true,
    access: info.writeProtected ? 'read-only' : 'read-write',
  };
}

function countersOf(unit: LogicalUnit, device: CachedDevice): LunCounters {
  const { status } = unit;
  const { stats } = device;
  return {
    reads: status.reads,
    writes: status.writes,
    flushes: status.flushes,
    bytesRead: status.bytesRead,
    bytesWritten: status.bytesWritten,
    errors: status.errors,
    lastError: status.lastError,
    retries: status.retries,
    reconnectReplays: status.reconnectReplays,
    replayedWrites: status.replayedWrites,
    unitAttentions: status.unitAttentions,
    commandTimeouts: status.commandTimeouts,
    recoveries: status.recoveries,
    commandsInFlight: status.commandsInFlight,
    stagedBytes: device.stagedBytes,
    retainedBytes: status.retainedBytes,
    cacheHits: stats.hits,
    cacheMisses: stats.misses,
    readaheadBytes: stats.readaheadBytes,
    readLatency: status.latency.read,
    writeLatency: status.latency.write,
    flushLatency: status.latency.flush,
  };
}

/** Peripheral device types (SPC) that one may meet, in words. */
const typeNames: Readonly<Record<number, string>> = {
  0: 'disk',
  1: 'tape',
  3: 'processor device',
  5: 'CD or DVD drive',
  7: 'optical memory device',
  8: 'medium changer',
  12: 'storage array controller',
  13: 'enclosure',
  14: 'disk',
};

function deviceTypeName(type: number): string {
  return typeNames[type] ?? `device of type ${type}`;
}
