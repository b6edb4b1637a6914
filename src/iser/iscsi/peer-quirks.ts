/**
 * Deliberate deviations for peers that were observed, in two tables with the evidence for each row: what is
 * done for a peer that has said who it is, and what is done on a connection, where no peer says so.
 * Nothing else in the program tests for a vendor. An unknown peer gets what is safe with every peer.
 */

import { serialAdd, serialLess } from './serial.ts';

/**
 * What a peer has said about itself: INQUIRY's identification fields, trailing spaces removed, and the TargetAlias of its
 * login. The first are of the logical unit, which a target may have from another one and pass through; the last is of the
 * target.
 */
export interface PeerIdentity {
  readonly vendor?: string;
  readonly product?: string;
  readonly revision?: string;
  readonly targetAlias?: string | undefined;
}

/** What our own target declares. An extension key (`X-`) would say it as well, but some initiators give up a login for a key that they do not know. */
export const OWN_TARGET_ALIAS = 'iserfs';

export interface PeerQuirks {
  /**
   * Whether a login that takes the place of an older session waits until every task of the old session
   * has ended, so that an old write cannot overtake its own re-issue. Where it is not proved, a LOGICAL
   * UNIT RESET comes before writes are issued again.
   */
  readonly terminatesOldTasksOnReinstatement: boolean;
  /** Whether a command may move more than `Datamover.maxTransferLength` says, which suits any peer. */
  readonly takesLongTransfers: boolean;
}

interface QuirkRow {
  readonly id: string;
  readonly matches: (peer: PeerIdentity) => boolean;
  readonly quirks: Partial<PeerQuirks>;
  readonly evidence: string;
}

const SAFE: PeerQuirks = { terminatesOldTasksOnReinstatement: false, takesLongTransfers: false };

/** The first row that matches holds. */
export const quirkRows: readonly QuirkRow[] = [
  {
    id: 'iserfs',
    matches: ({ vendor, targetAlias }) => vendor === 'ISERFS' && targetAlias === OWN_TARGET_ALIAS,
    quirks: { terminatesOldTasksOnReinstatement: true, takesLongTransfers: true },
    evidence:
      'Our own embedded target: its last login response waits for the end of the older session (test/unit/iser), and it moves data in pieces whatever the length.',
  },
  {
    id: 'tgt',
    matches: ({ vendor, product }) => vendor === 'IET' && product === 'VIRTUAL-DISK',
    quirks: { terminatesOldTasksOnReinstatement: false, takesLongTransfers: false },
    evidence:
      'tgtd 1.0.85: over iSER it has one buffer of 512 KiB for a command; a stalled write of the old session overwrote a newer one after reinstatement, all with status GOOD.',
  },
];

/** What is known of `peer`. */
export function quirksOf(peer: PeerIdentity): PeerQuirks {
  return { ...SAFE, ...quirkRows.find((row) => row.matches(peer))?.quirks };
}

interface ConnectionQuirk {
  /** Seen of this peer; it is never asked for. */
  readonly peer: string;
  /** How the quirk shows, or why the remedy costs other peers nothing. */
  readonly sign: string;
  readonly evidence: string;
}

/** With the times that its remedy takes, in milliseconds, and how far it goes. */
type ConnectionQuirkRow = ConnectionQuirk & {
  readonly [time: `${string}Ms`]: number | readonly number[];
  readonly mostApart?: number;
};

/**
 * Quirks of connections, most while one comes up. A remedy is applied at a sign that no other peer gives, or it does
 * nothing to other peers: none costs time with a peer that does not need it.
 */
export const connectionQuirks = {
  /** For the data mover over RDMA: bytes are sent when the answer to our first Send does not come, and again with doubled waits. */
  lateWakeUp: {
    peer: 'Linux siw',
    firstNudgeMs: 100,
    longestNudgeIntervalMs: 1600,
    sign: 'No message within 100 ms of our first; any further bytes wake it up, and a zero-length RDMA Write says nothing.',
    evidence:
      'Linux 6.1: siw sends its MPA reply before it hooks the socket again, and bytes that arrive in between wait for more. 6 of 16 connections hung whose first message followed the reply at once, 0 of 16 after 100 ms.',
  },
  /** The numbers that the session's window is not to take from the login response (`CommandWindow.update`). */
  loginNumbers: {
    peer: 'tgtd over iSER',
    sign: 'MaxCmdSN below ExpCmdSN, and an ExpCmdSN that no command has reached.',
    evidence:
      "tgtd 1.0.85: ExpCmdSN is the login's CmdSN + 1 and MaxCmdSN the login's CmdSN, yet the first command is expected with the login's CmdSN, and one with the ExpCmdSN is queued for ever. The Logout Response has the same numbers.",
  },
  /** What follows a login response, the next request of the login or the first one after it, is held back, at the sign of `loginNumbers`. */
  hastyRequest: {
    peer: 'tgtd over iSER',
    holdMs: 100,
    sign: 'The numbers of `loginNumbers`, which every login response has; over TCP, where there is no such race, tgtd sends sound ones.',
    evidence:
      'tgtd 1.0.85 moves on when it sees its login response complete. A login request seen before that is never answered (6 of 24 logins of two or four requests, over siw); a command is a "non-login pdu during login phase", and it hangs up (1 of 8 sessions on siw, 3 of 3 with its logging on). None after 100 ms.',
  },
  /** An RDMA connection that is not wanted any more is made, and its login brought to its end, before it is closed. */
  abandonedLogin: {
    peer: 'LIO and tgtd over iSER',
    graceMs: 2000,
    sign: 'None; set-up and login take milliseconds with any peer.',
    evidence:
      'Linux 6.1: a connection dropped while LIO waited for an answer to its own keys left the portal dead: three logins within 70 s got no login response and were cut by its 15 s login time-out. One dropped within 2 ms of its MPA request, over siw, ended tgtd 1.0.85 and the listener of LIO.',
  },
  /** A login that the peer cuts without a word is tried again after these waits. */
  cutLogin: {
    peer: 'LIO over iSER',
    retryAfterMs: [200, 800],
    sign: 'A login that offers RDMAExtensions, and a connection that ends without a Login Response that says why.',
    evidence:
      'LIO allocates the receive descriptors of a session in one piece (about 1.2 MB) before its last login response, which fails at random on a machine with fragmented memory (libiscsi issue 262).',
  },
  /** A response whose StatSN is not the one that is due, but `mostApart` from it at most, is taken as it comes (`isStatSnTolerated`). */
  disorderedStatus: {
    peer: 'LIO over iSER',
    mostApart: 128,
    sign: 'A session with RDMAExtensions: its connection neither loses messages nor changes their order, so that such a StatSN says nothing of a response that is missing. Over TCP, where digests drop PDUs, it does.',
    evidence:
      "Linux 6.1: isert_put_response() takes the StatSN (conn->stat_sn++) and posts the response without a lock, on every processor that ends a command. Of 150 times 8 MiB written over rxe, five had a response before its predecessor, or two with one StatSN; each cost a session, and DefaultTime2Wait (2 s) besides. The kernel's own initiator takes responses in any order.",
  },
  /** The embedded target grants no immediate data. */
  unsentImmediateData: {
    peer: 'libiscsi over iSER',
    sign: 'It forbids Send with Invalidate (0x40 in its private data), as initiators do that register their buffers once for all.',
    evidence:
      'libiscsi 1.19: where ImmediateData=Yes was agreed on, a WRITE says 8192 bytes of data in its header and comes without them, a message of 76 bytes. tgtd answers ImmediateData=No to everyone; LIO 6.1 agrees, and closes the connection.',
  },
} as const satisfies Record<string, ConnectionQuirkRow>;

/** Whether the target that gave these numbers in a login response takes what follows too early (`hastyRequest`). */
export function needsPatience(numbers: { readonly expCmdSn: number; readonly maxCmdSn: number }): boolean {
  return serialLess(numbers.maxCmdSn, numbers.expCmdSn);
}

/** Whether a StatSN that is not the one that is due is this peer's way (`disorderedStatus`), and no response is missing. */
export function isStatSnTolerated(statSn: number, due: number, { overRdma }: { readonly overRdma: boolean }): boolean {
  const { mostApart } = connectionQuirks.disorderedStatus;
  return overRdma && serialLess(serialAdd(due, -mostApart - 1), statSn) && serialLess(statSn, serialAdd(due, mostApart + 1));
}
