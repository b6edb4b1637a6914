import type {
  Endpoint,
  TargetDatamover,
  TargetHandler,
  TargetListener,
  TargetTransport,
} from '../../src/iser/datamover/datamover.ts';
import {
  decodePdu,
  encodeBhs,
  type InitiatorControlPdu,
  type Pdu,
  type PduFields,
  pdu,
  type TargetControlPdu,
} from '../../src/iser/iscsi/pdu.ts';
import { RecordingTargetDatamover } from './recording-target-datamover.ts';
import { settle } from './virtual-clock.ts';

/** What a login of a test says; the rest has the value of an ordinary first login. */
export interface HandLogin {
  readonly initiatorName?: string;
  /** `null` leaves the key out. */
  readonly targetName?: string | null;
  readonly sessionType?: 'Normal' | 'Discovery';
  readonly isid?: number;
  readonly tsih?: number;
  readonly cid?: number;
  readonly cmdSn?: number;
}

/** Every key that a session negotiates, so that the target has nothing left to ask for. */
const SESSION_OFFERS = [
  'MaxConnections=1',
  'InitialR2T=Yes',
  'ImmediateData=No',
  'MaxBurstLength=262144',
  'FirstBurstLength=65536',
  'DefaultTime2Wait=0',
  'DefaultTime2Retain=0',
  'MaxOutstandingR2T=1',
  'DataPDUInOrder=Yes',
  'DataSequenceInOrder=Yes',
  'ErrorRecoveryLevel=0',
];

/** A transport whose initiators are played by the test, PDU by PDU. */
export class HandDrivenTransport implements TargetTransport {
  readonly name: TargetTransport['name'];
  #accept: ((datamover: TargetDatamover) => TargetHandler) | undefined;

  constructor(name: TargetTransport['name'] = 'tcp') {
    this.name = name;
  }

  listen(endpoint: Endpoint, accept: (datamover: TargetDatamover) => TargetHandler): Promise<TargetListener> {
    this.#accept = accept;
    const close = () => {
      this.#accept = undefined;
      return Promise.resolve();
    };
    return Promise.resolve({ endpoint: { host: endpoint.host, port: endpoint.port || 3260 }, close });
  }

  get isListening(): boolean {
    return this.#accept !== undefined;
  }

  /** `commandWindow`: how many commands the data mover has room for. */
  connect(localAddress?: string, commandWindow?: number): HandConnection {
    if (this.#accept === undefined) throw new Error('nobody listens');
    const datamover = new RecordingTargetDatamover(localAddress, commandWindow);
    return new HandConnection(datamover, this.#accept(datamover));
  }
}

/** The initiator's end of one connection. */
export class HandConnection {
  readonly datamover: RecordingTargetDatamover;
  readonly #handler: TargetHandler;
  #nextItt = 1;

  constructor(datamover: RecordingTargetDatamover, handler: TargetHandler) {
    this.datamover = datamover;
    this.#handler = handler;
  }

  /** Sends a PDU through its bytes; returns its task tag. */
  send(fields: PduFields<InitiatorControlPdu['opcode']>): number {
    const itt = fields.itt ?? this.#nextItt++;
    const whole = pdu({ ...fields, itt } as PduFields<'nop-out'>);
    this.#handler.controlNotify(decodePdu(encodeBhs(whole), whole.data, whole.ahs) as Pdu<'nop-out'>);
    return itt;
  }

  /** The initiator's end of the connection goes away. */
  drop(): void {
    this.#handler.connectionTerminated(new Error('connection reset'));
  }

  async take(): Promise<TargetControlPdu[]> {
    await settle();
    return this.datamover.take();
  }

  /** The one PDU that has been sent since the last look. */
  async takeOne<N extends TargetControlPdu['opcode']>(opcode: N): Promise<Pdu<N>> {
    const sent = await this.take();
    if (sent.length !== 1 || sent[0]?.opcode !== opcode) {
      throw new Error(`expected one ${opcode}, got ${sent.map((each) => each.opcode).join(', ') || 'nothing'}`);
    }
    return sent[0] as unknown as Pdu<N>;
  }

  /** Sends what a login needs that skips the security stage: one request (RFC 7143 §6.3). The response is for the test to take. */
  sendLogin(options: HandLogin = {}): void {
    const { sessionType = 'Normal', targetName = 'iqn.2026-01.org.iserfs:disk' } = options;
    const pairs = [
      `InitiatorName=${options.initiatorName ?? 'iqn.2026-01.org.iserfs:initiator'}`,
      `SessionType=${sessionType}`,
      ...(sessionType === 'Normal' && targetName !== null ? [`TargetName=${targetName}`] : []),
      'HeaderDigest=None',
      'DataDigest=None',
      'MaxRecvDataSegmentLength=8192',
      ...(sessionType === 'Normal' ? SESSION_OFFERS : []),
    ];
    this.send({
      opcode: 'login-request',
      transit: true,
      csg: 1,
      nsg: 3,
      isid: options.isid ?? 0x80_0000_0000_01,
      tsih: options.tsih ?? 0,
      cid: options.cid ?? 1,
      cmdSn: options.cmdSn ?? 1,
      data: new TextEncoder().encode(pairs.map((pair) => `${pair}\0`).join('')),
    });
  }

  /** Logs in; throws unless the target lets the initiator in at the end. Answers what the target offers with what it wants. */
  async login(options: HandLogin = {}): Promise<Pdu<'login-response'>> {
    this.sendLogin(options);
    return await this.loginResponse();
  }

  /** The response that ends the login with success. */
  async loginResponse(): Promise<Pdu<'login-response'>> {
    const response = await this.takeOne('login-response');
    if (response.statusClass !== 0 || !response.transit || response.nsg !== 3) {
      throw new Error(`login status ${response.statusClass}/${response.statusDetail}, stage ${response.nsg}`);
    }
    return response;
  }
}
