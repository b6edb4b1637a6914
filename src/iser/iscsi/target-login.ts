/**
 * The target's side of a login (RFC 7143 §6.3), sans-I/O: one `handleRequest` per Login Request, each with
 * the response to send. Which targets there are, who may log in, TSIHs and what becomes of older sessions
 * are its owner's affair, asked for by `accept` once the first text has said who wants what.
 */

import { IserfsError, ProtocolError } from '../../errors.ts';
import type { DataParameters, KeyOffers } from '../datamover/datamover.ts';
import { type ChapAlgorithm, type ChapCredentials, ChapTarget } from './chap.ts';
import { isDeclaration, isKeyName, type NegotiatedKeys, rowOf } from './keys.ts';
import {
  dataParameters,
  ISCSI_VERSION,
  isIser,
  type LoginStage,
  MAX_LOGIN_DATA,
  MAX_LOGIN_REQUESTS,
  type SessionKeys,
  type SessionType,
  Stage,
  splitSecurityKeys,
  wantsOf,
} from './login-exchange.ts';
import { LoginStatus } from './login-status.ts';
import { isValidIscsiName } from './name.ts';
import { Negotiation } from './negotiation.ts';
import { type Pdu, pdu } from './pdu.ts';
import { serialAdd } from './serial.ts';
import { checkNoRepeats, decodeText, encodeText, splitText, TextAssembler, type TextPair } from './text.ts';

/** Who wants to log in, to what. */
export interface TargetLoginRequest {
  readonly initiatorName: string;
  /** Set for a normal session. */
  readonly targetName?: string;
  readonly sessionType: SessionType;
  readonly isid: number;
  readonly tsih: number;
  readonly cid: number;
}

export type TargetLoginDecision =
  | {
      readonly ok: true;
      /** The session's handle, not 0. Goes to the initiator when the login has succeeded. */
      readonly tsih: number;
      readonly tpgt: number;
      /** What the initiator must prove, and what this target proves with where it is asked to. */
      readonly chap?: { readonly credentials: ChapCredentials; readonly mutual?: ChapCredentials };
    }
  | {
      readonly ok: false;
      readonly statusClass: number;
      readonly statusDetail: number;
      /** For class 1: `HOST:PORT` of where to go. */
      readonly targetAddress?: string;
    };

export interface TargetLoginOptions {
  readonly accept: (request: TargetLoginRequest) => TargetLoginDecision;
  /** The data mover's keys. */
  readonly offers: (sessionType: SessionType) => KeyOffers;
  readonly sessionKeys?: Partial<SessionKeys>;
  readonly algorithms?: readonly ChapAlgorithm[];
  readonly targetAlias?: string;
  /** Commands that the initiator may send after login before it hears of a larger window; 1 by default. */
  readonly windowSize?: number;
  /** Cryptographically strong random bytes. */
  readonly random: (length: number) => Uint8Array;
}

export interface TargetLoginResult extends TargetLoginRequest {
  /** The session's handle, as `accept` gave it. */
  readonly tsih: number;
  /** The CmdSN of the first command. */
  readonly cmdSn: number;
  readonly expCmdSn: number;
  /** The StatSN of the next response. */
  readonly statSn: number;
  readonly keys: NegotiatedKeys;
  /** Seen from the target. */
  readonly data: DataParameters;
  readonly initiatorAlias?: string;
  readonly authenticated: boolean;
}

export interface TargetLoginStep {
  /** The response to send, also after failure; the connection is closed after that. */
  readonly pdu: Pdu<'login-response'>;
  /** Set with the last response of a login that succeeded. */
  readonly complete?: TargetLoginResult;
  readonly failed?: boolean;
  /** Why it failed, for the log; holds no secret. */
  readonly reason?: string;
}

/** What is known once the first text has come. */
interface Accepted {
  readonly request: TargetLoginRequest;
  readonly decision: TargetLoginDecision & { ok: true };
  readonly offers: KeyOffers;
  readonly negotiation: Negotiation;
}

type LoginState =
  | { readonly name: 'START' }
  | { readonly name: 'AUTH_METHOD' }
  | { readonly name: 'CHAP'; readonly chap: ChapTarget }
  | { readonly name: 'SECURITY_DONE' }
  | { readonly name: 'OPERATIONAL' }
  | { readonly name: 'ENDED' };

type LoginRequest = Pdu<'login-request'>;
type Status = { readonly statusClass: number; readonly statusDetail: number };

/** Ends a login with a status; only inside this file. */
class Refusal extends Error {
  readonly status: Status;
  readonly data: Uint8Array | undefined;

  constructor(status: Status, reason: string, data?: Uint8Array) {
    super(reason);
    this.status = status;
    this.data = data;
  }
}

export class TargetLogin {
  readonly #options: TargetLoginOptions;
  readonly #assembler = new TextAssembler();
  #state: LoginState = { name: 'START' };
  #stage: LoginStage = Stage.security;
  #first: LoginRequest | undefined;
  #accepted: Accepted | undefined;
  #unsent: Uint8Array[] = [];
  #requests = 0;
  #statSn = 1;
  #authenticated = false;

  constructor(options: TargetLoginOptions) {
    this.#options = options;
  }

  /** The initiator's next request (its data borrowed until the call returns). Faults of the initiator end in a response with `failed`. */
  handleRequest(request: LoginRequest): TargetLoginStep {
    try {
      return this.#handle(request);
    } catch (error) {
      this.#state = { name: 'ENDED' };
      return this.#fail(request, error);
    }
  }

  #handle(request: LoginRequest): TargetLoginStep {
    this.#check(request);
    if (this.#unsent.length > 0) {
      if (request.data.length > 0 || request.continue) {
        throw new ProtocolError('the initiator speaks before it has our whole text', 'RFC 7143 §6.2');
      }
      return this.#sendNext(request);
    }
    const text = this.#assembler.add(request.data, request.continue);
    if (text === undefined) return { pdu: this.#response(request, {}) };
    const pairs = decodeText(text);
    checkNoRepeats(pairs);
    const accepted = this.#accepted ?? this.#accept(request, pairs);
    const answers: TextPair[] = [];
    if (this.#accepted === undefined) {
      this.#accepted = accepted;
      answers.push(...this.#introduction(accepted));
    }
    answers.push(
      ...(this.#stage === Stage.security ? this.#security(accepted, request, pairs) : this.#operational(accepted, pairs)),
    );
    this.#unsent = splitText(encodeText(answers), MAX_LOGIN_DATA);
    return this.#sendNext(request);
  }

  // ---- the first text ----

  #accept(first: LoginRequest, pairs: readonly TextPair[]): Accepted {
    const keys = new Map(pairs);
    const initiatorName = keys.get('InitiatorName');
    const targetName = keys.get('TargetName');
    const sessionType = SESSION_TYPES.get(keys.get('SessionType') ?? 'Normal');
    if (initiatorName === undefined) throw new Refusal(LoginStatus.missingParameter, 'InitiatorName is missing');
    if (!isValidIscsiName(initiatorName)) throw new Refusal(LoginStatus.initiatorError, 'InitiatorName is no iSCSI name');
    if (sessionType === undefined) throw new Refusal(LoginStatus.unsupportedSessionType, 'unknown SessionType');
    if (sessionType === 'normal' && targetName === undefined)
      throw new Refusal(LoginStatus.missingParameter, 'TargetName is missing');
    const request: TargetLoginRequest = {
      initiatorName,
      ...(sessionType === 'normal' && targetName !== undefined ? { targetName } : {}),
      sessionType,
      isid: first.isid,
      tsih: first.tsih,
      cid: first.cid,
    };
    const decision = this.#options.accept(request);
    if (!decision.ok) {
      const { targetAddress } = decision;
      const data = targetAddress === undefined ? undefined : encodeText([['TargetAddress', targetAddress]]);
      throw new Refusal(decision, 'refused', data);
    }
    const offers = this.#options.offers(sessionType);
    const helloKey = isIser(offers) ? { iSERHelloRequired: 'No' } : {};
    const wants = { ...wantsOf(offers, this.#options.sessionKeys), ...helloKey };
    const negotiation = new Negotiation({ role: 'target', sessionType, wants });
    if (decision.chap !== undefined && this.#stage !== Stage.security) {
      throw new Refusal(LoginStatus.authenticationFailed, 'the initiator skips authentication');
    }
    this.#state = this.#stage === Stage.security ? { name: 'AUTH_METHOD' } : { name: 'OPERATIONAL' };
    return { request, decision, offers, negotiation };
  }

  /** What the first answer says of this target (RFC 7143 §13.9 for the portal group tag). */
  #introduction({ request, decision }: Accepted): TextPair[] {
    if (request.sessionType === 'discovery') return [];
    const { targetAlias } = this.#options;
    const pairs: TextPair[] = [['TargetPortalGroupTag', String(decision.tpgt)]];
    if (targetAlias !== undefined) pairs.push(['TargetAlias', targetAlias]);
    return pairs;
  }

  // ---- stages ----

  #security(accepted: Accepted, request: LoginRequest, pairs: readonly TextPair[]): TextPair[] {
    const { security, others } = splitSecurityKeys(pairs);
    for (const [name] of others) {
      if (isKeyName(name) && !isDeclaration(rowOf(name)))
        throw new ProtocolError(`${name} in the security stage`, 'RFC 7143 §6.3');
    }
    const answers = accepted.negotiation.receive(others);
    const methods = security.get('AuthMethod');
    security.delete('AuthMethod');
    if (methods !== undefined) {
      if (this.#state.name !== 'AUTH_METHOD') throw new ProtocolError('AuthMethod is negotiated twice', 'RFC 7143 §6.3');
      answers.push(['AuthMethod', this.#chooseMethod(accepted, methods.split(','))]);
    }
    if (security.size > 0) {
      if (this.#state.name !== 'CHAP') throw new ProtocolError('CHAP keys before CHAP was agreed', 'RFC 7143 §12.1.3');
      const { chap } = this.#state;
      answers.push(...chap.handle(security));
      if (chap.isDone) {
        this.#authenticated = true;
        this.#state = { name: 'SECURITY_DONE' };
      }
    } else if (this.#state.name === 'AUTH_METHOD' && request.transit) {
      // Leaving without a word on authentication is as good as AuthMethod=None.
      this.#chooseMethod(accepted, ['None']);
    }
    return answers;
  }

  #chooseMethod({ decision }: Accepted, methods: readonly string[]): string {
    const wanted = decision.chap === undefined ? 'None' : 'CHAP';
    if (!methods.includes(wanted))
      throw new Refusal(LoginStatus.authenticationFailed, `the initiator does not offer AuthMethod=${wanted}`);
    if (decision.chap === undefined) {
      this.#state = { name: 'SECURITY_DONE' };
    } else {
      const { algorithms, random } = this.#options;
      const chap = new ChapTarget({ ...decision.chap, random, ...(algorithms === undefined ? {} : { algorithms }) });
      this.#state = { name: 'CHAP', chap };
    }
    return wanted;
  }

  #operational({ negotiation }: Accepted, pairs: readonly TextPair[]): TextPair[] {
    const { security, others } = splitSecurityKeys(pairs);
    for (const name of security.keys()) throw new ProtocolError(`${name} in the operational stage`, 'RFC 7143 §6.3');
    return [...negotiation.receive(others), ...negotiation.supplement()];
  }

  // ---- responses ----

  #sendNext(request: LoginRequest): TargetLoginStep {
    const [piece, ...rest] = this.#unsent;
    this.#unsent = rest;
    const data = piece === undefined ? {} : { data: piece };
    if (rest.length > 0) return { pdu: this.#response(request, { continue: true, ...data }) };
    if (!request.transit || !this.#isStageDone()) return { pdu: this.#response(request, data) };
    if (request.nsg === Stage.operational) {
      const response = this.#response(request, { transit: true, nsg: request.nsg, ...data });
      this.#stage = Stage.operational;
      this.#state = { name: 'OPERATIONAL' };
      return { pdu: response };
    }
    const accepted = this.#accepted as Accepted;
    // Throws where the outcome will not do, before the initiator is told that all is well.
    const keys = accepted.negotiation.result();
    const { tsih } = accepted.decision;
    const response = this.#response(request, { transit: true, nsg: request.nsg, tsih, ...data });
    this.#state = { name: 'ENDED' };
    return { pdu: response, complete: this.#result(accepted, keys, request) };
  }

  #isStageDone(): boolean {
    if (this.#stage === Stage.security) return this.#state.name === 'SECURITY_DONE';
    return this.#accepted?.negotiation.isWaiting === false;
  }

  #result({ request, decision, offers }: Accepted, keys: NegotiatedKeys, last: LoginRequest): TargetLoginResult {
    return {
      ...request,
      tsih: decision.tsih,
      cmdSn: last.cmdSn,
      expCmdSn: last.cmdSn,
      statSn: this.#statSn,
      keys,
      data: dataParameters('target', keys, offers),
      ...(keys.InitiatorAlias === undefined ? {} : { initiatorAlias: keys.InitiatorAlias }),
      authenticated: this.#authenticated,
    };
  }

  #check(request: LoginRequest): void {
    if (this.#state.name === 'ENDED')
      throw new Refusal(LoginStatus.invalidDuringLogin, 'a Login Request after the end of the login');
    if (++this.#requests > MAX_LOGIN_REQUESTS) throw new ProtocolError('the login does not come to an end', 'RFC 7143 §6.3');
    if (request.versionMin > ISCSI_VERSION) throw new Refusal(LoginStatus.unsupportedVersion, `version ${request.versionMin}`);
    if (this.#first === undefined) {
      if (request.csg !== Stage.security && request.csg !== Stage.operational)
        throw new ProtocolError(`stage ${request.csg} at first`, CLAUSE);
      this.#first = { ...request, data: request.data.slice(0, 0) };
      this.#stage = request.csg;
    }
    const { isid, tsih, cid } = this.#first;
    const fault =
      request.isid !== isid || request.tsih !== tsih || request.cid !== cid
        ? 'another ISID, TSIH or CID'
        : request.csg !== this.#stage
          ? `stage ${request.csg} instead of ${this.#stage}`
          : request.transit && request.continue
            ? 'T and C at once'
            : request.transit && (request.nsg <= request.csg || request.nsg === 2)
              ? `a move from stage ${request.csg} to ${request.nsg}`
              : undefined;
    if (fault !== undefined) throw new ProtocolError(`a Login Request with ${fault}`, CLAUSE);
  }

  #response(request: LoginRequest, fields: Partial<Omit<Pdu<'login-response'>, 'opcode'>>): Pdu<'login-response'> {
    const statSn = this.#statSn;
    this.#statSn = serialAdd(statSn, 1);
    return pdu({
      opcode: 'login-response',
      csg: this.#stage,
      versionMax: ISCSI_VERSION,
      versionActive: ISCSI_VERSION,
      isid: request.isid,
      tsih: request.tsih,
      itt: request.itt,
      statSn,
      expCmdSn: request.cmdSn,
      maxCmdSn: serialAdd(request.cmdSn, (this.#options.windowSize ?? 1) - 1),
      ...fields,
    });
  }

  /** What is no `IserfsError` is a fault of ours and thrown on. */
  #fail(request: LoginRequest, error: unknown): TargetLoginStep {
    const status = statusFor(error);
    if (status === undefined) throw error;
    const { statusClass, statusDetail } = status;
    const data = error instanceof Refusal && error.data !== undefined ? { data: error.data } : {};
    return {
      pdu: this.#response(request, { csg: request.csg, statusClass, statusDetail, ...data }),
      failed: true,
      reason: error instanceof Error ? error.message : String(error),
    };
  }
}

const CLAUSE = 'RFC 7143 §11.12';
const SESSION_TYPES: ReadonlyMap<string, SessionType> = new Map([
  ['Normal', 'normal'],
  ['Discovery', 'discovery'],
]);

function statusFor(error: unknown): Status | undefined {
  if (error instanceof Refusal) return error.status;
  if (error instanceof ProtocolError) return LoginStatus.initiatorError;
  if (!(error instanceof IserfsError)) return undefined;
  if (error.code === 'authentication-failed') return LoginStatus.authenticationFailed;
  return error.code === 'login-refused' ? LoginStatus.initiatorError : LoginStatus.targetError;
}
