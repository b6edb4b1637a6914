/** The results as a picture: one small chart of bars for each workload, with the spread over the rounds, drawn by Vega-Lite. */

import { parse, View } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';
import { KiB } from '../support/workdir.ts';
import { deepAccess } from './contestants.ts';
import { mainFigure } from './goals.ts';
import type { ContestantName, Samples, TargetName } from './sample.ts';
import { targetLabels } from './targets.ts';
import { type Measure, unitOf, type Workload, type WorkloadName, workloadNames, workloads } from './workloads.ts';

interface Bar {
  readonly contestant: string;
  readonly kind: Kind;
  readonly median: number;
  readonly least: number;
  readonly most: number;
  readonly label: string;
}

const shortTitles: Readonly<Partial<Record<WorkloadName, string>>> = {
  'seq-read': 'Sequential read, buffered',
  'seq-read-direct': 'Sequential read, O_DIRECT',
  'seq-write': 'Sequential write, buffered + fsync',
  'seq-write-direct': 'Sequential write, O_DIRECT',
  'rand-read-1': 'Random 4 KiB read, 1 in flight',
  'rand-write-1': 'Random 4 KiB write, 1 in flight',
  'rand-read-32': 'Random 4 KiB read, 32 in flight',
  'rand-write-32': 'Random 4 KiB write, 32 in flight',
  reread: 'Cached 4 KiB read, 1 in flight',
};

const colours = {
  tcp: '#1f6feb',
  iwarp: '#54aeff',
  'another build': '#8250df',
  qemu: '#d4a72c',
  ceiling: '#8c959f',
  floor: '#57a773',
} as const;
type Kind = keyof typeof colours;
const measureTitles: Readonly<Record<Measure, string>> = {
  throughput: 'MB/s, more is better',
  operations: '1000 operations/s, more is better',
  latency: 'mean latency in µs, less is better',
};
const columns = 3;
const labelWidth = 125;

/** SVG. */
export async function renderPlot(samples: Samples): Promise<string> {
  return await drawSvg(plotSpec(samples));
}

export async function drawSvg(spec: TopLevelSpec): Promise<string> {
  const view = new View(parse(compile(spec).spec), { renderer: 'none' });
  try {
    return `${await view.toSVG()}\n`;
  } finally {
    view.finalize();
  }
}

/** What all pictures have in common. */
export const appearance = {
  $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
  background: 'white',
  padding: 12,
  config: {
    aria: false,
    font: 'Helvetica, Arial, sans-serif',
    axis: { labelFontSize: 11, titleFontSize: 11, titleFontWeight: 'normal', gridColor: '#e6e8eb', domainColor: '#8c959f' },
    title: { fontSize: 13, anchor: 'start', frame: 'group', fontWeight: 'bold' },
    view: { stroke: null },
  },
  spacing: 28,
} as const satisfies Partial<TopLevelSpec>;

export function plotSpec(samples: Samples): TopLevelSpec {
  const targets = [...new Set(samples.all.map(({ target }) => target))];
  return {
    ...appearance,
    vconcat: targets.map((target) => targetSpec(samples, target)),
    resolve: { scale: { color: 'shared' } },
  };
}

type Part = Extract<TopLevelSpec, { vconcat: unknown }>['vconcat'][number];

function targetSpec(samples: Samples, target: TargetName): Part {
  const names = workloadNames.filter((name) => shortTitles[name] !== undefined && samples.of(target, name).all.length > 0);
  return {
    title: { text: `Against ${targetLabels[target]}`, fontSize: 15, offset: 14, dx: -labelWidth },
    columns,
    spacing: 24,
    concat: names.map((name) => workloadSpec(samples.of(target, name), name)),
  };
}

function workloadSpec(samples: Samples, name: WorkloadName): Part {
  const measure: Measure = workloads[name].measure;
  const bars = barsOf(samples, name);
  const order = bars.map(({ contestant }) => contestant);
  const most = Math.max(...bars.map((bar) => bar.most));
  const y = {
    field: 'contestant',
    type: 'nominal',
    sort: order,
    title: null,
    axis: { ticks: false, domain: false, minExtent: labelWidth, maxExtent: labelWidth },
  } as const;
  const scale = { domain: [0, most * 1.22], nice: false };
  return {
    title: { text: shortTitles[name] ?? name, fontSize: 12, offset: 6, dx: -labelWidth },
    width: 205,
    height: { step: 19 },
    data: { values: [...bars] },
    layer: [
      {
        mark: { type: 'bar', height: 13 },
        encoding: {
          y,
          x: { field: 'median', type: 'quantitative', title: measureTitles[measure], axis: { tickCount: 4 }, scale },
          color: {
            field: 'kind',
            type: 'nominal',
            scale: { domain: Object.keys(colours), range: Object.values(colours) },
            legend: null,
          },
        },
      },
      {
        mark: { type: 'rule', color: '#24292f', strokeWidth: 1 },
        encoding: { y, x: { field: 'least', type: 'quantitative' }, x2: { field: 'most' } },
      },
      {
        mark: { type: 'text', align: 'left', dx: 5, fontSize: 10, color: '#24292f' },
        encoding: { y, x: { field: 'most', type: 'quantitative' }, text: { field: 'label', type: 'nominal' } },
      },
    ],
  };
}

/** Ours first, then those to compare with. */
export function barsOf(samples: Samples, name: WorkloadName): Bar[] {
  const { divisor, digits } = unitOf[workloads[name].measure];
  const figure = mainFigure(name);
  const builds = [...new Set(samples.contestants.filter((one) => one.includes('/')).map((one) => one.split('/')[0]))];
  const bars: Bar[] = [];
  for (const contestant of [...samples.contestants].sort(byPlace)) {
    // It is there to check the ceiling by, and says the same.
    if (contestant === 'iscsi-perf') continue;
    const summary = samples.summary(contestant, figure);
    if (summary === undefined) continue;
    bars.push({
      contestant: nameOf(contestant, workloads[name]),
      kind: kindOf(contestant, builds[0]),
      median: summary.median / divisor,
      least: summary.least / divisor,
      most: summary.most / divisor,
      label: (summary.median / divisor).toFixed(digits),
    });
  }
  return bars;
}

function kindOf(contestant: ContestantName, firstBuild: string | undefined): Kind {
  if (contestant === 'qemu' || contestant === 'floor') return contestant;
  if (contestant.startsWith('ceiling')) return 'ceiling';
  const [build, variant = ''] = contestant.split('/');
  if (build !== firstBuild) return 'another build';
  return variant.startsWith('iwarp') ? 'iwarp' : 'tcp';
}

/** What an axis says. */
function nameOf(contestant: ContestantName, workload: Workload): string {
  if (contestant === 'floor') return 'no LUN (libfuse3)';
  const depth = workload.raw?.depth ?? 1;
  // With random workloads the title says how many are in flight.
  if (contestant === 'ceiling') return workload.raw?.order === 'random' ? 'no file (libiscsi)' : `no file, ${depth} in flight`;
  if (contestant === 'ceiling-deep') return `no file, ${deepAccess.depth} × ${deepAccess.transfer / KiB} KiB in flight`;
  return contestant.replace('/', ' ').replace('-no-crc', ', no CRC').replace('-digest', ', CRC');
}

function byPlace(one: ContestantName, other: ContestantName): number {
  return place(one) - place(other) || one.localeCompare(other);
}

function place(contestant: ContestantName): number {
  if (contestant.includes('/')) return 0;
  return 1 + ['qemu', 'ceiling', 'ceiling-deep', 'floor'].indexOf(contestant);
}
