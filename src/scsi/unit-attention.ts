/**
 * What each unit attention means for what is known of a logical unit. A unit attention ends the command
 * that meets it unexecuted (SAM), so the command is always issued again; what differs is what must be
 * looked at before. One table; whoever is not in it is taken seriously: everything is read again.
 */

export interface UnitAttentionPolicy {
  readonly meaning: string;
  /** Identity, capacity and mode pages must be read again before any other command. */
  readonly revalidate: boolean;
  /** What the device had in a volatile cache may be gone (I6). */
  readonly cacheMayBeLost: boolean;
  /** What is held of the contents may be stale. */
  readonly contentsMayDiffer: boolean;
  /** The target's list of logical units must be read again. */
  readonly rescan: boolean;
}

const nothing = { revalidate: false, cacheMayBeLost: false, contentsMayDiffer: false, rescan: false };
const look = { ...nothing, revalidate: true };
const lookAtAll = { ...look, contentsMayDiffer: true };
const reset = { ...lookAtAll, cacheMayBeLost: true };

interface Row {
  readonly asc: number;
  /** Absent: every qualifier that no row before names. */
  readonly ascq?: readonly [first: number, last: number];
  readonly policy: UnitAttentionPolicy;
}

/** SPC-4 annex D names the codes. The first row that matches holds. */
const rows: readonly Row[] = [
  { asc: 0x28, policy: { meaning: 'the medium may have changed', ...lookAtAll } },
  { asc: 0x29, policy: { meaning: 'power on, reset or nexus loss', ...reset } },
  { asc: 0x2a, ascq: [0x01, 0x01], policy: { meaning: 'mode parameters changed', ...look } },
  { asc: 0x2a, ascq: [0x09, 0x09], policy: { meaning: 'capacity changed', ...lookAtAll } },
  { asc: 0x2a, policy: { meaning: 'parameters changed', ...nothing } },
  { asc: 0x2f, policy: { meaning: 'commands cleared', ...nothing } },
  { asc: 0x38, policy: { meaning: 'thin provisioning threshold', ...nothing } },
  { asc: 0x3f, ascq: [0x03, 0x03], policy: { meaning: 'inquiry data changed', ...lookAtAll } },
  { asc: 0x3f, ascq: [0x0e, 0x0e], policy: { meaning: 'reported LUNs changed', ...lookAtAll, rescan: true } },
  { asc: 0x3f, policy: { meaning: 'operating conditions changed', ...lookAtAll } },
];

const unknown: UnitAttentionPolicy = { meaning: 'unit attention', ...lookAtAll };

export function unitAttentionPolicy(asc: number, ascq: number): UnitAttentionPolicy {
  for (const row of rows) {
    if (row.asc !== asc) continue;
    if (row.ascq === undefined || (ascq >= row.ascq[0] && ascq <= row.ascq[1])) return row.policy;
  }
  return unknown;
}
