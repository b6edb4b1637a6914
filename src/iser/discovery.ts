/**
 * SendTargets (RFC 7143 Appendix C): asks a portal which targets it offers and at which addresses.
 * A discovery session of its own, logged out at the end.
 */

import { errorCode, IserfsError, ProtocolError } from '../errors.ts';
import { CID, type Connection, type ConnectionOptions, openConnection } from './connection.ts';
import { formatPortal, isValidIscsiName, type Portal, parseTargetAddress } from './iscsi/name.ts';
import { needsPatience } from './iscsi/peer-quirks.ts';
import { InitiatorSession } from './iscsi/session.ts';
import { decodeText } from './iscsi/text.ts';

export interface DiscoveredTarget {
  /** A valid iSCSI name: safe as one path component. */
  readonly name: string;
  /** As the target gave them; the portal that was asked where it gave none. */
  readonly portals: readonly Portal[];
}

export interface DiscoveryResult {
  readonly targets: readonly DiscoveredTarget[];
  /** What the answer held that makes no sense and was left out: parts of sentences that go on from the portal's address, printable. */
  readonly oddities: readonly string[];
}

/** Asks `portal` for all its targets. Rejects as `openConnection`, and with `protocol-error` for an answer that makes no sense. */
export async function discoverTargets(
  options: ConnectionOptions,
  portal: Portal,
  signal?: AbortSignal,
): Promise<DiscoveryResult> {
  const open = () => openConnection(options, portal, { sessionType: 'discovery', timeoutMs: options.loginTimeoutMs }, signal);
  const connection = await open();
  try {
    return await askForTargets(options, portal, connection, signal);
  } catch (error) {
    const mayBeTooEarly = needsPatience(connection.result) && errorCode(error) === 'connection-lost';
    if (!mayBeTooEarly || signal?.aborted) throw error;
    return await askForTargets(options, portal, await open(), signal);
  }
}

/** Ends the connection, whatever comes of it. */
async function askForTargets(
  { clock, loginTimeoutMs }: ConnectionOptions,
  portal: Portal,
  connection: Connection,
  signal: AbortSignal | undefined,
): Promise<DiscoveryResult> {
  let markEnded: () => void = () => {};
  const ended = new Promise<void>((resolve) => {
    markEnded = resolve;
  });
  const session = new InitiatorSession({
    datamover: connection.datamover,
    login: connection.result,
    cid: CID,
    now: () => clock.now(),
    keepaliveIntervalMs: Number.POSITIVE_INFINITY, // NOP has no place in a discovery session
    keepaliveTimeoutMs: Number.POSITIVE_INFINITY,
    managementTimeoutMs: loginTimeoutMs,
    maxCommands: 1,
    locate: (error) => error,
    events: { ended: markEnded, asynchronousSense: () => {}, deadlineMoved: () => {} },
  });
  connection.attach(session);
  const onAbort = () => session.drop(new IserfsError('aborted', 'interrupted'));
  signal?.addEventListener('abort', onAbort, { once: true });
  const cancelDeadline = clock.schedule(loginTimeoutMs, () =>
    session.drop(new IserfsError('unreachable', `no answer to SendTargets within ${loginTimeoutMs / 1000} s`)),
  );
  try {
    const text = await session.exchangeText([['SendTargets', 'All']]);
    const found = parseTargets(decodeText(text), connection.portal);
    session.logout(new IserfsError('connection-lost', 'discovery is done'));
    return found;
  } catch (error) {
    session.drop(error instanceof Error ? error : new Error(String(error)));
    if (error instanceof IserfsError) {
      throw new IserfsError(error.code, `${formatPortal(portal)}: discovery failed: ${error.message}`, { cause: error });
    }
    throw error;
  } finally {
    await ended;
    cancelDeadline();
    signal?.removeEventListener('abort', onAbort);
  }
}

function parseTargets(pairs: readonly (readonly [string, string])[], asked: Portal): DiscoveryResult {
  const targets = new Map<string, Portal[]>();
  const oddities: string[] = [];
  let current: Portal[] | undefined;
  for (const [key, value] of pairs) {
    if (key === 'TargetName') {
      if (isValidIscsiName(value)) {
        current = targets.get(value) ?? [];
        targets.set(value, current);
      } else {
        current = [];
        oddities.push(`offers ${printable(value)}, which is no iSCSI name`);
      }
    } else if (key === 'TargetAddress') {
      if (current === undefined) throw new ProtocolError('TargetAddress before any TargetName');
      try {
        current.push(parseTargetAddress(value));
      } catch {
        oddities.push(`gives ${printable(value)} as the address of a target, which is none`);
      }
    }
  }
  return {
    targets: [...targets].map(([name, portals]) => ({ name, portals: portals.length > 0 ? portals : [asked] })),
    oddities,
  };
}

function printable(value: string): string {
  return JSON.stringify(value.slice(0, 80));
}
