/**
 * Goes to the background. Node cannot fork, so the command starts a detached process that serves the
 * mount, hands it the settings through an inherited pipe (secrets must not stand in argv), and waits
 * on the same pipe for `ready` or `failed`. Only then does it say that there is a mount, after having
 * read the tree itself: it may, being another process than the one that serves it.
 *
 * The protocol on descriptor 3 is one JSON document per line: the settings down, `ServerMessage` up.
 * The pipe's end means to each side that the other is gone.
 */

import { spawn } from 'node:child_process';
import { type FileHandle, mkdtemp, open, rename, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { makeFolder } from '../config/folders.ts';
import { MUTUAL_SECRET_VARIABLE, SECRET_VARIABLE } from '../config/secrets.ts';
import type { MountSettings } from '../config/settings.ts';
import { type Environment, stateDirectory } from '../config/xdg.ts';
import { describeError, type ErrorCode, IserfsError, UsageError } from '../errors.ts';
import type { ReadyReport } from '../mount/mount.ts';
import { SeveralErrors } from '../several-errors.ts';
import { fileNameFor } from './mount-record.ts';

/** The descriptor of the pipe in the serving process. */
export const CHANNEL = 3;
/** A log larger than this starts anew; the one before is kept beside it. */
const MAX_LOG_BYTES = 4 * 1024 * 1024;

/** What the server process is told. */
export interface ServerOrders {
  readonly settings: MountSettings;
  readonly initiatorName: string;
  readonly log: string;
  /** The folder of the log where that is no good for longer than the mount: to be removed with it. */
  readonly temporaryFolder: string | undefined;
}

export type ServerMessage =
  | ({ readonly type: 'ready' } & ReadyReport)
  | {
      readonly type: 'failed';
      readonly code: ErrorCode;
      /** A `UsageError`, which has an exit status of its own. */
      readonly isUsage: boolean;
      /** One per cause. */
      readonly lines: readonly string[];
      readonly hint?: string;
    };

/**
 * Starts the server process and resolves when it reports a mount; it then lives on its own. Rejects
 * with what it reported, or says how it died. `signal` ends it again.
 */
export async function launch(
  orders: Omit<ServerOrders, 'log' | 'temporaryFolder'>,
  environment: Environment,
  signal: AbortSignal,
): Promise<ReadyReport & { readonly log: string }> {
  const { path: log, file, temporaryFolder } = await openLog(orders.settings.mountpoint, environment);
  const { [SECRET_VARIABLE]: _secret, [MUTUAL_SECRET_VARIABLE]: _mutual, ...rest } = environment;
  const child = spawn(process.execPath, [...process.execArgv, serverProgram(), orders.settings.mountpoint], {
    cwd: '/',
    detached: true, // a session of its own: it survives the terminal
    env: rest,
    stdio: ['ignore', file.fd, file.fd, 'pipe'],
  });
  // Listened to before anything is awaited: a process that cannot be started says so at once.
  const exited = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(describeError(error)));
    child.once('exit', (status, killer) => resolve(killer === null ? `exit status ${status}` : `killed by ${killer}`));
  });
  await file.close();
  const channel = child.stdio[CHANNEL] as Duplex;
  channel.on('error', () => {}); // its end is seen below
  channel.write(`${JSON.stringify({ ...orders, log, temporaryFolder } satisfies ServerOrders)}\n`);
  const onAbort = () => child.kill('SIGTERM');
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    const message = await firstMessage(channel);
    if (message?.type === 'ready') return { ...message, log };
    const end = await exited;
    if (signal.aborted) throw new IserfsError('aborted', 'interrupted; nothing is mounted');
    if (message === undefined) {
      throw new IserfsError('internal', `the process that serves the mount ended early (${end})`, { hint: `See ${log}` });
    }
    // What its log says is said here.
    if (temporaryFolder !== undefined) await rm(temporaryFolder, { recursive: true, force: true });
    if (message.isUsage) throw new UsageError(message.lines.join('; '), message.hint);
    throw new SeveralErrors(message.code, message.lines, message.hint);
  } finally {
    signal.removeEventListener('abort', onAbort);
    channel.destroy();
    child.unref();
  }
}

/** The serving process's own file, beside this one. */
function serverProgram(): string {
  return fileURLToPath(new URL('./mount-server.js', import.meta.url));
}

async function firstMessage(channel: Duplex): Promise<ServerMessage | undefined> {
  const lines = createInterface({ input: channel, crlfDelay: Number.POSITIVE_INFINITY });
  for await (const line of lines) return JSON.parse(line) as ServerMessage;
  return undefined;
}

/** The log of a mount, opened to be appended to; where the state folder cannot be written, in the folder for temporary files. */
async function openLog(
  mountpoint: string,
  environment: Environment,
): Promise<{
  path: string;
  file: FileHandle;
  temporaryFolder: string | undefined;
}> {
  const name = `${fileNameFor(mountpoint)}.log`;
  const inState = async () => {
    const folder = join(stateDirectory(environment), 'log');
    await makeFolder(folder);
    return { folder, temporaryFolder: undefined };
  };
  const inTemporary = async () => {
    const folder = await mkdtemp(join(tmpdir(), 'iserfs-')); // nobody else can have prepared it
    return { folder, temporaryFolder: folder };
  };
  let failure: unknown;
  for (const findFolder of [inState, inTemporary]) {
    try {
      const { folder, temporaryFolder } = await findFolder();
      const path = join(folder, name);
      const { size } = await stat(path).catch(() => ({ size: 0 }));
      if (size > MAX_LOG_BYTES) await rename(path, `${path}.1`);
      return { path, file: await open(path, 'a', 0o600), temporaryFolder };
    } catch (error) {
      failure = error;
    }
  }
  throw new IserfsError('mount-failed', `no log file can be written: ${describeError(failure)}`, {
    hint: 'Set XDG_STATE_HOME to a folder that you can write to, or use --foreground.',
  });
}
