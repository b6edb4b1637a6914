/**
 * The SCSI side of a target (SAM's device server and task router): block devices over media. It decides
 * which command meets which logical unit, what comes before its execution (unit attentions, reservations,
 * readiness) and how it ends; the commands themselves are in `server-transfers.ts` and
 * `server-reports.ts`. It knows nothing of iSCSI: data moves through `ServerTask`.
 *
 * Tasks are SIMPLE ones: all that come are started at once, in order; those whose blocks overlap, one of
 * them writing, run one after the other (`ServedUnit.lock`).
 */

import { describeError, errorCode, IserfsError } from '../errors.ts';
import { BufferPool } from './buffer-pool.ts';
import { encodeCapacity10, encodeCapacity16 } from './capacity.ts';
import { type Cdb, type CommandName, cdbLength, cdbName, type DecodedCdb, decodeCdb, hasServiceAction } from './cdb.ts';
import {
  CheckCondition,
  expectedLengthTooShort,
  internalTargetFailure,
  invalidFieldInCdb,
  invalidOperationCode,
  logicalUnitNotSupported,
  notReady,
  unitAttention,
} from './check-condition.ts';
import { encodeReportLuns, lunFromNumber, lunNumber } from './lun.ts';
import { Attention, type UnitAttention } from './pending-attentions.ts';
import type { DeviceServer, Lun, ServerResult, ServerTask } from './port.ts';
import { encodeSense, SenseKey } from './sense.ts';
import { ServedUnit, type ServedUnitOptions } from './served-unit.ts';
import {
  inquiryData,
  modeSelect,
  modeSenseData,
  supportedOperationCodes,
  supportedTaskManagementFunctions,
} from './server-reports.ts';
import {
  type CommandContext,
  flush,
  lbaStatusData,
  read,
  receiveParameterList,
  synchronizeCache,
  unmap,
  verify,
  write,
  writeAndVerify,
  writeSame,
} from './server-transfers.ts';
import { Status } from './status.ts';

export interface BlockDeviceServerOptions {
  readonly units: readonly ServedUnitOptions[];
  /** Where the chunks of data in flight live; one of its own by default. */
  readonly pool?: BufferPool;
  /** Hears of what is a fault of the target itself. */
  readonly log?: (line: string) => void;
}

export class BlockDeviceServer implements DeviceServer {
  readonly #units = new Map<number, ServedUnit>();
  readonly #nexuses = new Set<number>();
  readonly #pool: BufferPool;
  readonly #log: (line: string) => void;
  /** Nexuses that were lost and have no successor yet. */
  #lostNexuses = 0;

  /** Takes the media of its units. Code `bad-configuration` for a unit that cannot be, or a LUN given twice. */
  constructor(options: BlockDeviceServerOptions) {
    this.#pool = options.pool ?? new BufferPool();
    this.#log = options.log ?? (() => {});
    for (const unit of options.units) this.addUnit(unit);
  }

  /** The logical units, by ascending LUN. */
  get units(): readonly ServedUnit[] {
    return [...this.#units.values()].sort((one, other) => one.number - other.number);
  }

  /** The logical unit `number`, to resize it or to change its write protection. */
  unit(number: number): ServedUnit | undefined {
    return this.#units.get(number);
  }

  /** Adds a logical unit; the others tell every nexus that the inventory has changed. */
  addUnit(options: ServedUnitOptions): ServedUnit {
    if (this.#units.has(options.lun)) throw new IserfsError('bad-configuration', `LUN ${options.lun} is given twice`);
    const unit = new ServedUnit(options);
    for (const nexus of this.#nexuses) unit.attentions.addNexus(nexus, Attention['power-on']);
    for (const other of this.#units.values()) other.attentions.raise(Attention['reported-luns-changed']);
    this.#units.set(options.lun, unit);
    return unit;
  }

  /** Removes a logical unit, as if it were unplugged, and closes its medium when no command uses it any more. */
  async removeUnit(number: number): Promise<void> {
    const unit = this.#units.get(number);
    if (unit === undefined) return;
    this.#units.delete(number);
    for (const other of this.#units.values()) other.attentions.raise(Attention['reported-luns-changed']);
    await closeUnit(unit);
  }

  /** Waits for the commands under way and closes all media; each is flushed. Idempotent. */
  async close(): Promise<void> {
    const units = [...this.#units.values()];
    this.#units.clear();
    const closed = await Promise.allSettled(units.map(closeUnit));
    for (const outcome of closed) if (outcome.status === 'rejected') throw outcome.reason;
  }

  nexusEstablished(nexus: number): void {
    // An initiator that comes back after its nexus was lost is told so; one that comes new meets a unit that was switched on for it.
    const first = this.#lostNexuses > 0 ? Attention['nexus-loss'] : Attention['power-on'];
    this.#lostNexuses = Math.max(0, this.#lostNexuses - 1);
    this.#nexuses.add(nexus);
    for (const unit of this.#units.values()) unit.attentions.addNexus(nexus, first);
  }

  nexusLost(nexus: number): void {
    if (!this.#nexuses.delete(nexus)) return;
    this.#lostNexuses++;
    for (const unit of this.#units.values()) {
      unit.attentions.removeNexus(nexus);
      if (unit.reservedBy === nexus) unit.reservedBy = undefined;
    }
  }

  async reset(function_: 'logical-unit-reset' | 'target-warm-reset', lun: Lun, nexus: number): Promise<boolean> {
    if (function_ === 'target-warm-reset') {
      await Promise.all([...this.#units.values()].map((unit) => this.#resetUnit(unit, Attention['bus-reset'], nexus)));
      return true;
    }
    const unit = this.#unitAt(lun);
    if (unit === undefined) return false;
    await this.#resetUnit(unit, Attention['device-reset'], nexus);
    return true;
  }

  async #resetUnit(unit: ServedUnit, attention: UnitAttention, nexus: number): Promise<void> {
    unit.reset();
    unit.attentions.raise(attention, nexus);
    if (!unit.forcesWrites) return;
    // The cache may have been on until now.
    try {
      await flush(unit);
    } catch (error) {
      this.#log(`LUN ${unit.number} could not be flushed at its reset: ${describeError(error)}`);
    }
  }

  hasLogicalUnit(lun: Lun): boolean {
    return this.#unitAt(lun) !== undefined;
  }

  /** Up to the lock on its blocks a command runs before this returns, so that commands keep the order of the calls. */
  async execute(task: ServerTask): Promise<ServerResult> {
    const unit = this.#unitAt(task.lun);
    try {
      const cdb = decodeCdb(task.cdb);
      if (cdb === undefined || (unit !== undefined && !isSupported(unit, cdb.name))) throw refusal(task.cdb);
      if (cdb.naca) throw invalidFieldInCdb(cdbLength(task.cdb[0] ?? 0) - 1, 2);
      if (cdb.name === 'inquiry' || cdb.name === 'report-luns' || cdb.name === 'request-sense') {
        return good(await sendParameters(task, this.#answerAlways(unit, task.nexus, cdb), cdb.allocationLength));
      }
      if (unit === undefined) throw logicalUnitNotSupported();
      if (unit.reservedBy !== undefined && unit.reservedBy !== task.nexus && !ignoresReservations.has(cdb.name)) {
        return { status: Status['reservation-conflict'], sense: new Uint8Array(0), transferLength: 0 };
      }
      const pending = unit.attentions.take(task.nexus);
      if (pending !== undefined) throw unitAttention(pending.asc, pending.ascq);
      if (unit.isStopped && needsMedium.has(cdb.name)) throw notReady();
      return good(await execute({ unit, task, pool: this.#pool }, cdb));
    } catch (error) {
      return this.#failure(task, unit, error);
    }
  }

  /** The commands that are answered whatever the state of the unit, and without one. */
  #answerAlways(unit: ServedUnit | undefined, nexus: number, cdb: Cdb<AlwaysName>): Uint8Array {
    switch (cdb.name) {
      case 'inquiry':
        return inquiryData(unit, cdb);
      case 'request-sense':
        return requestSenseData(unit, nexus, cdb);
      case 'report-luns': {
        const data = this.#reportLuns(cdb);
        for (const each of this.#units.values()) each.attentions.clear(nexus, Attention['reported-luns-changed']);
        return data;
      }
      default:
        return cdb satisfies never;
    }
  }

  /** There are no well-known logical units to report. */
  #reportLuns(cdb: Cdb<'report-luns'>): Uint8Array {
    if (cdb.selectReport > 2) throw invalidFieldInCdb(2);
    return encodeReportLuns(cdb.selectReport === 1 ? [] : this.units.map((unit) => lunFromNumber(unit.number)));
  }

  #failure(task: ServerTask, unit: ServedUnit | undefined, error: unknown): ServerResult {
    if (task.isAborted) return { status: Status['task-aborted'], sense: new Uint8Array(0), transferLength: 0 };
    // The port's word for a command whose data the initiator has not announced at all.
    let condition = errorCode(error) === 'illegal-request' ? expectedLengthTooShort(0) : error;
    if (!(condition instanceof CheckCondition)) {
      this.#log(`${cdbName(task.cdb)} to LUN ${unit?.number ?? 'unknown'} failed: ${describeError(error)}`);
      condition = internalTargetFailure();
    }
    const { sense, transferLength } = condition as CheckCondition;
    return {
      status: Status['check-condition'],
      sense: encodeSense({ ...sense, descriptorFormat: unit?.descriptorSense ?? false }),
      transferLength,
    };
  }

  #unitAt(lun: Lun): ServedUnit | undefined {
    const number = lunNumber(lun);
    return number === undefined ? undefined : this.#units.get(number);
  }
}

type AlwaysName = 'inquiry' | 'report-luns' | 'request-sense';

/** Commands that another nexus's reservation does not stop (SPC-2). */
const ignoresReservations: ReadonlySet<CommandName> = new Set(['release-6']);

const needsMedium: ReadonlySet<CommandName> = new Set([
  'test-unit-ready',
  'read-6',
  'read-10',
  'read-12',
  'read-16',
  'write-6',
  'write-10',
  'write-12',
  'write-16',
  'write-and-verify-10',
  'write-and-verify-12',
  'write-and-verify-16',
  'verify-10',
  'verify-12',
  'verify-16',
  'write-same-10',
  'write-same-16',
  'unmap',
  'get-lba-status',
  'read-capacity-10',
  'read-capacity-16',
]);

function isSupported(unit: ServedUnit, name: CommandName): boolean {
  switch (name) {
    case 'unmap':
    case 'get-lba-status':
      // Initiators ask whoever says that it is thin; libiscsi's iSER falls over the refusal.
      return unit.medium.isThin;
    default:
      return true;
  }
}

/** An operation code that is there with other service actions has one field that is wrong; else there is no such command. */
function refusal(cdb: Uint8Array): CheckCondition {
  return decodeCdb(cdb) === undefined && hasServiceAction(cdb[0] ?? 0) ? invalidFieldInCdb(1, 4) : invalidOperationCode();
}

/** The commands that need a unit, by name. Resolves with the transfer length. */
async function execute(context: CommandContext, cdb: Exclude<DecodedCdb, Cdb<AlwaysName>>): Promise<number> {
  const { unit, task } = context;
  switch (cdb.name) {
    case 'test-unit-ready':
      return 0;
    case 'read-6':
    case 'read-10':
    case 'read-12':
    case 'read-16':
      return await read(context, cdb);
    case 'write-6':
    case 'write-10':
    case 'write-12':
    case 'write-16':
      return await write(context, cdb);
    case 'write-and-verify-10':
    case 'write-and-verify-12':
    case 'write-and-verify-16':
      return await writeAndVerify(context, cdb);
    case 'verify-10':
    case 'verify-12':
    case 'verify-16':
      return await verify(context, cdb);
    case 'synchronize-cache-10':
    case 'synchronize-cache-16':
      return await synchronizeCache(context, cdb);
    case 'write-same-10':
    case 'write-same-16':
      return await writeSame(context, cdb);
    case 'unmap':
      return await unmap(context, cdb);
    case 'get-lba-status':
      return await sendParameters(task, await lbaStatusData(context, cdb), cdb.allocationLength);
    case 'read-capacity-10':
      if (cdb.lba !== 0 || cdb.partialMedium) throw invalidFieldInCdb(cdb.partialMedium ? 8 : 2);
      return await sendParameters(task, encodeCapacity10(unit.capacity), Number.POSITIVE_INFINITY);
    case 'read-capacity-16':
      if (cdb.lba !== 0 || cdb.partialMedium) throw invalidFieldInCdb(cdb.partialMedium ? 14 : 2);
      return await sendParameters(task, encodeCapacity16(unit.capacity), cdb.allocationLength);
    case 'mode-sense-6':
    case 'mode-sense-10':
      return await sendParameters(task, modeSenseData(unit, cdb), cdb.allocationLength);
    case 'mode-select-6':
    case 'mode-select-10':
      return await selectModes(context, cdb);
    case 'start-stop-unit':
      return await startStop(unit, cdb);
    case 'reserve-6':
      if (cdb.thirdParty !== 0 || cdb.extent) throw invalidFieldInCdb(1, cdb.extent ? 0 : 4);
      unit.reservedBy = task.nexus;
      return 0;
    case 'release-6':
      if (cdb.thirdParty !== 0 || cdb.extent) throw invalidFieldInCdb(1, cdb.extent ? 0 : 4);
      if (unit.reservedBy === task.nexus) unit.reservedBy = undefined;
      return 0;
    case 'report-supported-operation-codes':
      return await sendParameters(
        task,
        supportedOperationCodes(cdb, (name) => isSupported(unit, name)),
        cdb.allocationLength,
      );
    case 'report-supported-task-management-functions':
      return await sendParameters(task, supportedTaskManagementFunctions(), cdb.allocationLength);
    default:
      return cdb satisfies never;
  }
}

async function selectModes({ unit, task }: CommandContext, cdb: Cdb<'mode-select-6' | 'mode-select-10'>): Promise<number> {
  if (!cdb.pageFormat) throw invalidFieldInCdb(1, 4);
  if (cdb.savePages) throw invalidFieldInCdb(1, 0);
  if (cdb.parameterListLength === 0) return 0;
  const list = await receiveParameterList({ task }, cdb.parameterListLength);
  // All blocks are held: no write that counts on the cache is under way when it is turned off.
  const release = await unit.lock.acquire(0, Number.MAX_SAFE_INTEGER, 'exclusive', task.signal);
  try {
    if (modeSelect(unit, list, cdb.name === 'mode-select-6' ? 6 : 10)) {
      unit.attentions.raise(Attention['mode-parameters-changed'], task.nexus);
    }
    // With the cache off, nothing may be in it any more.
    if (unit.forcesWrites) await flush(unit);
  } finally {
    release();
  }
  return list.length;
}

async function startStop(unit: ServedUnit, cdb: Cdb<'start-stop-unit'>): Promise<number> {
  if (cdb.powerCondition !== 0) throw invalidFieldInCdb(4, 7);
  if (cdb.loadEject) throw invalidFieldInCdb(4, 1);
  if (!cdb.start && !cdb.noFlush) await flush(unit);
  unit.isStopped = !cdb.start;
  return 0;
}

/** REQUEST SENSE reports a unit attention as data, and clears it. */
function requestSenseData(unit: ServedUnit | undefined, nexus: number, { descriptorFormat }: Cdb<'request-sense'>): Uint8Array {
  if (unit === undefined) return encodeSense({ ...logicalUnitNotSupported().sense, descriptorFormat });
  const pending = unit.attentions.take(nexus);
  if (pending !== undefined) return encodeSense({ key: SenseKey['unit-attention'], ...pending, descriptorFormat });
  const nothing = { key: SenseKey['no-sense'], asc: 0, ascq: 0 };
  return encodeSense({ ...(unit.isStopped ? notReady().sense : nothing), descriptorFormat });
}

/** Sends what the allocation length leaves of parameter data. */
async function sendParameters(task: ServerTask, data: Uint8Array, allocationLength: number): Promise<number> {
  const cut = data.subarray(0, Math.min(data.length, allocationLength));
  if (cut.length > 0) await task.sendDataIn(0, cut);
  return cut.length;
}

function good(transferLength: number): ServerResult {
  return { status: Status.good, sense: new Uint8Array(0), transferLength };
}

/** Waits for the commands that hold blocks. */
async function closeUnit(unit: ServedUnit): Promise<void> {
  const release = await unit.lock.acquire(0, Number.MAX_SAFE_INTEGER, 'exclusive');
  try {
    await unit.medium.close();
  } finally {
    release();
  }
}
