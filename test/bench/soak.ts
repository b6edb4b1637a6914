/**
 * `npm run bench:soak`: requests of mixed sizes through one mount, millions of them, and what the mount's process holds in between.
 * Exit status 1 when memory or file descriptors keep growing after the first tenth.
 */

import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import yargs from 'yargs';
import { describeOutcome, run, waitFor } from '../support/child-process.ts';
import { cliPath, MountProcess } from '../support/cli-process.ts';
import { TargetProcess } from '../support/target-process.ts';
import { MiB, Workdir } from '../support/workdir.ts';
import { fewestSamples, judgeGrowth, type Tolerance } from './growth.ts';
import { interruption } from './interruption.ts';
import { memoryOf } from './process-usage.ts';
import { table } from './report.ts';

process.env['TMPDIR'] = '/dev/shm';

interface SoakSample {
  /** Since the beginning. */
  readonly requests: number;
  /** Bytes. */
  readonly resident: number;
  /** Bytes of JavaScript objects after a garbage collection. */
  readonly heap: number;
  /** Bytes of buffers outside of it. */
  readonly buffers: number;
  readonly descriptors: number;
}

type Quantity = Exclude<keyof SoakSample, 'requests'>;

const quantities: Readonly<
  Record<Quantity, { readonly title: string; readonly divisor: number; readonly tolerance: Tolerance }>
> = {
  resident: { title: 'resident, MiB', divisor: MiB, tolerance: { absolute: 16 * MiB, relative: 0.05 } },
  heap: { title: 'heap, MiB', divisor: MiB, tolerance: { absolute: 2 * MiB, relative: 0.05 } },
  buffers: { title: 'buffers, MiB', divisor: MiB, tolerance: { absolute: 4 * MiB, relative: 0.05 } },
  descriptors: { title: 'descriptors', divisor: 1, tolerance: { absolute: 1, relative: 0 } },
};
const iqn = 'iqn.2026-01.io.iserfs.bench:soak';
const lunSize = 256 * MiB;
const probe = fileURLToPath(new URL('heap-probe.mjs', import.meta.url));

try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  console.error(error instanceof Error && error.name === 'AbortError' ? 'soak: interrupted' : error);
  process.exitCode = 1;
}

/** Whether nothing grew. */
async function main(): Promise<boolean> {
  const { requests, samples: count, cli, flags } = await parseArguments();
  const signal = interruption();
  await using workdir = Workdir.create();
  await using target = await TargetProcess.start({ args: ['--memory', String(lunSize), '--name', iqn] });
  const mountpoint = workdir.folder('mount');
  const heapFile = workdir.join('heap');
  await using mount = await MountProcess.start({
    mountpoint,
    args: ['--portal', target.portal, '--transport', 'tcp', ...flags],
    cliPath: cli,
    nodeArgs: ['--expose-gc', '--import', probe],
    env: { ...process.env, ISERFS_HEAP_FILE: heapFile },
  });
  const image = join(mountpoint, iqn, 'lun0', 'image');
  const found: SoakSample[] = [];
  for (let index = 1; index <= count; index++) {
    const upTo = Math.round((requests * index) / count);
    await request(image, upTo - Math.round((requests * (index - 1)) / count), index, signal);
    const sample = { requests: upTo, ...(await probeProcess(mount.pid, heapFile)) };
    found.push(sample);
    console.error(`soak: ${describe(sample)}`);
  }
  const { status } = await mount.stop();
  if (status !== 0) throw new Error(`the mount ended with exit status ${status}\n${mount.stderr}`);
  return conclude(found);
}

async function parseArguments() {
  const parsed = await yargs(process.argv.slice(2))
    .scriptName('npm run bench:soak --')
    .usage(
      '$0\n\nMillions of requests through one mount, over TCP to the embedded target; exit status 1 when memory or descriptors grow',
    )
    .options({
      requests: { number: true, default: 10_000_000, describe: 'How many, reads and writes together' },
      samples: { number: true, default: 60, describe: 'How often it is looked at what the mount holds' },
      cli: { string: true, default: cliPath, describe: 'The build to test' },
      'iserfs-flags': { string: true, default: '', describe: 'More options of iserfs mount' },
    })
    .strict()
    .check(({ requests, samples }) => {
      if (!Number.isInteger(samples) || samples < fewestSamples) throw new Error(`--samples: ${fewestSamples} at least`);
      if (!Number.isInteger(requests) || requests < samples) throw new Error('--requests: one for each sample at least');
      return true;
    })
    .help()
    .version(false)
    .parseAsync();
  const flags = parsed['iserfs-flags'].split(' ').filter((word) => word !== '');
  return { requests: parsed.requests, samples: parsed.samples, cli: parsed.cli, flags };
}

/** Reads and writes in equal parts, mostly small, eight at a time, half of the runs through the page cache. */
async function request(image: string, count: number, seed: number, signal: AbortSignal): Promise<void> {
  const args = [
    '--name=soak',
    `--filename=${image.replaceAll(':', '\\:')}`,
    '--rw=randrw',
    '--bssplit=512/5:4k/65:16k/15:64k/10:256k/4:1m/1',
    '--bs_unaligned=1',
    `--size=${lunSize}`,
    '--io_size=1000t',
    `--number_ios=${count}`,
    '--norandommap',
    '--ioengine=libaio',
    '--iodepth=8',
    `--direct=${seed % 2}`,
    `--randseed=${seed}`,
    '--allow_file_create=0',
    '--fallocate=none',
  ];
  const outcome = await run('fio', args, { timeoutMs: 3_600_000, signal });
  if (outcome.status !== 0) throw new Error(`fio ${args.join(' ')}: ${describeOutcome(outcome).slice(0, 2000)}`);
}

async function probeProcess(pid: number, heapFile: string): Promise<Omit<SoakSample, 'requests'>> {
  rmSync(heapFile, { force: true });
  process.kill(pid, 'SIGUSR2');
  await waitFor(async () => existsSync(heapFile), { withinMs: 30_000, what: 'word from the mount about its heap' });
  const { heapUsed, external }: NodeJS.MemoryUsage = JSON.parse(readFileSync(heapFile, 'utf8'));
  const descriptors = readdirSync(`/proc/${pid}/fd`).length;
  return { resident: memoryOf(pid).resident, heap: heapUsed, buffers: external, descriptors };
}

function conclude(samples: readonly SoakSample[]): boolean {
  const names = Object.keys(quantities) as Quantity[];
  const rows = samples.map((sample) => [String(sample.requests), ...names.map((name) => format(name, sample[name]))]);
  console.log(table(['requests', ...names.map((name) => quantities[name].title)], rows).join('\n'));
  console.log('\nMedians from the end of the first tenth to the end of the first third, and of the last third:\n');
  let isFine = true;
  for (const name of names) {
    const values = samples.map((sample) => sample[name]);
    const { early, late, isGrowing } = judgeGrowth(values, quantities[name].tolerance);
    console.log(
      `${quantities[name].title}: ${format(name, early)}, ${format(name, late)}: ${isGrowing ? 'GROWS' : 'does not grow'}`,
    );
    isFine &&= !isGrowing;
  }
  return isFine;
}

function describe(sample: SoakSample): string {
  const names = Object.keys(quantities) as Quantity[];
  const parts = names.map((name) => `${quantities[name].title} ${format(name, sample[name])}`);
  return `${sample.requests} requests: ${parts.join('; ')}`;
}

function format(name: Quantity, value: number): string {
  const { divisor } = quantities[name];
  return (value / divisor).toFixed(divisor === 1 ? 0 : 1);
}
