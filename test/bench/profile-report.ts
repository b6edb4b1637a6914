/** Where the time goes, as Markdown. */

import { MiB } from '../support/workdir.ts';
import { budgetOf, type Demand, type Run, type Work, workOf } from './budget.ts';
import { describeBound } from './goals.ts';
import type { MachineDescription } from './machine.ts';
import type { Case } from './profile-cases.ts';
import { type Breakdown, groups } from './profile-parts.ts';
import { machineLine, table, withSpread } from './report.ts';
import type { Summary } from './statistics.ts';
import { targetLabels } from './targets.ts';
import { figureOf, unitOf, workloads } from './workloads.ts';

/** What was found in one case. */
export interface Profile extends Pick<Case, 'target' | 'workload' | 'variant'> {
  /** The figure that counts, without perf. */
  readonly alone: Summary | undefined;
  /** With perf. */
  readonly run: Run;
  readonly breakdown: Breakdown;
  readonly demands: readonly Demand[];
}

export interface ProfileReportOptions {
  readonly machine: MachineDescription;
  /** Of a run with perf, at least. */
  readonly seconds: number;
  /** Bytes of the LUN. */
  readonly size: number;
}

export function renderProfiles(profiles: readonly Profile[], { machine, seconds, size }: ProfileReportOptions): string {
  const targets = [...new Set(profiles.map(({ target }) => target))];
  return `${[
    '# Where the time goes',
    '',
    'Written by `npm run bench:profile`. Do not edit.',
    '',
    '![Processor time of iserfs by its parts](results-profile.svg)',
    '',
    machineLine(machine),
    '',
    'The workloads of which [RESULTS.md](RESULTS.md) says that a goal is not reached (or those asked for), with its clients and targets and a LUN of',
    `${size / MiB} MiB. Everybody takes a turn without perf in each of a few rounds, whose median and spread are shown; then perf samples the process`,
    `that serves the file for ${seconds} s or a little more.`,
    '',
    '- What there was of the processors for each operation or GiB, and who took it; `others` are perf, the kernel’s own threads, the',
    '  benchmark, whatever else runs on the machine, and what its own host takes.',
    '- What there would be at the rate of a goal, and what of it is left for iserfs where client and target take what they take now and',
    '  nobody ever waits for anybody.',
    '- The processor time of iserfs by where the samples are: in the kernel by what it was asked for, outside of it by the innermost function,',
    '  in JavaScript by its folder.',
    '',
    ...targets.flatMap((target) => [
      `## Against ${targetLabels[target]}`,
      '',
      ...profiles.filter((one) => one.target === target).flatMap(profileSection),
    ]),
  ].join('\n')}\n`;
}

function profileSection({ workload, variant, alone, run, breakdown, demands }: Profile): string[] {
  const { title, measure } = workloads[workload];
  const { label, divisor, digits } = unitOf[measure];
  const figure = (value: number) => (value / divisor).toFixed(digits);
  const work = workOf(measure);
  const time = (value = Number.NaN) => value.toFixed(work.digits);
  const { client, target, server, others, idle, together } = budgetOf(run, work);
  return [
    `### ${workload}, ${variant}`,
    '',
    `${title}. In ${label}: ${withSpread(alone, figure)} without perf, ${figure(figureOf(run, measure))} with it.`,
    '',
    `${run.processors} processors have ${time(together)} ${work.label} at this rate: iserfs ${time(server)}, client ${time(client)}, ` +
      `target ${time(target)}, others ${time(others)}, idle ${time(idle)}.`,
    '',
    ...demands.map((demand) => {
      const { goal, is } = demand;
      const what = `- ${goal.title} ${describeBound(goal.bound, goal.unit)}, is ${is.toFixed(2)}`;
      if (demand.server === undefined) return what;
      if (demand.figure === undefined) return `${what}; allows iserfs ${time(demand.server)}`;
      return `${what}; takes ${figure(demand.figure)}, where they have ${time(demand.together)} and leave ${time(demand.server)} for iserfs`;
    }),
    '',
    ...partsTable(breakdown, server, work),
    '',
  ];
}

/** `server`: what all samples together are, in the unit of the work. */
function partsTable({ samples, parts, unknown }: Breakdown, server: number, { label, digits }: Work): string[] {
  const percent = (count: number) => ((100 * count) / samples).toFixed(1);
  const countOf = (some: readonly { readonly samples: number }[]) => some.reduce((sum, one) => sum + one.samples, 0);
  const sums = groups.map((group) => `${group} ${percent(countOf(parts.filter((part) => part.group === group)))} %`);
  const row = (title: string, count: number) => [title, ((server * count) / samples).toFixed(digits), percent(count)];
  const small = parts.filter((part) => part.samples / samples < leastShown);
  const rows = parts.slice(0, parts.length - small.length).map((part) => row(`${part.group}: ${part.title}`, part.samples));
  const strange = unknown
    .slice(0, 8)
    .map(({ symbol, object, samples: count }) => `\`${symbol}\` (${object}) ${percent(count)} %`);
  return [
    ...table(['Part', label, '%'], small.length === 0 ? rows : [...rows, row(`${small.length} more`, countOf(small))]),
    '',
    `Together: ${sums.join(', ')}; ${samples} samples.`,
    ...(countOf(unknown) / samples < mostUnknown ? [] : ['', `Of the unknown: ${strange.join(', ')}.`]),
  ];
}

/** The shares that have a row of their own, and that may be unknown without an explanation. */
const leastShown = 0.005;
const mostUnknown = 0.05;
