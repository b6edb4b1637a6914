import { describe, expect, it } from 'vitest';
import { renderMetrics } from '../../../src/mount/metrics.ts';
import { type Rendering, renderLunInfo, renderLunStatus, renderMount, renderTarget } from '../../../src/mount/render.ts';
import type { LunSnapshot, MountSnapshot, TargetSnapshot } from '../../../src/mount/snapshot.ts';
import { renderText } from '../../../src/mount/text-files.ts';

const NONE = { count: 0, p50Ms: 0, p90Ms: 0, p99Ms: 0, maxMs: 0, totalMs: 0 };

const lun: LunSnapshot = {
  label: '3',
  state: 'ready',
  problem: undefined,
  identity: {
    vendor: 'ACME',
    product: 'Disk "9"\nfake: line',
    revision: '1.0',
    serial: undefined,
    designators: ['naa.600', 'eui.1'],
    deviceType: 'disk',
    capacity: 3 * 2 ** 40,
    blockLength: 4096,
    physicalBlockLength: 4096,
    maximumTransferLength: undefined,
    optimalTransferLength: 65_536,
    optimalTransferGranularity: undefined,
    thin: true,
    volatileCache: false,
    writeProtected: true,
    access: 'read-only',
  },
  counters: {
    reads: 3,
    writes: 2,
    flushes: 1,
    bytesRead: 4096,
    bytesWritten: 512,
    errors: 1,
    lastError: 'no session for 8 s',
    retries: 4,
    reconnectReplays: 1,
    replayedWrites: 0,
    unitAttentions: 2,
    commandTimeouts: 0,
    recoveries: 1,
    commandsInFlight: 5,
    stagedBytes: 196_608,
    retainedBytes: 0,
    cacheHits: 1,
    cacheMisses: 3,
    readaheadBytes: 0,
    readLatency: { count: 3, p50Ms: 1.5, p90Ms: 12.25, p99Ms: 12.25, maxMs: 12.25, totalMs: 15 },
    writeLatency: NONE,
    flushLatency: NONE,
  },
};

const target: TargetSnapshot = {
  name: 'iqn.2024-01.com.example:db',
  state: 'logged-in',
  problem: undefined,
  session: {
    state: 'logged-in',
    transport: 'tcp',
    traits: {},
    portal: '192.0.2.1:3260',
    localAddress: '192.0.2.7:40000',
    isid: '80a1b2c3d4e5',
    tsih: 7,
    portalGroupTag: 1,
    targetAlias: undefined,
    keys: { MaxBurstLength: '262144', HeaderDigest: 'None' },
    commandsInFlight: 2,
    commandsQueued: 0,
    commandWindow: 64,
    reconnects: 1,
    establishedAt: new Date('2026-01-02T03:04:05Z'),
    lastError: undefined,
  },
  transportFallback: undefined,
  luns: [lun],
};

const byRdma: TargetSnapshot = {
  ...target,
  session: target.session && {
    ...target.session,
    transport: 'iwarp',
    traits: { device: 'software', ird: 16, 'remote invalidate': 'on' },
    keys: { RDMAExtensions: 'Yes', TargetRecvDataSegmentLength: '8192' },
  },
  transportFallback: 'verbs: no RDMA device',
};

const broken: TargetSnapshot = {
  name: 'iqn.2024-01.com.example:gone',
  state: 'unavailable',
  problem: { text: 'authentication failed', hint: 'Give --chap-user.' },
  session: undefined,
  transportFallback: undefined,
  luns: [],
};

const mount: MountSnapshot = {
  version: '1.2.3',
  pid: 42,
  mountpoint: '/mnt/iser',
  initiatorName: 'iqn.2024-01.x:host',
  startedAt: new Date('2026-01-02T03:00:00Z'),
  uptimeMs: 3_725_000,
  options: { 'cache-size': '64 MiB', 'initiator-name': '' },
  cache: { capacity: 67_108_864, bytes: 1024, limboBytes: 0, evictions: 9, poolBytesInUse: 4096, poolBytesAllocated: 1_048_576 },
  fuseHost: 'native',
  openImages: 1,
  notes: ['192.0.2.9:3260 does not answer'],
  targets: [target, broken],
};

const present = { mount: () => mount, target: (name: string) => mount.targets.find((each) => each.name === name) };

const unused: TargetSnapshot = { ...broken, name: 'iqn.2024-01.com.example:unused', state: 'not-connected', problem: undefined };

/** The values of a text's lines, by what stands before the colon. */
function lines({ text }: Rendering): Map<string, string[]> {
  const values = new Map<string, string[]>();
  for (const line of text.trimEnd().split('\n')) {
    const at = line.indexOf(': ');
    expect(at, line).toBeGreaterThan(0);
    const key = line.slice(0, at);
    values.set(key, [...(values.get(key) ?? []), line.slice(at + 2)]);
  }
  return values;
}

describe('status of the mount', () => {
  it('has a line per fact and one per target', () => {
    const values = lines(renderMount(mount));
    expect(values.get('version')).toEqual(['1.2.3']);
    expect(values.get('uptime')).toEqual(['1 h 2 min']);
    expect(values.get('option cache-size')).toEqual(['64 MiB']);
    expect(values.get('note')).toEqual(['192.0.2.9:3260 does not answer']);
    expect(values.get('target')).toEqual([
      'iqn.2024-01.com.example:db logged-in at 192.0.2.1:3260 by tcp, 1 LUN',
      'iqn.2024-01.com.example:gone unavailable, 0 LUNs (authentication failed)',
    ]);
  });

  it('leaves out options that have no value', () => {
    expect(lines(renderMount(mount)).has('option initiator-name')).toBe(false);
  });

  it('has the same for programs', () => {
    expect(renderMount(mount).json).toMatchObject({
      pid: 42,
      uptimeSeconds: 3725,
      cache: { bytes: 1024, evictions: 9 },
      targets: [
        { name: target.name, problem: null, hint: null, luns: [{ lun: '3', capacity: 3 * 2 ** 40 }] },
        { problem: 'authentication failed', hint: 'Give --chap-user.' },
      ],
    });
  });
});

describe('status of a target', () => {
  it('shows the session and its negotiated keys', () => {
    const values = lines(renderTarget(target));
    expect(values.get('isid')).toEqual(['80a1b2c3d4e5']);
    expect(values.get('key MaxBurstLength')).toEqual(['262144']);
    expect(values.get('session since')).toEqual(['2026-01-02T03:04:05.000Z']);
    expect(values.get('lun')).toEqual(['3 ready, 3 TiB, ACME Disk "9" fake: line']);
  });

  it('shows what carries the session, and why it is not what comes first', () => {
    const values = lines(renderTarget(byRdma));
    expect(values.get('transport')).toEqual(['iwarp']);
    expect(values.get('transport fallback')).toEqual(['verbs: no RDMA device']);
    expect(values.get('device')).toEqual(['software']);
    expect(values.get('remote invalidate')).toEqual(['on']);
    expect(values.get('key RDMAExtensions')).toEqual(['Yes']);
    expect(renderTarget(byRdma).json).toMatchObject({
      transport: 'iwarp',
      transportFallback: 'verbs: no RDMA device',
      traits: { device: 'software', ird: 16, 'remote invalidate': 'on' },
    });
    expect(lines(renderTarget(target)).has('transport fallback')).toBe(false);
    expect(renderTarget(target).json).toMatchObject({ transportFallback: null, traits: {} });
  });

  it('without a session says why, and what to do next', () => {
    expect(renderTarget(broken).text).toBe(
      'target: iqn.2024-01.com.example:gone\nstate: unavailable\nproblem: authentication failed\nhint: Give --chap-user.\n',
    );
  });

  it('has unknown facts as null for programs', () => {
    expect(renderTarget(target).json).toMatchObject({ targetAlias: null, lastError: null, keys: { HeaderDigest: 'None' } });
  });
});

describe('info of a logical unit', () => {
  it('keeps text from the wire in its line', () => {
    expect(lines(renderLunInfo(target.name, lun)).get('product')).toEqual(['Disk "9" fake: line']);
  });

  it('shows capacity, lengths and limits', () => {
    const values = lines(renderLunInfo(target.name, lun));
    expect(values.get('capacity')).toEqual(['3 TiB (3298534883328 bytes)']);
    expect(values.get('blocks')).toEqual(['805306368']);
    expect(values.get('designator')).toEqual(['naa.600', 'eui.1']);
    expect(values.get('maximum transfer length')).toEqual(['not stated']);
    expect(values.get('optimal transfer length')).toEqual(['64 KiB (65536 bytes)']);
    expect(values.get('write protected')).toEqual(['yes']);
  });

  it('of one that could not be attached says why', () => {
    const unknown: LunSnapshot = {
      label: '9',
      state: 'unavailable',
      problem: { text: 'no answer' },
      identity: undefined,
      counters: undefined,
    };
    expect(renderLunInfo(target.name, unknown).text).toMatch(/problem: no answer\n$/);
    expect(renderLunStatus(target.name, unknown).json).toMatchObject({ state: 'unavailable', problem: 'no answer', hint: null });
    const hinted: LunSnapshot = { ...unknown, problem: { text: 'no answer', hint: 'Wait.' } };
    expect(renderLunInfo(target.name, hinted).text).toContain('problem: no answer\nhint: Wait.\n');
    expect(renderLunStatus(target.name, hinted).json).toMatchObject({ problem: 'no answer', hint: 'Wait.' });
    expect(renderTarget({ ...target, luns: [unknown, hinted] }).json).toMatchObject({
      luns: [{ problem: 'no answer' }, { problem: 'no answer', hint: 'Wait.' }],
    });
  });
});

describe('a target that nobody has asked for', () => {
  const lazy = { ...mount, targets: [target, unused] };

  it('is listed as such, and not counted among the sessions', () => {
    const values = lines(renderMount(lazy));
    expect(values.get('sessions')).toEqual(['1, of 2 targets']);
    expect(values.get('target')?.[1]).toBe('iqn.2024-01.com.example:unused not-connected');
    expect(lines(renderTarget(unused)).get('state')).toEqual(['not-connected']);
  });

  it('is neither up nor down', () => {
    const metrics = renderMetrics(lazy);
    expect(metrics).toContain(`iserfs_target_up{target="${target.name}"} 1\n`);
    expect(metrics).not.toContain(`iserfs_target_up{target="${unused.name}"}`);
    expect(metrics).toContain(`iserfs_target_not_connected{target="${unused.name}"} 1\n`);
    expect(metrics).toContain(`iserfs_target_not_connected{target="${target.name}"} 0\n`);
  });
});

describe('status of a logical unit', () => {
  it('shows counters, hit rate and latencies', () => {
    const values = lines(renderLunStatus(target.name, lun));
    expect(values.get('cache hits')).toEqual(['1 (25.0 % of 4 lookups)']);
    expect(values.get('read latency')).toEqual(['p50 1.50 ms, p90 12.3 ms, p99 12.3 ms, max 12.3 ms']);
    expect(values.get('write latency')).toEqual(['none yet']);
    expect(values.get('bytes written')).toEqual(['512 bytes']);
  });

  it('tells the last error from what is the matter now', () => {
    const values = lines(renderLunStatus(target.name, lun));
    expect([values.get('problem'), values.get('last error')]).toEqual([undefined, ['no session for 8 s']]);
  });

  it('shows what was taken of writes and is not at the target, for programs too', () => {
    expect(lines(renderLunStatus(target.name, lun)).get('staged writes')).toEqual(['192 KiB (196608 bytes)']);
    expect(renderLunStatus(target.name, lun).json).toMatchObject({ stagedBytes: 196_608 });
  });
});

describe('text files', () => {
  it.each([
    [{ file: 'status' }, /^version: 1\.2\.3$/m],
    [{ file: 'status.json' }, /"version": "1\.2\.3"/],
    [{ file: 'metrics' }, /^iserfs_info\{version="1\.2\.3"\} 1$/m],
    [{ file: 'status', target: target.name }, /^tsih: 7$/m],
    [{ file: 'info', target: target.name, lun: '3' }, /^vendor: ACME$/m],
    [{ file: 'status.json', target: target.name, lun: '3' }, /"reads": 3/],
  ] as const)('%j holds what belongs there', (source, text) => {
    expect(renderText(source, present)).toMatch(text);
  });

  it('of something that has gone meanwhile are an error', () => {
    expect(() => renderText({ file: 'info', target: target.name, lun: '4' }, present)).toThrow('is not there any more');
  });
});

describe('metrics', () => {
  const metrics = renderMetrics({ ...mount, targets: [{ ...target, name: 'iqn.2024-01.x:a"b\\c' }, broken] });
  const samples = metrics.split('\n').filter((line) => line !== '' && !line.startsWith('#'));

  it('have HELP and TYPE once, before the samples of their family', () => {
    let family = '';
    const seen = new Set<string>();
    for (const line of metrics.trimEnd().split('\n')) {
      const help = /^# HELP (\w+) \S/.exec(line);
      if (help !== null) {
        family = help[1] as string;
        expect(seen).not.toContain(family);
        seen.add(family);
      } else if (line.startsWith('#')) expect(line).toMatch(new RegExp(`^# TYPE ${family} (counter|gauge|summary)$`));
      else expect(line.startsWith(family), line).toBe(true);
    }
    expect(metrics.endsWith('\n')).toBe(true);
  });

  it('are lines of the text format', () => {
    const label = String.raw`\w+="(?:[^"\\\n]|\\["\\n])*"`;
    for (const line of samples) expect(line).toMatch(new RegExp(`^\\w+(?:\\{${label}(?:,${label})*\\})? (?:NaN|[-+0-9.e]+)$`));
  });

  it('escape labels', () => {
    expect(samples).toContain(String.raw`iserfs_target_up{target="iqn.2024-01.x:a\"b\\c"} 1`);
  });

  it('call counters _total, and only them', () => {
    const counters = [...metrics.matchAll(/^# TYPE (\w+) counter$/gm)].map(([, name]) => name);
    const others = [...metrics.matchAll(/^# TYPE (\w+) (?:gauge|summary)$/gm)].map(([, name]) => name);
    expect(counters.every((name) => name?.endsWith('_total'))).toBe(true);
    expect(others.some((name) => name?.endsWith('_total'))).toBe(false);
  });

  it('give latencies in seconds, and none as NaN', () => {
    const labels = String.raw`target="iqn.2024-01.x:a\"b\\c",lun="3"`;
    expect(samples).toContain(`iserfs_lun_latency_seconds{${labels},operation="read",quantile="0.9"} 0.01225`);
    expect(samples).toContain(`iserfs_lun_latency_seconds_sum{${labels},operation="read"} 0.015`);
    expect(samples).toContain(`iserfs_lun_latency_seconds{${labels},operation="write",quantile="0.9"} NaN`);
  });

  it('say what was taken of writes and is not at the target', () => {
    expect(samples).toContain(String.raw`iserfs_lun_staged_bytes{target="iqn.2024-01.x:a\"b\\c",lun="3"} 196608`);
    expect(metrics).toContain('# TYPE iserfs_lun_staged_bytes gauge\n');
  });

  it('say what carries each session', () => {
    const info = (name: string) => renderMetrics({ ...mount, targets: [{ ...byRdma, name }] });
    expect(info('a')).toContain(
      'iserfs_target_transport_info{target="a",transport="iwarp",device="software",ird="16",remote_invalidate="on"} 1\n',
    );
  });

  it('say that a target without a session is down', () => {
    expect(samples).toContain('iserfs_target_up{target="iqn.2024-01.com.example:gone"} 0');
  });
});
