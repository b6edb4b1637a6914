/**
 * Initiator and embedded target in one process, joined by a wire that tests can cut, delay and falsify, with one virtual clock
 * for everything that waits: hours of time-outs in milliseconds, and the same order of events at every run.
 */

import { createMemoryPair, type MemoryWire } from '../../src/iser/datamover/memory.ts';
import type { StreamOptions } from '../../src/iser/datamover/stream-options.ts';
import { Initiator, type InitiatorOptions } from '../../src/iser/initiator.ts';
import { IscsiTarget } from '../../src/iser/target.ts';
import { BlockDeviceServer } from '../../src/scsi/device-server.ts';
import { MemoryMedium } from '../../src/scsi/memory-medium.ts';
import type { PortEvent } from '../../src/scsi/port.ts';
import type { ServedUnitOptions } from '../../src/scsi/served-unit.ts';
import { createIserPair } from './iser-pair.ts';
import { listenMoved, type MovedPortal } from './moved-portal.ts';
import { SeededRandom } from './seeded-random.ts';
import { VirtualClock } from './virtual-clock.ts';

export const TARGET_NAME = 'iqn.2026-01.io.iserfs.test:pair';
const STEP_MS = 10;

export interface PairOptions {
  readonly units?: readonly ServedUnitOptions[];
  readonly latencyMs?: number;
  readonly initiator?: Partial<InitiatorOptions>;
  /** What carries PDUs: a stream of bytes as on TCP, or RDMA inside the process. */
  readonly transport?: 'stream' | 'iser';
  /** For the stream. */
  readonly stream?: Partial<StreamOptions>;
  /** The initiator knows only a portal that the target has moved away from; `in-circles`: that refers to itself. */
  readonly moved?: 'temporarily' | 'permanently' | 'in-circles';
}

export class Pair {
  readonly clock: VirtualClock;
  readonly wire: MemoryWire;
  readonly target: IscsiTarget;
  readonly initiator: Initiator;
  /** Where the target was before it moved. */
  readonly movedPortal: MovedPortal | undefined;
  /** What the initiator's port told, in order. */
  readonly events: PortEvent[] = [];
  readonly log: string[];

  private constructor(parts: Pick<Pair, 'clock' | 'wire' | 'target' | 'initiator' | 'movedPortal' | 'log'>) {
    this.clock = parts.clock;
    this.wire = parts.wire;
    this.target = parts.target;
    this.initiator = parts.initiator;
    this.movedPortal = parts.movedPortal;
    this.log = parts.log;
    this.initiator.subscribe((event) => this.events.push(event));
  }

  static async connect(options: PairOptions = {}): Promise<Pair> {
    const clock = new VirtualClock();
    const { stream = {}, latencyMs = 1 } = options;
    const link =
      options.transport === 'iser'
        ? createIserPair({ clock, latencyMs })
        : createMemoryPair({ clock, latencyMs, initiatorOptions: stream, targetOptions: stream });
    const log: string[] = [];
    const random = new SeededRandom(1);
    const bytes = (length: number) => random.bytes(length);
    const units = options.units ?? [{ lun: 0, medium: new MemoryMedium(1024 * 1024), blockLength: 512, serial: 'pair-0' }];
    const target = await IscsiTarget.listen({
      portals: [{ endpoint: { host: '127.0.0.1', port: 3260 }, transport: link.target }],
      targets: [{ name: TARGET_NAME, deviceServer: new BlockDeviceServer({ units }) }],
      clock,
      random: bytes,
      log: (line) => log.push(line),
    });
    const { moved } = options;
    const portal = { host: '127.0.0.1', port: 3261 };
    const movedPortal =
      moved === undefined
        ? undefined
        : await listenMoved(link.target, {
            portal,
            to: moved === 'in-circles' ? portal : target.endpoint,
            permanently: moved === 'permanently',
          });
    const connecting = Initiator.connect({
      initiatorName: 'iqn.2026-01.io.iserfs.test:initiator',
      isid: 0x80_00_00_00_00_01,
      targetName: TARGET_NAME,
      portals: [movedPortal?.portal ?? target.endpoint],
      transport: link.initiator,
      loginTimeoutMs: 5000,
      commandTimeoutMs: 30_000,
      recoveryTimeoutMs: 120_000,
      keepaliveIntervalMs: 5000,
      keepaliveTimeoutMs: 5000,
      maxCommands: 128,
      clock,
      random: bytes,
      log: (line) => log.push(line),
      ...options.initiator,
    });
    const initiator = await Pair.#drive(clock, connecting);
    return new Pair({ clock, wire: link.wire, target, initiator, movedPortal, log });
  }

  /** Lets time pass, at most `withinMs`, until `promise` settles; then everything else that is due. */
  drive<T>(promise: Promise<T>, withinMs?: number): Promise<T> {
    return Pair.#drive(this.clock, promise, withinMs);
  }

  /** Nothing is left over: no connection, no timer. */
  async close(): Promise<{ connections: number; timers: number }> {
    await this.drive(this.initiator.logout());
    await this.drive(this.target.close('abrupt'));
    await this.clock.advance(1000);
    return { connections: this.wire.connectionCount, timers: this.clock.pendingTimers };
  }

  static async #drive<T>(clock: VirtualClock, promise: Promise<T>, withinMs = 600_000): Promise<T> {
    let settled = false;
    const mark = () => {
      settled = true;
    };
    promise.then(mark, mark);
    const end = clock.now() + withinMs;
    while (!settled) {
      if (clock.now() >= end) throw new Error(`not settled within ${withinMs} ms of virtual time`);
      await clock.advance(STEP_MS);
    }
    return await promise;
  }
}
