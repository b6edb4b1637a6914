/**
 * The data mover: what carries iSCSI between the session machines and a peer (RFC 5047's Datamover
 * Architecture, whose primitives the method names follow). A session machine exchanges control PDUs
 * and names buffers; how the data travels is the data mover's own affair. So R2T, Data-In, Data-Out,
 * immediate data, padding and digests exist only in the TCP data mover, iSER headers and STags only in
 * the iSER one. Types and their contract only.
 *
 * A data mover calls its handler synchronously and in wire order, never from inside one of its own
 * methods, and not any more once `connectionTerminated` was called.
 */

import type { InitiatorControlPdu, Pdu, TargetControlPdu } from '../iscsi/pdu.ts';

/** The text keys a data mover wants offered at login, in order: `HeaderDigest=CRC32C,None`, `RDMAExtensions=Yes`. */
export type KeyOffers = Readonly<Record<string, string>>;

/** Negotiated values that govern data movement. They hold from the first full-feature phase PDU on. */
export interface DataParameters {
  /** The outcome of RDMAExtensions, where this end offered it; undefined where not, as in a discovery session. */
  readonly rdmaExtensions?: boolean;
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
  /** Largest data segment that the peer takes (its MaxRecvDataSegmentLength). */
  readonly maxSendDataSegmentLength: number;
  /** Largest data segment that we declared to take. */
  readonly maxRecvDataSegmentLength: number;
  readonly maxBurstLength: number;
  readonly firstBurstLength: number;
  readonly initialR2T: boolean;
  readonly immediateData: boolean;
  readonly maxOutstandingR2T: number;
}

/**
 * Bytes of a command that suit any peer. Over iSER, tgtd has one buffer of this length for each command. Over TCP, tgtd 1.0.85 with
 * several commands of 1 MiB in flight moves half of what it does with as many of half the length, for twice the processor time; observed.
 */
export const MAX_TRANSFER_LENGTH = 512 * 1024;

/** Facts for people: `{ device: 'rxe0', ird: 16 }`. */
export type Traits = Readonly<Record<string, string | number | boolean>>;

interface Datamover {
  /** For `status`: `tcp`, or `iser` with its provider. */
  readonly transport: string;
  /**
   * What `status` shows of the connection besides its addresses, name to value in order: device, IRD and ORD,
   * CRC, remote invalidation. Empty where there is nothing to say.
   */
  readonly traits: Traits;
  /** Most bytes that one command may move over this connection, where no quirk of the peer says otherwise. */
  readonly maxTransferLength: number;
  /** `ADDRESS:PORT` of the two ends. */
  readonly localAddress: string;
  readonly remoteAddress: string;
  /** What to offer at login because of this data mover; `discovery` sessions negotiate less. */
  keyOffers(sessionType: 'normal' | 'discovery'): KeyOffers;
  /** Notice_Key_Values and Enable_Datamover: login is over, `parameters` apply to all that follows in both directions. */
  enable(parameters: DataParameters): void;
  /**
   * Connection_Terminate. `orderly` sends what is queued first, `abrupt` drops it. Resolves when no
   * buffer of any task is referenced any more and nothing more will be received. Idempotent.
   */
  terminate(mode: 'orderly' | 'abrupt'): Promise<void>;
}

/** The buffers of one SCSI task at the initiator. Borrowed from `sendControl` until the task is deallocated. */
export interface TaskBuffers {
  readonly dataIn?: Uint8Array | undefined;
  readonly dataOut?: Uint8Array | undefined;
}

export interface InitiatorDatamover extends Datamover {
  /**
   * Send_Control. For a SCSI Command, `buffers` are the task's; the data mover sets `final` and the
   * data segment (immediate data) as the negotiated keys allow. Queues; never blocks.
   */
  sendControl(pdu: InitiatorControlPdu, buffers?: TaskBuffers): void;
  /**
   * Deallocate_Task_Resources, for a task that ends without a SCSI Response (aborted, reset). On return
   * the buffers are not referenced any more, if need be because the connection is dropped; data that still
   * arrives for `itt` is discarded, and a SCSI Response that does is handed up with nothing transferred: whether
   * one may still come is the session's affair. A SCSI Response deallocates its task by itself, before it is handed up.
   */
  deallocateTask(itt: number): void;
}

export interface InitiatorHandler {
  /**
   * Control_Notify. Data-In that carries status comes as the SCSI Response it stands for. For a SCSI
   * Response, `transferred` is the number of bytes of `dataIn` that are valid, from offset 0 and without
   * a gap (for a write: how much the target asked for). `pdu.data` is borrowed until the call returns.
   */
  controlNotify(pdu: TargetControlPdu, transferred: number): void;
  /** ExpCmdSN and MaxCmdSN of a PDU that stays below (R2T, Data-In). */
  windowNotify(expCmdSn: number, maxCmdSn: number): void;
  /** The ExpStatSN for a PDU that the data mover makes itself. */
  currentExpStatSn(): number;
  /** Connection_Terminate_Notify: by the peer, or for `error`. Called once, also after `terminate`. */
  connectionTerminated(error?: Error): void;
}

/** What names a task at the target's data mover. */
export type TargetTask = Pdu<'scsi-command'>;

export interface TargetDatamover extends Datamover {
  /** Commands that it has room for at a time, as a bound on the session's window; undefined: any number. */
  readonly commandWindow?: number | undefined;
  /** Longest data segment of a PDU that it sends, whatever the initiator takes; undefined: any length. */
  readonly longestDataSegment?: number | undefined;
  /** Send_Control. `pdu.data` is taken: it must not change afterwards. */
  sendControl(pdu: TargetControlPdu): void;
  /** Put_Data: to the initiator's read buffer at `offset`. Resolves when `data` may be reused (Data_Completion_Notify); rejects when the connection or the task is gone. */
  putData(task: TargetTask, offset: number, data: Uint8Array): Promise<void>;
  /**
   * Get_Data: fills `into` from the initiator's write buffer at `offset`. Immediate and unsolicited data
   * that has come is used first. Rejects when the connection or the task is gone.
   */
  getData(task: TargetTask, offset: number, into: Uint8Array): Promise<void>;
  /** Ends the task at this level: `putData` and `getData` under way reject, late data is discarded. Also after its SCSI Response was sent. */
  deallocateTask(itt: number): void;
}

export interface TargetHandler {
  /** Control_Notify. `pdu.data` (of a SCSI Command: its immediate data, which the data mover keeps for `getData`) is borrowed until the call returns. */
  controlNotify(pdu: InitiatorControlPdu): void;
  /** StatSN to come, ExpCmdSN and MaxCmdSN, for a PDU that the data mover makes itself. */
  currentNumbering(): { readonly statSn: number; readonly expCmdSn: number; readonly maxCmdSn: number };
  connectionTerminated(error?: Error): void;
}

/** A portal's address: an IPv4 or IPv6 address or a host name, and a TCP port. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

export interface ConnectOptions {
  readonly signal?: AbortSignal;
  /** Bound on name look-up, connection set-up and, for RDMA, its own handshake. */
  readonly timeoutMs: number;
}

/** Opens connections of one transport. Rejects with `unreachable` and the cause in words. */
export interface InitiatorTransport {
  readonly name: 'tcp' | 'iwarp' | 'verbs';
  connect(endpoint: Endpoint, handler: InitiatorHandler, options: ConnectOptions): Promise<InitiatorDatamover>;
}

/** Listens for connections of one transport. */
export interface TargetTransport {
  readonly name: 'tcp' | 'iwarp' | 'verbs';
  /** Port 0 picks a free one. `accept` is called for each connection and returns its handler. */
  listen(endpoint: Endpoint, accept: (datamover: TargetDatamover) => TargetHandler): Promise<TargetListener>;
}

export interface TargetListener {
  readonly endpoint: Endpoint;
  /** Stops listening; open connections go on. */
  close(): Promise<void>;
}
