import { expect, it } from 'vitest';
import { goals, judge } from '../../bench/goals.ts';
import { barsOf, renderPlot } from '../../bench/plot.ts';
import { renderReport, withSpread } from '../../bench/report.ts';
import { type Sample, Samples } from '../../bench/sample.ts';

const sample = (contestant: string, round: number, seconds: number, serverCpu?: number): Sample => ({
  target: 'tgtd',
  workload: 'seq-read-direct',
  contestant,
  round,
  bytes: 1e9,
  seconds,
  clientCpu: 0.5,
  targetCpu: 1,
  ...(serverCpu === undefined ? {} : { serverCpu, peakMemory: 100 * 2 ** 20 }),
});
const samples = new Samples([
  sample('iserfs/tcp', 1, 1, 2),
  sample('iserfs/tcp', 2, 2, 2),
  sample('qemu', 1, 4, 3),
  sample('qemu', 2, 4, 3),
  sample('ceiling', 1, 1),
  sample('ceiling', 2, 1),
]);

it('a value has its spread behind it, where there is one', () => {
  expect(withSpread({ median: 2, least: 1, most: 3, count: 2 }, String)).toBe('2 (1–3)');
  expect(withSpread({ median: 2, least: 2, most: 2, count: 1 }, String)).toBe('2');
  expect(withSpread(undefined, String)).toBe('–');
});

it('a report has the goals, then a table for each workload with the best first', () => {
  const verdicts = judge(samples, goals);
  const options = { builds: [{ name: 'iserfs', cliPath: '/x', flags: [] }], rounds: 2, seconds: 1, size: 2 ** 20 };
  const text = renderReport({ samples, verdicts, machine: { kernel: 'Linux 6' }, options });
  expect(text).toContain('| seq-read-direct | tgtd | iserfs/tcp | qemu | ≥ 1.8 × | 3.00 (2.00–4.00) | reached |');
  expect(text.match(/^\| `.*$/gm)).toEqual([
    '| `ceiling` | 1000 (1000–1000) | 1.00 | 4.00 | – | 0.54 | 1.07 | – |',
    '| `iserfs/tcp` | 750 (500–1000) | 0.75 | 3.00 | 2.15 | 0.54 | 1.07 | 100 |',
    '| `qemu` | 250 (250–250) | 0.25 | 1.00 | 3.22 | 0.54 | 1.07 | 100 |',
  ]);
});

it('a picture has a bar for each contestant, ours first', async () => {
  expect(barsOf(samples, 'seq-read-direct').map(({ contestant, median, label }) => [contestant, median, label])).toEqual([
    ['iserfs tcp', 750, '750'],
    ['qemu', 250, '250'],
    ['no file, 1 in flight', 1000, '1000'],
  ]);
  const svg = await renderPlot(samples);
  expect(svg).toMatch(/^<svg[\s>]/);
  expect(svg).toContain('Sequential read, O_DIRECT');
});
