/** Settings of the data movers over a byte stream, and the text keys that offer them at login (RFC 7143 §13.1, §13.12). */

import type { KeyOffers } from './datamover.ts';

/** `prefer` takes a digest where the peer has it, `require` fails the login where it has not. */
export type DigestPolicy = 'none' | 'prefer' | 'require';

export interface StreamOptions {
  readonly headerDigest: DigestPolicy;
  readonly dataDigest: DigestPolicy;
  /** Largest data segment that we declare to take: 512 to 2^24 - 1 bytes. */
  readonly maxRecvDataSegmentLength: number;
}

export const defaultStreamOptions: StreamOptions = {
  headerDigest: 'none',
  dataDigest: 'none',
  maxRecvDataSegmentLength: 262_144,
};

/** Completes `options`; throws RangeError where a value is out of range. */
export function streamOptions(options: Partial<StreamOptions>): StreamOptions {
  const complete = { ...defaultStreamOptions, ...options };
  const { maxRecvDataSegmentLength: length } = complete;
  if (!Number.isInteger(length) || length < 512 || length > 0xff_ffff) {
    throw new RangeError(`MaxRecvDataSegmentLength ${length} is not in 512..16777215`);
  }
  return complete;
}

/** A discovery session moves no data worth a digest: it takes one only where an end requires it. */
export function streamKeyOffers(options: StreamOptions, sessionType: 'normal' | 'discovery'): KeyOffers {
  const digest = (policy: DigestPolicy) => (sessionType === 'discovery' && policy === 'prefer' ? 'None,CRC32C' : offered[policy]);
  return {
    HeaderDigest: digest(options.headerDigest),
    DataDigest: digest(options.dataDigest),
    MaxRecvDataSegmentLength: String(options.maxRecvDataSegmentLength),
  };
}

const offered: Readonly<Record<DigestPolicy, string>> = { none: 'None', prefer: 'CRC32C,None', require: 'CRC32C' };
