/**
 * Which targets are to be logged in to, and at which portals: those that are named, or what discovery
 * finds. Discovery runs at all portals together; one that fails leaves the others' targets.
 */

import type { ConnectionSettings, DirectTarget } from '../config/settings.ts';
import { formatPortal, isSamePortal, normalizeIscsiName, type Portal } from '../iser/iscsi/name.ts';
import { SeveralErrors } from '../several-errors.ts';
import { discover } from './sessions.ts';

export interface TargetPlan {
  readonly targets: readonly DirectTarget[];
  /** Why some portals gave no targets, or targets were left out. */
  readonly failures: readonly unknown[];
  readonly notes: readonly string[];
}

/** Rejects where nothing is left to log in to: with the causes, or because the portals offer nothing. */
export async function planTargets(settings: ConnectionSettings, initiatorName: string, signal: AbortSignal): Promise<TargetPlan> {
  if (settings.targets.length > 0) return { targets: merged(settings.targets), failures: [], notes: [] };
  const failures: unknown[] = [];
  const notes: string[] = [];
  const found: DirectTarget[] = [];
  const results = await Promise.allSettled(settings.discover.map((portal) => discover(settings, initiatorName, portal, signal)));
  for (const [index, result] of results.entries()) {
    const portal = settings.discover[index] as Portal;
    if (result.status === 'rejected') {
      failures.push(result.reason);
      continue;
    }
    const { targets, oddities } = result.value;
    for (const oddity of oddities) notes.push(`${formatPortal(portal)} ${oddity}: left out`);
    if (targets.length === 0) notes.push(`${formatPortal(portal)} offers no targets to ${initiatorName}`);
    for (const { name, portals } of targets) found.push({ name, portals: withFallback(portals, portal) });
  }
  const [first, ...rest] = failures;
  if (found.length === 0 && first !== undefined) throw SeveralErrors.from([first, ...rest]);
  return { targets: merged(found), failures, notes };
}

/**
 * The portals that the target gave, and the one that answered, in case those cannot be reached from here
 * (address translation). It comes first where the target lists it too, being known to answer, and
 * else second: a login that waits for three dead addresses in turn is no help to anyone.
 */
export function withFallback(returned: readonly Portal[], answered: Portal): Portal[] {
  const listed = returned.find((portal) => isSamePortal(portal, answered));
  const others = returned.filter((portal) => !isSamePortal(portal, answered));
  if (listed !== undefined) return [listed, ...others];
  const [first, ...rest] = others;
  return first === undefined ? [answered] : [first, answered, ...rest];
}

/** One entry per target, with all portals under which it was found. */
function merged(targets: readonly DirectTarget[]): DirectTarget[] {
  const byName = new Map<string, { name: string; portals: Portal[] }>();
  for (const { name, portals } of targets) {
    const key = normalizeIscsiName(name);
    const known = byName.get(key);
    if (known === undefined) byName.set(key, { name, portals: [...portals] });
    else known.portals.push(...portals.filter((portal) => !known.portals.some((other) => isSamePortal(portal, other))));
  }
  return [...byName.values()];
}
