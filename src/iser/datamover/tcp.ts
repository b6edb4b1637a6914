/**
 * The TCP data mover's sockets, for both roles: Node connects and listens, and a connection's bytes then go by way of the
 * addon (`native-channel.ts`), or of Node where there is none (`node-channel.ts`). It knows addresses and the faults
 * of connecting; PDUs only as lists of segments.
 */

import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { IserfsError } from '../../errors.ts';
import { useForLongData } from '../iscsi/digest.ts';
import { formatPortal } from '../iscsi/name.ts';
import { nativeCrc32c } from '../rdma/addon.ts';
import type { ByteChannel, ChannelUser } from './byte-channel.ts';
import type {
  ConnectOptions,
  Endpoint,
  InitiatorDatamover,
  InitiatorHandler,
  InitiatorTransport,
  TargetDatamover,
  TargetHandler,
  TargetListener,
  TargetTransport,
} from './datamover.ts';
import { NativeChannel } from './native-channel.ts';
import { NodeChannel } from './node-channel.ts';
import { connectionError, faultText } from './socket-fault.ts';
import { StreamInitiator } from './stream-initiator.ts';
import { type StreamOptions, streamOptions } from './stream-options.ts';
import { StreamTarget } from './stream-target.ts';

export type { DigestPolicy, StreamOptions } from './stream-options.ts';

/** Makes a channel of a socket that has just been connected. */
export type OpenChannel = (socket: Socket, user: ChannelUser) => ByteChannel;

const openBestChannel: OpenChannel = (socket, user) => NativeChannel.takeOver(socket, user) ?? new NodeChannel(socket, user);

/** Both ends of the TCP transport with `options`: which digests to offer, and the longest data segment to take. */
export function createTcpTransport(
  options: Partial<StreamOptions> = {},
  openChannel: OpenChannel = openBestChannel,
): InitiatorTransport & TargetTransport {
  const complete = streamOptions(options);
  if (complete.headerDigest !== 'none' || complete.dataDigest !== 'none') {
    const native = nativeCrc32c();
    if (native !== undefined) useForLongData(native);
  }
  return {
    name: 'tcp',
    connect: (endpoint, handler, connectOptions) => connectTcp(endpoint, handler, connectOptions, complete, openChannel),
    listen: (endpoint, accept) => listenTcp(endpoint, accept, complete, openChannel),
  };
}

function connectTcp(
  endpoint: Endpoint,
  handler: InitiatorHandler,
  { signal, timeoutMs }: ConnectOptions,
  options: StreamOptions,
  openChannel: OpenChannel,
): Promise<InitiatorDatamover> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(abortedError(endpoint, signal));
      return;
    }
    const datamover = new StreamInitiator('tcp', handler, options);
    const socket = connect({
      host: endpoint.host,
      port: endpoint.port,
      noDelay: true,
      keepAlive: false, // iSCSI has its own: NOP-Out
      autoSelectFamily: true,
    });

    const settle = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      socket.off('connect', onConnect);
      socket.off('error', onError);
    };
    const giveUp = (error: Error) => {
      settle();
      socket.on('error', () => {});
      socket.destroy();
      reject(error);
    };
    const onConnect = () => {
      settle();
      datamover.open(openChannel(socket, datamover));
      resolve(datamover);
    };
    const onError = (error: Error) => giveUp(connectionError(formatPortal(endpoint), error));
    const onAbort = () => giveUp(abortedError(endpoint, signal));
    const timer = setTimeout(() => giveUp(timeoutError(endpoint, timeoutMs)), timeoutMs);
    signal?.addEventListener('abort', onAbort, { once: true });
    socket.on('connect', onConnect);
    socket.on('error', onError);
  });
}

function listenTcp(
  endpoint: Endpoint,
  accept: (datamover: TargetDatamover) => TargetHandler,
  options: StreamOptions,
  openChannel: OpenChannel,
): Promise<TargetListener> {
  return new Promise((resolve, reject) => {
    const server = createServer({ noDelay: true, keepAlive: false }, (socket) =>
      acceptSocket(socket, accept, options, openChannel),
    );
    const onError = (error: Error) => {
      server.close();
      reject(
        new IserfsError('bad-configuration', `cannot listen on ${formatPortal(endpoint)}: ${faultText(error)}`, {
          hint: 'Choose an address of this machine and a port that is free.',
        }),
      );
    };
    server.once('error', onError);
    server.listen({ host: endpoint.host, port: endpoint.port }, () => {
      server.off('error', onError);
      // Such as too many open files: that connection is lost, the listener is not.
      server.on('error', () => {});
      resolve(listenerOf(server, endpoint));
    });
  });
}

function acceptSocket(
  socket: Socket,
  accept: (datamover: TargetDatamover) => TargetHandler,
  options: StreamOptions,
  openChannel: OpenChannel,
): void {
  if (socket.remoteAddress === undefined) {
    // Gone before it was accepted.
    socket.on('error', () => {});
    socket.destroy();
    return;
  }
  const datamover = new StreamTarget('tcp', options);
  const channel = openChannel(socket, datamover);
  datamover.open(channel);
  try {
    datamover.attach(accept(datamover));
  } catch {
    // Whoever accepts has no use for this connection.
    channel.destroy();
  }
}

function listenerOf(server: Server, { host }: Endpoint): TargetListener {
  const { address, port } = server.address() as AddressInfo;
  return {
    endpoint: { host: host === '' ? address : host, port },
    close: () =>
      new Promise((resolve) => {
        // Its callback waits for the open connections too; the port is free as soon as this returns.
        server.close();
        setImmediate(resolve);
      }),
  };
}

function abortedError(endpoint: Endpoint, signal: AbortSignal | undefined): IserfsError {
  return new IserfsError('aborted', `connecting to ${formatPortal(endpoint)} was aborted`, { cause: signal?.reason });
}

function timeoutError(endpoint: Endpoint, timeoutMs: number): IserfsError {
  return new IserfsError('unreachable', `cannot connect to ${formatPortal(endpoint)}: timed out after ${timeoutMs} ms`, {
    hint: 'Is the target running, the address and port right, and no firewall between?',
  });
}
