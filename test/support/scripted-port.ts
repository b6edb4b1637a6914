/**
 * A port with a disk behind it that does what disks and targets do on their worst days: it reorders
 * tasks, loses its write cache, drops the session, executes writes of a lost session long after it is
 * gone, reports unit attentions, deferred errors and BUSY. Everything happens in the virtual time of a
 * clock and by seeded chance, or when a test says so. It decodes CDBs by itself, from the standards and
 * not with the code under test.
 *
 * It also watches its initiator: overlapping commands in flight together, or a write that meets an older one that
 * was never fenced, are noted in `violations`.
 */

import type { Clock } from '../../src/clock.ts';
import { IserfsError, NexusLostError } from '../../src/errors.ts';
import type { Lun, PortEvent, ScsiCommand, ScsiPort, ScsiResult, StartedCommand } from '../../src/scsi/port.ts';
import { tellCommand } from './started-command.ts';

export interface DiskOptions {
  readonly blockLength: number;
  readonly blocks: number;
  /** What READ CAPACITY tells, where that is not `blocks`: a disk can be larger than what is behind it here. */
  readonly claimedBlocks?: bigint;
  readonly volatileCache: boolean;
  readonly dpoFua?: boolean;
  readonly vendor?: string;
  readonly product?: string;
  readonly serial?: string;
  readonly deviceType?: number;
  readonly maximumTransferBlocks?: number;
  /** Operation codes that the disk refuses, and VPD pages that it lacks (as `0x1200 | page`). */
  readonly refuses?: readonly number[];
  readonly writeProtected?: boolean;
  /** LBPME, LBPRZ and LBPWS: WRITE SAME(16) gives space back. What it leaves behind goes to the cache as any write. */
  readonly thin?: boolean;
}

/** A status to end a command with, instead of executing it. */
export interface Injection {
  readonly status: number;
  readonly sense?: Uint8Array;
  /** Answers only so many bytes of data with GOOD. */
  readonly transferred?: number;
}

interface Task {
  readonly command: ScsiCommand;
  readonly start: number;
  readonly end: number;
  readonly isWrite: boolean;
  /** The target's own copy of the data of a write. */
  data: Uint8Array | undefined;
  executed: boolean;
  settled: boolean;
  settle(outcome: ScsiResult | Error): void;
  cancelTimers: (() => void)[];
}

export interface ScriptedPortOptions {
  readonly clock: Clock;
  readonly random: () => number;
  readonly disk: DiskOptions;
  /** How long one step of a task takes: until it is executed, and from then until its status arrives. */
  readonly latencyMs?: (step: Step, command?: ScsiCommand) => number;
  /** How long after its loss a session comes back; undefined: not before `establish()`. */
  readonly reconnectMs?: () => number | undefined;
  /** How long after the loss of its session a write that was not executed yet may still be executed; undefined: never. */
  readonly lateMs?: () => number | undefined;
  /** LOGICAL UNIT RESET works, is refused, or is refused by a target that does nothing. */
  readonly resets?: 'work' | 'unsupported';
}

export type Step = 'execute' | 'respond';

const GOOD = 0;
const CHECK_CONDITION = 2;

export class ScriptedPort implements ScsiPort {
  readonly description = 'test target';
  readonly violations: string[] = [];
  /** Operation codes in the order of arrival, with the nexus. */
  readonly received: { readonly opcode: number; readonly cdb: Uint8Array; readonly nexus: number }[] = [];
  readonly medium: Uint8Array;
  resets = 0;
  disk: DiskOptions;
  /** Asked at each command; what it returns ends the command unexecuted. */
  inject: ((command: ScsiCommand) => Injection | undefined) | undefined;
  /** Asked at each command: `true` leaves it without an answer until its time-out. */
  stall: ((command: ScsiCommand) => boolean) | undefined;
  readonly #options: ScriptedPortOptions;
  readonly #listeners = new Set<(event: PortEvent) => void>();
  readonly #waiting: { resolve: (nexus: number) => void; reject: (reason: Error) => void }[] = [];
  readonly #tasks = new Set<Task>();
  readonly #zombies = new Set<Task>();
  /** By LBA. */
  readonly #cache = new Map<number, Uint8Array>();
  #unitAttentions: [number, number][] = [];
  #nexus: number | undefined = 1;
  #lastNexus = 1;
  #gaveUp: Error | undefined;

  constructor(options: ScriptedPortOptions) {
    this.#options = options;
    this.disk = options.disk;
    this.medium = new Uint8Array(options.disk.blockLength * options.disk.blocks);
  }

  get nexus(): number | undefined {
    return this.#nexus;
  }

  get tasksInFlight(): number {
    return this.#tasks.size;
  }

  get zombies(): number {
    return this.#zombies.size;
  }

  subscribe(listener: (event: PortEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  established(): Promise<number> {
    if (this.#nexus !== undefined) return Promise.resolve(this.#nexus);
    if (this.#gaveUp !== undefined) return Promise.reject(this.#gaveUp);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  start(command: StartedCommand): void {
    if (command.nexus !== this.#nexus) {
      tellCommand(command, Promise.reject(new NexusLostError('another nexus by now', { mayHaveExecuted: false })));
      return;
    }
    this.received.push({ opcode: command.cdb[0] ?? 0, cdb: Uint8Array.from(command.cdb), nexus: command.nexus });
    const task = this.#taskOf(command, (outcome) => {
      for (const cancel of task.cancelTimers) cancel();
      this.#tasks.delete(task);
      task.settled = true;
      if (outcome instanceof Error) command.failed(outcome);
      else command.ended(outcome);
    });
    this.#watch(task);
    this.#tasks.add(task);
    command.signal?.addEventListener('abort', () => {
      if (!task.settled) task.settle(new IserfsError('aborted', 'aborted by the test'));
    });
    if (this.stall?.(command) === true) this.#after(task, command.timeoutMs ?? 30_000, () => this.#timeOut(task));
    else this.#after(task, this.#latency('execute', command), () => this.#process(task));
  }

  async resetLogicalUnit(_lun: Lun, nexus: number): Promise<void> {
    if (nexus !== this.#nexus) throw new NexusLostError('another nexus by now', { mayHaveExecuted: false });
    this.resets++;
    if (this.#options.resets === 'unsupported') throw new IserfsError('unsupported', 'no LOGICAL UNIT RESET here');
    for (const zombie of this.#zombies) for (const cancel of zombie.cancelTimers) cancel();
    this.#zombies.clear();
    await new Promise<void>((resolve) => this.#options.clock.schedule(this.#latency('respond'), resolve));
    if (nexus !== this.#nexus) throw new NexusLostError('lost during the reset', { mayHaveExecuted: true });
    this.unitAttention(0x29, 0x03);
  }

  /** The session breaks: every command in flight is lost, and writes may linger on the target's side. */
  loseNexus(): void {
    if (this.#nexus === undefined) return;
    const reason = new Error('the session was lost');
    const lost = this.#nexus;
    this.#nexus = undefined;
    this.#emit({ type: 'nexus-lost', nexus: lost, reason });
    for (const task of [...this.#tasks]) {
      const lateMs = this.#options.lateMs?.();
      const lingers = task.isWrite && !task.executed && lateMs !== undefined;
      // What the target got of the data before the session broke is all that it will ever have.
      if (lingers) task.data ??= Uint8Array.from(task.command.dataOut ?? []);
      task.settle(new NexusLostError('the session was lost', { mayHaveExecuted: true }));
      task.cancelTimers = [];
      if (!lingers) continue;
      this.#zombies.add(task);
      this.#after(task, lateMs, () => {
        this.#zombies.delete(task);
        this.#store(task);
      });
    }
    const reconnectMs = this.#options.reconnectMs?.();
    if (reconnectMs !== undefined) this.#options.clock.schedule(reconnectMs, () => this.establish());
  }

  /** The target loses power: what is in its cache may be gone, and nothing lingers. */
  crash(): void {
    for (const zombie of this.#zombies) for (const cancel of zombie.cancelTimers) cancel();
    this.#zombies.clear();
    for (const task of this.#tasks) task.executed = true;
    this.loseCache();
    this.loseNexus();
  }

  /** A reset that leaves the session: commands in flight vanish without a status, the cache may be gone. */
  resetByOther(): void {
    for (const task of this.#tasks) {
      for (const cancel of task.cancelTimers) cancel();
      task.cancelTimers = [];
      this.#after(task, 30_000, () => this.#timeOut(task));
    }
    this.loseCache();
    this.unitAttention(0x29, 0x02);
  }

  /** Blocks that are only in the cache are lost; by chance some have made it to the medium before. */
  loseCache(): void {
    for (const [lba, block] of this.#cache) {
      if (this.#options.random() < 0.3) this.medium.set(block, lba * this.disk.blockLength);
    }
    this.#cache.clear();
  }

  establish(): void {
    if (this.#nexus !== undefined) return;
    this.#gaveUp = undefined;
    this.#lastNexus++;
    this.#nexus = this.#lastNexus;
    this.#unitAttentions = [];
    this.unitAttention(0x29, 0x00);
    this.#emit({ type: 'nexus-established', nexus: this.#nexus });
    for (const { resolve } of this.#waiting.splice(0)) resolve(this.#nexus);
  }

  /** Recovery takes too long. */
  giveUp(): void {
    this.#gaveUp = new IserfsError('recovery-timeout', 'no session within the time allowed');
    this.#emit({ type: 'failed', reason: this.#gaveUp });
    for (const { reject } of this.#waiting.splice(0)) reject(this.#gaveUp);
  }

  unitAttention(asc: number, ascq: number): void {
    this.#unitAttentions.push([asc, ascq]);
  }

  /** What a reader would see: the cache before the medium. */
  contents(): Uint8Array {
    const contents = Uint8Array.from(this.medium);
    for (const [lba, block] of this.#cache) contents.set(block, lba * this.disk.blockLength);
    return contents;
  }

  countOf(opcode: number): number {
    return this.received.filter((entry) => entry.opcode === opcode).length;
  }

  #taskOf(command: ScsiCommand, settle: Task['settle']): Task {
    const { cdb } = command;
    const access = accessOf(cdb);
    const { blockLength } = this.disk;
    return {
      command,
      start: (access?.lba ?? 0) * blockLength,
      end: ((access?.lba ?? 0) + (access?.blocks ?? 0)) * blockLength,
      isWrite: access?.isWrite ?? false,
      data: undefined,
      executed: false,
      settled: false,
      settle,
      cancelTimers: [],
    };
  }

  #watch(task: Task): void {
    for (const other of this.#tasks) {
      if (overlaps(task, other) && (task.isWrite || other.isWrite)) this.violations.push('overlapping commands in flight');
    }
    for (const zombie of this.#zombies) {
      if (overlaps(task, zombie) && task.isWrite) this.violations.push('a write met an older one that was not fenced');
    }
  }

  #after(task: Task, delayMs: number, callback: () => void): void {
    task.cancelTimers.push(this.#options.clock.schedule(delayMs, callback));
  }

  /** The port aborts: the task was executed or never will be. */
  #timeOut(task: Task): void {
    if (this.#options.random() < 0.5) this.#store(task);
    task.settle(new IserfsError('command-timeout', 'no status in time; the task is aborted'));
  }

  #process(task: Task): void {
    const result = this.inject?.(task.command);
    const outcome =
      result === undefined
        ? this.#perform(task)
        : { status: result.status, sense: result.sense ?? new Uint8Array(0), transferred: result.transferred ?? 0 };
    task.executed = true;
    this.#after(task, this.#latency('respond', task.command), () => task.settle(outcome));
  }

  #perform(task: Task): ScsiResult {
    const { cdb, dataIn } = task.command;
    const opcode = cdb[0] ?? 0;
    const reportsAttention = opcode !== 0x12 && opcode !== 0xa0;
    if (reportsAttention) {
      const attention = this.#unitAttentions.shift();
      if (attention !== undefined) return check(0x06, ...attention);
    }
    if (this.disk.refuses?.includes(opcode) === true) return check(0x05, 0x20, 0x00);
    switch (opcode) {
      case 0x00:
        return good(0);
      case 0x12:
        return this.#inquiry(cdb, dataIn);
      case 0x1a:
        return give(dataIn, this.#mode(4));
      case 0x5a:
        return give(dataIn, this.#mode(8));
      case 0x25:
        return give(dataIn, this.#capacity10());
      case 0x9e:
        return give(dataIn, this.#capacity16());
      case 0x28:
      case 0x88:
        return this.#read(task);
      case 0x2a:
      case 0x8a:
        if (task.end > this.medium.length) return check(0x05, 0x21, 0x00);
        this.#store(task);
        return good(task.end - task.start);
      case 0x93:
        if (this.disk.thin !== true) return check(0x05, 0x20, 0x00);
        if (task.end > this.medium.length) return check(0x05, 0x21, 0x00);
        this.#store(task);
        return good(this.disk.blockLength);
      case 0x35:
      case 0x91:
        for (const [lba, block] of this.#cache) this.medium.set(block, lba * this.disk.blockLength);
        this.#cache.clear();
        return good(0);
      case 0xa0:
        return give(dataIn, new Uint8Array([0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
      default:
        return check(0x05, 0x20, 0x00);
    }
  }

  #read({ command, start, end }: Task): ScsiResult {
    if (end > this.medium.length) return check(0x05, 0x21, 0x00);
    const { blockLength } = this.disk;
    const data = this.medium.slice(start, end);
    for (let lba = start / blockLength; lba * blockLength < end; lba++) {
      const cached = this.#cache.get(lba);
      if (cached !== undefined) data.set(cached, lba * blockLength - start);
    }
    return give(command.dataIn, data);
  }

  #store(task: Task): void {
    if (!task.isWrite || task.executed) return;
    task.executed = true;
    const sent = task.data ?? task.command.dataOut ?? new Uint8Array(0);
    const { blockLength } = this.disk;
    const isSame = task.command.cdb[0] === 0x93;
    const data = isSame ? Buffer.alloc(task.end - task.start, sent) : sent;
    const forced = !isSame && ((task.command.cdb[1] ?? 0) & 0x08) !== 0;
    for (let at = 0; at < data.length; at += blockLength) {
      const lba = (task.start + at) / blockLength;
      const block = data.slice(at, at + blockLength);
      if (this.disk.volatileCache && !forced) this.#cache.set(lba, block);
      else {
        this.#cache.delete(lba);
        this.medium.set(block, task.start + at);
      }
    }
  }

  #inquiry(cdb: Uint8Array, dataIn: Uint8Array | undefined): ScsiResult {
    const { vendor = 'SCRIPTED', product = 'DISK', serial = 'S1', deviceType = 0, refuses = [], blockLength } = this.disk;
    if ((cdb[1] ?? 0) === 0) {
      const data = new Uint8Array(36).fill(0x20, 8);
      data.set([deviceType, 0, 6, 2, 31]);
      data.set(ascii(vendor.slice(0, 8)), 8);
      data.set(ascii(product.slice(0, 16)), 16);
      data.set(ascii('1.0 '), 32);
      return give(dataIn, data);
    }
    const page = cdb[2] ?? 0;
    const bodies = new Map<number, Uint8Array>([[0x80, ascii(serial)]]);
    if (serial !== '') bodies.set(0x83, Uint8Array.from([0x02, 0x01, 0, serial.length, ...ascii(serial)]));
    const limits = new Uint8Array(60);
    new DataView(limits.buffer).setUint32(4, this.disk.maximumTransferBlocks ?? 0);
    if (blockLength > 0) bodies.set(0xb0, limits);
    if (this.disk.thin === true) bodies.set(0xb2, Uint8Array.from([0, 0x44, 0x02, 0]));
    bodies.set(0x00, Uint8Array.from([0, ...[...bodies.keys()].filter((code) => !refuses.includes(0x1200 | code))]));
    const body = refuses.includes(0x1200 | page) ? undefined : bodies.get(page);
    if (body === undefined) return check(0x05, 0x24, 0x00);
    return give(dataIn, Uint8Array.from([deviceType, page, 0, body.length, ...body]));
  }

  #mode(headerLength: 4 | 8): Uint8Array {
    const data = new Uint8Array(headerLength + 20);
    data[headerLength === 4 ? 0 : 1] = data.length - (headerLength === 4 ? 1 : 2);
    const specific = (this.disk.writeProtected === true ? 0x80 : 0) | (this.disk.dpoFua === true ? 0x10 : 0);
    data[headerLength === 4 ? 2 : 3] = specific;
    data.set([0x08, 0x12, this.disk.volatileCache ? 0x04 : 0x00], headerLength);
    return data;
  }

  get #lastLba(): bigint {
    return (this.disk.claimedBlocks ?? BigInt(this.disk.blocks)) - 1n;
  }

  #capacity10(): Uint8Array {
    const data = new Uint8Array(8);
    const view = new DataView(data.buffer);
    view.setUint32(0, this.#lastLba > 0xffff_ffffn ? 0xffff_ffff : Number(this.#lastLba));
    view.setUint32(4, this.disk.blockLength);
    return data;
  }

  #capacity16(): Uint8Array {
    const data = new Uint8Array(32);
    const view = new DataView(data.buffer);
    view.setBigUint64(0, this.#lastLba);
    view.setUint32(8, this.disk.blockLength);
    if (this.disk.thin === true) data[14] = 0xc0;
    return data;
  }

  #latency(step: Step, command?: ScsiCommand): number {
    return this.#options.latencyMs?.(step, command) ?? 1;
  }

  #emit(event: PortEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }
}

/** Fixed format sense data. */
export function fixedSense(key: number, asc: number, ascq: number, responseCode = 0x70): Uint8Array {
  const sense = new Uint8Array(18);
  sense.set([responseCode, 0, key]);
  sense[7] = 10;
  sense[12] = asc;
  sense[13] = ascq;
  return sense;
}

export function check(key: number, asc: number, ascq: number, responseCode = 0x70): ScsiResult {
  return { status: CHECK_CONDITION, sense: fixedSense(key, asc, ascq, responseCode), transferred: 0 };
}

function good(transferred: number): ScsiResult {
  return { status: GOOD, sense: new Uint8Array(0), transferred };
}

function give(dataIn: Uint8Array | undefined, data: Uint8Array): ScsiResult {
  const length = Math.min(dataIn?.length ?? 0, data.length);
  dataIn?.set(data.subarray(0, length));
  return good(length);
}

function accessOf(cdb: Uint8Array): { lba: number; blocks: number; isWrite: boolean } | undefined {
  const view = new DataView(cdb.buffer, cdb.byteOffset, cdb.byteLength);
  switch (cdb[0]) {
    case 0x28:
    case 0x2a:
      return { lba: view.getUint32(2), blocks: view.getUint16(7), isWrite: cdb[0] === 0x2a };
    case 0x88:
    case 0x8a:
    case 0x93:
      return { lba: Number(view.getBigUint64(2)), blocks: view.getUint32(10), isWrite: cdb[0] !== 0x88 };
    default:
      return undefined;
  }
}

function overlaps(one: Task, other: Task): boolean {
  return one.start < other.end && other.start < one.end;
}

function ascii(text: string): Uint8Array {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}
