import { createMemoryPair } from '../../../../src/iser/datamover/memory.ts';
import { NodeChannel } from '../../../../src/iser/datamover/node-channel.ts';
import { createTcpTransport, type OpenChannel } from '../../../../src/iser/datamover/tcp.ts';
import { datamoverContract } from '../../../contract/datamover.ts';
import { tcpContract } from '../../../contract/tcp.ts';

const endpoint = { host: '127.0.0.1', port: 0 };
const openChannel: OpenChannel = (socket, user) => new NodeChannel(socket, user);
const tcp = () => {
  const transport = createTcpTransport({}, openChannel);
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

tcpContract('Node', openChannel);
