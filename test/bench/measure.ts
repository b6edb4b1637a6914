/** One turn of one contestant: the client's figures, and what everybody used meanwhile. */

import { describeOutcome, ended, type RunOutcome, run, spawnGuarded } from '../support/child-process.ts';
import type { Contestant, FileContestant, Programs, RawContestant } from './contestants.ts';
import { parseInitiator, parseIscsiPerf } from './outputs.ts';
import { childrenCpuSecondsOf, cpuSecondsOf, memoryOf, resetPeakMemory } from './process-usage.ts';
import type { Sample } from './sample.ts';
import { type BenchTarget, rawUrl } from './targets.ts';
import { cachedBytes, type RawAccess, type Setting, type Workload } from './workloads.ts';

export type Measured = Omit<Sample, 'target' | 'workload' | 'contestant' | 'round'>;

export interface Conditions extends Omit<Setting, 'image' | 'seed'> {
  readonly target: BenchTarget;
  readonly programs: Programs;
  readonly signal: AbortSignal;
}

const longMs = 180_000;

/**
 * A turn takes `seconds` at least. Clients that end when they have been through the LUN run again until then, all together as one run:
 * half a second says little of a machine on which others live as well.
 */
export async function measure(contestant: Contestant, workload: Workload, conditions: Conditions): Promise<Measured> {
  const until = performance.now() + conditions.seconds * 1000;
  let all = await measureOnce(contestant, workload, conditions);
  while (workload.measure === 'throughput' && performance.now() < until) {
    all = together(all, await measureOnce(contestant, workload, conditions));
  }
  return all;
}

/** Two runs of a workload whose figure is its throughput, as one. */
export function together(one: Measured, other: Measured): Measured {
  return {
    bytes: one.bytes + other.bytes,
    seconds: one.seconds + other.seconds,
    clientCpu: one.clientCpu + other.clientCpu,
    targetCpu: one.targetCpu + other.targetCpu,
    ...(one.serverCpu === undefined ? {} : { serverCpu: one.serverCpu + (other.serverCpu ?? 0) }),
    ...(one.peakMemory === undefined ? {} : { peakMemory: Math.max(one.peakMemory, other.peakMemory ?? 0) }),
  };
}

async function measureOnce(contestant: Contestant, workload: Workload, conditions: Conditions): Promise<Measured> {
  const { target } = conditions;
  const targetBefore = cpuSecondsOf(target.pid);
  const measured =
    contestant.kind === 'file'
      ? await throughFile(contestant, workload, conditions)
      : await withoutFile(contestant, workload, conditions);
  return { ...measured, targetCpu: cpuSecondsOf(target.pid) - targetBefore };
}

type Part = Omit<Measured, 'targetCpu'>;

async function throughFile(contestant: FileContestant, workload: Workload, conditions: Conditions): Promise<Part> {
  const { pid, image } = contestant;
  const client = workload.client({ ...conditions, image, seed: newSeed() });
  await using _warm = workload.cached === true ? await holdCached(image, conditions.signal) : undefined;
  await using _blocked = workload.blocked === true ? block(pid) : undefined;
  resetPeakMemory(pid);
  const before = cpuSecondsOf(pid);
  const { outcome, cpu } = await runClient(client.command, client.args, conditions.signal);
  const figures = client.parse?.(outcome) ?? { bytes: conditions.size, seconds: outcome.elapsedMs / 1000 };
  return { ...figures, clientCpu: cpu, serverCpu: cpuSecondsOf(pid) - before, peakMemory: memoryOf(pid).peak };
}

async function withoutFile(contestant: RawContestant, workload: Workload, conditions: Conditions): Promise<Part> {
  if (workload.raw === undefined) throw new Error(`${contestant.name}: not without a file`);
  const access = { ...workload.raw, ...contestant.access };
  if (contestant.program === 'iscsi-perf') return await runIscsiPerf(access, conditions);
  const { target, programs, seconds, size, signal } = conditions;
  const limits = access.order === 'sequential' ? ['60', String(size)] : [String(seconds), '0'];
  const { direction, order, transfer, depth } = access;
  const { outcome } = await runClient(
    programs.initiator,
    [rawUrl(target), direction, order, String(transfer), String(depth), ...limits, String(size), String(newSeed())],
    signal,
  );
  const { cpuSeconds, ...figures } = parseInitiator(outcome.stdout);
  return { ...figures, clientCpu: cpuSeconds };
}

/** It runs for whole seconds, and sequentially from the beginning again when it comes to the end. */
async function runIscsiPerf({ order, transfer, depth }: RawAccess, conditions: Conditions): Promise<Part> {
  const { target, seconds, signal } = conditions;
  const args = ['-m', String(depth), '-b', String(transfer / 512), '-t', String(seconds)];
  const { outcome, cpu } = await runClient(
    'iscsi-perf',
    [...args, ...(order === 'random' ? ['-r'] : []), rawUrl(target)],
    signal,
  );
  return { ...parseIscsiPerf(outcome.stdout, { transfer, depth, seconds }), clientCpu: cpu };
}

/** Rejects unless it exits with status 0. One at a time: the CPU time is that of all children that end meanwhile. */
async function runClient(
  command: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<{ readonly outcome: RunOutcome; readonly cpu: number }> {
  const before = childrenCpuSecondsOf('self');
  const outcome = await run(command, args, { timeoutMs: longMs, signal, env: { ...process.env, LC_ALL: 'C' } });
  if (outcome.status !== 0) throw new Error(`${[command, ...args].join(' ')}: ${describeOutcome(outcome).slice(0, 2000)}`);
  return { outcome, cpu: childrenCpuSecondsOf('self') - before };
}

/** Keeps the file open, after its first bytes have been read: the first open of an image drops what was held of it. */
async function holdCached(image: string, signal: AbortSignal): Promise<AsyncDisposable> {
  const script = 'exec 3<"$1"; dd if="$1" of=/dev/null bs=1M count="$2" iflag=direct status=none && echo held; read -r order';
  const child = spawnGuarded('sh', ['-c', script, 'holder', image, String(cachedBytes / 2 ** 20)]);
  const gone = ended(child);
  const kill = () => void child.kill('SIGKILL');
  const stop = async () => {
    signal.removeEventListener('abort', kill);
    child.stdin.end();
    await gone;
  };
  const held = new Promise<boolean>((resolve) => {
    child.stdout.once('data', () => resolve(true));
    child.once('close', () => resolve(false));
    signal.addEventListener('abort', kill, { once: true });
  });
  if (await held) return { [Symbol.asyncDispose]: stop };
  await gone;
  signal.throwIfAborted();
  throw new Error(`${image} could not be read`);
}

/** See `blocker.mjs`. */
function block(pid: number): AsyncDisposable {
  process.kill(pid, 'SIGUSR2');
  return { [Symbol.asyncDispose]: async () => void process.kill(pid, 'SIGUSR2') };
}

function newSeed(): number {
  return 1 + Math.floor(Math.random() * 2 ** 31);
}
