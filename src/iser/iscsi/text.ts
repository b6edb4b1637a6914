/**
 * Text of Login and Text PDUs (RFC 7143 §6.1): `key=value` pairs, each ended by a NUL, and its division
 * over several PDUs by the C bit. Knows the format, no key's meaning.
 */

import { ProtocolError } from '../../errors.ts';

/** Longest key name, in bytes (RFC 7143 §6.1). */
export const MAX_KEY_LENGTH = 63;
/** What a TextAssembler takes unless told otherwise, in bytes. */
export const DEFAULT_TEXT_LIMIT = 64 * 1024;

export type TextPair = readonly [key: string, value: string];

const NUL = 0;
const EQUALS = 0x3d;
/** A key name: a letter, then letters, digits and `.-+@_` (RFC 7143 §6.1), and what vendor prefixes use. */
const KEY_NAME = /^[A-Za-z][A-Za-z0-9.\-+@_/#]*$/;

/** The bytes of `pairs`, in order. Throws RangeError for a NUL, or for what is no key name. */
export function encodeText(pairs: readonly TextPair[]): Uint8Array<ArrayBuffer> {
  let text = '';
  for (const [key, value] of pairs) {
    if (!isKeyName(key)) throw new RangeError(`"${key}" is no key name`);
    if (value.includes('\0')) throw new RangeError(`the value of ${key} has a NUL`);
    text += `${key}=${value}\0`;
  }
  return new TextEncoder().encode(text);
}

/**
 * The pairs of `bytes`, in order; a key may come again, as TargetAddress does in the answer to
 * SendTargets (where it must not, see `checkNoRepeats`). Empty pieces (targets that pad with NULs) are
 * skipped, and the last NUL may be missing. Throws `ProtocolError` for a piece without `=`, for a key
 * that is no key name and for text that is not UTF-8; no message repeats a value.
 */
export function decodeText(bytes: Uint8Array): [key: string, value: string][] {
  const pairs: [string, string][] = [];
  for (let start = 0; start < bytes.length; ) {
    const nul = bytes.indexOf(NUL, start);
    const end = nul < 0 ? bytes.length : nul;
    if (end > start) pairs.push(decodePair(bytes.subarray(start, end)));
    start = end + 1;
  }
  return pairs;
}

/** Throws `ProtocolError` where a key comes twice, which no negotiation allows (RFC 7143 §6.3). */
export function checkNoRepeats(pairs: readonly TextPair[]): void {
  const seen = new Set<string>();
  for (const [key] of pairs) {
    if (seen.has(key)) throw new ProtocolError(`${key} comes twice`, 'RFC 7143 §6.3');
    seen.add(key);
  }
}

/** `bytes` in pieces (views) of at most `maxLength`, cut anywhere; one empty piece where there is no text. */
export function splitText(bytes: Uint8Array, maxLength: number): Uint8Array[] {
  if (!(maxLength > 0)) throw new RangeError(`pieces of ${maxLength} bytes`);
  const pieces: Uint8Array[] = [];
  for (let start = 0; start < bytes.length; start += maxLength) pieces.push(bytes.subarray(start, start + maxLength));
  return pieces.length === 0 ? [bytes] : pieces;
}

/** Puts text together that came in several PDUs. Holds at most `limit` bytes. */
export class TextAssembler {
  readonly #limit: number;
  #pieces: Uint8Array[] = [];
  #length = 0;

  constructor(limit: number = DEFAULT_TEXT_LIMIT) {
    this.#limit = limit;
  }

  /** Whether text was added that is not complete yet. */
  get isPartial(): boolean {
    return this.#pieces.length > 0;
  }

  /**
   * Adds a PDU's data segment (borrowed; copied where it must be kept); `continues` is its C bit. Returns the text
   * once it is complete, `data` itself where one PDU held it all. Throws `ProtocolError` beyond the limit.
   */
  add(data: Uint8Array, continues: boolean): Uint8Array | undefined {
    this.#length += data.length;
    if (this.#length > this.#limit) {
      throw new ProtocolError(`text of more than ${this.#limit} bytes`, 'RFC 7143 §6.2');
    }
    if (!continues && !this.isPartial) {
      this.#length = 0;
      return data;
    }
    this.#pieces.push(data.slice());
    if (continues) return undefined;
    const whole = new Uint8Array(this.#length);
    let at = 0;
    for (const piece of this.#pieces) {
      whole.set(piece, at);
      at += piece.length;
    }
    this.#pieces = [];
    this.#length = 0;
    return whole;
  }
}

function decodePair(piece: Uint8Array): [string, string] {
  const equals = piece.indexOf(EQUALS);
  if (equals < 0) throw new ProtocolError('text without "="', 'RFC 7143 §6.1');
  // A key name is ASCII; what is not fails the test below, after a bound on what a message may quote.
  const key = String.fromCharCode(...piece.subarray(0, Math.min(equals, MAX_KEY_LENGTH + 1)));
  if (!isKeyName(key)) throw new ProtocolError(`${JSON.stringify(key)} is no key name`, 'RFC 7143 §6.1');
  try {
    return [key, new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(piece.subarray(equals + 1))];
  } catch {
    throw new ProtocolError(`the value of ${key} is not UTF-8`, 'RFC 7143 §6.1');
  }
}

function isKeyName(key: string): boolean {
  return key.length <= MAX_KEY_LENGTH && KEY_NAME.test(key);
}
