/**
 * What a target answers to text requests in full-feature phase: SendTargets (RFC 7143 Appendix C). Nothing
 * else is negotiable here. Pure; which targets exist and where is passed in.
 */

import type { TextPairs } from './target-text.ts';

/** One target as discovery shows it. */
export interface TargetRecord {
  readonly name: string;
  /** Values of TargetAddress: `ADDRESS:PORT,TPGT`. */
  readonly addresses: readonly string[];
}

/**
 * The answer to `pairs`. `own` is the target of a normal session, `undefined` in a discovery session, where
 * `all` is what may be seen.
 */
export function answerTextRequest(pairs: TextPairs, all: readonly TargetRecord[], own: string | undefined): TextPairs {
  const answer: (readonly [string, string])[] = [];
  for (const [key, value] of pairs) {
    if (key === 'SendTargets') answer.push(...sendTargets(value, all, own));
    else answer.push([key, FULL_FEATURE_KEYS.has(key) ? 'Reject' : 'NotUnderstood']);
  }
  return answer;
}

/** Keys that may be negotiated in full-feature phase, of which this target changes none (RFC 7143 §13). */
const FULL_FEATURE_KEYS: ReadonlySet<string> = new Set(['MaxRecvDataSegmentLength', 'InitiatorAlias', 'TargetAlias']);

function sendTargets(value: string, all: readonly TargetRecord[], own: string | undefined): TextPairs {
  // All is for discovery sessions alone; no name at all means the session's own target, which a discovery session has not.
  if (own === undefined ? value === '' : value === 'All') return [['SendTargets', 'Reject']];
  const wanted = value === '' ? own : value;
  return all
    .filter(({ name }) => (own === undefined || name === own) && (value === 'All' || name === wanted))
    .flatMap(({ name, addresses }) => [
      ['TargetName', name] as const,
      ...addresses.map((address) => ['TargetAddress', address] as const),
    ]);
}
