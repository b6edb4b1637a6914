/** What a data mover reports goes to the login first and to the session afterwards. */

import { IserfsError } from '../errors.ts';
import type { InitiatorHandler } from './datamover/datamover.ts';
import type { TargetControlPdu } from './iscsi/pdu.ts';
import type { InitiatorSession } from './iscsi/session.ts';

export const HUNG_UP_HINT =
  'Is it an iSCSI target that answers there? Some hang up on initiator names that they do not know; one that speaks iSER alone needs --transport iser.';

export class LoginHandler implements InitiatorHandler {
  #session: InitiatorSession | undefined;
  #awaited: { resolve: (pdu: TargetControlPdu) => void; reject: (error: Error) => void } | undefined;
  /** What came between login and session. */
  readonly #early: { pdu: TargetControlPdu; transferred: number }[] = [];
  #failure: Error | undefined;
  /** Set where it is the connection that ended. */
  #cut: Error | undefined;

  /** Whether `error` is what `nextPdu` or `throwIfFailed` gave because the connection had ended. */
  isCut(error: unknown): boolean {
    return this.#cut !== undefined && this.#cut === error;
  }

  /** Rejects when the connection has ended, or waiting has. */
  nextPdu(): Promise<TargetControlPdu> {
    return new Promise((resolve, reject) => {
      if (this.#failure === undefined) this.#awaited = { resolve, reject };
      else reject(this.#failure);
    });
  }

  fail(error: Error): void {
    this.#failure ??= error;
    this.#awaited?.reject(this.#failure);
    this.#awaited = undefined;
  }

  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  attach(session: InitiatorSession): void {
    this.#session = session;
    for (const { pdu, transferred } of this.#early.splice(0)) session.handlePdu(pdu, transferred);
    if (this.#failure !== undefined) session.connectionTerminated(this.#failure);
  }

  controlNotify(pdu: TargetControlPdu, transferred: number): void {
    if (this.#session !== undefined) {
      this.#session.handlePdu(pdu, transferred);
      return;
    }
    // `data` is only lent for the call.
    const kept = { ...pdu, data: pdu.data.slice() };
    if (this.#awaited === undefined) {
      this.#early.push({ pdu: kept, transferred });
      return;
    }
    this.#awaited.resolve(kept);
    this.#awaited = undefined;
  }

  windowNotify(expCmdSn: number, maxCmdSn: number): void {
    this.#session?.windowNotify(expCmdSn, maxCmdSn);
  }

  currentExpStatSn(): number {
    return this.#session?.expStatSn ?? 0;
  }

  connectionTerminated(error?: Error): void {
    if (this.#session !== undefined) {
      this.#session.connectionTerminated(error);
      return;
    }
    this.#cut = error ?? new IserfsError('unreachable', 'the peer closed the connection during login', { hint: HUNG_UP_HINT });
    this.fail(this.#cut);
  }
}
