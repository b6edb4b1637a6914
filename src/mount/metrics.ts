/**
 * The snapshot in the Prometheus text format (exposition format 0.0.4): base units, `_total` on
 * counters, labels escaped, HELP and TYPE before each family. Pure. Written by hand, not with
 * prom-client: that keeps registers of its own, which would have to be reset and refilled from our
 * counters at each reading, and everything needed of it is the few lines below.
 */

import type { LatencySummary } from '../scsi/latency-histogram.ts';
import type { LunCounters, MountSnapshot } from './snapshot.ts';

type Labels = Readonly<Record<string, string>>;

interface Sample {
  readonly suffix?: string;
  readonly labels: Labels;
  readonly value: number;
}

interface Family {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'summary';
  readonly help: string;
  readonly samples: readonly Sample[];
}

/** The body of the `metrics` file. */
export function renderMetrics(mount: MountSnapshot): string {
  return [...mountFamilies(mount), ...targetFamilies(mount), ...lunFamilies(mount)].map(renderFamily).join('');
}

function mountFamilies(mount: MountSnapshot): Family[] {
  return [
    gauge('iserfs_info', 'Version of the server; the value is always 1.', [{ labels: { version: mount.version }, value: 1 }]),
    gauge('iserfs_start_time_seconds', 'When the mount was made, in seconds since the epoch.', [
      { labels: {}, value: mount.startedAt.getTime() / 1000 },
    ]),
    gauge('iserfs_open_images', 'Images that are open.', [{ labels: {}, value: mount.openImages }]),
    gauge('iserfs_cache_capacity_bytes', 'Bound of the block cache.', [{ labels: {}, value: mount.cache.capacity }]),
    gauge('iserfs_cache_bytes', 'Bytes in the block cache.', [{ labels: {}, value: mount.cache.bytes }]),
    counter('iserfs_cache_evictions_total', 'Runs of blocks that the cache gave up for others.', [
      { labels: {}, value: mount.cache.evictions },
    ]),
    gauge('iserfs_data_memory_bytes', 'Data memory by use.', [
      { labels: { use: 'owned' }, value: mount.cache.poolBytesInUse },
      { labels: { use: 'allocated' }, value: mount.cache.poolBytesAllocated },
    ]),
  ];
}

function targetFamilies({ targets }: MountSnapshot): Family[] {
  const each = (value: (target: (typeof targets)[number]) => number | undefined): Sample[] =>
    targets.flatMap((target) => {
      const of = value(target);
      return of === undefined ? [] : [{ labels: { target: target.name }, value: of }];
    });
  return [
    gauge(
      'iserfs_target_up',
      'Whether there is a session with the target; of those for which one was asked.',
      each((target) => (target.state === 'not-connected' ? undefined : target.session?.state === 'logged-in' ? 1 : 0)),
    ),
    gauge(
      'iserfs_target_not_connected',
      'Whether nobody has asked for a session with the target yet.',
      each((target) => (target.state === 'not-connected' ? 1 : 0)),
    ),
    gauge(
      'iserfs_target_transport_info',
      'How the session with the target is carried; the value is always 1.',
      targets.flatMap(({ name, session }) =>
        session === undefined
          ? []
          : [{ labels: { target: name, transport: session.transport, ...traitLabels(session.traits) }, value: 1 }],
      ),
    ),
    counter(
      'iserfs_target_reconnects_total',
      'Sessions established after the first.',
      each(({ session }) => session?.reconnects),
    ),
    gauge(
      'iserfs_target_commands_in_flight',
      'Commands that await their status.',
      each(({ session }) => session?.commandsInFlight),
    ),
    gauge(
      'iserfs_target_commands_queued',
      'Commands that wait for room in the command window.',
      each(({ session }) => session?.commandsQueued),
    ),
  ];
}

/** What a transport says of its connection, under names that labels may have. */
function traitLabels(traits: Readonly<Record<string, string | number | boolean>>): Labels {
  return Object.fromEntries(
    Object.entries(traits).map(([name, value]) => [name.toLowerCase().replace(/[^a-z0-9]+/g, '_'), String(value)]),
  );
}

const LUN_COUNTERS: readonly (readonly [name: string, help: string, value: (counters: LunCounters) => number])[] = [
  ['iserfs_lun_reads_total', 'Reads sent to the logical unit.', (counters) => counters.reads],
  ['iserfs_lun_writes_total', 'Writes sent to the logical unit.', (counters) => counters.writes],
  ['iserfs_lun_flushes_total', 'Cache synchronisations sent to the logical unit.', (counters) => counters.flushes],
  ['iserfs_lun_read_bytes_total', 'Bytes read from the logical unit.', (counters) => counters.bytesRead],
  ['iserfs_lun_written_bytes_total', 'Bytes written to the logical unit.', (counters) => counters.bytesWritten],
  ['iserfs_lun_errors_total', 'Commands that failed for good.', (counters) => counters.errors],
  ['iserfs_lun_retries_total', 'Commands that were issued again.', (counters) => counters.retries],
  ['iserfs_lun_unit_attentions_total', 'Unit attentions that the logical unit reported.', (counters) => counters.unitAttentions],
  ['iserfs_lun_command_timeouts_total', 'Commands aborted for taking too long.', (counters) => counters.commandTimeouts],
  ['iserfs_lun_replayed_writes_total', 'Writes written again after a cache loss.', (counters) => counters.replayedWrites],
  ['iserfs_lun_cache_hits_total', 'Reads answered without waiting for the logical unit.', (counters) => counters.cacheHits],
  ['iserfs_lun_cache_misses_total', 'Reads that waited for the logical unit.', (counters) => counters.cacheMisses],
  ['iserfs_lun_readahead_bytes_total', 'Bytes fetched ahead of sequential readers.', (counters) => counters.readaheadBytes],
];

function lunFamilies({ targets }: MountSnapshot): Family[] {
  const luns = targets.flatMap((target) => target.luns.map((lun) => ({ lun, labels: { target: target.name, lun: lun.label } })));
  const counted = luns.flatMap(({ lun, labels }) => (lun.counters === undefined ? [] : [{ labels, counters: lun.counters }]));
  return [
    gauge(
      'iserfs_lun_up',
      'Whether the logical unit can be read.',
      luns.map(({ lun, labels }) => ({ labels, value: lun.state === 'ready' ? 1 : 0 })),
    ),
    gauge(
      'iserfs_lun_capacity_bytes',
      'Capacity of the logical unit.',
      luns.flatMap(({ lun, labels }) => (lun.identity === undefined ? [] : [{ labels, value: lun.identity.capacity }])),
    ),
    gauge(
      'iserfs_lun_staged_bytes',
      'Bytes of writes that were acknowledged and that the logical unit has not answered for yet.',
      counted.map(({ labels, counters }) => ({ labels, value: counters.stagedBytes })),
    ),
    ...LUN_COUNTERS.map(([name, help, value]) =>
      counter(
        name,
        help,
        counted.map(({ labels, counters }) => ({ labels, value: value(counters) })),
      ),
    ),
    {
      name: 'iserfs_lun_latency_seconds',
      type: 'summary',
      help: 'From sending a command to its status, by operation.',
      samples: counted.flatMap(({ labels, counters }) => [
        ...summary({ ...labels, operation: 'read' }, counters.readLatency),
        ...summary({ ...labels, operation: 'write' }, counters.writeLatency),
        ...summary({ ...labels, operation: 'flush' }, counters.flushLatency),
      ]),
    },
  ];
}

function summary(labels: Labels, latency: LatencySummary): Sample[] {
  const none = latency.count === 0;
  const quantile = (quantile: string, ms: number) => ({
    labels: { ...labels, quantile },
    value: none ? Number.NaN : ms / 1000,
  });
  return [
    quantile('0.5', latency.p50Ms),
    quantile('0.9', latency.p90Ms),
    quantile('0.99', latency.p99Ms),
    { suffix: '_sum', labels, value: latency.totalMs / 1000 },
    { suffix: '_count', labels, value: latency.count },
  ];
}

function gauge(name: string, help: string, samples: readonly Sample[]): Family {
  return { name, type: 'gauge', help, samples };
}

function counter(name: string, help: string, samples: readonly Sample[]): Family {
  return { name, type: 'counter', help, samples };
}

/** A family without samples is left out: its HELP alone would say nothing. */
function renderFamily({ name, type, help, samples }: Family): string {
  if (samples.length === 0) return '';
  const lines = samples.map(
    ({ suffix = '', labels, value }) => `${name}${suffix}${renderLabels(labels)} ${renderValue(value)}\n`,
  );
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join('')}`;
}

function renderLabels(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

/** Backslash, quote and line feed are all that the format escapes. */
function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function renderValue(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value > 0 ? '+Inf' : '-Inf';
  return String(value);
}
