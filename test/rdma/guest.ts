/**
 * A machine with real RDMA devices, emulated by QEMU without KVM: booted for the tests, driven by scripts, powered off at the end
 * of the scope, whatever happened. It reaches nothing outside itself; single ports of it are reachable on this machine's loopback.
 *
 *     await using guest = await Guest.boot(image, stage, { forwards: [3260] });
 *     const size = await guest.checked('blockdev --getsize64 /dev/sda');
 */

import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { collectText, ended, GiveUp, type PipedChild, spawnGuarded, waitFor } from '../support/child-process.ts';
import { projectRoot } from '../support/cli-process.ts';
import { freePort } from '../support/ports.ts';
import { Workdir } from '../support/workdir.ts';
import type { GuestImage } from './image/build.ts';
import { type Machine, type ScriptOptions, type ScriptOutcome, withPause } from './machine.ts';
import type { Stage } from './stage.ts';

export interface BootOptions {
  /** TCP ports of the guest that this machine may connect to. */
  readonly forwards?: readonly number[];
}

const agentPort = 7;
const bootWithinMs = 120_000;

export class Guest implements Machine, AsyncDisposable {
  /** The command line, there. */
  readonly cliPath: string;
  /** The staged project, there. */
  readonly projectFolder: string;
  readonly #qemu: PipedChild;
  readonly #qemuErrors: { readonly text: string };
  readonly #ended: Promise<unknown>;
  readonly #workdir: Workdir;
  /** This machine's loopback port of each forwarded port of the guest. */
  readonly #forwards: ReadonlyMap<number, number>;

  private constructor(image: GuestImage, stage: Stage, workdir: Workdir, forwards: ReadonlyMap<number, number>) {
    this.cliPath = stage.cliPath;
    this.projectFolder = stage.projectFolder;
    this.#workdir = workdir;
    this.#forwards = forwards;
    this.#qemu = spawnGuarded('qemu-system-x86_64', qemuArguments(image, stage, workdir, forwards));
    this.#qemuErrors = collectText(this.#qemu.stderr);
    this.#ended = ended(this.#qemu).catch(() => {});
  }

  /** Boots it, with the project's folder and the stage's at the same paths and read-only. Takes about four seconds of an idle machine. */
  static async boot(image: GuestImage, stage: Stage, { forwards = [] }: BootOptions = {}): Promise<Guest> {
    const ports = new Map<number, number>();
    for (const port of [agentPort, ...forwards]) ports.set(port, await freePort());
    const guest = new Guest(image, stage, Workdir.create(), ports);
    try {
      await waitFor(async () => guest.#isReady(), { withinMs: bootWithinMs, everyMs: 50, what: 'the guest to boot' });
      return guest;
    } catch (error) {
      const console = guest.console();
      await guest[Symbol.asyncDispose]();
      throw new Error(`the guest did not boot: ${guest.#qemuErrors.text}\n${console}`, { cause: error });
    }
  }

  /** Where `port` of the guest is on this machine: `127.0.0.1:PORT`. */
  portal(port: number): string {
    const forwarded = this.#forwards.get(port);
    if (forwarded === undefined) throw new Error(`port ${port} of the guest is not forwarded`);
    return `127.0.0.1:${forwarded}`;
  }

  /** What the guest's kernel said, newest last. */
  console(): string {
    try {
      return readFileSync(this.#consolePath, 'utf8');
    } catch {
      return ''; // QEMU did not get that far
    }
  }

  run(script: string, { timeoutMs = 120_000 }: ScriptOptions = {}): Promise<ScriptOutcome> {
    const [host, port] = this.portal(agentPort).split(':');
    return new Promise((resolve, reject) => {
      const text = Buffer.from(`${withPause(script)}\n`);
      const seconds = Math.ceil(timeoutMs / 1000);
      const socket = connect({ host: host ?? '', port: Number(port) });
      // The guest has its own limit; this one is for a guest that is stuck altogether.
      const timer = setTimeout(() => socket.destroy(new Error(`the guest does not answer: ${script}`)), timeoutMs + 30_000);
      const chunks: Buffer[] = [];
      const settle = () => {
        clearTimeout(timer);
        const output = Buffer.concat(chunks).toString();
        const end = output.lastIndexOf('\0');
        if (end < 0) reject(new Error(`the guest dropped a command: ${script}\n${output}`));
        else resolve({ output: output.slice(0, end), status: Number(output.slice(end + 1)) });
      };
      socket.on('data', (chunk) => chunks.push(chunk));
      socket.once('error', (error) => {
        clearTimeout(timer);
        reject(error);
      });
      socket.once('end', settle);
      socket.write(`${text.length} ${seconds}\n`);
      socket.write(text);
    });
  }

  async checked(script: string, options: ScriptOptions = {}): Promise<string> {
    const { status, output } = await this.run(script, options);
    if (status !== 0)
      throw new Error(`${script}: exit status ${status}${status === 124 ? ' (time limit)' : ''}\n${output.trim()}`);
    return output;
  }

  /** Powers it off; kills it where that does not work within a few seconds. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isRunning) {
      await this.run('busybox poweroff -f', { timeoutMs: 2000 }).catch(() => {}); // the answer is the end of the connection
      await waitFor(async () => !this.#isRunning, { withinMs: 10_000, what: 'the guest to power off' }).catch(() =>
        this.#qemu.kill('SIGKILL'),
      );
    }
    await this.#ended;
    await this.#workdir[Symbol.asyncDispose]();
  }

  get #isRunning(): boolean {
    return this.#qemu.exitCode === null && this.#qemu.signalCode === null;
  }

  get #consolePath(): string {
    return this.#workdir.join('console');
  }

  async #isReady(): Promise<boolean> {
    if (!this.#isRunning) throw new GiveUp('QEMU has ended');
    return this.console().includes('guest-agent: ready') && (await this.run('true')).status === 0;
  }
}

function qemuArguments(image: GuestImage, stage: Stage, workdir: Workdir, forwards: ReadonlyMap<number, number>): string[] {
  const shares = [
    ['project', projectRoot],
    ['stage', stage.folder],
  ];
  const kernelLine = [
    'console=ttyS0 quiet loglevel=5 panic=-1 mitigations=off nokaslr tsc=unstable no_timer_check cryptomgr.notests random.trust_cpu=on',
    ...shares.map(([tag, path]) => `share=${tag}:${path}:ro`),
  ];
  const network = [...forwards].map(([inside, outside]) => `,hostfwd=tcp:127.0.0.1:${outside}-:${inside}`);
  return [
    ...['-accel', 'tcg,thread=multi', '-machine', 'q35', '-cpu', 'Nehalem', '-smp', '2', '-m', '2G'],
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
    ...['-kernel', image.kernel, '-initrd', image.initramfs, '-append', kernelLine.join(' ')],
    ...['-serial', `file:${workdir.join('console')}`],
    ...['-drive', `file=${image.root},format=raw,if=none,id=root,readonly=on`, '-device', 'virtio-blk-pci,drive=root'],
    ...['-netdev', `user,id=net,restrict=on${network.join('')}`, '-device', 'virtio-net-pci,netdev=net,romfile='],
    ...['-device', 'virtio-rng-pci'],
    ...shares.flatMap(([tag, path]) => [
      '-virtfs',
      `local,path=${path},mount_tag=${tag},security_model=none,multidevs=remap,readonly=on`,
    ]),
  ];
}
