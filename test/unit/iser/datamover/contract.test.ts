import { createMemoryPair } from '../../../../src/iser/datamover/memory.ts';
import { createTcpTransport } from '../../../../src/iser/datamover/tcp.ts';
import { datamoverContract } from '../../../contract/datamover.ts';

const endpoint = { host: '127.0.0.1', port: 0 };
const tcp = () => {
  const transport = createTcpTransport();
  return { initiator: transport, target: transport, endpoint };
};
const small = { maxSendDataSegmentLength: 4096, maxRecvDataSegmentLength: 2048, maxBurstLength: 10_000, firstBurstLength: 5000 };
const digests = { headerDigest: true, dataDigest: true };

datamoverContract('TCP', tcp);
datamoverContract('TCP with digests, small segments and unsolicited data', tcp, {
  ...small,
  ...digests,
  initialR2T: false,
  maxOutstandingR2T: 4,
});
datamoverContract('TCP without immediate data', tcp, { immediateData: false });
datamoverContract('memory', () => ({ ...createMemoryPair(), endpoint }));
datamoverContract('memory with digests, small segments and unsolicited data', () => ({ ...createMemoryPair(), endpoint }), {
  ...small,
  ...digests,
  initialR2T: false,
});
