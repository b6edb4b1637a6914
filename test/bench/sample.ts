/** What was measured, one run of one contestant, and how it is looked up: ratios are made within a round, then summed up. */

import type { Outcome } from './outputs.ts';
import { type Summary, summarize } from './statistics.ts';
import type { WorkloadName } from './workloads.ts';

export type TargetName = 'tgtd' | 'tgtd-large' | 'embedded';

/**
 * Who takes part. `iserfs` has a build and a variant behind it: `iserfs/tcp`. `ceiling`: the initiator without a file, with as many
 * in flight as the client of the workload has; `ceiling-deep`: with more, for sequential workloads. `floor`: a file without a LUN.
 */
export type ContestantName = string;

export interface Sample extends Outcome {
  readonly target: TargetName;
  readonly workload: WorkloadName;
  readonly contestant: ContestantName;
  readonly round: number;
  /** CPU seconds of the process that serves the file. Undefined where there is none. */
  readonly serverCpu?: number;
  /** Of the program that reads or writes, and of the target. */
  readonly clientCpu: number;
  readonly targetCpu: number;
  /** Bytes: the most that the serving process had resident meanwhile. */
  readonly peakMemory?: number;
}

/** A figure of one sample; NaN where it has none. */
export type Figure = (sample: Sample) => number;

/** The samples of a run. */
export class Samples {
  readonly all: readonly Sample[];

  constructor(all: readonly Sample[]) {
    this.all = all;
  }

  of(target: TargetName, workload: WorkloadName): Samples {
    return new Samples(this.all.filter((sample) => sample.target === target && sample.workload === workload));
  }

  get contestants(): ContestantName[] {
    return [...new Set(this.all.map(({ contestant }) => contestant))];
  }

  /** Over the rounds. */
  summary(contestant: ContestantName, figure: Figure): Summary | undefined {
    return summarize(
      this.all
        .filter((sample) => sample.contestant === contestant)
        .map(figure)
        .filter(Number.isFinite),
    );
  }

  /** What `figure` makes of each round that has all that it asks for. */
  perRound(figure: (round: Round) => number): Summary | undefined {
    const rounds = new Map<number, Map<ContestantName, Sample>>();
    for (const sample of this.all) {
      const round = rounds.get(sample.round) ?? new Map<ContestantName, Sample>();
      round.set(sample.contestant, sample);
      rounds.set(sample.round, round);
    }
    return summarize([...rounds.values()].map(figure).filter(Number.isFinite));
  }

  /** One contestant's figure divided by another's, within each round. */
  ratio(one: ContestantName, other: ContestantName, figure: Figure): Summary | undefined {
    return this.perRound((round) => valueIn(round, one, figure) / valueIn(round, other, figure));
  }
}

/** A round's samples of one workload at one target, by contestant. */
export type Round = ReadonlyMap<ContestantName, Sample>;

/** NaN where the contestant did not take part. */
export function valueIn(round: Round, contestant: ContestantName, figure: Figure): number {
  const sample = round.get(contestant);
  return sample === undefined ? Number.NaN : figure(sample);
}
