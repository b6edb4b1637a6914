import type { ScsiResult, StartedCommand } from '../../src/scsi/port.ts';

/** Tells `command` how `work` settles. */
export function tellCommand(command: StartedCommand, work: Promise<ScsiResult>): void {
  work.then(
    (result) => command.ended(result),
    (error: Error) => command.failed(error),
  );
}
