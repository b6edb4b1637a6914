/**
 * The waist between SCSI and what carries it (SAM). An initiator's logical units talk to a
 * `ScsiPort`; a target's port calls a `DeviceServer`. Types and their contract only: nothing here
 * or above it knows a PDU, an STag or a socket.
 */

/** A logical unit number: the 8 bytes of the SAM LUN structure as one big-endian integer. `lun.ts` makes and reads them. */
export type Lun = bigint;

/** One SCSI command. Buffers are borrowed from `start()` until the end of the command is told, and no longer. */
export interface ScsiCommand {
  readonly lun: Lun;
  /** 6 to 16 bytes. */
  readonly cdb: Uint8Array;
  /** Where the data of a READ-like command goes: its length is the expected data transfer length. Never together with `dataOut`. */
  readonly dataIn?: Uint8Array | undefined;
  /** The data of a WRITE-like command. */
  readonly dataOut?: Uint8Array | undefined;
  /**
   * The I_T nexus that the command is meant for. A port on another nexus by now fails it unsent, so
   * that nothing overtakes the checks that come with a new nexus.
   */
  readonly nexus: number;
  /** How long it may take before it is aborted; absent: as long as the port allows. */
  readonly timeoutMs?: number | undefined;
  /** Has it aborted. */
  readonly signal?: AbortSignal | undefined;
}

/** A command with whom to tell how it ends: exactly one of the two methods is called, once, and never from inside of `start()`. They do not throw. */
export interface StartedCommand extends ScsiCommand {
  ended(result: ScsiResult): void;
  /** It has no status. See `ScsiPort.start`. */
  failed(error: Error): void;
}

/** How a command ended. A status other than GOOD is a result, not an exception. */
export interface ScsiResult {
  /** SAM status byte (`status.ts`). */
  readonly status: number;
  /** Sense data without any length prefix; empty where there is none. */
  readonly sense: Uint8Array;
  /** How many bytes of `dataIn` are valid, or of `dataOut` were taken. */
  readonly transferred: number;
}

/** What a port tells of its own accord. */
export type PortEvent =
  /** The nexus `nexus` is gone. Commands in flight fail with `NexusLostError`. */
  | { readonly type: 'nexus-lost'; readonly nexus: number; readonly reason: Error }
  | { readonly type: 'nexus-established'; readonly nexus: number }
  /**
   * No nexus came within the recovery time-out: until another `nexus-established`, which may still come
   * when the target does, every command fails with `reason` at once.
   */
  | { readonly type: 'failed'; readonly reason: Error }
  /** The target reported sense data outside of any command (asynchronous event, RFC 7143 §11.9.1). */
  | { readonly type: 'asynchronous-sense'; readonly lun: Lun; readonly sense: Uint8Array };

/** The initiator's end of an I_T nexus that re-establishes itself. */
export interface ScsiPort {
  /** The nexus in use: counts up with each one established; undefined while there is none. */
  readonly nexus: number | undefined;
  /** Portal and target name, for messages. */
  readonly description: string;
  /**
   * Sends one command, and tells it with which status it has ended. Many may be in flight; the target may
   * execute them in any order. `execute.ts` makes a promise of it.
   * The command fails with `NexusLostError` where the nexus is gone before the status came, with code
   * `command-timeout` where it was aborted for taking too long (the target has confirmed the
   * abort: it holds no reference to the buffers and will not execute it later), with code `aborted`
   * after `signal`, under the same guarantee.
   */
  start(command: StartedCommand): void;
  /** LOGICAL UNIT RESET: resolves when the target reports that all tasks of the logical unit are gone. Rejects as `start` fails, or `unsupported`. */
  resetLogicalUnit(lun: Lun, nexus: number): Promise<void>;
  /** Resolves with the nexus when there is one; rejects with `recovery-timeout` (at once while recovery has failed) or the reason why none will come. */
  established(): Promise<number>;
  /** Calls `listener` synchronously at each event; returns the function that ends it. */
  subscribe(listener: (event: PortEvent) => void): () => void;
}

/** One command as a target's device server sees it: SAM's Send Data-In and Receive Data-Out services. */
export interface ServerTask {
  /** Names the I_T nexus that sent the command: unit attentions are kept per nexus. */
  readonly nexus: number;
  readonly lun: Lun;
  readonly cdb: Uint8Array;
  /** Bytes that the initiator is ready to take (or, for `receiveDataOut`, has to give). */
  readonly expectedDataTransferLength: number;
  /** By task management, or because the nexus is lost. To ask costs nothing, as against `signal`, which may be made when it is asked for. */
  readonly isAborted: boolean;
  readonly signal: AbortSignal;
  /**
   * Send Data-In. Resolves when `data` may be reused. Call it with ascending, adjacent offsets; what
   * lies beyond `expectedDataTransferLength` is cut off and reported as a residual.
   */
  sendDataIn(offset: number, data: Uint8Array): Promise<void>;
  /**
   * Receive Data-Out: fills `into` from the initiator's buffer at `offset`. Rejects where the nexus is
   * lost, and with code `illegal-request` where the initiator has announced no such data.
   */
  receiveDataOut(offset: number, into: Uint8Array): Promise<void>;
}

/** What a device server answers. */
export interface ServerResult {
  readonly status: number;
  /** Fixed or descriptor format sense data; empty unless CHECK CONDITION. */
  readonly sense: Uint8Array;
  /** Bytes that the command would have transferred with room for all: the residual is the difference to the expected length. */
  readonly transferLength: number;
}

export type TaskManagementFunction =
  | 'abort-task'
  | 'abort-task-set'
  | 'clear-task-set'
  | 'logical-unit-reset'
  | 'target-warm-reset';

/** The target's side: executes commands for all logical units of one target. */
export interface DeviceServer {
  /** Never rejects for what the initiator sent: a bad command ends in CHECK CONDITION. */
  execute(task: ServerTask): Promise<ServerResult>;
  /** A new I_T nexus: establishes unit attentions for it. */
  nexusEstablished(nexus: number): void;
  nexusLost(nexus: number): void;
  /** Called after the tasks concerned have ended: resets state and establishes unit attentions for the other nexuses. Resolves `false` where there is no such LUN. */
  reset(function_: 'logical-unit-reset' | 'target-warm-reset', lun: Lun, nexus: number): Promise<boolean>;
  hasLogicalUnit(lun: Lun): boolean;
}
