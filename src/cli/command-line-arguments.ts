/** Options as yargs parsed them, read one by one with their types; what does not fit is a `UsageError`. */

import { type OptionName, optionNames, parseOption, type SomeOptions } from '../config/options.ts';
import { PORT_FORM, parsePort, readPortal } from '../config/portal.ts';
import { DURATION_FORM, parseDuration } from '../config/quantity.ts';
import type { ChapSources } from '../config/secrets.ts';
import type { CommandLineSettings } from '../config/settings.ts';
import { IserfsError, UsageError } from '../errors.ts';
import type { Endpoint } from '../iser/datamover/datamover.ts';
import { isValidIscsiName, type Portal, parsePortal } from '../iser/iscsi/name.ts';
import { lunLabel, parseLun } from '../scsi/lun.ts';
import type { EmbeddedPortal } from './embedded-target.ts';

export class CommandLineArguments {
  readonly #parsed: Readonly<Record<string, unknown>>;

  constructor(parsed: Readonly<Record<string, unknown>>) {
    this.#parsed = parsed;
  }

  flag(name: string): boolean {
    return this.#parsed[name] === true;
  }

  /** The value of an option that may be given once. */
  text(name: string): string | undefined {
    const value = this.#parsed[name];
    if (Array.isArray(value)) throw new UsageError(`--${name} is given ${value.length} times`);
    return value === undefined ? undefined : String(value);
  }

  /** The values of an option that may be repeated. */
  texts(name: string): string[] {
    const value = this.#parsed[name];
    if (value === undefined) return [];
    return (Array.isArray(value) ? value : [value]).map(String);
  }

  required(name: string): string {
    const value = this.text(name);
    if (value === undefined || value === '') throw new UsageError(`${name} is missing`);
    return value;
  }

  duration(name: string): number {
    const milliseconds = parseDuration(this.required(name));
    if (milliseconds === undefined) throw new UsageError(`--${name}: expected ${DURATION_FORM}`);
    return milliseconds;
  }

  iscsiName(name: string): string {
    const value = this.required(name);
    if (!isValidIscsiName(value)) throw notAName(`--${name}`, value);
    return value;
  }

  /** Those of `names` that were given. */
  options(names: readonly OptionName[]): SomeOptions {
    const options: Record<string, unknown> = {};
    for (const name of names) {
      const value = typeof this.#parsed[name] === 'boolean' ? this.#parsed[name] : this.text(name);
      if (value === undefined) continue;
      try {
        options[name] = parseOption(name, value);
      } catch (error) {
        throw new UsageError(`--${name} ${String(value)}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
    return options as SomeOptions;
  }

  /** What was given of where CHAP credentials come from; only what was. */
  chap(): ChapSources {
    const sources: { -readonly [K in keyof ChapSources]: string } = {};
    for (const [key, name] of [
      ['user', 'chap-user'],
      ['secretFile', 'chap-secret-file'],
      ['mutualUser', 'chap-mutual-user'],
      ['mutualSecretFile', 'chap-mutual-secret-file'],
    ] as const) {
      const value = this.text(name);
      if (value !== undefined) sources[key] = value;
    }
    return sources;
  }

  /** What an embedded target is to listen at: one portal, or one for TCP and one for iSER. */
  targetPortals(): EmbeddedPortal[] {
    const endpoint = parseListen(this.required('listen'));
    const transport = this.text('transport') as EmbeddedPortal['transport'] | undefined; // one of its choices
    const iserPort = this.text('iser-port');
    if (iserPort === undefined) return [{ endpoint, transport: transport ?? 'tcp' }];
    const port = iserPort === '0' ? 0 : parsePort(iserPort);
    if (port === undefined) throw new UsageError(`--iser-port ${iserPort}: expected ${PORT_FORM}`);
    if (transport === 'tcp') throw new UsageError('--iser-port with --transport tcp: iSER goes by iwarp or verbs');
    return [
      { endpoint, transport: 'tcp' },
      { endpoint: { ...endpoint, port }, transport: transport ?? 'iwarp' },
    ];
  }

  /** What says where to log in and how. `portals`: in place of `--portal`. */
  settings(instead: { readonly portals?: readonly string[] } = {}): CommandLineSettings {
    return {
      portals: (instead.portals ?? this.texts('portal')).map((text) => portalOf(text, readPortal)),
      targetNames: this.texts('target').map((name) => {
        if (!isValidIscsiName(name)) throw notAName('--target', name);
        return name;
      }),
      luns: this.texts('lun').map(lunOf),
      options: this.options(optionNames),
      chap: this.chap(),
      configPath: this.text('config'),
    };
  }
}

/** Where to listen: as a portal, but port 0 is allowed. */
export function parseListen(text: string): Endpoint {
  const match = /^(.*):0$/.exec(text);
  const port0 = match !== null;
  const { host, port } = portalOf(port0 ? `${match[1]}:1` : text, parsePortal);
  return { host, port: port0 ? 0 : port };
}

function portalOf(text: string, read: (text: string) => Portal): Portal {
  try {
    return read(text);
  } catch (error) {
    throw asUsage(error);
  }
}

function lunOf(text: string): string {
  try {
    return lunLabel(parseLun(text));
  } catch (error) {
    throw asUsage(error);
  }
}

function asUsage(error: unknown): unknown {
  return error instanceof IserfsError ? new UsageError(error.message, error.hint) : error;
}

function notAName(option: string, value: string): UsageError {
  return new UsageError(`${option}: "${value}" is not an iSCSI name`, 'It looks like iqn.2024-01.com.example:disks');
}
