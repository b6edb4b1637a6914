/**
 * The life of a mount, in whichever process serves it: makes it, leaves a record, and ends it in good
 * order when it is told to stop or is unmounted from outside. Says how it went as an exit status.
 */

import { aborted, sleep, systemClock } from '../clock.ts';
import { formatDuration } from '../config/quantity.ts';
import type { MountSettings } from '../config/settings.ts';
import type { Environment } from '../config/xdg.ts';
import { describeError } from '../errors.ts';
import { Mount, type ReadyReport } from '../mount/mount.ts';
import type { Interrupts } from './interrupts.ts';
import { type MountRecord, MountRecords, processStart } from './mount-record.ts';
import { EXIT_FAILED, EXIT_OK } from './output.ts';

export interface ServeOptions {
  readonly settings: MountSettings;
  readonly initiatorName: string;
  readonly environment: Environment;
  /** Where the log of this process goes, for the record. */
  readonly logPath: string | undefined;
  readonly interrupts: Interrupts;
  readonly log: (line: string) => void;
  readonly ready: (report: ReadyReport) => void;
}

/** Serves until the mount has ended. Rejects where it could not be made; nothing is left mounted then. */
export async function serve(options: ServeOptions): Promise<number> {
  const { settings, initiatorName, interrupts, log } = options;
  const records = new MountRecords(options.environment);
  const mount = await Mount.start(settings, { initiatorName, log }, interrupts.stop);
  const { report } = mount;
  const { mountpoint } = report; // without symbolic links, as the table of mounts has it
  const record = await leaveRecord(records, mountpoint, options);
  options.ready(report);
  const outcome = await serveUntilEnd(mount, settings, interrupts, log);
  const failures = [...outcome, ...(await mount.close({ signal: interrupts.force }))];
  for (const failure of failures) log(failure);
  try {
    if (failures.length === 0) await records.remove(mountpoint);
    else if (record !== undefined) await records.write({ ...record, failure: failures.join('; ') });
  } catch (error) {
    log(`the record of this mount could not be updated: ${describeError(error)}`);
  }
  log(failures.length === 0 ? 'unmounted; all data is at the targets' : 'ended with errors');
  return failures.length === 0 ? EXIT_OK : EXIT_FAILED;
}

/** Waits for the end: unmounted from outside, or told to stop. Resolves with what did not go well. */
async function serveUntilEnd(
  mount: Mount,
  settings: MountSettings,
  interrupts: Interrupts,
  log: (line: string) => void,
): Promise<string[]> {
  const ended = mount.ended.then(() => 'ended' as const);
  if ((await Promise.race([ended, aborted(interrupts.stop)])) === 'ended') return [];
  const { 'stop-timeout': stopTimeout } = settings.options;
  log(
    `told to stop: detaching; files that are open are served for at most ${formatDuration(stopTimeout)} more (a second signal ends it now)`,
  );
  try {
    await mount.detach();
  } catch (error) {
    log(`the mount could not be detached: ${describeError(error)}`);
  }
  const enough = new AbortController();
  const timeUp = sleep(systemClock, stopTimeout, enough.signal).catch(() => {});
  const isEnded = await Promise.race([ended, timeUp, aborted(interrupts.force)]);
  enough.abort();
  if (isEnded === 'ended') return [];
  const why = interrupts.force.aborted ? 'by a second signal' : `after ${formatDuration(stopTimeout)}`;
  return [`stopped ${why} while files were still open`];
}

async function leaveRecord(records: MountRecords, mountpoint: string, options: ServeOptions): Promise<MountRecord | undefined> {
  const start = await processStart(process.pid);
  if (start === undefined) return undefined;
  const record: MountRecord = {
    mountpoint,
    pid: process.pid,
    processStart: start,
    log: options.logPath,
  };
  try {
    await records.write(record);
    return record;
  } catch (error) {
    options.log(`no record of this mount could be left (${describeError(error)}): iserfs umount will not wait for its end`);
    return undefined;
  }
}
