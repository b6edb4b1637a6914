/**
 * What a target with several portals says about where it can be reached (TargetAddress, RFC 7143 §13.8).
 * A TargetAddress does not name the transport, so the portals of the kind through which the initiator asks
 * come first: one that tries them in order, or takes the first, gets what it speaks. Pure.
 */

import type { Endpoint } from './datamover/datamover.ts';
import { formatPortal, parsePortal } from './iscsi/name.ts';

/** A portal that listens. */
export interface OpenPortal {
  /** With the port that was picked; the host may be a wildcard. */
  readonly endpoint: Endpoint;
  /** The kind of its transport: `tcp`, `iwarp`, `verbs`. */
  readonly transport: string;
}

/**
 * `ADDRESS:PORT` of all `portals`, for an initiator that has come to `asked`, at `localAddress`
 * (`ADDRESS:PORT`, also where the listener's address is a wildcard or behind address translation).
 */
export function portalAddresses(portals: readonly OpenPortal[], asked: OpenPortal | undefined, localAddress: string): string[] {
  const { host } = parsePortal(localAddress);
  const others = portals.filter((portal) => portal !== asked);
  const rank = ({ transport }: OpenPortal) => (transport === asked?.transport ? 0 : 1);
  const addresses = others
    .toSorted((one, other) => rank(one) - rank(other))
    .map(({ endpoint }) => formatPortal(isWildcard(endpoint.host) ? { host, port: endpoint.port } : endpoint));
  // An RDMA portal may have the number of a TCP one: its ports are a space of their own.
  return [...new Set([localAddress, ...addresses])];
}

function isWildcard(host: string): boolean {
  return host === '' || host === '0.0.0.0' || host === '::';
}
