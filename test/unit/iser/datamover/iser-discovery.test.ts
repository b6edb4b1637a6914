import { expect, it } from 'vitest';
import { systemClock } from '../../../../src/clock.ts';
import { discoverTargets } from '../../../../src/iser/discovery.ts';
import { decodeText, encodeText } from '../../../../src/iser/iscsi/text.ts';
import { IscsiTarget } from '../../../../src/iser/target.ts';
import { BlockDeviceServer } from '../../../../src/scsi/device-server.ts';
import { createIserPair } from '../../../support/iser-pair.ts';
import { SeededRandom } from '../../../support/seeded-random.ts';

it.each(['8192', '262144'])(
  'discovery of many targets over iSER, by an initiator that declares to take %s bytes',
  async (declared) => {
    const link = createIserPair();
    const names = Array.from({ length: 300 }, (_, index) => `iqn.2026-01.io.iserfs.test:disk-${index}`);
    const target = await IscsiTarget.listen({
      portals: [{ endpoint: { host: '127.0.0.1', port: 3260 }, transport: link.target }],
      targets: names.map((name) => ({ name, deviceServer: new BlockDeviceServer({ units: [] }) })),
    });
    const segments: number[] = [];
    link.wire.intercept = (passing) => {
      if (passing.opcode === 'text-response') segments.push(passing.data.length);
      if (passing.opcode !== 'login-request') return undefined;
      const pairs = decodeText(passing.data).map(([key, value]): [string, string] => [
        key,
        key === 'MaxRecvDataSegmentLength' ? declared : value,
      ]);
      expect(pairs.map(([key]) => key)).not.toContain('RDMAExtensions');
      return [{ pdu: { ...passing, data: encodeText(pairs) } }];
    };
    const random = new SeededRandom(1);
    const { targets } = await discoverTargets(
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
    expect(targets.map(({ name }) => name)).toEqual(names);
    expect(segments.length).toBeGreaterThan(2);
    expect(Math.max(...segments)).toBeLessThanOrEqual(8192);
    await target.close('abrupt');
  },
);
