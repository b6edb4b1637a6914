/** Who takes how much of the processors for an operation or a gibibyte, and what a goal would leave. */

import { GiB } from '../support/workdir.ts';
import type { Goal } from './goals.ts';
import type { Measured } from './measure.ts';
import type { Outcome } from './outputs.ts';
import { type Figure, type Samples, valueIn } from './sample.ts';
import { figureOf, type Measure, perGiB, workloads } from './workloads.ts';

/** What costs are counted by. */
export interface Work {
  readonly label: string;
  readonly digits: number;
  /** What is in `seconds`, of a processor or by the clock, for each unit of what a run did, as the label says. */
  readonly each: (seconds: number, run: Outcome) => number;
}

export function workOf(measure: Measure): Work {
  if (measure === 'throughput') return { label: 's per GiB', digits: 2, each: perGiB };
  return { label: 'µs per operation', digits: 1, each: (seconds, { operations = Number.NaN }) => (seconds * 1e6) / operations };
}

/** A run of a contestant, and what there was of the processors meanwhile. */
export interface Run extends Measured {
  readonly processors: number;
  /** CPU seconds of everybody else: perf, the kernel's own threads, the benchmark, other programs, a hypervisor. */
  readonly othersCpu: number;
}

/** Processor time in the unit of the work: of the parties, and of all processors for as long as a unit took. */
export type Budget = Readonly<Record<'client' | 'target' | 'server' | 'others' | 'idle' | 'together', number>>;

export function budgetOf(run: Run, { each }: Work): Budget {
  const client = each(run.clientCpu, run);
  const target = each(run.targetCpu, run);
  const server = each(run.serverCpu ?? Number.NaN, run);
  const others = each(run.othersCpu, run);
  const together = each(run.processors * run.seconds, run);
  return { client, target, server, others, together, idle: together - client - target - server - others };
}

/** What it takes to reach a goal. */
export interface Demand {
  readonly goal: Goal;
  /** What the contestant comes to. */
  readonly is: number;
  /** The figure that counts, as it would have to be, and all that there is of the processors then, in the unit of the work. */
  readonly figure?: number;
  readonly together?: number;
  /** Of it for the serving process, where client and target take what they take now and nobody is ever idle. */
  readonly server?: number;
}

/** `name`: of a contestant; `run`: one of its. Undefined where `samples` lack somebody that it is compared with. */
export function demandOf(
  goal: Goal,
  name: string,
  samples: Samples,
  peer: (variant: string) => string,
  run: Run,
): Demand | undefined {
  const { measure } = workloads[goal.workload];
  const is = samples.perRound((round) => goal.value(round, name, peer))?.median;
  if (is === undefined) return undefined;
  const bound = 'atLeast' in goal.bound ? goal.bound.atLeast : goal.bound.atMost;
  // What is judged is proportional to what is compared, and has to grow or shrink as much.
  const needed = (figure: Figure) =>
    samples.perRound((round) => (valueIn(round, name, figure) * bound) / goal.value(round, name, peer))?.median ?? Number.NaN;
  const work = workOf(measure);
  if (goal.judged === 'CPU time') return { goal, is, server: needed((own) => work.each(own.serverCpu ?? Number.NaN, own)) };
  if (goal.judged !== undefined) return { goal, is };
  const figure = needed((own) => figureOf(own, measure));
  const together = run.processors * unitTime(figure, measure);
  const { client, target } = budgetOf(run, work);
  return { goal, is, figure, together, server: together - client - target };
}

/** How long a unit of the work takes by the clock, in the unit of the work. */
function unitTime(figure: number, measure: Measure): number {
  if (measure === 'latency') return figure; // one is in flight
  return (measure === 'throughput' ? GiB : 1e6) / figure;
}
