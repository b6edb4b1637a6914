/**
 * What a served unit says of itself: INQUIRY and VPD pages, capacity, mode pages both ways, supported
 * operation codes. Pure functions from the unit's state to parameter data; MODE SELECT changes that state.
 */

import { createHash } from 'node:crypto';
import { viewOf } from '../field.ts';
import { type Cdb, type CommandName, type CommandRow, cdbUsage, commands, hasServiceAction } from './cdb.ts';
import {
  invalidFieldInCdb,
  invalidFieldInParameterList,
  parameterListLengthError,
  savingParametersNotSupported,
} from './check-condition.ts';
import {
  Association,
  CodeSet,
  DesignatorType,
  DeviceType,
  encodeBlockCharacteristics,
  encodeBlockLimits,
  encodeDeviceIdentification,
  encodeStandardInquiry,
  encodeSupportedPages,
  encodeThinProvisioning,
  encodeUnitSerialNumber,
  encodeVpdPage,
  PeripheralQualifier,
  VpdPage,
} from './inquiry.ts';
import {
  decodeCachingPage,
  decodeControlPage,
  decodeModeParameters,
  encodeBlockDescriptor,
  encodeCachingPage,
  encodeControlPage,
  encodeLongBlockDescriptor,
  encodeModeParameters,
  ModePage,
  type ModePageBody,
} from './mode.ts';
import type { ServedUnit } from './served-unit.ts';

const VENDOR = 'ISERFS';
const REVISION = '0001';
/** Version descriptors (SPC): SAM-5, SPC-4, SBC-3, iSCSI, no version of them claimed. */
const STANDARDS = [0x00a0, 0x0460, 0x04c0, 0x0960];

/** INQUIRY. Without a unit: a LUN that is not there, as SPC has it answered. */
export function inquiryData(unit: ServedUnit | undefined, cdb: Cdb<'inquiry'>): Uint8Array {
  if (!cdb.evpd) {
    if (cdb.page !== 0) throw invalidFieldInCdb(2);
    return standardInquiry(unit);
  }
  if (unit === undefined) throw invalidFieldInCdb(1, 0);
  const body = vpdBodies.get(cdb.page);
  if (body === undefined) throw invalidFieldInCdb(2);
  return encodeVpdPage(cdb.page, body(unit));
}

function standardInquiry(unit: ServedUnit | undefined): Uint8Array {
  return encodeStandardInquiry({
    peripheralQualifier: unit === undefined ? PeripheralQualifier.unsupported : PeripheralQualifier.connected,
    deviceType: unit === undefined ? 0x1f : DeviceType['direct-access'],
    removable: false,
    version: 6,
    protection: false,
    commandQueuing: true,
    vendor: VENDOR,
    product: unit?.product ?? '',
    revision: REVISION,
    versionDescriptors: STANDARDS,
  });
}

const vpdBodies: ReadonlyMap<number, (unit: ServedUnit) => Uint8Array> = new Map<number, (unit: ServedUnit) => Uint8Array>([
  [VpdPage['supported-pages'], () => encodeSupportedPages([...vpdBodies.keys()])],
  [VpdPage['unit-serial-number'], (unit) => encodeUnitSerialNumber(unit.serial)],
  [VpdPage['device-identification'], deviceIdentification],
  [VpdPage['block-limits'], (unit) => encodeBlockLimits(unit.limits)],
  [VpdPage['block-characteristics'], () => encodeBlockCharacteristics({ rotationRate: 1, productType: 0, nominalFormFactor: 0 })],
  [
    VpdPage['logical-block-provisioning'],
    ({ medium }) =>
      encodeThinProvisioning({
        unmap: medium.isThin,
        writeSame16Unmap: medium.isThin,
        writeSame10Unmap: medium.isThin,
        readZeros: medium.isThin ? 1 : 0,
        anchor: false,
        provisioningType: medium.isThin ? 2 : 0,
        thresholdExponent: 0,
      }),
  ],
]);

/** A T10 vendor designator with the serial number, and a locally assigned NAA one made of it. */
function deviceIdentification(unit: ServedUnit): Uint8Array {
  const naa = createHash('sha256').update(`${VENDOR} ${unit.serial}`).digest().subarray(0, 8);
  naa[0] = 0x30 | ((naa[0] ?? 0) & 0x0f);
  const common = { association: Association['logical-unit'] };
  return encodeDeviceIdentification([
    { ...common, type: DesignatorType.naa, codeSet: CodeSet.binary, value: naa },
    {
      ...common,
      type: DesignatorType['t10-vendor'],
      codeSet: CodeSet.ascii,
      value: encodeUnitSerialNumber(VENDOR.padEnd(8) + unit.serial),
    },
  ]);
}

/** MODE SENSE(6) and (10). */
export function modeSenseData(unit: ServedUnit, cdb: Cdb<'mode-sense-6' | 'mode-sense-10'>): Uint8Array {
  if (cdb.pageControl === 3) throw savingParametersNotSupported();
  const format = cdb.name === 'mode-sense-6' ? 6 : 10;
  const longLba = cdb.name === 'mode-sense-10' && cdb.longLbaAccepted;
  return encodeModeParameters(
    {
      writeProtected: unit.isWriteProtected,
      dpoFua: true,
      blockDescriptors: blockDescriptors(unit, cdb.disableBlockDescriptors, longLba),
      longLba: longLba && !cdb.disableBlockDescriptors,
      pages: pagesOf(unit, cdb),
    },
    format,
  );
}

function blockDescriptors(unit: ServedUnit, disabled: boolean, long: boolean): Uint8Array {
  if (disabled) return new Uint8Array(0);
  return long ? encodeLongBlockDescriptor(unit.blocks, unit.blockLength) : encodeBlockDescriptor(unit.blocks, unit.blockLength);
}

const modePages: ReadonlyMap<number, (unit: ServedUnit, changeable: boolean) => ModePageBody> = new Map([
  [
    ModePage.caching as number,
    (unit: ServedUnit, changeable: boolean) => encodeCachingPage({ writeCacheEnabled: changeable || unit.writeCacheEnabled }),
  ],
  [
    ModePage.control,
    (unit: ServedUnit, changeable: boolean) =>
      encodeControlPage({
        descriptorSense: changeable || unit.descriptorSense,
        softwareWriteProtect: changeable || unit.softwareWriteProtect,
      }),
  ],
]);

function pagesOf(unit: ServedUnit, { page, subpage, pageControl }: Cdb<'mode-sense-6' | 'mode-sense-10'>): ModePageBody[] {
  if (subpage !== 0 && subpage !== 0xff) throw invalidFieldInCdb(3);
  const changeable = pageControl === 1;
  if (page === ModePage.all) return [...modePages.values()].map((encode) => encode(unit, changeable));
  const encode = modePages.get(page);
  if (encode === undefined) throw invalidFieldInCdb(2, 5);
  return [encode(unit, changeable)];
}

/** MODE SELECT: checks the whole list, then changes the unit. Returns whether anything changed. */
export function modeSelect(unit: ServedUnit, list: Uint8Array, format: 6 | 10): boolean {
  const headerLength = format === 6 ? 4 : 8;
  const parameters = decodeModeParameters(list, format);
  if (parameters === undefined) throw parameterListLengthError();
  if (parameters.mediumType !== 0) throw invalidFieldInParameterList(format === 6 ? 1 : 2);
  checkBlockDescriptors(unit, parameters.blockDescriptors, parameters.longLba, headerLength);
  let offset = headerLength + parameters.blockDescriptors.length;
  const wanted: ((unit: ServedUnit) => void)[] = [];
  for (const { page, subpage, body } of parameters.pages) {
    const encode = modePages.get(page);
    if (encode === undefined || subpage !== 0) throw invalidFieldInParameterList(offset, 5);
    const current = encode(unit, false).body;
    const changeable = encode(unit, true).body;
    if (body.length !== current.length) throw invalidFieldInParameterList(offset + 1);
    for (const [index, byte] of body.entries()) {
      const fixed = (byte ^ (current[index] ?? 0)) & ~(changeable[index] ?? 0);
      if (fixed !== 0) throw invalidFieldInParameterList(offset + 2 + index, 31 - Math.clz32(fixed & 0xff));
    }
    wanted.push(changeOf(page, body));
    offset += 2 + body.length;
  }
  if (offset !== list.length) throw parameterListLengthError();
  const before = [unit.writeCacheEnabled, unit.descriptorSense, unit.softwareWriteProtect];
  for (const change of wanted) change(unit);
  const after = [unit.writeCacheEnabled, unit.descriptorSense, unit.softwareWriteProtect];
  return after.some((value, index) => value !== before[index]);
}

/** The unit has one format: block descriptors may only repeat it. */
function checkBlockDescriptors(unit: ServedUnit, descriptors: Uint8Array, long: boolean, offset: number): void {
  if (descriptors.length === 0) return;
  if (descriptors.length !== (long ? 16 : 8)) throw invalidFieldInParameterList(offset - 1);
  const view = viewOf(descriptors);
  const blockLength = long ? view.getUint32(12) : view.getUint32(4) & 0xff_ffff;
  if (blockLength !== unit.blockLength) throw invalidFieldInParameterList(offset + (long ? 12 : 5));
}

function changeOf(page: number, body: Uint8Array): (unit: ServedUnit) => void {
  if (page === ModePage.caching) {
    const { writeCacheEnabled } = decodeCachingPage(body);
    return (unit) => {
      unit.writeCacheEnabled = writeCacheEnabled;
    };
  }
  const { descriptorSense, softwareWriteProtect } = decodeControlPage(body);
  return (unit) => {
    unit.descriptorSense = descriptorSense;
    unit.softwareWriteProtect = softwareWriteProtect;
  };
}

/** How REPORT SUPPORTED OPERATION CODES asks. */
const Reporting = { all: 0, opcode: 1, serviceAction: 2, either: 3 } as const;
const SUPPORTED = 0x03;
const NOT_SUPPORTED = 0x01;
/** A command timeouts descriptor that says nothing: its own length, then zeros. */
const NO_TIMEOUTS = Uint8Array.of(0x00, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);

/** REPORT SUPPORTED OPERATION CODES. `isSupported`: whether the unit has a command of the table. */
export function supportedOperationCodes(
  cdb: Cdb<'report-supported-operation-codes'>,
  isSupported: (name: CommandName) => boolean,
): Uint8Array {
  const supported = (Object.entries(commands) as [CommandName, CommandRow][])
    .filter(([name]) => isSupported(name))
    .map(([, row]) => row);
  if (cdb.reportingOptions === Reporting.all) return allCommands(supported, cdb.returnTimeouts);
  return oneCommand(rowAskedFor(supported, cdb), cdb.returnTimeouts);
}

function rowAskedFor(supported: readonly CommandRow[], cdb: Cdb<'report-supported-operation-codes'>): CommandRow | undefined {
  const action = hasServiceAction(cdb.requestedOpcode);
  switch (cdb.reportingOptions) {
    case Reporting.opcode:
      if (action) throw invalidFieldInCdb(2, 2);
      break;
    case Reporting.serviceAction:
      if (!action) throw invalidFieldInCdb(2, 2);
      break;
    case Reporting.either:
      break;
    default:
      throw invalidFieldInCdb(2, 2);
  }
  return supported.find(
    (row) => row.opcode === cdb.requestedOpcode && (row.serviceAction ?? 0) === (action ? cdb.requestedServiceAction : 0),
  );
}

function allCommands(rows: readonly CommandRow[], timeouts: boolean): Uint8Array {
  const each = timeouts ? 8 + NO_TIMEOUTS.length : 8;
  const data = new Uint8Array(4 + rows.length * each);
  const view = viewOf(data);
  view.setUint32(0, data.length - 4);
  for (const [index, row] of rows.entries()) {
    const offset = 4 + index * each;
    view.setUint8(offset, row.opcode);
    view.setUint16(offset + 2, row.serviceAction ?? 0);
    // CTDP says that a timeouts descriptor follows, SERVACTV that the service action counts.
    view.setUint8(offset + 5, (timeouts ? 0x02 : 0) | (row.serviceAction === undefined ? 0 : 0x01));
    view.setUint16(offset + 6, row.length);
    if (timeouts) data.set(NO_TIMEOUTS, offset + 8);
  }
  return data;
}

function oneCommand(row: CommandRow | undefined, timeouts: boolean): Uint8Array {
  if (row === undefined) return Uint8Array.of(0, NOT_SUPPORTED, 0, 0);
  const data = new Uint8Array(4 + row.length + (timeouts ? NO_TIMEOUTS.length : 0));
  data[1] = (timeouts ? 0x80 : 0) | SUPPORTED;
  viewOf(data).setUint16(2, row.length);
  data.set(cdbUsage(row), 4);
  if (timeouts) data.set(NO_TIMEOUTS, 4 + row.length);
  return data;
}

/** REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET and TARGET RESET. */
export function supportedTaskManagementFunctions(): Uint8Array {
  return Uint8Array.of(0x80 | 0x40 | 0x10 | 0x08 | 0x02, 0, 0, 0);
}
