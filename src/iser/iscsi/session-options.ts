/** What an `InitiatorSession` is given, and what it tells. Types and their contract only. */

import type { Lun } from '../../scsi/port.ts';
import type { InitiatorDatamover } from '../datamover/datamover.ts';
import type { LoginResult } from './login.ts';

export interface SessionOptions {
  readonly datamover: InitiatorDatamover;
  readonly login: LoginResult;
  readonly cid: number;
  /** Milliseconds, only ever growing. */
  readonly now: () => number;
  /** A NOP-Out goes out after this long without a PDU from the target. */
  readonly keepaliveIntervalMs: number;
  /** The peer is dead when nothing has come for this long after the NOP-Out. */
  readonly keepaliveTimeoutMs: number;
  /** Bound on the answer to a task management request and to a logout; then the session is dropped. */
  readonly managementTimeoutMs: number;
  /** Commands in flight at most, whatever the window allows. */
  readonly maxCommands: number;
  /** What a command is told of an error: says where it happened. */
  readonly locate: (error: Error) => Error;
  readonly events: SessionEvents;
}

export interface SessionEvents {
  /**
   * The session is over, for `reason`; called once, after every task has been settled. `waitMs` is how
   * long the target is to be left alone before the next login (Time2Wait).
   */
  ended(reason: Error, waitMs: number): void;
  asynchronousSense(lun: Lun, sense: Uint8Array): void;
  /** `pollTimeout()` may be earlier now, by what the target sent or what was submitted. */
  deadlineMoved(): void;
}
