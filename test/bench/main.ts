/** `npm run bench`: everybody on the same LUN in the same run, one after the other in random order, round by round. */

import { mkdirSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Workdir } from '../support/workdir.ts';
import { compilePrograms } from './compile.ts';
import {
  type Contestant,
  type FileContestant,
  type Programs,
  rawContestants,
  startFloor,
  startIserfs,
  startQemu,
} from './contestants.ts';
import { goals, judge, mainFigure } from './goals.ts';
import { interruption } from './interruption.ts';
import { Lifetimes } from './lifetimes.ts';
import { describeMachine } from './machine.ts';
import { type Conditions, measure } from './measure.ts';
import { type BenchOptions, type IserfsVariant, isChosen, parseOptions } from './options.ts';
import { renderPlot } from './plot.ts';
import { renderReport } from './report.ts';
import { type Sample, Samples, type TargetName } from './sample.ts';
import { shuffle } from './statistics.ts';
import { startTarget } from './targets.ts';
import { unitOf, type Workload, type WorkloadName, workloads } from './workloads.ts';

const memoryFolder = '/dev/shm';
/** So that tgtd's LUNs, mount points and copies are all in memory, and gone with the run. */
process.env['TMPDIR'] = memoryFolder;

/** What is of interest at which target: the rest would be the same story again. */
const workloadsAt: Readonly<Record<TargetName, readonly WorkloadName[]>> = {
  tgtd: Object.keys(workloads) as WorkloadName[],
  'tgtd-large': ['seq-read', 'seq-write', 'seq-write-direct'],
  embedded: ['seq-read', 'seq-read-direct', 'seq-write', 'seq-write-direct', 'rand-read-1', 'rand-read-32', 'rand-write-32'],
};
const variantsAt: Readonly<Record<TargetName, readonly IserfsVariant[]>> = {
  tgtd: ['tcp'],
  'tgtd-large': ['tcp'],
  embedded: ['tcp', 'tcp-digest', 'iwarp', 'iwarp-no-crc'],
};

try {
  await main();
} catch (error) {
  console.error(error instanceof Error && error.name === 'AbortError' ? 'bench: interrupted' : error);
  process.exitCode = 1;
}

async function main(): Promise<void> {
  const options = await parseOptions(process.argv.slice(2));
  checkRoom(options);
  const signal = interruption();
  const begun = new Date();
  const samples: Sample[] = [];
  await using workdir = Workdir.create();
  const programs = await compilePrograms(workdir);
  for (const target of options.targets) samples.push(...(await compareAt(target, options, programs, signal)));
  if (samples.length === 0) throw new Error('nobody took part in anything: see --only, --target and --contestants');
  const found = new Samples(samples);
  const verdicts = judge(found, goals);
  mkdirSync(options.out, { recursive: true });
  const machine = await describeMachine(begun);
  writeFileSync(join(options.out, 'RESULTS.md'), renderReport({ samples: found, verdicts, machine, options }));
  writeFileSync(join(options.out, 'results.svg'), await renderPlot(found));
  if (options.samples !== undefined) writeFileSync(options.samples, JSON.stringify(samples, undefined, 1));
  const reached = verdicts.filter(({ isReached }) => isReached).length;
  console.error(`bench: ${reached} of ${verdicts.length} goals reached; the results are in ${options.out}`);
}

async function compareAt(name: TargetName, options: BenchOptions, programs: Programs, signal: AbortSignal): Promise<Sample[]> {
  const names = workloadsAt[name].filter((workload) => options.only.includes(workload));
  if (names.length === 0) return [];
  await using stack = new Lifetimes();
  const workdir = stack.use(Workdir.create());
  const target = stack.use(await startTarget(name, options.size, programs.initiator));
  const contestants: Contestant[] = rawContestants.filter((one) => isChosen(one.name, options.contestants));
  const servers: (() => Promise<FileContestant>)[] = [];
  const offer = (contestant: string, start: () => Promise<FileContestant>) => {
    if (isChosen(contestant, options.contestants)) servers.push(start);
  };
  for (const build of options.builds) {
    for (const variant of variantsAt[name]) offer(`${build.name}/${variant}`, () => startIserfs(build, variant, target, workdir));
  }
  offer('qemu', () => startQemu(target, workdir));
  if (names.some((workload) => workloads[workload].hasFloor)) offer('floor', () => startFloor(programs, options.size, workdir));
  for (const start of servers) {
    signal.throwIfAborted();
    contestants.push(stack.use(await start()));
  }
  const conditions: Conditions = {
    target,
    programs,
    signal,
    seconds: options.seconds,
    size: options.size,
    copy: workdir.join('copy'),
  };
  await prepareCopies(contestants, conditions);
  const samples: Sample[] = [];
  // The first round does not count: nobody is measured on code that was not compiled, or memory that was not touched.
  for (let round = 0; round <= options.rounds; round++) {
    for (const workload of names) {
      const task: Workload = workloads[workload];
      for (const contestant of shuffle(contestants.filter((one) => one.takesPartIn(task)))) {
        const measured = await measure(contestant, task, conditions);
        const sample = { target: name, workload, contestant: contestant.name, round, ...measured };
        if (round > 0) samples.push(sample);
        const { label, divisor, digits } = unitOf[task.measure];
        const figure = (mainFigure(workload)(sample) / divisor).toFixed(digits);
        console.error(`bench: ${name}, round ${round} of ${options.rounds}: ${workload}: ${contestant.name}: ${figure} ${label}`);
      }
    }
  }
  return samples;
}

/** So that there is something to copy. */
async function prepareCopies(contestants: readonly Contestant[], conditions: Conditions): Promise<void> {
  for (const contestant of contestants) {
    if (contestant.kind !== 'file') continue;
    for (const workload of ['copy-out', 'copy-in'] as const)
      await measure(contestant, workloads[workload], { ...conditions, seconds: 0 });
  }
}

/** The LUN, the copy, the floor's file, and the embedded target's memory are not all there at once; three of them are. */
function checkRoom({ size }: BenchOptions): void {
  const { bavail, bsize } = statfsSync(memoryFolder);
  if (bavail * bsize < 3 * size)
    throw new Error(
      `${memoryFolder} has room for ${Math.floor((bavail * bsize) / 2 ** 20)} MiB: --size must be less than a third`,
    );
}
