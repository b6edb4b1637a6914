import { closeSync, openSync } from 'node:fs';
import { constants } from 'node:os';
import { expect, it } from 'vitest';
import { NativeChannel } from '../../src/iser/datamover/native-channel.ts';
import { createTcpTransport, type OpenChannel } from '../../src/iser/datamover/tcp.ts';
import { openStream } from '../../src/iser/rdma/addon.ts';
import { datamoverContract } from '../contract/datamover.ts';
import { tcpContract } from '../contract/tcp.ts';
import { runChecked } from '../support/child-process.ts';
import { Workdir } from '../support/workdir.ts';

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

it('once a stream is closed, its functions answer EBADF and do nothing', async () => {
  await using workdir = Workdir.create();
  // No connection, but what the event loop takes for one.
  const path = workdir.join('fifo');
  await runChecked('mkfifo', [path]);
  const descriptor = openSync(path, 'r+');
  const stream = openStream(descriptor, () => {});
  closeSync(descriptor);
  if (stream === undefined) throw new Error('the addon cannot be used');
  const bytes = new Uint8Array(1);
  expect([stream.receive(bytes), stream.send([bytes])]).toEqual([-constants.errno.ENOTSOCK, -constants.errno.ENOTSOCK]);
  stream.close();
  const answers: unknown[] = [stream.receive(bytes), stream.send([bytes]), stream.watch(1), stream.endSending(), stream.close()];
  expect(answers).toEqual(Array.from({ length: 5 }, () => -constants.errno.EBADF));
});
