/**
 * `iserfs umount`: ends a mount and waits until its server has put everything on the targets' stable
 * storage and logged out, so that success means that the data is there.
 */

import { sleep, systemClock } from '../../clock.ts';
import { formatDuration } from '../../config/quantity.ts';
import { errorCode, IserfsError } from '../../errors.ts';
import { umount } from '../../fuse/mountpoint.ts';
import { findHolders } from '../mount-holders.ts';
import { findMountOf, presentMount, readMountStatus } from '../mount-reader.ts';
import { isServing, isStopped, type MountRecord, MountRecords, processStart } from '../mount-record.ts';
import { EXIT_OK } from '../output.ts';
import type { CommandContext } from './context.ts';

export interface UmountArguments {
  readonly mountpoint: string;
  readonly lazy: boolean;
  readonly force: boolean;
  readonly timeoutMs: number;
}

const POLL_MS = 50;
/** How long a server that is to be ended has after the first signal, and after the second. */
const ASKED_MS = 1000;
const INSISTED_MS = 5000;
/** Say that it takes time, after this. */
const SAY_AFTER_MS = 2000;

export async function runUmount(args: UmountArguments, context: CommandContext): Promise<number> {
  const { output, environment } = context;
  const mountpoint = await presentMount(args.mountpoint, 'umount');
  const records = new MountRecords(environment);
  const record = await serverOf(mountpoint, records);
  if (record !== undefined && !args.lazy && !args.force && (await isStopped(record.pid))) {
    throw new IserfsError('busy', `process ${record.pid}, which serves ${mountpoint}, is stopped`, {
      hint: `Let it go on (kill -CONT ${record.pid}), or end the mount with --force.`,
    });
  }
  if (args.force && record !== undefined) await stopServer(record);
  else await detach(mountpoint, args.lazy || record === undefined, context);
  if (record === undefined) {
    const dead = await records.read(mountpoint);
    if (dead !== undefined) await reportEnd(dead, dead, records);
    output.say(`Unmounted ${mountpoint}; no server of it was found to wait for.`);
    return EXIT_OK;
  }
  if (args.lazy && !args.force && !(await endsWithin(record, 1000))) {
    output.say(`Detached ${mountpoint}; process ${record.pid} serves it until the last file is closed.`);
    return EXIT_OK;
  }
  await awaitEnd(record, args.timeoutMs, context);
  await reportEnd(await records.read(mountpoint), record, records);
  output.say(`Unmounted ${mountpoint}; all data is at the targets.`);
  return EXIT_OK;
}

/** By the record that the server left; by its own status where it runs under another state folder. Undefined where it is dead. */
async function serverOf(mountpoint: string, records: MountRecords): Promise<MountRecord | undefined> {
  const record = await records.read(mountpoint);
  if (record !== undefined && (await isServing(record))) return record;
  try {
    const { pid } = await readMountStatus(mountpoint);
    const start = await processStart(pid);
    return start === undefined ? undefined : { mountpoint, pid, processStart: start, log: undefined };
  } catch {
    return undefined; // dead or hung: only the mount itself can be removed
  }
}

async function detach(mountpoint: string, lazy: boolean, { output }: CommandContext): Promise<void> {
  const cancelNote = systemClock.schedule(SAY_AFTER_MS, () => output.say(`Waiting for the server of ${mountpoint} to answer...`));
  try {
    await umount(mountpoint, { lazy });
  } catch (error) {
    if (errorCode(error) !== 'busy') throw error;
    const holders = await findHolders(mountpoint);
    const who = holders.length === 0 ? '' : `: used by ${holders.join(', ')}`;
    throw new IserfsError('busy', `${mountpoint} is in use${who}`, {
      hint: 'Close what uses it, or detach it with --lazy (served until the last close), or end it with --force.',
    });
  } finally {
    cancelNote();
  }
}

/** The first signal asks, the second one insists; a server that does not even answer that is killed, and what it leaves removed. */
async function stopServer(record: MountRecord): Promise<void> {
  signalServer(record, 'SIGTERM');
  if (await endsWithin(record, ASKED_MS)) return;
  signalServer(record, 'SIGTERM');
  if (await endsWithin(record, INSISTED_MS)) return;
  signalServer(record, 'SIGKILL');
  await endsWithin(record, ASKED_MS);
  if ((await findMountOf(record.mountpoint)) !== undefined) await umount(record.mountpoint, { lazy: true });
}

function signalServer(record: MountRecord, signal: NodeJS.Signals): void {
  try {
    process.kill(record.pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) {
      throw new IserfsError('not-permitted', `process ${record.pid} may not be ended by this user`, { cause: error });
    }
  }
}

async function awaitEnd(record: MountRecord, timeoutMs: number, { output }: CommandContext): Promise<void> {
  if (await endsWithin(record, Math.min(SAY_AFTER_MS, timeoutMs))) return;
  output.say(`Waiting for process ${record.pid} to write everything to the targets...`);
  if (await endsWithin(record, Math.max(0, timeoutMs - SAY_AFTER_MS))) return;
  throw new IserfsError('busy', `process ${record.pid} has not ended within ${formatDuration(timeoutMs)}`, {
    hint: `${record.log === undefined ? '' : `See ${record.log}; `}--force ends it, --timeout waits longer.`,
  });
}

async function reportEnd(left: MountRecord | undefined, record: MountRecord, records: MountRecords): Promise<void> {
  if (left === undefined || left.processStart !== record.processStart) return;
  await records.remove(record.mountpoint);
  const why = left.failure ?? `process ${record.pid} died before it had flushed and logged out`;
  throw new IserfsError('data-lost', `${record.mountpoint} is unmounted, but not in good order: ${why}`, {
    ...(record.log === undefined ? {} : { hint: `See ${record.log}` }),
  });
}

async function endsWithin(record: MountRecord, timeoutMs: number): Promise<boolean> {
  const deadline = systemClock.now() + timeoutMs;
  while (await isServing(record)) {
    if (systemClock.now() >= deadline) return false;
    await sleep(systemClock, POLL_MS);
  }
  return true;
}
