/**
 * What an initiator does from a portal's address to a logical unit, in eight steps: discovery over TCP, connect,
 * session, connection, the binding of the two, login negotiation, the start of the full-feature phase, INQUIRY of each
 * logical unit. One test for each step, for any transport; what the initiator believes is compared with what the
 * target saw.
 */

import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { type ConnectionOptions, openConnection } from '../../src/iser/connection.ts';
import type { Endpoint, InitiatorHandler, InitiatorTransport, TargetTransport } from '../../src/iser/datamover/datamover.ts';
import { createTcpTransport } from '../../src/iser/datamover/tcp.ts';
import { discoverTargets } from '../../src/iser/discovery.ts';
import { Initiator } from '../../src/iser/initiator.ts';
import { InitiatorLogin } from '../../src/iser/iscsi/login.ts';
import { formatPortal } from '../../src/iser/iscsi/name.ts';
import { type Pdu, pdu, RESERVED_TAG, type TargetControlPdu } from '../../src/iser/iscsi/pdu.ts';
import { decodeText } from '../../src/iser/iscsi/text.ts';
import { IscsiTarget, type TargetPortal } from '../../src/iser/target.ts';
import { inquiryCdb, testUnitReadyCdb } from '../../src/scsi/cdb.ts';
import { BlockDeviceServer } from '../../src/scsi/device-server.ts';
import { execute } from '../../src/scsi/execute.ts';
import { decodeStandardInquiry } from '../../src/scsi/inquiry.ts';
import { lunFromNumber } from '../../src/scsi/lun.ts';
import { MemoryMedium } from '../../src/scsi/memory-medium.ts';
import { reportLuns } from '../../src/scsi/scan.ts';
import { ObservedTransport } from './observed-transport.ts';

export interface SteppedTransports {
  readonly initiator: InitiatorTransport;
  readonly target: TargetTransport;
  /** The address of this machine at which the target listens. */
  readonly host: string;
  /** Whether RDMA carries the data. */
  readonly isRdma: boolean;
}

const TARGET_NAME = 'iqn.2026-01.io.iserfs.test:steps';
const INITIATOR_NAME = 'iqn.2026-01.io.iserfs.test:initiator';
const ISID = 0x80_00_00_00_00_01;
const LUNS = [0, 1, 5, 300];
const productOf = (lun: number) => `STEPS DISK ${lun}`;
const INQUIRY = 0x12;
const REPORT_LUNS = 0xa0;

/** Keys of which each side says its own. */
const DECLARED = [
  'MaxRecvDataSegmentLength',
  'InitiatorName',
  'InitiatorAlias',
  'TargetName',
  'TargetAlias',
  'SessionType',
  'TargetPortalGroupTag',
];

/** A target with a discovery portal by TCP and, for RDMA, a portal of that kind. */
class StepsTarget implements AsyncDisposable {
  readonly target: IscsiTarget;
  /** What happens at the portal of the transport under test, and at the one for discovery. */
  readonly observed: ObservedTransport;
  readonly discovery: ObservedTransport;
  readonly log: readonly string[];
  readonly #transports: SteppedTransports;
  readonly #initiators: Initiator[] = [];

  private constructor(parts: Pick<StepsTarget, 'target' | 'observed' | 'discovery' | 'log'>, transports: SteppedTransports) {
    this.target = parts.target;
    this.observed = parts.observed;
    this.discovery = parts.discovery;
    this.log = parts.log;
    this.#transports = transports;
  }

  static async start(transports: SteppedTransports): Promise<StepsTarget> {
    const observed = new ObservedTransport(transports.target);
    const discovery = transports.isRdma ? new ObservedTransport(createTcpTransport()) : observed;
    const log: string[] = [];
    const portal = (transport: TargetTransport): TargetPortal => ({ endpoint: { host: transports.host, port: 0 }, transport });
    const units = LUNS.map((lun) => ({
      lun,
      medium: new MemoryMedium(1024 * 1024),
      blockLength: 512,
      serial: `steps-${lun}`,
      product: productOf(lun),
    }));
    const target = await IscsiTarget.listen({
      portals: transports.isRdma ? [portal(discovery), portal(observed)] : [portal(observed)],
      targets: [{ name: TARGET_NAME, deviceServer: new BlockDeviceServer({ units }) }],
      log: (line) => log.push(line),
    });
    return new StepsTarget({ target, observed, discovery, log }, transports);
  }

  get transport(): InitiatorTransport {
    return this.#transports.initiator;
  }

  /** The portal of the transport under test. */
  get portal(): Endpoint {
    return (this.target.portals.at(-1) as { endpoint: Endpoint }).endpoint;
  }

  options(isid: number = ISID): ConnectionOptions {
    return {
      initiatorName: INITIATOR_NAME,
      isid,
      transport: this.transport,
      loginTimeoutMs: 10_000,
      clock: systemClock,
      random: (length) => randomBytes(length),
    };
  }

  async logIn(isid?: number): Promise<Initiator> {
    const initiator = await Initiator.connect({
      ...this.options(isid),
      targetName: TARGET_NAME,
      portals: [this.portal],
      commandTimeoutMs: 10_000,
      recoveryTimeoutMs: 10_000,
      keepaliveIntervalMs: 5000,
      keepaliveTimeoutMs: 5000,
      maxCommands: 32,
      log: () => {},
    });
    this.#initiators.push(initiator);
    return initiator;
  }

  /** A connection without a login, whose answers the test takes one by one. */
  async connect() {
    const answers = new Answers();
    const datamover = await this.transport.connect(this.portal, answers, { timeoutMs: 10_000 });
    return { datamover, answers };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const initiator of this.#initiators) await initiator.logout();
    await this.target.close('abrupt');
  }
}

/** What a connection without a session brings. */
class Answers implements InitiatorHandler {
  readonly #pdus: TargetControlPdu[] = [];
  #isOver = false;
  #wake: () => void = () => {};

  /** The next PDU; undefined when the connection has ended. */
  async next(): Promise<TargetControlPdu | undefined> {
    while (this.#pdus.length === 0 && !this.#isOver) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#pdus.shift();
  }

  controlNotify(received: TargetControlPdu): void {
    this.#pdus.push({ ...received, data: received.data.slice() });
    this.#wake();
  }

  windowNotify(): void {}

  currentExpStatSn(): number {
    return 0;
  }

  connectionTerminated(): void {
    this.#isOver = true;
    this.#wake();
  }
}

function login(
  options: ConnectionOptions,
  which: { tsih: number; cid: number; offers: Readonly<Record<string, string>> },
): InitiatorLogin {
  const { initiatorName, isid, random } = options;
  return new InitiatorLogin({
    initiatorName,
    isid,
    random,
    sessionType: 'normal',
    targetName: TARGET_NAME,
    cmdSn: 1,
    initialItt: 0,
    ...which,
  });
}

const textOf = (request: Pdu<'login-request'>) => Object.fromEntries(decodeText(request.data));

/** The tests; `makeTransports` gives transports of which the one reaches what listens on the other. */
export function eightSteps(name: string, makeTransports: () => SteppedTransports): void {
  const start = () => StepsTarget.start(makeTransports());

  describe(`the eight steps over ${name}`, () => {
    it('1. discovery: the discovery server names the target and its portals, over TCP', async () => {
      await using steps = await start();
      const options = { ...steps.options(), transport: createTcpTransport() };
      const found = await discoverTargets(options, steps.target.endpoint);
      const portals = steps.target.portals.map(({ endpoint }) => ({ ...endpoint, tpgt: 1 }));
      expect(found).toEqual({ targets: [{ name: TARGET_NAME, portals }], oddities: [] });

      expect(steps.discovery.connections).toHaveLength(1);
      const seen = await steps.discovery.connection(0);
      expect(seen.received('login-request').map(textOf)[0]).toMatchObject({
        InitiatorName: INITIATOR_NAME,
        SessionType: 'Discovery',
      });
      expect(seen.received('text-request').map(({ data }) => decodeText(data))).toEqual([[['SendTargets', 'All']]]);
      expect(seen.received('logout-request')).toMatchObject([{ reason: 0 }]);
      expect(steps.log).toContainEqual(expect.stringContaining(`${INITIATOR_NAME} logged in for discovery`));
      expect(steps.target.sessions).toEqual([]);
    });

    it('2. connect: both ends know each other, and nobody is logged in', async () => {
      await using steps = await start();
      const { datamover } = await steps.connect();
      const seen = await steps.observed.connection(0);
      expect(datamover.remoteAddress).toBe(formatPortal(steps.portal));
      expect([datamover.localAddress, datamover.remoteAddress]).toEqual([seen.remoteAddress, seen.localAddress]);
      expect(Object.keys(datamover.traits).includes('device')).toBe(makeTransports().isRdma);
      expect(seen.events).toEqual([]);
      expect(steps.target.sessions).toEqual([]);
      await datamover.terminate('abrupt');
      await seen.ended;
    });

    it('3. session: the initiator port and the target port have one, with the handle that the target gave', async () => {
      await using steps = await start();
      const one = await steps.logIn(ISID);
      const other = await steps.logIn(ISID + 1);
      const [first, second] = [await steps.observed.connection(0), await steps.observed.connection(1)];
      expect(first.received('login-request').map(({ isid, tsih }) => [isid, tsih])).toContainEqual([ISID, 0]);
      expect(second.received('login-request').map(({ isid, tsih }) => [isid, tsih])).toContainEqual([ISID + 1, 0]);
      const handles = [first, second].map((each) => each.sent('login-response').at(-1)?.tsih);
      expect(handles[0]).not.toBe(handles[1]);
      expect(handles).not.toContain(0);
      expect([one.status.tsih, other.status.tsih]).toEqual(handles);
      expect(steps.target.sessions.map(({ initiatorName, targetName, tsih }) => [initiatorName, targetName, tsih])).toEqual(
        handles.map((tsih) => [INITIATOR_NAME, TARGET_NAME, tsih]),
      );
      await one.logout();
      expect(first.received('logout-request')).toHaveLength(1);
      await expect.poll(() => steps.target.sessions.map(({ tsih }) => tsih)).toEqual([other.status.tsih]);
    });

    it('4. connection: the session has one, number 0, and gets no other', async () => {
      await using steps = await start();
      const initiator = await steps.logIn();
      const seen = await steps.observed.connection(0);
      expect(seen.received('login-request').every(({ cid }) => cid === 0)).toBe(true);
      expect(initiator.status.keys['MaxConnections']).toBe('1');
      expect(steps.target.sessions).toMatchObject([
        { remoteAddress: initiator.status.localAddress, transport: steps.transport.name },
      ]);

      const { datamover, answers } = await steps.connect();
      const offers = datamover.keyOffers('normal');
      datamover.sendControl(login(steps.options(), { tsih: initiator.status.tsih ?? 0, cid: 1, offers }).start());
      // Too many connections (RFC 7143 §11.13.5).
      expect(await answers.next()).toMatchObject({ opcode: 'login-response', statusClass: 2, statusDetail: 6 });
      expect(await answers.next()).toBeUndefined();
      await datamover.terminate('abrupt');
      expect(steps.target.sessions).toMatchObject([{ remoteAddress: initiator.status.localAddress }]);
    });

    it('5. binding: a login moves the session to its connection, and the one before is gone', async () => {
      await using steps = await start();
      const purpose = { sessionType: 'normal', targetName: TARGET_NAME, timeoutMs: 10_000 } as const;
      const first = await openConnection(steps.options(), steps.portal, purpose);
      const before = steps.target.sessions;
      expect(before).toMatchObject([{ remoteAddress: first.datamover.localAddress, tsih: first.result.tsih }]);
      const second = await openConnection(steps.options(), steps.portal, purpose);
      await (await steps.observed.connection(0)).ended;
      expect(steps.target.sessions).toMatchObject([{ remoteAddress: second.datamover.localAddress, tsih: second.result.tsih }]);
      expect(second.datamover.localAddress).not.toBe(first.datamover.localAddress);
      await Promise.all([first, second].map(({ datamover }) => datamover.terminate('abrupt')));
      await (await steps.observed.connection(1)).ended;
    });

    it('6. login negotiation: both sides hold the same keys, and their data movers the same lengths', async () => {
      await using steps = await start();
      const { isRdma } = makeTransports();
      const initiator = await steps.logIn();
      const seen = await steps.observed.connection(0);
      const negotiated = (keys: Readonly<Record<string, string>>) =>
        Object.fromEntries(Object.entries(keys).filter(([key]) => !DECLARED.includes(key)));
      const { keys } = initiator.status;
      expect(negotiated(keys)).toEqual(negotiated(steps.target.sessions[0]?.keys ?? {}));
      expect(keys).toMatchObject({ HeaderDigest: 'None', DataDigest: 'None', ErrorRecoveryLevel: '0', ImmediateData: 'Yes' });
      // Over RDMA everything is said in one exchange; over TCP the security stage comes first.
      expect(seen.received('login-request').map(({ csg, nsg, transit }) => [csg, nsg, transit])).toEqual(
        isRdma
          ? [[1, 3, true]]
          : [
              [0, 1, true],
              [1, 3, true],
            ],
      );
      const offered = textOf(seen.received('login-request').at(-1) as Pdu<'login-request'>);
      if (isRdma) {
        const lengths = { InitiatorRecvDataSegmentLength: '8192', TargetRecvDataSegmentLength: '8192' };
        expect(offered).toMatchObject({ RDMAExtensions: 'Yes', ...lengths, InitialR2T: 'Yes', HeaderDigest: 'None' });
        expect(keys).toMatchObject({ RDMAExtensions: 'Yes', ...lengths, InitialR2T: 'Yes' });
        expect(seen.parameters).toMatchObject({
          maxSendDataSegmentLength: 8192,
          maxRecvDataSegmentLength: 8192,
          initialR2T: true,
        });
      } else {
        expect(offered).not.toHaveProperty('RDMAExtensions');
        expect(keys).not.toHaveProperty('RDMAExtensions');
        expect(seen.parameters?.maxSendDataSegmentLength).toBe(Number(offered['MaxRecvDataSegmentLength']));
      }
    });

    it('7. full-feature phase: it starts with the end of the login, no command before, the CmdSN of the login first', async () => {
      await using steps = await start();
      const early = await steps.connect();
      const command = pdu({ opcode: 'scsi-command', final: true, itt: 7, cmdSn: 1, cdb: testUnitReadyCdb() });
      expect(() => early.datamover.sendControl(command)).toThrow('before login has ended');
      early.datamover.sendControl(pdu({ opcode: 'nop-out', immediate: true, itt: 7, ttt: RESERVED_TAG, cmdSn: 1 }));
      // Invalid during login (RFC 7143 §11.13.5).
      expect(await early.answers.next()).toMatchObject({ opcode: 'login-response', statusClass: 2, statusDetail: 0x0b });
      expect(await early.answers.next()).toBeUndefined();
      await early.datamover.terminate('abrupt');
      expect(steps.log).toContainEqual(expect.stringContaining('nop-out during login'));

      const initiator = await steps.logIn();
      const nexus = await initiator.established();
      const attention = await execute(initiator, { lun: 0n, cdb: testUnitReadyCdb(), nexus });
      const ready = await execute(initiator, { lun: 0n, cdb: testUnitReadyCdb(), nexus });
      // A new nexus has a unit attention, 29/00, to be told first (SAM).
      expect([attention.status, [...attention.sense.subarray(12, 14)], ready.status]).toEqual([2, [0x29, 0], 0]);
      const seen = await steps.observed.connection(1);
      const [firstLogin] = seen.received('login-request');
      expect(seen.received('scsi-command').map(({ cmdSn }) => cmdSn)).toEqual([firstLogin?.cmdSn, (firstLogin?.cmdSn ?? 0) + 1]);
      const order = seen.events.map((event) => (event.type === 'enabled' ? event.type : event.pdu.opcode));
      const lastLoginResponse = order.lastIndexOf('login-response');
      expect(order[lastLoginResponse + 1]).toBe('enabled');
      expect(order.indexOf('scsi-command')).toBeGreaterThan(lastLoginResponse);
    });

    it('8. INQUIRY: every logical unit that REPORT LUNS names says what it is', async () => {
      await using steps = await start();
      const initiator = await steps.logIn();
      const luns = await reportLuns(initiator);
      expect(luns).toEqual(LUNS.map(lunFromNumber));
      for (const [index, lun] of luns.entries()) {
        const dataIn = new Uint8Array(96);
        const command = { lun, cdb: inquiryCdb({ length: dataIn.length }), dataIn, nexus: await initiator.established() };
        expect(await execute(initiator, command)).toMatchObject({ status: 0, transferred: dataIn.length });
        expect(decodeStandardInquiry(dataIn)).toMatchObject({
          vendor: 'ISERFS',
          product: productOf(LUNS[index] ?? 0),
          deviceType: 0,
        });
      }
      const commands = (await steps.observed.connection(0)).received('scsi-command');
      expect(commands.filter(({ cdb }) => cdb[0] === REPORT_LUNS)).toHaveLength(1);
      const inquiries = commands.filter(({ cdb }) => cdb[0] === INQUIRY);
      expect(inquiries.map(({ lun, expectedDataTransferLength }) => [lun, expectedDataTransferLength])).toEqual(
        luns.map((lun) => [lun, 96]),
      );
    });
  });
}
