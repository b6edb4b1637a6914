/** A transport whose targets are played by the test: every connection keeps what was sent, and is answered by hand. */

import { IserfsError } from '../../src/errors.ts';
import type {
  ConnectOptions,
  Endpoint,
  InitiatorDatamover,
  InitiatorHandler,
  InitiatorTransport,
  KeyOffers,
} from '../../src/iser/datamover/datamover.ts';
import { type InitiatorControlPdu, type Pdu, type PduFields, pdu, type TargetControlPdu } from '../../src/iser/iscsi/pdu.ts';
import { decodeText, encodeText } from '../../src/iser/iscsi/text.ts';
import { RecordingDatamover } from './recording-datamover.ts';

/** What an iSER data mover offers. */
export const ISER_OFFERS: KeyOffers = {
  RDMAExtensions: 'Yes',
  InitiatorRecvDataSegmentLength: '8192',
  TargetRecvDataSegmentLength: '8192',
};

/** Numbers of a login response, for a login with CmdSN 1: as LIO has them, and as tgtd has them over iSER. */
export const SOUND_NUMBERS = { expCmdSn: 1, maxCmdSn: 1 };
export const TGTD_NUMBERS = { expCmdSn: 2, maxCmdSn: 1 };

export class PlayedTarget implements InitiatorTransport {
  readonly name: InitiatorTransport['name'];
  readonly connections: PlayedConnection[] = [];
  /** Attempts to connect that were given up by their signal. */
  abortedConnects = 0;
  /** While set, no attempt to connect comes to its end. */
  holdsConnects = false;
  #release: () => void = () => {};
  readonly #offers: KeyOffers;

  constructor(options: { readonly name?: InitiatorTransport['name']; readonly offers?: KeyOffers } = {}) {
    this.name = options.name ?? 'iwarp';
    this.#offers = options.offers ?? ISER_OFFERS;
  }

  async connect(_endpoint: Endpoint, handler: InitiatorHandler, { signal }: ConnectOptions): Promise<InitiatorDatamover> {
    if (this.holdsConnects) {
      await new Promise<void>((resolve, reject) => {
        this.#release = resolve;
        signal?.addEventListener('abort', () => {
          this.abortedConnects++;
          reject(new IserfsError('aborted', 'connecting was aborted'));
        });
      });
    }
    const connection = new PlayedConnection(handler, this.#offers);
    this.connections.push(connection);
    return connection.datamover;
  }

  /** Lets the held attempt to connect come to its end. */
  releaseConnect(): void {
    this.#release();
  }

  get newest(): PlayedConnection {
    const newest = this.connections.at(-1);
    if (newest === undefined) throw new Error('nobody has connected');
    return newest;
  }
}

export class PlayedConnection {
  readonly datamover: OfferingDatamover;
  readonly #handler: InitiatorHandler;
  #statSn = 1;

  constructor(handler: InitiatorHandler, offers: KeyOffers) {
    this.#handler = handler;
    this.datamover = new OfferingDatamover(offers);
  }

  /** The PDUs sent since the last look. */
  take(): InitiatorControlPdu[] {
    return this.datamover.take();
  }

  /** Sends a PDU, numbered. */
  send(fields: PduFields<TargetControlPdu['opcode']>): void {
    const whole = pdu({ ...fields, statSn: this.#statSn++ } as PduFields<'nop-in'>);
    this.#handler.controlNotify(whole as TargetControlPdu, 0);
  }

  /** Answers the one login request that is waiting. */
  answerLogin(fields: Partial<PduFields<'login-response'>>, keys: Readonly<Record<string, string>> = {}): void {
    const [request, ...more] = this.take();
    if (request?.opcode !== 'login-request' || more.length > 0) throw new Error('not one login request');
    const { itt, isid, csg } = request;
    this.send({ opcode: 'login-response', itt, isid, csg, ...SOUND_NUMBERS, data: encodeText(Object.entries(keys)), ...fields });
  }

  /** Lets the initiator in: grants what the one request asked for. */
  grantLogin(numbers: { expCmdSn: number; maxCmdSn: number } = SOUND_NUMBERS): void {
    const request = this.datamover.sent[0]?.pdu;
    const offered = new Map(decodeText(request?.data ?? new Uint8Array(0)));
    const granted = ['RDMAExtensions', 'InitiatorRecvDataSegmentLength', 'TargetRecvDataSegmentLength'];
    const keys = granted.flatMap((name) => (offered.has(name) ? [[name, offered.get(name) ?? '']] : []));
    this.answerLogin({ transit: true, csg: 1, nsg: 3, tsih: 1, ...numbers }, Object.fromEntries(keys) as Record<string, string>);
  }

  /** The connection ends. */
  close(error?: Error): void {
    this.#handler.connectionTerminated(error);
  }

  /** The one PDU sent since the last look. */
  takeOne<N extends InitiatorControlPdu['opcode']>(opcode: N): Pdu<N> {
    const sent = this.take();
    if (sent.length !== 1 || sent[0]?.opcode !== opcode) {
      throw new Error(`expected one ${opcode}, got ${sent.map((each) => each.opcode).join(', ') || 'nothing'}`);
    }
    return sent[0] as unknown as Pdu<N>;
  }
}

class OfferingDatamover extends RecordingDatamover {
  readonly #offers: KeyOffers;

  constructor(offers: KeyOffers) {
    super();
    this.#offers = offers;
  }

  override keyOffers(sessionType: 'normal' | 'discovery' = 'normal'): KeyOffers {
    return sessionType === 'normal' ? this.#offers : {};
  }
}
