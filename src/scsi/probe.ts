/**
 * Asks a logical unit who it is, how large, and what it can do. Every page and command beyond INQUIRY,
 * TEST UNIT READY and READ CAPACITY(10) is optional: a device that refuses one gets the safe assumption
 * in its place. Knows what to ask, not how commands are retried.
 */

import { errorCode, IserfsError } from '../errors.ts';
import { MAX_RUN } from './buffer-pool.ts';
import { CAPACITY_10_OVERFLOW, type Capacity, decodeCapacity10, decodeCapacity16 } from './capacity.ts';
import { inquiryCdb, modeSense6Cdb, modeSense10Cdb, readCapacity10Cdb, readCapacity16Cdb, testUnitReadyCdb } from './cdb.ts';
import type { CommandRequest } from './command-runner.ts';
import type { LogicalUnitIdentity } from './identity.ts';
import {
  type BlockCharacteristics,
  type BlockLimits,
  DeviceType,
  decodeBlockCharacteristics,
  decodeBlockLimits,
  decodeDeviceIdentification,
  decodeStandardInquiry,
  decodeSupportedPages,
  decodeThinProvisioning,
  decodeUnitSerialNumber,
  decodeVpdPage,
  PeripheralQualifier,
  type ThinProvisioning,
  VpdPage,
} from './inquiry.ts';
import { decodeCachingPage, decodeModeParameters, ModePage } from './mode.ts';

/** Issues a command and resolves with the number of bytes that came. */
export type RunCommand = (request: CommandRequest) => Promise<number>;

/** What GOOD for a write means: `unknown` is to be treated as `volatile`. */
export type WriteCache = 'none' | 'volatile' | 'unknown';

export interface Characteristics {
  readonly capacity: Capacity;
  /** Bytes; at most 2^53 - 1. */
  readonly size: number;
  readonly writeProtected: boolean;
  readonly writeCache: WriteCache;
  /** The device obeys the FUA bit. */
  readonly dpoFua: boolean;
  readonly limits: BlockLimits | undefined;
  readonly characteristics: BlockCharacteristics | undefined;
  readonly provisioning: ThinProvisioning | undefined;
}

/** Whether a device of this type has blocks that a file can show. */
export function hasImage(deviceType: number): boolean {
  return deviceType === DeviceType['direct-access'] || deviceType === DeviceType['simplified-direct-access'];
}

/** Resolves when a TEST UNIT READY ends GOOD: nothing stands before the next command any more. */
export async function awaitReady(run: RunCommand): Promise<void> {
  await run({ cdb: testUnitReadyCdb() });
}

/** Standard INQUIRY data and VPD pages 80h and 83h. Throws `logical-unit-gone` where the LUN has no unit. */
export async function identify(run: RunCommand): Promise<LogicalUnitIdentity> {
  const inquiry = decodeStandardInquiry(await dataOf(run, 96, (length) => inquiryCdb({ length })));
  if (inquiry.peripheralQualifier !== PeripheralQualifier.connected) {
    throw new IserfsError('logical-unit-gone', 'the target has no logical unit at this LUN');
  }
  const pages = await supportedPages(run);
  const serial = await optionalPage(run, pages, VpdPage['unit-serial-number'], decodeUnitSerialNumber);
  const designators = await optionalPage(run, pages, VpdPage['device-identification'], decodeDeviceIdentification);
  const { vendor, product, revision, deviceType, removable } = inquiry;
  return {
    vendor,
    product,
    revision,
    serial: serial === '' ? undefined : serial,
    designators: designators ?? [],
    deviceType,
    removable,
  };
}

/** Capacity, mode parameters and limits. Throws `unsupported` where the device is larger than a file can be. */
export async function characterize(run: RunCommand): Promise<Characteristics> {
  const capacity = await readCapacity(run);
  const size = (capacity.lastLba + 1n) * BigInt(capacity.blockLength);
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new IserfsError('unsupported', `the logical unit has ${size} bytes; at most 2^53 - 1 can be served`);
  }
  if (capacity.blockLength > MAX_RUN) {
    throw new IserfsError('unsupported', `logical blocks of ${capacity.blockLength} bytes; at most ${MAX_RUN} can be served`);
  }
  const mode = await readMode(run);
  const pages = await supportedPages(run);
  return {
    capacity,
    size: Number(size),
    ...mode,
    limits: await optionalPage(run, pages, VpdPage['block-limits'], decodeBlockLimits),
    characteristics: await optionalPage(run, pages, VpdPage['block-characteristics'], decodeBlockCharacteristics),
    provisioning: await optionalPage(run, pages, VpdPage['logical-block-provisioning'], decodeThinProvisioning),
  };
}

/** READ CAPACITY(16), or (10) for devices from before it. */
export async function readCapacity(run: RunCommand): Promise<Capacity> {
  const long = await unlessRefused(dataOf(run, 32, (length) => readCapacity16Cdb({ length })));
  const capacity = long === undefined ? undefined : decodeCapacity16(long);
  if (capacity !== undefined) return capacity;
  const short = decodeCapacity10(await dataOf(run, 8, () => readCapacity10Cdb()));
  if (short === undefined) throw new IserfsError('unsupported', 'the device does not tell its block length');
  if (short.lastLba === BigInt(CAPACITY_10_OVERFLOW)) {
    throw new IserfsError('unsupported', 'the device is too large for READ CAPACITY(10) and refuses READ CAPACITY(16)');
  }
  return short;
}

/** The ways to ask for mode parameters, the best first: devices know some, one or none of them. */
const modeQuestions = [
  { page: ModePage.caching, format: 6 },
  { page: ModePage.caching, format: 10 },
  { page: ModePage.all, format: 6 },
  { page: ModePage.all, format: 10 },
] as const;

type Mode = Pick<Characteristics, 'writeProtected' | 'writeCache' | 'dpoFua'>;

async function readMode(run: RunCommand): Promise<Mode> {
  for (const { page, format } of modeQuestions) {
    const cdbOf = format === 6 ? modeSense6Cdb : modeSense10Cdb;
    const data = await unlessRefused(dataOf(run, format === 6 ? 252 : 4096, (length) => cdbOf({ page, length })));
    const mode = data === undefined ? undefined : decodeModeParameters(data, format);
    if (mode === undefined) continue;
    const caching = mode.pages.find((candidate) => candidate.page === ModePage.caching && candidate.subpage === 0);
    return { writeProtected: mode.writeProtected, dpoFua: mode.dpoFua, writeCache: writeCacheOf(caching?.body) };
  }
  return { writeProtected: false, dpoFua: false, writeCache: 'unknown' };
}

function writeCacheOf(cachingPage: Uint8Array | undefined): WriteCache {
  if (cachingPage === undefined || cachingPage.length === 0) return 'unknown';
  return decodeCachingPage(cachingPage).writeCacheEnabled ? 'volatile' : 'none';
}

/** Undefined where the device does not say which pages it has: then each is simply asked for. */
async function supportedPages(run: RunCommand): Promise<readonly number[] | undefined> {
  return await optionalPage(run, undefined, VpdPage['supported-pages'], decodeSupportedPages);
}

/** As much as the ALLOCATION LENGTH of INQUIRY can ask for; a page may claim four bytes more. */
const LONGEST_PAGE = 0xffff;

/** Undefined where the device does not have the page, or answers with something else. */
async function optionalPage<T>(
  run: RunCommand,
  supported: readonly number[] | undefined,
  page: number,
  decode: (body: Uint8Array) => T,
): Promise<T | undefined> {
  if (supported !== undefined && !supported.includes(page)) return undefined;
  const cdbOf = (length: number) => inquiryCdb({ evpd: true, page, length });
  const first = await unlessRefused(dataOf(run, 252, cdbOf));
  if (first === undefined || first.length < 4) return undefined;
  const { page: answered, totalLength } = decodeVpdPage(first);
  if (answered !== page) return undefined;
  const data = totalLength > 252 ? await dataOf(run, Math.min(totalLength, LONGEST_PAGE), cdbOf) : first;
  return decode(decodeVpdPage(data).body);
}

async function dataOf(run: RunCommand, length: number, cdbOf: (length: number) => Uint8Array): Promise<Uint8Array> {
  const dataIn = new Uint8Array(length);
  const transferred = await run({ cdb: cdbOf(length), dataIn, allowShort: true });
  return dataIn.subarray(0, transferred);
}

/** Undefined where the device refuses the command or a field of it. */
async function unlessRefused(data: Promise<Uint8Array>): Promise<Uint8Array | undefined> {
  try {
    return await data;
  } catch (error) {
    const code = errorCode(error);
    if (code === 'illegal-request' || code === 'unsupported') return undefined;
    throw error;
  }
}
