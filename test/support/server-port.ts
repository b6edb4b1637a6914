/**
 * A port whose target is our own device server with a volatile cache before a medium in memory, without
 * a wire: tasks take virtual time, sessions break, the power goes. A target that does not wait for the
 * tasks of a lost session is imitated too: writes that had not begun may be executed long after.
 */

import type { Clock } from '../../src/clock.ts';
import { IserfsError, NexusLostError } from '../../src/errors.ts';
import { BlockDeviceServer } from '../../src/scsi/device-server.ts';
import type { Lun, PortEvent, ScsiCommand, ScsiPort, ScsiResult, ServerTask, StartedCommand } from '../../src/scsi/port.ts';
import { VolatileCacheMedium } from '../../src/scsi/volatile-cache-medium.ts';
import { Power } from './power.ts';
import type { Injection } from './scripted-port.ts';
import { tellCommand } from './started-command.ts';

export interface ServerPortOptions {
  readonly clock: Clock;
  readonly random: () => number;
  readonly blockLength: number;
  readonly blocks: number;
  /** The target can give space back. */
  readonly thin?: boolean;
  readonly latencyMs: () => number;
  readonly reconnectMs: () => number;
  /** How long after the loss of its session a write that had not begun is executed; undefined: never. */
  readonly lateMs: () => number | undefined;
}

interface Task {
  readonly command: ScsiCommand;
  readonly abort: AbortController;
  data: Uint8Array | undefined;
  begun: boolean;
  cancel: () => void;
  settle(outcome: ScsiResult | Error): void;
}

export class ServerPort implements ScsiPort {
  readonly description = 'test target';
  readonly violations: string[] = [];
  readonly medium: Uint8Array;
  inject: ((command: ScsiCommand) => Injection | undefined) | undefined;
  stall: ((command: ScsiCommand) => boolean) | undefined;
  readonly #options: ServerPortOptions;
  readonly #listeners = new Set<(event: PortEvent) => void>();
  readonly #waiting: { resolve: (nexus: number) => void; reject: (reason: Error) => void }[] = [];
  readonly #tasks = new Set<Task>();
  readonly #zombies = new Set<Task>();
  #power: Power;
  #server: BlockDeviceServer;
  #nexus: number | undefined = 1;
  #lastNexus = 1;

  constructor(options: ServerPortOptions) {
    this.#options = options;
    this.medium = new Uint8Array(options.blockLength * options.blocks);
    this.#power = new Power(this.medium, { isThin: this.#options.thin });
    this.#server = this.#switchOn();
    this.#server.nexusEstablished(1);
  }

  get nexus(): number | undefined {
    return this.#nexus;
  }

  subscribe(listener: (event: PortEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  established(): Promise<number> {
    if (this.#nexus !== undefined) return Promise.resolve(this.#nexus);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  start(command: StartedCommand): void {
    const { nexus } = command;
    if (nexus !== this.#nexus) {
      tellCommand(command, Promise.reject(new NexusLostError('another nexus by now', { mayHaveExecuted: false })));
      return;
    }
    const task: Task = {
      command,
      abort: new AbortController(),
      data: undefined,
      begun: false,
      cancel: () => {},
      settle: (outcome) => {
        if (!this.#tasks.delete(task)) return;
        if (outcome instanceof Error) command.failed(outcome);
        else command.ended(outcome);
      },
    };
    this.#tasks.add(task);
    command.signal?.addEventListener('abort', () => {
      task.cancel();
      task.abort.abort();
      task.settle(new IserfsError('aborted', 'aborted by the test'));
    });
    const injected = this.inject?.(command);
    if (injected !== undefined) {
      const result = {
        status: injected.status,
        sense: injected.sense ?? new Uint8Array(0),
        transferred: injected.transferred ?? 0,
      };
      this.#after(task, () => task.settle(result));
    } else if (this.stall?.(command) === true) {
      const stalled = () => task.settle(new IserfsError('command-timeout', 'no status in time; the task is aborted'));
      task.cancel = this.#options.clock.schedule(command.timeoutMs ?? 30_000, stalled);
    } else this.#after(task, () => void this.#run(task, nexus));
  }

  async resetLogicalUnit(lun: Lun, nexus: number): Promise<void> {
    if (nexus !== this.#nexus) throw new NexusLostError('another nexus by now', { mayHaveExecuted: false });
    this.#forgetZombies();
    await this.#server.reset('logical-unit-reset', lun, nexus);
  }

  loseNexus(): void {
    const lost = this.#nexus;
    if (lost === undefined) return;
    this.#nexus = undefined;
    for (const listener of [...this.#listeners])
      listener({ type: 'nexus-lost', nexus: lost, reason: new Error('the session was lost') });
    for (const task of [...this.#tasks]) {
      task.cancel();
      const lateMs = task.begun || task.command.dataOut === undefined ? undefined : this.#options.lateMs();
      if (lateMs !== undefined) {
        task.data = Uint8Array.from(task.command.dataOut ?? []);
        this.#zombies.add(task);
        task.cancel = this.#options.clock.schedule(lateMs, () => {
          this.#zombies.delete(task);
          void this.#run(task, lost);
        });
      } else task.abort.abort();
      task.settle(new NexusLostError('the session was lost', { mayHaveExecuted: true }));
    }
    this.#server.nexusLost(lost);
    this.#options.clock.schedule(this.#options.reconnectMs(), () => this.establish());
  }

  /** The target loses power, and with it whatever its cache holds. */
  crash(): void {
    this.#forgetZombies();
    this.loseCache();
    this.loseNexus();
    this.#forgetZombies();
  }

  loseCache(): void {
    this.#power.isOn = false;
    this.#power = new Power(this.medium, { isThin: this.#options.thin });
    this.#server = this.#switchOn();
    if (this.#nexus !== undefined) this.#server.nexusEstablished(this.#nexus);
  }

  resetByOther(): void {
    throw new Error('not here');
  }

  giveUp(): void {
    throw new Error('not here');
  }

  establish(): void {
    if (this.#nexus !== undefined) return;
    this.#lastNexus++;
    this.#nexus = this.#lastNexus;
    this.#server.nexusEstablished(this.#nexus);
    for (const listener of [...this.#listeners]) listener({ type: 'nexus-established', nexus: this.#nexus });
    for (const { resolve } of this.#waiting.splice(0)) resolve(this.#nexus);
  }

  #switchOn(): BlockDeviceServer {
    const medium = new VolatileCacheMedium(this.#power);
    return new BlockDeviceServer({ units: [{ lun: 0, medium, blockLength: this.#options.blockLength, serial: 'S1' }] });
  }

  #forgetZombies(): void {
    for (const zombie of this.#zombies) zombie.cancel();
    this.#zombies.clear();
  }

  async #run(task: Task, nexus: number): Promise<void> {
    task.begun = true;
    const { lun, cdb, dataIn } = task.command;
    const dataOut = task.data ?? task.command.dataOut;
    let moved = 0;
    const server = this.#server;
    const serverTask: ServerTask = {
      nexus,
      lun,
      cdb: paddedTo16(cdb),
      expectedDataTransferLength: (dataIn ?? dataOut)?.length ?? 0,
      get isAborted() {
        return task.abort.signal.aborted;
      },
      signal: task.abort.signal,
      sendDataIn: async (offset, data) => {
        if (task.abort.signal.aborted) throw new NexusLostError('the session was lost', { mayHaveExecuted: true });
        dataIn?.set(data.subarray(0, dataIn.length - offset), offset);
        moved = Math.min(dataIn?.length ?? 0, offset + data.length);
      },
      receiveDataOut: async (offset, into) => {
        if (task.abort.signal.aborted) throw new NexusLostError('the session was lost', { mayHaveExecuted: true });
        into.set(dataOut?.subarray(offset, offset + into.length) ?? []);
        moved = offset + into.length;
      },
    };
    const { status, sense } = await server.execute(serverTask);
    if (this.#tasks.has(task)) this.#after(task, () => task.settle({ status, sense, transferred: moved }));
  }

  #after(task: Task, callback: () => void): void {
    task.cancel = this.#options.clock.schedule(this.#options.latencyMs(), callback);
  }
}

/** iSCSI hands every CDB over in 16 bytes. */
function paddedTo16(cdb: Uint8Array): Uint8Array {
  const padded = new Uint8Array(16);
  padded.set(cdb);
  return padded;
}
