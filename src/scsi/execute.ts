/** A command of a port as a promise, for whoever issues few of them. */

import type { ScsiCommand, ScsiPort, ScsiResult } from './port.ts';

/** Resolves with the status of `command`; rejects where it fails, as `ScsiPort.start` says. */
export function execute(port: ScsiPort, command: ScsiCommand): Promise<ScsiResult> {
  return new Promise((resolve, reject) => {
    const { lun, cdb, dataIn, dataOut, nexus, timeoutMs, signal } = command;
    port.start({ lun, cdb, dataIn, dataOut, nexus, timeoutMs, signal, ended: resolve, failed: reject });
  });
}
