import type { DeviceServer, Lun, ServerResult, ServerTask, TaskManagementFunction } from '../../src/scsi/port.ts';

/** A device server whose commands end when the test says so, and which records what it is told. */
export class ScriptedDeviceServer implements DeviceServer {
  readonly luns: ReadonlySet<Lun>;
  /** Commands that were started, in order, with the means to end them. */
  readonly started: {
    readonly task: ServerTask;
    readonly end: (result?: Partial<ServerResult>) => void;
    readonly fail: () => void;
  }[] = [];
  readonly log: string[] = [];
  /** Where set, executes in place of waiting for the test. */
  script: ((task: ServerTask) => Promise<ServerResult>) | undefined;

  constructor(luns: readonly Lun[] = [0n]) {
    this.luns = new Set(luns);
  }

  execute(task: ServerTask): Promise<ServerResult> {
    if (this.script !== undefined) return this.script(task);
    return new Promise((resolve, reject) => {
      this.started.push({
        task,
        end: (result = {}) =>
          resolve({ status: 0, sense: new Uint8Array(0), transferLength: task.expectedDataTransferLength, ...result }),
        fail: () => reject(new Error('broken')),
      });
    });
  }

  nexusEstablished(nexus: number): void {
    this.log.push(`nexus ${nexus} established`);
  }

  nexusLost(nexus: number): void {
    this.log.push(`nexus ${nexus} lost`);
  }

  reset(function_: TaskManagementFunction, lun: Lun, nexus: number): Promise<boolean> {
    this.log.push(`${function_} of lun ${lun} by nexus ${nexus}`);
    return Promise.resolve(this.luns.has(lun));
  }

  hasLogicalUnit(lun: Lun): boolean {
    return this.luns.has(lun);
  }
}
