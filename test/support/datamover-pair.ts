/**
 * Two connected data movers with the sessions left out: the test is both session machines. It logs in
 * with one exchange, sees every notification in order, and finds out whether a handler is ever called
 * from inside of a data mover's method or after the end.
 */

import type {
  DataParameters,
  Endpoint,
  InitiatorDatamover,
  InitiatorHandler,
  InitiatorTransport,
  TargetDatamover,
  TargetHandler,
  TargetListener,
  TargetTask,
  TargetTransport,
} from '../../src/iser/datamover/datamover.ts';
import {
  type InitiatorControlPdu,
  NO_BYTES,
  type Pdu,
  type PduFields,
  pdu,
  type TargetControlPdu,
} from '../../src/iser/iscsi/pdu.ts';

export const ordinaryParameters: DataParameters = {
  headerDigest: false,
  dataDigest: false,
  maxSendDataSegmentLength: 65_536,
  maxRecvDataSegmentLength: 65_536,
  maxBurstLength: 262_144,
  firstBurstLength: 16_384,
  initialR2T: true,
  immediateData: true,
  maxOutstandingR2T: 1,
};

/** What has come, to be awaited one by one. */
class Inbox<T> {
  readonly #items: T[] = [];
  readonly #waiting: ((item: T) => void)[] = [];

  put(item: T): void {
    const waiter = this.#waiting.shift();
    if (waiter === undefined) this.#items.push(item);
    else waiter(item);
  }

  get size(): number {
    return this.#items.length;
  }

  next(): Promise<T> {
    const item = this.#items.shift();
    return item === undefined ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve(item);
  }
}

/** What both ends keep about their handler's calls. */
class Notifications {
  readonly faults: string[] = [];
  readonly terminated: Promise<Error | undefined>;
  isTerminated = false;
  #resolve: (error: Error | undefined) => void = () => {};
  #depth = 0;

  constructor() {
    this.terminated = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  /** The data mover, with each call of a method noted while it lasts. */
  watch<D extends object>(datamover: D): D {
    return new Proxy(datamover, {
      get: (real, name) => {
        const value = Reflect.get(real, name, real) as unknown;
        if (typeof value !== 'function') return value;
        return (...args: unknown[]) => {
          this.#depth++;
          try {
            return value.apply(real, args) as unknown;
          } finally {
            this.#depth--;
          }
        };
      },
    });
  }

  note(call: string): void {
    if (this.#depth > 0) this.faults.push(`${call} from inside of a method`);
    if (this.isTerminated) this.faults.push(`${call} after connectionTerminated`);
  }

  end(error: Error | undefined): void {
    this.note('connectionTerminated');
    this.isTerminated = true;
    this.#resolve(error);
  }
}

export class InitiatorEnd implements InitiatorHandler {
  readonly notifications = new Notifications();
  readonly #inbox = new Inbox<{ readonly pdu: TargetControlPdu; readonly transferred: number }>();
  /** Called first with each control PDU. */
  onPdu: (pdu: TargetControlPdu) => void = () => {};
  windows: [number, number][] = [];
  #datamover: InitiatorDatamover | undefined;

  attach(datamover: InitiatorDatamover): void {
    this.#datamover = this.notifications.watch(datamover);
  }

  get datamover(): InitiatorDatamover {
    if (this.#datamover === undefined) throw new Error('not connected');
    return this.#datamover;
  }

  get received(): number {
    return this.#inbox.size;
  }

  next(): Promise<{ readonly pdu: TargetControlPdu; readonly transferred: number }> {
    return this.#inbox.next();
  }

  /** Sends a READ-like or WRITE-like command of LUN 1 for the length of its buffer. */
  command(itt: number, buffers: { readonly dataIn?: Uint8Array; readonly dataOut?: Uint8Array }): void {
    this.datamover.sendControl(
      pdu({
        opcode: 'scsi-command',
        itt,
        lun: 1n,
        read: buffers.dataIn !== undefined,
        write: buffers.dataOut !== undefined,
        expectedDataTransferLength: (buffers.dataIn ?? buffers.dataOut ?? NO_BYTES).length,
      }),
      buffers,
    );
  }

  controlNotify(received: TargetControlPdu, transferred: number): void {
    this.notifications.note('controlNotify');
    this.#inbox.put({ pdu: { ...received, data: received.data.slice() }, transferred });
    this.onPdu(received);
  }

  windowNotify(expCmdSn: number, maxCmdSn: number): void {
    this.notifications.note('windowNotify');
    this.windows.push([expCmdSn, maxCmdSn]);
  }

  currentExpStatSn(): number {
    return 1;
  }

  connectionTerminated(error?: Error): void {
    this.notifications.end(error);
  }
}

export class TargetEnd implements TargetHandler {
  readonly notifications = new Notifications();
  readonly datamover: TargetDatamover;
  readonly #inbox = new Inbox<InitiatorControlPdu>();
  onPdu: (pdu: InitiatorControlPdu) => void = () => {};

  constructor(datamover: TargetDatamover) {
    this.datamover = this.notifications.watch(datamover);
  }

  get received(): number {
    return this.#inbox.size;
  }

  next(): Promise<InitiatorControlPdu> {
    return this.#inbox.next();
  }

  async nextCommand(): Promise<TargetTask> {
    const received = await this.next();
    if (received.opcode !== 'scsi-command') throw new Error(`${received.opcode} instead of a command`);
    return received;
  }

  /** GOOD status, and the task is forgotten. */
  respond(task: TargetTask, fields: Partial<PduFields<'scsi-response'>> = {}): void {
    this.datamover.sendControl(pdu({ opcode: 'scsi-response', itt: task.itt, ...fields }));
    this.datamover.deallocateTask(task.itt);
  }

  controlNotify(received: InitiatorControlPdu): void {
    this.notifications.note('controlNotify');
    const kept = { ...received, data: received.data.slice() } as Pdu;
    this.#inbox.put((kept.opcode === 'scsi-command' ? { ...kept, cdb: kept.cdb.slice() } : kept) as InitiatorControlPdu);
    this.onPdu(received);
  }

  currentNumbering(): { statSn: number; expCmdSn: number; maxCmdSn: number } {
    return { statSn: 5, expCmdSn: 6, maxCmdSn: 7 };
  }

  connectionTerminated(error?: Error): void {
    this.notifications.end(error);
  }
}

export interface Transports {
  readonly initiator: InitiatorTransport;
  readonly target: TargetTransport;
  /** Where to listen; port 0 picks a free one. */
  readonly endpoint: Endpoint;
}

export class DatamoverPair implements AsyncDisposable {
  readonly initiator: InitiatorEnd;
  readonly target: TargetEnd;
  readonly listener: TargetListener;
  readonly transports: Transports;

  private constructor(transports: Transports, listener: TargetListener, initiator: InitiatorEnd, target: TargetEnd) {
    this.transports = transports;
    this.listener = listener;
    this.initiator = initiator;
    this.target = target;
  }

  /** Connected, and in the login phase. */
  static async connect(transports: Transports): Promise<DatamoverPair> {
    const accepted = new Inbox<TargetEnd>();
    const listener = await transports.target.listen(transports.endpoint, (datamover) => {
      const end = new TargetEnd(datamover);
      accepted.put(end);
      return end;
    });
    const initiator = new InitiatorEnd();
    initiator.attach(await transports.initiator.connect(listener.endpoint, initiator, { timeoutMs: 10_000 }));
    return new DatamoverPair(transports, listener, initiator, await accepted.next());
  }

  /** In the full-feature phase, with `parameters` as the initiator sees them. */
  static async logIn(transports: Transports, parameters: Partial<DataParameters> = {}): Promise<DatamoverPair> {
    const pair = await DatamoverPair.connect(transports);
    await pair.logIn({ ...ordinaryParameters, ...parameters });
    return pair;
  }

  async logIn(parameters: DataParameters): Promise<void> {
    this.initiator.datamover.sendControl(pdu({ opcode: 'login-request', itt: 0, transit: true, csg: 1, nsg: 3 }));
    await this.target.next();
    this.target.datamover.sendControl(pdu({ opcode: 'login-response', itt: 0, transit: true, csg: 1, nsg: 3 }));
    this.target.datamover.enable({
      ...parameters,
      maxSendDataSegmentLength: parameters.maxRecvDataSegmentLength,
      maxRecvDataSegmentLength: parameters.maxSendDataSegmentLength,
    });
    await this.initiator.next();
    this.initiator.datamover.enable(parameters);
  }

  /** Ends both and throws where either broke the contract of its handler's calls. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.listener.close();
    await Promise.all([this.initiator.datamover.terminate('abrupt'), this.target.datamover.terminate('abrupt')]);
    await Promise.all([this.initiator.notifications.terminated, this.target.notifications.terminated]);
    await new Promise((resolve) => setImmediate(resolve));
    const faults = [...this.initiator.notifications.faults, ...this.target.notifications.faults];
    if (faults.length > 0) throw new Error(`handlers were called wrongly: ${faults.join('; ')}`);
  }
}

/** `length` bytes of which each depends on its offset. */
export function patternBytes(length: number, from = 0): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let index = 0; index < length; index++) {
    const at = from + index;
    bytes[index] = (at * 7 + (at >>> 8) * 3 + (at >>> 16)) & 0xff;
  }
  return bytes;
}
