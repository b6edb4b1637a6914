/** Where a process is, sampled by Linux's perf: recorded into a file while it works, read from there afterwards. */

import { createInterface } from 'node:readline';
import { collectText, ended, run, spawnGuarded } from '../support/child-process.ts';

export interface Frame {
  /** As perf names it, demangled; `JS:…` where V8 says what it compiled. */
  readonly symbol: string;
  /** The file of the code: `[kernel.kallsyms]`, `/usr/bin/node`, … */
  readonly object: string;
}

/** Where a thread was in one moment, the innermost frame first. Never empty. */
export type Stack = readonly Frame[];

/** For Node, so that perf knows the names of its functions. They are in `mapOf` its process. */
export const nodeArgsForPerf = [
  ...['--perf-basic-prof', '--interpreted-frames-native-stack'],
  ...['--no-logfile-per-isolate', '--logfile=+'], // V8's own log, which comes with it, in a file without a name
];
/** Of each thread, while it runs. Not in step with the kernel's own clock. */
const samplesPerSecond = 1999;

/** Nobody but the caller removes it. */
export function mapOf(pid: number): string {
  return `/tmp/perf-${pid}.map`; // where perf looks for it
}

/** Why nothing can be sampled here, in a line; undefined where it can, the kernel included. `file`: is written. */
export async function findObstacle(file: string): Promise<string | undefined> {
  const { status, stderr } = await run('perf', [
    'record',
    '--event=cpu-clock:k',
    '--no-buildid-cache',
    '-o',
    file,
    '--',
    'true',
  ]).catch((error) => ({
    status: null,
    stderr: String(error),
  }));
  if (status === 0) return undefined;
  const reason = stderr.split('\n').find((line) => !/^(Error:)?\s*$/.test(line)) ?? 'it does not say why';
  return `perf may not sample the kernel here, which takes root or a kernel.perf_event_paranoid below 2: ${reason.trim()}`;
}

/** Samples all threads of a process while `work` is done. */
export async function record<T>(pid: number, file: string, work: () => Promise<T>): Promise<T> {
  const what = ['--event=cpu-clock', '--call-graph=fp', `--freq=${samplesPerSecond}`, `--pid=${pid}`, '-o', file];
  // It begins when it is told to, and says that it has.
  const perf = spawnGuarded('perf', ['record', ...what, '--no-buildid-cache', '--delay=-1', '--control=fd:0,1']);
  const stderr = collectText(perf.stderr);
  const gone = ended(perf);
  try {
    const begun = new Promise((resolve) => perf.stdout.once('data', () => resolve(true)));
    perf.stdin.on('error', () => {}).write('enable\n');
    if ((await Promise.race([begun, gone])) !== true) throw new Error(`perf record ended\n${stderr.text}`);
    return await work();
  } finally {
    perf.kill('SIGINT');
    await gone;
  }
}

/** What was recorded. Needs the map of the process. */
export async function* readStacks(file: string): AsyncGenerator<Stack> {
  // Looking up what was inlined would take minutes.
  const perf = spawnGuarded('perf', ['script', '--no-inline', '--fields=ip,sym,dso', '-i', file]);
  const gone = ended(perf);
  const stderr = collectText(perf.stderr);
  yield* parseStacks(createInterface({ input: perf.stdout }));
  const { status } = await gone;
  if (status !== 0) throw new Error(`perf script: exit status ${status}\n${stderr.text}`);
}

/** Of `perf script`, line by line: one for each frame, an empty one behind each sample. */
export async function* parseStacks(lines: AsyncIterable<string> | Iterable<string>): AsyncGenerator<Stack> {
  let frames: Frame[] = [];
  for await (const line of lines) {
    const [, symbol, object] = /^\s*[0-9a-f]+ (.*) \((.*)\)$/.exec(line) ?? [];
    if (symbol !== undefined && object !== undefined) frames.push({ symbol, object });
    if (line.trim() !== '' || frames.length === 0) continue;
    yield frames;
    frames = [];
  }
  if (frames.length > 0) yield frames;
}
