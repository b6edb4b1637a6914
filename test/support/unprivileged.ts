/**
 * Tests as a user without privileges, on machines whose /dev/fuse is for root alone: a private mount and process namespace in which
 * a /dev/fuse that everyone may open stands over the machine's, so that the setuid fusermount3 can mount for that user. Mounts
 * and processes live and die with the namespace, and that with the test process. The network is the machine's own.
 *
 * Entering needs root. Where the tests do not run as root they are that user already: `UnprivilegedSpace.isPossible` is false, and
 * the ordinary mount tests show the same.
 */

import { join } from 'node:path';
import {
  collectText,
  ended,
  GiveUp,
  type PipedChild,
  type RunOptions,
  type RunOutcome,
  run,
  spawnGuarded,
  waitFor,
} from './child-process.ts';
import { projectRoot } from './cli-process.ts';
import type { Workdir } from './workdir.ts';

/**
 *     await using space = await UnprivilegedSpace.create(workdir);
 *     const mountpoint = await space.folder('mnt');
 *     await space.run(space.node, [space.cli, 'mount', mountpoint, '--portal', tgtd.portal]);
 *     await space.run('ls', ['-l', mountpoint]);
 */
export class UnprivilegedSpace implements AsyncDisposable {
  /** This Node, the built command line and the checkout, at paths that every user may reach, whatever the checkout's own parents allow. */
  readonly node: string;
  readonly cli: string;
  readonly project: string;
  /** The user's home, writable by nobody else. */
  readonly home: string;
  readonly uid: number;
  readonly #holder: PipedChild;
  readonly #initPid: number;

  private constructor(root: string, uid: number, holder: PipedChild, initPid: number) {
    this.node = join(root, 'node');
    this.project = join(root, 'project');
    this.cli = join(this.project, 'dist', 'cli.js');
    this.home = join(root, 'home');
    this.uid = uid;
    this.#holder = holder;
    this.#initPid = initPid;
  }

  static get isPossible(): boolean {
    return process.getuid?.() === 0;
  }

  /** @param uid need not be in /etc/passwd; default 65534 (nobody) */
  static async create(workdir: Workdir, uid = 65_534): Promise<UnprivilegedSpace> {
    const root = workdir.folder('unprivileged');
    const namespaces = ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child'];
    const holder = spawnGuarded('unshare', [
      ...namespaces,
      'sh',
      '-c',
      HOLDER,
      'holder',
      root,
      String(uid),
      process.execPath,
      projectRoot,
    ]);
    holder.stdin.on('error', () => {});
    const stdout = collectText(holder.stdout);
    const stderr = collectText(holder.stderr);
    try {
      await waitFor(
        async () => {
          if (holder.exitCode !== null) throw new GiveUp(`no private namespace\n${stderr.text}`);
          return stdout.text.includes('ready');
        },
        { withinMs: 10_000, what: 'a private namespace' },
      );
      const children = await run('cat', [`/proc/${holder.pid}/task/${holder.pid}/children`]);
      return new UnprivilegedSpace(root, uid, holder, Number.parseInt(children.stdout, 10));
    } catch (error) {
      holder.kill('SIGKILL');
      throw error;
    }
  }

  /** Makes a folder that belongs to the user. It exists in the namespace only. */
  async folder(name: string): Promise<string> {
    const path = join(this.home, name);
    const outcome = await this.run('mkdir', ['-p', path]);
    if (outcome.status !== 0) throw new Error(outcome.stderr);
    return path;
  }

  /** Runs a command as the user in the namespace. What it leaves in the background stays until the end of the scope. */
  async run(command: string, args: readonly string[], options: Omit<RunOptions, 'cwd'> = {}): Promise<RunOutcome> {
    const enter = ['--target', String(this.#initPid), '--mount', '--pid', '--', 'sh', '-c', 'cd "$0" && exec "$@"', this.home];
    const become = ['setpriv', '--reuid', String(this.uid), '--regid', String(this.uid), '--clear-groups', '--'];
    const env = { ...(options.env ?? process.env), HOME: this.home, TMPDIR: this.home, USER: `uid${this.uid}` };
    for (const name of ['XDG_CONFIG_HOME', 'XDG_STATE_HOME', 'XDG_RUNTIME_DIR', 'XDG_CACHE_HOME'])
      delete env[name as keyof typeof env];
    return await run('nsenter', [...enter, ...become, command, ...args], { ...options, env });
  }

  /** Ends the namespace: its processes are killed and its mounts are gone when this resolves. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#holder.exitCode !== null || this.#holder.signalCode !== null) return;
    const gone = ended(this.#holder);
    this.#holder.stdin.end();
    await gone;
  }
}

/** The first process of the namespace: prepares it, then waits for the end of its input. Its own end kills all others in it. */
const HOLDER = `
set -eu
root=$1 uid=$2 node=$3 project=$4
mount -t proc proc /proc
mount -t tmpfs -o mode=755 none "$root"
mknod -m 666 "$root/fuse" c 10 229
mount --bind "$root/fuse" /dev/fuse
: >"$root/node"
mount --bind "$node" "$root/node"
mkdir "$root/project"
mount --bind "$project" "$root/project"
mkdir -m 700 "$root/home"
chown "$uid:$uid" "$root/home"
echo ready
read -r _ || true
`;
