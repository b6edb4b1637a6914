/**
 * One connection, up to its full-feature phase: chooses the transport, follows redirects, logs in again where
 * the first attempt has shown how. What comes after, and what becomes of a lost connection, is for whoever
 * asked: `initiator.ts` and `discovery.ts`.
 */

import { sleep } from '../clock.ts';
import { errorCode, IserfsError, NexusLostError } from '../errors.ts';
import type { InitiatorTransport } from './datamover/datamover.ts';
import { TransportChoice } from './datamover/transport-choice.ts';
import { formatPortal, type Portal } from './iscsi/name.ts';
import { connectionQuirks } from './iscsi/peer-quirks.ts';
import { type LoggedIn, type LoginOptions, type LoginOutcome, type LoginPurpose, logIn } from './login-run.ts';

export { CID } from './login-run.ts';

/** What a connection needs, whoever it is for. */
export interface ConnectionOptions extends Omit<LoginOptions, 'transport'> {
  /** One, or several to be tried in order at each login. */
  readonly transport: InitiatorTransport | TransportChoice;
  /** Bound on connection set-up and login together. */
  readonly loginTimeoutMs: number;
}

export interface Connection extends LoggedIn {
  /** The portal that was reached in the end. */
  readonly portal: Portal;
  /** A portal that the target moved to for good, to be used from now on. */
  readonly movedTo: Portal | undefined;
}

const MAX_REDIRECTS = 8;

/**
 * Connects to a portal and logs in, following redirects. Rejects with a located error; nothing stays
 * open then. A login is never just dropped half-way except when its time is up: some targets take
 * that badly.
 */
export async function openConnection(
  options: ConnectionOptions,
  portal: Portal,
  login: LoginPurpose,
  signal?: AbortSignal,
): Promise<Connection> {
  const { transport, clock } = options;
  if (!(transport instanceof TransportChoice)) return await openOver({ ...options, transport }, portal, login, signal);
  return await transport.open(portal, { clock, timeoutMs: login.timeoutMs }, (each, at, timeoutMs) =>
    openOver({ ...options, transport: each }, at, { ...login, timeoutMs }, signal),
  );
}

/** The same over one transport. A redirect stays with it: the target names the portal that it means for it. */
async function openOver(
  options: LoginOptions,
  portal: Portal,
  login: LoginPurpose,
  signal: AbortSignal | undefined,
): Promise<Connection> {
  let at = portal;
  let movedTo: Portal | undefined;
  let { chap } = options;
  const { clock } = options;
  const deadline = clock.now() + login.timeoutMs;
  let { timeoutMs } = login;
  const retryWaits: number[] = [...connectionQuirks.cutLogin.retryAfterMs];
  for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
    const who = nameOf(login.targetName, at);
    let outcome: LoginOutcome;
    try {
      outcome = await logIn({ ...options, ...(chap === undefined ? {} : { chap }) }, at, { ...login, timeoutMs }, signal);
    } catch (error) {
      throw locate(error, who);
    }
    switch (outcome.type) {
      case 'connected':
        return { ...outcome, portal: at, movedTo };
      case 'redirected':
        at = outcome.to;
        if (outcome.permanent) movedTo = at;
        break;
      case 'cut': {
        const wait = retryWaits.shift();
        timeoutMs = Math.floor(deadline - clock.now()) - (wait ?? 0);
        if (wait === undefined || timeoutMs <= 0) throw locate(outcome.error, who);
        await sleep(clock, wait, signal).catch(() => {
          throw locate(new IserfsError('aborted', 'interrupted'), who);
        });
        break;
      }
      case 'try-other-algorithms':
        // Offered once: what the second login is refused for is final.
        if (chap === undefined || chap.algorithms !== options.chap?.algorithms) throw locate(outcome.refusal, who);
        chap = { ...chap, algorithms: outcome.algorithms };
        break;
      default:
        outcome satisfies never;
    }
  }
  const who = nameOf(login.targetName, portal);
  throw new IserfsError('login-refused', `${who}: the target redirected more than ${MAX_REDIRECTS} times`);
}

function nameOf(targetName: string | undefined, portal: Portal): string {
  return targetName === undefined ? formatPortal(portal) : `${targetName} at ${formatPortal(portal)}`;
}

/** The same error, its message beginning with where it happened. */
export function locate(error: unknown, where: string): Error {
  const text = error instanceof Error ? error.message : String(error);
  if (text.includes(where)) return error instanceof Error ? error : new Error(text);
  if (error instanceof NexusLostError) {
    return new NexusLostError(`${where}: ${text}`, { mayHaveExecuted: error.mayHaveExecuted, cause: error.cause });
  }
  const hint = error instanceof IserfsError ? error.hint : undefined;
  return new IserfsError(errorCode(error), `${where}: ${text}`, hint === undefined ? { cause: error } : { cause: error, hint });
}
