/**
 * Who a logical unit is, and whether what answers at its LUN after a new login is still the same one:
 * re-issued writes must never land on another (RFC 7143 leaves LUN assignment to the target, which may
 * change it at any time). Pure.
 */

import { Association, type Designator, DesignatorType, designatorText } from './inquiry.ts';

export interface LogicalUnitIdentity {
  readonly vendor: string;
  readonly product: string;
  readonly revision: string;
  /** VPD page 80h, where the device has one. */
  readonly serial: string | undefined;
  /** VPD page 83h, those of ports included. */
  readonly designators: readonly Designator[];
  /** Peripheral device type (`DeviceType` in inquiry.ts). */
  readonly deviceType: number;
  readonly removable: boolean;
}

/**
 * Why `found` is not `expected`, in words; undefined where it is the same unit, as far as names tell. A
 * new firmware revision is no difference; a world-wide name or serial number that is missing now is one.
 */
export function differenceBetween(expected: LogicalUnitIdentity, found: LogicalUnitIdentity): string | undefined {
  if (expected.deviceType !== found.deviceType) return `device type ${found.deviceType} instead of ${expected.deviceType}`;
  for (const key of ['vendor', 'product'] as const) {
    if (expected[key] !== found[key]) return `${key} '${found[key]}' instead of '${expected[key]}'`;
  }
  if (expected.serial !== undefined && expected.serial !== found.serial) {
    return `serial number '${found.serial ?? ''}' instead of '${expected.serial}'`;
  }
  const foundNames = new Set(unitNames(found));
  for (const name of unitNames(expected)) {
    if (!foundNames.has(name)) return `designators ${[...foundNames].join(', ') || 'none'} without ${name}`;
  }
  return undefined;
}

/** Whether nothing names the unit itself, so that only its product is known. */
export function isAnonymous(identity: LogicalUnitIdentity): boolean {
  return identity.serial === undefined && unitNames(identity).length === 0;
}

const namingTypes: ReadonlySet<number> = new Set([
  DesignatorType['t10-vendor'],
  DesignatorType['eui-64'],
  DesignatorType.naa,
  DesignatorType['scsi-name'],
]);

/** The designators that name the unit itself, not the way to it. */
function unitNames(identity: LogicalUnitIdentity): string[] {
  return identity.designators
    .filter(({ association, type }) => association === Association['logical-unit'] && namingTypes.has(type))
    .map(designatorText);
}
