/**
 * Command numbering of a session (RFC 7143 §4.2.2.1), seen from its two ends. The windows decide which
 * CmdSN may be sent and what becomes of one that arrives; they hold no PDU and no task.
 */

import { IserfsError } from '../../errors.ts';
import { serialAdd, serialLess, serialLessOrEqual } from './serial.ts';

/** The initiator's end: numbers non-immediate commands and says when the next one may go (I1). */
export class CommandWindow {
  #cmdSn: number;
  #expCmdSn: number;
  #maxCmdSn: number;
  /** Until the target has sent a pair that makes sense, MaxCmdSN is our own assumption. */
  #assumed = true;

  /**
   * `cmdSn` is the number of the first command after login. As the target took the Login Request with
   * that number, one command is assumed to fit until the target says otherwise: a target whose login
   * response is useless (all that it sends before a first command) must not close the window for ever.
   */
  constructor(cmdSn: number) {
    this.#cmdSn = cmdSn;
    this.#expCmdSn = cmdSn;
    this.#maxCmdSn = cmdSn;
  }

  /** The CmdSN that the next non-immediate command gets, and that an immediate one carries. */
  get cmdSn(): number {
    return this.#cmdSn;
  }

  /** The target has received every command before this one. Never beyond `cmdSn`. */
  get expCmdSn(): number {
    return this.#expCmdSn;
  }

  /** The last CmdSN that the target takes. */
  get maxCmdSn(): number {
    return this.#maxCmdSn;
  }

  /** Whether a non-immediate command may be sent now. */
  get isOpen(): boolean {
    return serialLessOrEqual(this.#cmdSn, this.#maxCmdSn);
  }

  /** The CmdSN for a non-immediate command that is sent now. Throws `internal` where the window is closed. */
  take(): number {
    if (!this.isOpen) throw new IserfsError('internal', `no CmdSN is free: next ${this.#cmdSn}, MaxCmdSN ${this.#maxCmdSn}`);
    const taken = this.#cmdSn;
    this.#cmdSn = serialAdd(taken, 1);
    return taken;
  }

  /**
   * Takes in the numbers of a PDU that came. Both are ignored where MaxCmdSN < ExpCmdSN - 1; neither
   * moves back, since PDUs of several connections may overtake each other. An ExpCmdSN of a command that
   * was not sent is ignored: tgtd's login response has one (its login CmdSN + 1), and a command sent with
   * that number is never executed.
   */
  update(expCmdSn: number, maxCmdSn: number): void {
    if (serialLess(maxCmdSn, serialAdd(expCmdSn, -1))) return;
    if (this.#assumed || serialLess(this.#maxCmdSn, maxCmdSn)) this.#maxCmdSn = maxCmdSn;
    this.#assumed = false;
    if (serialLess(this.#expCmdSn, expCmdSn) && serialLessOrEqual(expCmdSn, this.#cmdSn)) this.#expCmdSn = expCmdSn;
  }
}

/** What a target does with a command that arrives: `hold` until those before it have come, `discard` without an answer. */
export type Arrival = 'execute' | 'hold' | 'discard';

/**
 * The target's end. Two questions in one number pair: in which order commands are executed (`arrive`,
 * `advance`), and how many more fit (`begin`, `finish`, for commands that last, such as SCSI tasks).
 */
export class TargetCommandWindow {
  /** Most non-immediate commands that the target has room for at a time. */
  readonly size: number;
  #expCmdSn: number;
  #maxCmdSn: number;
  #underWay = 0;
  readonly #held = new Set<number>();

  /** `cmdSn`: that of the login, which the first command repeats. `size`: 1 or more. */
  constructor(cmdSn: number, size: number) {
    if (!Number.isInteger(size) || size < 1 || size > 0x7fff_ffff) throw new RangeError(`a command window of ${size}`);
    this.size = size;
    this.#expCmdSn = cmdSn;
    this.#maxCmdSn = serialAdd(cmdSn, size - 1);
  }

  /** The next CmdSN to execute. */
  get expCmdSn(): number {
    return this.#expCmdSn;
  }

  /** The last CmdSN that is let in; `expCmdSn - 1` while there is no room. Never moves back. */
  get maxCmdSn(): number {
    // Worked out when it is asked for: by then every command that was executed has begun, if it lasts.
    const most = serialAdd(this.#expCmdSn, this.size - this.#underWay - 1);
    if (serialLess(this.#maxCmdSn, most)) this.#maxCmdSn = most;
    return this.#maxCmdSn;
  }

  /**
   * A command has come. An immediate one is executed whatever its number; one outside the window, or
   * that has come before, is discarded. A non-immediate one that is executed moves ExpCmdSN: the caller
   * then takes what it holds for the new ExpCmdSN, with `advance`, for as long as there is something.
   */
  arrive(cmdSn: number, immediate: boolean): Arrival {
    if (immediate) return 'execute';
    const isInWindow = serialLessOrEqual(this.#expCmdSn, cmdSn) && serialLessOrEqual(cmdSn, this.maxCmdSn);
    if (!isInWindow || this.#held.has(cmdSn)) return 'discard';
    if (cmdSn !== this.#expCmdSn) {
      this.#held.add(cmdSn);
      return 'hold';
    }
    this.#received();
    return 'execute';
  }

  /** The command that was held for ExpCmdSN is executed now. Throws RangeError where none was. */
  advance(): void {
    if (!this.#held.delete(this.#expCmdSn)) throw new RangeError(`no command is held for CmdSN ${this.#expCmdSn}`);
    this.#received();
  }

  /** A non-immediate command that was executed needs room until `finish`. */
  begin(): void {
    this.#underWay++;
  }

  /** Such a command has ended; what is sent from now on says that there is room again. */
  finish(): void {
    if (this.#underWay === 0) throw new RangeError('no command is under way');
    this.#underWay--;
  }

  #received(): void {
    this.#expCmdSn = serialAdd(this.#expCmdSn, 1);
  }
}
