/** The command line of the benchmark. */

import { resolve } from 'node:path';
import yargs from 'yargs';
import { cliPath, projectRoot } from '../support/cli-process.ts';
import { MiB } from '../support/workdir.ts';
import type { ContestantName, TargetName } from './sample.ts';
import { type WorkloadName, workloadNames } from './workloads.ts';

/** A build of iserfs that takes part. */
export interface Build {
  /** In the tables. */
  readonly name: string;
  readonly cliPath: string;
  /** More options of `iserfs mount`. */
  readonly flags: readonly string[];
}

export const iserfsVariants = ['tcp', 'tcp-digest', 'iwarp', 'iwarp-no-crc'] as const;
export type IserfsVariant = (typeof iserfsVariants)[number];

export interface BenchOptions {
  readonly only: readonly WorkloadName[];
  readonly targets: readonly TargetName[];
  /** What `--contestants` names; undefined: all. */
  readonly contestants: readonly string[] | undefined;
  readonly builds: readonly Build[];
  readonly rounds: number;
  /** How long a turn takes at least. */
  readonly seconds: number;
  /** Bytes of the LUN. */
  readonly size: number;
  /** Where the results go. */
  readonly out: string;
  /** Where every single sample goes, as JSON. */
  readonly samples: string | undefined;
}

export const targetNames = ['tgtd', 'tgtd-large', 'embedded'] as const;

export async function parseOptions(args: readonly string[]): Promise<BenchOptions> {
  const parsed = await yargs([...args])
    .scriptName('npm run bench --')
    .usage(
      '$0\n\nCompares iserfs with others and with what is possible, everything in memory, and writes RESULTS.md and results.svg',
    )
    .options({
      only: { string: true, describe: `Workloads, by commas: ${workloadNames.join(', ')}` },
      target: { string: true, default: targetNames.join(','), describe: 'Targets, by commas' },
      contestants: {
        string: true,
        describe: `Who takes part, by commas: iserfs, ${iserfsVariants.join(', ')}, qemu, ceiling, ceiling-deep, iscsi-perf, floor`,
      },
      iserfs: {
        string: true,
        array: true,
        describe: 'A build of iserfs: NAME=PATH/TO/dist/cli.js[,FLAGS]; repeatable, to compare several',
      },
      'iserfs-flags': { string: true, describe: 'More options of iserfs mount, for all builds' },
      rounds: { number: true, describe: 'How often everything is measured (5; quick: 2)' },
      seconds: { number: true, describe: 'How long a turn takes at least (2; quick: 1)' },
      size: { number: true, describe: 'MiB of the LUN (512; quick: 128)' },
      quick: { boolean: true, default: false, describe: 'Less of everything: some five minutes' },
      out: { string: true, default: resolve(projectRoot, 'test/bench'), describe: 'Folder for the results' },
      samples: { string: true, describe: 'Also write every single sample, as JSON, to this file' },
    })
    .strict()
    .check((given) => {
      for (const name of ['rounds', 'seconds', 'size'] as const) {
        const value = given[name];
        if (value !== undefined && !(Number.isInteger(value) && value > 0)) throw new Error(`--${name}: a whole number above 0`);
      }
      return true;
    })
    .help()
    .alias('help', 'h')
    .version(false)
    .parseAsync();
  const quick = parsed.quick;
  const flags = splitWords(parsed['iserfs-flags'] ?? '');
  return {
    only: chosen('--only', parsed.only, workloadNames),
    targets: chosen('--target', parsed.target, targetNames),
    contestants: parsed.contestants?.split(','),
    builds: (parsed.iserfs ?? [`iserfs=${cliPath}`]).map((text) => parseBuild(text, flags)),
    rounds: parsed.rounds ?? (quick ? 2 : 5),
    seconds: parsed.seconds ?? (quick ? 1 : 2),
    size: (parsed.size ?? (quick ? 128 : 512)) * MiB,
    out: resolve(parsed.out),
    samples: parsed.samples,
  };
}

/** `NAME=PATH[,FLAGS]`, the flags separated by spaces or commas. `flags`: more of them. */
export function parseBuild(text: string, flags: readonly string[] = []): Build {
  const [, name = '', path = '', own = ''] = /^([\w.-]+)=([^,]+)(?:,(.*))?$/.exec(text) ?? [];
  if (name === '') throw new Error(`--iserfs: NAME=PATH/TO/dist/cli.js[,FLAGS], not ${text}`);
  return { name, cliPath: resolve(path), flags: [...splitWords(own), ...flags] };
}

/** `names`: what `--contestants` says. A contestant is named in full, by its variant, or by what comes before it. */
export function isChosen(name: ContestantName, names: readonly string[] | undefined): boolean {
  if (names === undefined) return true;
  const [, build = name, variant] = /^(.*)\/(.*)$/.exec(name) ?? [];
  return names.some((one) => one === name || one === build || one === variant || (one === 'iserfs' && variant !== undefined));
}

/** `text`: names by commas, as an option has them; undefined: all. In the order of `all`. */
export function chosen<T extends string>(option: string, text: string | undefined, all: readonly T[]): readonly T[] {
  if (text === undefined) return all;
  const wanted = text.split(',');
  const unknown = wanted.filter((name) => !all.some((one) => one === name));
  if (unknown.length > 0) throw new Error(`${option}: no ${unknown.join(', ')} among ${all.join(', ')}`);
  return all.filter((name) => wanted.includes(name));
}

function splitWords(text: string): string[] {
  return text.split(/[\s,]+/).filter((word) => word !== '');
}
