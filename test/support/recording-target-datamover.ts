import type { DataParameters, KeyOffers, TargetDatamover, TargetTask } from '../../src/iser/datamover/datamover.ts';
import type { TargetControlPdu } from '../../src/iser/iscsi/pdu.ts';

/**
 * A target's data mover without a peer: keeps what it was asked to send, keeps data where a test can look,
 * and counts the tasks whose data it holds.
 */
export class RecordingTargetDatamover implements TargetDatamover {
  readonly transport = 'recording';
  readonly traits = {};
  readonly maxTransferLength = 512 * 1024;
  readonly localAddress: string;
  readonly remoteAddress = '127.0.0.1:40000';
  readonly #sent: TargetControlPdu[] = [];
  readonly puts: { readonly itt: number; readonly offset: number; readonly data: Uint8Array }[] = [];
  /** What `getData` reads, by initiator task tag. */
  readonly writeBuffers = new Map<number, Uint8Array>();
  readonly deallocated: number[] = [];
  terminated: 'orderly' | 'abrupt' | undefined;
  enabled: DataParameters | undefined;
  /** While set, an orderly termination waits for an abrupt one: the initiator takes nothing. */
  holdOrderly = false;
  #resolveTerminated: () => void = () => {};
  /** While set, `getData` waits: the initiator gives nothing. */
  holdData = false;
  readonly #waiting = new Map<number, (reason: Error) => void>();

  readonly commandWindow: number | undefined;

  constructor(localAddress = '127.0.0.1:3260', commandWindow?: number) {
    this.localAddress = localAddress;
    this.commandWindow = commandWindow;
  }

  keyOffers(): KeyOffers {
    return { MaxRecvDataSegmentLength: '262144' };
  }

  enable(parameters: DataParameters): void {
    this.enabled = parameters;
  }

  sendControl(pdu: TargetControlPdu): void {
    this.#sent.push(pdu);
  }

  putData(task: TargetTask, offset: number, data: Uint8Array): Promise<void> {
    this.puts.push({ itt: task.itt, offset, data: data.slice() });
    return Promise.resolve();
  }

  getData(task: TargetTask, offset: number, into: Uint8Array): Promise<void> {
    if (this.holdData) return new Promise((_, reject) => this.#waiting.set(task.itt, reject));
    const buffer = this.writeBuffers.get(task.itt);
    if (buffer === undefined) return Promise.reject(new Error('no data'));
    into.set(buffer.subarray(offset, offset + into.length));
    return Promise.resolve();
  }

  deallocateTask(itt: number): void {
    this.deallocated.push(itt);
    this.#waiting.get(itt)?.(new Error('deallocated'));
    this.#waiting.delete(itt);
  }

  terminate(mode: 'orderly' | 'abrupt'): Promise<void> {
    this.terminated ??= mode;
    for (const itt of [...this.#waiting.keys()]) this.deallocateTask(itt);
    if (mode === 'abrupt' || !this.holdOrderly) {
      this.#resolveTerminated();
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      this.#resolveTerminated = resolve;
    });
  }

  /** Takes the PDUs sent since the last call. */
  take(): TargetControlPdu[] {
    return this.#sent.splice(0);
  }
}
