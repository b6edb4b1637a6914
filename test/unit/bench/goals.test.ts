import { describe, expect, it } from 'vitest';
import { bestCeiling, describeBound, goals, judge } from '../../bench/goals.ts';
import { type Sample, Samples } from '../../bench/sample.ts';
import { workloads } from '../../bench/workloads.ts';

type Given = Partial<Sample> & Pick<Sample, 'contestant'>;

/** A gibibyte in a second unless it says otherwise. */
const sample = (given: Given): Sample => ({
  target: 'tgtd',
  workload: 'seq-read',
  round: 1,
  bytes: 2 ** 30,
  seconds: 1,
  clientCpu: 0,
  targetCpu: 0,
  ...given,
});
const judgeAll = (...given: Given[]) => judge(new Samples(given.map(sample)), goals);

describe('goals', () => {
  it('compare within a round, and take the median of the ratios', () => {
    const rounds = [1, 2, 3].flatMap((round) => [
      sample({ contestant: 'iserfs/tcp', round, seconds: round }),
      sample({ contestant: 'qemu', round, seconds: round * round }),
    ]);
    const verdict = judge(new Samples(rounds), goals).find(({ goal }) => goal.title === 'qemu');
    expect(verdict).toMatchObject({ contestant: 'iserfs/tcp', isReached: true });
    expect(verdict?.summary).toEqual({ median: 2, least: 1, most: 3, count: 3 });
  });

  it('leave out a round in which one of the two is missing', () => {
    const verdicts = judgeAll(
      { contestant: 'iserfs/tcp' },
      { contestant: 'qemu' },
      { contestant: 'iserfs/tcp', round: 2, seconds: 100 },
    );
    expect(verdicts.find(({ goal }) => goal.title === 'qemu')?.summary.count).toBe(1);
  });

  it('are not judged where there is nobody to compare with', () => {
    expect(judgeAll({ contestant: 'iserfs/tcp' })).toEqual([]);
    expect(judgeAll({ contestant: 'qemu' }, { contestant: 'ceiling' })).toEqual([]);
  });

  it('are judged for every build', () => {
    const verdicts = judgeAll(
      { contestant: 'old/tcp', seconds: 9 },
      { contestant: 'new/tcp' },
      { contestant: 'qemu', seconds: 2 },
    );
    expect(verdicts.filter(({ goal }) => goal.title === 'qemu').map((one) => [one.contestant, one.isReached])).toEqual([
      ['old/tcp', false],
      ['new/tcp', true],
    ]);
  });

  it('hold the latency against the ceiling and the floor together', () => {
    const [verdict] = judgeAll(
      ...[
        { contestant: 'iserfs/tcp', meanUs: 120 },
        { contestant: 'ceiling', meanUs: 100 },
        { contestant: 'floor', meanUs: 20 },
      ].map((given) => ({ workload: 'rand-read-1' as const, ...given })),
    );
    expect(verdict).toMatchObject({ isReached: true, summary: { median: 1 } });
  });

  it('hold the CPU time for each byte of the serving processes against each other', () => {
    const verdicts = judgeAll(
      { contestant: 'iserfs/tcp', bytes: 2 ** 30, serverCpu: 1 },
      { contestant: 'qemu', bytes: 2 ** 31, serverCpu: 3 },
    );
    const verdict = verdicts.find(({ goal }) => goal.title.startsWith('CPU'));
    expect(verdict?.summary.median).toBeCloseTo(2 / 3);
    expect(verdict?.isReached).toBe(false);
  });

  it('hold iwarp against tcp of the same build', () => {
    const verdicts = judgeAll(
      ...['a/iwarp-no-crc', 'a/tcp', 'b/tcp'].map((contestant, index) => ({
        contestant,
        target: 'embedded' as const,
        seconds: index + 1,
        serverCpu: 1,
      })),
    );
    expect(verdicts.map(({ contestant, summary }) => [contestant, summary.median])).toEqual([
      ['a/iwarp-no-crc', 2],
      ['a/iwarp-no-crc', 1],
    ]);
  });

  it('are about workloads whose figure they use', () => {
    for (const { workload, title } of goals) {
      if (title.startsWith('latency')) expect(workloads[workload].measure).toBe('latency');
    }
  });
});

it('the ceiling of a sequential workload is the better one of the two', () => {
  const round = new Map(
    [sample({ contestant: 'ceiling', seconds: 2 }), sample({ contestant: 'ceiling-deep' })].map((one) => [one.contestant, one]),
  );
  expect(bestCeiling(round, 'seq-read')).toBe(2 ** 30);
  expect(bestCeiling(new Map(), 'seq-read')).toBeNaN();
});

it('a bound says which way it goes', () => {
  expect(describeBound({ atLeast: 0.9 })).toBe('≥ 0.9 ×');
  expect(describeBound({ atMost: 1000 }, 'µs')).toBe('≤ 1000 µs');
});
