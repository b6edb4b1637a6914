/** `iserfs mount`: settings, then the background or the foreground. */

import { formatSize } from '../../config/quantity.ts';
import { type CommandLineSettings, resolveSettings, withMountpoint } from '../../config/settings.ts';
import { IserfsError } from '../../errors.ts';
import type { ReadyReport } from '../../mount/mount.ts';
import { count } from '../../printable.ts';
import { launch } from '../launcher.ts';
import { readMountStatus } from '../mount-reader.ts';
import { EXIT_OK, warnOf } from '../output.ts';
import { serve } from '../serve.ts';
import { type CommandContext, initiatorNameFor } from './context.ts';

export interface MountArguments {
  readonly mountpoint: string;
  readonly foreground: boolean;
  readonly settings: CommandLineSettings;
}

export async function runMount(args: MountArguments, context: CommandContext): Promise<number> {
  const { output, environment } = context;
  const { settings: resolved } = await resolveSettings(args.settings, environment, output.warn);
  const settings = withMountpoint(resolved, args.mountpoint);
  const initiatorName = await initiatorNameFor(settings, context);
  const interrupts = context.interrupts();
  if (args.foreground) {
    return await serve({
      settings,
      initiatorName,
      environment,
      logPath: undefined,
      interrupts,
      log: output.say,
      ready: (report) => announce(report, context),
    });
  }
  const report = await launch({ settings, initiatorName }, environment, interrupts.stop);
  await checkReadable(report);
  announce(report, context);
  output.say(`Served by process ${report.pid}; log: ${report.log}`);
  return EXIT_OK;
}

/** Paths of images are data; the rest is for the person. */
export function announce(report: ReadyReport, { output }: CommandContext): void {
  warnOf(report.problems, output);
  if (report.isOnDemand) {
    output.say(
      `Mounted at ${report.mountpoint}: ${count(report.targets, 'target')}. A session begins when a target's directory is first looked into.`,
    );
    return;
  }
  output.say(`Mounted at ${report.mountpoint}:`);
  for (const { path, size, writable } of report.images) {
    output.data(path);
    output.say(`  ${formatSize(size)}, ${writable ? 'read-write' : 'read-only'}`);
  }
}

/** This process may look at the mount: another one serves it. */
async function checkReadable(report: ReadyReport & { readonly log: string }): Promise<void> {
  const status = await readMountStatus(report.mountpoint);
  if (status.pid === report.pid) return;
  throw new IserfsError('mount-failed', `something else is mounted over ${report.mountpoint}`, { hint: `See ${report.log}` });
}
