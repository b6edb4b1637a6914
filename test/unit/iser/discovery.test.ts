import { describe, expect, it } from 'vitest';
import { systemClock } from '../../../src/clock.ts';
import { createMemoryPair } from '../../../src/iser/datamover/memory.ts';
import { discoverTargets } from '../../../src/iser/discovery.ts';
import { encodeText, type TextPair } from '../../../src/iser/iscsi/text.ts';
import { IscsiTarget } from '../../../src/iser/target.ts';
import { BlockDeviceServer } from '../../../src/scsi/device-server.ts';
import { SeededRandom } from '../../support/seeded-random.ts';

const NAME = 'iqn.2026-01.io.iserfs.test:disk';

/** Discovers at a portal; with `answer`, that is what it says in place of the truth. */
async function discover(answer?: readonly TextPair[]) {
  const link = createMemoryPair();
  const target = await IscsiTarget.listen({
    portals: [{ endpoint: { host: '127.0.0.1', port: 3260 }, transport: link.target }],
    targets: [{ name: NAME, deviceServer: new BlockDeviceServer({ units: [] }) }],
  });
  if (answer !== undefined) {
    link.wire.intercept = (passing) =>
      passing.opcode === 'text-response' ? [{ pdu: { ...passing, data: encodeText(answer) } }] : undefined;
  }
  const random = new SeededRandom(1);
  try {
    return await discoverTargets(
      {
        initiatorName: 'iqn.2026-01.io.iserfs.test:initiator',
        isid: 0x80_00_00_00_00_01,
        transport: link.initiator,
        loginTimeoutMs: 5000,
        clock: systemClock,
        random: (length) => random.bytes(length),
      },
      target.endpoint,
    );
  } finally {
    await target.close('abrupt');
  }
}

describe('discovery', () => {
  it('finds the target, at the address that was asked', async () => {
    expect(await discover()).toEqual({
      targets: [{ name: NAME, portals: [{ host: '127.0.0.1', port: 3260, tpgt: 1 }] }],
      oddities: [],
    });
  });

  it('takes the portal that answered for a target without an address', async () => {
    expect((await discover([['TargetName', NAME]])).targets).toEqual([
      { name: NAME, portals: [expect.objectContaining({ host: '127.0.0.1', port: 3260 })] },
    ]);
  });

  it('leaves out what is no name and what is no address, and keeps the rest', async () => {
    const found = await discover([
      ['TargetName', '../../etc'],
      ['TargetAddress', '192.0.2.1:3260,1'],
      ['TargetName', NAME],
      ['TargetAddress', '192.0.2.2:notaport,1'],
      ['TargetAddress', '192.0.2.3:3260,1'],
    ]);
    expect(found.targets).toEqual([{ name: NAME, portals: [{ host: '192.0.2.3', port: 3260, tpgt: 1 }] }]);
    expect(found.oddities).toEqual([
      'offers "../../etc", which is no iSCSI name',
      'gives "192.0.2.2:notaport,1" as the address of a target, which is none',
    ]);
  });

  it('refuses an address that belongs to no target', async () => {
    await expect(discover([['TargetAddress', '192.0.2.1:3260,1']])).rejects.toMatchObject({
      code: 'protocol-error',
      message: expect.stringContaining('127.0.0.1:3260'),
    });
  });
});
