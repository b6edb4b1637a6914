/**
 * The SCSI tasks of an initiator's session: each waits for the command window, is sent in its turn (I1), and has one
 * terminal event, which comes only when nothing below references its buffers any more (I2). Pure. Whether a task may be
 * ended early, and what the target has to say to that, is `initiator-task-management.ts`'s affair.
 */

import { IserfsError, NexusLostError } from '../../errors.ts';
import type { StartedCommand } from '../../scsi/port.ts';
import type { InitiatorDatamover } from '../datamover/datamover.ts';
import type { ExchangeTable, ScsiTask } from './exchange-table.ts';
import type { Pdu } from './pdu.ts';
import { scsiCommand, scsiResult } from './scsi-exchange.ts';
import type { SessionNumbers } from './session-numbers.ts';

export interface InitiatorTasksOptions {
  readonly datamover: InitiatorDatamover;
  /** The session's; has the tasks that have been sent. */
  readonly exchanges: ExchangeTable;
  readonly numbers: SessionNumbers;
  /** Commands in flight at most, whatever the window allows. */
  readonly maxCommands: number;
  /** Whether the session takes commands on the wire at all. */
  readonly mayIssue: () => boolean;
  /** What a command is told of an error. */
  readonly locate: (error: Error) => Error;
}

export class InitiatorTasks {
  readonly #options: InitiatorTasksOptions;
  /** Those that wait for the window, oldest first. */
  readonly #queue: ScsiTask[] = [];
  #inFlight = 0;

  constructor(options: InitiatorTasksOptions) {
    this.#options = options;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  get queued(): number {
    return this.#queue.length;
  }

  /** Sends a command as soon as the window allows. `deadline` is when `timeoutMs` from now are over. */
  submit(command: StartedCommand, timeoutMs: number, deadline: number): ScsiTask {
    const task: ScsiTask = {
      kind: 'scsi',
      command,
      timeoutMs,
      deadline,
      itt: undefined,
      cmdSn: 0,
      aborting: undefined,
      rejected: undefined,
    };
    if (this.#queue.length === 0 && this.#maySend()) this.#send(task);
    else {
      this.#queue.push(task);
      this.sendQueued();
    }
    return task;
  }

  /** To be called whenever the window may have opened. */
  sendQueued(): void {
    while (this.#queue.length > 0 && this.#maySend()) this.#send(this.#queue.shift() as ScsiTask);
  }

  /** Whether it has been sent, and has not ended. */
  isInFlight(task: ScsiTask): boolean {
    return task.itt !== undefined && this.#options.exchanges.get(task.itt) === task;
  }

  // ---- how tasks end ----

  /** By its response. The task is off the books already, as for `fail`. */
  answered(task: ScsiTask, response: Pdu<'scsi-response'>, transferred: number): void {
    const { command } = task;
    if (response.response !== 0) {
      const why = `the target could not carry the command out (response ${response.response})`;
      this.fail(task, new IserfsError('hardware-error', why));
      return;
    }
    this.#inFlight--;
    command.ended(scsiResult(response, command, transferred));
  }

  fail(task: ScsiTask, error: Error): void {
    if (task.itt !== undefined) this.#inFlight--;
    task.command.failed(this.#options.locate(error));
  }

  /** Of one that was sent, and that the target has no more. */
  release(task: ScsiTask, itt: number, error: Error): void {
    this.#options.exchanges.delete(itt);
    this.#options.datamover.deallocateTask(itt);
    this.fail(task, error);
  }

  /** The same of all that are `concerned`. */
  releaseAll(concerned: (task: ScsiTask) => boolean, why: string): void {
    for (const [itt, exchange] of this.#options.exchanges.entries()) {
      if (exchange.kind !== 'scsi' || !concerned(exchange)) continue;
      this.release(exchange, itt, exchange.aborting ?? new IserfsError('aborted', `the command was ${why}`));
    }
  }

  /** Of one that has not been sent; ignored where it is not in the queue any more. */
  withdraw(task: ScsiTask, error: Error): void {
    const index = this.#queue.indexOf(task);
    if (index < 0) return;
    this.#queue.splice(index, 1);
    this.fail(task, error);
  }

  /** Of all that have not been sent, with the session. */
  failQueued(reason: Error): void {
    for (const task of this.#queue.splice(0)) {
      this.fail(task, new NexusLostError(reason.message, { mayHaveExecuted: false, cause: reason }));
    }
  }

  /** Of those that have waited too long; the deadlines of the others are noted. */
  expireQueued(now: number): void {
    for (const task of [...this.#queue]) {
      if (now >= task.deadline) this.withdraw(task, commandTimeout(task, 'the target did not take it'));
      else this.#options.exchanges.noteDeadline(task.deadline);
    }
  }

  #maySend(): boolean {
    const { numbers, maxCommands, mayIssue } = this.#options;
    return mayIssue() && numbers.isOpen && this.#inFlight < maxCommands;
  }

  #send(task: ScsiTask): void {
    const { datamover, exchanges, numbers } = this.#options;
    const { command } = task;
    const cmdSn = numbers.takeCmdSn();
    const itt = exchanges.register(task);
    task.itt = itt;
    task.cmdSn = cmdSn;
    this.#inFlight++;
    datamover.sendControl(scsiCommand(command, itt, cmdSn, numbers.expStatSn), command);
  }
}

export function commandTimeout({ timeoutMs }: ScsiTask, why: string): IserfsError {
  return new IserfsError('command-timeout', `command timed out after ${timeoutMs / 1000} s: ${why}`);
}
