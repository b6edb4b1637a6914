/**
 * Task management as the initiator's session asks for it (RFC 7143 §11.5): the abort of one task, functions for a whole
 * logical unit or target, and what their responses (§11.6) mean for the tasks concerned. A task that is aborted fails only
 * when the target has said that it has it no more: a target that does not say so may still execute it, and its
 * session is dropped. Pure; how a request gets to the target and when its answer is overdue is the session's affair.
 */

import { IserfsError } from '../../errors.ts';
import type { Lun, TaskManagementFunction } from '../../scsi/port.ts';
import { managementText } from './code-text.ts';
import type { ScsiTask } from './exchange-table.ts';
import type { InitiatorTasks } from './initiator-tasks.ts';
import { type Pdu, pdu, RESERVED_TAG, TaskManagementCode, TaskManagementResponseCode } from './pdu.ts';
import { serialLess } from './serial.ts';
import type { SessionNumbers } from './session-numbers.ts';

export interface InitiatorTaskManagementOptions {
  readonly tasks: InitiatorTasks;
  readonly numbers: SessionNumbers;
  /** Whether requests may be sent. */
  readonly takesRequests: () => boolean;
  /** Sends a request. Its end is told once, by a call: the response code, or why there is none. */
  readonly request: (
    request: Pdu<'task-management-request'>,
    done: (response: number) => void,
    fail: (error: Error) => void,
  ) => void;
  readonly dropSession: (reason: Error) => void;
}

export class InitiatorTaskManagement {
  readonly #options: InitiatorTaskManagementOptions;

  constructor(options: InitiatorTaskManagementOptions) {
    this.#options = options;
  }

  /** Asks for a function. Resolves when it is complete; rejects `unsupported`, `illegal-request`, and as `request` fails. */
  manage(function_: Exclude<TaskManagementFunction, 'abort-task'>, lun: Lun): Promise<void> {
    const { tasks, numbers, request } = this.#options;
    return new Promise((resolve, reject) => {
      const refCmdSn = numbers.cmdSn;
      request(
        pdu({ opcode: 'task-management-request', function: TaskManagementCode[function_], lun, referencedTaskTag: RESERVED_TAG }),
        (response) => {
          if (response !== TaskManagementResponseCode.complete) {
            const unsupported = response === TaskManagementResponseCode.unsupported;
            reject(new IserfsError(unsupported ? 'unsupported' : 'illegal-request', `${function_}: ${managementText(response)}`));
            return;
          }
          // Nothing will be heard of the tasks that the function ended: those sent before it (RFC 7143 §4.2.3.2).
          const isConcerned = ({ command, cmdSn }: ScsiTask) =>
            (function_ === 'target-warm-reset' || command.lun === lun) && serialLess(cmdSn, refCmdSn);
          tasks.releaseAll(isConcerned, `ended by ${function_}`);
          resolve();
        },
        reject,
      );
    });
  }

  /** Ends a task early, where it goes on: its command fails with `reason` once the target has let go of it. */
  abort(task: ScsiTask, reason: IserfsError): void {
    const { tasks, takesRequests, request } = this.#options;
    const { itt, cmdSn, command } = task;
    if (itt === undefined) {
      tasks.withdraw(task, reason);
      return;
    }
    if (!tasks.isInFlight(task) || task.aborting !== undefined) return;
    if (!takesRequests()) return; // it ends with the session
    task.aborting = reason;
    request(
      pdu({
        opcode: 'task-management-request',
        function: TaskManagementCode['abort-task'],
        lun: command.lun,
        referencedTaskTag: itt,
        refCmdSn: cmdSn,
      }),
      (response) => this.#abortAnswered(task, itt, reason, response),
      () => {},
    );
  }

  #abortAnswered(task: ScsiTask, itt: number, reason: IserfsError, response: number): void {
    const { tasks, dropSession } = this.#options;
    if (!tasks.isInFlight(task)) return; // its own response came first
    const isUnknown = response === TaskManagementResponseCode['no-such-task'];
    if (response === TaskManagementResponseCode.complete || (isUnknown && task.rejected !== undefined)) {
      tasks.release(task, itt, task.rejected ?? reason);
      return;
    }
    // The target does not own up to the task, nor has it answered or rejected it: its fate is unknown.
    dropSession(new IserfsError('command-timeout', `${reason.message}; ABORT TASK: ${managementText(response)}`));
  }
}
