/** What every data mover owes the session machines, whatever carries it (`datamover.ts`). Run it on each transport. */

import { describe, expect, it, test } from 'vitest';
import { errorCode, ProtocolError } from '../../src/errors.ts';
import type { DataParameters } from '../../src/iser/datamover/datamover.ts';
import { pdu, type TargetControlPdu } from '../../src/iser/iscsi/pdu.ts';
import {
  DatamoverPair,
  InitiatorEnd,
  ordinaryParameters,
  patternBytes,
  TargetEnd,
  type Transports,
} from '../support/datamover-pair.ts';

const MiB = 1024 * 1024;

export function datamoverContract(
  name: string,
  makeTransports: () => Transports,
  parameters: Partial<DataParameters> = {},
): void {
  const logIn = () => DatamoverPair.logIn(makeTransports(), parameters);
  const nopOut = (itt: number) => pdu({ opcode: 'nop-out', itt, ttt: 0xffffffff, data: patternBytes(itt % 5) });
  const nopIn = (itt: number) => pdu({ opcode: 'nop-in', itt, ttt: 0xffffffff, data: patternBytes(itt % 5) });

  describe(`data mover contract: ${name}`, () => {
    it('carries control PDUs in both directions, in order', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      for (let itt = 0; itt < 100; itt++) {
        initiator.datamover.sendControl(nopOut(itt));
        target.datamover.sendControl(nopIn(itt));
      }
      for (let itt = 0; itt < 100; itt++) {
        expect(await target.next()).toEqual(nopOut(itt));
        expect(await initiator.next()).toEqual({ pdu: nopIn(itt), transferred: 0 });
      }
    });

    it('names its ends by address', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      expect(initiator.datamover.remoteAddress).toBe(target.datamover.localAddress);
      expect(initiator.datamover.localAddress).toBe(target.datamover.remoteAddress);
      expect(initiator.datamover.remoteAddress).toMatch(/:\d+$/);
    });

    test.each([1, 512, 4099, 70_001, MiB])('a read of %i bytes fills the buffer', async (length) => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      const [data, dataIn] = [patternBytes(length), new Uint8Array(length)];
      initiator.command(1, { dataIn });
      const task = await target.nextCommand();
      expect(task.expectedDataTransferLength).toBe(length);
      const half = Math.floor(length / 2);
      await target.datamover.putData(task, 0, data.subarray(0, half));
      await target.datamover.putData(task, half, data.subarray(half));
      target.respond(task, { statSn: 9, expCmdSn: 10, maxCmdSn: 11 });
      const { pdu: response, transferred } = await initiator.next();
      expect(response).toMatchObject({ opcode: 'scsi-response', itt: 1, status: 0, statSn: 9, expCmdSn: 10, maxCmdSn: 11 });
      expect(transferred).toBe(length);
      expect(Buffer.compare(dataIn, data)).toBe(0);
    });

    it('a read may end short, with sense data', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      const dataIn = new Uint8Array(8192);
      initiator.command(1, { dataIn });
      const task = await target.nextCommand();
      await target.datamover.putData(task, 0, patternBytes(5000));
      target.respond(task, { status: 2, underflow: true, residualCount: 3192, data: patternBytes(20) });
      const { pdu: response, transferred } = await initiator.next();
      expect([transferred, response.data]).toEqual([5000, patternBytes(20)]);
      expect(Buffer.compare(dataIn.subarray(0, 5000), patternBytes(5000))).toBe(0);
      expect(dataIn.subarray(5000)).toEqual(new Uint8Array(3192));
    });

    it('the status does not overtake data that was put before it', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      const dataIn = new Uint8Array(MiB);
      initiator.command(1, { dataIn });
      const task = await target.nextCommand();
      const put = target.datamover.putData(task, 0, patternBytes(MiB));
      target.datamover.sendControl(pdu({ opcode: 'scsi-response', itt: 1 }));
      const { transferred } = await initiator.next();
      expect(transferred).toBe(MiB);
      await put;
    });

    test.each([1, 512, 4099, 70_001, MiB + 3])('a write of %i bytes can be fetched', async (length) => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      const [dataOut, into] = [patternBytes(length), new Uint8Array(length)];
      initiator.command(1, { dataOut });
      const task = await target.nextCommand();
      const half = Math.floor(length / 2);
      await target.datamover.getData(task, 0, into.subarray(0, half));
      await target.datamover.getData(task, half, into.subarray(half));
      expect(Buffer.compare(into, dataOut)).toBe(0);
      target.respond(task);
      expect(await initiator.next()).toMatchObject({ pdu: { opcode: 'scsi-response', itt: 1 } });
    });

    it('a write may be refused without fetching its data', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      for (let itt = 1; itt <= 3; itt++) initiator.command(itt, { dataOut: patternBytes(300_000) });
      for (let itt = 1; itt <= 3; itt++) target.respond(await target.nextCommand(), { status: 2 });
      for (let itt = 1; itt <= 3; itt++) expect(await initiator.next()).toMatchObject({ pdu: { itt, status: 2 } });
      initiator.datamover.sendControl(nopOut(9));
      expect(await target.next()).toEqual(nopOut(9));
    });

    it('many tasks move data at once', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      const length = 100_000;
      const buffers = Array.from({ length: 24 }, (_, itt) =>
        itt % 2 === 0 ? { dataIn: new Uint8Array(length) } : { dataOut: patternBytes(length, itt) },
      );
      for (const [itt, each] of buffers.entries()) initiator.command(itt, each);
      const serve = async () => {
        const task = await target.nextCommand();
        if (task.read) await target.datamover.putData(task, 0, patternBytes(length, task.itt));
        else {
          const into = new Uint8Array(length);
          await target.datamover.getData(task, 0, into);
          expect(Buffer.compare(into, patternBytes(length, task.itt)), `write ${task.itt}`).toBe(0);
        }
        target.respond(task);
      };
      await Promise.all(buffers.map(serve));
      const ended = new Set<number>();
      for (const _ of buffers) ended.add((await initiator.next()).pdu.itt);
      expect(ended.size).toBe(buffers.length);
      for (const [itt, { dataIn }] of buffers.entries()) {
        if (dataIn !== undefined) expect(Buffer.compare(dataIn, patternBytes(length, itt)), `read ${itt}`).toBe(0);
      }
    });

    it('a task that the initiator ends disturbs no other', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      initiator.command(1, { dataIn: new Uint8Array(300_000) });
      initiator.command(2, { dataIn: new Uint8Array(10_000) });
      await target.nextCommand();
      const second = await target.nextCommand();
      initiator.datamover.deallocateTask(1);
      target.datamover.deallocateTask(1);
      await target.datamover.putData(second, 0, patternBytes(10_000));
      target.respond(second);
      expect(await initiator.next()).toMatchObject({ pdu: { itt: 2 }, transferred: 10_000 });
    });

    it('data of a task that the target has ended is refused, and what is under way rejects', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      initiator.command(1, { dataOut: patternBytes(300_000) });
      initiator.command(2, { dataIn: new Uint8Array(10_000) });
      const [write, read] = [await target.nextCommand(), await target.nextCommand()];
      const get = target.datamover.getData(write, 0, new Uint8Array(300_000));
      target.datamover.deallocateTask(1);
      target.datamover.deallocateTask(2);
      await expect(get).rejects.toMatchObject({ code: 'aborted' });
      await expect(target.datamover.putData(read, 0, patternBytes(10))).rejects.toMatchObject({ code: 'aborted' });
      await expect(target.datamover.getData(write, 0, new Uint8Array(10))).rejects.toMatchObject({ code: 'aborted' });
    });

    it('an orderly end sends what is queued first', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      for (let itt = 0; itt < 50; itt++) initiator.datamover.sendControl(nopOut(itt));
      const ended = initiator.datamover.terminate('orderly');
      for (let itt = 0; itt < 50; itt++) expect(await target.next()).toEqual(nopOut(itt));
      expect(await target.notifications.terminated).toBeUndefined();
      await ended;
      expect(await initiator.notifications.terminated).toBeUndefined();
    });

    it('an orderly end of the target sends its last answers first', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      target.datamover.sendControl(pdu({ opcode: 'logout-response', itt: 3 }));
      await target.datamover.terminate('orderly');
      expect(await initiator.next()).toMatchObject({ pdu: { opcode: 'logout-response', itt: 3 } });
      expect(await initiator.notifications.terminated).toBeUndefined();
    });

    it('an abrupt end settles everything under way at both ends, once', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      // More than moves by itself before the end is asked for.
      initiator.command(1, { dataOut: patternBytes(8 * MiB) });
      const task = await target.nextCommand();
      const get = target.datamover.getData(task, 0, new Uint8Array(8 * MiB));
      const twice = [initiator.datamover.terminate('abrupt'), initiator.datamover.terminate('abrupt')];
      await expect(get).rejects.toMatchObject({ code: 'connection-lost' });
      await Promise.all(twice);
      await Promise.all([initiator.notifications.terminated, target.notifications.terminated]);
      await initiator.datamover.terminate('orderly');
      initiator.datamover.sendControl(nopOut(1));
      target.datamover.sendControl(nopIn(1));
      await expect(target.datamover.putData(task, 0, new Uint8Array(1))).rejects.toMatchObject({ code: 'connection-lost' });
      await expect(target.datamover.getData(task, 0, new Uint8Array(1))).rejects.toMatchObject({ code: 'connection-lost' });
    });

    it('both ends may end at the same time', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      await Promise.all([initiator.datamover.terminate('orderly'), target.datamover.terminate('orderly')]);
      const errors = await Promise.all([initiator.notifications.terminated, target.notifications.terminated]);
      expect(errors).toEqual([undefined, undefined]);
    });

    it('nothing is received any more once the end has come', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      const dataIn = new Uint8Array(4 * MiB);
      initiator.command(1, { dataIn });
      const task = await target.nextCommand();
      const put = target.datamover.putData(task, 0, patternBytes(dataIn.length)).catch((error: unknown) => errorCode(error));
      await initiator.datamover.terminate('abrupt');
      const before = dataIn.slice();
      await put;
      await target.notifications.terminated;
      expect(Buffer.compare(dataIn, before)).toBe(0);
      expect(initiator.received).toBe(0);
    });

    it('a handler that throws loses the connection, with its error', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      const error = new ProtocolError('not acceptable');
      initiator.onPdu = (received: TargetControlPdu) => {
        if (received.itt === 1) throw error;
      };
      for (let itt = 0; itt < 5; itt++) target.datamover.sendControl(nopIn(itt));
      expect(await initiator.notifications.terminated).toBe(error);
      await target.notifications.terminated;
      await initiator.next();
      await initiator.next();
      expect(initiator.received).toBe(0);
    });

    it('what follows the end of login waits until the negotiated values are known', async () => {
      await using pair = await DatamoverPair.connect(makeTransports());
      const { initiator, target } = pair;
      const negotiated = { ...ordinaryParameters, ...parameters };
      initiator.datamover.sendControl(pdu({ opcode: 'login-request', transit: true, csg: 1, nsg: 3 }));
      await target.next();
      target.datamover.sendControl(pdu({ opcode: 'login-response', transit: true, csg: 1, nsg: 3 }));
      target.datamover.enable(negotiated);
      target.datamover.sendControl(nopIn(2));
      await initiator.next();
      for (let round = 0; round < 20; round++) await new Promise((resolve) => setImmediate(resolve));
      expect(initiator.received).toBe(0);
      initiator.datamover.enable(negotiated);
      expect(await initiator.next()).toMatchObject({ pdu: nopIn(2) });
    });

    it('a listener that is closed accepts nobody, but its connections go on', async () => {
      await using pair = await logIn();
      const { initiator, target } = pair;
      await pair.listener.close();
      initiator.datamover.sendControl(nopOut(1));
      expect(await target.next()).toEqual(nopOut(1));
      const connecting = pair.transports.initiator.connect(pair.listener.endpoint, new InitiatorEnd(), { timeoutMs: 2000 });
      await expect(connecting).rejects.toMatchObject({ code: 'unreachable' });
    });

    it('connecting where nobody listens is refused in words that name the place', async () => {
      const { initiator, target, endpoint } = makeTransports();
      const listener = await target.listen(endpoint, (datamover) => new TargetEnd(datamover));
      await listener.close();
      await expect(initiator.connect(listener.endpoint, new InitiatorEnd(), { timeoutMs: 2000 })).rejects.toMatchObject({
        code: 'unreachable',
        message: expect.stringMatching(new RegExp(`:${listener.endpoint.port}: connection refused$`)),
      });
    });

    it('connecting can be aborted, before and while it is under way', async () => {
      const { initiator, target, endpoint } = makeTransports();
      const listener = await target.listen(endpoint, (datamover) => new TargetEnd(datamover));
      const aborted = { code: 'aborted', message: expect.stringContaining(`:${listener.endpoint.port} was aborted`) };
      const connect = (signal: AbortSignal) =>
        initiator.connect(listener.endpoint, new InitiatorEnd(), { timeoutMs: 2000, signal });
      await expect(connect(AbortSignal.abort())).rejects.toMatchObject(aborted);
      const controller = new AbortController();
      const connecting = connect(controller.signal);
      controller.abort();
      await expect(connecting).rejects.toMatchObject(aborted);
      await listener.close();
    });
  });
}
