/**
 * The initiator's side of one text exchange in the full-feature phase (RFC 7143 §11.10, §11.11): a request of pairs, and an
 * answer that may come in parts, each of them asked for with the Target Transfer Tag of the one before. Pure; knows no
 * key. The numbers and the task tag of what it has sent are the session's to fill in.
 */

import { ProtocolError } from '../../errors.ts';
import { NO_BYTES, type Pdu, pdu, RESERVED_TAG } from './pdu.ts';
import { encodeText, TextAssembler, type TextPair } from './text.ts';

/** What a response leads to: a request for the rest, or the whole text of the answer. */
export type TextStep =
  | { readonly type: 'send'; readonly pdu: Pdu<'text-request'> }
  | { readonly type: 'answered'; readonly text: Uint8Array };

/** Longest answer: SendTargets on a portal with many thousands of targets. */
const MAX_TEXT = 16 * 1024 * 1024;

export class InitiatorText {
  readonly #assembler = new TextAssembler(MAX_TEXT);

  /** The request that the exchange begins with. Throws as `encodeText`. */
  start(pairs: readonly TextPair[]): Pdu<'text-request'> {
    return textRequest(RESERVED_TAG, encodeText(pairs));
  }

  /** Takes the next response; `response.data` is not kept. Throws `ProtocolError` where the answer cannot be had to its end. */
  handle(response: Pdu<'text-response'>): TextStep {
    const text = this.#assembler.add(response.data, response.continue || !response.final);
    if (text !== undefined) return { type: 'answered', text: text.slice() };
    if (response.ttt === RESERVED_TAG) throw new ProtocolError('a text answer to be continued has no tag', 'RFC 7143 §11.11.4');
    return { type: 'send', pdu: textRequest(response.ttt, NO_BYTES) };
  }
}

function textRequest(ttt: number, data: Uint8Array): Pdu<'text-request'> {
  return pdu({ opcode: 'text-request', final: true, ttt, data });
}
