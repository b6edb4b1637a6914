import { closeSync, openSync } from 'node:fs';
import { expect, it } from 'vitest';
import { NativeChannel } from '../../src/iser/datamover/native-channel.ts';
import { createTcpTransport, type OpenChannel } from '../../src/iser/datamover/tcp.ts';
import { openStream } from '../../src/iser/rdma/addon.ts';
import { datamoverContract } from '../contract/datamover.ts';
import { tcpContract } from '../contract/tcp.ts';

const openChannel: OpenChannel = (socket, user) => {
  const channel = NativeChannel.takeOver(socket, user);
  if (channel === undefined) throw new Error('the addon cannot be used');
  return channel;
};
const tcp = () => {
  const transport = createTcpTransport({}, openChannel);
  return { initiator: transport, target: transport, endpoint: { host: '127.0.0.1', port: 0 } };
};
const small = { maxSendDataSegmentLength: 4096, maxRecvDataSegmentLength: 2048, maxBurstLength: 10_000, firstBurstLength: 5000 };

datamoverContract('TCP by the addon', tcp);
datamoverContract('TCP by the addon, with digests, small segments and unsolicited data', tcp, {
  ...small,
  headerDigest: true,
  dataDigest: true,
  initialR2T: false,
  maxOutstandingR2T: 4,
});
datamoverContract('TCP by the addon, without immediate data', tcp, { immediateData: false });

tcpContract('the addon', openChannel);

it('a descriptor that is no connection is not taken', () => {
  expect(openStream(-1, () => {})).toBeUndefined();
  const file = openSync('/dev/null', 'r');
  expect(openStream(file, () => {})).toBeUndefined();
  closeSync(file);
});
