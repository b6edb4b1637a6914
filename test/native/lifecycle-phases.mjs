// @ts-check
/**
 * Both ends of an RDMA connection, or of a TCP one by way of the addon, in one thread, brought to a phase of its life, at which something is done: for tests of how a
 * process or a worker ends there. Runs from the build, as iserfs does.
 */

import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { NativeChannel } from '../../dist/iser/datamover/native-channel.js';
import { iwarpProvider, rdmaMemory } from '../../dist/iser/rdma/native-provider.js';

/** @typedef {import('../../src/iser/rdma/provider.ts').QueuePair} QueuePair */
/** @typedef {import('../../src/iser/rdma/provider.ts').QueuePairEvents} QueuePairEvents */

export const phases = /** @type {const} */ ([
  'memory',
  'provider',
  'listening',
  'connecting',
  'requested',
  'accepting',
  'established',
  'posted',
  'completed',
  'batch-ended',
  'closing',
  'closed',
  'tcp: taken over',
  'tcp: filled',
  'tcp: waits for room',
  'tcp: closed',
]);

/** @typedef {(typeof phases)[number]} Phase */

const endpoint = { host: '127.0.0.1', port: 0 };
const memory = () => new Uint8Array(rdmaMemory().allocate(1 << 20));

/**
 * Calls `act` once, at `phase`; goes on as before when it returns, and does not end by itself.
 * @param {Phase} phase
 * @param {() => void} act
 */
export async function reach(phase, act) {
  let hasActed = false;
  /** @param {Phase} now */
  const at = (now) => {
    if (now !== phase || hasActed) return;
    hasActed = true;
    act();
  };
  if (phase.startsWith('tcp')) await reachOverTcp(at);
  else await reachOverRdma(phase, at);
}

/** @param {(now: Phase) => void} at */
async function reachOverTcp(at) {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.pause();
    socket.write('hello');
    server.close();
  });
  server.listen(endpoint.port, endpoint.host);
  await once(server, 'listening');
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  const socket = connect({ host: endpoint.host, port });
  await once(socket, 'connect');
  const buffer = memory();
  const channel = NativeChannel.takeOver(socket, {
    nextBuffer: () => buffer,
    furtherBuffer: () => undefined,
    filled: () => {
      at('tcp: filled');
      // More than the two sockets hold, into the hands of nobody.
      const isWritten = channel?.write(Array.from({ length: 64 }, memory), [], () => {});
      if (isWritten === false) at('tcp: waits for room');
      setImmediate(() => channel?.destroy());
      return true;
    },
    received: () => true,
    ended: () => {},
    closed: () => at('tcp: closed'),
  });
  if (channel === undefined) throw new Error('the addon cannot be used');
  at('tcp: taken over');
}

/**
 * @param {Phase} phase
 * @param {(now: Phase) => void} at
 */
async function reachOverRdma(phase, at) {
  const arena = memory();
  at('memory');
  const provider = iwarpProvider();
  at('provider');
  /** @type {Promise<QueuePair> | undefined} */
  let accepting;
  const listener = await provider.listen(endpoint, (request) => {
    at('requested');
    if (phase === 'connecting') return;
    accepting = request.accept(options(memory(), 16), eventsOf(at));
    at('accepting');
  });
  at('listening');
  const connecting = provider.connect(listener.endpoint, { ...options(arena, 16), timeoutMs: 30_000 }, eventsOf(at));
  setImmediate(() => at('connecting'));
  const initiator = await connecting;
  const target = await accepting;
  if (target === undefined) throw new Error('nothing was accepted');
  at('established');
  // Reads and writes that take a while, one of them into memory that is gone by the time the environment is.
  const data = memory();
  const readable = initiator.advertise(data, 'remote-read');
  const remote = { tag: readable.tag, address: BigInt(readable.address) };
  const into = memory();
  for (let id = 100; id < 132; id++) target.postRead(id, into, remote);
  for (let id = 200; id < 208; id++) initiator.postSend(id, arena.subarray(0, 4000));
  at('posted');
  setTimeout(() => {
    initiator.close('orderly');
    at('closing');
  }, 5);
}

/**
 * @param {Uint8Array} arena
 * @param {number} count
 */
function options(arena, count) {
  const receives = Array.from({ length: count }, (_, id) => ({ id, bytes: arena.subarray(id * 4096, (id + 1) * 4096) }));
  const depths = { sendDepth: 64, receiveDepth: 64, advertisementDepth: 64 };
  return { ...depths, ird: 16, ord: 16, crc: true, privateData: new Uint8Array(4), receives };
}

/**
 * @param {(now: Phase) => void} at
 * @returns {QueuePairEvents}
 */
function eventsOf(at) {
  return { completed: () => at('completed'), batchEnded: () => at('batch-ended'), closed: () => at('closed') };
}
