/**
 * A port whose target is our own device server with a thin disk in memory, without a wire, which shows
 * other disks as well: a test may change VPD pages, end commands unexecuted, and see what came.
 */

import { BlockDeviceServer } from '../../src/scsi/device-server.ts';
import { MemoryMedium } from '../../src/scsi/memory-medium.ts';
import type { ScsiCommand, ScsiPort, ScsiResult, StartedCommand } from '../../src/scsi/port.ts';
import type { Injection } from './scripted-port.ts';
import { tellCommand } from './started-command.ts';

export interface ThinPortOptions {
  readonly size: number;
  readonly blockLength?: number;
  /** Changes the body of a VPD page before the initiator sees it. */
  readonly editPage?: (page: number, body: Uint8Array) => void;
}

export class ThinPort implements ScsiPort {
  readonly description = 'test target';
  readonly nexus = 1;
  readonly medium: MemoryMedium;
  /** CDBs and data in the order of arrival. */
  readonly received: { readonly cdb: Uint8Array; readonly dataOut: Uint8Array | undefined }[] = [];
  /** Asked at each command; what it returns ends the command unexecuted. */
  inject: ((command: ScsiCommand) => Injection | undefined) | undefined;
  readonly #options: ThinPortOptions;
  readonly #server: BlockDeviceServer;

  constructor(options: ThinPortOptions) {
    this.#options = options;
    this.medium = new MemoryMedium(options.size);
    const { blockLength = 512 } = options;
    this.#server = new BlockDeviceServer({ units: [{ lun: 0, medium: this.medium, blockLength, serial: 'thin' }] });
    this.#server.nexusEstablished(this.nexus);
  }

  /** The commands of one operation code. */
  of(opcode: number): readonly { readonly cdb: Uint8Array; readonly dataOut: Uint8Array | undefined }[] {
    return this.received.filter(({ cdb }) => cdb[0] === opcode);
  }

  established(): Promise<number> {
    return Promise.resolve(this.nexus);
  }

  subscribe(): () => void {
    return () => {};
  }

  async resetLogicalUnit(): Promise<void> {}

  start(command: StartedCommand): void {
    tellCommand(command, this.#execute(command));
  }

  async #execute(command: ScsiCommand): Promise<ScsiResult> {
    const { lun, cdb, dataIn, dataOut } = command;
    this.received.push({ cdb: cdb.slice(), dataOut: dataOut?.slice() });
    const injected = this.inject?.(command);
    if (injected !== undefined) {
      return { status: injected.status, sense: injected.sense ?? new Uint8Array(0), transferred: injected.transferred ?? 0 };
    }
    const padded = new Uint8Array(16);
    padded.set(cdb);
    let moved = 0;
    const signal = command.signal ?? new AbortController().signal;
    const { status, sense } = await this.#server.execute({
      nexus: this.nexus,
      lun,
      cdb: padded,
      expectedDataTransferLength: (dataIn ?? dataOut)?.length ?? 0,
      get isAborted() {
        return signal.aborted;
      },
      signal,
      sendDataIn: async (offset, data) => {
        dataIn?.set(data, offset);
        moved = offset + data.length;
      },
      receiveDataOut: async (offset, into) => {
        into.set(dataOut?.subarray(offset, offset + into.length) ?? []);
        moved = offset + into.length;
      },
    });
    const isPage = cdb[0] === 0x12 && ((cdb[1] ?? 0) & 1) === 1;
    if (isPage && dataIn !== undefined) this.#options.editPage?.(cdb[2] ?? 0, dataIn.subarray(4, moved));
    return { status, sense, transferred: moved };
  }
}
