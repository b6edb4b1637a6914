/** `iserfs target` as a process of its own, which can be killed and started again at the same ports. */

import { collectText, ended, GiveUp, type PipedChild, spawnGuarded, waitFor } from './child-process.ts';
import { cliPath } from './cli-process.ts';
import { freePort } from './ports.ts';

export interface TargetProcessOptions {
  /** What follows `iserfs target`, without where it listens. */
  readonly args: readonly string[];
  /** `beside`: at a port of its own beside TCP, `only`: without TCP. Default: TCP alone. */
  readonly iser?: 'beside' | 'only';
  readonly env?: NodeJS.ProcessEnv;
}

export class TargetProcess implements AsyncDisposable {
  readonly port: number;
  /** Undefined without TCP beside it. */
  readonly iserPort: number | undefined;
  readonly #options: TargetProcessOptions;
  #child: PipedChild | undefined;

  private constructor(options: TargetProcessOptions, port: number, iserPort: number | undefined) {
    this.#options = options;
    this.port = port;
    this.iserPort = iserPort;
  }

  /** Resolves when it listens. */
  static async start(options: TargetProcessOptions): Promise<TargetProcess> {
    const target = new TargetProcess(options, await freePort(), options.iser === 'beside' ? await freePort() : undefined);
    await target.start();
    return target;
  }

  /** Throws when it is not running. */
  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error('the target is not running');
    return this.#child.pid;
  }

  /** As `--portal` takes it. */
  get portal(): string {
    return `127.0.0.1:${this.port}${this.iserPort === undefined ? '' : `,iser-port=${this.iserPort}`}`;
  }

  /** After `kill`. */
  async start(): Promise<void> {
    const { args, iser, env } = this.#options;
    const where = ['--listen', `127.0.0.1:${this.port}`];
    if (iser === 'only') where.push('--transport', 'iwarp');
    if (this.iserPort !== undefined) where.push('--iser-port', String(this.iserPort));
    const child = spawnGuarded(process.execPath, [cliPath, 'target', ...where, ...args], env === undefined ? {} : { env });
    this.#child = child;
    const stderr = collectText(child.stderr);
    await waitFor(
      async () => {
        if (child.exitCode !== null) throw new GiveUp(`the target has ended\n${stderr.text}`);
        return stderr.text.includes('Mount it');
      },
      { withinMs: 10_000, what: `the target\n${stderr.text}` },
    );
  }

  /** The power is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    const gone = ended(child);
    child.kill('SIGKILL');
    await gone;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
