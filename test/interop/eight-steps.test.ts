/**
 * The eight steps from a portal's address to a logical unit, on every transport: TCP, software iWARP and RDMA inside the
 * process here; verbs where ISERFS_VERBS_ADDRESS names the address of an RDMA device of this machine.
 */

import { createIserTransport } from '../../src/iser/datamover/iser.ts';
import { createTcpTransport } from '../../src/iser/datamover/tcp.ts';
import { createMemoryProviders } from '../../src/iser/rdma/memory.ts';
import { iwarpProvider, verbsProvider } from '../../src/iser/rdma/native-provider.ts';
import type { RdmaProvider } from '../../src/iser/rdma/provider.ts';
import { eightSteps, type SteppedTransports } from '../support/eight-steps.ts';

const LOOPBACK = '127.0.0.1';

const rdma = (initiator: RdmaProvider, target: RdmaProvider, host: string): SteppedTransports => ({
  initiator: createIserTransport(initiator),
  target: createIserTransport(target),
  host,
  isRdma: true,
});

eightSteps('TCP', () => ({ initiator: createTcpTransport(), target: createTcpTransport(), host: LOOPBACK, isRdma: false }));

eightSteps('RDMA inside the process', () => {
  const { initiator, target } = createMemoryProviders();
  return rdma(initiator, target, LOOPBACK);
});

eightSteps('software iWARP', () => rdma(iwarpProvider(), iwarpProvider(), LOOPBACK));

const verbsAddress = process.env['ISERFS_VERBS_ADDRESS'];
if (verbsAddress !== undefined) {
  eightSteps(`verbs at ${verbsAddress}`, () => rdma(verbsProvider(), verbsProvider(), verbsAddress));
}
