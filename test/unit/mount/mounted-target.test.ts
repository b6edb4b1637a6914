import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createTcpTransport } from '../../../src/iser/datamover/tcp.ts';
import { LoginTurns } from '../../../src/mount/login-turns.ts';
import { MountedTarget } from '../../../src/mount/mounted-target.ts';
import { Transports } from '../../../src/mount/transports.ts';
import { BlockCache } from '../../../src/scsi/block-cache.ts';
import { BufferPool } from '../../../src/scsi/buffer-pool.ts';
import { MemoryMedium } from '../../../src/scsi/memory-medium.ts';
import { connectionSettings } from '../../support/connection-settings.ts';
import { EmbeddedTarget } from '../../support/embedded-target.ts';
import { freePort } from '../../support/ports.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

const NAME = 'iqn.2024-01.org.example:disk';
const RETRY_MS = 30_000;

const definition = () => ({
  name: NAME,
  units: [{ lun: 0, medium: new MemoryMedium(1 << 20), blockLength: 512, serial: '1', product: 'MEMORY DISK', readOnly: false }],
});

/** Deferred or not, and the LUNs, each time the tree was told. */
let told: string[];
let log: string[];
let clock: VirtualClock;
let mounted: MountedTarget;

function mountTarget(port: number, { isOnDemand }: { isOnDemand: boolean }): MountedTarget {
  const settings = connectionSettings({ transport: 'tcp' });
  const pool = new BufferPool();
  return new MountedTarget(
    { name: NAME, portals: [{ host: '127.0.0.1', port }] },
    {
      settings,
      initiatorName: 'iqn.2024-01.org.example:host',
      transports: new Transports(settings.options),
      pool,
      cache: new BlockCache({ pool, bytes: 0, readahead: 0 }),
      retainedLimit: undefined,
      clock,
      log: (line) => log.push(line),
      turns: new LoginTurns({ clock }),
      isOnDemand,
      outdated: () => {},
      changed: (target) =>
        told.push(`${target.isDeferred ? 'deferred' : 'known'} ${target.luns.map(({ label }) => label).join()}`),
    },
  );
}

beforeEach(() => {
  told = [];
  log = [];
  clock = new VirtualClock();
});

afterEach(() => mounted.close());

describe('a target on demand', () => {
  it('has no session and waits to be looked into', async () => {
    await using target = await EmbeddedTarget.start([definition()]);
    mounted = mountTarget(target.endpoint.port, { isOnDemand: true });
    expect(mounted.isDeferred).toBe(true);
    expect(mounted.snapshot()).toMatchObject({ state: 'not-connected', problem: undefined, session: undefined, luns: [] });
    expect(mounted.failures).toEqual([]);
    expect(target.target.sessions).toEqual([]);
  });

  it('has one session for all who look at the same time, and its units are told before they go on', async () => {
    await using target = await EmbeddedTarget.start([definition()]);
    mounted = mountTarget(target.endpoint.port, { isOnDemand: true });
    await Promise.all([mounted.begin(), mounted.begin(), mounted.begin()]);
    expect(target.target.sessions).toHaveLength(1);
    expect(told.at(-1)).toBe('known 0');
    // Whoever looks while the units are still being found waits too.
    expect(told.slice(0, -1).every((line) => line.startsWith('deferred'))).toBe(true);
    await mounted.begin();
    expect(target.target.sessions).toHaveLength(1);
    await mounted.close();
  });

  it('that cannot be reached says why, is left alone for a while, and is tried again at a later look', async () => {
    const port = await freePort();
    mounted = mountTarget(port, { isOnDemand: true });
    await mounted.begin();
    expect(mounted.snapshot()).toMatchObject({
      state: 'unavailable',
      problem: { text: expect.stringContaining('connection refused'), hint: expect.stringContaining('running') },
    });
    expect(told).toEqual(['known ']);
    expect(log).toHaveLength(1);
    await mounted.begin();
    await clock.advance(RETRY_MS - 1);
    await mounted.begin();
    expect([told, log]).toEqual([['known '], log.slice(0, 1)]);
    await clock.advance(1);
    expect(told).toEqual(['known ', 'deferred ']);
    expect(mounted.snapshot().state).toBe('unavailable');
    await using target = await EmbeddedTarget.start([definition()], {
      portals: [{ endpoint: { host: '127.0.0.1', port }, transport: createTcpTransport() }],
    });
    // Time alone begins no session.
    await clock.advance(10 * RETRY_MS);
    expect(target.target.sessions).toEqual([]);
    await mounted.begin();
    expect(told.at(-1)).toBe('known 0');
    expect(mounted.snapshot().state).toBe('logged-in');
    await mounted.close();
  });

  it('begins no session when it is closed already', async () => {
    await using target = await EmbeddedTarget.start([definition()]);
    mounted = mountTarget(target.endpoint.port, { isOnDemand: true });
    await mounted.close();
    await mounted.begin();
    expect(target.target.sessions).toEqual([]);
    expect(told).toEqual([]);
  });
});

describe('a target of a mount that logs in at once', () => {
  it('that cannot be reached is tried again by itself', async () => {
    const port = await freePort();
    mounted = mountTarget(port, { isOnDemand: false });
    expect(mounted.isDeferred).toBe(false);
    await mounted.begin();
    expect(mounted.snapshot().state).toBe('unavailable');
    await using target = await EmbeddedTarget.start([definition()], {
      portals: [{ endpoint: { host: '127.0.0.1', port }, transport: createTcpTransport() }],
    });
    await clock.advance(RETRY_MS);
    await expect.poll(() => told.at(-1)).toBe('known 0');
    expect(target.target.sessions).toHaveLength(1);
    await mounted.close();
  });

  it('is given up when the mount is', async () => {
    mounted = mountTarget(await freePort(), { isOnDemand: false });
    await mounted.begin(AbortSignal.abort(new Error('interrupted')));
    expect(mounted.snapshot()).toMatchObject({
      state: 'unavailable',
      problem: { text: expect.stringContaining('no login in time') },
    });
  });
});
