/**
 * Command descriptor blocks (SPC, SBC): one table row per command, from which encoding, decoding, names
 * for messages and the usage masks of REPORT SUPPORTED OPERATION CODES follow. Pure; what a command does
 * is the device server's affair, which one to send the logical unit's.
 *
 * Numbers are as in the standards: `blocks` of the 6-byte commands may be 0 for 256 (`blocksOf`). An LBA
 * is a safe integer; one from the wire that is beyond 2^53 keeps its magnitude but not its last bits, which
 * is all it takes to refuse it.
 */

import { bit, bits, type Field, type FieldValues, layout, lowBits, setFields, u8, u16, u32, viewOf } from '../field.ts';

type Fields = Record<string, Field<unknown>>;

/** One command. */
export interface CommandRow<F extends Fields = Fields> {
  /** As people and standards write it: `READ(16)`. */
  readonly title: string;
  readonly opcode: number;
  /** Bits 4-0 of byte 1, for operation codes that several commands share. */
  readonly serviceAction?: number;
  readonly length: 6 | 10 | 12 | 16;
  readonly fields: F;
}

function command<const F extends Fields>(title: string, opcode: number | readonly [number, number], fields: F): CommandRow<F> {
  const [code, serviceAction] = typeof opcode === 'number' ? [opcode, undefined] : opcode;
  const length = cdbLength(code);
  return {
    title,
    opcode: code,
    length,
    // NACA asks for an auto contingent allegiance; the control byte ends every CDB (SAM).
    fields: layout(length, { ...fields, naca: bit(length - 1, 2) }) as F,
    ...(serviceAction === undefined ? {} : { serviceAction }),
  };
}

/** The group code in bits 7-5 of an operation code says how long its CDB is (SPC); 6 for the groups that have no length. */
export function cdbLength(opcode: number): 6 | 10 | 12 | 16 {
  switch (opcode >> 5) {
    case 1:
    case 2:
      return 10;
    case 4:
      return 16;
    case 5:
      return 12;
    default:
      return 6;
  }
}

const TWO_TO_32 = 0x1_0000_0000;

/** 64 bits as a number; see the file's head for what is beyond 2^53. Two halves: a bigint for each command is dear. */
const lba64 = (offset: number): Field<number> => ({
  firstBit: offset * 8,
  widthBits: 64,
  get: (view, at = 0) => view.getUint32(at + offset) * TWO_TO_32 + view.getUint32(at + offset + 4),
  set: (view, value, at = 0) => {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${value} is no LBA`);
    view.setUint32(at + offset, Math.floor(value / TWO_TO_32));
    view.setUint32(at + offset + 4, value % TWO_TO_32);
  },
});

// What the sizes of one command have in common. Offsets are those of the standards' tables.
const group6 = { lba: lowBits(0, 21), blocks: u8(4) };
const group10 = { lba: u32(2), group: bits(6, 4, 0), blocks: u16(7) };
const group12 = { lba: u32(2), blocks: u32(6), group: bits(10, 4, 0) };
const group16 = { lba: lba64(2), blocks: u32(10), group: bits(14, 4, 0) };
const access = { protection: bits(1, 7, 5), dpo: bit(1, 4), fua: bit(1, 3) };
const check = { protection: bits(1, 7, 5), dpo: bit(1, 4), byteCheck: bits(1, 2, 1) };
const same = { protection: bits(1, 7, 5), anchor: bit(1, 4), unmap: bit(1, 3) };
const cacheSync = { immediate: bit(1, 1) };
const modePage = { pageControl: bits(2, 7, 6), page: bits(2, 5, 0), subpage: u8(3) };
const modeSelect = { pageFormat: bit(1, 4), savePages: bit(1, 0) };

/** The table. */
export const commands = {
  // SPC
  'test-unit-ready': command('TEST UNIT READY', 0x00, {}),
  'request-sense': command('REQUEST SENSE', 0x03, { descriptorFormat: bit(1, 0), allocationLength: u8(4) }),
  inquiry: command('INQUIRY', 0x12, { evpd: bit(1, 0), page: u8(2), allocationLength: u16(3) }),
  'mode-select-6': command('MODE SELECT(6)', 0x15, { ...modeSelect, parameterListLength: u8(4) }),
  'mode-select-10': command('MODE SELECT(10)', 0x55, { ...modeSelect, parameterListLength: u16(7) }),
  'mode-sense-6': command('MODE SENSE(6)', 0x1a, {
    disableBlockDescriptors: bit(1, 3),
    ...modePage,
    allocationLength: u8(4),
  }),
  'mode-sense-10': command('MODE SENSE(10)', 0x5a, {
    longLbaAccepted: bit(1, 4),
    disableBlockDescriptors: bit(1, 3),
    ...modePage,
    allocationLength: u16(7),
  }),
  'reserve-6': command('RESERVE(6)', 0x16, { thirdParty: bits(1, 4, 1), extent: bit(1, 0) }),
  'release-6': command('RELEASE(6)', 0x17, { thirdParty: bits(1, 4, 1), extent: bit(1, 0) }),
  'report-luns': command('REPORT LUNS', 0xa0, { selectReport: u8(2), allocationLength: u32(6) }),
  'report-supported-operation-codes': command('REPORT SUPPORTED OPERATION CODES', [0xa3, 0x0c], {
    returnTimeouts: bit(2, 7),
    reportingOptions: bits(2, 2, 0),
    requestedOpcode: u8(3),
    requestedServiceAction: u16(4),
    allocationLength: u32(6),
  }),
  'report-supported-task-management-functions': command('REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS', [0xa3, 0x0d], {
    extended: bit(2, 7),
    allocationLength: u32(6),
  }),
  // SBC
  'start-stop-unit': command('START STOP UNIT', 0x1b, {
    immediate: bit(1, 0),
    powerCondition: bits(4, 7, 4),
    noFlush: bit(4, 2),
    loadEject: bit(4, 1),
    start: bit(4, 0),
  }),
  'read-capacity-10': command('READ CAPACITY(10)', 0x25, { lba: u32(2), partialMedium: bit(8, 0) }),
  'read-capacity-16': command('READ CAPACITY(16)', [0x9e, 0x10], {
    lba: lba64(2),
    allocationLength: u32(10),
    partialMedium: bit(14, 0),
  }),
  'get-lba-status': command('GET LBA STATUS', [0x9e, 0x12], { lba: lba64(2), allocationLength: u32(10) }),
  'read-6': command('READ(6)', 0x08, group6),
  'read-10': command('READ(10)', 0x28, { ...access, ...group10 }),
  'read-12': command('READ(12)', 0xa8, { ...access, ...group12 }),
  'read-16': command('READ(16)', 0x88, { ...access, ...group16 }),
  'write-6': command('WRITE(6)', 0x0a, group6),
  'write-10': command('WRITE(10)', 0x2a, { ...access, ...group10 }),
  'write-12': command('WRITE(12)', 0xaa, { ...access, ...group12 }),
  'write-16': command('WRITE(16)', 0x8a, { ...access, ...group16 }),
  'write-and-verify-10': command('WRITE AND VERIFY(10)', 0x2e, { ...check, ...group10 }),
  'write-and-verify-12': command('WRITE AND VERIFY(12)', 0xae, { ...check, ...group12 }),
  'write-and-verify-16': command('WRITE AND VERIFY(16)', 0x8e, { ...check, ...group16 }),
  'verify-10': command('VERIFY(10)', 0x2f, { ...check, ...group10 }),
  'verify-12': command('VERIFY(12)', 0xaf, { ...check, ...group12 }),
  'verify-16': command('VERIFY(16)', 0x8f, { ...check, ...group16 }),
  'synchronize-cache-10': command('SYNCHRONIZE CACHE(10)', 0x35, { ...cacheSync, ...group10 }),
  'synchronize-cache-16': command('SYNCHRONIZE CACHE(16)', 0x91, { ...cacheSync, ...group16 }),
  'write-same-10': command('WRITE SAME(10)', 0x41, { ...same, ...group10 }),
  'write-same-16': command('WRITE SAME(16)', 0x93, { ...same, noDataOut: bit(1, 0), ...group16 }),
  unmap: command('UNMAP', 0x42, { anchor: bit(1, 0), group: bits(6, 4, 0), parameterListLength: u16(7) }),
} as const satisfies Record<string, CommandRow>;

export type CommandName = keyof typeof commands;
type ValuesOf<N extends CommandName> = FieldValues<(typeof commands)[N]['fields']>;

/** A command by name with the fields of its row and `naca`. */
export type DecodedCdb = {
  [N in CommandName]: { readonly name: N; readonly naca: boolean } & Readonly<ValuesOf<N>>;
}[CommandName];
export type Cdb<N extends CommandName> = Extract<DecodedCdb, { readonly name: N }>;

const rowsByCode: ReadonlyMap<number, readonly [CommandName, CommandRow]> = new Map(
  (Object.entries(commands) as [CommandName, CommandRow][]).map(([name, row]) => [
    codeOf(row.opcode, row.serviceAction),
    [name, row],
  ]),
);
const opcodesWithServiceAction: ReadonlySet<number> = new Set(
  Object.values<CommandRow>(commands).flatMap((row) => (row.serviceAction === undefined ? [] : [row.opcode])),
);

/** Operation code and service action in one number. */
function codeOf(opcode: number, serviceAction: number | undefined): number {
  return serviceAction === undefined ? opcode : 0x100 + serviceAction * 0x100 + opcode;
}

function rowOf(cdb: Uint8Array): readonly [CommandName, CommandRow] | undefined {
  const opcode = cdb[0] ?? 0;
  return rowsByCode.get(codeOf(opcode, hasServiceAction(opcode) ? (cdb[1] ?? 0) & 0x1f : undefined));
}

/** Whether bits 4-0 of byte 1 tell commands of this operation code apart. */
export function hasServiceAction(opcode: number): boolean {
  return opcodesWithServiceAction.has(opcode);
}

/** Encodes a command of the table. Fields that are left out are zero. Throws RangeError where a value does not fit. */
export function encodeCdb<N extends CommandName>(name: N, values: Partial<ValuesOf<N>> = {}): Uint8Array {
  const row: CommandRow = commands[name];
  const cdb = new Uint8Array(row.length);
  cdb[0] = row.opcode;
  if (row.serviceAction !== undefined) cdb[1] = row.serviceAction;
  setFields(row.fields, viewOf(cdb), values as Readonly<Record<string, unknown>>);
  return cdb;
}

/** Decodes a CDB; what follows its own length (iSCSI pads to 16 bytes) is ignored. Undefined for a command that the table lacks, and for a CDB cut short. */
export function decodeCdb(cdb: Uint8Array): DecodedCdb | undefined {
  const found = rowOf(cdb);
  if (found === undefined) return undefined;
  const [name, row] = found;
  if (cdb.length < row.length) return undefined;
  const view = viewOf(cdb);
  const values: Record<string, unknown> = { name };
  for (const field in row.fields) values[field] = row.fields[field]?.get(view);
  return values as DecodedCdb;
}

/** How many blocks a command of 6 bytes or more is about: 0 stands for 256 in the 6-byte ones alone (SBC). */
export function blocksOf(cdb: Cdb<'read-6' | 'write-6'> | { readonly name: string; readonly blocks: number }): number {
  return cdb.blocks === 0 && (cdb.name === 'read-6' || cdb.name === 'write-6') ? 256 : cdb.blocks;
}

/** The name of a command for messages, such as `READ(16)`; `operation code 5Eh` for one that the table lacks. */
export function cdbName(cdb: Uint8Array): string {
  const found = rowOf(cdb);
  if (found !== undefined) return found[1].title;
  const opcode = cdb[0] ?? 0;
  const action = hasServiceAction(opcode) ? ` service action ${hex((cdb[1] ?? 0) & 0x1f)}` : '';
  return `operation code ${hex(opcode)}${action}`;
}

/** CDB USAGE DATA (SPC): the operation code, then a one for every bit of a CDB that is evaluated. */
export function cdbUsage(row: CommandRow): Uint8Array {
  const usage = new Uint8Array(row.length);
  for (const field of Object.values(row.fields)) {
    for (let index = field.firstBit; index < field.firstBit + field.widthBits; index++) {
      usage[index >> 3] = (usage[index >> 3] ?? 0) | (0x80 >> (index & 7));
    }
  }
  usage[0] = row.opcode;
  if (row.serviceAction !== undefined) usage[1] = (usage[1] ?? 0) | row.serviceAction;
  return usage;
}

const hex = (value: number) => `${value.toString(16).toUpperCase().padStart(2, '0')}h`;

// What an initiator sends.

export const testUnitReadyCdb = (): Uint8Array => encodeCdb('test-unit-ready');

export const requestSenseCdb = (options: { readonly length: number; readonly descriptorFormat?: boolean }): Uint8Array =>
  encodeCdb('request-sense', { allocationLength: options.length, descriptorFormat: options.descriptorFormat ?? false });

/** `page` is for `evpd` alone: a VPD page code. `length` is the allocation length. */
export const inquiryCdb = (options: { readonly evpd?: boolean; readonly page?: number; readonly length: number }): Uint8Array =>
  encodeCdb('inquiry', { evpd: options.evpd ?? false, page: options.page ?? 0, allocationLength: options.length });

/** `selectReport`: 0 all but well-known logical units, 1 well-known ones only, 2 all (SPC). */
export const reportLunsCdb = (options: { readonly length: number; readonly selectReport?: number }): Uint8Array =>
  encodeCdb('report-luns', { selectReport: options.selectReport ?? 0, allocationLength: options.length });

export const readCapacity10Cdb = (): Uint8Array => encodeCdb('read-capacity-10');

export const readCapacity16Cdb = (options: { readonly length: number } = { length: 32 }): Uint8Array =>
  encodeCdb('read-capacity-16', { allocationLength: options.length });

/** A command on a run of blocks. `size` 10 reaches LBA 2^32 - 1 and 65535 blocks. */
export interface AccessOptions {
  readonly lba: number;
  readonly blocks: number;
  readonly size: 10 | 16;
  /** Force unit access: past any volatile cache. */
  readonly fua?: boolean;
}

export const readCdb = (options: AccessOptions): Uint8Array =>
  accessCdb(options.size === 10 ? drafts['read-10'] : drafts['read-16'], options);

export const writeCdb = (options: AccessOptions): Uint8Array =>
  accessCdb(options.size === 10 ? drafts['write-10'] : drafts['write-16'], options);

type AccessRow = CommandRow<{ lba: Field<number>; blocks: Field<number>; fua: Field<boolean> }>;

/** Where a CDB is put together: a view of its own for each would cost more than all the rest. What is not set below stays 0. */
interface Draft {
  readonly row: AccessRow;
  readonly cdb: Uint8Array;
  readonly view: DataView;
}

function draftOf(row: AccessRow): Draft {
  const cdb = new Uint8Array(row.length);
  cdb[0] = row.opcode;
  return { row, cdb, view: viewOf(cdb) };
}

const drafts = {
  'read-10': draftOf(commands['read-10']),
  'read-16': draftOf(commands['read-16']),
  'write-10': draftOf(commands['write-10']),
  'write-16': draftOf(commands['write-16']),
};

/** As `encodeCdb`, without its walk over the whole row: one of these goes with every command that moves data. */
function accessCdb({ row, cdb, view }: Draft, { lba, blocks, fua = false }: AccessOptions): Uint8Array {
  const { fields } = row;
  fields.lba.set(view, lba);
  fields.blocks.set(view, blocks);
  fields.fua.set(view, fua);
  return new Uint8Array(cdb);
}

/** The whole logical unit (LBA 0, 0 blocks) and IMMED = 0 unless told otherwise. */
export const synchronizeCacheCdb = (options: {
  readonly size: 10 | 16;
  readonly lba?: number;
  readonly blocks?: number;
}): Uint8Array => {
  const run = { lba: options.lba ?? 0, blocks: options.blocks ?? 0 };
  return options.size === 10 ? encodeCdb('synchronize-cache-10', run) : encodeCdb('synchronize-cache-16', run);
};

/** A mode page request: current values, no block descriptors unless asked for. Page 3Fh is all pages. */
export interface ModeSenseOptions {
  readonly page: number;
  readonly subpage?: number;
  readonly length: number;
  readonly blockDescriptors?: boolean;
  /** 0 current, 1 changeable, 2 default, 3 saved values. */
  readonly pageControl?: number;
}

const modeSenseValues = (options: ModeSenseOptions) => ({
  page: options.page,
  subpage: options.subpage ?? 0,
  pageControl: options.pageControl ?? 0,
  disableBlockDescriptors: !(options.blockDescriptors ?? false),
  allocationLength: options.length,
});

export const modeSense6Cdb = (options: ModeSenseOptions): Uint8Array => encodeCdb('mode-sense-6', modeSenseValues(options));
export const modeSense10Cdb = (options: ModeSenseOptions): Uint8Array => encodeCdb('mode-sense-10', modeSenseValues(options));
