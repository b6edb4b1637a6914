/** The results as Markdown: the goals first, then everything that was measured. */

import { KiB, MiB } from '../support/workdir.ts';
import { deepAccess } from './contestants.ts';
import { bestCeiling, describeBound, mainFigure, serverCpuPerGiB, type Verdict } from './goals.ts';
import type { MachineDescription } from './machine.ts';
import type { BenchOptions } from './options.ts';
import { type Sample, type Samples, type TargetName, valueIn } from './sample.ts';
import type { Summary } from './statistics.ts';
import { targetLabels } from './targets.ts';
import { moreIsBetter, perGiB, unitOf, type Workload, type WorkloadName, workloadNames, workloads } from './workloads.ts';

export interface ReportOptions {
  readonly samples: Samples;
  readonly verdicts: readonly Verdict[];
  readonly machine: MachineDescription;
  readonly options: Pick<BenchOptions, 'builds' | 'rounds' | 'seconds' | 'size'>;
}

export function renderReport({ samples, verdicts, machine, options }: ReportOptions): string {
  const { rounds, seconds, size, builds } = options;
  const targets = [...new Set(samples.all.map(({ target }) => target))];
  return `${[
    '# How fast it is',
    '',
    'Written by `npm run bench`. Do not edit.',
    '',
    '![Results](results.svg)',
    '',
    machineLine(machine),
    '',
    `Everything is in memory, and everything runs on this one machine: client, file, target. A LUN has ${size / MiB} MiB. All contestants are up`,
    `at the same time; each workload is given to one after the other, in another random order in each of ${rounds} rounds, after one`,
    `that does not count, so that everybody is compiled and has touched its memory. A turn takes ${seconds} s: a random workload runs for that time, a`,
    'sequential one goes through the whole LUN again and again until then, and the turn is what that comes to together. Values are medians of the rounds, with the least and the most in brackets; ratios are made within each round and their median is shown. MB are 10^6 bytes.',
    'Reading begins cold: every open drops the page cache and what iserfs holds.',
    '',
    ...legend(builds),
    '',
    ...(verdicts.length === 0 ? [] : ['## Goals', '', ...goalsTable(verdicts), '']),
    ...targets.flatMap((target) => targetSection(samples, target)),
  ].join('\n')}\n`;
}

export function machineLine(machine: MachineDescription): string {
  const parts = Object.entries(machine).map(([name, value]) => `${name} ${value}`);
  return `Measured on: ${parts.join('; ')}.`;
}

function legend(builds: BenchOptions['builds']): string[] {
  const flags = builds
    .filter((build) => build.flags.length > 0)
    .map(({ name, flags }) => `\`${name}\` runs with \`${flags.join(' ')}\`.`);
  return [
    ...builds.map(({ name }) => `- \`${name}/…\`: iserfs by the transport behind the stroke.`),
    '- `qemu`: `qemu-storage-daemon`, the same LUN as a file by libiscsi and FUSE.',
    '- `ceiling`: a program in C over libiscsi, without a file, with as many commands in flight as the client of the workload;',
    `  \`ceiling-deep\`: with ${deepAccess.depth}, of ${deepAccess.transfer / KiB} KiB each. \`iscsi-perf\`: the same as \`ceiling\` by libiscsi’s own program, to check it by; it knows reads only.`,
    '- `floor`: a file in memory, served by C and libfuse 3, without a LUN.',
    '',
    'CPU is that of the process that serves the file, of the client (dd, fio, cp, or the initiator itself) and of the target, in seconds per',
    'GiB; peak memory is the serving process’s.',
    ...(flags.length === 0 ? [] : ['', ...flags]),
  ];
}

export function goalsTable(verdicts: readonly Verdict[]): string[] {
  const rows = verdicts.map(({ goal, contestant, summary, isReached }) => [
    goal.workload,
    goal.target,
    contestant,
    goal.title,
    describeBound(goal.bound, goal.unit),
    withSpread(summary, (value) => (goal.unit === undefined ? value.toFixed(2) : value.toFixed(0))),
    isReached ? 'reached' : '**not reached**',
  ]);
  return table(['Workload', 'Target', 'Who', 'Compared with', 'Goal', 'Is', ''], rows);
}

function targetSection(samples: Samples, target: TargetName): string[] {
  const names = workloadNames.filter((workload) => samples.of(target, workload).all.length > 0);
  return [`## Against ${targetLabels[target]}`, '', ...names.flatMap((name) => workloadSection(samples.of(target, name), name))];
}

function workloadSection(samples: Samples, name: WorkloadName): string[] {
  const workload: Workload = workloads[name];
  const { label, divisor, digits } = unitOf[workload.measure];
  const figure = mainFigure(name);
  const hasLatency = workload.measure === 'latency';
  const sorted = [...samples.contestants].sort((one, other) => {
    const difference = middle(samples.summary(other, figure)) - middle(samples.summary(one, figure));
    return moreIsBetter(workload.measure) ? difference : -difference;
  });
  const rows = sorted.map((contestant) => [
    `\`${contestant}\``,
    withSpread(samples.summary(contestant, figure), (value) => (value / divisor).toFixed(digits)),
    ...(hasLatency
      ? [
          only(
            samples.summary(contestant, ({ p99Us }) => p99Us ?? Number.NaN),
            0,
          ),
        ]
      : []),
    only(
      samples.perRound((round) => valueIn(round, contestant, figure) / ceilingOf(round, name, workload)),
      2,
    ),
    only(samples.ratio(contestant, 'qemu', figure), 2),
    only(samples.summary(contestant, serverCpuPerGiB), 2),
    only(
      samples.summary(contestant, (sample) => perGiB(sample.clientCpu, sample)),
      2,
    ),
    only(
      samples.summary(contestant, (sample) => perGiB(sample.targetCpu, sample)),
      2,
    ),
    only(
      samples.summary(contestant, ({ peakMemory }) => (peakMemory ?? Number.NaN) / MiB),
      0,
    ),
  ]);
  const heading = [
    'Who',
    label,
    ...(hasLatency ? ['99 %, µs'] : []),
    '× ceiling',
    '× qemu',
    'CPU: server',
    'client',
    'target',
    'Peak, MiB',
  ];
  return [`### ${name}`, '', `${workload.title}.`, '', ...table(heading, rows), ''];
}

/** Sequential workloads have two; the better one counts. */
function ceilingOf(round: ReadonlyMap<string, Sample>, name: WorkloadName, workload: Workload): number {
  return workload.raw?.order === 'sequential' ? bestCeiling(round, name) : valueIn(round, 'ceiling', mainFigure(name));
}

function middle(summary: Summary | undefined): number {
  return summary?.median ?? Number.NaN;
}

/** `12 (11–14)`; a dash where there is nothing. */
export function withSpread(summary: Summary | undefined, format: (value: number) => string): string {
  if (summary === undefined) return '–';
  const [median, least, most] = [summary.median, summary.least, summary.most].map(format);
  return summary.count === 1 ? `${median}` : `${median} (${least}–${most})`;
}

function only(summary: Summary | undefined, digits: number): string {
  return summary === undefined ? '–' : summary.median.toFixed(digits);
}

export function table(heading: readonly string[], rows: readonly (readonly string[])[]): string[] {
  return [heading, heading.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`);
}
