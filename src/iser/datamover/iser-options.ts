/** Settings of the iSER data mover, and the text keys that offer them at login (RFC 7145 §6, RFC 7143 §13). */

import { type Clock, systemClock } from '../../clock.ts';
import type { KeyOffers } from './datamover.ts';

export interface IserOptions {
  /** iwarp: whether to ask for CRC32C on every frame. */
  readonly crc: boolean;
  /** RDMA Reads that the peer may have outstanding at us, and we at the peer; what is agreed may be less. 1 to 255. */
  readonly ird: number;
  readonly ord: number;
  /** Largest data segments to be sent in either direction: 512 to 262144 bytes. As initiator and as target the same keys are offered. */
  readonly initiatorRecvDataSegmentLength: number;
  readonly targetRecvDataSegmentLength: number;
  /** Initiator: commands in flight at a time, whatever the target's window allows; more wait in order. Each costs a receive buffer. */
  readonly maxCommands: number;
  /** Target: commands that a session may have outstanding. Each costs a receive buffer. */
  readonly commandWindow: number;
  /** For the nudge that wakes up a peer which has overlooked the first message, and for the end of patience with one that does not answer. */
  readonly clock: Clock;
}

const defaultIserOptions: IserOptions = {
  crc: true,
  ird: 16,
  ord: 16,
  initiatorRecvDataSegmentLength: 8192,
  targetRecvDataSegmentLength: 8192,
  maxCommands: 128,
  commandWindow: 64,
  clock: systemClock,
};

/** Completes `options`; throws RangeError where a value is out of range. */
export function iserOptions(options: Partial<IserOptions>): IserOptions {
  const complete = { ...defaultIserOptions, ...options };
  requireRange('IRD', complete.ird, 1, 255);
  requireRange('ORD', complete.ord, 1, 255);
  requireRange('InitiatorRecvDataSegmentLength', complete.initiatorRecvDataSegmentLength, 512, 262_144);
  requireRange('TargetRecvDataSegmentLength', complete.targetRecvDataSegmentLength, 512, 262_144);
  requireRange('the number of commands in flight', complete.maxCommands, 1, 4096);
  requireRange('the command window', complete.commandWindow, 1, 4096);
  return complete;
}

/** The MaxRecvDataSegmentLength of a discovery session, which knows no other length. */
const DISCOVERY_DATA_SEGMENT = 8192;

/**
 * No digest ever: the fabric has its own check, and some targets agree to a digest that they then do not compute.
 * InitialR2T=Yes, since unsolicited Data-Out PDUs would need receive buffers that nobody has counted. A discovery
 * session does not negotiate the keys of iSER: targets answer RDMAExtensions=No there.
 */
export function iserKeyOffers(options: IserOptions, sessionType: 'normal' | 'discovery'): KeyOffers {
  const digests = { HeaderDigest: 'None', DataDigest: 'None' };
  if (sessionType === 'discovery') return { ...digests, MaxRecvDataSegmentLength: String(DISCOVERY_DATA_SEGMENT) };
  return {
    ...digests,
    RDMAExtensions: 'Yes',
    InitiatorRecvDataSegmentLength: String(options.initiatorRecvDataSegmentLength),
    TargetRecvDataSegmentLength: String(options.targetRecvDataSegmentLength),
    InitialR2T: 'Yes',
  };
}

function requireRange(what: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most)
    throw new RangeError(`${what}, ${value}, is not in ${least}..${most}`);
}
