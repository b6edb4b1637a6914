/**
 * One connection, up to its full-feature phase: opens it, drives the login machine with real time,
 * follows redirects. What comes after, and what becomes of a lost connection, is for whoever asked:
 * `initiator.ts` and `discovery.ts`.
 */

import type { Clock } from '../clock.ts';
import { errorCode, IserfsError, NexusLostError, ProtocolError } from '../errors.ts';
import type { InitiatorDatamover, InitiatorHandler, InitiatorTransport } from './datamover/datamover.ts';
import { TransportChoice } from './datamover/transport-choice.ts';
import { type ChapAlgorithm, type ChapOptions, InitiatorLogin, type LoginResult } from './iscsi/login.ts';
import { formatPortal, type Portal } from './iscsi/name.ts';
import type { TargetControlPdu } from './iscsi/pdu.ts';
import type { InitiatorSession } from './iscsi/session.ts';

/** What a login needs, whoever it is for. */
export interface ConnectionOptions {
  readonly initiatorName: string;
  /** 48 bits; stable for the life of the initiator (RFC 7143 §11.12.5). */
  readonly isid: number;
  /** One, or several to be tried in order at each login. */
  readonly transport: InitiatorTransport | TransportChoice;
  readonly chap?: ChapOptions;
  /** Bound on connection set-up and login together. */
  readonly loginTimeoutMs: number;
  readonly clock: Clock;
  /** Cryptographically strong random bytes. */
  readonly random: (length: number) => Uint8Array;
}

/** A connection in its full-feature phase. */
export interface Connection {
  readonly datamover: InitiatorDatamover;
  readonly result: LoginResult;
  /** The portal that was reached in the end. */
  readonly portal: Portal;
  /** A portal that the target moved to for good, to be used from now on. */
  readonly movedTo: Portal | undefined;
  /** Hands everything that the data mover reports to a session from now on. */
  attach(session: InitiatorSession): void;
}

const MAX_REDIRECTS = 8;
/** The connection ID of every session's one connection. */
export const CID = 0;

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

/** What a connection is to be for. */
interface LoginPurpose {
  readonly sessionType: 'normal' | 'discovery';
  readonly targetName?: string;
  readonly timeoutMs: number;
}

type OptionsOver = ConnectionOptions & { readonly transport: InitiatorTransport };

/** The same over one transport. A redirect stays with it: the target names the portal that it means for it. */
async function openOver(
  options: OptionsOver,
  portal: Portal,
  login: LoginPurpose,
  signal: AbortSignal | undefined,
): Promise<Connection> {
  let at = portal;
  let movedTo: Portal | undefined;
  let { chap } = options;
  for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
    const who = nameOf(login.targetName, at);
    let outcome: LoginOutcome;
    try {
      outcome = await logIn({ ...options, ...(chap === undefined ? {} : { chap }) }, at, login, signal);
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

type LoginOutcome =
  | ({ readonly type: 'connected' } & Pick<Connection, 'datamover' | 'result' | 'attach'>)
  | { readonly type: 'redirected'; readonly to: Portal; readonly permanent: boolean }
  | { readonly type: 'try-other-algorithms'; readonly algorithms: readonly ChapAlgorithm[]; readonly refusal: unknown };

async function logIn(
  options: OptionsOver,
  portal: Portal,
  login: LoginPurpose,
  signal: AbortSignal | undefined,
): Promise<LoginOutcome> {
  const deadline = options.clock.now() + login.timeoutMs;
  const handler = new SwitchingHandler();
  const datamover = await options.transport.connect(portal, handler, {
    timeoutMs: login.timeoutMs,
    ...(signal === undefined ? {} : { signal }),
  });
  const onAbort = () => handler.fail(new IserfsError('aborted', 'interrupted'));
  signal?.addEventListener('abort', onAbort, { once: true });
  const cancelDeadline = options.clock.schedule(Math.max(0, deadline - options.clock.now()), () =>
    handler.fail(
      new IserfsError('unreachable', `connected, but no answer to the login within ${login.timeoutMs / 1000} s`, {
        hint: 'Is an iSCSI target listening on that port?',
      }),
    ),
  );
  let machine: InitiatorLogin | undefined;
  try {
    machine = new InitiatorLogin({
      initiatorName: options.initiatorName,
      sessionType: login.sessionType,
      ...(login.targetName === undefined ? {} : { targetName: login.targetName }),
      isid: options.isid,
      tsih: 0,
      cid: CID,
      cmdSn: 1,
      initialItt: 0,
      offers: datamover.keyOffers(login.sessionType),
      ...(options.chap === undefined ? {} : { chap: options.chap }),
      random: options.random,
    });
    let request = machine.start();
    for (;;) {
      const answer = handler.nextPdu();
      answer.catch(() => {}); // awaited below, unless sending fails first
      datamover.sendControl(request);
      const received = await answer;
      if (received.opcode !== 'login-response') throw new ProtocolError(`${received.opcode} during login`);
      const step = machine.handleResponse(received);
      if (step.type === 'send') {
        request = step.pdu;
        continue;
      }
      if (step.type === 'redirect') {
        await datamover.terminate('orderly');
        return { type: 'redirected', to: step.portal, permanent: step.permanent };
      }
      datamover.enable(step.result.data);
      return { type: 'connected', datamover, result: step.result, attach: (session) => handler.attach(session) };
    }
  } catch (error) {
    await datamover.terminate('abrupt');
    if (machine?.chapRetry === undefined) throw error;
    return { type: 'try-other-algorithms', algorithms: machine.chapRetry, refusal: error };
  } finally {
    cancelDeadline();
    signal?.removeEventListener('abort', onAbort);
  }
}

/** What a data mover reports goes to the login first and to the session afterwards. */
class SwitchingHandler implements InitiatorHandler {
  #session: InitiatorSession | undefined;
  #awaited: { resolve: (pdu: TargetControlPdu) => void; reject: (error: Error) => void } | undefined;
  /** What came between login and session. */
  readonly #early: { pdu: TargetControlPdu; transferred: number }[] = [];
  #failure: Error | undefined;

  nextPdu(): Promise<TargetControlPdu> {
    return new Promise((resolve, reject) => {
      if (this.#failure === undefined) this.#awaited = { resolve, reject };
      else reject(this.#failure);
    });
  }

  fail(error: Error): void {
    this.#failure ??= error;
    this.#awaited?.reject(this.#failure);
    this.#awaited = undefined;
  }

  attach(session: InitiatorSession): void {
    this.#session = session;
    for (const { pdu, transferred } of this.#early.splice(0)) session.handlePdu(pdu, transferred);
    if (this.#failure !== undefined) session.connectionTerminated(this.#failure);
  }

  controlNotify(pdu: TargetControlPdu, transferred: number): void {
    if (this.#session !== undefined) {
      this.#session.handlePdu(pdu, transferred);
      return;
    }
    // `data` is only lent for the call.
    const kept = { ...pdu, data: pdu.data.slice() };
    if (this.#awaited === undefined) {
      this.#early.push({ pdu: kept, transferred });
      return;
    }
    this.#awaited.resolve(kept);
    this.#awaited = undefined;
  }

  windowNotify(expCmdSn: number, maxCmdSn: number): void {
    this.#session?.windowNotify(expCmdSn, maxCmdSn);
  }

  currentExpStatSn(): number {
    return this.#session?.expStatSn ?? 0;
  }

  connectionTerminated(error?: Error): void {
    if (this.#session !== undefined) this.#session.connectionTerminated(error);
    else this.fail(error ?? new IserfsError('unreachable', 'the peer closed the connection during login'));
  }
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
