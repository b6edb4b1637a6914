/**
 * The text files of the tree: `key: value` lines for people, and a JSON twin of each for programs, both
 * from the same table of fields, so that one cannot say what the other does not. Pure functions over
 * snapshots. Much of the text comes from targets: a value never leaves its line.
 */

import { formatDuration, formatSize } from '../config/quantity.ts';
import { count, printable } from '../printable.ts';
import type { Problem } from '../problem.ts';
import type { LatencySummary } from '../scsi/latency-histogram.ts';
import type { LunSnapshot, MountSnapshot, TargetSnapshot } from './snapshot.ts';

type JsonValue = string | number | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/** One fact. A field without `text` is for programs alone: people have it in another line. */
interface Field {
  /** Name in the JSON twin. */
  readonly key: string;
  readonly value: JsonValue;
  /** `label: text` lines, as many as there are texts. */
  readonly label?: string;
  readonly text?: string | readonly string[];
}

/** The two forms of a file. */
export interface Rendering {
  readonly text: string;
  readonly json: JsonValue;
}

/** `status` of the mount. */
export function renderMount(mount: MountSnapshot): Rendering {
  const { cache } = mount;
  return rendering([
    field('version', 'version', mount.version),
    field('mount point', 'mountpoint', mount.mountpoint),
    field('process', 'pid', mount.pid),
    field('initiator', 'initiatorName', mount.initiatorName),
    field('started', 'startedAt', mount.startedAt.toISOString()),
    field('uptime', 'uptimeSeconds', Math.floor(mount.uptimeMs / 1000), formatDuration(mount.uptimeMs)),
    {
      key: 'cache',
      value: { ...cache },
      label: 'cache',
      text:
        cache.capacity === 0
          ? 'off'
          : `${formatSize(cache.bytes)} of ${formatSize(cache.capacity)} used, ${cache.evictions} evictions, ${formatSize(cache.poolBytesAllocated)} of data memory allocated`,
    },
    field('FUSE host', 'fuseHost', mount.fuseHost),
    field('open images', 'openImages', mount.openImages),
    sessions(mount.targets),
    { key: 'notes', value: mount.notes, label: 'note', text: mount.notes },
    ...Object.entries(mount.options)
      .filter(([, value]) => value !== '')
      .map(([name, value]) => ({ key: '', value: null, label: `option ${name}`, text: value })),
    { key: 'options', value: mount.options },
    {
      key: 'targets',
      value: mount.targets.map((target) => ({ ...objectOf(targetFields(target)), luns: target.luns.map(lunSummary) })),
      label: 'target',
      text: mount.targets.map(targetLine),
    },
  ]);
}

/** `status` of a target. */
export function renderTarget(target: TargetSnapshot): Rendering {
  return rendering([
    ...targetFields(target),
    { key: 'luns', value: target.luns.map(lunSummary), label: 'lun', text: target.luns.map(lunLine) },
  ]);
}

/** `info` of a logical unit: what it is. */
export function renderLunInfo(target: string, lun: LunSnapshot): Rendering {
  const { identity } = lun;
  const head = [field('target', 'target', target), field('lun', 'lun', lun.label)];
  if (identity === undefined) return rendering([...head, field('state', 'state', lun.state), ...problemFields(lun.problem)]);
  return rendering([
    ...head,
    field('vendor', 'vendor', identity.vendor),
    field('product', 'product', identity.product),
    field('revision', 'revision', identity.revision),
    optional('serial', 'serial', identity.serial),
    { key: 'designators', value: identity.designators, label: 'designator', text: identity.designators },
    field('device type', 'deviceType', identity.deviceType),
    field('capacity', 'capacity', identity.capacity, `${formatSize(identity.capacity)} (${identity.capacity} bytes)`),
    field('blocks', 'blocks', identity.capacity / identity.blockLength),
    field('logical block length', 'blockLength', identity.blockLength, `${identity.blockLength} bytes`),
    field('physical block length', 'physicalBlockLength', identity.physicalBlockLength, `${identity.physicalBlockLength} bytes`),
    limit('maximum transfer length', 'maximumTransferLength', identity.maximumTransferLength),
    limit('optimal transfer length', 'optimalTransferLength', identity.optimalTransferLength),
    limit('optimal transfer granularity', 'optimalTransferGranularity', identity.optimalTransferGranularity),
    field('thin provisioned', 'thin', identity.thin, yesNo(identity.thin)),
    field('volatile write cache', 'volatileCache', identity.volatileCache, yesNo(identity.volatileCache)),
    field('write protected', 'writeProtected', identity.writeProtected, yesNo(identity.writeProtected)),
    field('access', 'access', identity.access),
  ]);
}

/** `status` of a logical unit: how it does. */
export function renderLunStatus(target: string, lun: LunSnapshot): Rendering {
  const { counters } = lun;
  const head = [
    field('target', 'target', target),
    field('lun', 'lun', lun.label),
    field('state', 'state', lun.state),
    ...problemFields(lun.problem),
  ];
  if (counters === undefined) return rendering(head);
  const lookups = counters.cacheHits + counters.cacheMisses;
  const hitRate = lookups === 0 ? '' : ` (${((100 * counters.cacheHits) / lookups).toFixed(1)} % of ${lookups} lookups)`;
  return rendering([
    ...head,
    field('reads', 'reads', counters.reads),
    field('writes', 'writes', counters.writes),
    field('flushes', 'flushes', counters.flushes),
    bytesField('bytes read', 'bytesRead', counters.bytesRead),
    bytesField('bytes written', 'bytesWritten', counters.bytesWritten),
    field('errors', 'errors', counters.errors),
    optional('last error', 'lastError', counters.lastError),
    field('retries', 'retries', counters.retries),
    field('reissued after reconnect', 'reconnectReplays', counters.reconnectReplays),
    field('written again after cache loss', 'replayedWrites', counters.replayedWrites),
    field('unit attentions', 'unitAttentions', counters.unitAttentions),
    field('command timeouts', 'commandTimeouts', counters.commandTimeouts),
    field('recoveries', 'recoveries', counters.recoveries),
    field('commands in flight', 'commandsInFlight', counters.commandsInFlight),
    bytesField('staged writes', 'stagedBytes', counters.stagedBytes),
    bytesField('retained writes', 'retainedBytes', counters.retainedBytes),
    field('cache hits', 'cacheHits', counters.cacheHits, `${counters.cacheHits}${hitRate}`),
    field('cache misses', 'cacheMisses', counters.cacheMisses),
    bytesField('read ahead', 'readaheadBytes', counters.readaheadBytes),
    latency('read latency', 'readLatency', counters.readLatency),
    latency('write latency', 'writeLatency', counters.writeLatency),
    latency('flush latency', 'flushLatency', counters.flushLatency),
  ]);
}

export function renderJson(value: JsonValue): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

function targetFields(target: TargetSnapshot): Field[] {
  const { session } = target;
  const head = [field('target', 'name', target.name), field('state', 'state', target.state), ...problemFields(target.problem)];
  if (session === undefined) return head;
  return [
    ...head,
    field('transport', 'transport', session.transport),
    optional('transport fallback', 'transportFallback', target.transportFallback),
    ...Object.entries(session.traits).map(([name, value]) => ({ key: '', value: null, label: name, text: String(value) })),
    { key: 'traits', value: session.traits },
    field('portal', 'portal', session.portal),
    optional('local address', 'localAddress', session.localAddress),
    optional('portal group', 'portalGroupTag', session.portalGroupTag),
    optional('alias', 'targetAlias', session.targetAlias),
    field('isid', 'isid', session.isid),
    optional('tsih', 'tsih', session.tsih),
    optional('session since', 'establishedAt', session.establishedAt?.toISOString()),
    field('reconnects', 'reconnects', session.reconnects),
    field('commands in flight', 'commandsInFlight', session.commandsInFlight),
    field('commands queued', 'commandsQueued', session.commandsQueued),
    optional('command window', 'commandWindow', session.commandWindow),
    optional('last error', 'lastError', session.lastError),
    ...Object.entries(session.keys).map(([name, value]) => ({ key: '', value: null, label: `key ${name}`, text: value })),
    { key: 'keys', value: session.keys },
  ];
}

function sessions(targets: readonly TargetSnapshot[]): Field {
  const established = targets.filter(({ session }) => session?.state === 'logged-in').length;
  return field('sessions', 'sessions', established, `${established}, of ${count(targets.length, 'target')}`);
}

function targetLine(target: TargetSnapshot): string {
  if (target.state === 'not-connected') return `${target.name} ${target.state}`;
  const where = target.session === undefined ? '' : ` at ${target.session.portal} by ${target.session.transport}`;
  const luns = count(target.luns.length, 'LUN');
  const problem = target.problem === undefined ? '' : ` (${target.problem.text})`;
  return `${target.name} ${target.state}${where}, ${luns}${problem}`;
}

function lunLine(lun: LunSnapshot): string {
  const { identity } = lun;
  const what = identity === undefined ? '' : `, ${formatSize(identity.capacity)}, ${identity.vendor} ${identity.product}`;
  const problem = lun.problem === undefined ? '' : ` (${lun.problem.text})`;
  return `${lun.label} ${lun.state}${what}${problem}`;
}

function lunSummary(lun: LunSnapshot): JsonValue {
  const { identity } = lun;
  return {
    lun: lun.label,
    state: lun.state,
    ...problemSummary(lun.problem),
    ...(identity === undefined
      ? {}
      : { capacity: identity.capacity, blockLength: identity.blockLength, access: identity.access }),
  };
}

/** What is wrong, if anything is, and the next step, where one is known. */
function problemFields(problem: Problem | undefined): Field[] {
  return [optional('problem', 'problem', problem?.text), optional('hint', 'hint', problem?.hint)];
}

/** The same among the few facts of a summary: what there is not is left out. */
function problemSummary(problem: Problem | undefined): Record<string, string> {
  if (problem === undefined) return {};
  return { problem: problem.text, ...(problem.hint === undefined ? {} : { hint: problem.hint }) };
}

function field(label: string, key: string, value: string | number | boolean, text = String(value)): Field {
  return { label, key, value, text };
}

/** A fact that may be unknown: no line, and `null` for programs. */
function optional(label: string, key: string, value: string | number | undefined): Field {
  return value === undefined ? { key, value: null } : field(label, key, value);
}

function limit(label: string, key: string, bytes: number | undefined): Field {
  return bytes === undefined ? { key, value: null, label, text: 'not stated' } : bytesField(label, key, bytes);
}

function bytesField(label: string, key: string, bytes: number): Field {
  return field(label, key, bytes, bytes < 1024 ? `${bytes} bytes` : `${formatSize(bytes)} (${bytes} bytes)`);
}

function latency(label: string, key: string, summary: LatencySummary): Field {
  const { count, p50Ms, p90Ms, p99Ms, maxMs } = summary;
  return {
    key,
    value: { ...summary },
    label,
    text: count === 0 ? 'none yet' : `p50 ${ms(p50Ms)}, p90 ${ms(p90Ms)}, p99 ${ms(p99Ms)}, max ${ms(maxMs)}`,
  };
}

function ms(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : 1)} ms`;
}

function yesNo(value: boolean): string {
  return value ? 'yes' : 'no';
}

function rendering(fields: readonly Field[]): Rendering {
  const lines: string[] = [];
  for (const { label, text } of fields) {
    if (label === undefined || text === undefined) continue;
    for (const each of typeof text === 'string' ? [text] : text) lines.push(`${label}: ${printable(each)}\n`);
  }
  return { text: lines.join(''), json: objectOf(fields) };
}

function objectOf(fields: readonly Field[]): Record<string, JsonValue> {
  return Object.fromEntries(fields.filter(({ key }) => key !== '').map(({ key, value }) => [key, value]));
}
