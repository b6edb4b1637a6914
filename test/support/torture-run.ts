/**
 * Several workers that read, write and flush random ranges of one logical unit, through the block cache,
 * while faults happen to its port; everything that they see is checked against `WriteHistory`.
 */

import { sleep } from '../../src/clock.ts';
import { errorCode } from '../../src/errors.ts';
import { BlockCache } from '../../src/scsi/block-cache.ts';
import { type ArenaSource, BufferPool } from '../../src/scsi/buffer-pool.ts';
import type { CachedDevice } from '../../src/scsi/cached-device.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import type { ScsiCommand, ScsiPort } from '../../src/scsi/port.ts';
import { check, type Injection } from './scripted-port.ts';
import { SeededRandom } from './seeded-random.ts';
import { ShownPages } from './shown-pages.ts';
import { VirtualClock } from './virtual-clock.ts';
import { WriteHistory } from './write-history.ts';

export interface Scenario {
  readonly blockLength: number;
  readonly blocks: number;
  readonly volatileCache: boolean;
  readonly dpoFua?: boolean;
  readonly retainedLimit: number;
  readonly cacheBytes: number;
  /** Most bytes that are acknowledged before the device has them; 0 if absent. */
  readonly staged?: number;
  readonly faults: readonly Fault[];
  readonly resets?: 'work' | 'unsupported';
  readonly maximumTransferBlocks?: number;
  /** Ranges are punched as well; the disk can give space back. */
  readonly punches?: boolean;
  readonly operations: number;
}

export type Fault = 'nexus-loss' | 'crash' | 'reset' | 'give-up';

/** A port that things happen to. */
export interface TorturedPort extends ScsiPort {
  /** What is on the medium, whatever the cache holds. */
  readonly medium: Uint8Array;
  /** What the initiator did that it must not do. */
  readonly violations: readonly string[];
  /** Where data had best be for it. */
  readonly memory?: ArenaSource | undefined;
  inject: ((command: ScsiCommand) => Injection | undefined) | undefined;
  stall: ((command: ScsiCommand) => boolean) | undefined;
  loseNexus(): void;
  crash(): void;
  resetByOther(): void;
  giveUp(): void;
  establish(): void;
  loseCache(): void;
}

export type MakePort = (environment: {
  readonly scenario: Scenario;
  readonly clock: VirtualClock;
  readonly random: SeededRandom;
}) => TorturedPort;

const WORKERS = 6;

export class TortureRun {
  readonly problems: string[] = [];
  flushes = 0;
  reads = 0;
  punches = 0;
  readonly #scenario: Scenario;
  readonly #random: SeededRandom;
  readonly #clock = new VirtualClock();
  readonly #pool: BufferPool;
  readonly #port: TorturedPort;
  readonly #history: WriteHistory;
  readonly #window: ShownPages;
  #remaining: number;
  #isOver = false;
  /** The moment at which the last flush that succeeded was asked for. */
  #durableSince = 0;

  constructor(scenario: Scenario, seed: number, makePort: MakePort) {
    this.#scenario = scenario;
    this.#random = new SeededRandom(seed);
    this.#remaining = scenario.operations;
    this.#port = makePort({ scenario, clock: this.#clock, random: this.#random });
    this.#pool = new BufferPool(this.#port.memory);
    this.#port.medium.set(this.#random.bytes(this.#port.medium.length));
    this.#history = new WriteHistory(this.#port.medium);
    this.#window = new ShownPages(this.#port.medium.length);
  }

  async complete(): Promise<void> {
    let done = false;
    const all = this.#everything().finally(() => {
      done = true;
    });
    for (let minutes = 0; !done && minutes < 600; minutes++) await this.#clock.advance(60_000);
    if (!done) throw new Error('it hangs');
    await all;
  }

  async #everything(): Promise<void> {
    const unit = await LogicalUnit.attach(this.#port, 0n, {
      pool: this.#pool,
      readOnly: false,
      commandTimeoutMs: 30_000,
      retainedLimit: this.#scenario.retainedLimit,
      queueDepth: 12,
      awaitsFence: () => true,
      clock: this.#clock,
      random: () => this.#random.fraction(),
    });
    const cache = new BlockCache({
      pool: this.#pool,
      bytes: this.#scenario.cacheBytes,
      readahead: 64 * 1024,
      staged: this.#scenario.staged ?? 0,
    });
    const device = cache.attach(unit);
    device.showIn(this.#window);
    this.#port.inject = (command) => this.#injection(command.cdb[0] ?? 0);
    this.#port.stall = (command) => isAccess(command.cdb[0] ?? 0) && this.#random.fraction() < 0.002;
    const faults = this.#faults();
    await Promise.all(Array.from({ length: WORKERS }, () => this.#worker(device, cache)));
    this.#isOver = true;
    await faults;
    this.#port.inject = undefined;
    this.#port.stall = undefined;
    this.#port.establish();
    await this.#read(device, 0, device.info.size);
    while (device.stagedBytes > 0) await sleep(this.#clock, 100);
    // The power goes, and the initiator with it: what the last good flush covered has to be on the medium.
    device.detach();
    await unit.close();
    if (this.#pool.bytesInUse !== 0) this.problems.push(`${this.#pool.bytesInUse} bytes of the pool leaked`);
    this.#port.loseCache();
    this.#checkDurable();
    this.problems.push(...this.#violations());
  }

  async #worker(device: CachedDevice, cache: BlockCache): Promise<void> {
    while (this.#remaining > 0) {
      this.#remaining--;
      const dice = this.#random.fraction();
      const { offset, length } = this.#range(device.info.size);
      if (dice < 0.15 && this.#scenario.punches === true) await this.#punch(device, offset, length);
      else if (dice < 0.45) await this.#write(device, offset, length);
      else if (dice < 0.9) await this.#read(device, offset, length);
      else await this.#flush(device);
      cache.checkInvariants();
      this.#checkWindow();
      if (this.#random.fraction() < 0.3) await sleep(this.#clock, this.#random.fraction() * 20);
    }
  }

  async #write(device: CachedDevice, offset: number, length: number): Promise<void> {
    const data = this.#random.bytes(length);
    const end = this.#history.begin(offset, data);
    if (device.stage !== undefined) {
      const waiting = device.stage(offset, data, (failure) => {
        if (failure === undefined) return;
        end('failed');
        this.#expectExcuse('write', failure.error);
      });
      if (waiting !== undefined && this.#random.fraction() < 0.1) waiting.giveUp();
      const isTaken = waiting === undefined || (await waiting.over);
      end(isTaken ? 'acknowledged' : 'failed');
      return;
    }
    try {
      // Without DPOFUA a forced write ends after its flush, when others may have written the range again.
      await device.write(offset, data, { fua: this.#scenario.dpoFua === true && this.#random.fraction() < 0.1 });
      end('acknowledged');
    } catch (error) {
      end('failed');
      this.#expectExcuse('write', error);
    }
  }

  async #punch(device: CachedDevice, offset: number, length: number): Promise<void> {
    const end = this.#history.begin(offset, new Uint8Array(length), 'zero');
    try {
      await device.zero(offset, length, { mayUnmap: true });
      end('acknowledged');
      this.punches++;
    } catch (error) {
      end('failed');
      this.#expectExcuse('write', error);
    }
  }

  async #read(device: CachedDevice, offset: number, length: number): Promise<void> {
    const since = this.#history.tick();
    try {
      const lease = await device.read(offset, length);
      const until = this.#history.tick();
      const seen = Buffer.concat(lease.segments);
      if (seen.length !== length) this.problems.push(`read ${seen.length} of ${length} bytes`);
      // Time may pass before the reader is done with the lease: its bytes must stay what they were.
      if (this.#random.fraction() < 0.2) await sleep(this.#clock, this.#random.fraction() * 10);
      if (!seen.equals(Buffer.concat(lease.segments))) this.problems.push(`a lease changed at ${offset}`);
      lease.release();
      const bad = this.#history.firstImpossible(offset, seen, since, until);
      if (bad !== undefined) this.problems.push(`a read of ${length} at ${offset} saw the impossible at ${bad}`);
      this.reads++;
    } catch (error) {
      this.#expectExcuse('read', error);
    }
  }

  async #flush(device: CachedDevice): Promise<void> {
    const asked = this.#history.tick();
    try {
      await device.flush();
      this.#durableSince = Math.max(this.#durableSince, asked);
      this.flushes++;
    } catch (error) {
      this.#expectExcuse('flush', error);
    }
  }

  /** What is shown must be what may be read at this moment. */
  #checkWindow(): void {
    const now = this.#history.tick();
    this.#window.forEach((offset, bytes) => {
      const bad = this.#history.firstImpossible(offset, bytes, now, now);
      if (bad !== undefined) this.problems.push(`the window shows the impossible at ${bad}`);
    });
  }

  /** Errors are allowed where the scenario gives a reason for them, and nowhere else. */
  #expectExcuse(what: string, error: unknown): void {
    const excuses = new Set<string>();
    if (this.#scenario.faults.includes('give-up')) excuses.add('recovery-timeout');
    if (this.#scenario.resets === 'unsupported' && what === 'write') excuses.add('connection-lost');
    const code = errorCode(error);
    if (!excuses.has(code)) this.problems.push(`${what} failed: ${code}: ${String(error)}`);
  }

  /**
   * Where nothing can be fenced, retained writes are written again all the same: an old write that
   * overtakes them is one that has failed, and leaves its range unknown.
   */
  #violations(): readonly string[] {
    const { violations } = this.#port;
    return this.#scenario.resets === 'unsupported' ? violations.filter((text) => !text.includes('fenced')) : violations;
  }

  #checkDurable(): void {
    const bad = this.#history.firstImpossible(0, this.#port.medium, this.#durableSince, this.#history.tick());
    if (bad !== undefined) this.problems.push(`after the power failure the medium does not hold what was flushed, at ${bad}`);
  }

  #range(size: number): { offset: number; length: number } {
    const { blockLength } = this.#scenario;
    const longest = this.#random.fraction() < 0.8 ? 4 * blockLength : Math.min(size, 40 * blockLength);
    const length = this.#random.between(1, longest);
    const offset = this.#random.between(0, size - length);
    if (this.#random.fraction() < 0.5) return { offset, length };
    const start = offset - (offset % blockLength);
    const whole = Math.max(blockLength, length - (length % blockLength));
    return { offset: Math.min(start, size - whole), length: whole };
  }

  #injection(opcode: number): Injection | undefined {
    const dice = this.#random.fraction();
    if (dice < 0.01) return { status: 0x08 };
    if (dice < 0.02) return { status: 0x28 };
    if (dice < 0.025) return check(0x0b, 0x47, 0x00);
    if (dice < 0.03 && isAccess(opcode)) return check(0x02, 0x04, 0x01);
    if (dice < 0.032 && opcode === 0x28) return { status: 0, transferred: 0 };
    return undefined;
  }

  async #faults(): Promise<void> {
    while (!this.#isOver) {
      await sleep(this.#clock, this.#random.fraction() * 300);
      switch (this.#scenario.faults[this.#random.between(0, this.#scenario.faults.length - 1)]) {
        case 'nexus-loss':
          this.#port.loseNexus();
          break;
        case 'crash':
          this.#port.crash();
          this.#checkDurable();
          break;
        case 'reset':
          this.#port.resetByOther();
          this.#checkDurable();
          break;
        case 'give-up':
          this.#port.loseNexus();
          if (this.#port.nexus === undefined) this.#port.giveUp();
          break;
        case undefined:
          return;
      }
    }
  }
}

function isAccess(opcode: number): boolean {
  return opcode === 0x28 || opcode === 0x2a || opcode === 0x93;
}
