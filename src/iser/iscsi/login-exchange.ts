/**
 * What the two sides of a login have in common (RFC 7143 §6.3): stages, the keys of a session, the bounds,
 * and what the agreed keys mean for the data mover.
 */

import type { DataParameters, KeyOffers } from '../datamover/datamover.ts';
import { formatValue, type KeyValue, type NegotiatedKeys } from './keys.ts';
import type { Wants } from './negotiation.ts';
import type { TextPair } from './text.ts';

/** Values of CSG and NSG (RFC 7143 §11.12.3). */
export const Stage = { security: 0, operational: 1, fullFeature: 3 } as const;
export type LoginStage = typeof Stage.security | typeof Stage.operational;

/** The MaxRecvDataSegmentLength that holds during login on both sides (RFC 7143 §13.12). */
export const MAX_LOGIN_DATA = 8192;
/** Requests after which a login that still has not ended is given up. */
export const MAX_LOGIN_REQUESTS = 256;
/** The only version there is (RFC 7143 §11.12.4). */
export const ISCSI_VERSION = 0x00;

export type SessionType = 'normal' | 'discovery';

/** Session-wide keys that the user of a login chooses; the data mover's own are its `KeyOffers`. */
export type SessionKeys = {
  readonly [K in
    | 'InitialR2T'
    | 'ImmediateData'
    | 'FirstBurstLength'
    | 'MaxBurstLength'
    | 'MaxOutstandingR2T'
    | 'DefaultTime2Wait'
    | 'DefaultTime2Retain']: KeyValue<K>;
};

const DEFAULT_SESSION_KEYS: SessionKeys = {
  InitialR2T: false,
  ImmediateData: true,
  FirstBurstLength: 262_144,
  MaxBurstLength: 1_048_576,
  MaxOutstandingR2T: 1,
  DefaultTime2Wait: 0,
  DefaultTime2Retain: 0,
};

/** What iserfs does not vary: one connection, ErrorRecoveryLevel 0, data in order. */
const FIXED_KEYS = { MaxConnections: '1', ErrorRecoveryLevel: '0', DataPDUInOrder: 'Yes', DataSequenceInOrder: 'Yes' } as const;

/** Whether a data mover's keys are those of iSER, in a session that moves data. */
export function isIser(offers: KeyOffers): boolean {
  return offers['RDMAExtensions'] === 'Yes';
}

/** Everything that a side wants of a login, the data mover's keys first (they win). */
export function wantsOf(offers: KeyOffers, sessionKeys: Partial<SessionKeys> = {}): Wants {
  const chosen = { ...DEFAULT_SESSION_KEYS, ...sessionKeys, ...(isIser(offers) ? iserSessionKeys(offers) : {}) };
  if (chosen.FirstBurstLength > chosen.MaxBurstLength) chosen.FirstBurstLength = chosen.MaxBurstLength;
  const texts = Object.fromEntries(Object.entries(chosen).map(([name, value]) => [name, formatValue(value)]));
  return { ...offers, ...FIXED_KEYS, ...texts, ...offers };
}

/**
 * Over iSER unsolicited data comes in Sends, which fill a receive buffer of the target: only immediate data, and no
 * longer than one. FirstBurstLength has to say so too: libiscsi (1.19) reads no answer to TargetRecvDataSegmentLength.
 */
function iserSessionKeys(offers: KeyOffers): Pick<SessionKeys, 'InitialR2T' | 'FirstBurstLength'> {
  return { InitialR2T: true, FirstBurstLength: Number(offers['TargetRecvDataSegmentLength'] ?? MAX_LOGIN_DATA) };
}

/** What the agreed keys mean for moving data, seen from `role`. */
export function dataParameters(role: 'initiator' | 'target', keys: NegotiatedKeys, offers: KeyOffers): DataParameters {
  const [sendLength, recvLength] =
    role === 'initiator'
      ? [keys.TargetRecvDataSegmentLength, keys.InitiatorRecvDataSegmentLength]
      : [keys.InitiatorRecvDataSegmentLength, keys.TargetRecvDataSegmentLength];
  // With RDMAExtensions=Yes MaxRecvDataSegmentLength says nothing (RFC 7145 §6).
  const declared = Number(offers['MaxRecvDataSegmentLength'] ?? MAX_LOGIN_DATA);
  return {
    ...(offers['RDMAExtensions'] === undefined ? {} : { rdmaExtensions: keys.RDMAExtensions }),
    headerDigest: keys.HeaderDigest === 'CRC32C',
    dataDigest: keys.DataDigest === 'CRC32C',
    maxSendDataSegmentLength: keys.RDMAExtensions ? sendLength : keys.MaxRecvDataSegmentLength,
    maxRecvDataSegmentLength: keys.RDMAExtensions ? recvLength : declared,
    maxBurstLength: keys.MaxBurstLength,
    firstBurstLength: Math.min(keys.FirstBurstLength, keys.MaxBurstLength),
    initialR2T: keys.InitialR2T,
    immediateData: keys.ImmediateData,
    maxOutstandingR2T: keys.MaxOutstandingR2T,
  };
}

/** The keys of the security stage apart from all others. */
export function splitSecurityKeys(pairs: readonly TextPair[]): { security: Map<string, string>; others: TextPair[] } {
  const security = new Map<string, string>();
  const others: TextPair[] = [];
  for (const pair of pairs) {
    if (pair[0] === 'AuthMethod' || pair[0].startsWith('CHAP_')) security.set(pair[0], pair[1]);
    else others.push(pair);
  }
  return { security, others };
}
