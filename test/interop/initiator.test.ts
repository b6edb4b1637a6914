/**
 * The initiator against a real tgtd over TCP, step by step: discovery, connection, session, their binding by the login,
 * negotiation, the full-feature phase, INQUIRY; then data in both directions and the loss of the target.
 */

import { randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import type { ConnectionOptions } from '../../src/iser/connection.ts';
import type { StreamOptions } from '../../src/iser/datamover/stream-options.ts';
import { createTcpTransport } from '../../src/iser/datamover/tcp.ts';
import { discoverTargets } from '../../src/iser/discovery.ts';
import { Initiator, type InitiatorOptions } from '../../src/iser/initiator.ts';
import type { ChapOptions } from '../../src/iser/iscsi/login.ts';
import { makeIsid } from '../../src/iser/iscsi/name.ts';
import { inquiryCdb, readCapacity16Cdb, readCdb, testUnitReadyCdb, writeCdb } from '../../src/scsi/cdb.ts';
import { execute } from '../../src/scsi/execute.ts';
import { decodeStandardInquiry } from '../../src/scsi/inquiry.ts';
import { lunFromNumber } from '../../src/scsi/lun.ts';
import type { PortEvent } from '../../src/scsi/port.ts';
import { assertSameBytes, offsetPattern } from '../support/pattern.ts';
import { Tgtd, type TgtdTarget } from '../support/tgtd.ts';
import { MiB } from '../support/workdir.ts';

const LUN = lunFromNumber(1);
const SECRET = { user: 'reader', secret: 'a-secret-of-16-b' };
const MUTUAL = { user: 'the-target', secret: 'another-secret-16' };

let tgtd: Tgtd;
beforeEach(async () => {
  tgtd = await Tgtd.start();
});
afterEach(async () => {
  await tgtd[Symbol.asyncDispose]();
});

function connection(options: { chap?: ChapOptions; stream?: Partial<StreamOptions> } = {}): ConnectionOptions {
  return {
    initiatorName: 'iqn.2026-01.io.iserfs.test:initiator',
    isid: makeIsid(randomBytes(6)),
    transport: createTcpTransport(options.stream ?? {}),
    ...(options.chap === undefined ? {} : { chap: options.chap }),
    loginTimeoutMs: 5000,
    clock: systemClock,
    random: (length) => randomBytes(length),
  };
}

function initiatorOptions(
  target: TgtdTarget,
  options: { chap?: ChapOptions; stream?: Partial<StreamOptions> } & Partial<InitiatorOptions> = {},
): InitiatorOptions {
  const { chap, stream, ...others } = options;
  return {
    ...connection({ ...(chap === undefined ? {} : { chap }), ...(stream === undefined ? {} : { stream }) }),
    targetName: target.name,
    portals: [{ host: '127.0.0.1', port: tgtd.port }],
    commandTimeoutMs: 5000,
    recoveryTimeoutMs: 20_000,
    keepaliveIntervalMs: 5000,
    keepaliveTimeoutMs: 5000,
    maxCommands: 128,
    log: () => {},
    ...others,
  };
}

const credentials = ({ user, secret }: { user: string; secret: string }) => ({ user, secret: Buffer.from(secret) });

/** tgtd reports a unit attention at every login: takes it, so that the next command is executed. */
async function takeUnitAttention(initiator: Initiator): Promise<void> {
  const first = await execute(initiator, { lun: LUN, cdb: testUnitReadyCdb(), nexus: await initiator.established() });
  expect(first).toMatchObject({ status: 2 });
  expect([...first.sense.subarray(2, 3), ...first.sense.subarray(12, 14)]).toEqual([6, 0x29, 0]);
}

async function readBlocks(initiator: Initiator, lba: number, blocks: number): Promise<Uint8Array> {
  const dataIn = new Uint8Array(blocks * 512);
  const result = await execute(initiator, {
    lun: LUN,
    cdb: readCdb({ lba, blocks, size: 16 }),
    dataIn,
    nexus: await initiator.established(),
  });
  expect(result).toMatchObject({ status: 0, transferred: dataIn.length });
  return dataIn;
}

async function writeBlocks(initiator: Initiator, lba: number, dataOut: Uint8Array): Promise<void> {
  const cdb = writeCdb({ lba, blocks: dataOut.length / 512, size: 16 });
  const result = await execute(initiator, { lun: LUN, cdb, dataOut, nexus: await initiator.established() });
  expect(result).toMatchObject({ status: 0 });
}

describe('the eight steps', () => {
  it('discovers targets over TCP', async () => {
    const names: string[] = [];
    for (let count = 0; count < 40; count++) names.push((await tgtd.addTarget()).name);
    const found = await discoverTargets(connection(), { host: '127.0.0.1', port: tgtd.port });
    expect(found.targets.map(({ name }) => name).sort()).toEqual(names.sort());
    expect(found.targets[0]?.portals).toEqual([{ host: '127.0.0.1', port: tgtd.port, tpgt: 1 }]);
    expect(found.oddities).toEqual([]);
  });

  it('connects, logs in to a session that binds the connection, negotiates, and asks INQUIRY', async () => {
    const target = await tgtd.addTarget({ luns: [{ size: 16 * MiB }] });
    const options = initiatorOptions(target);
    const initiator = await Initiator.connect(options);
    const { status } = initiator;
    expect(status).toMatchObject({
      state: 'logged-in',
      transport: 'tcp',
      portal: tgtd.portal,
      isid: options.isid.toString(16).padStart(12, '0'),
      portalGroupTag: 1,
      reconnects: 0,
    });
    expect(status.tsih).toBeGreaterThan(0);
    expect(status.keys).toMatchObject({ HeaderDigest: 'None', DataDigest: 'None', ErrorRecoveryLevel: '0' });
    expect(await tgtd.sessions(target)).toMatchObject([{ initiator: options.initiatorName, cids: [0] }]);

    await takeUnitAttention(initiator);
    const dataIn = new Uint8Array(96);
    const inquiry = await execute(initiator, {
      lun: LUN,
      cdb: inquiryCdb({ length: dataIn.length }),
      dataIn,
      nexus: await initiator.established(),
    });
    expect(inquiry.status).toBe(0);
    expect(decodeStandardInquiry(dataIn)).toMatchObject({ vendor: 'IET', product: 'VIRTUAL-DISK', deviceType: 0 });

    await initiator.logout();
    expect(await tgtd.sessions(target)).toEqual([]);
    expect(initiator.status.state).toBe('closed');
  });

  it('gets less than it asked for, and says how much', async () => {
    const target = await tgtd.addTarget({ luns: [{ size: 16 * MiB }] });
    const initiator = await Initiator.connect(initiatorOptions(target));
    await takeUnitAttention(initiator);
    const dataIn = new Uint8Array(4096).fill(0xee);
    const nexus = await initiator.established();
    const result = await execute(initiator, { lun: LUN, cdb: readCapacity16Cdb({ length: 4096 }), dataIn, nexus });
    expect(result.status).toBe(0);
    expect(result.transferred).toBeLessThan(4096);
    expect(result.transferred).toBeGreaterThanOrEqual(12);
    await initiator.logout();
  });
});

describe('CHAP', () => {
  it('logs in with the right secret, both ways', async () => {
    const target = await tgtd.addTarget({ luns: [{ size: MiB }], chap: { ...SECRET, mutual: MUTUAL } });
    const chap = { credentials: credentials(SECRET), mutual: credentials(MUTUAL) };
    const initiator = await Initiator.connect(initiatorOptions(target, { chap }));
    expect(initiator.status.state).toBe('logged-in');
    await initiator.logout();
  });

  it.each([
    ['a wrong secret', { credentials: credentials({ ...SECRET, secret: 'not-the-secret--' }) }],
    ['an unknown user', { credentials: credentials({ ...SECRET, user: 'nobody' }) }],
    ['no credentials', undefined],
  ])('refuses %s with a line that names portal and target and no secret', async (_what, chap) => {
    const target = await tgtd.addTarget({ luns: [{ size: MiB }], chap: SECRET });
    const failed = Initiator.connect(initiatorOptions(target, chap === undefined ? {} : { chap }));
    const error = await failed.then(
      () => undefined,
      (reason: Error) => reason,
    );
    expect(error).toMatchObject({ code: 'authentication-failed' });
    expect(error?.message).toContain(target.name);
    expect(error?.message).toContain(tgtd.portal);
    expect(error?.message).not.toMatch(/secret-of|not-the-secret/);
  });

  it('refuses a target that cannot prove itself', async () => {
    const target = await tgtd.addTarget({ luns: [{ size: MiB }], chap: { ...SECRET, mutual: MUTUAL } });
    const chap = { credentials: credentials(SECRET), mutual: credentials({ ...MUTUAL, secret: 'we-expect-another' }) };
    await expect(Initiator.connect(initiatorOptions(target, { chap }))).rejects.toMatchObject({ code: 'authentication-failed' });
  });
});

describe('data', () => {
  it.each<[string, Partial<StreamOptions>, Record<string, string>]>([
    ['without digests, as tgtd comes', {}, {}],
    [
      'with header and data digests',
      { headerDigest: 'require', dataDigest: 'require' },
      { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' },
    ],
    ['with large segments', { maxRecvDataSegmentLength: 1_048_576 }, { MaxRecvDataSegmentLength: '262144' }],
    ['with R2T for everything', {}, { ImmediateData: 'No', InitialR2T: 'Yes' }],
    ['with immediate and unsolicited data', {}, { ImmediateData: 'Yes', InitialR2T: 'No', FirstBurstLength: '65536' }],
    ['with small bursts', {}, { MaxBurstLength: '8192', FirstBurstLength: '4096', MaxRecvDataSegmentLength: '2048' }],
  ])('goes both ways %s', async (_name, stream, keys) => {
    const target = await tgtd.addTarget({ luns: [{ size: 64 * MiB }], keys });
    const path = target.luns[0]?.path ?? '';
    const initiator = await Initiator.connect(initiatorOptions(target, { stream }));
    await takeUnitAttention(initiator);
    const sizes = [1, 7, 8, 16, 127, 128, 129, 1024, 2048];
    // All in flight at once, on ranges of their own.
    await Promise.all(
      sizes.map((blocks, index) => writeBlocks(initiator, index * 4096, offsetPattern(index * MiB, blocks * 512))),
    );
    const backing = await open(path);
    try {
      await Promise.all(
        sizes.map(async (blocks, index) => {
          const expected = offsetPattern(index * MiB, blocks * 512);
          const { buffer } = await backing.read(new Uint8Array(expected.length), 0, expected.length, index * 4096 * 512);
          assertSameBytes(buffer, expected);
          assertSameBytes(await readBlocks(initiator, index * 4096, blocks), expected);
        }),
      );
    } finally {
      await backing.close();
    }
    await initiator.logout();
  });
});

describe('loss of the target', () => {
  it('logs in again with the same ISID when the target comes back, and never re-issues by itself', async () => {
    const target = await tgtd.addTarget({ luns: [{ size: 16 * MiB }] });
    const initiator = await Initiator.connect(initiatorOptions(target));
    const events: PortEvent['type'][] = [];
    initiator.subscribe(({ type }) => events.push(type));
    await takeUnitAttention(initiator);
    const nexus = await initiator.established();
    tgtd.stall();
    const interrupted = execute(initiator, { lun: LUN, cdb: testUnitReadyCdb(), nexus });
    interrupted.catch(() => {});
    await tgtd.kill();
    await expect(interrupted).rejects.toMatchObject({ code: 'connection-lost', mayHaveExecuted: true });
    expect(initiator.nexus).toBeUndefined();
    await tgtd.restart();
    expect(await initiator.established()).toBe(nexus + 1);
    await expect(execute(initiator, { lun: LUN, cdb: testUnitReadyCdb(), nexus })).rejects.toMatchObject({
      mayHaveExecuted: false,
    });
    await takeUnitAttention(initiator);
    expect(events).toEqual(['nexus-lost', 'nexus-established']);
    expect(initiator.status).toMatchObject({ state: 'logged-in', reconnects: 1 });
    await initiator.logout();
  });

  it('notices a target that has gone silent, and gives up after the recovery time-out', async () => {
    const target = await tgtd.addTarget({ luns: [{ size: 16 * MiB }] });
    const initiator = await Initiator.connect(
      initiatorOptions(target, {
        keepaliveIntervalMs: 300,
        keepaliveTimeoutMs: 300,
        recoveryTimeoutMs: 1500,
        loginTimeoutMs: 500,
      }),
    );
    const failed = new Promise<Error>((resolve) => {
      initiator.subscribe((event) => {
        if (event.type === 'failed') resolve(event.reason);
      });
    });
    tgtd.stall();
    const reason = await failed;
    expect(reason).toMatchObject({ code: 'recovery-timeout' });
    expect(reason.message).toContain(tgtd.portal);
    await expect(initiator.established()).rejects.toBe(reason);
    await initiator.logout();
  });

  it('aborts a command that takes too long, and the session goes on', async () => {
    const target = await tgtd.addTarget({ luns: [{ size: 16 * MiB }] });
    const initiator = await Initiator.connect(initiatorOptions(target));
    await takeUnitAttention(initiator);
    const nexus = await initiator.established();
    tgtd.stall();
    const slow = execute(initiator, { lun: LUN, cdb: testUnitReadyCdb(), nexus, timeoutMs: 300 });
    slow.catch(() => {});
    setTimeout(() => tgtd.resume(), 800);
    // The stalled target executes the command as it wakes up, before it sees the abort.
    await expect(slow).resolves.toMatchObject({ status: 0 });
    await expect(execute(initiator, { lun: LUN, cdb: testUnitReadyCdb(), nexus })).resolves.toMatchObject({ status: 0 });
    await initiator.logout();
  });

  it('resets a logical unit', async () => {
    const target = await tgtd.addTarget({ luns: [{ size: 16 * MiB }] });
    const initiator = await Initiator.connect(initiatorOptions(target));
    await takeUnitAttention(initiator);
    await initiator.resetLogicalUnit(LUN, await initiator.established());
    await initiator.logout();
  });
});

it('says why a portal cannot be reached', async () => {
  const target = await tgtd.addTarget();
  await tgtd.kill();
  const failed = Initiator.connect(initiatorOptions(target));
  await expect(failed).rejects.toMatchObject({ code: 'unreachable', message: expect.stringContaining('refused') });
});

it('says that there is no such target', async () => {
  const target = { ...(await tgtd.addTarget()), name: 'iqn.2026-01.io.iserfs.test:nowhere' };
  await expect(Initiator.connect(initiatorOptions(target))).rejects.toMatchObject({ code: 'target-not-found' });
});
