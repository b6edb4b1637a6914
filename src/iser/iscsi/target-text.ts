/**
 * The target's side of Text Requests in full-feature phase (RFC 7143 §11.10, §11.11): a request may come
 * in parts (C bit) and its answer may have to leave in parts, each asked for with the Target Transfer Tag
 * of the one before. One exchange at a time per connection, its text bounded by the assembler. Pure; knows
 * nothing of targets: what the keys mean is the caller's `answer`.
 */

import { ProtocolError } from '../../errors.ts';
import { NO_BYTES, type Pdu, RESERVED_TAG, RejectReason } from './pdu.ts';
import { decodeText, encodeText, splitText, TextAssembler } from './text.ts';

export type TextPairs = readonly (readonly [string, string])[];

/** What a Text Request gets: the fields of a Text Response, or the reason of a Reject. */
export type TextReply =
  | {
      readonly type: 'response';
      readonly final: boolean;
      readonly continue: boolean;
      readonly ttt: number;
      readonly data: Uint8Array;
    }
  | { readonly type: 'reject'; readonly reason: number };

interface Exchange {
  readonly itt: number;
  readonly ttt: number;
  readonly assembler: TextAssembler;
  /** Parts of the answer that have not been sent. */
  readonly unsent: Uint8Array[];
}

export class TargetText {
  readonly #answer: (pairs: TextPairs) => TextPairs;
  readonly #maxDataSegmentLength: () => number;
  readonly #nextTtt: () => number;
  #exchange: Exchange | undefined;

  /**
   * `answer` gives the pairs for a whole request; `maxDataSegmentLength` is what the initiator takes in one
   * PDU; `nextTtt` makes Target Transfer Tags.
   */
  constructor(options: {
    readonly answer: (pairs: TextPairs) => TextPairs;
    readonly maxDataSegmentLength: () => number;
    readonly nextTtt: () => number;
  }) {
    this.#answer = options.answer;
    this.#maxDataSegmentLength = options.maxDataSegmentLength;
    this.#nextTtt = options.nextTtt;
  }

  /** Takes the next request; `pdu.data` is not kept. */
  handle(pdu: Pdu<'text-request'>): TextReply {
    if (pdu.ttt === RESERVED_TAG) {
      // A request without a tag starts anew: what was left of an older exchange is forgotten.
      this.#exchange = { itt: pdu.itt, ttt: this.#nextTtt(), assembler: new TextAssembler(), unsent: [] };
    }
    const exchange = this.#exchange;
    if (exchange === undefined || (pdu.ttt !== RESERVED_TAG && (pdu.ttt !== exchange.ttt || pdu.itt !== exchange.itt))) {
      return { type: 'reject', reason: RejectReason['invalid-pdu-field'] };
    }
    if (exchange.unsent.length === 0) {
      let text: Uint8Array | undefined;
      try {
        text = exchange.assembler.add(pdu.data, pdu.continue);
        if (text === undefined) return { type: 'response', final: false, continue: false, ttt: exchange.ttt, data: NO_BYTES };
        exchange.unsent.push(...splitText(encodeText(this.#answer(decodeText(text))), this.#maxDataSegmentLength()));
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
        this.#exchange = undefined;
        return { type: 'reject', reason: RejectReason['protocol-error'] };
      }
    } else if (pdu.data.length > 0) {
      // While an answer is being fetched the initiator has nothing to say (RFC 7143 §6.2).
      this.#exchange = undefined;
      return { type: 'reject', reason: RejectReason['protocol-error'] };
    }
    return this.#sendNext(exchange, pdu.final);
  }

  #sendNext(exchange: Exchange, requestIsFinal: boolean): TextReply {
    const data = exchange.unsent.shift() ?? NO_BYTES;
    const isContinued = exchange.unsent.length > 0;
    const final = requestIsFinal && !isContinued;
    if (final) this.#exchange = undefined;
    return { type: 'response', final, continue: isContinued, ttt: final ? RESERVED_TAG : exchange.ttt, data };
  }
}
