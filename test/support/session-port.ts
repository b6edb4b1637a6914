/**
 * A port that is a real initiator, whose target is our own, in the same process, on a wire of its choice: data
 * movers, sessions and recovery are all there, and time is virtual. The wire is cut, the power of the target goes,
 * commands are answered with a status of the test's or sat upon.
 */

import { type Clock, sleep } from '../../src/clock.ts';
import { IserfsError } from '../../src/errors.ts';
import { createMemoryPair, type MemoryPair } from '../../src/iser/datamover/memory.ts';
import { Initiator } from '../../src/iser/initiator.ts';
import { IscsiTarget } from '../../src/iser/target.ts';
import type { ArenaSource } from '../../src/scsi/buffer-pool.ts';
import { BlockDeviceServer } from '../../src/scsi/device-server.ts';
import type {
  DeviceServer,
  Lun,
  PortEvent,
  ScsiCommand,
  ServerResult,
  ServerTask,
  StartedCommand,
  TaskManagementFunction,
} from '../../src/scsi/port.ts';
import { VolatileCacheMedium } from '../../src/scsi/volatile-cache-medium.ts';
import { createIserPair } from './iser-pair.ts';
import { Power } from './power.ts';
import type { Injection } from './scripted-port.ts';
import type { SeededRandom } from './seeded-random.ts';
import type { TorturedPort } from './torture-run.ts';

export interface SessionPortOptions {
  readonly clock: Clock;
  readonly random: SeededRandom;
  readonly blockLength: number;
  readonly blocks: number;
  /** The target can give space back. */
  readonly thin?: boolean;
  readonly transport: 'stream' | 'iser';
  /** How long a task takes to begin. */
  readonly latencyMs: () => number;
}

const TARGET_NAME = 'iqn.2026-01.io.iserfs.test:torture';
const ENDPOINT = { host: '127.0.0.1', port: 3260 };

export class SessionPort implements TorturedPort {
  readonly description = 'test target';
  readonly violations: readonly string[] = [];
  readonly medium: Uint8Array;
  readonly memory: ArenaSource | undefined;
  inject: ((command: ScsiCommand) => Injection | undefined) | undefined;
  stall: ((command: ScsiCommand) => boolean) | undefined;
  /** What initiator and target had to say. */
  readonly log: string[] = [];
  readonly #options: SessionPortOptions;
  readonly #link: MemoryPair;
  readonly #initiator: Promise<Initiator>;
  readonly #listeners = new Set<(event: PortEvent) => void>();
  #connected: Initiator | undefined;
  #power: Power;
  /** The target that listens, or will: one after the other. */
  #target: Promise<IscsiTarget>;

  constructor(options: SessionPortOptions) {
    this.#options = options;
    this.medium = new Uint8Array(options.blockLength * options.blocks);
    this.#power = new Power(this.medium, { isThin: this.#options.thin });
    const { clock } = options;
    if (options.transport === 'iser') {
      const pair = createIserPair({ clock, latencyMs: 1 });
      this.#link = pair;
      this.memory = pair.memory;
    } else {
      this.#link = createMemoryPair({ clock, latencyMs: 1 });
    }
    this.#target = this.#switchOn();
    this.#initiator = this.#connect();
  }

  get nexus(): number | undefined {
    return this.#connected?.nexus;
  }

  get transport(): string | undefined {
    return this.#connected?.status.transport;
  }

  subscribe(listener: (event: PortEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async established(): Promise<number> {
    return await (await this.#initiator).established();
  }

  start(command: StartedCommand): void {
    if (this.#connected === undefined) void this.#initiator.then((initiator) => initiator.start(command));
    else this.#connected.start(command);
  }

  async resetLogicalUnit(lun: Lun, nexus: number): Promise<void> {
    await (await this.#initiator).resetLogicalUnit(lun, nexus);
  }

  loseNexus(): void {
    this.#link.wire.cut();
  }

  /** The target loses power, and with it its connections and whatever its cache holds. */
  crash(): void {
    this.#link.wire.cut();
    this.loseCache();
  }

  loseCache(): void {
    this.#power.isOn = false;
    this.#power = new Power(this.medium, { isThin: this.#options.thin });
    const old = this.#target;
    this.#target = old.then(async (target) => {
      await target.close('abrupt');
      return await this.#switchOn();
    });
  }

  resetByOther(): void {
    throw new Error('not here');
  }

  giveUp(): void {
    throw new Error('not here');
  }

  /** It comes back by itself. */
  establish(): void {}

  /** Logs out; what is left over then. */
  async close(): Promise<{ readonly connections: number }> {
    await (await this.#initiator).logout();
    await (await this.#target).close('abrupt');
    return { connections: this.#link.wire.connectionCount };
  }

  async #connect(): Promise<Initiator> {
    const { clock, random } = this.#options;
    await this.#target;
    const initiator = await Initiator.connect({
      initiatorName: 'iqn.2026-01.io.iserfs.test:initiator',
      isid: 0x80_00_00_00_00_01,
      targetName: TARGET_NAME,
      portals: [ENDPOINT],
      transport: this.#link.initiator,
      loginTimeoutMs: 5000,
      commandTimeoutMs: 30_000,
      recoveryTimeoutMs: 120_000,
      keepaliveIntervalMs: 5000,
      keepaliveTimeoutMs: 5000,
      maxCommands: 32,
      clock,
      random: (length) => random.bytes(length),
      log: (line) => this.log.push(line),
    });
    this.#connected = initiator;
    initiator.subscribe((event) => {
      for (const listener of [...this.#listeners]) listener(event);
    });
    return initiator;
  }

  async #switchOn(): Promise<IscsiTarget> {
    const { clock, random, blockLength } = this.#options;
    const medium = new VolatileCacheMedium(this.#power);
    const server = new BlockDeviceServer({ units: [{ lun: 0, medium, blockLength, serial: 'S1' }] });
    return await IscsiTarget.listen({
      portals: [{ endpoint: ENDPOINT, transport: this.#link.target }],
      targets: [{ name: TARGET_NAME, deviceServer: new TroubledServer(server, (task) => this.#trouble(task)) }],
      clock,
      random: (length) => random.bytes(length),
      log: (line) => this.log.push(line),
    });
  }

  /** What becomes of a task before it begins. */
  async #trouble({ nexus, lun, cdb, signal }: ServerTask): Promise<ServerResult | undefined> {
    const command: ScsiCommand = { nexus, lun, cdb };
    const injected = this.inject?.(command);
    const isStalled = injected === undefined && this.stall?.(command) === true;
    await sleep(this.#options.clock, isStalled ? Number.MAX_SAFE_INTEGER : this.#options.latencyMs(), signal);
    if (injected === undefined) return undefined;
    return { status: injected.status, sense: injected.sense ?? new Uint8Array(0), transferLength: injected.transferred ?? 0 };
  }
}

/** A device server before which something may happen to each task. */
class TroubledServer implements DeviceServer {
  readonly #server: DeviceServer;
  readonly #trouble: (task: ServerTask) => Promise<ServerResult | undefined>;

  constructor(server: DeviceServer, trouble: (task: ServerTask) => Promise<ServerResult | undefined>) {
    this.#server = server;
    this.#trouble = trouble;
  }

  async execute(task: ServerTask): Promise<ServerResult> {
    if (task.signal.aborted) throw new IserfsError('aborted', 'the task was aborted');
    return (await this.#trouble(task)) ?? (await this.#server.execute(task));
  }

  nexusEstablished(nexus: number): void {
    this.#server.nexusEstablished(nexus);
  }

  nexusLost(nexus: number): void {
    this.#server.nexusLost(nexus);
  }

  reset(
    function_: Extract<TaskManagementFunction, 'logical-unit-reset' | 'target-warm-reset'>,
    lun: Lun,
    nexus: number,
  ): Promise<boolean> {
    return this.#server.reset(function_, lun, nexus);
  }

  hasLogicalUnit(lun: Lun): boolean {
    return this.#server.hasLogicalUnit(lun);
  }
}
