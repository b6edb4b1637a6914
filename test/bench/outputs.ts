/** What the programs print that do the reading and writing, as numbers. Each throws with the text when it is not what it should be. */

const MiB = 2 ** 20;

/** What one run of a client came to. */
export interface Outcome {
  readonly bytes: number;
  readonly seconds: number;
  /** Undefined where only the throughput counts. */
  readonly operations?: number;
  /** From asking to having, microseconds. */
  readonly meanUs?: number;
  readonly p50Us?: number;
  readonly p99Us?: number;
}

/** GNU dd, in the C locale: `268435456 bytes (268 MB, 256 MiB) copied, 0.607563 s, 442 MB/s`. */
export function parseDd(text: string): Outcome {
  const found = /^(\d+) bytes .*copied, ([\d.e+-]+) s/m.exec(text);
  return { bytes: parsed(found?.[1], 'dd', text), seconds: parsed(found?.[2], 'dd', text) };
}

/** fio with one job and `--output-format=json --lat_percentiles=1`. */
export function parseFio(text: string): Outcome {
  const start = text.indexOf('{'); // it may have had something to note before
  const report: unknown = JSON.parse(text.slice(Math.max(start, 0)));
  const job = first(at(report, 'jobs'));
  const [reads, writes] = [at(job, 'read'), at(job, 'write')];
  const part = Number(at(reads, 'total_ios')) > 0 ? reads : writes;
  const field = (value: unknown) => parsed(typeof value === 'number' ? String(value) : undefined, 'fio', text);
  if (field(at(job, 'error')) !== 0) throw new Error(`fio: error ${at(job, 'error')}\n${text}`);
  const latency = at(part, 'lat_ns');
  const percentile = (name: string) => field(at(at(latency, 'percentile'), name)) / 1000;
  return {
    bytes: field(at(part, 'io_bytes')),
    seconds: field(at(part, 'runtime')) / 1000,
    operations: field(at(part, 'total_ios')),
    meanUs: field(at(latency, 'mean')) / 1000,
    p50Us: percentile('50.000000'),
    p99Us: percentile('99.000000'),
  };
}

/**
 * libiscsi's iscsi-perf, which counts for itself: `iops average 514 (514 MB/s)`, where its MB are MiB. Whole numbers, so the
 * operations are what counts. `transfer`: bytes of a command; `depth`: how many it had in flight; `seconds`: for how long it was told to
 * run.
 */
export function parseIscsiPerf(text: string, { transfer, depth, seconds }: IscsiPerfRun): Outcome {
  const all = [...text.matchAll(/iops average (\d+) \((\d+) MB\/s\)/g)];
  const perSecond = parsed(all.at(-1)?.[1], 'iscsi-perf', text);
  const mebibytes = parsed(all.at(-1)?.[2], 'iscsi-perf', text);
  // With large commands the operations are the coarser number, with small ones the bytes.
  const bytesPerSecond = transfer < MiB ? perSecond * transfer : mebibytes * MiB;
  const operations = (bytesPerSecond * seconds) / transfer;
  return { bytes: bytesPerSecond * seconds, seconds, operations, meanUs: (depth * seconds * 1e6) / operations };
}

export interface IscsiPerfRun {
  readonly transfer: number;
  readonly depth: number;
  readonly seconds: number;
}

/** `initiator.c`: one line of JSON. */
export function parseInitiator(text: string): Outcome & { readonly cpuSeconds: number } {
  const report: unknown = JSON.parse(text);
  const field = (name: string) => parsed(String(at(report, name)), 'initiator', text);
  return {
    bytes: field('bytes'),
    seconds: field('seconds'),
    operations: field('operations'),
    meanUs: field('meanUs'),
    p50Us: field('p50Us'),
    p99Us: field('p99Us'),
    cpuSeconds: field('cpuSeconds'),
  };
}

function parsed(text: string | undefined, program: string, output: string): number {
  const value = Number(text);
  if (text === undefined || text === '' || !Number.isFinite(value))
    throw new Error(`${program} said what is not known:\n${output}`);
  return value;
}

function at(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined;
}

function first(value: unknown): unknown {
  return Array.isArray(value) ? value[0] : undefined;
}
