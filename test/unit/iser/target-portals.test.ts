/** One target at portals of two transports at once. */

import { describe, expect, it } from 'vitest';
import type { TargetTransport } from '../../../src/iser/datamover/datamover.ts';
import { RESERVED_TAG } from '../../../src/iser/iscsi/pdu.ts';
import { decodeText } from '../../../src/iser/iscsi/text.ts';
import { IscsiTarget, type TargetPortal } from '../../../src/iser/target.ts';
import { type HandConnection, HandDrivenTransport } from '../../support/hand-driven-transport.ts';
import { ScriptedDeviceServer } from '../../support/scripted-device-server.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

const DISK = 'iqn.2026-01.org.iserfs:disk';

async function startTarget(options: { readonly more?: readonly TargetPortal[] } = {}) {
  const tcp = new HandDrivenTransport();
  const iser = new HandDrivenTransport('iwarp');
  const server = new ScriptedDeviceServer();
  const listening = IscsiTarget.listen({
    portals: [
      { endpoint: { host: '0.0.0.0', port: 3260 }, transport: tcp },
      { endpoint: { host: '0.0.0.0', port: 3261 }, transport: iser },
      ...(options.more ?? []),
    ],
    targets: [{ name: DISK, deviceServer: server }],
    clock: new VirtualClock(),
  });
  return { tcp, iser, server, listening };
}

/** What a discovery session is told about the one target. */
async function addressesBy(connection: HandConnection): Promise<string[]> {
  await connection.login({ sessionType: 'Discovery' });
  const data = new TextEncoder().encode('SendTargets=All\0');
  connection.send({ opcode: 'text-request', final: true, ttt: RESERVED_TAG, cmdSn: 1, data });
  const pairs = decodeText((await connection.takeOne('text-response')).data);
  return pairs.filter(([key]) => key === 'TargetAddress').map(([, value]) => value);
}

describe('a target with two portals', () => {
  it('says where it listens, in the order of its options', async () => {
    const { listening } = await startTarget();
    const target = await listening;
    expect(target.portals).toMatchObject([
      { endpoint: { port: 3260 }, transport: 'tcp' },
      { endpoint: { port: 3261 }, transport: 'iwarp' },
    ]);
    expect(target.endpoint).toEqual({ host: '0.0.0.0', port: 3260 });
  });

  it('answers discovery with both, the kind that was asked first', async () => {
    const { tcp, iser, listening } = await startTarget();
    await listening;
    expect(await addressesBy(tcp.connect('192.0.2.7:3260'))).toEqual(['192.0.2.7:3260,1', '192.0.2.7:3261,1']);
    expect(await addressesBy(iser.connect('192.0.2.7:3261'))).toEqual(['192.0.2.7:3261,1', '192.0.2.7:3260,1']);
  });

  it("has sessions through both, of one name each, whose ends are one target's affair", async () => {
    const { tcp, iser, server, listening } = await startTarget();
    const target = await listening;
    const one = tcp.connect();
    await one.login({ isid: 1 });
    const other = iser.connect();
    await other.login({ isid: 2 });
    expect(target.sessions).toMatchObject([
      { targetName: DISK, transport: 'recording', traits: {}, keys: { MaxBurstLength: '262144' } },
      { targetName: DISK },
    ]);
    // The same initiator port again, through the other portal: the session is reinstated there.
    const again = iser.connect();
    await again.login({ isid: 1 });
    expect(one.datamover.terminated).toBe('abrupt');
    expect(server.log).toContain('nexus 1 lost');
    await target.close('abrupt');
    expect([other.datamover.terminated, again.datamover.terminated]).toEqual(['abrupt', 'abrupt']);
    expect([tcp.isListening, iser.isListening]).toEqual([false, false]);
  });

  it('lets no initiator send more commands than the data mover has room for', async () => {
    const { tcp, iser, listening } = await startTarget();
    await listening;
    expect(await tcp.connect().login({ isid: 1, cmdSn: 1 })).toMatchObject({ expCmdSn: 1, maxCmdSn: 64 });
    expect(await iser.connect(undefined, 8).login({ isid: 2, cmdSn: 1 })).toMatchObject({ expCmdSn: 1, maxCmdSn: 8 });
  });

  it('listens nowhere where one of its portals cannot be had', async () => {
    const broken: TargetTransport = { name: 'verbs', listen: () => Promise.reject(new Error('no device')) };
    const { tcp, iser, listening } = await startTarget({
      more: [{ endpoint: { host: '192.0.2.9', port: 0 }, transport: broken }],
    });
    await expect(listening).rejects.toThrow('no device');
    expect([tcp.isListening, iser.isListening]).toEqual([false, false]);
  });
});
