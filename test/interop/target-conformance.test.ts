/**
 * The embedded target under libiscsi's conformance suite (iscsi-test-cu). Each suite runs in a process of
 * its own: some leave a hook behind that falsifies the CDBs of those after them.
 */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FileMedium } from '../../src/scsi/file-medium.ts';
import { MemoryMedium } from '../../src/scsi/memory-medium.ts';
import { describeOutcome, run } from '../support/child-process.ts';
import { EmbeddedTarget } from '../support/embedded-target.ts';
import { MiB, Workdir } from '../support/workdir.ts';

const NAME = 'iqn.2026-01.org.iserfs:conformance';
const MEMORY = 0;
const MEMORY_4096 = 1;
const READ_ONLY = 2;
const FILE = 3;

/** Tests that fail, and why that is as it should be. */
const REFUSED_WRITES =
  'wants a write that announces less data than its CDB to end GOOD; this target refuses it (0E/03) before a byte is written';
const KNOWN_FAILURES: Readonly<Record<string, string>> = {
  'GetLBAStatus.UnmapSingle': 'asks for the status of LBA n+1 and expects an answer that begins at LBA n+8',
  'WriteSame10.InvalidDataOutSize':
    'wants more data than one block refused; this target takes the block and reports the residual',
  'WriteSame16.InvalidDataOutSize': 'the same',
  'WriteSame16.Unmap': 'writes 32 MiB in one command, beyond the MAXIMUM TRANSFER LENGTH of the Block Limits page',
  'iSCSIResiduals.Write10Residuals': REFUSED_WRITES,
  'iSCSIResiduals.Write12Residuals': REFUSED_WRITES,
  'iSCSIResiduals.Write16Residuals': REFUSED_WRITES,
  'iSCSIResiduals.WriteVerify10Residuals': REFUSED_WRITES,
  'iSCSIResiduals.WriteVerify12Residuals': REFUSED_WRITES,
  'iSCSIResiduals.WriteVerify16Residuals': REFUSED_WRITES,
  'iSCSIdatasn.iSCSIDataSnInvalid':
    'this target drops the connection, as it should; after the reconnection the next write goes as immediate data, which has no DataSN',
};

/** With 4096-byte blocks. */
const KNOWN_FAILURES_4096: Readonly<Record<string, string>> = {
  ...KNOWN_FAILURES,
  'Write10.Async': 'announces 512 bytes for each block',
};

interface SuiteOutcome {
  readonly passed: readonly string[];
  readonly failed: readonly string[];
  /** Passed, with at least one part left out. */
  readonly skipped: readonly string[];
  /** All that the suite had to say. */
  readonly output: string;
}

let workdir: Workdir;
let target: EmbeddedTarget;

beforeAll(async () => {
  workdir = Workdir.create();
  const file = await FileMedium.open({ path: workdir.join('disk.img'), blockLength: 512, createSize: 64 * MiB });
  target = await EmbeddedTarget.start([
    {
      name: NAME,
      units: [
        { lun: MEMORY, medium: new MemoryMedium(128 * MiB), blockLength: 512, serial: 'memory' },
        { lun: MEMORY_4096, medium: new MemoryMedium(128 * MiB), blockLength: 4096, serial: 'memory-4096' },
        { lun: READ_ONLY, medium: new MemoryMedium(16 * MiB), blockLength: 512, serial: 'read-only', readOnly: true },
        { lun: FILE, medium: file, blockLength: 512, serial: 'file' },
      ],
    },
  ]);
});

afterAll(async () => {
  await target[Symbol.asyncDispose]();
  await workdir[Symbol.asyncDispose]();
});

/** Runs one suite, or one test of it; `paths` is how many sessions it gets. */
async function runSuite(suite: string, lun: number, paths = 1): Promise<SuiteOutcome> {
  const url = `iscsi://${target.portal}/${NAME}/${lun}`;
  const urls = new Array<string>(paths).fill(url);
  const outcome = await run('iscsi-test-cu', ['--dataloss', '-v', '-t', `ALL.${suite}`, ...urls], { timeoutMs: 100_000 });
  if (!/Run Summary/.test(outcome.stdout)) throw new Error(describeOutcome(outcome));
  return readOutcome(suite.replace(/\..*/, ''), outcome.stdout);
}

/** CUnit prints a test's name, then its messages, then the verdict: on the same line only where there were none. */
function readOutcome(suite: string, output: string): SuiteOutcome {
  const passed: string[] = [];
  const failed: string[] = [];
  const skipped: string[] = [];
  let current: string | undefined;
  let isSkipped = false;
  for (const line of output.split('\n')) {
    const start = /^ {2}Test: (\S+) \.\.\.(.*)$/.exec(line);
    if (start !== null) {
      current = `${suite}.${start[1]}`;
      isSkipped = false;
    }
    if (current === undefined) continue;
    const verdict = start === null ? line : (start[2] ?? '');
    if (verdict.startsWith('FAILED')) failed.push(current);
    else if (verdict.startsWith('passed')) (isSkipped ? skipped : passed).push(current);
    else {
      if (line.includes('[SKIPPED]')) isSkipped = true;
      continue;
    }
    current = undefined;
  }
  return { passed, failed, skipped, output };
}

const unexpected = ({ failed }: SuiteOutcome, known = KNOWN_FAILURES) => failed.filter((name) => known[name] === undefined);

describe('libiscsi conformance, 512-byte blocks in memory', () => {
  it.each([
    ['GetLBAStatus', 2],
    ['Inquiry', 6],
    ['Mandatory', 1],
    ['ModeSense6', 2],
    ['Read6', 2],
    ['Read10', 5],
    ['Read12', 4],
    ['Read16', 4],
    ['ReadCapacity10', 1],
    ['ReadCapacity16', 3],
    ['ReportSupportedOpcodes', 3],
    ['Reserve6', 5],
    ['StartStopUnit', 2],
    ['TestUnitReady', 1],
    ['Unmap', 3],
    ['Verify10', 7],
    ['Verify12', 7],
    ['Verify16', 7],
    ['Write10', 4],
    ['Write12', 4],
    ['Write16', 4],
    ['WriteSame10', 6],
    ['WriteSame16', 5],
    ['WriteVerify10', 4],
    ['WriteVerify12', 4],
    ['WriteVerify16', 4],
    ['iSCSIResiduals', 4],
    ['iSCSITMF', 2],
    ['iSCSIcmdsn', 2],
    ['iSCSIdatasn', 0],
  ])('%s', async (suite, atLeast) => {
    const outcome = await runSuite(suite, MEMORY);
    expect(unexpected(outcome)).toEqual([]);
    expect(outcome.passed.length, `skipped: ${outcome.skipped.join(', ')}`).toBeGreaterThanOrEqual(atLeast);
  });

  it('MultipathIO.Simple over two sessions', async () => {
    const outcome = await runSuite('MultipathIO.Simple', MEMORY, 2);
    expect(outcome.failed).toEqual([]);
    expect(outcome.passed).toEqual(['MultipathIO.Simple']);
  });

  it('ReadOnly', async () => {
    const outcome = await runSuite('ReadOnly', READ_ONLY);
    expect(outcome.failed).toEqual([]);
    expect([...outcome.passed, ...outcome.skipped]).toEqual(['ReadOnly.ReadOnlySBC']);
    expect(outcome.output).not.toMatch(/not write-protected/);
  });
});

describe('libiscsi conformance, 4096-byte blocks', () => {
  it.each([
    'GetLBAStatus',
    'Read10',
    'Read16',
    'ReadCapacity16',
    'Unmap',
    'Verify16',
    'Write10',
    'Write16',
    'WriteSame10',
    'WriteSame16',
    'WriteVerify16',
  ])('%s', async (suite) => {
    const outcome = await runSuite(suite, MEMORY_4096);
    expect(unexpected(outcome, KNOWN_FAILURES_4096)).toEqual([]);
    expect(outcome.passed.length).toBeGreaterThan(0);
  });
});

describe('libiscsi conformance, a file', () => {
  it.each([
    'GetLBAStatus',
    'Read10',
    'Read16',
    'Unmap',
    'Verify10',
    'Write10',
    'Write16',
    'WriteSame10',
    'WriteSame16',
    'WriteVerify16',
  ])('%s', async (suite) => {
    const outcome = await runSuite(suite, FILE);
    expect(unexpected(outcome)).toEqual([]);
    expect(outcome.passed.length).toBeGreaterThan(0);
  });
});
