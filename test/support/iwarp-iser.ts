/**
 * iSER over a raw iWARP connection, played by a test as the target or as the initiator: PDUs in Sends as they should be, unless the
 * test has something else sent. It does the login and the numbering; what comes of commands is the test's affair.
 */

import type { Endpoint } from '../../src/iser/datamover/datamover.ts';
import { type IserHeader, PLAIN_HEADER } from '../../src/iser/datamover/iser-header.ts';
import { decodeMessage, encodeMessage, LONGEST_AHS, MESSAGE_HEADER_LENGTH } from '../../src/iser/datamover/iser-message.ts';
import { type Pdu, type PduFields, pdu } from '../../src/iser/iscsi/pdu.ts';
import { decodeText, encodeText } from '../../src/iser/iscsi/text.ts';
import { Opcode } from './iwarp-codec.ts';
import { IwarpPeer, type IwarpPeerListener } from './iwarp-peer.ts';

/** What comes from an initiator: the PDU, and the memory that it advertises. */
export interface Request {
  readonly header: IserHeader;
  readonly pdu: Pdu;
}

/** Keys that a target answers a login with; the initiator's own offers are taken over where they are not named. */
const ANSWERED_KEYS = [
  'HeaderDigest',
  'DataDigest',
  'RDMAExtensions',
  'InitiatorRecvDataSegmentLength',
  'TargetRecvDataSegmentLength',
  'MaxConnections',
  'InitialR2T',
  'ImmediateData',
  'MaxBurstLength',
  'FirstBurstLength',
  'DefaultTime2Wait',
  'DefaultTime2Retain',
  'MaxOutstandingR2T',
  'ErrorRecoveryLevel',
  'DataPDUInOrder',
  'DataSequenceInOrder',
];

/** Commands that may be under way beyond the one that came last. */
const WINDOW = 32;

export class RawIserTarget implements AsyncDisposable {
  readonly peer: IwarpPeer;
  #statSn = 1;
  #expCmdSn = 1;

  private constructor(peer: IwarpPeer) {
    this.peer = peer;
  }

  /** The next connection, as far as MPA brings it. */
  static async accept(listener: IwarpPeerListener): Promise<RawIserTarget> {
    const peer = await listener.accept();
    await peer.accepted();
    return new RawIserTarget(peer);
  }

  /** The next connection, logged in; `keys` instead of what would be answered. */
  static async logIn(listener: IwarpPeerListener, keys: Readonly<Record<string, string>> = {}): Promise<RawIserTarget> {
    const target = await RawIserTarget.accept(listener);
    for (;;) {
      const request = await target.receive('login-request');
      target.answerLogin(request, keys);
      if (request.transit && request.nsg === 3) return target;
    }
  }

  /** Grants what `request` asks for. */
  answerLogin(
    request: Pdu<'login-request'>,
    keys: Readonly<Record<string, string>> = {},
    fields: Partial<PduFields<'login-response'>> = {},
  ): void {
    const offered = new Map(decodeText(request.data));
    const answer = new Map<string, string>();
    if (request.csg === 0) answer.set('AuthMethod', 'None');
    for (const name of ANSWERED_KEYS) {
      const value = keys[name] ?? offered.get(name);
      if (offered.has(name) && value !== undefined) answer.set(name, value);
    }
    if (request.csg === 1 && !offered.has('ImmediateData')) answer.set('ImmediateData', keys['ImmediateData'] ?? 'No');
    this.#expCmdSn = request.cmdSn;
    const { itt, isid, transit, csg, nsg } = request;
    const tsih = transit && nsg === 3 ? 1 : 0;
    this.send({ opcode: 'login-response', itt, isid, transit, csg, nsg, tsih, data: encodeText([...answer]), ...fields });
  }

  /** The next PDU; writes of no bytes, which mean nothing, are passed over. */
  async request(): Promise<Request> {
    const { header, pdu: received } = decodeMessage(await receiveMessage(this.peer));
    if ('cmdSn' in received && received.opcode !== 'login-request' && !received.immediate)
      this.#expCmdSn = (received.cmdSn + 1) >>> 0;
    return { header, pdu: received };
  }

  async receive<N extends Pdu['opcode']>(opcode: N): Promise<Pdu<N>> {
    return expectOpcode((await this.request()).pdu, opcode);
  }

  /** A SCSI Command and what it advertises. */
  async command(): Promise<{ readonly header: IserHeader; readonly pdu: Pdu<'scsi-command'> }> {
    const { header, pdu: received } = await this.request();
    return { header, pdu: expectOpcode(received, 'scsi-command') };
  }

  send(fields: Parameters<typeof pdu>[0], invalidate?: number): void {
    const numbering = { statSn: this.#statSn++, expCmdSn: this.#expCmdSn, maxCmdSn: this.#expCmdSn + WINDOW };
    const bytes = messageOf(pdu({ ...numbering, ...fields } as PduFields<'nop-in'>));
    this.peer.send(bytes, invalidate === undefined ? {} : { opcode: Opcode.sendInvalidate, invalidate });
  }

  /** GOOD status. */
  respond(command: Pdu<'scsi-command'>, fields: Partial<PduFields<'scsi-response'>> = {}, invalidate?: number): void {
    this.send({ opcode: 'scsi-response', itt: command.itt, ...fields }, invalidate);
  }

  /** Answers whatever comes until the initiator has logged out. */
  async serveToTheEnd(): Promise<void> {
    for (;;) {
      const { pdu: received } = await this.request();
      if (received.opcode === 'scsi-command') this.respond(received);
      if (received.opcode === 'nop-out' && received.itt !== 0xffff_ffff)
        this.send({ opcode: 'nop-in', itt: received.itt, ttt: 0xffff_ffff });
      if (received.opcode !== 'logout-request') continue;
      this.send({ opcode: 'logout-response', itt: received.itt });
      await this.peer.ended();
      await this.peer.finish();
      return;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.peer[Symbol.asyncDispose]();
  }
}

/** What an initiator of a test is called and looks for. */
export interface RawIserLogin {
  readonly targetName: string;
  readonly initiatorName?: string;
  readonly isid?: number;
  readonly keys?: Readonly<Record<string, string>>;
}

export class RawIserInitiator implements AsyncDisposable {
  readonly peer: IwarpPeer;
  #cmdSn = 1;
  #expStatSn = 0;
  #nextItt = 1;

  private constructor(peer: IwarpPeer) {
    this.peer = peer;
  }

  /** A connection, as far as MPA brings it. */
  static async connect(endpoint: Endpoint): Promise<RawIserInitiator> {
    const peer = await IwarpPeer.connect(endpoint);
    await peer.connected();
    return new RawIserInitiator(peer);
  }

  /** Over a connection that MPA has brought up. */
  static on(peer: IwarpPeer): RawIserInitiator {
    return new RawIserInitiator(peer);
  }

  static async logIn(endpoint: Endpoint, login: RawIserLogin): Promise<RawIserInitiator> {
    const initiator = await RawIserInitiator.connect(endpoint);
    initiator.askToLogIn(login);
    const response = await initiator.receive('login-response');
    if (response.statusClass !== 0 || !response.transit)
      throw new Error(`login refused: ${response.statusClass}/${response.statusDetail}`);
    return initiator;
  }

  askToLogIn({
    targetName,
    initiatorName = 'iqn.2026-01.io.iserfs.test:raw',
    isid = 0x80_00_00_00_77_00,
    keys = {},
  }: RawIserLogin): void {
    const offers = {
      InitiatorName: initiatorName,
      TargetName: targetName,
      SessionType: 'Normal',
      HeaderDigest: 'None',
      DataDigest: 'None',
      RDMAExtensions: 'Yes',
      InitiatorRecvDataSegmentLength: '8192',
      TargetRecvDataSegmentLength: '8192',
      MaxConnections: '1',
      InitialR2T: 'Yes',
      ImmediateData: 'Yes',
      MaxBurstLength: '262144',
      FirstBurstLength: '8192',
      DefaultTime2Wait: '0',
      DefaultTime2Retain: '0',
      MaxOutstandingR2T: '1',
      ErrorRecoveryLevel: '0',
      DataPDUInOrder: 'Yes',
      DataSequenceInOrder: 'Yes',
      ...keys,
    };
    const data = encodeText(Object.entries(offers));
    this.send({ opcode: 'login-request', transit: true, csg: 1, nsg: 3, isid, cmdSn: this.#cmdSn, data });
  }

  /** A PDU with the next task tag and number; returns the tag. */
  send(fields: Parameters<typeof pdu>[0], header: IserHeader = PLAIN_HEADER): number {
    const itt = this.#nextItt++;
    const isNumbered = fields.opcode === 'scsi-command' || fields.opcode === 'text-request';
    const numbering = { itt, cmdSn: this.#cmdSn, expStatSn: this.#expStatSn };
    if (isNumbered) this.#cmdSn++;
    this.peer.send(messageOf(pdu({ ...numbering, ...fields } as PduFields<'nop-out'>), header));
    return itt;
  }

  /** A SCSI command of `length` bytes one way; advertises `header` for it. */
  command(
    cdb: Uint8Array,
    direction: 'read' | 'write',
    length: number,
    header: IserHeader,
    fields: Partial<PduFields<'scsi-command'>> = {},
  ): number {
    const padded = new Uint8Array(16);
    padded.set(cdb);
    const moves = { read: direction === 'read', write: direction === 'write', expectedDataTransferLength: length };
    return this.send({ opcode: 'scsi-command', final: true, attribute: 1, lun: 0n, cdb: padded, ...moves, ...fields }, header);
  }

  async receive<N extends Pdu['opcode']>(opcode: N): Promise<Pdu<N>> {
    const received = decodeMessage(await receiveMessage(this.peer)).pdu;
    if ('statSn' in received) this.#expStatSn = received.statSn + 1;
    return expectOpcode(received, opcode);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.peer[Symbol.asyncDispose]();
  }
}

/** The message that carries `source`. */
export function messageOf(source: Pdu, header: IserHeader = PLAIN_HEADER): Uint8Array {
  const bytes = new Uint8Array(MESSAGE_HEADER_LENGTH + LONGEST_AHS + source.data.length);
  return bytes.subarray(0, encodeMessage(bytes, header, source));
}

async function receiveMessage(peer: IwarpPeer): Promise<Uint8Array> {
  for (;;) {
    const segment = await peer.receiveSegment();
    if (segment.tagged && segment.opcode === Opcode.write && segment.payload.length === 0) continue;
    // Everything that iserfs sends fits into one frame.
    if (segment.tagged || !segment.last || segment.opcode === Opcode.readRequest)
      throw new Error(`not a message: opcode ${segment.opcode}`);
    if (segment.opcode === Opcode.terminate) throw new Error('Terminate instead of a message');
    return segment.payload;
  }
}

function expectOpcode<N extends Pdu['opcode']>(received: Pdu, opcode: N): Pdu<N> {
  if (received.opcode !== opcode) throw new Error(`${received.opcode} instead of ${opcode}`);
  return received as unknown as Pdu<N>;
}
