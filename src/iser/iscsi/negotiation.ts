/**
 * The operational negotiation of a login (RFC 7143 §6.2, §6.3), one engine for both roles over the table
 * in keys.ts. It is given what this side wants, says what to offer, answers what the peer offers, and
 * knows what has been agreed in the end. Stages, PDUs and security are login.ts's.
 */

import { IserfsError, ProtocolError } from '../../errors.ts';
import {
  formatValue,
  isDeclaration,
  isKeyName,
  type KeyName,
  type KeyRow,
  keyTable,
  type NegotiatedKeys,
  parseValue,
  rowOf,
} from './keys.ts';
import type { TextPair } from './text.ts';

/** What this side wants, as key texts: a value, or for a list key the values that it takes, best first. */
export type Wants = Readonly<Record<string, string>>;

type Value = boolean | number | string;

/** An offer of ours that was not answered with a value. */
const CONSTANTS: ReadonlySet<string> = new Set(['NotUnderstood', 'Irrelevant', 'Reject']);

export interface NegotiationOptions {
  readonly role: 'initiator' | 'target';
  readonly sessionType: 'normal' | 'discovery';
  /** Throws `bad-configuration` where a value is out of its key's range. */
  readonly wants: Wants;
}

export class Negotiation {
  readonly #role: 'initiator' | 'target';
  readonly #discovery: boolean;
  readonly #wants = new Map<KeyName, Value>();
  /** Offers of ours that the peer has still to answer. */
  readonly #open = new Map<KeyName, Value>();
  readonly #agreed = new Map<KeyName, Value>();
  /** The peer's declarations. */
  readonly #declared = new Map<KeyName, Value>();
  /** Keys whose negotiation is over, or that we have said all about that we have to say. */
  readonly #said = new Set<KeyName>();

  constructor(options: NegotiationOptions) {
    this.#role = options.role;
    this.#discovery = options.sessionType === 'discovery';
    for (const [name, text] of Object.entries(options.wants)) {
      const value = isKeyName(name) ? parseValue(rowOf(name), text) : undefined;
      if (!isKeyName(name) || value === undefined)
        throw new IserfsError('bad-configuration', `${name}=${text} is no value for ${name}`);
      this.#wants.set(name, value);
    }
  }

  /** Whether an offer of ours is not answered yet. */
  get isWaiting(): boolean {
    return this.#open.size > 0;
  }

  /** Everything that we want and that was not said before: an initiator's first text of the stage. */
  offer(): TextPair[] {
    return [...this.#wants.keys()].filter((name) => this.#mayOffer(name)).map((name) => this.#say(name));
  }

  /**
   * What a target adds to its answers: its declarations, and offers of its own where the initiator has
   * left out a key that this side insists on and the default will not do.
   */
  supplement(): TextPair[] {
    const isNeeded = (name: KeyName) => {
      const row = rowOf(name);
      return isDeclaration(row) || (row.insisted === true && !satisfies(row, row.initial, this.#wants.get(name)));
    };
    return [...this.#wants.keys()].filter((name) => this.#mayOffer(name) && isNeeded(name)).map((name) => this.#say(name));
  }

  /**
   * Takes in the peer's pairs of one text (no key twice in it); returns our answers. Throws `ProtocolError`
   * for an answer outside what was offered, for a key that was settled before, and for one that the peer
   * may not send. Messages hold no value longer than 100 characters.
   */
  receive(pairs: readonly TextPair[]): TextPair[] {
    const answers: TextPair[] = [];
    for (const [name, text] of pairs) {
      const answer = this.#receiveOne(name, text);
      if (answer !== undefined) answers.push([name, answer]);
    }
    return answers;
  }

  /** What holds now. Throws `login-refused` where the peer did not take what this side insists on. */
  result(): NegotiatedKeys {
    const keys: Record<string, Value | undefined> = {};
    for (const name of Object.keys(keyTable) as KeyName[]) {
      const row = rowOf(name);
      const outcome = isDeclaration(row) ? this.#declared.get(name) : (this.#agreed.get(name) ?? this.#settledByOffer(name, row));
      keys[name] = outcome ?? row.initial;
      this.#insist(name, row, keys[name]);
    }
    return keys as NegotiatedKeys;
  }

  /** An offer that leaves the peer no choice need not be answered (RFC 7143 §6.2.2); LIO does not answer it. */
  #settledByOffer(name: KeyName, row: KeyRow): Value | undefined {
    const offered = this.#open.get(name);
    return (row.rule === 'and' && offered === false) || (row.rule === 'or' && offered === true) ? offered : undefined;
  }

  #receiveOne(name: string, text: string): string | undefined {
    if (!isKeyName(name)) {
      // A constant answers something; it is never answered in turn (RFC 7143 §6.2).
      return CONSTANTS.has(text) ? undefined : 'NotUnderstood';
    }
    const row = rowOf(name);
    if (isDeclaration(row)) {
      // The declaration of ours that a peer does not know: nothing holds then.
      if (CONSTANTS.has(text) && this.#said.has(name)) return undefined;
      this.#receiveDeclaration(name, row, text);
      return undefined;
    }
    const offered = this.#open.get(name);
    if (offered !== undefined) {
      this.#open.delete(name);
      this.#receiveAnswer(name, row, offered, text);
      return undefined;
    }
    if (this.#said.has(name)) throw new ProtocolError(`${name} is negotiated twice`, 'RFC 7143 §6.3');
    this.#said.add(name);
    return this.#answer(name, row, text);
  }

  #receiveDeclaration(name: KeyName, row: KeyRow, text: string): void {
    if (row.sender !== 'both' && row.sender === this.#role)
      throw new ProtocolError(`${name} comes from the wrong side`, row.clause);
    const value = parseValue(row, text);
    if (value === undefined) throw new ProtocolError(`${name}=${shorten(text)} is malformed or out of range`, row.clause);
    const before = this.#declared.get(name);
    if (before !== undefined && before !== value) throw new ProtocolError(`${name} is declared twice`, 'RFC 7143 §6.3');
    this.#declared.set(name, value);
  }

  /** The peer's answer to our offer. */
  #receiveAnswer(name: KeyName, row: KeyRow, offered: Value, text: string): void {
    if (CONSTANTS.has(text)) return; // the default holds
    if (row.rule === 'obsolete') return;
    const value = parseValue(row, text);
    if (value === undefined || !isAnswerTo(row, offered, value)) {
      throw new ProtocolError(`${name}=${shorten(text)} is no answer to ${name}=${formatValue(offered)}`, row.clause);
    }
    this.#agreed.set(name, value);
  }

  /** Our answer to the peer's offer. */
  #answer(name: KeyName, row: KeyRow, text: string): string {
    if (CONSTANTS.has(text)) throw new ProtocolError(`${name}=${text} answers nothing`, row.clause);
    if (row.rule === 'obsolete') return row.answer;
    if (this.#discovery && !row.discovery) return 'Irrelevant';
    const offered = parseValue(row, text);
    if (offered === undefined) return 'Reject';
    const agreed = agree(row, offered, this.#wants.get(name));
    if (agreed === undefined) return 'Reject';
    this.#agreed.set(name, agreed);
    return formatValue(agreed);
  }

  #mayOffer(name: KeyName): boolean {
    const row = rowOf(name);
    if (this.#said.has(name) || (this.#discovery && !row.discovery)) return false;
    return row.sender === 'both' || row.sender === this.#role;
  }

  #say(name: KeyName): TextPair {
    const value = this.#wants.get(name) as Value;
    this.#said.add(name);
    if (!isDeclaration(rowOf(name))) this.#open.set(name, value);
    return [name, formatValue(value)];
  }

  #insist(name: KeyName, row: KeyRow, outcome: Value | undefined): void {
    const wanted = this.#wants.get(name);
    if (row.insisted !== true || wanted === undefined || (this.#discovery && !row.discovery)) return;
    if (satisfies(row, outcome, wanted)) return;
    const refusal = row.refusal?.[this.#role];
    if (refusal !== undefined) throw new IserfsError('login-refused', refusal.text, { hint: refusal.hint });
    const peer = this.#role === 'initiator' ? 'target' : 'initiator';
    const insisted = `${name}=${formatValue(wanted)}`;
    throw new IserfsError('login-refused', `${insisted} is required and the ${peer} does not agree to it`, {
      hint: `Allow ${insisted} at the ${peer}, or do not require it here.`,
    });
  }
}

/** Whether a side that wants `wanted` (of a list: one of these) can work with `outcome`. */
function satisfies(row: KeyRow, outcome: Value | undefined, wanted: Value | undefined): boolean {
  if (row.rule === 'list') return String(wanted).split(',').includes(String(outcome));
  return outcome === wanted;
}

/** The outcome of an offer for a side that wants `wanted` (anything, where undefined); undefined: there is none. */
function agree(row: KeyRow, offered: Value, wanted: Value | undefined): Value | undefined {
  switch (row.rule) {
    case 'and':
      return Boolean(offered) && (wanted === undefined ? row.initial : Boolean(wanted));
    case 'or':
      return Boolean(offered) || (wanted === undefined ? row.initial : Boolean(wanted));
    case 'min':
      return Math.min(Number(offered), Number(wanted ?? row.initial));
    case 'max':
      return Math.max(Number(offered), Number(wanted ?? row.initial));
    case 'list': {
      const taken = String(wanted ?? row.initial).split(',');
      return String(offered)
        .split(',')
        .find((value) => taken.includes(value));
    }
    default:
      return undefined;
  }
}

/** Whether a responder that follows the rule could have answered `offered` with `value`. */
function isAnswerTo(row: KeyRow, offered: Value, value: Value): boolean {
  switch (row.rule) {
    case 'and':
      return offered === true || value === false;
    case 'or':
      return offered === false || value === true;
    case 'min':
      return Number(value) <= Number(offered);
    case 'max':
      return Number(value) >= Number(offered);
    case 'list':
      // tgtd answers None to an offer of CRC32C alone; whether that will do is for the side that insists.
      return String(offered).split(',').includes(String(value)) || (row.insisted === true && row.values.includes(String(value)));
    default:
      return true;
  }
}

function shorten(text: string): string {
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}
