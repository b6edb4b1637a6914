/**
 * The table of text keys that a login may negotiate or declare (RFC 7143 §13, RFC 7145 §6): what a value
 * looks like, how two sides' values become one, what holds where nothing is said. A new key is a row;
 * the engine in negotiation.ts knows no key by name. The keys of the security stage are in chap.ts, those
 * of a Text exchange (SendTargets) are not negotiated.
 */

type Side = 'initiator' | 'target';

/** An error's message, and what to do about it. */
export interface Refusal {
  readonly text: string;
  readonly hint: string;
}

interface RowCommon {
  /** Who may declare or offer it. */
  readonly sender: Side | 'both';
  /** Whether it keeps its meaning in a discovery session ("Irrelevant when SessionType=Discovery" where not). */
  readonly discovery: boolean;
  /** Whether a login fails where the outcome is not what one side wants, since its data mover depends on it. */
  readonly insisted?: true;
  /** What the side that insists says then, where there is something better to say than what it wanted. */
  readonly refusal?: Readonly<Partial<Record<Side, Refusal>>>;
  readonly clause: string;
}

/** Yes or No. `and`: Yes where both say Yes; `or`: Yes where one does. */
interface BooleanRow extends RowCommon {
  readonly rule: 'and' | 'or';
  readonly initial: boolean;
}

/** A number in `range`; the result is the smaller or the larger of the two sides' values. */
interface NumberRow extends RowCommon {
  readonly rule: 'min' | 'max';
  readonly range: readonly [least: number, most: number];
  readonly initial: number;
}

/** One of `values`: the first of the offered list that the other side takes. */
interface ListRow extends RowCommon {
  readonly rule: 'list';
  readonly values: readonly string[];
  readonly initial: string;
}

/** Said by one side about itself; no answer. `initial` undefined: nothing holds until it is said. */
interface DeclaredNumberRow extends RowCommon {
  readonly rule: 'declared-number';
  readonly range: readonly [least: number, most: number];
  readonly initial: number | undefined;
}

interface DeclaredBooleanRow extends RowCommon {
  readonly rule: 'declared-boolean';
  readonly initial: boolean;
}

interface DeclaredTextRow extends RowCommon {
  readonly rule: 'declared-text';
  readonly initial: undefined;
}

/** A key of RFC 3720 that is gone (RFC 7143 §13.25): answered with a constant, never with NotUnderstood. */
interface ObsoleteRow extends RowCommon {
  readonly rule: 'obsolete';
  readonly answer: 'No' | 'Reject';
  readonly initial: undefined;
}

export type KeyRow = BooleanRow | NumberRow | ListRow | DeclaredNumberRow | DeclaredBooleanRow | DeclaredTextRow | ObsoleteRow;

/** 2^24 - 1: the most that DataSegmentLength can say. */
const MAX_24 = 0xff_ffff;

export const keyTable = {
  HeaderDigest: {
    rule: 'list',
    insisted: true,
    values: ['CRC32C', 'None'],
    initial: 'None',
    sender: 'both',
    discovery: true,
    clause: 'RFC 7143 §13.1',
  },
  DataDigest: {
    rule: 'list',
    insisted: true,
    values: ['CRC32C', 'None'],
    initial: 'None',
    sender: 'both',
    discovery: true,
    clause: 'RFC 7143 §13.1',
  },
  MaxConnections: {
    rule: 'min',
    range: [1, 0xffff],
    initial: 1,
    sender: 'both',
    discovery: false,
    clause: 'RFC 7143 §13.2',
  },
  TargetName: { rule: 'declared-text', initial: undefined, sender: 'initiator', discovery: true, clause: 'RFC 7143 §13.4' },
  InitiatorName: { rule: 'declared-text', initial: undefined, sender: 'initiator', discovery: true, clause: 'RFC 7143 §13.5' },
  TargetAlias: { rule: 'declared-text', initial: undefined, sender: 'target', discovery: true, clause: 'RFC 7143 §13.6' },
  InitiatorAlias: { rule: 'declared-text', initial: undefined, sender: 'initiator', discovery: true, clause: 'RFC 7143 §13.7' },
  TargetAddress: { rule: 'declared-text', initial: undefined, sender: 'target', discovery: true, clause: 'RFC 7143 §13.8' },
  TargetPortalGroupTag: {
    rule: 'declared-number',
    range: [0, 0xffff],
    initial: undefined,
    sender: 'target',
    discovery: true,
    clause: 'RFC 7143 §13.9',
  },
  InitialR2T: { rule: 'or', initial: true, sender: 'both', discovery: false, clause: 'RFC 7143 §13.10' },
  ImmediateData: { rule: 'and', initial: true, sender: 'both', discovery: false, clause: 'RFC 7143 §13.11' },
  MaxRecvDataSegmentLength: {
    rule: 'declared-number',
    range: [512, MAX_24],
    initial: 8192,
    sender: 'both',
    discovery: true,
    clause: 'RFC 7143 §13.12',
  },
  MaxBurstLength: {
    rule: 'min',
    range: [512, MAX_24],
    initial: 262_144,
    sender: 'both',
    discovery: false,
    clause: 'RFC 7143 §13.13',
  },
  FirstBurstLength: {
    rule: 'min',
    range: [512, MAX_24],
    initial: 65_536,
    sender: 'both',
    discovery: false,
    clause: 'RFC 7143 §13.14',
  },
  DefaultTime2Wait: {
    rule: 'max',
    range: [0, 3600],
    initial: 2,
    sender: 'both',
    discovery: true,
    clause: 'RFC 7143 §13.15',
  },
  DefaultTime2Retain: {
    rule: 'min',
    range: [0, 3600],
    initial: 20,
    sender: 'both',
    discovery: true,
    clause: 'RFC 7143 §13.16',
  },
  MaxOutstandingR2T: {
    rule: 'min',
    range: [1, 0xffff],
    initial: 1,
    sender: 'both',
    discovery: false,
    clause: 'RFC 7143 §13.17',
  },
  DataPDUInOrder: { rule: 'or', initial: true, sender: 'both', discovery: false, clause: 'RFC 7143 §13.18' },
  DataSequenceInOrder: { rule: 'or', initial: true, sender: 'both', discovery: false, clause: 'RFC 7143 §13.19' },
  ErrorRecoveryLevel: {
    rule: 'min',
    range: [0, 2],
    initial: 0,
    sender: 'both',
    discovery: true,
    clause: 'RFC 7143 §13.20',
  },
  SessionType: { rule: 'declared-text', initial: undefined, sender: 'initiator', discovery: true, clause: 'RFC 7143 §13.21' },
  TaskReporting: {
    rule: 'list',
    values: ['FastAbort', 'ResponseFence', 'RFC3720'],
    initial: 'RFC3720',
    sender: 'both',
    discovery: false,
    clause: 'RFC 7143 §13.23',
  },
  iSCSIProtocolLevel: {
    rule: 'min',
    range: [0, 31],
    initial: 1,
    sender: 'both',
    discovery: false,
    clause: 'RFC 7143 §13.24',
  },
  IFMarker: {
    rule: 'obsolete',
    answer: 'No',
    initial: undefined,
    sender: 'both',
    discovery: true,
    clause: 'RFC 7143 §13.25',
  },
  OFMarker: {
    rule: 'obsolete',
    answer: 'No',
    initial: undefined,
    sender: 'both',
    discovery: true,
    clause: 'RFC 7143 §13.25',
  },
  IFMarkInt: {
    rule: 'obsolete',
    answer: 'Reject',
    initial: undefined,
    sender: 'both',
    discovery: true,
    clause: 'RFC 7143 §13.25',
  },
  OFMarkInt: {
    rule: 'obsolete',
    answer: 'Reject',
    initial: undefined,
    sender: 'both',
    discovery: true,
    clause: 'RFC 7143 §13.25',
  },
  MaxAHSLength: {
    rule: 'declared-number',
    range: [2, 0xffff],
    initial: 256,
    sender: 'both',
    discovery: false,
    clause: 'RFC 7145 §6',
  },
  TaggedBufferForSolicitedDataOnly: {
    rule: 'declared-boolean',
    initial: false,
    sender: 'initiator',
    discovery: false,
    clause: 'RFC 7145 §6',
  },
  iSERHelloRequired: {
    rule: 'declared-boolean',
    insisted: true,
    refusal: {
      target: {
        text: 'the initiator wants an iSER Hello, which this target does not answer',
        hint: 'Set iSERHelloRequired=No at the initiator.',
      },
    },
    initial: false,
    sender: 'initiator',
    discovery: false,
    clause: 'RFC 7145 §6',
  },
  RDMAExtensions: {
    rule: 'and',
    insisted: true,
    refusal: {
      initiator: {
        text: 'the target does not do iSER at this portal',
        hint: 'Use --transport tcp, or say with --iser-port where the target offers iSER.',
      },
      target: {
        text: 'the initiator does not do iSER over its RDMA connection',
        hint: 'Let it log in to a TCP portal, or switch its RDMAExtensions on.',
      },
    },
    initial: false,
    sender: 'both',
    discovery: false,
    clause: 'RFC 7145 §6',
  },
  TargetRecvDataSegmentLength: {
    rule: 'min',
    range: [512, MAX_24],
    initial: 8192,
    sender: 'both',
    discovery: false,
    clause: 'RFC 7145 §6',
  },
  InitiatorRecvDataSegmentLength: {
    rule: 'min',
    range: [512, MAX_24],
    initial: 8192,
    sender: 'both',
    discovery: false,
    clause: 'RFC 7145 §6',
  },
  MaxOutstandingUnexpectedPDUs: {
    rule: 'declared-number',
    range: [0, 0xffff_ffff],
    initial: 0,
    sender: 'both',
    discovery: false,
    clause: 'RFC 7145 §6',
  },
} as const satisfies Record<string, KeyRow>;

export type KeyName = keyof typeof keyTable;
type Row<K extends KeyName> = (typeof keyTable)[K];

/** What a key's value is once read. */
export type KeyValue<K extends KeyName> = Row<K>['rule'] extends 'and' | 'or' | 'declared-boolean'
  ? boolean
  : Row<K>['rule'] extends 'min' | 'max' | 'declared-number'
    ? number
    : string;

/**
 * The outcome of a login. What was negotiated has a value always (the default where nothing was said);
 * what is declared is the peer's declaration about itself, so `MaxRecvDataSegmentLength` is what the
 * peer takes.
 */
export type NegotiatedKeys = {
  readonly [K in KeyName]: Row<K>['initial'] extends undefined ? KeyValue<K> | undefined : KeyValue<K>;
};

export function isKeyName(text: string): text is KeyName {
  return Object.hasOwn(keyTable, text);
}

export function rowOf(name: KeyName): KeyRow {
  return keyTable[name];
}

/** Whether a row's key is said by one side about itself and never answered. */
export function isDeclaration(row: KeyRow): boolean {
  return row.rule === 'declared-number' || row.rule === 'declared-text' || row.rule === 'declared-boolean';
}

/** Reads a value as `row` wants it; undefined where it is malformed or out of range. Of a list, the whole list. */
export function parseValue(row: KeyRow, text: string): boolean | number | string | undefined {
  switch (row.rule) {
    case 'and':
    case 'or':
    case 'declared-boolean':
      return text === 'Yes' ? true : text === 'No' ? false : undefined;
    case 'min':
    case 'max':
    case 'declared-number':
      return parseNumberIn(text, row.range);
    case 'list':
    case 'obsolete':
      return text === '' ? undefined : text;
    case 'declared-text':
      return text;
  }
}

/** A numerical value (RFC 7143 §6.1): decimal, or hexadecimal after `0x`. */
export function parseNumber(text: string): number | undefined {
  if (!/^(?:[0-9]{1,15}|0[xX][0-9a-fA-F]{1,12})$/.test(text)) return undefined;
  return Number(text);
}

/** The text of a value. */
export function formatValue(value: boolean | number | string): string {
  return typeof value === 'boolean' ? (value ? 'Yes' : 'No') : String(value);
}

/** What a login agreed on, for people: name and value. The keys of iSER only where it is in use, and then not the one that it replaces. */
export function describeKeys(keys: NegotiatedKeys): Record<string, string> {
  const texts: Record<string, string> = {};
  for (const [name, value] of Object.entries(keys)) {
    if (value === undefined || !isKeyName(name)) continue;
    if (!keys.RDMAExtensions && rowOf(name).clause.startsWith(ISER_RFC)) continue;
    if (keys.RDMAExtensions && name === 'MaxRecvDataSegmentLength') continue;
    texts[name] = formatValue(value);
  }
  return texts;
}

const ISER_RFC = 'RFC 7145';

function parseNumberIn(text: string, [least, most]: readonly [number, number]): number | undefined {
  const value = parseNumber(text);
  return value === undefined || value < least || value > most ? undefined : value;
}
