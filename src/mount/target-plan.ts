/**
 * Which targets are to be logged in to, and at which portals: those that are named, or what discovery
 * finds. Discovery runs at all portals together; one that fails leaves the others' targets.
 */

import { withIserPort } from '../config/portal.ts';
import type { ConnectionSettings, DirectTarget } from '../config/settings.ts';
import { formatPortal, isSamePortal, normalizeIscsiName, type Portal } from '../iser/iscsi/name.ts';
import { SeveralErrors } from '../several-errors.ts';
import { type Discovery, discover } from './sessions.ts';
import type { Transports } from './transports.ts';

export interface TargetPlan {
  readonly targets: readonly DirectTarget[];
  /** Why some portals gave no targets, or targets were left out. */
  readonly failures: readonly unknown[];
  readonly notes: readonly string[];
}

/** Rejects where nothing is left to log in to: with the causes, or because the portals offer nothing. */
export async function planTargets(
  settings: ConnectionSettings,
  how: { readonly initiatorName: string; readonly transports: Transports; readonly signal: AbortSignal },
): Promise<TargetPlan> {
  if (settings.targets.length > 0) return { targets: merged(settings.targets), failures: [], notes: [] };
  const failures: unknown[] = [];
  const notes: string[] = [];
  const found: DirectTarget[] = [];
  const results = await Promise.allSettled(settings.discover.map((portal) => discover(settings, how, portal)));
  for (const [index, result] of results.entries()) {
    const portal = settings.discover[index] as Portal;
    if (result.status === 'rejected') {
      failures.push(result.reason);
      continue;
    }
    const { oddities, ...discovery } = result.value;
    const { targets } = discovery;
    for (const oddity of oddities) notes.push(`${formatPortal(portal)} ${oddity}: left out`);
    if (targets.length === 0) notes.push(`${formatPortal(portal)} offers no targets to ${how.initiatorName}`);
    for (const { name, portals } of targets) {
      found.push({ name, portals: portalsToTry(portals, portal, discovery, how.transports.needsOwnPort) });
    }
  }
  const [first, ...rest] = failures;
  if (found.length === 0 && first !== undefined) throw SeveralErrors.from([first, ...rest]);
  return { targets: merged(found), failures, notes };
}

/**
 * What the target gave, as sessions are to reach it. An answer over TCP names ports without saying what they
 * speak: where iSER is elsewhere, the portal that was asked has that from its settings, and where it can only be at another
 * TCP port, the one that answered over TCP comes last. An answer over iSER names the ports of iSER.
 */
export function portalsToTry(
  returned: readonly Portal[],
  asked: Portal,
  { transport }: Pick<Discovery, 'transport'>,
  needsOwnPort: boolean,
): Portal[] {
  if (transport !== 'tcp') return withFallback(returned, asked);
  const portals = withFallback(withIserPort(returned, asked.iserPort), asked);
  if (!needsOwnPort || asked.iserPort !== undefined) return portals;
  return [
    ...portals.filter((portal) => !isSamePortal(portal, asked)),
    ...portals.filter((portal) => isSamePortal(portal, asked)),
  ];
}

/**
 * The portals that the target gave, and the one that answered, in case those cannot be reached from here
 * (address translation). It comes first where the target lists it too, being known to answer, and
 * else second: a login that waits for three dead addresses in turn is no help to anyone.
 */
export function withFallback(returned: readonly Portal[], answered: Portal): Portal[] {
  const listed = returned.find((portal) => isSamePortal(portal, answered));
  const others = returned.filter((portal) => !isSamePortal(portal, answered));
  if (listed !== undefined) return [{ ...answered, ...listed }, ...others];
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
