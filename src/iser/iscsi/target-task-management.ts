/**
 * Task management functions at the target that concern sets of tasks (RFC 7143 §11.5): which tasks each
 * one ends, on behalf of whom, and the response that follows. A function is complete when every task that
 * it concerns has left its task set. ABORT TASK, which needs the session's numbering, is in `target-session.ts`.
 */

import type { DeviceServer } from '../../scsi/port.ts';
import type { TaskSets } from '../../scsi/task-set.ts';
import { NO_LUN, type Pdu, TaskManagementCode, TaskManagementResponseCode } from './pdu.ts';

/** What a normal session works on; a discovery session has none of it. */
export interface SessionTarget {
  readonly deviceServer: DeviceServer;
  /** Shared by all sessions of the target. */
  readonly tasks: TaskSets;
}

/** Does what `request` of `nexus` asks for; resolves with the response code when the tasks concerned have ended. */
export async function manageTasks(
  request: Pdu<'task-management-request'>,
  nexus: number,
  { deviceServer, tasks }: SessionTarget,
): Promise<number> {
  const { lun } = request;
  const { complete, unsupported, rejected } = TaskManagementResponseCode;
  switch (request.function) {
    case TaskManagementCode['abort-task-set']:
      if (!deviceServer.hasLogicalUnit(lun)) return TaskManagementResponseCode['no-such-lun'];
      await tasks.abortScope({ lun, nexus }, nexus);
      return complete;
    case TaskManagementCode['clear-task-set']:
      if (!deviceServer.hasLogicalUnit(lun)) return TaskManagementResponseCode['no-such-lun'];
      await tasks.abortScope({ lun }, nexus);
      return complete;
    case TaskManagementCode['logical-unit-reset']:
      if (!deviceServer.hasLogicalUnit(lun)) return TaskManagementResponseCode['no-such-lun'];
      await tasks.abortScope({ lun }, nexus);
      return (await deviceServer.reset('logical-unit-reset', lun, nexus)) ? complete : TaskManagementResponseCode['no-such-lun'];
    case TaskManagementCode['target-warm-reset']:
      await tasks.abortScope({}, nexus);
      await deviceServer.reset('target-warm-reset', NO_LUN, nexus);
      return complete;
    case TaskManagementCode['task-reassign']:
      return TaskManagementResponseCode['reassignment-unsupported'];
    case TaskManagementCode['clear-aca']:
    case TaskManagementCode['target-cold-reset']:
      return unsupported;
    default:
      return rejected;
  }
}
