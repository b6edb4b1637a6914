/**
 * `npm run bench:rdma`: iserfs over verbs, the kernel's own iSER initiator and libiscsi's iSER on the same LUN, in the machine with RDMA
 * devices that the tests emulate. Its processor is emulated, too, so that only ratios say something, and only over many rounds.
 */

import { copyFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import yargs from 'yargs';
import { bringUp, fabricAddress, lunSize } from '../rdma/fabric.ts';
import { Guest } from '../rdma/guest.ts';
import { buildImage } from '../rdma/image/build.ts';
import type { Initiator } from '../rdma/initiators/disk.ts';
import { KernelInitiator } from '../rdma/initiators/kernel.ts';
import { inGuest, MountInitiator } from '../rdma/initiators/mount.ts';
import { makeStage } from '../rdma/stage.ts';
import { Embedded } from '../rdma/targets/embedded.ts';
import { Lio } from '../rdma/targets/lio.ts';
import { initiatorName, type Offer, type TestTarget } from '../rdma/targets/target.ts';
import { Tgtd } from '../rdma/targets/tgtd.ts';
import { projectRoot } from '../support/cli-process.ts';
import { MiB, Workdir } from '../support/workdir.ts';
import { compile } from './compile.ts';
import { interruption } from './interruption.ts';
import { Lifetimes } from './lifetimes.ts';
import { parseDd, parseInitiator } from './outputs.ts';
import { type RdmaSample, type RdmaWorkload, rdmaWorkloads, renderRdmaReport } from './rdma-report.ts';
import { shuffle } from './statistics.ts';

/** Reads or writes the beginning of the LUN once. */
type Pass = (workload: RdmaWorkload) => Promise<Transferred>;

interface Transferred {
  readonly bytes: number;
  readonly seconds: number;
}

const targetNames = ['tgtd', 'lio', 'iserfs'] as const;
type TargetName = (typeof targetNames)[number];

const longMs = 240_000;
/** For how long each is warmed up by reading, and by writing. */
const warmSeconds = 20;

try {
  await main();
} catch (error) {
  console.error(error instanceof Error && error.name === 'AbortError' ? 'bench: interrupted' : error);
  process.exitCode = 1;
}

async function main(): Promise<void> {
  const { rounds, seconds, mebibytes, targets, out } = await parseArguments();
  const signal = interruption();
  const image = await buildImage((line) => console.error(`bench: ${line}`));
  await using workdir = Workdir.create();
  const stage = await makeStage(workdir.folder('stage'));
  const initiator = join(stage.folder, 'initiator');
  copyFileSync(await compile('initiator', ['-liscsi'], workdir), initiator);
  const samples: RdmaSample[] = [];
  const absent: string[] = [];
  // A machine of its own for each: what one target leaves in the kernel does not meet the next.
  for (const name of targets) {
    signal.throwIfAborted();
    await using lifetimes = new Lifetimes();
    const guest = lifetimes.use(await Guest.boot(image, stage));
    await bringUp(guest, 'rxe');
    const target = lifetimes.use(await startTarget(name, guest));
    const passes = await attachAll(guest, target, { program: initiator, mebibytes }, lifetimes, (reason) =>
      absent.push(`${target.label}: ${reason}`),
    );
    for (let round = 0; round <= rounds; round++) {
      for (const workload of rdmaWorkloads) {
        for (const [contestant, pass] of shuffle([...passes])) {
          signal.throwIfAborted();
          const bytesPerSecond = await turn(pass, workload, seconds);
          if (round > 0) samples.push({ target: target.label, workload, contestant, round, bytesPerSecond });
          const figure = (bytesPerSecond / 1e6).toFixed(1);
          console.error(`bench: ${target.label}, round ${round} of ${rounds}: ${workload}: ${contestant}: ${figure} MB/s`);
        }
      }
    }
  }
  const file = join(out, 'RESULTS-rdma.md');
  writeFileSync(file, renderRdmaReport(samples, { rounds, seconds, mebibytes, absent, versions: image.versions }));
  console.error(`bench: the results are in ${file}`);
}

async function parseArguments() {
  const parsed = await yargs(process.argv.slice(2))
    .scriptName('npm run bench:rdma --')
    .usage(
      "$0\n\nCompares iserfs over verbs with the kernel's and libiscsi's iSER, in an emulated machine, and writes RESULTS-rdma.md",
    )
    .options({
      rounds: { number: true, default: 15, describe: 'How often everything is measured' },
      seconds: { number: true, default: 5, describe: 'How long a turn takes at least' },
      size: { number: true, default: 16, describe: `MiB that are read or written at a time, ${lunSize / MiB} at most` },
      target: { string: true, default: 'tgtd,iserfs', describe: `Targets, by commas: ${targetNames.join(', ')}` },
      out: { string: true, default: resolve(projectRoot, 'test/bench'), describe: 'Folder for the results' },
    })
    .strict()
    .help()
    .version(false)
    .parseAsync();
  const targets = targetNames.filter((name) => parsed.target.split(',').includes(name));
  if (targets.length === 0) throw new Error(`--target: some of ${targetNames.join(', ')}`);
  if (!(parsed.rounds >= 1 && parsed.seconds >= 1)) throw new Error('--rounds, --seconds: 1 or more');
  if (!(parsed.size >= 1 && parsed.size <= lunSize / MiB)) throw new Error(`--size: 1 to ${lunSize / MiB}`);
  return {
    rounds: parsed.rounds,
    seconds: parsed.seconds,
    mebibytes: Math.floor(parsed.size),
    targets,
    out: resolve(parsed.out),
  };
}

/** Goes on until the time is over, and once at least; resolves to bytes a second. */
async function turn(pass: Pass, workload: RdmaWorkload, seconds: number): Promise<number> {
  const until = performance.now() + seconds * 1000;
  let all: Transferred = { bytes: 0, seconds: 0 };
  do {
    const more = await pass(workload);
    all = { bytes: all.bytes + more.bytes, seconds: all.seconds + more.seconds };
  } while (performance.now() < until);
  return all.bytes / all.seconds;
}

async function startTarget(name: TargetName, guest: Guest): Promise<TestTarget> {
  switch (name) {
    case 'tgtd':
      return await Tgtd.start(guest);
    case 'lio':
      return await Lio.start(guest, 'rxe');
    case 'iserfs':
      return await Embedded.start(guest, 'verbs');
  }
}

/** Those that can. Whoever cannot is told to `lacks`. */
async function attachAll(
  guest: Guest,
  target: TestTarget,
  { program, mebibytes }: { readonly program: string; readonly mebibytes: number },
  lifetimes: Lifetimes,
  lacks: (reason: string) => void,
): Promise<Map<string, Pass>> {
  const offer = await target.offer('open');
  const attach = async (initiator: Initiator): Promise<Pass> => {
    const disk = lifetimes.use(await initiator.attach(offer));
    if (disk.path === undefined) throw new Error(`${initiator.label} has no path`);
    await warmUp(guest, disk.path);
    return throughFile(guest, disk.path, mebibytes);
  };
  const starts: Readonly<Record<string, () => Promise<Pass>>> = {
    'iserfs (verbs)': async () => await attach(new MountInitiator(await inGuest(guest, fabricAddress), 'verbs')),
    'kernel (ib_iser)': async () => await attach(await KernelInitiator.start(guest, fabricAddress)),
    libiscsi: async () => {
      const pass = withoutFile(guest, program, offer, mebibytes);
      for (const workload of rdmaWorkloads) await pass(workload);
      return pass;
    },
  };
  const passes = new Map<string, Pass>();
  for (const [contestant, start] of Object.entries(starts)) {
    try {
      passes.set(contestant, await start());
    } catch (error) {
      console.error(`bench: ${target.label}: ${contestant}:`, error);
      lacks(`${contestant} takes no part: ${firstLine(error)}`);
    }
  }
  return passes;
}

/**
 * By many small requests: V8 compiles what has been called often, and under emulation a second has some thirty requests of 1 MiB, where
 * a real processor has a thousand.
 */
async function warmUp(guest: Guest, path: string): Promise<void> {
  for (const direction of [`if=${path} of=/dev/null iflag=direct`, `if=/dev/zero of=${path} conv=notrunc oflag=direct`]) {
    const script = `end=$(($(date +%s) + ${warmSeconds})); while [ $(date +%s) -lt $end ]; do dd bs=4k count=256 ${direction} 2>&1; done`;
    await guest.checked(script, { timeoutMs: longMs });
  }
}

/** dd, on a block device or a file. */
function throughFile(guest: Guest, path: string, mebibytes: number): Pass {
  const commands: Readonly<Record<RdmaWorkload, string>> = {
    'read, buffered': `if=${path} of=/dev/null`,
    'read, O_DIRECT': `if=${path} of=/dev/null iflag=direct`,
    'write, buffered and fsync': `if=/dev/zero of=${path} conv=notrunc,fsync`,
    'write, O_DIRECT': `if=/dev/zero of=${path} conv=notrunc oflag=direct`,
  };
  return async (workload) => {
    const script = `echo 1 >/proc/sys/vm/drop_caches; LC_ALL=C dd bs=1M count=${mebibytes} ${commands[workload]}`;
    return parseDd(await guest.checked(script, { timeoutMs: longMs }));
  };
}

/**
 * libiscsi, by a program without a file. Version 1.19 fails reads of more than 256 KiB by one command, so that it has four of them in
 * flight; a file's reader and writer has 1 MiB at a time, too.
 */
function withoutFile(guest: Guest, program: string, offer: Offer, mebibytes: number): Pass {
  const url = `iser://${fabricAddress}:${offer.port}/${offer.name}/${offer.lun}`;
  return async (workload) => {
    const direction = workload.startsWith('read') ? 'read' : 'write';
    const script = `INITIATOR_NAME=${initiatorName} ${program} ${url} ${direction} sequential ${256 * 1024} 4 60 ${mebibytes * MiB} 2>&1`;
    const output = await guest.checked(script, { timeoutMs: longMs });
    return parseInitiator(output.slice(Math.max(output.indexOf('{'), 0)));
  };
}

function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.trim().split('\n').slice(-1)[0] ?? '';
}
