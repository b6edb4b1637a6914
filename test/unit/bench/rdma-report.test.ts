import { expect, it } from 'vitest';
import { type RdmaSample, renderRdmaReport } from '../../bench/rdma-report.ts';

const sample = (contestant: string, round: number, megabytes: number): RdmaSample => ({
  target: 'tgtd',
  workload: 'read, O_DIRECT',
  contestant,
  round,
  bytesPerSecond: megabytes * 1e6,
});

it('the goal is for both of the others, within each round', () => {
  const samples = [
    ...[sample('iserfs (verbs)', 1, 8), sample('kernel (ib_iser)', 1, 10), sample('libiscsi', 1, 16)],
    ...[sample('iserfs (verbs)', 2, 9), sample('kernel (ib_iser)', 2, 10), sample('libiscsi', 2, 18)],
  ];
  const text = renderRdmaReport(samples, { rounds: 2, seconds: 5, mebibytes: 8, absent: [], versions: { linux: '6.1' } });
  expect(text).toContain(
    '| read, O_DIRECT | 8.5 (8.0–9.0) | 10.0 (10.0–10.0) | 17.0 (16.0–18.0) | 0.85 (0.80–0.90) | 0.50 (0.50–0.50) | **not reached** |',
  );
});

it('who took no part is named with the reason, and the others are compared', () => {
  const samples = [sample('iserfs (verbs)', 1, 8), sample('kernel (ib_iser)', 1, 10)];
  const text = renderRdmaReport(samples, {
    rounds: 1,
    seconds: 5,
    mebibytes: 8,
    absent: ['tgtd: libiscsi takes no part: it is tired'],
    versions: {},
  });
  expect(text).toContain('| read, O_DIRECT | 8.0 | 10.0 | – | 0.80 | – | reached |');
  expect(text).toContain('- tgtd: libiscsi takes no part: it is tired');
});
