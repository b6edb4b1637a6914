/** What the TCP data mover owes at its sockets, whoever moves their bytes (`tcp.ts`). Run it on each kind of channel. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, describe, expect, it, test, vi } from 'vitest';
import { errorCode } from '../../src/errors.ts';
import type { DataParameters, TargetDatamover } from '../../src/iser/datamover/datamover.ts';
import { encodePdu, NO_DIGESTS } from '../../src/iser/datamover/pdu-batch.ts';
import { createTcpTransport, type OpenChannel } from '../../src/iser/datamover/tcp.ts';
import { type Pdu, pdu } from '../../src/iser/iscsi/pdu.ts';
import { DatamoverPair, InitiatorEnd, ordinaryParameters, patternBytes, TargetEnd } from '../support/datamover-pair.ts';

const MiB = 1024 * 1024;
/** For a machine that has much else to do. */
const PATIENTLY = { interval: 2, timeout: 4500 };
const endpoint = { host: '127.0.0.1', port: 0 };
const wire = (source: Pdu) => Buffer.concat(encodePdu(source, NO_DIGESTS));

const addressOf = (server: Server) => ({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });

/** Resolves with the value when it has not changed for a while. */
async function settled(read: () => number): Promise<number> {
  let value = read();
  for (let same = 0; same < 10; same++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (read() === value) continue;
    value = read();
    same = 0;
  }
  return value;
}

/** `openChannel` is to fail rather than take another kind. */
export function tcpContract(name: string, openChannel: OpenChannel): void {
  describe(`TCP contract: ${name}`, () => {
    const transport = createTcpTransport({}, openChannel);
    const transports = { initiator: transport, target: transport, endpoint };
    const cleanUps: (() => unknown)[] = [];
    afterEach(async () => {
      for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
    });

    /** An initiator in the full-feature phase whose target is a bare socket that reads only when told to. */
    async function bareTarget(parameters: Partial<DataParameters> = {}): Promise<{ initiator: InitiatorEnd; socket: Socket }> {
      const server = createServer({ pauseOnConnect: true, allowHalfOpen: true }).listen(0, '127.0.0.1');
      cleanUps.push(() => server.close());
      await once(server, 'listening');
      const accepted = once(server, 'connection') as Promise<[Socket]>;
      const initiator = new InitiatorEnd();
      initiator.attach(await transport.connect(addressOf(server), initiator, { timeoutMs: 2000 }));
      cleanUps.push(() => initiator.datamover.terminate('abrupt'));
      initiator.datamover.enable({
        ...ordinaryParameters,
        maxRecvDataSegmentLength: MiB,
        maxBurstLength: 16 * MiB - 1,
        ...parameters,
      });
      const [socket] = await accepted;
      socket.on('error', () => {});
      cleanUps.push(() => socket.destroy());
      return { initiator, socket };
    }

    /** A target in the full-feature phase whose initiator is a bare socket that does not read. */
    async function bareInitiator(): Promise<{ target: TargetEnd; socket: Socket }> {
      let resolve: (end: TargetEnd) => void;
      const accepted = new Promise<TargetEnd>((resolve_) => {
        resolve = resolve_;
      });
      const listener = await transport.listen(endpoint, (datamover: TargetDatamover) => {
        const end = new TargetEnd(datamover);
        resolve(end);
        return end;
      });
      cleanUps.push(() => listener.close());
      const socket = connect(listener.endpoint);
      socket.pause();
      socket.on('error', () => {});
      cleanUps.push(() => socket.destroy());
      const target = await accepted;
      cleanUps.push(() => target.datamover.terminate('abrupt'));
      target.datamover.enable(ordinaryParameters);
      return { target, socket };
    }

    describe('a target that goes wrong', () => {
      test.each([
        ['answers in another language', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), 'protocol-error', /unknown opcode 0x08/],
        [
          'sends what only an initiator may',
          wire(pdu({ opcode: 'nop-out' })),
          'protocol-error',
          /nop-out, which no target sends/,
        ],
        [
          'answers what was not asked',
          wire(pdu({ opcode: 'scsi-response', itt: 4 })),
          'protocol-error',
          /task that does not exist/,
        ],
        ['breaks off within a PDU', wire(pdu({ opcode: 'nop-in' })).subarray(0, 47), 'connection-lost', /in the middle of a PDU/],
      ])('that %s loses the connection', async (_, bytes, code, message) => {
        const { initiator, socket } = await bareTarget();
        socket.end(bytes);
        expect(await initiator.notifications.terminated).toMatchObject({ code, message: expect.stringMatching(message) });
      });

      it('that closes between PDUs ends the connection without an error', async () => {
        const { initiator, socket } = await bareTarget();
        socket.end(wire(pdu({ opcode: 'nop-in', itt: 3 })));
        expect(await initiator.notifications.terminated).toBeUndefined();
        expect(await initiator.next()).toMatchObject({ pdu: { itt: 3 } });
      });

      it('that resets the connection is named, with the cause', async () => {
        const { initiator, socket } = await bareTarget();
        const peer = initiator.datamover.remoteAddress;
        socket.resetAndDestroy();
        expect(await initiator.notifications.terminated).toMatchObject({
          code: 'connection-lost',
          message: `the connection to ${peer} was lost: the connection was reset`,
        });
      });

      it('that resets the connection behind an answer is noticed as well', async () => {
        const { initiator, socket } = await bareTarget();
        socket.write(wire(pdu({ opcode: 'nop-in', itt: 3 })));
        socket.resetAndDestroy();
        expect(await initiator.next()).toMatchObject({ pdu: { itt: 3 } });
        const end = await initiator.notifications.terminated;
        // Node takes it for an end in order.
        expect(end === undefined ? 'in order' : errorCode(end)).toMatch(/^(in order|connection-lost)$/);
      });

      it('that resets the connection behind an answer is heard also while it takes no data', async () => {
        const { initiator, socket } = await bareTarget({ initialR2T: false, firstBurstLength: 16 * MiB - 1 });
        initiator.command(1, { dataOut: new Uint8Array(16 * MiB - 1) });
        await new Promise((resolve) => setTimeout(resolve, 20));
        socket.write(wire(pdu({ opcode: 'nop-in', itt: 3 })));
        socket.resetAndDestroy();
        expect(await initiator.next()).toMatchObject({ pdu: { itt: 3 } });
        await initiator.notifications.terminated;
      });

      it('that does not close after an orderly end is not waited for without bound', async () => {
        vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
        try {
          const { initiator } = await bareTarget();
          const ended = initiator.datamover.terminate('orderly');
          await new Promise((resolve) => setImmediate(resolve));
          await new Promise((resolve) => setImmediate(resolve));
          vi.advanceTimersByTime(2000);
          await ended;
          expect(await initiator.notifications.terminated).toBeUndefined();
        } finally {
          vi.useRealTimers();
        }
      });
    });

    describe('the buffers of a task', () => {
      it('are let go of within a Data-In PDU, and the connection goes on', async () => {
        const { initiator, socket } = await bareTarget();
        const dataIn = new Uint8Array(MiB);
        initiator.command(1, { dataIn });
        const bytes = wire(pdu({ opcode: 'data-in', itt: 1, final: true, data: new Uint8Array(MiB).fill(0xaa) }));
        socket.write(bytes.subarray(0, 48 + 200_000));
        await vi.waitFor(() => expect(dataIn[199_999]).toBe(0xaa), PATIENTLY);
        initiator.datamover.deallocateTask(1);
        socket.write(bytes.subarray(48 + 200_000));
        socket.write(wire(pdu({ opcode: 'nop-in', itt: 9 })));
        expect(await initiator.next()).toMatchObject({ pdu: { opcode: 'nop-in', itt: 9 } });
        expect(dataIn.lastIndexOf(0xaa)).toBe(199_999);
      });

      it('serve later tasks after that, placed directly again', async () => {
        const { initiator, socket } = await bareTarget();
        for (let itt = 1; itt <= 6; itt++) {
          const isEnded = itt % 2 === 1;
          const dataIn = new Uint8Array(MiB);
          initiator.command(itt, { dataIn });
          const bytes = wire(pdu({ opcode: 'data-in', itt, final: true, hasStatus: true, data: Buffer.alloc(MiB, itt) }));
          socket.write(bytes.subarray(0, 48 + 300_000));
          await vi.waitFor(() => expect(dataIn[299_999]).toBe(itt), PATIENTLY);
          if (isEnded) initiator.datamover.deallocateTask(itt);
          socket.write(bytes.subarray(48 + 300_000));
          const { pdu: response, transferred } = await initiator.next();
          expect([response.opcode, transferred]).toEqual(['scsi-response', isEnded ? 0 : MiB]);
          expect(Buffer.compare(dataIn.subarray(300_000), Buffer.alloc(MiB - 300_000, isEnded ? 0 : itt))).toBe(0);
        }
      });

      it('cost the connection where the peer does not take their data', async () => {
        const { initiator } = await bareTarget({ initialR2T: false, firstBurstLength: 16 * MiB - 1 });
        initiator.command(1, { dataOut: new Uint8Array(16 * MiB - 1) });
        await new Promise((resolve) => setTimeout(resolve, 20));
        initiator.datamover.deallocateTask(1);
        expect(await initiator.notifications.terminated).toMatchObject({
          code: 'connection-lost',
          message: 'a task was ended while the connection did not take its data',
        });
      });

      it('do not cost the connection where their data has not begun to go out', async () => {
        const { initiator, socket } = await bareTarget();
        const dataOut = patternBytes(5000);
        initiator.command(1, { dataOut });
        initiator.datamover.deallocateTask(1);
        dataOut.fill(0xee);
        socket.resume();
        const chunks: Buffer[] = [];
        socket.on('data', (chunk) => chunks.push(chunk));
        await vi.waitFor(() => expect(chunks.reduce((sum, { length }) => sum + length, 0)).toBe(5048), PATIENTLY);
        expect(Buffer.compare(Buffer.concat(chunks).subarray(48), patternBytes(5000))).toBe(0);
      });

      it('are still lent to the connection when a status comes early: the status waits', async () => {
        const { initiator, socket } = await bareTarget({ initialR2T: false, firstBurstLength: 16 * MiB - 1 });
        initiator.command(1, { dataOut: new Uint8Array(16 * MiB - 1) });
        await new Promise((resolve) => setImmediate(resolve));
        socket.write(wire(pdu({ opcode: 'scsi-response', itt: 1, status: 2, data: patternBytes(10) })));
        socket.write(wire(pdu({ opcode: 'nop-in', itt: 7 })));
        expect(await settled(() => initiator.received)).toBe(0);
        socket.resume();
        expect(await initiator.next()).toMatchObject({ pdu: { opcode: 'scsi-response', status: 2, data: patternBytes(10) } });
        expect(await initiator.next()).toMatchObject({ pdu: { opcode: 'nop-in' } });
      });

      it('can be collected after an abrupt end in the middle of both directions', async () => {
        setFlagsFromString('--expose-gc');
        const collect = runInNewContext('gc') as () => void;
        const { initiator, socket } = await bareTarget({ initialR2T: false, firstBurstLength: 16 * MiB - 1 });
        const begin = () => {
          const [dataIn, dataOut] = [new Uint8Array(MiB), new Uint8Array(16 * MiB - 1)];
          initiator.command(1, { dataIn });
          initiator.command(2, { dataOut });
          return [new WeakRef(dataIn.buffer), new WeakRef(dataOut.buffer)];
        };
        const references = begin();
        socket.write(wire(pdu({ opcode: 'data-in', itt: 1, final: true, data: new Uint8Array(MiB) })).subarray(0, 100_000));
        await new Promise((resolve) => setTimeout(resolve, 20));
        await initiator.datamover.terminate('abrupt');
        await vi.waitFor(() => {
          collect();
          expect(references.map((reference) => reference.deref() === undefined)).toEqual([true, true]);
        }, PATIENTLY);
        expect(initiator.datamover.transport).toBe('tcp');
      });
    });

    describe('a peer that does not read', () => {
      it('makes a target stop reading what it would have to answer, until it reads again', async () => {
        const { target, socket } = await bareInitiator();
        target.onPdu = (received) =>
          target.datamover.sendControl(pdu({ opcode: 'nop-in', itt: received.itt, data: received.data.slice() }));
        const count = 5000;
        const ping = wire(pdu({ opcode: 'nop-out', itt: 1, data: new Uint8Array(8192) }));
        for (let index = 0; index < count; index++) socket.write(ping);
        const taken = await settled(() => target.received);
        expect(taken).toBeLessThan(count / 2);
        let answered = 0;
        socket.on('data', (chunk) => {
          answered += chunk.length;
        });
        socket.resume();
        await vi.waitFor(() => expect(answered).toBe(count * ping.length), PATIENTLY);
      });

      it('keeps putData from resolving', async () => {
        const { target, socket } = await bareInitiator();
        socket.write(
          wire(pdu({ opcode: 'scsi-command', itt: 1, final: true, read: true, expectedDataTransferLength: 64 * MiB })),
        );
        const task = await target.nextCommand();
        const data = new Uint8Array(MiB);
        let resolved = 0;
        const serve = async () => {
          for (let offset = 0; offset < 64 * MiB; offset += MiB) {
            await target.datamover.putData(task, offset, data);
            resolved++;
          }
        };
        const served = serve().catch(() => {});
        expect(await settled(() => resolved)).toBeLessThan(32);
        await target.datamover.terminate('abrupt');
        await served;
        expect(resolved).toBeLessThan(32);
      });
    });

    describe('connecting', () => {
      /** A process that listens and is stopped: after a few connections the kernel leaves further ones unanswered. */
      async function deafPort(): Promise<number> {
        const program = `const s = require('net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => console.log(s.address().port))`;
        const child: ChildProcess = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
        cleanUps.push(() => child.kill('SIGKILL'));
        const [text] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
        child.kill('SIGSTOP');
        const port = Number(text);
        for (let count = 0; count < 4; count++) {
          const filler = connect({ host: '127.0.0.1', port }).on('error', () => {});
          cleanUps.push(() => filler.destroy());
        }
        await new Promise((resolve) => setTimeout(resolve, 30));
        return port;
      }

      it('gives up in time where nothing answers, and when it is aborted', async () => {
        const port = await deafPort();
        const at = { host: '127.0.0.1', port };
        await expect(transport.connect(at, new InitiatorEnd(), { timeoutMs: 100 })).rejects.toMatchObject({
          code: 'unreachable',
          message: `cannot connect to 127.0.0.1:${port}: timed out after 100 ms`,
          hint: expect.stringContaining('Is the target running'),
        });
        const controller = new AbortController();
        const connecting = transport.connect(at, new InitiatorEnd(), { timeoutMs: 5000, signal: controller.signal });
        setTimeout(() => controller.abort(), 30);
        await expect(connecting).rejects.toMatchObject({ code: 'aborted' });
      });

      it('finds the address of a name that answers', async () => {
        const listener = await transport.listen(endpoint, (datamover) => new TargetEnd(datamover));
        cleanUps.push(() => listener.close());
        const datamover = await transport.connect({ host: 'localhost', port: listener.endpoint.port }, new InitiatorEnd(), {
          timeoutMs: 2000,
        });
        expect(datamover.remoteAddress).toBe(`127.0.0.1:${listener.endpoint.port}`);
        await datamover.terminate('abrupt');
      });

      it('refused, says what to look at', async () => {
        const server = createServer().listen(0, '127.0.0.1');
        await once(server, 'listening');
        const at = addressOf(server);
        server.close();
        await expect(transport.connect(at, new InitiatorEnd(), { timeoutMs: 2000 })).rejects.toMatchObject({
          code: 'unreachable',
          message: `cannot connect to 127.0.0.1:${at.port}: connection refused`,
          hint: 'Is the target running and the port right?',
        });
      });

      it('over IPv6 names the ends in brackets', async ({ skip }) => {
        const listener = await transport
          .listen({ host: '::1', port: 0 }, (datamover) => new TargetEnd(datamover))
          .catch(() => skip('no IPv6 here'));
        cleanUps.push(() => listener.close());
        const datamover = await transport.connect(listener.endpoint, new InitiatorEnd(), { timeoutMs: 2000 });
        expect(datamover.remoteAddress).toBe(`[::1]:${listener.endpoint.port}`);
        await datamover.terminate('abrupt');
      });
    });

    describe('listening', () => {
      it('on a port in use says so', async () => {
        const listener = await transport.listen(endpoint, (datamover) => new TargetEnd(datamover));
        cleanUps.push(() => listener.close());
        await expect(transport.listen(listener.endpoint, (datamover) => new TargetEnd(datamover))).rejects.toMatchObject({
          code: 'bad-configuration',
          message: `cannot listen on 127.0.0.1:${listener.endpoint.port}: the address is in use`,
        });
      });

      it('survives who is refused by the acceptor', async () => {
        let refusals = 0;
        const listener = await transport.listen(endpoint, (datamover) => {
          if (refusals++ === 0) throw new Error('no room');
          return new TargetEnd(datamover);
        });
        cleanUps.push(() => listener.close());
        const first = new InitiatorEnd();
        first.attach(await transport.connect(listener.endpoint, first, { timeoutMs: 2000 }));
        await first.notifications.terminated;
        const second = new InitiatorEnd();
        second.attach(await transport.connect(listener.endpoint, second, { timeoutMs: 2000 }));
        await second.datamover.terminate('abrupt');
        expect(refusals).toBe(2);
      });
    });

    describe('digests', () => {
      const offers = (policy: 'none' | 'prefer' | 'require') =>
        createTcpTransport({ headerDigest: policy, dataDigest: policy, maxRecvDataSegmentLength: 8192 }, openChannel);

      it.each([
        ['none', 'None', 'None'],
        ['prefer', 'CRC32C,None', 'None,CRC32C'],
        ['require', 'CRC32C', 'CRC32C'],
      ] as const)('with policy %s are offered as %s, and in discovery as %s', async (policy, normal, discovery) => {
        const offering = offers(policy);
        await using pair = await DatamoverPair.connect({ initiator: offering, target: offering, endpoint });
        for (const end of [pair.initiator, pair.target]) {
          const keys = { MaxRecvDataSegmentLength: '8192' };
          expect(end.datamover.keyOffers('normal')).toEqual({ HeaderDigest: normal, DataDigest: normal, ...keys });
          expect(end.datamover.keyOffers('discovery')).toEqual({ HeaderDigest: discovery, DataDigest: discovery, ...keys });
        }
      });

      it('that are required and refused fail the login', async () => {
        await using pair = await DatamoverPair.connect({ initiator: offers('require'), target: transport, endpoint });
        const enable = (digests: Partial<DataParameters>) => () =>
          pair.initiator.datamover.enable({ ...ordinaryParameters, ...digests });
        expect(enable({ dataDigest: true })).toThrow('the peer refused HeaderDigest=CRC32C, which is required');
        expect(enable({ headerDigest: true })).toThrow(expect.objectContaining({ code: 'login-refused' }));
        expect(enable({ headerDigest: true, dataDigest: true })).not.toThrow();
      });

      it('a MaxRecvDataSegmentLength out of range is refused', () => {
        for (const maxRecvDataSegmentLength of [0, 511, 0x100_0000, 1.5]) {
          expect(() => createTcpTransport({ maxRecvDataSegmentLength })).toThrow(RangeError);
        }
      });
    });

    it('joins the small and passes on the large: many tasks at once arrive whole', async () => {
      await using pair = await DatamoverPair.logIn(transports, { maxSendDataSegmentLength: 700, maxRecvDataSegmentLength: 300 });
      const { initiator, target } = pair;
      const lengths = [1, 299, 300, 301, 512, 513, 699, 700, 701, 9000];
      for (const [itt, length] of lengths.entries()) initiator.command(itt, { dataOut: patternBytes(length, itt) });
      for (const [itt, length] of lengths.entries()) {
        const task = await target.nextCommand();
        const into = new Uint8Array(length);
        await target.datamover.getData(task, 0, into);
        expect(into).toEqual(patternBytes(length, itt));
        target.respond(task);
      }
    });
  });
}
