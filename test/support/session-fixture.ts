import type { IserfsError } from '../../src/errors.ts';
import type { LoginResult } from '../../src/iser/iscsi/login.ts';
import { type Pdu, pdu, RESERVED_TAG, type TargetControlPdu } from '../../src/iser/iscsi/pdu.ts';
import { InitiatorSession } from '../../src/iser/iscsi/session.ts';
import type { ScsiResult, StartedCommand } from '../../src/scsi/port.ts';
import { RecordingDatamover } from './recording-datamover.ts';

export const FIRST_CMD_SN = 100;
export const FIRST_STAT_SN = 500;

export function setUpSession(options: { window?: number; holdTermination?: boolean; isOverRdma?: boolean } = {}) {
  const datamover = new RecordingDatamover();
  datamover.holdTermination = options.holdTermination ?? false;
  let now = 0;
  const ended: { reason: Error; waitMs: number }[] = [];
  const asynchronous: { lun: bigint; sense: Uint8Array }[] = [];
  let movedTo: number | undefined;
  let moves = 0;
  const login = {
    tsih: 1,
    keys: { DefaultTime2Wait: 2, RDMAExtensions: options.isOverRdma ?? false },
    cmdSn: FIRST_CMD_SN,
    expStatSn: FIRST_STAT_SN,
    expCmdSn: FIRST_CMD_SN,
    maxCmdSn: FIRST_CMD_SN + (options.window ?? 32) - 1,
  } as LoginResult;
  const session = new InitiatorSession({
    datamover,
    login,
    cid: 0,
    now: () => now,
    keepaliveIntervalMs: 5000,
    keepaliveTimeoutMs: 5000,
    managementTimeoutMs: 10_000,
    maxCommands: 128,
    locate: (error) => error,
    events: {
      ended: (reason, waitMs) => ended.push({ reason, waitMs }),
      asynchronousSense: (lun, sense) => asynchronous.push({ lun, sense }),
      deadlineMoved: () => {
        movedTo = session.pollTimeout();
        moves++;
      },
    },
  });
  let statSn = FIRST_STAT_SN;
  let expCmdSn = FIRST_CMD_SN;
  let maxCmdSn = login.maxCmdSn;
  return {
    datamover,
    session,
    ended,
    asynchronous,
    /** What `pollTimeout` said when the session called for it. */
    get movedTo() {
      return movedTo;
    },
    /** How often it called for that. */
    get moves() {
      return moves;
    },
    submit(command: { dataIn?: Uint8Array; dataOut?: Uint8Array; timeoutMs?: number; lun?: bigint } = {}) {
      const outcome: { result?: ScsiResult; error?: Error; count: number } = { count: 0 };
      const started: StartedCommand = {
        lun: command.lun ?? 0n,
        cdb: new Uint8Array(16),
        nexus: 1,
        ...(command.dataIn ? { dataIn: command.dataIn } : {}),
        ...(command.dataOut ? { dataOut: command.dataOut } : {}),
        ended: (result) => {
          outcome.result = result;
          outcome.count++;
        },
        failed: (error) => {
          outcome.error = error;
          outcome.count++;
        },
      };
      const task = session.submit(started, command.timeoutMs ?? 30_000);
      const abort = (reason: IserfsError) => {
        if (task !== undefined) session.abort(task, reason);
      };
      return { outcome, isTaken: task !== undefined, abort };
    },
    /** Sends a PDU to the session, numbered as a well-behaved target would. */
    receive(source: TargetControlPdu, transferred = 0) {
      session.handlePdu({ ...source, statSn, expCmdSn, maxCmdSn } as TargetControlPdu, transferred);
      if (source.opcode !== 'nop-in' || source.itt !== RESERVED_TAG) statSn++;
    },
    openWindow(to: { expCmdSn: number; maxCmdSn: number }) {
      ({ expCmdSn, maxCmdSn } = to);
    },
    at(ms: number) {
      now = ms;
      session.handleTimeout(now);
    },
  };
}

export function scsiCommands(pdus: readonly { opcode: string }[]): Pdu<'scsi-command'>[] {
  return pdus.filter((sent): sent is Pdu<'scsi-command'> => sent.opcode === 'scsi-command');
}

export const good = (itt: number) => pdu({ opcode: 'scsi-response', itt });
export const flush = () => new Promise((resolve) => setImmediate(resolve));
