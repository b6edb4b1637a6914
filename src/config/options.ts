/**
 * The options of a mount: one table from which the command line's flags, the configuration file's
 * keys, the defaults and the checks all follow, so that they cannot disagree. Pure. Secrets are not
 * options: they have their own sources (`secrets.ts`).
 */

import { isValidIscsiName } from '../iser/iscsi/name.ts';
import { PORT_FORM, parsePort } from './portal.ts';
import { DURATION_FORM, formatDuration, formatSize, parseDuration, parseSize, SIZE_FORM } from './quantity.ts';

/** One option. `parse` takes what YAML or argv gave and throws an Error that says what was expected. */
export interface Option<T> {
  readonly parse: (value: unknown) => T;
  readonly fallback: T;
  readonly describe: string;
  /** What help shows for the value; undefined for flags. */
  readonly placeholder: string | undefined;
  readonly choices?: readonly string[];
  /** The fallback as help shows it. */
  readonly fallbackText: string | undefined;
  /** How the value reads in `status`. */
  readonly format: (value: T) => string;
  readonly group: 'Access' | 'Transport' | 'Limits';
}

export const mountOptions = {
  transport: choice(
    'Transport',
    ['auto', 'iser', 'iwarp', 'verbs', 'tcp'],
    'auto',
    'How data travels: auto is RDMA where a device leads to the target, else TCP; iser is RDMA by a device, else by software (iwarp)',
  ),
  'iser-port': iserPort(),
  'iwarp-crc': choice('Transport', ['on', 'off'], 'on', 'CRC32C over what iwarp carries'),
  'header-digest': choice('Transport', ['none', 'prefer', 'require'], 'none', 'CRC32C over PDU headers (TCP)'),
  'data-digest': choice('Transport', ['none', 'prefer', 'require'], 'none', 'CRC32C over PDU data (TCP)'),
  logins: choice(
    'Access',
    ['auto', 'at-mount', 'on-demand'],
    'auto',
    "When sessions begin: at-mount, or on-demand, when a target's directory is first looked into; auto: at-mount for up to 16 targets",
  ),
  'initiator-name': initiatorName(),
  'read-only': flag('Access', 'No image can be written'),
  'allow-other': flag('Access', 'Other users may use the mount (see user_allow_other in /etc/fuse.conf)'),
  shared: flag('Access', 'Other hosts write these LUNs: answer nothing from a cache, write through'),
  'write-through': flag('Access', 'A write returns when the target has it, rather than close and fsync'),
  'fuse-host': choice(
    'Access',
    ['auto', 'native', 'fuse-native'],
    'auto',
    'What serves the mount: native, our own, or the fuse-native package; auto is native where its addon is built',
  ),
  'cache-size': size('64M', 'Memory for cached blocks, all LUNs together; 0 turns the cache off'),
  readahead: size('4M', 'How far each sequential reader is read ahead for; 0 turns it off'),
  'login-timeout': duration('5s', 'Give up on one connection and login after'),
  'command-timeout': duration('30s', 'Abort a SCSI command that takes longer than'),
  'recovery-timeout': duration('2m', 'Fail reads and writes when a target is away for longer than'),
  'stop-timeout': duration('30s', 'When told to stop, serve files that are still open for at most'),
} as const satisfies Record<string, { readonly fallback: unknown }>;

export type OptionName = keyof typeof mountOptions;
export type OptionValues = { readonly [K in OptionName]: (typeof mountOptions)[K]['fallback'] };
export type SomeOptions = { readonly [K in OptionName]?: OptionValues[K] };

export const optionNames = Object.keys(mountOptions) as OptionName[];

export function isOptionName(name: string): name is OptionName {
  return Object.hasOwn(mountOptions, name);
}

/** The value of option `name`. Throws an Error whose message says what was expected. */
export function parseOption<K extends OptionName>(name: K, value: unknown): OptionValues[K] {
  return (mountOptions[name] as unknown as Option<OptionValues[K]>).parse(value);
}

/** Defaults, overridden by each of `layers` in turn. */
export function mergeOptions(...layers: readonly SomeOptions[]): OptionValues {
  const merged: Record<string, unknown> = {};
  for (const name of optionNames) merged[name] = mountOptions[name].fallback;
  for (const layer of layers) {
    for (const name of optionNames) if (layer[name] !== undefined) merged[name] = layer[name];
  }
  return merged as OptionValues;
}

/** Every option as text, for people. */
export function describeOptions(values: OptionValues): Record<string, string> {
  return Object.fromEntries(
    optionNames.map((name) => [name, (mountOptions[name] as unknown as Option<unknown>).format(values[name])]),
  );
}

function choice<const C extends readonly string[]>(
  group: Option<string>['group'],
  choices: C,
  fallback: C[number],
  describe: string,
): Option<C[number]> {
  return {
    parse: (value) => {
      if (typeof value === 'string' && choices.includes(value)) return value;
      throw new Error(`expected one of ${choices.join(', ')}`);
    },
    fallback,
    describe,
    placeholder: choices.join('|'),
    choices,
    fallbackText: fallback,
    format: (value) => value,
    group,
  };
}

function flag(group: Option<boolean>['group'], describe: string): Option<boolean> {
  return {
    parse: (value) => {
      if (typeof value === 'boolean') return value;
      throw new Error('expected true or false');
    },
    fallback: false,
    describe,
    placeholder: undefined,
    fallbackText: undefined,
    format: (value) => (value ? 'yes' : 'no'),
    group,
  };
}

function size(fallbackText: string, describe: string): Option<number> {
  const parse = (value: unknown) => {
    const bytes = isScalar(value) ? parseSize(String(value)) : undefined;
    if (bytes === undefined) throw new Error(`expected ${SIZE_FORM}`);
    return bytes;
  };
  return {
    parse,
    fallback: parse(fallbackText),
    describe,
    placeholder: 'SIZE',
    fallbackText,
    format: formatSize,
    group: 'Limits',
  };
}

function duration(fallbackText: string, describe: string): Option<number> {
  const parse = (value: unknown) => {
    const milliseconds = isScalar(value) ? parseDuration(String(value)) : undefined;
    if (milliseconds === undefined || milliseconds < 1) throw new Error(`expected ${DURATION_FORM}`);
    return milliseconds;
  };
  return {
    parse,
    fallback: parse(fallbackText),
    describe,
    placeholder: 'TIME',
    fallbackText,
    format: formatDuration,
    group: 'Limits',
  };
}

function initiatorName(): Option<string | undefined> {
  return {
    parse: (value) => {
      if (typeof value === 'string' && isValidIscsiName(value)) return value;
      throw new Error('expected an iSCSI name such as iqn.2024-01.com.example:host1');
    },
    fallback: undefined,
    describe: 'How this host calls itself (default: /etc/iscsi/initiatorname.iscsi or one made once)',
    placeholder: 'NAME',
    fallbackText: undefined,
    format: (value) => value ?? '',
    group: 'Access',
  };
}

function iserPort(): Option<number | undefined> {
  return {
    parse: (value) => {
      const port = isScalar(value) ? parsePort(String(value)) : undefined;
      if (port === undefined) throw new Error(`expected ${PORT_FORM}`);
      return port;
    },
    fallback: undefined,
    describe: "Where portals offer iSER, if not at the port that they are named with; a portal's own ,iser-port= wins",
    placeholder: 'PORT',
    fallbackText: undefined,
    format: (value) => value?.toString() ?? '',
    group: 'Transport',
  };
}

function isScalar(value: unknown): value is string | number {
  return typeof value === 'string' || typeof value === 'number';
}
