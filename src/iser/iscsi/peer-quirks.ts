/**
 * Deliberate deviations for named peers, in one table with the evidence for each row. Nothing else in the
 * program tests for a vendor. An unknown peer gets what is safe with every peer.
 */

/** What a peer has said about itself (INQUIRY's identification fields, trailing spaces removed). */
export interface PeerIdentity {
  readonly vendor?: string;
  readonly product?: string;
  readonly revision?: string;
}

export interface PeerQuirks {
  /**
   * Whether a login that takes the place of an older session waits until every task of the old session
   * has ended, so that an old write cannot overtake its own re-issue. Where it is not proved, a LOGICAL
   * UNIT RESET comes before writes are issued again.
   */
  readonly terminatesOldTasksOnReinstatement: boolean;
}

interface QuirkRow {
  readonly id: string;
  readonly matches: (peer: PeerIdentity) => boolean;
  readonly quirks: Partial<PeerQuirks>;
  readonly evidence: string;
}

const SAFE: PeerQuirks = { terminatesOldTasksOnReinstatement: false };

/** The first row that matches holds. */
export const quirkRows: readonly QuirkRow[] = [
  {
    id: 'iserfs',
    matches: ({ vendor }) => vendor === 'ISERFS',
    quirks: { terminatesOldTasksOnReinstatement: true },
    evidence: 'Our own embedded target: its last login response waits for the end of the older session (test/unit/iser).',
  },
  {
    id: 'tgt',
    matches: ({ vendor, product }) => vendor === 'IET' && product === 'VIRTUAL-DISK',
    quirks: { terminatesOldTasksOnReinstatement: false },
    evidence: 'tgtd 1.0.85: a stalled write of the old session overwrote a newer one after reinstatement, all with status GOOD.',
  },
];

/** What is known of `peer`. */
export function quirksOf(peer: PeerIdentity): PeerQuirks {
  return { ...SAFE, ...quirkRows.find((row) => row.matches(peer))?.quirks };
}
