/** What came of the comparison in the machine with RDMA devices, as Markdown. */

import { table, withSpread } from './report.ts';
import { type Summary, summarize } from './statistics.ts';

export const rdmaWorkloads = ['read, buffered', 'read, O_DIRECT', 'write, buffered and fsync', 'write, O_DIRECT'] as const;
export type RdmaWorkload = (typeof rdmaWorkloads)[number];

export interface RdmaSample {
  readonly target: string;
  readonly workload: RdmaWorkload;
  readonly contestant: string;
  readonly round: number;
  readonly bytesPerSecond: number;
}

/** Of what the others reach. */
const goal = 0.7;
const judged = 'iserfs (verbs)';
const others = ['kernel (ib_iser)', 'libiscsi'];

export interface RdmaReportOptions {
  readonly rounds: number;
  /** Of a turn, at least. */
  readonly seconds: number;
  /** MiB that are gone through again and again. */
  readonly mebibytes: number;
  /** Who took no part where, and why. */
  readonly absent: readonly string[];
  readonly versions: Readonly<Record<string, string>>;
}

export function renderRdmaReport(
  samples: readonly RdmaSample[],
  { rounds, seconds, mebibytes, absent, versions }: RdmaReportOptions,
): string {
  const targets = [...new Set(samples.map(({ target }) => target))];
  return `${[
    '# How fast it is over RDMA devices',
    '',
    'Written by `npm run bench:rdma`, in an emulated machine with Soft-RoCE (rxe). Do not edit.',
    '',
    'An emulated processor does all of the work: only the ratios mean something. They are made within each of',
    `${rounds} rounds, in which everybody takes a turn of ${seconds} s in random order: through ${mebibytes} MiB again and again,`,
    'which no cache still holds. Before, files are read and written in small pieces for a while, until what is compiled at run time is compiled, and',
    'everybody has taken a turn that does not count. Shown are medians, with the least and the most in brackets.',
    'Sequential, 1 MiB at a time (`dd bs=1M`); libiscsi without a file, with four commands of 256 KiB in flight, since it cannot do larger',
    'ones over iSER.',
    '',
    ...targets.flatMap((target) =>
      targetSection(
        samples.filter((sample) => sample.target === target),
        target,
      ),
    ),
    ...(absent.length === 0 ? [] : [...absent.map((line) => `- ${line}`), '']),
    `Versions: ${Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', ')}.`,
  ].join('\n')}\n`;
}

function targetSection(samples: readonly RdmaSample[], target: string): string[] {
  const contestants = [judged, ...others];
  const rows = rdmaWorkloads.map((workload) => {
    const some = samples.filter((sample) => sample.workload === workload);
    const ratios = others.map((other) => ratio(some, judged, other));
    const known = ratios.filter((summary) => summary !== undefined);
    return [
      workload,
      ...contestants.map((contestant) => withSpread(speedOf(some, contestant), (value) => (value / 1e6).toFixed(1))),
      ...ratios.map((summary) => withSpread(summary, (value) => value.toFixed(2))),
      known.length === 0 ? '–' : known.every(({ median }) => median >= goal) ? 'reached' : '**not reached**',
    ];
  });
  const heading = [
    'Workload',
    ...contestants.map((name) => `${name}, MB/s`),
    ...others.map((name) => `× ${name}`),
    `Goal: ${goal} × both`,
  ];
  return [`## Against ${target}`, '', ...table(heading, rows), ''];
}

function speedOf(samples: readonly RdmaSample[], contestant: string): Summary | undefined {
  return summarize(samples.filter((sample) => sample.contestant === contestant).map(({ bytesPerSecond }) => bytesPerSecond));
}

function ratio(samples: readonly RdmaSample[], one: string, other: string): Summary | undefined {
  const speed = (contestant: string, round: number) =>
    samples.find((sample) => sample.contestant === contestant && sample.round === round)?.bytesPerSecond ?? Number.NaN;
  const rounds = [...new Set(samples.map(({ round }) => round))];
  return summarize(rounds.map((round) => speed(one, round) / speed(other, round)).filter(Number.isFinite));
}
