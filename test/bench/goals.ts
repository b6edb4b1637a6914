/** What is to be reached, and whether it was: a ratio within each round, its median against a bound. */

import { type Round, type Sample, type Samples, type TargetName, valueIn } from './sample.ts';
import type { Summary } from './statistics.ts';
import { figureOf, type Measure, perGiB, type WorkloadName, workloads } from './workloads.ts';

export interface Goal {
  readonly title: string;
  readonly target: TargetName;
  readonly workload: WorkloadName;
  /** What the contestant's variant must be: `tcp`. */
  readonly variant: string;
  /** `contestant` is the one that is judged; `peer` gives the name of another variant of the same build. */
  readonly value: (round: Round, contestant: string, peer: (variant: string) => string) => number;
  readonly bound: { readonly atLeast: number } | { readonly atMost: number };
  /** What of the contestant `value` is proportional to. Default: the figure that counts for the workload. */
  readonly judged?: 'CPU time' | '99th percentile';
  /** Behind the value. Default: ×. */
  readonly unit?: string;
}

export interface Verdict {
  readonly goal: Goal;
  readonly contestant: string;
  readonly summary: Summary;
  readonly isReached: boolean;
}

/** Those for which there are samples. */
export function judge(samples: Samples, goals: readonly Goal[]): Verdict[] {
  const verdicts: Verdict[] = [];
  for (const goal of goals) {
    const some = samples.of(goal.target, goal.workload);
    for (const contestant of some.contestants.filter((name) => name.endsWith(`/${goal.variant}`))) {
      const build = contestant.slice(0, contestant.lastIndexOf('/'));
      const summary = some.perRound((round) => goal.value(round, contestant, (variant) => `${build}/${variant}`));
      if (summary !== undefined) verdicts.push({ goal, contestant, summary, isReached: isWithin(summary.median, goal.bound) });
    }
  }
  return verdicts;
}

export function describeBound(bound: Goal['bound'], unit = '×'): string {
  return 'atLeast' in bound ? `≥ ${bound.atLeast} ${unit}` : `≤ ${bound.atMost} ${unit}`;
}

function isWithin(value: number, bound: Goal['bound']): boolean {
  return 'atLeast' in bound ? value >= bound.atLeast : value <= bound.atMost;
}

export const goals: readonly Goal[] = [
  ...sequentialGoals('tgtd', ['seq-read', 'seq-read-direct'], 1.8),
  ...sequentialGoals('tgtd', ['seq-write', 'seq-write-direct'], 1.6),
  ...sequentialGoals('tgtd-large', ['seq-write', 'seq-write-direct'], 1.6),
  ...(['rand-read-1', 'rand-write-1'] as const).flatMap((workload): Goal[] => [
    {
      title: 'latency: ceiling and floor together',
      ...overTcp('tgtd', workload),
      value: (round, name) => main(round, name, workload) / (main(round, 'ceiling', workload) + main(round, 'floor', workload)),
      bound: { atMost: 1 },
    },
    {
      title: 'latency: qemu',
      ...overTcp('tgtd', workload),
      value: (round, name) => main(round, name, workload) / main(round, 'qemu', workload),
      bound: { atMost: 1 },
    },
  ]),
  ...(['rand-read-32', 'rand-write-32'] as const).flatMap((workload): Goal[] => [
    {
      title: 'ceiling',
      ...overTcp('tgtd', workload),
      value: (round, name) => main(round, name, workload) / main(round, 'ceiling', workload),
      bound: { atLeast: 0.9 },
    },
    {
      title: 'qemu',
      ...overTcp('tgtd', workload),
      value: (round, name) => main(round, name, workload) / main(round, 'qemu', workload),
      bound: { atLeast: 1.3 },
    },
  ]),
  {
    title: 'latency: floor',
    ...overTcp('tgtd', 'reread'),
    value: (round, name) => main(round, name, 'reread') / main(round, 'floor', 'reread'),
    bound: { atMost: 1 },
  },
  {
    title: '99th percentile of the latency',
    ...overTcp('tgtd', 'reread-blocked'),
    value: (round, name) => valueIn(round, name, ({ p99Us }) => p99Us ?? Number.NaN),
    bound: { atMost: 1000 },
    judged: '99th percentile',
    unit: 'µs',
  },
  ...(['seq-read', 'seq-read-direct'] as const).map(
    (workload): Goal => ({
      title: 'CPU per GiB: qemu',
      ...overTcp('tgtd', workload),
      value: (round, name) => valueIn(round, name, serverCpuPerGiB) / valueIn(round, 'qemu', serverCpuPerGiB),
      bound: { atMost: 0.6 },
      judged: 'CPU time',
    }),
  ),
  ...(['seq-read', 'seq-read-direct', 'seq-write', 'seq-write-direct'] as const).flatMap((workload) => [
    ...iwarpGoals(workload, 'iwarp', 'tcp-digest', 'tcp with DataDigest=CRC32C'),
    ...iwarpGoals(workload, 'iwarp-no-crc', 'tcp', 'tcp without digests'),
  ]),
];

/** Of the serving process. */
export function serverCpuPerGiB(sample: Sample): number {
  return perGiB(sample.serverCpu ?? Number.NaN, sample);
}

/** The figure that counts for the workload. */
export function mainFigure(workload: WorkloadName): (sample: Sample) => number {
  const measure: Measure = workloads[workload].measure;
  return (sample) => figureOf(sample, measure);
}

/** The best that the initiator without a file does, however many it has in flight. */
export function bestCeiling(round: Round, workload: WorkloadName): number {
  const values = ['ceiling', 'ceiling-deep'].map((name) => main(round, name, workload)).filter(Number.isFinite);
  return values.length === 0 ? Number.NaN : Math.max(...values);
}

function main(round: Round, name: string, workload: WorkloadName): number {
  return valueIn(round, name, mainFigure(workload));
}

function overTcp(target: TargetName, workload: WorkloadName) {
  return { target, workload, variant: 'tcp' };
}

function sequentialGoals(target: TargetName, names: readonly WorkloadName[], timesQemu: number): Goal[] {
  return names.flatMap((workload): Goal[] => [
    {
      title: 'ceiling, as many in flight as the client has',
      ...overTcp(target, workload),
      value: (round, name) => main(round, name, workload) / main(round, 'ceiling', workload),
      bound: { atLeast: 0.9 },
    },
    {
      title: 'ceiling, the best with 1 and with 4 in flight',
      ...overTcp(target, workload),
      value: (round, name) => main(round, name, workload) / bestCeiling(round, workload),
      bound: { atLeast: 0.9 },
    },
    {
      title: 'qemu',
      ...overTcp(target, workload),
      value: (round, name) => main(round, name, workload) / main(round, 'qemu', workload),
      bound: { atLeast: timesQemu },
    },
  ]);
}

function iwarpGoals(workload: WorkloadName, variant: string, other: string, title: string): Goal[] {
  const what = { target: 'embedded' as const, workload, variant };
  return [
    {
      title: `throughput: ${title}`,
      ...what,
      value: (round, name, peer) => main(round, name, workload) / main(round, peer(other), workload),
      bound: { atLeast: 1 },
    },
    {
      title: `CPU per GiB: ${title}`,
      ...what,
      value: (round, name, peer) => valueIn(round, name, serverCpuPerGiB) / valueIn(round, peer(other), serverCpuPerGiB),
      bound: { atMost: 1 },
      judged: 'CPU time',
    },
  ];
}
