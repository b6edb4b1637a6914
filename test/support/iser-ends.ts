/**
 * One iSER data mover, with a test at both of its sides: its session machine above, and the bare end of the RDMA
 * connection as its peer. What it leaves behind of its memory is found out at the end.
 */

import type { DataParameters } from '../../src/iser/datamover/datamover.ts';
import { IserBuffers } from '../../src/iser/datamover/iser-buffers.ts';
import { decodeIserHeader, type IserHeader, PLAIN_HEADER } from '../../src/iser/datamover/iser-header.ts';
import { IserInitiator } from '../../src/iser/datamover/iser-initiator.ts';
import { decodeMessage, encodeMessage, LONGEST_AHS, MESSAGE_HEADER_LENGTH } from '../../src/iser/datamover/iser-message.ts';
import { type IserOptions, iserOptions } from '../../src/iser/datamover/iser-options.ts';
import { IserTarget } from '../../src/iser/datamover/iser-target.ts';
import { type Pdu, pdu } from '../../src/iser/iscsi/pdu.ts';
import { createMemoryProviders, type MemoryProviderOptions, type MemoryProviders } from '../../src/iser/rdma/memory.ts';
import { InitiatorEnd, ordinaryParameters, TargetEnd } from './datamover-pair.ts';
import { RdmaPeer } from './rdma-peer.ts';

/** What iserfs agrees on with most targets. */
export const iserParameters: DataParameters = {
  ...ordinaryParameters,
  rdmaExtensions: true,
  maxSendDataSegmentLength: 8192,
  maxRecvDataSegmentLength: 8192,
};

const MESSAGE_LENGTH = MESSAGE_HEADER_LENGTH + LONGEST_AHS + 8192 + 3;
const endpoint = { host: '127.0.0.1', port: 0 };
/** As ib_iser and LIO say it: virtual addresses, Send with Invalidate allowed. */
const ORDINARY_PRIVATE_DATA = Uint8Array.of(0x80, 0, 0, 0);

export interface IserEndsOptions {
  readonly options?: Partial<IserOptions>;
  readonly providers?: MemoryProviderOptions;
  /** That of the peer. */
  readonly privateData?: Uint8Array;
}

/** An initiator's data mover between its session machine and a target that the test plays. */
export class InitiatorUnderTest implements AsyncDisposable {
  readonly end: InitiatorEnd;
  readonly peer: RdmaPeer;
  readonly providers: MemoryProviders;
  readonly buffers: IserBuffers;

  private constructor(parts: Pick<InitiatorUnderTest, 'end' | 'peer' | 'providers' | 'buffers'>) {
    this.end = parts.end;
    this.peer = parts.peer;
    this.providers = parts.providers;
    this.buffers = parts.buffers;
  }

  static async connect({ options = {}, providers: timing, privateData = ORDINARY_PRIVATE_DATA }: IserEndsOptions = {}) {
    const providers = createMemoryProviders(timing);
    const peer = new RdmaPeer(providers.target.memory);
    const listener = await providers.target.listen(endpoint, (request) => {
      request.accept(peer.options(privateData), peer).then(
        (queuePair) => peer.open(queuePair),
        () => {},
      );
    });
    const buffers = new IserBuffers(providers.initiator.memory, MESSAGE_LENGTH);
    const end = new InitiatorEnd();
    const datamover = new IserInitiator({ transport: 'iwarp', options: iserOptions(options), buffers }, end);
    const connecting = { ...datamover.queuePairOptions, timeoutMs: 10_000 };
    datamover.open(await providers.initiator.connect(listener.endpoint, connecting, datamover));
    end.attach(datamover);
    return new InitiatorUnderTest({ end, peer, providers, buffers });
  }

  static async logIn(options: IserEndsOptions & { readonly parameters?: Partial<DataParameters> } = {}) {
    const ends = await InitiatorUnderTest.connect(options);
    ends.end.datamover.sendControl(pdu({ opcode: 'login-request', itt: 0, transit: true, csg: 1, nsg: 3 }));
    await ends.peer.next();
    ends.answer({ opcode: 'login-response', itt: 0, transit: true, csg: 1, nsg: 3 });
    await ends.end.next();
    ends.end.datamover.enable({ ...iserParameters, ...options.parameters });
    return ends;
  }

  /** Registered memory of the initiator's. */
  memoryFor(length: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.providers.initiator.memory.allocate(length), 0, length);
  }

  /** The next PDU that the target gets. */
  async nextPdu(): Promise<{ readonly header: IserHeader; readonly pdu: Pdu; readonly message: Uint8Array }> {
    const { bytes } = await this.peer.next();
    return { ...decodeMessage(bytes), message: bytes };
  }

  /** The target sends a PDU, in a plain header. */
  answer(fields: Parameters<typeof pdu>[0], invalidate?: number): void {
    this.peer.send(messageOf(pdu(fields)), invalidate).catch(() => {});
  }

  /** Ends the connection; throws where memory is left over or the handler was called wrongly. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.end.datamover.terminate('abrupt');
    await this.end.notifications.terminated;
    checkLeftOver(this.buffers, this.end.notifications.faults);
  }
}

/** A target's data mover between its session machine and an initiator that the test plays. */
export class TargetUnderTest implements AsyncDisposable {
  readonly end: TargetEnd;
  readonly peer: RdmaPeer;
  readonly providers: MemoryProviders;
  readonly buffers: IserBuffers;

  private constructor(parts: Pick<TargetUnderTest, 'end' | 'peer' | 'providers' | 'buffers'>) {
    this.end = parts.end;
    this.peer = parts.peer;
    this.providers = parts.providers;
    this.buffers = parts.buffers;
  }

  static async connect({ options = {}, providers: timing, privateData = ORDINARY_PRIVATE_DATA }: IserEndsOptions = {}) {
    const providers = createMemoryProviders(timing);
    const buffers = new IserBuffers(providers.target.memory, MESSAGE_LENGTH);
    const accepted = new Promise<TargetEnd>((resolve, reject) => {
      providers.target
        .listen(endpoint, (request) => {
          const datamover = new IserTarget({ transport: 'iwarp', options: iserOptions(options), buffers });
          request.accept(datamover.queuePairOptions, datamover).then((queuePair) => {
            datamover.open(queuePair);
            const end = new TargetEnd(datamover);
            datamover.attach(end);
            resolve(end);
          }, reject);
        })
        .catch(reject);
    });
    const peer = new RdmaPeer(providers.initiator.memory);
    const at = { host: endpoint.host, port: 49152 };
    peer.open(await providers.initiator.connect(at, { ...peer.options(privateData), timeoutMs: 10_000 }, peer));
    return new TargetUnderTest({ end: await accepted, peer, providers, buffers });
  }

  static async logIn(options: IserEndsOptions & { readonly parameters?: Partial<DataParameters> } = {}) {
    const ends = await TargetUnderTest.connect(options);
    ends.ask({ opcode: 'login-request', itt: 0, transit: true, csg: 1, nsg: 3 });
    await ends.end.next();
    ends.end.datamover.sendControl(pdu({ opcode: 'login-response', itt: 0, transit: true, csg: 1, nsg: 3 }));
    ends.end.datamover.enable({ ...iserParameters, ...options.parameters });
    await ends.peer.next();
    return ends;
  }

  /** Registered memory of the target's. */
  memoryFor(length: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.providers.target.memory.allocate(length), 0, length);
  }

  /** The initiator sends a PDU. */
  ask(fields: Parameters<typeof pdu>[0], header: IserHeader = PLAIN_HEADER): void {
    this.peer.send(messageOf(pdu(fields), header)).catch(() => {});
  }

  /** A READ into `buffer`, or a WRITE of `data` of which the first `immediate` bytes are in the PDU, as Linux sends them. */
  command(
    itt: number,
    buffers: { readonly read?: Uint8Array; readonly write?: Uint8Array; readonly immediate?: number },
  ): IserHeader {
    const { read, write, immediate = 0 } = buffers;
    const header = {
      read: read === undefined ? undefined : this.advertise(read, 'remote-write'),
      write:
        write === undefined || immediate === write.length ? undefined : this.advertise(write.subarray(immediate), 'remote-read'),
    };
    const data = write === undefined ? {} : { data: write.slice(0, immediate) };
    this.ask(
      {
        opcode: 'scsi-command',
        itt,
        lun: 1n,
        final: true,
        read: read !== undefined,
        write: write !== undefined,
        expectedDataTransferLength: (read ?? write)?.length ?? 0,
        ...data,
      },
      header,
    );
    return header;
  }

  advertise(bytes: Uint8Array, access: 'remote-write' | 'remote-read'): { readonly tag: number; readonly address: bigint } {
    const { tag, address } = this.peer.queuePair.advertise(bytes, access);
    return { tag, address: BigInt(address) };
  }

  async nextPdu(): Promise<{ readonly pdu: Pdu; readonly header: IserHeader; readonly invalidated: number | undefined }> {
    const { bytes, invalidated } = await this.peer.next();
    return { pdu: decodeMessage(bytes).pdu, header: decodeIserHeader(bytes), invalidated };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end.datamover.terminate('abrupt');
    await this.end.notifications.terminated;
    checkLeftOver(this.buffers, this.end.notifications.faults);
  }
}

/** The message that carries `pdu`. */
export function messageOf(source: Pdu, header: IserHeader = PLAIN_HEADER): Uint8Array {
  const bytes = new Uint8Array(MESSAGE_HEADER_LENGTH + source.ahs.length + source.data.length);
  encodeMessage(bytes, header, source);
  return bytes;
}

function checkLeftOver(buffers: IserBuffers, faults: readonly string[]): void {
  const left = { messages: buffers.messagesInUse, runs: buffers.bytesInRuns };
  if (left.messages > 0 || left.runs > 0) throw new Error(`memory is left over: ${JSON.stringify(left)}`);
  if (faults.length > 0) throw new Error(`the handler was called wrongly: ${faults.join('; ')}`);
}
