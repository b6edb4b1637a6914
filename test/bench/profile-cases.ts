/** What is looked into: a workload, at a target, by a variant, for the sake of its goals. */

import { type Goal, goals } from './goals.ts';
import { type IserfsVariant, iserfsVariants } from './options.ts';
import type { TargetName } from './sample.ts';
import type { WorkloadName } from './workloads.ts';

export interface Case {
  readonly target: TargetName;
  readonly workload: WorkloadName;
  readonly variant: IserfsVariant;
  readonly goals: readonly Goal[];
}

/** Those that some build missed. `results`: `RESULTS.md`, as `goalsTable` writes it. */
export function missedGoals(results: string): Goal[] {
  const missed = results
    .split('\n')
    .filter((line) => line.endsWith(' | **not reached** |'))
    .map((line) => line.split(' | '));
  return goals.filter(({ workload, target, variant, title }) =>
    missed.some(
      ([first, at, who, than]) => first === `| ${workload}` && at === target && who?.endsWith(`/${variant}`) && than === title,
    ),
  );
}

/** In the order of their first goals. */
export function casesOf(some: readonly Goal[]): Case[] {
  const cases = new Map<string, Case & { goals: Goal[] }>();
  for (const goal of some) {
    const { target, workload } = goal;
    const variant = iserfsVariants.find((name) => name === goal.variant);
    if (variant === undefined) throw new Error(`a goal for ${goal.variant}, which is no variant`);
    const key = [target, variant, workload].join();
    const one = cases.get(key) ?? { target, workload, variant, goals: [] };
    one.goals.push(goal);
    cases.set(key, one);
  }
  return [...cases.values()];
}
