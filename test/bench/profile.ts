/**
 * `npm run bench:profile`: where the time goes in the workloads of `npm run bench` whose goals are missed. Of the processors, by party,
 * as the kernel counts it; of the process that serves the file, by part, as perf samples it. Exit status 1 where perf may not.
 */

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join, resolve } from 'node:path';
import yargs from 'yargs';
import { cliPath, projectRoot } from '../support/cli-process.ts';
import { MiB, Workdir } from '../support/workdir.ts';
import { demandOf, type Run } from './budget.ts';
import { compilePrograms } from './compile.ts';
import { type Contestant, type FileContestant, rawContestants, startFloor, startIserfs, startQemu } from './contestants.ts';
import { goals } from './goals.ts';
import { interruption } from './interruption.ts';
import { Lifetimes } from './lifetimes.ts';
import { describeMachine } from './machine.ts';
import { type Conditions, type Measured, measure } from './measure.ts';
import { chosen, type IserfsVariant, targetNames } from './options.ts';
import { findObstacle, mapOf, nodeArgsForPerf, readStacks, record } from './perf.ts';
import { idleSeconds } from './process-usage.ts';
import { type Case, casesOf, missedGoals } from './profile-cases.ts';
import { breakDown } from './profile-parts.ts';
import { renderProfilePlot } from './profile-plot.ts';
import { type Profile, renderProfiles } from './profile-report.ts';
import { type Sample, Samples, type TargetName } from './sample.ts';
import { shuffle } from './statistics.ts';
import { startTarget } from './targets.ts';
import { figureOf, workloadNames, workloads } from './workloads.ts';

process.env['TMPDIR'] = '/dev/shm';

/** How often, and for how long at a time, everybody runs without perf. */
const comparedRounds = 5;
const comparedSeconds = 1;
/** How long it takes until everything is compiled. */
const warmSeconds = 2;

try {
  await main();
} catch (error) {
  console.error(error instanceof Error && error.name === 'AbortError' ? 'profile: interrupted' : error);
  process.exitCode = 1;
}

async function main(): Promise<void> {
  const options = await parseArguments();
  const signal = interruption();
  const begun = new Date();
  await using workdir = Workdir.create();
  const obstacle = await findObstacle(workdir.join('perf.data'));
  if (obstacle !== undefined) {
    console.error(`profile: ${obstacle}`);
    process.exitCode = 1;
    return;
  }
  const programs = await compilePrograms(workdir);
  const profiles: Profile[] = [];
  for (const target of targetNames) {
    const cases = options.cases.filter((one) => one.target === target);
    if (cases.length > 0) profiles.push(...(await profileAt(cases, target, { ...options, programs, signal })));
  }
  signal.throwIfAborted();
  const machine = await describeMachine(begun);
  writeFileSync(join(options.out, 'RESULTS-profile.md'), renderProfiles(profiles, { ...options, machine }));
  writeFileSync(join(options.out, 'results-profile.svg'), await renderProfilePlot(profiles));
  console.error(`profile: ${profiles.length} workloads; the results are in ${options.out}`);
}

async function parseArguments() {
  const parsed = await yargs(process.argv.slice(2))
    .scriptName('npm run bench:profile --')
    .usage(
      '$0\n\nWhere the time goes in the workloads that miss a goal, by perf; writes RESULTS-profile.md and results-profile.svg',
    )
    .options({
      only: {
        string: true,
        describe: `Workloads, by commas, whether they miss a goal or not: ${workloadNames.join(', ')}`,
        defaultDescription: 'those that RESULTS.md says miss a goal',
      },
      target: { string: true, default: targetNames.join(','), describe: 'Targets, by commas' },
      seconds: { number: true, default: 3, describe: 'For how long each is sampled' },
      size: { number: true, default: 512, describe: 'MiB of the LUN' },
      out: { string: true, default: resolve(projectRoot, 'test/bench'), describe: 'Folder of RESULTS.md and for the results' },
    })
    .strict()
    .check(({ seconds, size }) => {
      if ([seconds, size].every((value) => Number.isInteger(value) && value > 0)) return true;
      throw new Error('--seconds, --size: a whole number above 0');
    })
    .help()
    .version(false)
    .parseAsync();
  const out = resolve(parsed.out);
  const asked = chosen('--only', parsed.only, workloadNames);
  const targets = chosen('--target', parsed.target, targetNames);
  const some = parsed.only === undefined ? missedGoals(readFileSync(join(out, 'RESULTS.md'), 'utf8')) : goals;
  const cases = casesOf(some.filter(({ workload, target }) => asked.includes(workload) && targets.includes(target)));
  if (cases.length === 0) throw new Error('there is no goal for that at that target, or all are reached');
  return { cases, seconds: parsed.seconds, size: parsed.size * MiB, out };
}

async function profileAt(cases: readonly Case[], name: TargetName, circumstances: Omit<Conditions, 'target' | 'copy'>) {
  await using stack = new Lifetimes();
  const workdir = stack.use(Workdir.create());
  const { programs, size } = circumstances;
  const target = stack.use(await startTarget(name, size, programs.initiator));
  const conditions = { ...circumstances, target, copy: workdir.join('copy') };
  const mountOf = async (build: string, variant: IserfsVariant, nodeArgs?: readonly string[]) =>
    stack.use(await startIserfs({ name: build, cliPath, flags: [] }, variant, target, workdir, nodeArgs));
  // Those that the goals compare with.
  const peers: Contestant[] =
    name === 'embedded'
      ? [await mountOf('iserfs', 'tcp'), await mountOf('iserfs', 'tcp-digest')]
      : [
          ...rawContestants.filter((one) => one.name !== 'iscsi-perf'),
          stack.use(await startQemu(target, workdir)),
          stack.use(await startFloor(programs, size, workdir)),
        ];
  const warmUp = async (contestant: Contestant, own: readonly Case[]) => {
    const names = new Set(own.map(({ workload }) => workload));
    for (const workload of names) {
      if (contestant.takesPartIn(workloads[workload]))
        await measure(contestant, workloads[workload], { ...conditions, seconds: warmSeconds });
    }
  };
  for (const peer of peers) await warmUp(peer, cases);
  const profiles: Profile[] = [];
  for (const variant of new Set(cases.map((one) => one.variant))) {
    const mount = await mountOf('profiled', variant, nodeArgsForPerf);
    process.once('exit', () => rmSync(mapOf(mount.pid), { force: true }));
    const own = cases.filter((one) => one.variant === variant);
    await warmUp(mount, own);
    for (const one of own) {
      console.error(`profile: ${name}: ${one.workload} by ${variant}`);
      profiles.push(await profile(one, mount, peers, conditions));
    }
  }
  return profiles;
}

async function profile(one: Case, mount: FileContestant, peers: readonly Contestant[], conditions: Conditions): Promise<Profile> {
  const { target, workload, variant } = one;
  const all = [mount, ...peers].filter((some) => some.takesPartIn(workloads[workload]));
  const rounds: Sample[] = [];
  for (let round = 1; round <= comparedRounds; round++) {
    for (const contestant of shuffle(all)) {
      const measured = await measure(contestant, workloads[workload], { ...conditions, seconds: comparedSeconds });
      rounds.push({ target, workload, contestant: contestant.name, round, ...measured });
    }
  }
  const samples = new Samples(rounds);
  const file = `${conditions.copy}.perf`;
  const work = () => measure(mount, workloads[workload], conditions);
  const run = await record(mount.pid, file, () => runOf(work));
  const demands = one.goals.map((goal) => demandOf(goal, mount.name, samples, (name) => `iserfs/${name}`, run));
  return {
    ...{ target, workload, variant, run, breakdown: await breakDown(readStacks(file)) },
    alone: samples.summary(mount.name, (sample) => figureOf(sample, workloads[workload].measure)),
    demands: demands.filter((demand) => demand !== undefined),
  };
}

async function runOf(work: () => Promise<Measured>): Promise<Run> {
  const [idleBefore, begun] = [idleSeconds(), performance.now()];
  const measured = await work();
  const [idleAfter, done] = [idleSeconds(), performance.now()];
  const processors = cpus().length;
  const elapsed = (done - begun) / 1000;
  const { clientCpu, targetCpu, serverCpu = 0 } = measured;
  const othersCpu = processors * elapsed - (idleAfter - idleBefore) - clientCpu - targetCpu - serverCpu;
  // The client measures less of the time than all of it: it begins and ends.
  return { ...measured, processors, othersCpu: (othersCpu * measured.seconds) / elapsed };
}
