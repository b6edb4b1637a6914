/**
 * One login over one connection: opens it and drives the login machine with real time, to the full-feature
 * phase or to the reason why it does not come to that. What peers do to a login that is not brought to its
 * end, or to the first request after it, is met here (`connectionQuirks`). Where to connect, and whether to
 * try again, is `connection.ts`'s affair.
 */

import { type Clock, sleep } from '../clock.ts';
import { errorCode, IserfsError, ProtocolError } from '../errors.ts';
import type { InitiatorDatamover, InitiatorTransport } from './datamover/datamover.ts';
import { type ChapAlgorithm, type ChapOptions, InitiatorLogin, type LoginResult } from './iscsi/login.ts';
import { isIser } from './iscsi/login-exchange.ts';
import type { Portal } from './iscsi/name.ts';
import { connectionQuirks, needsPatience } from './iscsi/peer-quirks.ts';
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
  throwIfAborted(signal);
  const { clock, transport } = options;
  const { timeoutMs } = purpose;
  const deadline = clock.now() + timeoutMs;
  const handler = new LoginHandler();
  const patience = new Patience(clock, signal);
  let datamover: InitiatorDatamover;
  try {
    // What is being set up over TCP can be dropped at any time.
    const connecting = transport.name === 'tcp' ? signal : patience.signal;
    datamover = await transport.connect(portal, handler, {
      timeoutMs,
      ...(connecting === undefined ? {} : { signal: connecting }),
    });
  } catch (error) {
    patience.end();
    throw error;
  }
  patience.signal.addEventListener('abort', () => handler.fail(interruption()), { once: true });
  if (patience.signal.aborted) handler.fail(interruption());
  const cancelDeadline = clock.schedule(Math.max(0, deadline - clock.now()), () => handler.fail(silence(timeoutMs)));
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
    const end = await exchange(machine, datamover, handler, clock);
    if (end.type === 'redirect') {
      await datamover.terminate('orderly');
      throwIfAborted(signal);
      return { type: 'redirected', to: end.portal, permanent: end.permanent };
    }
    const { result } = end;
    handler.throwIfFailed();
    if (signal?.aborted) await datamover.terminate('orderly');
    throwIfAborted(signal);
    return { type: 'connected', datamover, result, attach: (session) => handler.attach(session) };
  } catch (error) {
    await datamover.terminate('abrupt');
    if (machine?.chapRetry !== undefined) {
      return { type: 'try-other-algorithms', algorithms: machine.chapRetry, refusal: error };
    }
    if (!handler.isCut(error)) throw error;
    // Not to be tried again: a target may lock an account for which it sees one wrong secret after another.
    if (machine?.isAuthenticating) throw refusedWithoutWord(error);
    if (isIser(offers) && !signal?.aborted) return { type: 'cut', error: withoutWord(error) };
    throw error;
  } finally {
    cancelDeadline();
    patience.end();
  }
}

type LoginEnd = Exclude<ReturnType<InitiatorLogin['handleResponse']>, { type: 'send' }>;

/** Request by request, until the login has ended and the target is ready for what follows. */
async function exchange(
  machine: InitiatorLogin,
  datamover: InitiatorDatamover,
  handler: LoginHandler,
  clock: Clock,
): Promise<LoginEnd> {
  let request = machine.start();
  for (;;) {
    const answer = handler.nextPdu();
    answer.catch(() => {}); // awaited below, unless sending fails first
    datamover.sendControl(request);
    const received = await answer;
    if (received.opcode !== 'login-response') throw new ProtocolError(`${received.opcode} during login`);
    const step = machine.handleResponse(received);
    if (step.type === 'complete') datamover.enable(step.result.data);
    if (needsPatience(received)) await sleep(clock, connectionQuirks.hastyRequest.holdMs);
    if (step.type !== 'send') return step;
    request = step.pdu;
  }
}

/**
 * An interruption that takes effect some time later: until then the connection is made and the login brought to its
 * end, since some targets take it badly when they are left in the middle of either.
 */
class Patience {
  readonly #later = new AbortController();
  readonly #interrupted: AbortSignal | undefined;
  readonly #onAbort: () => void;
  #cancel: () => void = () => {};

  constructor(clock: Clock, interrupted: AbortSignal | undefined) {
    this.#interrupted = interrupted;
    this.#onAbort = () => {
      this.#cancel = clock.schedule(connectionQuirks.abandonedLogin.graceMs, () => this.#later.abort(interruption()));
    };
    interrupted?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** Aborted when there is no more patience. */
  get signal(): AbortSignal {
    return this.#later.signal;
  }

  end(): void {
    this.#cancel();
    this.#interrupted?.removeEventListener('abort', this.#onAbort);
  }
}

function silence(timeoutMs: number): IserfsError {
  return new IserfsError('unreachable', `connected, but no answer to the login within ${(timeoutMs / 1000).toFixed(1)} s`, {
    hint: 'Is an iSCSI target listening on that port?',
  });
}

/** LIO closes its connection behind the response that refuses a login, which is lost then as often as not. */
function refusedWithoutWord(error: unknown): IserfsError {
  return new IserfsError('authentication-failed', 'the target closed the connection during CHAP, without a word', {
    cause: error,
    hint: 'Check the CHAP user and secret.',
  });
}

function withoutWord(error: unknown): IserfsError {
  const text = error instanceof Error ? error.message : String(error);
  return new IserfsError(errorCode(error), text, {
    cause: error,
    hint: 'Some targets hang up where they refuse a login: check the target name, the access list, and CHAP.',
  });
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw interruption();
}

function interruption(): IserfsError {
  return new IserfsError('aborted', 'interrupted');
}
