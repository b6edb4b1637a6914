/** Logs in to targets, looks at their logical units, and logs out: what `ls` and `info` show of a portal. */

import { systemClock } from '../clock.ts';
import type { ConnectionSettings } from '../config/settings.ts';
import { problemOf } from '../problem.ts';
import { BlockCache } from '../scsi/block-cache.ts';
import { BufferPool } from '../scsi/buffer-pool.ts';
import { LoginTurns } from './login-turns.ts';
import { MountedTarget } from './mounted-target.ts';
import type { TargetSnapshot } from './snapshot.ts';
import { planTargets } from './target-plan.ts';
import { Transports } from './transports.ts';

/** Rejects where no target is known; a target that cannot be looked at is there with its problem. */
export async function surveyTargets(
  settings: ConnectionSettings,
  initiatorName: string,
  { signal, warn }: { readonly signal: AbortSignal; readonly warn: (line: string, hint?: string) => void },
): Promise<TargetSnapshot[]> {
  const transports = new Transports(settings.options);
  const plan = await planTargets(settings, { initiatorName, transports, signal });
  for (const { text, hint } of plan.failures.map(problemOf)) warn(text, hint);
  for (const note of plan.notes) warn(note);
  const pool = new BufferPool(transports.memory, { isRegistered: transports.mayUseRdma });
  const context = {
    settings,
    initiatorName,
    transports,
    pool,
    cache: new BlockCache({ pool, bytes: 0, readahead: 0 }),
    retainedLimit: undefined,
    clock: systemClock,
    log: () => {},
    turns: new LoginTurns({ clock: systemClock }),
    isOnDemand: false,
    changed: () => {},
    outdated: () => {},
  };
  return await Promise.all(
    plan.targets.map(async (request) => {
      const target = new MountedTarget(request, context);
      try {
        await target.begin(signal);
        return target.snapshot();
      } finally {
        await target.close();
      }
    }),
  );
}
