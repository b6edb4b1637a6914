/** Transports as `--transport` names them, against a target whose iSER is RDMA inside this process and whose TCP is loopback. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../../src/clock.ts';
import { mergeOptions, type SomeOptions } from '../../../src/config/options.ts';
import type { ConnectionSettings } from '../../../src/config/settings.ts';
import { describeError, errorCode, IserfsError } from '../../../src/errors.ts';
import { openConnection } from '../../../src/iser/connection.ts';
import { createIserTransport } from '../../../src/iser/datamover/iser.ts';
import { createTcpTransport } from '../../../src/iser/datamover/tcp.ts';
import { formatPortal, type Portal } from '../../../src/iser/iscsi/name.ts';
import { createMemoryProviders, type MemoryProviders } from '../../../src/iser/rdma/memory.ts';
import { IscsiTarget, type TargetPortal } from '../../../src/iser/target.ts';
import { lockableOf } from '../../../src/mount/locked-memory.ts';
import type { Rdma } from '../../../src/mount/rdma.ts';
import { connectionOptions } from '../../../src/mount/sessions.ts';
import { planTargets } from '../../../src/mount/target-plan.ts';
import { Transports } from '../../../src/mount/transports.ts';
import { BlockDeviceServer } from '../../../src/scsi/device-server.ts';
import { MemoryMedium } from '../../../src/scsi/memory-medium.ts';
import { connectionSettings } from '../../support/connection-settings.ts';

const DISKS = 'iqn.2024-01.org.example:disks';
const OTHERS = 'iqn.2024-01.org.example:others';
const ANYWHERE = { host: '127.0.0.1', port: 0 };
const NEVER = new AbortController().signal;
const NO_DEVICE = 'there is no RDMA device';

type Name = 'iwarp' | 'verbs';

let providers: MemoryProviders;
let targets: IscsiTarget[];
let lines: string[];
beforeEach(() => {
  providers = createMemoryProviders();
  targets = [];
  lines = [];
});
afterEach(async () => {
  for (const target of targets) await target.close('abrupt');
});

const tcp = (): TargetPortal => ({ endpoint: ANYWHERE, transport: createTcpTransport() });
const iser = (port = 0): TargetPortal => ({ endpoint: { ...ANYWHERE, port }, transport: createIserTransport(providers.target) });

/** A target of that name at `portals`, and where these are. */
async function offer(name: string, ...portals: TargetPortal[]): Promise<Portal[]> {
  const unit = { lun: 0, medium: new MemoryMedium(1024 * 1024), blockLength: 512, serial: name.slice(-8) };
  const target = await IscsiTarget.listen({
    portals,
    targets: [{ name, deviceServer: new BlockDeviceServer({ units: [unit] }) }],
  });
  targets.push(target);
  return target.portals.map(({ endpoint }) => endpoint);
}

type Machine = Rdma & { readonly asked: { name: Name; crc: boolean }[] };

/** A machine with these transports beside TCP. */
function machine(...names: Name[]): Machine {
  return machineLocking(Number.POSITIVE_INFINITY, ...names);
}

function machineLocking(lockableBytes: number, ...names: Name[]): Machine {
  const asked: { name: Name; crc: boolean }[] = [];
  return {
    asked,
    isAvailable: names.length > 0,
    hasDevice: names.includes('verbs'),
    lockableBytes,
    memory: () => providers.initiator.memory,
    transport: (name, { crc }) => {
      asked.push({ name, crc });
      if (names.includes(name)) return createIserTransport({ ...providers.initiator, name });
      throw new IserfsError('unsupported', name === 'verbs' ? NO_DEVICE : 'the RDMA addon is not built');
    },
  };
}

function transportsOf(options: SomeOptions, rdma: Rdma): Transports {
  return new Transports(mergeOptions(options), { log: (line) => lines.push(line), rdma });
}

function settingsOf(options: SomeOptions, discover: readonly Portal[] = []): ConnectionSettings {
  return { ...connectionSettings({ 'login-timeout': 1000, ...options }), discover };
}

/** Logs in to `targetName` and out again; resolves with what carried it, and what the status would say. */
async function login(
  options: SomeOptions,
  rdma: Rdma,
  portal: Portal,
  targetName = DISKS,
  transports = transportsOf(options, rdma),
) {
  const transport = transports.forLogin();
  const ways = { initiatorName: 'iqn.2024-01.org.example:host', transport, chap: undefined, clock: systemClock };
  const how = { sessionType: 'normal', targetName, timeoutMs: 1000 } as const;
  const { datamover } = await openConnection(connectionOptions(settingsOf(options), ways), portal, how);
  await datamover.terminate('abrupt');
  return { transport: datamover.transport, fallback: transport.fallbackReason };
}

describe('--transport auto', () => {
  it('takes verbs where a device leads to the portal', async () => {
    const [portal, { port: iserPort } = ANYWHERE] = await offer(DISKS, tcp(), iser());
    expect(await login({}, machine('verbs', 'iwarp'), { ...(portal as Portal), iserPort })).toEqual({
      transport: 'verbs',
      fallback: undefined,
    });
    expect(lines).toEqual([]);
  });

  it('falls back to TCP, never to software, and says so once for each portal', async () => {
    const rdma = machine('verbs', 'iwarp');
    const transports = transportsOf({}, rdma);
    const [portal = ANYWHERE] = await offer(DISKS, tcp());
    const [other = ANYWHERE] = await offer(OTHERS, tcp());
    for (let round = 0; round < 3; round++) {
      const { transport, fallback } = await login({}, rdma, portal, DISKS, transports);
      expect(transport).toBe('tcp');
      expect(fallback).toMatch(/^verbs: .*connection refused$/);
    }
    await login({}, rdma, other, OTHERS, transports);
    expect(lines).toEqual([
      expect.stringMatching(new RegExp(`^${formatPortal(portal)} is reached by tcp \\(verbs: .*connection refused\\)$`)),
      expect.stringMatching(new RegExp(`^${formatPortal(other)} is reached by tcp `)),
    ]);
  });

  it('falls back where the portal takes the connection and not the login: its iSER targets are others', async () => {
    const [portal = ANYWHERE] = await offer(DISKS, tcp());
    await offer(OTHERS, iser(portal.port));
    const { transport, fallback } = await login({}, machine('verbs'), portal);
    expect(transport).toBe('tcp');
    expect(fallback).toMatch(/target not found/);
  });

  it('says on a machine without RDMA one line for all portals', async () => {
    const rdma = machine();
    const transports = transportsOf({}, rdma);
    const [portal = ANYWHERE] = await offer(DISKS, tcp());
    const [other = ANYWHERE] = await offer(OTHERS, tcp());
    expect(await login({}, rdma, portal, DISKS, transports)).toEqual({ transport: 'tcp', fallback: `verbs: ${NO_DEVICE}` });
    await login({}, rdma, other, OTHERS, transports);
    expect(lines).toEqual([`data travels by tcp (verbs: ${NO_DEVICE})`]);
  });

  it('does not speak of RDMA where a machine without it cannot reach the target', async () => {
    const error = await login({}, machine(), { ...ANYWHERE, port: 1 }).catch((reason: unknown) => reason);
    expect(errorCode(error)).toBe('unreachable');
    expect(describeError(error)).not.toContain('verbs');
  });

  it('stays with TCP where digests are required', async () => {
    const [portal = ANYWHERE] = await offer(DISKS, tcp());
    const rdma = machine('verbs');
    // The target of this test agrees to no digest; what matters is which transport was asked.
    await login({ 'header-digest': 'require' }, rdma, portal).catch(() => {});
    expect(rdma.asked).toEqual([]);
    expect(transportsOf({ 'header-digest': 'require' }, rdma).mayUseRdma).toBe(false);
  });
});

describe('a transport by name', () => {
  it('iser is verbs', async () => {
    const [portal = ANYWHERE] = await offer(DISKS, iser());
    expect(await login({ transport: 'iser' }, machine('verbs', 'iwarp'), portal)).toMatchObject({ transport: 'verbs' });
  });

  it('iser is iwarp where there is no device', async () => {
    const [portal = ANYWHERE] = await offer(DISKS, iser());
    expect(await login({ transport: 'iser' }, machine('iwarp'), portal)).toEqual({
      transport: 'iwarp',
      fallback: `verbs: ${NO_DEVICE}`,
    });
  });

  it.each(['iser', 'iwarp', 'verbs'] as const)('%s never becomes TCP', async (transport) => {
    const [portal = ANYWHERE] = await offer(DISKS, tcp());
    await expect(login({ transport }, machine('verbs', 'iwarp'), portal)).rejects.toMatchObject({
      code: 'unreachable',
      hint: 'Another port for iSER is named by --iser-port; --transport tcp does without RDMA.',
    });
  });

  it('verbs without a device says what to do', async () => {
    const error = await login({ transport: 'verbs' }, machine('iwarp'), ANYWHERE).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'unsupported', hint: expect.stringContaining('--transport iwarp') });
    expect(describeError(error)).toContain(NO_DEVICE);
  });

  it('tcp asks for no RDMA', async () => {
    const rdma = machine('verbs', 'iwarp');
    const [portal = ANYWHERE] = await offer(DISKS, tcp());
    expect(await login({ transport: 'tcp' }, rdma, portal)).toEqual({ transport: 'tcp', fallback: undefined });
    expect(rdma.asked).toEqual([]);
  });

  it.each(['iser', 'iwarp', 'verbs'] as const)('%s and required digests exclude each other', (transport) => {
    expect(() => transportsOf({ transport, 'data-digest': 'require' }, machine())).toThrow(
      expect.objectContaining({
        name: 'UsageError',
        message: `--data-digest require cannot be had with --transport ${transport}`,
      }),
    );
  });

  it('leaves digests out that are only preferred', async () => {
    const [portal = ANYWHERE] = await offer(DISKS, iser());
    expect(await login({ transport: 'iwarp', 'header-digest': 'prefer' }, machine('iwarp'), portal)).toMatchObject({
      transport: 'iwarp',
    });
  });

  it.each([
    ['on', true],
    ['off', false],
  ] as const)('iwarp with its CRC %s', async (crc, asked) => {
    const rdma = machine('iwarp');
    const [portal = ANYWHERE] = await offer(DISKS, iser());
    await login({ transport: 'iwarp', 'iwarp-crc': crc }, rdma, portal);
    expect(rdma.asked).toEqual([{ name: 'iwarp', crc: asked }]);
  });
});

describe('discovery', () => {
  const plan = (options: SomeOptions, rdma: Rdma, portal: Portal) =>
    planTargets(settingsOf(options, [portal]), {
      initiatorName: 'iqn.2024-01.org.example:host',
      transports: transportsOf(options, rdma),
      signal: NEVER,
    });

  it('goes over TCP, and the sessions then to the port of iSER', async () => {
    const [portal = ANYWHERE, { port: iserPort } = ANYWHERE] = await offer(DISKS, tcp(), iser());
    const rdma = machine('iwarp');
    const { targets: planned } = await plan({ transport: 'iwarp' }, rdma, { ...portal, iserPort });
    expect(planned.map(({ name }) => name)).toEqual([DISKS]);
    const [first = ANYWHERE] = planned[0]?.portals ?? [];
    expect(first).toEqual({ ...portal, tpgt: 1, iserPort });
    expect(await login({ transport: 'iwarp' }, rdma, first)).toMatchObject({ transport: 'iwarp' });
  });

  it.each(['auto', 'iser', 'iwarp', 'verbs'] as const)('goes over iSER with %s where TCP is refused', async (transport) => {
    const [portal = ANYWHERE] = await offer(DISKS, iser());
    const rdma = machine('verbs', 'iwarp');
    const { targets: planned } = await plan({ transport }, rdma, portal);
    expect(planned).toEqual([{ name: DISKS, portals: [{ ...portal, tpgt: 1 }] }]);
  });

  it('goes over iSER at its own port behind address translation, and sessions can too', async () => {
    const [{ port: iserPort } = ANYWHERE] = await offer(DISKS, iser());
    const asked = { host: '127.0.0.1', port: 1, iserPort };
    const { targets: planned } = await plan({ transport: 'iwarp' }, machine('iwarp'), asked);
    expect(planned[0]?.portals).toEqual([{ host: '127.0.0.1', port: iserPort, tpgt: 1 }, asked]);
  });

  it('does not with tcp', async () => {
    const [portal = ANYWHERE] = await offer(DISKS, iser());
    await expect(plan({ transport: 'tcp' }, machine('verbs', 'iwarp'), portal)).rejects.toMatchObject({ code: 'unreachable' });
  });

  it('names both reasons where neither works', async () => {
    const error = await plan({ transport: 'iwarp' }, machine('iwarp'), { ...ANYWHERE, port: 1 }).catch(
      (reason: unknown) => reason,
    );
    expect(describeError(error)).toMatch(/connection refused.*by iwarp; tcp: .*connection refused/);
  });
});

describe('memory for data', () => {
  it.each([
    ['auto', [], false],
    ['auto', ['iwarp'], false],
    ['auto', ['verbs', 'iwarp'], true],
    ['verbs', ['verbs'], true],
    ['iser', ['iwarp'], true],
    ['iwarp', ['iwarp'], true],
    ['iwarp', [], false],
    ['tcp', ['verbs', 'iwarp'], false],
  ] as const)('with %s and %j is registered: %s', (transport, names, isRegistered) => {
    const transports = transportsOf({ transport }, machine(...names));
    expect(transports.mayUseRdma).toBe(isRegistered);
    expect(transports.memory).toBe(names.length > 0 ? providers.initiator.memory : undefined);
  });
});

describe('memory that may be locked', () => {
  const MiB = 1024 * 1024;

  it.each([
    ['all of it', Number.POSITIVE_INFINITY, 'auto', 64 * MiB],
    ['enough', 512 * MiB, 'auto', 64 * MiB],
    ['little', 86 * MiB, 'verbs', 20 * MiB],
    ['little, for software', 8 * MiB, 'iwarp', 64 * MiB],
    ['too little for a device to be tried', 8 * MiB, 'auto', 64 * MiB],
  ] as const)('being %s, bounds the cache and says so', (_what, lockable, transport, cacheBytes) => {
    const transports = transportsOf({ transport }, machineLocking(lockable, 'verbs', 'iwarp'));
    expect(transports.memoryBounds(64 * MiB).cacheBytes).toBe(cacheBytes);
    expect(lines).toHaveLength(cacheBytes < 64 * MiB ? 1 : 0);
  });

  it('being too little, leaves a device out, with what to do', async () => {
    const [portal = ANYWHERE] = await offer(DISKS, tcp());
    const rdma = machineLocking(8 * MiB, 'verbs', 'iwarp');
    expect(transportsOf({}, rdma).mayUseRdma).toBe(false);
    expect(await login({}, rdma, portal)).toEqual({
      transport: 'tcp',
      fallback: 'verbs: this process may lock 8 MiB of memory, and RDMA needs 64 MiB',
    });
    await expect(login({ transport: 'verbs' }, rdma, portal)).rejects.toMatchObject({
      code: 'unsupported',
      hint: expect.stringContaining('ulimit -l'),
    });
  });

  it.each([
    ['8192', '0000000000000000', 8192],
    ['8192', '000001ffffffffff', Number.POSITIVE_INFINITY],
    ['unlimited', '0000000000000000', Number.POSITIVE_INFINITY],
  ])('is %s with capabilities %s: %d', (soft, capabilities, bytes) => {
    // As proc(5) has it: Linux 6.1.
    const limits = `Limit                     Soft Limit           Hard Limit           Units     \nMax locked memory         ${soft.padEnd(21)}unlimited            bytes     \n`;
    expect(lockableOf(limits, `Name:\tnode\nCapEff:\t${capabilities}\nCapBnd:\t000001ffffffffff\n`)).toBe(bytes);
  });
});
