/**
 * The proof of I6 and I7: random overlapping reads, writes and flushes from several workers on a disk
 * that reorders, forgets and breaks off, checked against a model of what may be read at any moment and
 * of what must be on the medium after the power has gone. Each seed is one history; a failure names it.
 * TORTURE_SEEDS=100 runs more of them, TORTURE_FIRST_SEED=n begins elsewhere.
 */

import { describe, expect, it } from 'vitest';
import { ScriptedPort } from '../../support/scripted-port.ts';
import { ServerPort } from '../../support/server-port.ts';
import { type Fault, type MakePort, type Scenario, TortureRun } from '../../support/torture-run.ts';

const everyFault: readonly Fault[] = ['nexus-loss', 'nexus-loss', 'crash', 'reset'];

const scenarios: Record<string, Scenario> = {
  'a volatile cache': {
    blockLength: 512,
    blocks: 128,
    volatileCache: true,
    retainedLimit: 1024 * 1024,
    cacheBytes: 0,
    faults: everyFault,
    operations: 250,
  },
  'a volatile cache, FUA and few copies': {
    blockLength: 512,
    blocks: 256,
    volatileCache: true,
    dpoFua: true,
    retainedLimit: 40 * 1024,
    cacheBytes: 0,
    faults: everyFault,
    maximumTransferBlocks: 5,
    operations: 250,
  },
  'a volatile cache behind the block cache': {
    blockLength: 512,
    blocks: 640,
    volatileCache: true,
    retainedLimit: 1024 * 1024,
    cacheBytes: 256 * 1024,
    faults: everyFault,
    operations: 250,
  },
  'staged writes and a volatile cache behind the block cache': {
    blockLength: 512,
    blocks: 640,
    volatileCache: true,
    retainedLimit: 1024 * 1024,
    cacheBytes: 256 * 1024,
    staged: 64 * 1024,
    faults: everyFault,
    operations: 250,
  },
  'staged writes to a session that is given up, and no cache': {
    blockLength: 512,
    blocks: 128,
    volatileCache: true,
    retainedLimit: 1024 * 1024,
    cacheBytes: 0,
    staged: 1024 * 1024,
    faults: ['give-up', 'crash', 'nexus-loss'],
    operations: 200,
  },
  'staged writes without a volatile cache': {
    blockLength: 4096,
    blocks: 20,
    volatileCache: false,
    retainedLimit: 1024 * 1024,
    cacheBytes: 128 * 1024,
    staged: 32 * 1024,
    faults: ['nexus-loss'],
    operations: 250,
  },
  'no volatile cache and blocks of 4096 bytes': {
    blockLength: 4096,
    blocks: 20,
    volatileCache: false,
    retainedLimit: 1024 * 1024,
    cacheBytes: 128 * 1024,
    faults: ['nexus-loss'],
    operations: 250,
  },
  'a session that is given up and comes back': {
    blockLength: 512,
    blocks: 128,
    volatileCache: true,
    retainedLimit: 1024 * 1024,
    cacheBytes: 64 * 1024,
    faults: ['give-up', 'crash', 'nexus-loss'],
    operations: 200,
  },
  'a target without LOGICAL UNIT RESET': {
    blockLength: 512,
    blocks: 128,
    volatileCache: true,
    retainedLimit: 1024 * 1024,
    cacheBytes: 0,
    faults: ['nexus-loss', 'crash'],
    resets: 'unsupported',
    operations: 200,
  },
};

/** As above, and ranges are punched: whole blocks give their space back, the others become zeros. */
const punched: Record<string, Scenario> = {
  'a volatile cache': {
    blockLength: 512,
    blocks: 128,
    volatileCache: true,
    retainedLimit: 1024 * 1024,
    cacheBytes: 64 * 1024,
    faults: everyFault,
    punches: true,
    operations: 250,
  },
  'no volatile cache': {
    blockLength: 512,
    blocks: 128,
    volatileCache: false,
    retainedLimit: 1024 * 1024,
    cacheBytes: 64 * 1024,
    faults: ['nexus-loss'],
    punches: true,
    operations: 250,
  },
  'staged writes and a volatile cache': {
    blockLength: 512,
    blocks: 256,
    volatileCache: true,
    retainedLimit: 1024 * 1024,
    cacheBytes: 128 * 1024,
    staged: 64 * 1024,
    faults: everyFault,
    punches: true,
    operations: 250,
  },
  'staged writes without a volatile cache': {
    blockLength: 4096,
    blocks: 20,
    volatileCache: false,
    retainedLimit: 1024 * 1024,
    cacheBytes: 128 * 1024,
    staged: 32 * 1024,
    faults: ['nexus-loss'],
    punches: true,
    operations: 250,
  },
  'staged writes to a session that is given up, and no cache': {
    blockLength: 512,
    blocks: 128,
    volatileCache: true,
    retainedLimit: 40 * 1024,
    cacheBytes: 0,
    staged: 1024 * 1024,
    faults: ['give-up', 'crash', 'nexus-loss'],
    punches: true,
    operations: 300,
  },
};

const SEEDS_PER_SCENARIO = Number(process.env['TORTURE_SEEDS'] ?? 2);
/** Of one history, which takes less than a second: it may share the machine with much else. */
const HISTORY_TIMEOUT_MS = 20_000;

const scriptedDisk: MakePort = ({ scenario, clock, random }) =>
  new ScriptedPort({
    clock,
    random: () => random.fraction(),
    disk: {
      blockLength: scenario.blockLength,
      blocks: scenario.blocks,
      volatileCache: scenario.volatileCache,
      dpoFua: scenario.dpoFua ?? false,
      maximumTransferBlocks: scenario.maximumTransferBlocks ?? 0,
      thin: scenario.punches ?? false,
    },
    latencyMs: () => random.fraction() * 4,
    reconnectMs: () => 5 + random.fraction() * 60,
    lateMs: () => (random.fraction() < 0.7 ? random.fraction() * 300 : undefined),
    resets: scenario.resets ?? 'work',
  });

const ownTarget: MakePort = ({ scenario, clock, random }) =>
  new ServerPort({
    clock,
    random: () => random.fraction(),
    blockLength: scenario.blockLength,
    blocks: scenario.blocks,
    thin: scenario.punches ?? false,
    latencyMs: () => random.fraction() * 4,
    reconnectMs: () => 5 + random.fraction() * 60,
    lateMs: () => (random.fraction() < 0.7 ? random.fraction() * 300 : undefined),
  });

const ownTargetScenario: Scenario = {
  blockLength: 512,
  blocks: 128,
  volatileCache: true,
  dpoFua: true,
  retainedLimit: 256 * 1024,
  cacheBytes: 128 * 1024,
  faults: ['nexus-loss', 'crash'],
  operations: 250,
};

/** `name`, the disk, and what happens to it. */
type History = readonly [name: string, makePort: MakePort, scenario: Scenario];

const histories: readonly History[] = [
  ...Object.entries(scenarios).map(([name, scenario]): History => [name, scriptedDisk, scenario]),
  ['our own device server and its volatile cache', ownTarget, ownTargetScenario],
];

const punchedHistories: readonly History[] = [
  ...Object.entries(punched).map(([name, scenario]): History => [name, scriptedDisk, scenario]),
  ['our own device server and its volatile cache', ownTarget, { ...ownTargetScenario, punches: true, staged: 32 * 1024 }],
];

describe.each(histories)('with %s', (_name, makePort, scenario) => {
  it.each(seedsFrom(1))('keeps what it promises, seed %i', { timeout: HISTORY_TIMEOUT_MS }, async (seed) => {
    await live(seed, makePort, scenario);
  });
});

describe.each(punchedHistories)('with ranges that are punched, and %s', (_name, makePort, scenario) => {
  it.each(seedsFrom(1001))('keeps what it promises, seed %i', { timeout: HISTORY_TIMEOUT_MS }, async (seed) => {
    const { punches } = await live(seed, makePort, scenario);
    expect(punches, `seed ${seed}: ranges that were punched`).toBeGreaterThan(0);
  });
});

function seedsFrom(first: number): number[] {
  const begin = Number(process.env['TORTURE_FIRST_SEED'] ?? first);
  return Array.from({ length: SEEDS_PER_SCENARIO }, (_, index) => begin + index);
}

async function live(seed: number, makePort: MakePort, scenario: Scenario): Promise<TortureRun> {
  const run = new TortureRun(scenario, seed, makePort);
  await run.complete();
  expect(run.problems, `seed ${seed}`).toEqual([]);
  expect(run.flushes, `seed ${seed}: flushes that succeeded`).toBeGreaterThan(0);
  expect(run.reads, `seed ${seed}: reads that succeeded`).toBeGreaterThan(0);
  return run;
}
