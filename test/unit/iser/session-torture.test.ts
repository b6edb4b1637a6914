/**
 * Random histories on a real session: several workers read, write and flush one logical unit through the block
 * cache, over each data mover, while the wire is cut, the target loses its power and commands are refused or sat
 * upon; all that is read, and what is on the medium in the end, is checked against a model. Each seed is one
 * history; TORTURE_SEEDS=100 runs more of them, TORTURE_FIRST_SEED=n begins elsewhere.
 */

import { describe, expect, it } from 'vitest';
import { SessionPort } from '../../support/session-port.ts';
import { type Scenario, TortureRun } from '../../support/torture-run.ts';
import type { VirtualClock } from '../../support/virtual-clock.ts';

const scenario: Scenario = {
  blockLength: 512,
  blocks: 128,
  volatileCache: true,
  dpoFua: true,
  retainedLimit: 256 * 1024,
  cacheBytes: 128 * 1024,
  faults: ['nexus-loss', 'nexus-loss', 'crash'],
  operations: 80,
};

const SEEDS = Number(process.env['TORTURE_SEEDS'] ?? 2);
/** Of one history, which takes a second or two: it may share the machine with much else. */
const HISTORY_TIMEOUT_MS = 20_000;

describe.each(['stream', 'iser'] as const)('a session over the %s data mover', (transport) => {
  it.each(seedsFrom(1))('keeps what it promises, seed %i', { timeout: HISTORY_TIMEOUT_MS }, async (seed) => {
    await live(seed, transport, scenario);
  });

  it.each(seedsFrom(1001))(
    'keeps what it promises where writes are staged and ranges punched, seed %i',
    { timeout: HISTORY_TIMEOUT_MS },
    async (seed) => {
      const { punches } = await live(seed, transport, { ...scenario, punches: true, staged: 32 * 1024 });
      expect(punches, `seed ${seed}: ranges that were punched`).toBeGreaterThan(0);
    },
  );
});

function seedsFrom(first: number): number[] {
  const begin = Number(process.env['TORTURE_FIRST_SEED'] ?? first);
  return Array.from({ length: SEEDS }, (_, index) => begin + index);
}

async function live(seed: number, transport: 'stream' | 'iser', scenario: Scenario): Promise<TortureRun> {
  const ports: { port: SessionPort; clock: VirtualClock }[] = [];
  const run = new TortureRun(scenario, seed, ({ clock, random }) => {
    const { blockLength, blocks, punches = false } = scenario;
    const latencyMs = () => random.fraction() * 4;
    const port = new SessionPort({ clock, random, blockLength, blocks, thin: punches, transport, latencyMs });
    ports.push({ port, clock });
    return port;
  });
  await run.complete();
  const [made] = ports;
  if (made === undefined) throw new Error('no port was made');
  const { port, clock } = made;
  expect(run.problems, `seed ${seed}`).toEqual([]);
  expect(run.flushes, `seed ${seed}: flushes that succeeded`).toBeGreaterThan(0);
  expect(run.reads, `seed ${seed}: reads that succeeded`).toBeGreaterThan(0);
  expect(port.transport).toBe(transport === 'iser' ? 'iwarp' : 'memory');
  expect(port.nexus, 'sessions, one after the other').toBeGreaterThan(1);
  const closing = port.close();
  await clock.advance(20_000);
  expect(await closing).toEqual({ connections: 0 });
  expect(clock.pendingTimers).toBe(0);
  return run;
}
