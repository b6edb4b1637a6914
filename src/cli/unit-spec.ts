/**
 * How the command line describes a logical unit of the embedded target: a file or a size, then settings
 * of its own after commas: `disk.img`, `3T,block-size=4096`, `a,b.img,read-only,lun=7,target=iqn…`. Pure.
 */

import { nearest } from '../config/config.ts';
import { parseSize, SIZE_FORM } from '../config/quantity.ts';
import { UsageError } from '../errors.ts';
import { isValidIscsiName } from '../iser/iscsi/name.ts';

export interface UnitSettings {
  readonly blockLength: number;
  readonly readOnly: boolean;
  readonly volatileCache: boolean;
}

export interface UnitSpec extends UnitSettings {
  readonly backing: { readonly file: string; readonly createSize: number | undefined } | { readonly memory: number };
  /** Undefined: the next free number. */
  readonly lun: number | undefined;
  /** The target that offers it; undefined: the default one. */
  readonly target: string | undefined;
}

const KEYS = ['block-size', 'read-only', 'volatile-cache', 'lun', 'target', 'size'];
/** Largest number that the command line gives: beyond, initiators disagree about its form. */
const MOST_LUN = 16_383;
/** As many as a target has numbers for their sessions, with room for several each. */
const MOST_TARGETS = 10_000;

/** Reads the value of `--file` or `--memory`. Throws `UsageError`. */
export function parseUnitSpec(option: 'file' | 'memory', text: string, defaults: UnitSettings): UnitSpec {
  const { head, settings } = split(text);
  const where = `--${option} ${text}`;
  const size = settings.get('size');
  const createSize = size === undefined ? undefined : sizeOf(size, where);
  if (option === 'memory' && createSize !== undefined) throw new UsageError(`${where}: the size stands first, without size=`);
  if (option === 'file' && head === '') throw new UsageError(`${where}: expected a path`);
  const unknown = option === 'memory' ? head.split(',')[1] : undefined;
  if (unknown !== undefined) throw new UsageError(`${where}: unknown setting "${unknown}"`);
  const ownBlockLength = settings.get('block-size');
  const blockLength = ownBlockLength === undefined ? defaults.blockLength : parseBlockLength(ownBlockLength, where);
  const backing = option === 'memory' ? { memory: sizeOf(head, where) } : { file: head, createSize };
  const bytes = 'memory' in backing ? backing.memory : (createSize ?? 0);
  if (bytes % blockLength !== 0)
    throw new UsageError(`${where}: ${bytes} bytes is not a multiple of the block size ${blockLength}`);
  return {
    backing,
    blockLength,
    readOnly: isSet(settings.get('read-only'), defaults.readOnly, where),
    volatileCache: isSet(settings.get('volatile-cache'), defaults.volatileCache, where),
    lun: lunOf(settings.get('lun'), where),
    target: targetOf(settings.get('target'), where),
  };
}

/** Each of `count` targets with units of its own: `NAME-0001` and so on. Throws `UsageError` for what cannot be had several times. */
export function forTargets(units: readonly UnitSpec[], name: string, count: number): UnitSpec[] {
  for (const { backing, target } of units) {
    if ('file' in backing) throw new UsageError(`--targets: ${backing.file} can be in one target alone; give --memory`);
    if (target !== undefined) throw new UsageError(`--targets names the targets: leave target=${target} out`);
  }
  const width = String(count).length;
  return Array.from({ length: count }, (_, index) => `${name}-${String(index + 1).padStart(width, '0')}`).flatMap((target) =>
    units.map((unit) => ({ ...unit, target })),
  );
}

export function parseBlockLength(text: string, where: string): number {
  const length = parseSize(text);
  if (length !== undefined && length >= 512 && length <= 65_536 && Number.isInteger(Math.log2(length))) return length;
  throw new UsageError(`${where}: expected a block size of 512 or 4096 (or another power of two up to 64K)`);
}

/** From the end, as long as the parts are settings: what is before them may hold commas, as paths do. */
function split(text: string): { head: string; settings: Map<string, string> } {
  const parts = text.split(',');
  const settings = new Map<string, string>();
  while (parts.length > 1) {
    const part = parts.at(-1) as string;
    const [key = '', value = ''] = part.includes('=')
      ? [part.slice(0, part.indexOf('=')), part.slice(part.indexOf('=') + 1)]
      : [part];
    if (!KEYS.includes(key)) {
      const near = part.includes('=') ? nearest(key, KEYS) : undefined;
      if (near !== undefined) throw new UsageError(`${text}: unknown setting "${key}"; did you mean "${near}"?`);
      break;
    }
    if (settings.has(key)) throw new UsageError(`${text}: "${key}" is given twice`);
    settings.set(key, value);
    parts.pop();
  }
  return { head: parts.join(','), settings };
}

/** Reads the value of `--targets`. Throws `UsageError`. */
export function parseTargetCount(text: string): number {
  if (/^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= MOST_TARGETS) return Number(text);
  throw new UsageError(`--targets ${text}: expected a number of 1 to ${MOST_TARGETS}`);
}

function sizeOf(text: string, where: string): number {
  const size = parseSize(text);
  if (size !== undefined && size > 0) return size;
  throw new UsageError(`${where}: expected ${SIZE_FORM}`);
}

function isSet(value: string | undefined, fallback: boolean, where: string): boolean {
  if (value === undefined) return fallback;
  if (value === '' || value === 'yes' || value === 'true') return true;
  if (value === 'no' || value === 'false') return false;
  throw new UsageError(`${where}: expected yes or no, not "${value}"`);
}

function lunOf(text: string | undefined, where: string): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,5}$/.test(text) && Number(text) <= MOST_LUN) return Number(text);
  throw new UsageError(`${where}: expected a LUN of 0 to ${MOST_LUN}`);
}

function targetOf(text: string | undefined, where: string): string | undefined {
  if (text === undefined || isValidIscsiName(text)) return text;
  throw new UsageError(`${where}: "${text}" is not an iSCSI name such as iqn.2024-01.com.example:disks`);
}
