/**
 * The initiator's side of a login (RFC 7143 §6.3), sans-I/O: `start` makes the first Login Request,
 * `handleResponse` takes each answer and says what comes next. It starts in the security stage, with
 * AuthMethod=None where there are no credentials; over iSER it skips that stage then, as libiscsi and open-iscsi
 * do: what is over in one exchange cannot be abandoned half-way (peer-quirks.ts). It puts every operational key in
 * the first operational request, since some targets (LIO) fail a login in which a key that they proposed
 * themselves is not answered.
 *
 * After a throw the machine is of no use; the connection is to be dropped.
 */

import { IserfsError, ProtocolError } from '../../errors.ts';
import type { DataParameters, KeyOffers } from '../datamover/datamover.ts';
import { type BinaryEncoding, type ChapAlgorithm, type ChapCredentials, ChapInitiator } from './chap.ts';
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
import { loginError } from './login-status.ts';
import { type Portal, parseTargetAddress } from './name.ts';
import { Negotiation } from './negotiation.ts';
import { type Pdu, pdu } from './pdu.ts';
import { serialAdd } from './serial.ts';
import { checkNoRepeats, decodeText, encodeText, splitText, TextAssembler, type TextPair } from './text.ts';

/** How to authenticate. */
export interface ChapOptions {
  readonly credentials: ChapCredentials;
  /** What the target must prove in turn; a target that does not is refused. */
  readonly mutual?: ChapCredentials;
  /** Offered in this order; by default all, the strongest first. */
  readonly algorithms?: readonly ChapAlgorithm[];
  /** How our binary values are written; hexadecimal by default. */
  readonly encoding?: BinaryEncoding;
}

export interface InitiatorLoginOptions {
  readonly initiatorName: string;
  readonly sessionType: SessionType;
  /** Needed for a normal session. */
  readonly targetName?: string;
  /** 48 bits. */
  readonly isid: number;
  /** 0 for a new session, also for one that takes the place of an older one with the same ISID. */
  readonly tsih: number;
  readonly cid: number;
  /** The CmdSN of every request of the login, and of the first command after it. */
  readonly cmdSn: number;
  /** The task tag of every request of the login. */
  readonly initialItt: number;
  /** The data mover's keys. */
  readonly offers: KeyOffers;
  readonly sessionKeys?: Partial<SessionKeys>;
  readonly chap?: ChapOptions;
  /** Cryptographically strong random bytes. */
  readonly random: (length: number) => Uint8Array;
}

export type LoginStep =
  | { readonly type: 'send'; readonly pdu: Pdu<'login-request'> }
  | { readonly type: 'redirect'; readonly portal: Portal; readonly permanent: boolean }
  | { readonly type: 'complete'; readonly result: LoginResult };

export interface LoginResult {
  readonly tsih: number;
  /** The CmdSN of the first command. */
  readonly cmdSn: number;
  /** The StatSN that the target's next response has. */
  readonly expStatSn: number;
  /** As the target sent them: not necessarily sane, see `CommandWindow.update`. */
  readonly expCmdSn: number;
  readonly maxCmdSn: number;
  readonly keys: NegotiatedKeys;
  readonly data: DataParameters;
  readonly targetPortalGroupTag?: number;
  readonly targetAlias?: string;
  /** Whether we have proved who we are by CHAP. */
  readonly authenticated: boolean;
  /** Whether the target has proved who it is by CHAP. */
  readonly mutualAuthenticated: boolean;
}

type LoginState =
  | { readonly name: 'START' }
  /** AuthMethod was offered and not answered. */
  | { readonly name: 'AUTH_METHOD' }
  | { readonly name: 'CHAP'; readonly chap: ChapInitiator }
  /** The security stage is over for us; the target has not moved on yet. */
  | { readonly name: 'SECURITY_DONE' }
  | { readonly name: 'OPERATIONAL' }
  | { readonly name: 'ENDED' };

type LoginResponse = Pdu<'login-response'>;

export class InitiatorLogin {
  readonly #options: InitiatorLoginOptions;
  readonly #negotiation: Negotiation;
  readonly #assembler = new TextAssembler();
  #state: LoginState = { name: 'START' };
  #stage: LoginStage = Stage.security;
  /** Pieces of our text that wait for the target's go-ahead. */
  #unsent: Uint8Array[] = [];
  /** Whether the last piece asks to leave the stage. */
  #leaves = false;
  /** Whether the last request sent asked to. */
  #asked = false;
  #requests = 0;
  #expStatSn = 0;
  #authenticated = false;
  #mutualAuthenticated = false;
  /** The CHAP machine, once CHAP was agreed. */
  #chap: ChapInitiator | undefined;
  #chapRetry: readonly ChapAlgorithm[] | undefined;

  /** Throws `bad-configuration` where options contradict each other or a key is out of range. */
  constructor(options: InitiatorLoginOptions) {
    if (options.sessionType === 'normal' && options.targetName === undefined) {
      throw new IserfsError('bad-configuration', 'a normal session needs a target name');
    }
    this.#options = options;
    this.#negotiation = new Negotiation({
      role: 'initiator',
      sessionType: options.sessionType,
      wants: wantsOf(options.offers, options.sessionKeys),
    });
    if (options.chap !== undefined) this.#newChap(options.chap);
  }

  /**
   * Set after a throw where one more login, on a new connection and with these algorithms alone, may go
   * through: the target chose CHAP_A=7 and then called our proof faulty (status 0200, not 0201). By the
   * registry that is SHA-256, but tgtd (1.0.85, seen) means SHA-1 by it. Offering less gives nothing away: an
   * attacker who can alter CHAP_A needs no retry for it.
   */
  get chapRetry(): readonly ChapAlgorithm[] | undefined {
    return this.#chapRetry;
  }

  /** Whether CHAP is under way and not ended by the target: one that hangs up now has most likely refused our proof. */
  get isAuthenticating(): boolean {
    return this.#chap?.algorithm !== undefined && this.#stage === Stage.security;
  }

  /** The first request. Called once. */
  start(): Pdu<'login-request'> {
    if (this.#state.name !== 'START') throw new IserfsError('internal', 'the login was started before');
    const { initiatorName, sessionType, targetName } = this.#options;
    const pairs: TextPair[] = [['InitiatorName', initiatorName]];
    if (targetName !== undefined) pairs.push(['TargetName', targetName]);
    pairs.push(['SessionType', sessionType === 'normal' ? 'Normal' : 'Discovery']);
    if (this.#options.chap === undefined && isIser(this.#options.offers)) {
      this.#stage = Stage.operational;
      this.#state = { name: 'OPERATIONAL' };
      return this.#say([...pairs, ...this.#negotiation.offer()], true);
    }
    this.#state = { name: 'AUTH_METHOD' };
    return this.#say([...pairs, ['AuthMethod', this.#authMethods().join(',')]], true);
  }

  /**
   * The target's answer (its data borrowed until the call returns). Throws `LoginError` for a status other
   * than success and redirection; `authentication-failed` or `login-refused` where it is we who refuse;
   * `ProtocolError`.
   */
  handleResponse(response: LoginResponse): LoginStep {
    try {
      return this.#handle(response);
    } catch (error) {
      this.#state = { name: 'ENDED' };
      throw error;
    }
  }

  #handle(response: LoginResponse): LoginStep {
    const { name } = this.#state;
    if (name === 'START' || name === 'ENDED') throw new ProtocolError('a Login Response that nothing asked for', 'RFC 7143 §6.3');
    if (response.itt !== this.#options.initialItt) throw new ProtocolError('a Login Response to another task', 'RFC 7143 §11.13');
    if (response.statusClass === 1) return this.#redirect(response);
    if (response.statusClass !== 0) throw this.#refusal(response);
    this.#check(response);
    this.#expStatSn = serialAdd(response.statSn, 1);

    if (this.#unsent.length > 0) {
      if (response.data.length > 0 || response.continue || response.transit) {
        throw new ProtocolError('the target answers before it has our whole text', 'RFC 7143 §6.2');
      }
      return this.#sendNext();
    }
    const text = this.#assembler.add(response.data, response.continue);
    // Asks for the rest, with a request that says nothing.
    if (text === undefined) return { type: 'send', pdu: this.#say([], false) };

    const pairs = decodeText(text);
    checkNoRepeats(pairs);
    const answers =
      this.#stage === Stage.security ? this.#security(pairs, response.transit) : this.#operational(pairs, response.transit);
    return response.transit ? this.#transit(response) : { type: 'send', pdu: this.#say(answers.pairs, answers.leaves) };
  }

  // ---- stages ----

  #security(pairs: readonly TextPair[], transit: boolean): { pairs: TextPair[]; leaves: boolean } {
    const { security, others } = splitSecurityKeys(pairs);
    for (const [name] of others) {
      if (isKeyName(name) && !isDeclaration(rowOf(name)))
        throw new ProtocolError(`${name} in the security stage`, 'RFC 7143 §6.3');
    }
    const answers = this.#negotiation.receive(others);
    const method = security.get('AuthMethod');
    security.delete('AuthMethod');
    if (method !== undefined && this.#state.name !== 'AUTH_METHOD')
      throw new ProtocolError('AuthMethod is negotiated twice', 'RFC 7143 §6.3');
    if (this.#state.name === 'AUTH_METHOD') {
      if (security.size > 0) throw new ProtocolError('CHAP keys before CHAP was agreed', 'RFC 7143 §12.1.3');
      const chap = method !== undefined || transit ? this.#chooseMethod(method ?? 'None') : undefined;
      if (chap !== undefined && !transit) return { pairs: [...answers, ...chap.start()], leaves: false };
    } else if (security.size > 0) {
      answers.push(...this.#chapKeys(security));
    }
    if (transit) this.#checkSecurityIsDone();
    return { pairs: answers, leaves: true };
  }

  #chapKeys(keys: ReadonlyMap<string, string>): TextPair[] {
    if (this.#state.name !== 'CHAP') throw new ProtocolError('CHAP keys that nothing asked for', 'RFC 7143 §12.1.3');
    const { chap } = this.#state;
    const answers = chap.handle(keys);
    if (chap.isDone) {
      this.#authenticated = true;
      this.#mutualAuthenticated = this.#options.chap?.mutual !== undefined;
      this.#state = { name: 'SECURITY_DONE' };
    }
    return answers;
  }

  /** The machine to start where CHAP is chosen. */
  #chooseMethod(method: string): ChapInitiator | undefined {
    const { chap } = this.#options;
    const chosen = this.#authMethods().find((offered) => offered === method);
    if (chosen === 'CHAP' && chap !== undefined) {
      const machine = this.#newChap(chap);
      this.#state = { name: 'CHAP', chap: machine };
      this.#chap = machine;
      return machine;
    }
    if (chosen === 'None') {
      this.#state = { name: 'SECURITY_DONE' };
      return undefined;
    }
    if (chap?.mutual !== undefined && (method === 'None' || method === 'Reject')) {
      throw new IserfsError('authentication-failed', 'the target does not authenticate, and mutual CHAP was asked for', {
        hint: MUTUAL_HINT,
      });
    }
    if (chap === undefined) throw new IserfsError('authentication-failed', NO_CREDENTIALS, { hint: CREDENTIALS_HINT });
    if (method === 'Reject') {
      throw new IserfsError('authentication-failed', `the target takes no AuthMethod of ${this.#authMethods().join(', ')}`);
    }
    throw new ProtocolError(`AuthMethod=${method.slice(0, 100)} was not offered`, 'RFC 7143 §12.1');
  }

  #checkSecurityIsDone(): void {
    if (this.#state.name === 'SECURITY_DONE') return;
    if (this.#options.chap?.mutual !== undefined) {
      throw new IserfsError(
        'authentication-failed',
        'the target moved on without proving its identity, and mutual CHAP was asked for',
      );
    }
    throw new ProtocolError('the target leaves the security stage before its end', 'RFC 7143 §6.3');
  }

  #operational(pairs: readonly TextPair[], transit: boolean): { pairs: TextPair[]; leaves: boolean } {
    const { security, others } = splitSecurityKeys(pairs);
    // LIO answers AuthMethod=None even here, where nothing is lost by it.
    for (const [name, value] of security) {
      if (name !== 'AuthMethod' || value !== 'None') throw new ProtocolError(`${name} in the operational stage`, 'RFC 7143 §6.3');
    }
    const answers = this.#negotiation.receive(others);
    if (transit) {
      // An answer cannot be sent any more; that is well only where it would say nothing new.
      const offered = new Map(others);
      const lost = answers.find(([name, value]) => value !== offered.get(name) && value !== 'NotUnderstood');
      if (lost !== undefined)
        throw new ProtocolError(`the target ends the login with ${lost[0]} still to be answered`, 'RFC 7143 §6.3');
    }
    return { pairs: answers, leaves: true };
  }

  /** The target has granted the move that we asked for. */
  #transit(response: LoginResponse): LoginStep {
    if (this.#stage === Stage.security) {
      this.#stage = Stage.operational;
      this.#state = { name: 'OPERATIONAL' };
      return { type: 'send', pdu: this.#say(this.#negotiation.offer(), true) };
    }
    this.#state = { name: 'ENDED' };
    return { type: 'complete', result: this.#result(response) };
  }

  #result(response: LoginResponse): LoginResult {
    const { tsih, cmdSn, offers } = this.#options;
    if (response.tsih === 0 || (tsih !== 0 && tsih !== response.tsih)) {
      throw new ProtocolError(`TSIH ${response.tsih} at the end of a login`, 'RFC 7143 §11.13.3');
    }
    const keys = this.#negotiation.result();
    return {
      tsih: response.tsih,
      cmdSn,
      expStatSn: this.#expStatSn,
      expCmdSn: response.expCmdSn,
      maxCmdSn: response.maxCmdSn,
      keys,
      data: dataParameters('initiator', keys, offers),
      ...(keys.TargetPortalGroupTag === undefined ? {} : { targetPortalGroupTag: keys.TargetPortalGroupTag }),
      ...(keys.TargetAlias === undefined ? {} : { targetAlias: keys.TargetAlias }),
      authenticated: this.#authenticated,
      mutualAuthenticated: this.#mutualAuthenticated,
    };
  }

  // ---- requests and responses ----

  #say(pairs: readonly TextPair[], leaves: boolean): Pdu<'login-request'> {
    this.#unsent = splitText(encodeText(pairs), MAX_LOGIN_DATA);
    this.#leaves = leaves;
    return this.#sendNext().pdu;
  }

  #sendNext(): LoginStep & { type: 'send' } {
    if (++this.#requests > MAX_LOGIN_REQUESTS) throw new ProtocolError('the login does not come to an end', 'RFC 7143 §6.3');
    const [piece, ...rest] = this.#unsent;
    this.#unsent = rest;
    const { isid, tsih, cid, cmdSn, initialItt } = this.#options;
    const isLast = rest.length === 0;
    this.#asked = isLast && this.#leaves;
    const request = pdu({
      opcode: 'login-request',
      transit: this.#asked,
      continue: !isLast,
      csg: this.#stage,
      nsg: this.#asked ? (this.#stage === Stage.security ? Stage.operational : Stage.fullFeature) : 0,
      versionMax: ISCSI_VERSION,
      versionMin: ISCSI_VERSION,
      isid,
      tsih,
      itt: initialItt,
      cid,
      cmdSn,
      expStatSn: this.#expStatSn,
      ...(piece === undefined ? {} : { data: piece }),
    });
    return { type: 'send', pdu: request };
  }

  #check(response: LoginResponse): void {
    const { isid } = this.#options;
    const granted = this.#stage === Stage.security ? Stage.operational : Stage.fullFeature;
    const fault =
      response.versionActive !== ISCSI_VERSION
        ? `version ${response.versionActive}`
        : response.isid !== isid
          ? 'another ISID'
          : response.csg !== this.#stage
            ? `stage ${response.csg} instead of ${this.#stage}`
            : response.transit && response.continue
              ? 'T and C at once'
              : response.transit && !this.#asked
                ? 'T without being asked'
                : response.transit && response.nsg !== granted
                  ? `a move to stage ${response.nsg}`
                  : undefined;
    if (fault !== undefined) throw new ProtocolError(`a Login Response with ${fault}`, 'RFC 7143 §11.13');
  }

  #redirect(response: LoginResponse): LoginStep {
    const address = new Map(decodeText(response.data)).get('TargetAddress');
    const { statusClass, statusDetail } = response;
    if (address === undefined || (statusDetail !== 1 && statusDetail !== 2)) {
      throw loginError(statusClass, statusDetail, { explanation: 'the target does not say where to' });
    }
    this.#state = { name: 'ENDED' };
    return { type: 'redirect', portal: parseTargetAddress(address), permanent: statusDetail === 2 };
  }

  #refusal({ statusClass, statusDetail }: LoginResponse): Error {
    // tgtd answers with 0200 where it takes no algorithm, or a proof has not the length it expects.
    const isSecurity = statusClass === 2 && this.#stage === Stage.security && statusDetail <= 1;
    if (this.#chap !== undefined && isSecurity) return this.#chapRefusal(this.#chap, { statusClass, statusDetail });
    if (statusClass !== 2 || statusDetail !== 1) return loginError(statusClass, statusDetail);
    if (this.#options.chap === undefined) {
      return loginError(statusClass, statusDetail, { explanation: NO_CREDENTIALS, hint: CREDENTIALS_HINT });
    }
    const explanation = `the target takes no AuthMethod of ${this.#authMethods().join(', ')}`;
    return loginError(statusClass, statusDetail, {
      explanation,
      ...(this.#options.chap.mutual === undefined ? {} : { hint: MUTUAL_HINT }),
    });
  }

  /** The target ended the login while CHAP was under way. */
  #chapRefusal(chap: ChapInitiator, { statusClass, statusDetail }: { statusClass: number; statusDetail: number }): Error {
    const inWords = { code: 'authentication-failed', text: 'authentication failed' } as const;
    if (chap.algorithm === undefined) {
      const explanation = `the target takes none of the CHAP algorithms ${chap.offered.join(', ')}`;
      return loginError(statusClass, statusDetail, { ...inWords, explanation, hint: 'Allow one of them at the target.' });
    }
    const others = chap.offered.filter((algorithm) => algorithm !== 'SHA-256');
    if (statusDetail === 0 && chap.algorithm === 'SHA-256' && others.length > 0) this.#chapRetry = others;
    const explanation = 'the target does not take the CHAP user or secret';
    const mutual = this.#options.chap?.mutual !== undefined;
    const hint = mutual
      ? 'Check the CHAP users and secrets of both directions, and that the target is set up for mutual CHAP.'
      : 'Check the CHAP user and secret.';
    return loginError(statusClass, statusDetail, { ...inWords, explanation, hint });
  }

  #authMethods(): readonly string[] {
    const { chap } = this.#options;
    if (chap === undefined) return ['None'];
    return chap.mutual === undefined ? ['CHAP', 'None'] : ['CHAP'];
  }

  #newChap(chap: ChapOptions): ChapInitiator {
    return new ChapInitiator({ ...chap, random: this.#options.random });
  }
}

const MUTUAL_HINT = 'Set up CHAP in both directions at the target, or leave out the mutual credentials.';
const NO_CREDENTIALS = 'the target demands authentication, and there are no credentials';
const CREDENTIALS_HINT = 'Give a CHAP user and secret (--chap-user, --chap-secret-file, or the configuration file).';
