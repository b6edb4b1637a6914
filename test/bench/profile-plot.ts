/** Where the time goes, as a picture: a bar for each case, made of what its groups of parts take. */

import type { TopLevelSpec } from 'vega-lite';
import { budgetOf, workOf } from './budget.ts';
import { appearance, drawSvg } from './plot.ts';
import { type Group, groups } from './profile-parts.ts';
import type { Profile } from './profile-report.ts';
import { workloads } from './workloads.ts';

const colours: Readonly<Record<Group, string>> = {
  'kernel, FUSE': '#0a3069',
  'kernel, sockets': '#1f6feb',
  kernel: '#80ccff',
  'native code': '#57a773',
  Node: '#8c959f',
  V8: '#d4a72c',
  JavaScript: '#bc4c00',
  other: '#d0d7de',
};

/** SVG: a chart for each unit that there is. */
export async function renderProfilePlot(profiles: readonly Profile[]): Promise<string> {
  const labels = [...new Set(profiles.map(({ workload }) => workOf(workloads[workload].measure).label))];
  return await drawSvg({ ...appearance, vconcat: labels.map((label) => chart(profiles, label)) });
}

type Chart = Extract<TopLevelSpec, { vconcat: unknown }>['vconcat'][number];

function chart(profiles: readonly Profile[], label: string): Chart {
  const some = profiles.filter(({ workload }) => workOf(workloads[workload].measure).label === label);
  return {
    title: 'Processor time of iserfs',
    width: 560,
    height: { step: 24 },
    data: { values: some.flatMap(segmentsOf) },
    mark: { type: 'bar', height: 16 },
    encoding: {
      y: {
        field: 'name',
        type: 'nominal',
        sort: some.map(nameOf),
        title: null,
        axis: { ticks: false, domain: false, labelLimit: 300 },
      },
      x: { field: 'value', type: 'quantitative', title: label, aggregate: 'sum' },
      color: {
        field: 'group',
        type: 'nominal',
        title: null,
        scale: { domain: [...groups], range: groups.map((one) => colours[one]) },
      },
      order: { field: 'place', type: 'quantitative' },
    },
  };
}

function segmentsOf(profile: Profile): { name: string; group: Group; place: number; value: number }[] {
  const { run, breakdown, workload } = profile;
  const { server } = budgetOf(run, workOf(workloads[workload].measure));
  return breakdown.parts.map(({ group, samples }) => ({
    name: nameOf(profile),
    group,
    place: groups.indexOf(group),
    value: (server * samples) / breakdown.samples,
  }));
}

function nameOf({ workload, target, variant }: Profile): string {
  return `${workload}, ${target === 'embedded' ? variant : target}`;
}
