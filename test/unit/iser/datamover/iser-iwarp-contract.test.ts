/**
 * The contract of a data mover, on iSER over software iWARP: sockets on the loopback; and over verbs where
 * ISERFS_VERBS_ADDRESS names the address of an RDMA device of this machine.
 */

import { describe, it } from 'vitest';
import { createIserTransport } from '../../../../src/iser/datamover/iser.ts';
import { isRdmaAvailable, iwarpProvider, verbsProvider } from '../../../../src/iser/rdma/native-provider.ts';
import { datamoverContract } from '../../../contract/datamover.ts';

/** As many and as long as a test sends at once: the contract negotiates nothing and knows no command window. */
const options = { commandWindow: 128, initiatorRecvDataSegmentLength: 16_384, targetRecvDataSegmentLength: 16_384 };

if (isRdmaAvailable()) {
  for (const crc of [true, false]) {
    datamoverContract(`iSER over iwarp ${crc ? 'with' : 'without'} CRC`, () => {
      const transport = createIserTransport(iwarpProvider(), { ...options, crc });
      return { initiator: transport, target: transport, endpoint: { host: '127.0.0.1', port: 0 } };
    });
  }
  const verbsAddress = process.env['ISERFS_VERBS_ADDRESS'];
  if (verbsAddress !== undefined) {
    datamoverContract('iSER over verbs', () => {
      const transport = createIserTransport(verbsProvider(), options);
      return { initiator: transport, target: transport, endpoint: { host: verbsAddress, port: 0 } };
    });
  }
} else {
  describe('data mover contract: iSER over iwarp', () => {
    it.skip('the addon is not built', () => {});
  });
}
