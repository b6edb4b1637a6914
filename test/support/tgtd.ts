/**
 * A private tgtd (Debian package tgt): a real iSCSI target that tests can fill, stall, kill and restart. It listens on a loopback
 * port of its own and is administered through a socket of its own (`TGT_IPC_SOCKET`), so it runs beside the machine's and beside
 * other tests', and without root. tgtd keeps nothing on disk: after a restart the same targets are made again.
 *
 * Known of tgtd 1.0.85: LUN 0 is its controller, data LUNs count from 1; it ignores SIGTERM while it has targets; it reports a
 * UNIT ATTENTION 29/00 at every login; a new login with the same ISID does not wait for the old session's tasks.
 */

import { connect } from 'node:net';
import { collectText, ended, GiveUp, type PipedChild, type RunOutcome, run, spawnGuarded, waitFor } from './child-process.ts';
import { freePort } from './ports.ts';
import { Workdir } from './workdir.ts';

export interface TgtdLunOptions {
  /** Bytes of a new sparse backing file; or give `path`. */
  readonly size?: number;
  /** An existing backing file. */
  readonly path?: string;
  /** Default: the next free number, from 1. */
  readonly lun?: number;
  /** Default 512. */
  readonly blockLength?: 512 | 4096;
  readonly readOnly?: boolean;
  /** More of tgtadm's `--params`: `vendor_id`, `product_id`, `product_rev`, `scsi_sn`, `scsi_id`, `thin_provisioning`, … */
  readonly parameters?: Readonly<Record<string, string>>;
}

export interface TgtdAccount {
  readonly user: string;
  readonly secret: string;
}

export interface TgtdTargetOptions {
  /** Default: an iqn made of a counter. */
  readonly name?: string;
  readonly luns?: readonly TgtdLunOptions[];
  /** CHAP: what an initiator must prove; `mutual` is what the target proves in return. */
  readonly chap?: TgtdAccount & { readonly mutual?: TgtdAccount };
  /** Login keys that tgtd offers: `MaxRecvDataSegmentLength`, `HeaderDigest`, `ImmediateData`, `InitialR2T`, `MaxBurstLength`, … */
  readonly keys?: Readonly<Record<string, string | number>>;
  /** Initiator addresses that may log in. Default: all. */
  readonly initiatorAddresses?: readonly string[];
}

export interface TgtdLun {
  readonly lun: number;
  /** The backing file: what a mount shows must be its bytes. */
  readonly path: string;
  readonly blockLength: 512 | 4096;
}

export interface TgtdTarget {
  readonly name: string;
  readonly tid: number;
  readonly luns: readonly TgtdLun[];
}

export interface TgtdSession {
  readonly initiator: string;
  readonly sid: number;
  readonly cids: readonly number[];
}

/**
 *     await using tgtd = await Tgtd.start();
 *     const target = await tgtd.addTarget({ luns: [{ size: 512 * MiB }, { size: 3 * TiB, blockLength: 4096 }] });
 *     …`--portal ${tgtd.portal}`, target.name, target.luns[0].path…
 *     await tgtd.kill(); await tgtd.restart();
 */
export class Tgtd implements AsyncDisposable {
  readonly port: number;
  readonly #workdir = Workdir.create();
  readonly #steps: (readonly string[])[] = [];
  readonly #targets = new Map<number, { readonly name: string; readonly luns: TgtdLun[] }>();
  readonly #accounts = new Map<string, string>();
  #nextTid = 1;
  #child: PipedChild | undefined;
  #output: { readonly text: string } = { text: '' };

  private constructor(port: number) {
    this.port = port;
  }

  static async start(): Promise<Tgtd> {
    for (let attempt = 1; ; attempt++) {
      const tgtd = new Tgtd(await freePort());
      try {
        await tgtd.#launch();
        return tgtd;
      } catch (error) {
        await tgtd[Symbol.asyncDispose]();
        if (attempt === 3) throw error; // else: somebody took the port in between
      }
    }
  }

  /** `127.0.0.1:PORT` */
  get portal(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** Throws when it is not running. */
  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error('tgtd is not running');
    return this.#child.pid;
  }

  /** What the daemon said since it was started last. */
  get log(): string {
    return this.#output.text;
  }

  async addTarget(options: TgtdTargetOptions = {}): Promise<TgtdTarget> {
    const tid = this.#nextTid++;
    const name = options.name ?? `iqn.2026-01.io.iserfs.test:disk${tid}`;
    const target = { name, luns: [] as TgtdLun[] };
    this.#targets.set(tid, target);
    await this.#apply(['--mode', 'target', '--op', 'new', '--tid', String(tid), '--targetname', name]);
    for (const [key, value] of Object.entries(options.keys ?? {})) {
      await this.#apply([...onTarget('update', tid), '--name', key, '--value', String(value)]);
    }
    for (const lun of options.luns ?? []) await this.addLun({ tid }, lun);
    const { chap } = options;
    if (chap !== undefined) await this.#addAccount(tid, chap, []);
    if (chap?.mutual !== undefined) await this.#addAccount(tid, chap.mutual, ['--outgoing']);
    for (const address of options.initiatorAddresses ?? ['ALL']) {
      await this.#apply([...onTarget('bind', tid), '--initiator-address', address]);
    }
    return { name, tid, luns: target.luns };
  }

  async addLun({ tid }: Pick<TgtdTarget, 'tid'>, options: TgtdLunOptions): Promise<TgtdLun> {
    const target = this.#targets.get(tid);
    if (target === undefined) throw new Error(`no target ${tid}`);
    const lun = options.lun ?? Math.max(0, ...target.luns.map((other) => other.lun)) + 1;
    const { blockLength = 512 } = options;
    const path = options.path ?? this.#workdir.sparseFile(`target${tid}-lun${lun}`, options.size ?? 0);
    const unit = ['--tid', String(tid), '--lun', String(lun)];
    const format = ['--backing-store', path, '--blocksize', String(blockLength)];
    await this.#apply(['--mode', 'logicalunit', '--op', 'new', ...unit, ...format]);
    const parameters = { ...(options.readOnly ? { readonly: '1' } : {}), ...options.parameters };
    for (const [key, value] of Object.entries(parameters)) {
      await this.#apply(['--mode', 'logicalunit', '--op', 'update', ...unit, '--params', `${key}=${value}`]);
    }
    const added = { lun, path, blockLength };
    target.luns.push(added);
    return added;
  }

  /** Takes a LUN away while the daemon runs; its backing file stays. */
  async removeLun({ tid }: Pick<TgtdTarget, 'tid'>, lun: number): Promise<void> {
    await this.#apply(['--mode', 'logicalunit', '--op', 'delete', '--tid', String(tid), '--lun', String(lun)]);
    const luns = this.#targets.get(tid)?.luns ?? [];
    const index = luns.findIndex((other) => other.lun === lun);
    if (index >= 0) luns.splice(index, 1);
  }

  /** The sessions that are logged in to a target. */
  async sessions({ tid }: Pick<TgtdTarget, 'tid'>): Promise<TgtdSession[]> {
    const shown = await this.#administer(['--mode', 'conn', '--op', 'show', '--tid', String(tid)]);
    const sessions: { sid: number; initiator: string; cids: number[] }[] = [];
    for (const line of shown.split('\n')) {
      const [, field, value = ''] = /^\s*(Session|Connection|Initiator):\s*(\S*)/.exec(line) ?? [];
      const last = sessions.at(-1);
      if (field === 'Session') sessions.push({ sid: Number(value), initiator: '', cids: [] });
      else if (field === 'Connection') last?.cids.push(Number(value));
      else if (field === 'Initiator' && last !== undefined) last.initiator = value;
    }
    return sessions;
  }

  /** Closes every connection to a target from the target's side; the initiators may log in again at once. */
  async dropConnections({ tid }: Pick<TgtdTarget, 'tid'>): Promise<void> {
    for (const { sid, cids } of await this.sessions({ tid })) {
      for (const cid of cids) {
        await this.#administer([
          '--mode',
          'conn',
          '--op',
          'delete',
          '--tid',
          String(tid),
          '--sid',
          String(sid),
          '--cid',
          String(cid),
        ]);
      }
    }
  }

  /** Stops the daemon in its tracks (SIGSTOP): connections stay up and nothing is answered. */
  stall(): void {
    this.#signal('SIGSTOP');
  }

  /** Lets a stalled daemon go on. */
  resume(): void {
    this.#signal('SIGCONT');
  }

  /** `kill -9`: connections are reset, what tgtd had not written is lost. Resolves when it is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    const gone = ended(child);
    child.kill('SIGKILL');
    await gone;
  }

  /** Starts it again on the same port with the same targets (after `kill`, or kills it first). */
  async restart(): Promise<void> {
    await this.kill();
    await this.#launch();
    for (const step of this.#steps) await this.#administer(step);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await this.#workdir[Symbol.asyncDispose]();
  }

  async #launch(): Promise<void> {
    const child = spawnGuarded('tgtd', ['--foreground', '--control-port', CONTROL_PORT, '--iscsi', `portal=${this.portal}`], {
      env: this.#env,
    });
    this.#child = child;
    const stdout = collectText(child.stdout);
    const stderr = collectText(child.stderr);
    this.#output = {
      get text() {
        return stdout.text + stderr.text;
      },
    };
    let failure: Error | undefined;
    child.once('error', (error) => {
      failure = error;
    });
    await waitFor(
      async () => {
        if (failure !== undefined || child.exitCode !== null) {
          throw new GiveUp(`tgtd did not start (npm test installs it)\n${this.log}`, { cause: failure });
        }
        await this.#administer(['--mode', 'target', '--op', 'show']);
        return await answers(this.port);
      },
      { withinMs: 10_000, what: 'tgtd to be ready' },
    );
  }

  async #addAccount(tid: number, { user, secret }: TgtdAccount, direction: readonly string[]): Promise<void> {
    const known = this.#accounts.get(user);
    if (known !== undefined && known !== secret) throw new Error(`tgtd has one secret per user, and another one for ${user}`);
    if (known === undefined) await this.#apply(['--mode', 'account', '--op', 'new', '--user', user, '--password', secret]);
    this.#accounts.set(user, secret);
    await this.#apply(['--mode', 'account', '--op', 'bind', '--tid', String(tid), '--user', user, ...direction]);
  }

  /** Administers, and remembers it for a restart. */
  async #apply(step: readonly string[]): Promise<void> {
    await this.#administer(step);
    this.#steps.push(step);
  }

  async #administer(args: readonly string[]): Promise<string> {
    const all = ['--control-port', CONTROL_PORT, '--lld', 'iscsi', ...args];
    const outcome: RunOutcome = await run('tgtadm', all, { env: this.#env, timeoutMs: 10_000 });
    if (outcome.status !== 0)
      throw new Error(`tgtadm ${args.join(' ')}: ${outcome.stderr.trim() || outcome.signal}\n${this.log}`);
    return outcome.stdout;
  }

  get #env(): NodeJS.ProcessEnv {
    return { ...process.env, TGT_IPC_SOCKET: this.#workdir.join('control') };
  }

  #signal(signal: NodeJS.Signals): void {
    if (this.#child === undefined) throw new Error('tgtd is not running');
    this.#child.kill(signal);
  }
}

/** The socket's folder tells the daemons apart, not this number. */
const CONTROL_PORT = '1';

function onTarget(operation: string, tid: number): readonly string[] {
  return ['--mode', 'target', '--op', operation, '--tid', String(tid)];
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
