import { expect, it } from 'vitest';
import { budgetOf, demandOf, type Run, workOf } from '../../bench/budget.ts';
import { goals, judge } from '../../bench/goals.ts';
import { casesOf, missedGoals } from '../../bench/profile-cases.ts';
import { renderProfilePlot } from '../../bench/profile-plot.ts';
import { renderProfiles } from '../../bench/profile-report.ts';
import { goalsTable } from '../../bench/report.ts';
import { type Sample, Samples } from '../../bench/sample.ts';

const random = { target: 'tgtd', workload: 'rand-read-32', round: 1 } as const;
/** A million operations in 100 s: 100 µs each. */
const own: Sample = {
  ...random,
  contestant: 'iserfs/tcp',
  bytes: 4096e6,
  operations: 1e6,
  seconds: 100,
  serverCpu: 80,
  clientCpu: 20,
  targetCpu: 60,
};
const run: Run = { ...own, processors: 2, othersCpu: 10 };
const samples = new Samples([own, { ...own, contestant: 'qemu', seconds: 65 }]);
const goal = (title: string, workload = 'rand-read-32') =>
  goals.filter((one) => one.workload === workload && one.title.startsWith(title));
const demand = (some: typeof goals) => some.map((one) => demandOf(one, own.contestant, samples, (name) => name, run));

it('a budget is divided among all', () => {
  expect(budgetOf(run, workOf('operations'))).toEqual({
    together: 200,
    server: 80,
    client: 20,
    target: 60,
    idle: 30,
    others: 10,
  });
  const aGiB = { ...run, bytes: 2 ** 31 };
  expect(budgetOf(aGiB, workOf('throughput'))).toMatchObject({ together: 100, server: 40, idle: 15 });
});

it('a goal leaves what client and target do not take at its rate', () => {
  // 1.3 times the 15 400 operations a second of the peer: 50 µs each.
  expect(demand(goal('qemu'))).toMatchObject([{ is: 0.65, figure: expect.closeTo(20_000), together: expect.closeTo(100) }]);
  expect(demand(goal('qemu'))[0]?.server).toBeCloseTo(20);
});

it('a goal of the processor time allows what the peer takes, and one without its peer nothing', () => {
  const both = new Samples([own, { ...own, contestant: 'qemu', serverCpu: 40 }]);
  const [cpu] = goal('CPU', 'seq-read').map((one) => demandOf(one, own.contestant, both, (name) => name, run));
  expect(cpu?.server).toBeCloseTo((0.6 * 40 * 2 ** 30) / own.bytes);
  expect(demand(goal('ceiling'))).toEqual([undefined]);
});

it('the goals that were missed are found in the table that says so', () => {
  const verdicts = judge(samples, goals);
  const [one] = casesOf(missedGoals(goalsTable(verdicts).join('\n')));
  expect(one).toMatchObject({ target: 'tgtd', workload: 'rand-read-32', variant: 'tcp', goals: [{ title: 'qemu' }] });
  expect(missedGoals(goalsTable(verdicts.map((verdict) => ({ ...verdict, isReached: true }))).join('\n'))).toEqual([]);
});

it('a report divides the time of the process among its parts, and names what is unknown where it is much', async () => {
  const parts = [
    { group: 'V8', title: 'compiler', samples: 3 },
    { group: 'other', title: 'unknown', samples: 1 },
  ] as const;
  const breakdown = { samples: 4, parts, unknown: [{ symbol: 'what', object: '/n/node', samples: 1 }] };
  const demands = demand(goal('qemu')).filter((one) => one !== undefined);
  const profiles = [
    { ...random, variant: 'tcp' as const, alone: samples.summary('qemu', ({ seconds }) => seconds), run, breakdown, demands },
  ];
  const text = renderProfiles(profiles, { machine: { kernel: 'Linux 6' }, seconds: 3, size: 2 ** 20 });
  expect(text).toContain('iserfs 80.0, client 20.0, target 60.0, others 10.0, idle 30.0.');
  expect(text).toContain('takes 20.0, where they have 100.0 and leave 20.0 for iserfs');
  expect(text).toContain('| V8: compiler | 60.0 | 75.0 |');
  expect(text).toContain('`what` (/n/node) 25.0 %');
  expect(await renderProfilePlot(profiles)).toContain('rand-read-32, tgtd');
});
