/**
 * One login over one connection: opens it and drives the login machine with real time, to the full-feature
 * phase or to the reason why it does not come to that. What peers do to a login that is not brought to its
 * end, or to the first request after it, is met here (`connectionQuirks`). Where to connect, and whether to
 * try again, is `connection.ts`'s affair.
 */

import { type Clock, sleep } from '../clock.ts';
import { IserfsError, ProtocolError } from '../errors.ts';
import type { InitiatorDatamover, InitiatorTransport } from './datamover/datamover.ts';
import { type ChapAlgorithm, type ChapOptions, InitiatorLogin, type LoginResult } from './iscsi/login.ts';
import { isIser } from './iscsi/login-exchange.ts';
import type { Portal } from './iscsi/name.ts';
import { connectionQuirks, needsFirstRequestHeld } from './iscsi/peer-quirks.ts';
import type { InitiatorSession } from './iscsi/session.ts';
import { LoginHandler } from './login-handler.ts';

/** What a login needs, whoever it is for. */
export interface LoginOptions {
  readonly initiatorName: string;
  /** 48 bits; stable for the life of the initiator (RFC 7143 §11.12.5). */
  readonly isid: number;
  readonly transport: InitiatorTransport;
  readonly chap?: ChapOptions;
  readonly clock: Clock;
  /** Cryptographically strong random bytes. */
  readonly random: (length: number) => Uint8Array;
}

/** What a connection is to be for. */
export interface LoginPurpose {
  readonly sessionType: 'normal' | 'discovery';
  readonly targetName?: string;
  /** Bound on connection set-up and login together. */
  readonly timeoutMs: number;
}

/** A connection in its full-feature phase. */
export interface LoggedIn {
  readonly datamover: InitiatorDatamover;
  readonly result: LoginResult;
  /** Hands everything that the data mover reports to a session from now on. */
  attach(session: InitiatorSession): void;
}

export type LoginOutcome =
  | ({ readonly type: 'connected' } & LoggedIn)
  | { readonly type: 'redirected'; readonly to: Portal; readonly permanent: boolean }
  | { readonly type: 'try-other-algorithms'; readonly algorithms: readonly ChapAlgorithm[]; readonly refusal: unknown }
  /** The peer hung up where it may let the next login through (`connectionQuirks.cutLogin`). */
  | { readonly type: 'cut'; readonly error: unknown };

/** The connection ID of every session's one connection. */
export const CID = 0;

/** Connects to `portal` and logs in. Rejects with a reason that does not say where; nothing stays open then. */
export async function logIn(
  options: LoginOptions,
  portal: Portal,
  purpose: LoginPurpose,
  signal: AbortSignal | undefined,
): Promise<LoginOutcome> {
  const { clock, transport } = options;
  const deadline = clock.now() + purpose.timeoutMs;
  const handler = new LoginHandler();
  const datamover = await transport.connect(portal, handler, {
    timeoutMs: purpose.timeoutMs,
    ...(signal === undefined ? {} : { signal }),
  });
  const stopWaiting = limitWaiting(handler, { clock, deadline, timeoutMs: purpose.timeoutMs, signal });
  let machine: InitiatorLogin | undefined;
  const offers = datamover.keyOffers(purpose.sessionType);
  try {
    machine = new InitiatorLogin({
      initiatorName: options.initiatorName,
      sessionType: purpose.sessionType,
      ...(purpose.targetName === undefined ? {} : { targetName: purpose.targetName }),
      isid: options.isid,
      tsih: 0,
      cid: CID,
      cmdSn: 1,
      initialItt: 0,
      offers,
      ...(options.chap === undefined ? {} : { chap: options.chap }),
      random: options.random,
    });
    const end = await exchange(machine, datamover, handler);
    if (end.type === 'redirect') {
      await datamover.terminate('orderly');
      throwIfAborted(signal);
      return { type: 'redirected', to: end.portal, permanent: end.permanent };
    }
    const { result } = end;
    datamover.enable(result.data);
    if (needsFirstRequestHeld(result)) await sleep(clock, connectionQuirks.firstRequest.holdMs);
    handler.throwIfFailed();
    if (signal?.aborted) await datamover.terminate('orderly');
    throwIfAborted(signal);
    return { type: 'connected', datamover, result, attach: (session) => handler.attach(session) };
  } catch (error) {
    await datamover.terminate('abrupt');
    if (machine?.chapRetry !== undefined) {
      return { type: 'try-other-algorithms', algorithms: machine.chapRetry, refusal: error };
    }
    if (handler.isCut(error) && isIser(offers) && !signal?.aborted) return { type: 'cut', error };
    throw error;
  } finally {
    stopWaiting();
  }
}

type LoginEnd = Exclude<ReturnType<InitiatorLogin['handleResponse']>, { type: 'send' }>;

/** Request by request, until the login has ended. */
async function exchange(machine: InitiatorLogin, datamover: InitiatorDatamover, handler: LoginHandler): Promise<LoginEnd> {
  let request = machine.start();
  for (;;) {
    const answer = handler.nextPdu();
    answer.catch(() => {}); // awaited below, unless sending fails first
    datamover.sendControl(request);
    const received = await answer;
    if (received.opcode !== 'login-response') throw new ProtocolError(`${received.opcode} during login`);
    const step = machine.handleResponse(received);
    if (step.type !== 'send') return step;
    request = step.pdu;
  }
}

/**
 * Ends the wait for the target when its time is up, or some time after an interruption: the login goes on
 * until then, since some targets take it badly when it is dropped half-way. Returns the function that lifts the limits.
 */
function limitWaiting(
  handler: LoginHandler,
  limits: {
    readonly clock: Clock;
    readonly deadline: number;
    readonly timeoutMs: number;
    readonly signal: AbortSignal | undefined;
  },
): () => void {
  const { clock, deadline, timeoutMs, signal } = limits;
  let cancelGrace = () => {};
  const cancelDeadline = clock.schedule(Math.max(0, deadline - clock.now()), () =>
    handler.fail(
      new IserfsError('unreachable', `connected, but no answer to the login within ${timeoutMs / 1000} s`, {
        hint: 'Is an iSCSI target listening on that port?',
      }),
    ),
  );
  const onAbort = () => {
    cancelGrace = clock.schedule(connectionQuirks.abandonedLogin.graceMs, () => handler.fail(interruption()));
  };
  if (signal?.aborted) onAbort();
  else signal?.addEventListener('abort', onAbort, { once: true });
  return () => {
    cancelDeadline();
    cancelGrace();
    signal?.removeEventListener('abort', onAbort);
  };
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw interruption();
}

function interruption(): IserfsError {
  return new IserfsError('aborted', 'interrupted');
}
