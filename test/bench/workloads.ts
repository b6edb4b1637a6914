/**
 * What is measured, as data. A workload is done to a file by an ordinary program (dd, fio, cp), and by the initiator without a file
 * by what comes closest: same direction, size, order and number in flight.
 */

import { GiB, KiB, MiB } from '../support/workdir.ts';
import { type Outcome, parseDd, parseFio } from './outputs.ts';

export type WorkloadName = keyof typeof workloads;

/** Which figure of a workload counts. */
export type Measure = 'throughput' | 'operations' | 'latency';

export interface RawAccess {
  readonly direction: 'read' | 'write';
  readonly order: 'sequential' | 'random';
  /** Bytes of a command. */
  readonly transfer: number;
  readonly depth: number;
}

/** What a client is told. */
export interface Setting {
  /** The file. */
  readonly image: string;
  /** Bytes of the LUN, and of the file. */
  readonly size: number;
  /** How long a turn takes: how long those clients run that run for a time. */
  readonly seconds: number;
  /** A file in memory of the same size, to copy to and from. */
  readonly copy: string;
  /** Different in each run. */
  readonly seed: number;
}

export interface Client {
  readonly command: string;
  readonly args: readonly string[];
  /** Undefined: bytes and seconds as they were seen from outside. */
  readonly parse?: (output: { readonly stdout: string; readonly stderr: string }) => Outcome;
}

export interface Workload {
  readonly title: string;
  readonly measure: Measure;
  readonly client: (setting: Setting) => Client;
  /** Undefined: only through a file. */
  readonly raw?: RawAccess;
  /** Whether the file in memory without anything behind it is of interest, too. */
  readonly hasFloor: boolean;
  /** The first bytes of the file are read, and stay in a cache that holds them: the file is held open. */
  readonly cached?: boolean;
  /** The event loop of the process that serves the file is blocked half of the time. Nobody else is asked. */
  readonly blocked?: boolean;
}

/** What a cached workload reads: less than every cache. */
export const cachedBytes = 16 * MiB;

const sequential = (direction: 'read' | 'write'): RawAccess => ({ direction, order: 'sequential', transfer: MiB, depth: 1 });
const random = (direction: 'read' | 'write', depth: number): RawAccess => ({
  direction,
  order: 'random',
  transfer: 4 * KiB,
  depth,
});

export const workloads = {
  'seq-read': {
    title: 'Sequential read, 1 MiB, buffered (`dd bs=1M`)',
    measure: 'throughput',
    client: ({ image, size }) => dd(`if=${image}`, 'of=/dev/null', `count=${size / MiB}`),
    raw: sequential('read'),
    hasFloor: false,
  },
  'seq-read-direct': {
    title: 'Sequential read, 1 MiB, O_DIRECT (`dd bs=1M iflag=direct`)',
    measure: 'throughput',
    client: ({ image, size }) => dd(`if=${image}`, 'of=/dev/null', 'iflag=direct', `count=${size / MiB}`),
    raw: sequential('read'),
    hasFloor: false,
  },
  'seq-write': {
    title: 'Sequential write, 1 MiB, buffered and fsync (`dd bs=1M conv=fsync`)',
    measure: 'throughput',
    client: ({ image, size }) => dd('if=/dev/zero', `of=${image}`, 'conv=notrunc,fsync', `count=${size / MiB}`),
    raw: sequential('write'),
    hasFloor: false,
  },
  'seq-write-direct': {
    title: 'Sequential write, 1 MiB, O_DIRECT (`dd bs=1M oflag=direct`)',
    measure: 'throughput',
    client: ({ image, size }) => dd('if=/dev/zero', `of=${image}`, 'oflag=direct', 'conv=notrunc', `count=${size / MiB}`),
    raw: sequential('write'),
    hasFloor: false,
  },
  'rand-read-1': {
    title: 'Random read, 4 KiB, 1 in flight (fio, O_DIRECT, libaio)',
    measure: 'latency',
    client: (setting) => fio(setting, 'randread', 1),
    raw: random('read', 1),
    hasFloor: true,
  },
  'rand-write-1': {
    title: 'Random write, 4 KiB, 1 in flight (fio, O_DIRECT, libaio)',
    measure: 'latency',
    client: (setting) => fio(setting, 'randwrite', 1),
    raw: random('write', 1),
    hasFloor: true,
  },
  'rand-read-32': {
    title: 'Random read, 4 KiB, 32 in flight (fio, O_DIRECT, libaio)',
    measure: 'operations',
    client: (setting) => fio(setting, 'randread', 32),
    raw: random('read', 32),
    hasFloor: false,
  },
  'rand-write-32': {
    title: 'Random write, 4 KiB, 32 in flight (fio, O_DIRECT, libaio)',
    measure: 'operations',
    client: (setting) => fio(setting, 'randwrite', 32),
    raw: random('write', 32),
    hasFloor: false,
  },
  reread: {
    title: 'Read of 4 KiB that a cache holds, 1 in flight (fio, O_DIRECT, libaio)',
    measure: 'latency',
    client: (setting) => fio({ ...setting, size: cachedBytes }, 'randread', 1),
    hasFloor: true,
    cached: true,
  },
  'reread-blocked': {
    title: 'The same with the event loop of the mount blocked for 10 ms of every 20',
    measure: 'latency',
    client: (setting) => fio({ ...setting, size: cachedBytes }, 'randread', 1),
    hasFloor: false,
    cached: true,
    blocked: true,
  },
  'copy-out': {
    title: 'Copy of the LUN to a file in memory (`cp`)',
    measure: 'throughput',
    client: ({ image, copy }) => ({ command: 'cp', args: [image, copy] }),
    raw: sequential('read'),
    hasFloor: false,
  },
  'copy-in': {
    title: 'Copy of a file in memory to the LUN (`cp`)',
    measure: 'throughput',
    client: ({ image, copy }) => ({ command: 'cp', args: ['--sparse=never', copy, image] }),
    raw: sequential('write'),
    hasFloor: false,
  },
} as const satisfies Record<string, Workload>;

export const workloadNames = Object.keys(workloads) as WorkloadName[];

/** Whether more of the figure is better. */
export function moreIsBetter(measure: Measure): boolean {
  return measure !== 'latency';
}

/** The figure that counts, in bytes a second, operations a second or microseconds. */
export function figureOf(outcome: Outcome, measure: Measure): number {
  switch (measure) {
    case 'throughput':
      return outcome.bytes / outcome.seconds;
    case 'operations':
      return (outcome.operations ?? Number.NaN) / outcome.seconds;
    case 'latency':
      return outcome.meanUs ?? Number.NaN;
  }
}

export const unitOf: Readonly<Record<Measure, { readonly label: string; readonly divisor: number; readonly digits: number }>> = {
  throughput: { label: 'MB/s', divisor: 1e6, digits: 0 },
  operations: { label: '1000/s', divisor: 1e3, digits: 1 },
  latency: { label: 'µs', divisor: 1, digits: 0 },
};

export function perGiB(seconds: number, { bytes }: Pick<Outcome, 'bytes'>): number {
  return (seconds * GiB) / bytes;
}

function dd(...args: readonly string[]): Client {
  return { command: 'dd', args: ['bs=1M', ...args], parse: ({ stderr }) => parseDd(stderr) };
}

function fio({ image, size, seconds, seed }: Setting, pattern: 'randread' | 'randwrite', depth: number): Client {
  const args = [
    '--name=bench',
    `--filename=${image.replaceAll(':', '\\:')}`, // where a colon separates files
    `--rw=${pattern}`,
    '--bs=4k',
    `--size=${size}`,
    '--direct=1',
    '--ioengine=libaio',
    `--iodepth=${depth}`,
    '--time_based',
    `--runtime=${seconds}`,
    `--randseed=${seed}`,
    '--lat_percentiles=1',
    '--allow_file_create=0',
    '--fallocate=none',
    '--output-format=json',
  ];
  return { command: 'fio', args, parse: ({ stdout }) => parseFio(stdout) };
}
