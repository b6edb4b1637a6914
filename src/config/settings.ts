/**
 * What a mount is asked to do, resolved from the command line, the configuration file and the
 * environment: the command line wins over the file. Settings are plain data, because the launcher
 * hands them to the server process as JSON. They hold secrets: they go through a pipe, never to a log,
 * a status file or argv.
 */

import { resolve } from 'node:path';
import { UsageError } from '../errors.ts';
import { normalizeIscsiName, type Portal } from '../iser/iscsi/name.ts';
import { type FileSettings, loadConfiguration, type TargetEntry } from './config.ts';
import { mergeOptions, type OptionValues, type SomeOptions } from './options.ts';
import { withIserPort } from './portal.ts';
import { type ChapSettings, type ChapSources, resolveChap } from './secrets.ts';
import type { Environment } from './xdg.ts';

/** What the command line says about targets and how to log in. Absent parts come from the file. */
export interface CommandLineSettings {
  readonly portals: readonly Portal[];
  readonly targetNames: readonly string[];
  /** LUN labels; empty for all. */
  readonly luns: readonly string[];
  readonly options: SomeOptions;
  readonly chap: ChapSources;
  readonly configPath: string | undefined;
}

/** A target that is logged in to without discovery. */
export interface DirectTarget {
  readonly name: string;
  readonly portals: readonly Portal[];
}

export interface ConnectionSettings {
  readonly options: OptionValues;
  /** Asked by SendTargets; all that they return is wanted. Empty where `targets` are named. */
  readonly discover: readonly Portal[];
  readonly targets: readonly DirectTarget[];
  /** Credentials for discovery and for targets without their own. */
  readonly chap: ChapSettings | undefined;
  /** Per target name, in its normal form. */
  readonly targetChap: Readonly<Record<string, ChapSettings>>;
  /** Labels of the LUNs to show, per target name in its normal form; the command line's for all. Absent: all. */
  readonly luns: readonly string[] | undefined;
  readonly targetLuns: Readonly<Record<string, readonly string[]>>;
}

export interface MountSettings extends ConnectionSettings {
  /** Absolute. */
  readonly mountpoint: string;
}

export interface ResolvedSettings {
  readonly settings: ConnectionSettings;
  readonly configPath: string | undefined;
}

/** Merges. Throws `bad-configuration`; `warn` takes lines about things that work but should not stay so. */
export async function resolveSettings(
  commandLine: CommandLineSettings,
  environment: Environment,
  warn: (line: string) => void,
): Promise<ResolvedSettings> {
  const file = await loadConfiguration(commandLine.configPath, environment);
  const chap = await resolveChap(mergeChapSources(file?.chap ?? {}, commandLine.chap), environment, warn);
  const { discover, targets } = whatToReach(commandLine, file);
  const targetChap: Record<string, ChapSettings> = {};
  const targetLuns: Record<string, readonly string[]> = {};
  for (const entry of file?.targets ?? []) {
    // Credentials on the command line are for all targets of this run.
    const own = commandLine.chap.user === undefined ? await resolveChap(entry.chap, environment, warn) : undefined;
    if (own !== undefined) targetChap[normalizeIscsiName(entry.name)] = own;
    if (entry.luns !== undefined) targetLuns[normalizeIscsiName(entry.name)] = entry.luns;
  }
  return {
    settings: {
      options: mergeOptions(file?.options ?? {}, commandLine.options),
      discover,
      targets,
      chap,
      targetChap,
      luns: commandLine.luns.length > 0 ? commandLine.luns : undefined,
      targetLuns,
    },
    configPath: file?.path,
  };
}

/** The credentials for logging in to `targetName`. */
export function chapFor(settings: ConnectionSettings, targetName: string): ChapSettings | undefined {
  const name = normalizeIscsiName(targetName);
  return Object.hasOwn(settings.targetChap, name) ? settings.targetChap[name] : settings.chap;
}

/** Whether LUN `label` of `targetName` is wanted. */
export function wantsLun(settings: ConnectionSettings, targetName: string, label: string): boolean {
  if (settings.luns !== undefined) return settings.luns.includes(label);
  const name = normalizeIscsiName(targetName);
  return !Object.hasOwn(settings.targetLuns, name) || settings.targetLuns[name]?.includes(label) === true;
}

/** Settings for a mount at `mountpoint`, which may be relative to the working directory. */
export function withMountpoint(settings: ConnectionSettings, mountpoint: string): MountSettings {
  return { ...settings, mountpoint: resolve(mountpoint) };
}

/** The command line completes or replaces what the file says; with a user of its own it replaces all of it. */
function mergeChapSources(file: ChapSources, commandLine: ChapSources): ChapSources {
  if (commandLine.user !== undefined) return commandLine;
  const merged: { -readonly [K in keyof ChapSources]: ChapSources[K] } = { ...file };
  if (commandLine.secretFile !== undefined) {
    merged.secretFile = commandLine.secretFile;
    delete merged.secret;
  }
  if (commandLine.mutualUser !== undefined) merged.mutualUser = commandLine.mutualUser;
  if (commandLine.mutualSecretFile !== undefined) {
    merged.mutualSecretFile = commandLine.mutualSecretFile;
    delete merged.mutualSecret;
  }
  return merged;
}

/**
 * Named targets are logged in to at once; without names, all that the portals offer is discovered.
 * Names come from `--target`, or else from the file's targets unless `--portal` says to look elsewhere.
 */
function whatToReach(
  commandLine: CommandLineSettings,
  file: FileSettings | undefined,
): { discover: readonly Portal[]; targets: readonly DirectTarget[] } {
  const given = commandLine.options['iser-port'];
  const common = given ?? file?.options['iser-port'];
  const portals = commandLine.portals.length > 0 ? commandLine.portals : (file?.portals ?? []);
  const entries = file?.targets ?? [];
  const named = commandLine.targetNames.map(
    (name) =>
      entries.find((entry) => normalizeIscsiName(entry.name) === normalizeIscsiName(name)) ?? {
        name,
        portals: [],
        iserPort: undefined,
        chap: {},
        luns: undefined,
      },
  );
  const wanted: readonly TargetEntry[] = named.length > 0 ? named : commandLine.portals.length > 0 ? [] : entries;
  const targets = wanted.map((entry) => ({
    name: entry.name,
    portals: withIserPort(
      commandLine.portals.length === 0 && entry.portals.length > 0 ? entry.portals : portals,
      given ?? entry.iserPort ?? common,
    ),
  }));
  const homeless = targets.find((target) => target.portals.length === 0);
  if (homeless !== undefined) {
    throw new UsageError(
      `no portal is known for ${homeless.name}`,
      'Add --portal HOST[:PORT], or portals in the configuration file.',
    );
  }
  if (targets.length === 0 && portals.length === 0) {
    throw new UsageError(
      'no portal is given',
      file === undefined
        ? 'Add --portal HOST[:PORT], or write portals into ~/.config/iserfs/config.yaml; without a SAN, try --demo.'
        : `Add --portal HOST[:PORT], or portals in ${file.path}.`,
    );
  }
  return { discover: targets.length > 0 ? [] : withIserPort(portals, common), targets };
}
