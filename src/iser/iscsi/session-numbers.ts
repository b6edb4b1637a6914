/**
 * The numbering of an initiator's session with one connection (RFC 7143 §4.2.2): CmdSN and the window for commands, and
 * the StatSN of what the target ends. What is sent has its numbers from here, and what comes leaves its own here. Pure.
 */

import { ProtocolError } from '../../errors.ts';
import { CommandWindow } from './command-window.ts';
import type { LoginResult } from './login.ts';
import { RESERVED_TAG, type TargetControlPdu } from './pdu.ts';
import { isStatSnTolerated } from './peer-quirks.ts';
import { serialAdd, serialLess } from './serial.ts';

export class SessionNumbers {
  readonly #window: CommandWindow;
  readonly #overRdma: boolean;
  #expStatSn: number;

  /** As the login left them. */
  constructor({ cmdSn, expCmdSn, maxCmdSn, expStatSn, keys }: LoginResult) {
    this.#window = new CommandWindow(cmdSn);
    this.#window.update(expCmdSn, maxCmdSn);
    this.#overRdma = keys.RDMAExtensions;
    this.#expStatSn = expStatSn;
  }

  /** The CmdSN that the next command gets. */
  get cmdSn(): number {
    return this.#window.cmdSn;
  }

  get expStatSn(): number {
    return this.#expStatSn;
  }

  /** Whether a command may be sent now. */
  get isOpen(): boolean {
    return this.#window.isOpen;
  }

  /** Commands that the target has room for, those in flight included. */
  get commandWindow(): number {
    return serialAdd(this.#window.maxCmdSn, 1 - this.#window.expCmdSn);
  }

  /** The CmdSN of a command that is sent now (I1). Throws `internal` where the window is closed. */
  takeCmdSn(): number {
    return this.#window.take();
  }

  /** Fields of a PDU that takes no CmdSN of its own (RFC 7143 §4.2.2.1). */
  immediate(): { readonly immediate: true; readonly cmdSn: number; readonly expStatSn: number } {
    return { immediate: true, cmdSn: this.#window.cmdSn, expStatSn: this.#expStatSn };
  }

  /** Takes in the numbers of a PDU that came. Throws `ProtocolError` where its StatSN is not the one that is due. */
  received(pdu: TargetControlPdu): void {
    this.#checkStatSn(pdu);
    this.#window.update(pdu.expCmdSn, pdu.maxCmdSn);
  }

  /** The same of a PDU that stays with the data mover. */
  windowNotify(expCmdSn: number, maxCmdSn: number): void {
    this.#window.update(expCmdSn, maxCmdSn);
  }

  /**
   * StatSN counts every PDU that ends something (RFC 7143 §4.2.2.2). At ErrorRecoveryLevel 0 nothing is
   * sent again, so a gap means that an answer is lost for good, but where `isStatSnTolerated`: there
   * ExpStatSN follows the highest that came.
   */
  #checkStatSn({ opcode, itt, statSn }: TargetControlPdu): void {
    const consumes = opcode !== 'nop-in' || itt !== RESERVED_TAG;
    if (!consumes) return;
    const due = this.#expStatSn;
    if (statSn !== due && !isStatSnTolerated(statSn, due, { overRdma: this.#overRdma })) {
      throw new ProtocolError(`${opcode} has StatSN ${statSn} where ${due} is due`, 'RFC 7143 §4.2.2.2');
    }
    if (!serialLess(statSn, due)) this.#expStatSn = serialAdd(statSn, 1);
  }
}
