/**
 * CHAP (RFC 1994 as RFC 7143 §12.1.3 uses it): response values, the binary text formats, and one machine
 * for each side of the exchange of keys. Stages and PDUs are the login's. Secrets come in and never
 * leave: no error, log line or value made here holds a secret, a challenge or a response.
 */

import { createHash, timingSafeEqual } from 'node:crypto';
import { IserfsError, ProtocolError } from '../../errors.ts';
import { parseNumber } from './keys.ts';
import type { TextPair } from './text.ts';

/** The algorithms with their CHAP_A codes (IANA, PPP authentication algorithms), the strongest first. */
export const chapAlgorithms = {
  'SHA3-256': { code: 8, hash: 'sha3-256', digestLength: 32 },
  'SHA-256': { code: 7, hash: 'sha256', digestLength: 32 },
  SHA1: { code: 6, hash: 'sha1', digestLength: 20 },
  MD5: { code: 5, hash: 'md5', digestLength: 16 },
} as const satisfies Record<string, { code: number; hash: string; digestLength: number }>;
export type ChapAlgorithm = keyof typeof chapAlgorithms;

/** Every algorithm, in the order in which they are offered and taken. */
export const CHAP_ALGORITHMS_BY_STRENGTH = Object.keys(chapAlgorithms) as readonly ChapAlgorithm[];

/** A name and its secret. The secret's bytes are borrowed for as long as the machine lives. */
export interface ChapCredentials {
  readonly user: string;
  readonly secret: Uint8Array;
}

/** How binary values are written; both are read. */
export type BinaryEncoding = 'hex' | 'base64';

const CLAUSE = 'RFC 7143 §12.1.3';
/** Longest binary value that a peer may send, in bytes (RFC 7143 §12.1.3). */
const MAX_BINARY_LENGTH = 1024;
const CHALLENGE_LENGTH = 32;

/** H(identifier, secret, challenge) (RFC 1994 §4.1). Throws `unsupported` where this system has no such hash. */
export function chapResponse(
  algorithm: ChapAlgorithm,
  identifier: number,
  secret: Uint8Array,
  challenge: Uint8Array,
): Uint8Array {
  const hash = newHash(algorithm);
  if (hash === undefined) throw new IserfsError('unsupported', `this system's OpenSSL has no ${algorithm}`);
  return new Uint8Array(hash.update(Uint8Array.of(identifier)).update(secret).update(challenge).digest());
}

/** Whether a secret is shorter than the 96 bits that RFC 7143 §9.2.1 asks for. Many deployed targets use such; they work. */
export function isShortSecret(secret: Uint8Array): boolean {
  return secret.length < 12;
}

/** `0x` and hex digits, or `0b` and base64 (RFC 7143 §6.1). */
export function encodeBinary(value: Uint8Array, encoding: BinaryEncoding = 'hex'): string {
  const buffer = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return encoding === 'hex' ? `0x${buffer.toString('hex')}` : `0b${buffer.toString('base64')}`;
}

/** Reads a binary value. Undefined where it is malformed, empty or longer than `mostBytes`. */
export function decodeBinary(text: string, mostBytes: number = MAX_BINARY_LENGTH): Uint8Array | undefined {
  const prefix = text.slice(0, 2).toLowerCase();
  const digits = text.slice(2);
  if (digits === '' || digits.length > mostBytes * 2 + 2) return undefined;
  let value: Buffer | undefined;
  if (prefix === '0x' && /^[0-9a-f]+$/i.test(digits)) {
    value = Buffer.from(digits.length % 2 === 0 ? digits : `0${digits}`, 'hex');
  } else if (prefix === '0b' && /^[A-Za-z0-9+/]+={0,2}$/.test(digits) && digits.replace(/=+$/, '').length % 4 !== 1) {
    value = Buffer.from(digits, 'base64');
  }
  return value === undefined || value.length === 0 || value.length > mostBytes ? undefined : new Uint8Array(value);
}

export interface ChapInitiatorOptions {
  readonly credentials: ChapCredentials;
  /** What the target must prove in turn. */
  readonly mutual?: ChapCredentials;
  /** What is offered, in this order; by default every algorithm that this system has. */
  readonly algorithms?: readonly ChapAlgorithm[];
  readonly random: (length: number) => Uint8Array;
  readonly encoding?: BinaryEncoding;
}

type ChapInitiatorState =
  | { readonly name: 'START' }
  | { readonly name: 'OFFERED' }
  /** The target is still to prove itself with `expected`. */
  | { readonly name: 'ANSWERED'; readonly expected: Uint8Array }
  | { readonly name: 'DONE' };

/** The side that proves who it is first. */
export class ChapInitiator {
  readonly #options: ChapInitiatorOptions;
  readonly #offered: readonly ChapAlgorithm[];
  #state: ChapInitiatorState = { name: 'START' };
  #algorithm: ChapAlgorithm | undefined;

  /** Throws `bad-configuration` where both directions have the same secret, `unsupported` where no algorithm is left to offer. */
  constructor(options: ChapInitiatorOptions) {
    checkSecretsDiffer(options.credentials, options.mutual);
    this.#options = options;
    this.#offered = available(options.algorithms);
    if (this.#offered.length === 0)
      throw new IserfsError('unsupported', "this system's OpenSSL has none of the CHAP algorithms wanted");
  }

  /** Whether the exchange is over and everything asked for is proved. */
  get isDone(): boolean {
    return this.#state.name === 'DONE';
  }

  /** What is offered, the first choice first. */
  get offered(): readonly ChapAlgorithm[] {
    return this.#offered;
  }

  /** The algorithm that our proof was made with, once it was. */
  get algorithm(): ChapAlgorithm | undefined {
    return this.#algorithm;
  }

  /** The first keys: the algorithms offered. */
  start(): TextPair[] {
    this.#state = { name: 'OFFERED' };
    return [['CHAP_A', this.#offered.map((algorithm) => chapAlgorithms[algorithm].code).join(',')]];
  }

  /**
   * The target's CHAP keys of one text; returns what to send. Throws `authentication-failed` where the
   * target does not prove who it is, `ProtocolError` for anything out of place.
   */
  handle(keys: ReadonlyMap<string, string>): TextPair[] {
    switch (this.#state.name) {
      case 'OFFERED':
        return this.#answerChallenge(keys);
      case 'ANSWERED':
        this.#checkTarget(keys, this.#state.expected);
        return [];
      default:
        throw new ProtocolError('CHAP keys that nothing asked for', CLAUSE);
    }
  }

  #answerChallenge(keys: ReadonlyMap<string, string>): TextPair[] {
    refuseOthers(keys, ['CHAP_A', 'CHAP_I', 'CHAP_C']);
    const code = parseNumber(need(keys, 'CHAP_A'));
    const algorithm = this.#offered.find((offered) => chapAlgorithms[offered].code === code);
    if (algorithm === undefined) {
      throw new IserfsError('authentication-failed', `the target takes none of the CHAP algorithms ${this.#offered.join(', ')}`);
    }
    const identifier = needIdentifier(keys);
    const challenge = needBinary(keys, 'CHAP_C');
    this.#algorithm = algorithm;
    const { credentials, mutual, random, encoding } = this.#options;
    const answer: TextPair[] = [
      ['CHAP_N', credentials.user],
      ['CHAP_R', encodeBinary(chapResponse(algorithm, identifier, credentials.secret, challenge), encoding)],
    ];
    if (mutual === undefined) {
      this.#state = { name: 'DONE' };
      return answer;
    }
    const ours = makeChallenge(random, challenge);
    const ourIdentifier = random(1)[0] ?? 0;
    const expected = chapResponse(algorithm, ourIdentifier, mutual.secret, ours);
    this.#state = { name: 'ANSWERED', expected };
    return [...answer, ['CHAP_I', String(ourIdentifier)], ['CHAP_C', encodeBinary(ours, encoding)]];
  }

  #checkTarget(keys: ReadonlyMap<string, string>, expected: Uint8Array): void {
    refuseOthers(keys, ['CHAP_N', 'CHAP_R']);
    const user = need(keys, 'CHAP_N');
    if (!isProof(needBinary(keys, 'CHAP_R'), expected) || user !== this.#options.mutual?.user) {
      throw new IserfsError(
        'authentication-failed',
        'the target did not prove its identity: its CHAP name or secret is not the one configured',
        {
          hint: "Compare the mutual CHAP name and secret with the target's outgoing account.",
        },
      );
    }
    this.#state = { name: 'DONE' };
  }
}

export interface ChapTargetOptions {
  /** What the initiator must prove. */
  readonly credentials: ChapCredentials;
  /** What this target proves with, to an initiator that asks. */
  readonly mutual?: ChapCredentials;
  readonly algorithms?: readonly ChapAlgorithm[];
  readonly random: (length: number) => Uint8Array;
  readonly encoding?: BinaryEncoding;
}

type ChapTargetState =
  | { readonly name: 'AWAITING_OFFER' }
  | {
      readonly name: 'CHALLENGED';
      readonly algorithm: ChapAlgorithm;
      readonly identifier: number;
      readonly challenge: Uint8Array;
    }
  | { readonly name: 'DONE' };

/** The side that challenges first. Every failure is `authentication-failed`, with no word on whether name or secret was wrong. */
export class ChapTarget {
  readonly #options: ChapTargetOptions;
  readonly #accepted: readonly ChapAlgorithm[];
  #state: ChapTargetState = { name: 'AWAITING_OFFER' };

  /** Throws `bad-configuration` where both directions have the same secret. */
  constructor(options: ChapTargetOptions) {
    checkSecretsDiffer(options.credentials, options.mutual);
    this.#options = options;
    this.#accepted = available(options.algorithms);
  }

  get isDone(): boolean {
    return this.#state.name === 'DONE';
  }

  /** The initiator's CHAP keys of one text; returns what to answer. */
  handle(keys: ReadonlyMap<string, string>): TextPair[] {
    switch (this.#state.name) {
      case 'AWAITING_OFFER':
        return this.#challenge(keys);
      case 'CHALLENGED':
        return this.#check(keys, this.#state);
      case 'DONE':
        throw new ProtocolError('CHAP keys after the exchange', CLAUSE);
    }
  }

  #challenge(keys: ReadonlyMap<string, string>): TextPair[] {
    refuseOthers(keys, ['CHAP_A']);
    const offered = need(keys, 'CHAP_A').split(',').map(parseNumber);
    const algorithm = offered
      .map((code) => this.#accepted.find((accepted) => chapAlgorithms[accepted].code === code))
      .find((found) => found !== undefined);
    if (algorithm === undefined) throw new IserfsError('authentication-failed', 'no CHAP algorithm in common');
    const { random, encoding } = this.#options;
    const identifier = random(1)[0] ?? 0;
    const challenge = makeChallenge(random, undefined);
    this.#state = { name: 'CHALLENGED', algorithm, identifier, challenge };
    return [
      ['CHAP_A', String(chapAlgorithms[algorithm].code)],
      ['CHAP_I', String(identifier)],
      ['CHAP_C', encodeBinary(challenge, encoding)],
    ];
  }

  #check(keys: ReadonlyMap<string, string>, state: ChapTargetState & { name: 'CHALLENGED' }): TextPair[] {
    refuseOthers(keys, ['CHAP_N', 'CHAP_R', 'CHAP_I', 'CHAP_C']);
    const { credentials, mutual, encoding } = this.#options;
    const { algorithm, identifier, challenge } = state;
    const user = need(keys, 'CHAP_N');
    const expected = chapResponse(algorithm, identifier, credentials.secret, challenge);
    if (!isProof(needBinary(keys, 'CHAP_R'), expected) || user !== credentials.user) {
      throw new IserfsError('authentication-failed', 'the initiator did not prove its identity');
    }
    this.#state = { name: 'DONE' };
    if (!keys.has('CHAP_I') && !keys.has('CHAP_C')) return [];
    const theirs = needBinary(keys, 'CHAP_C');
    // A challenge sent back would make us compute the answer to it (RFC 7143 §12.1.3).
    if (isProof(theirs, challenge)) throw new IserfsError('authentication-failed', 'the initiator sent our own challenge back');
    if (mutual === undefined)
      throw new IserfsError('authentication-failed', 'the initiator asks for a proof, and there are no credentials for it');
    return [
      ['CHAP_N', mutual.user],
      ['CHAP_R', encodeBinary(chapResponse(algorithm, needIdentifier(keys), mutual.secret, theirs), encoding)],
    ];
  }
}

function newHash(algorithm: ChapAlgorithm): ReturnType<typeof createHash> | undefined {
  try {
    return createHash(chapAlgorithms[algorithm].hash);
  } catch {
    return undefined;
  }
}

/** `wanted` without what this system's OpenSSL does not have (MD5 under a FIPS policy). */
function available(wanted: readonly ChapAlgorithm[] = CHAP_ALGORITHMS_BY_STRENGTH): readonly ChapAlgorithm[] {
  return wanted.filter((algorithm) => newHash(algorithm) !== undefined);
}

/** One secret for both directions lets either side answer its own challenges (RFC 7143 §12.1.3). */
function checkSecretsDiffer(one: ChapCredentials, other: ChapCredentials | undefined): void {
  if (other === undefined || !isProof(one.secret, other.secret)) return;
  throw new IserfsError('bad-configuration', 'the CHAP secrets of the two directions are the same', {
    hint: 'Give the initiator and the target different secrets.',
  });
}

function makeChallenge(random: (length: number) => Uint8Array, unlike: Uint8Array | undefined): Uint8Array {
  const challenge = random(CHALLENGE_LENGTH).slice();
  if (unlike !== undefined && isProof(challenge, unlike)) challenge[0] = (challenge[0] ?? 0) ^ 1;
  return challenge;
}

/** Compares in a time that does not depend on the contents. */
function isProof(given: Uint8Array, expected: Uint8Array): boolean {
  return given.length === expected.length && timingSafeEqual(given, expected);
}

function refuseOthers(keys: ReadonlyMap<string, string>, allowed: readonly string[]): void {
  for (const key of keys.keys()) {
    if (!allowed.includes(key)) throw new ProtocolError(`${key} has no place here`, CLAUSE);
  }
}

function need(keys: ReadonlyMap<string, string>, key: string): string {
  const value = keys.get(key);
  if (value === undefined || value === '') throw new ProtocolError(`${key} is missing`, CLAUSE);
  return value;
}

function needBinary(keys: ReadonlyMap<string, string>, key: string): Uint8Array {
  const value = decodeBinary(need(keys, key));
  if (value === undefined) throw new ProtocolError(`${key} is malformed or too long`, CLAUSE);
  return value;
}

function needIdentifier(keys: ReadonlyMap<string, string>): number {
  const value = parseNumber(need(keys, 'CHAP_I'));
  if (value === undefined || value > 255) throw new ProtocolError('CHAP_I is not a number of one byte', CLAUSE);
  return value;
}
