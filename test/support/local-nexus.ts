/**
 * An I_T nexus without a wire: runs commands against a device server in the same process and checks, as a
 * port would, that the server keeps to the contract of `ServerTask`.
 */

import { lunFromNumber } from '../../src/scsi/lun.ts';
import type { DeviceServer, Lun, ServerResult } from '../../src/scsi/port.ts';
import { decodeSense, type Sense } from '../../src/scsi/sense.ts';
import { Status } from '../../src/scsi/status.ts';

export interface RunOptions {
  readonly lun?: Lun;
  readonly dataOut?: Uint8Array;
  /** Expected data transfer length of a command that sends data; 1 MiB unless told. */
  readonly room?: number;
  readonly signal?: AbortSignal;
  /** Called before each piece of data moves. */
  readonly onTransfer?: (offset: number, length: number) => Promise<void> | void;
}

export interface Outcome {
  readonly status: number;
  readonly sense: Sense | undefined;
  readonly data: Uint8Array;
  readonly transferLength: number;
}

export class LocalNexus {
  readonly #server: DeviceServer;
  readonly #nexus: number;
  readonly #lun: Lun;

  constructor(server: DeviceServer, nexus: number, lun = 0) {
    this.#server = server;
    this.#nexus = nexus;
    this.#lun = lunFromNumber(lun);
    server.nexusEstablished(nexus);
  }

  /** Runs a command and throws where the server breaks the contract. */
  async run(cdb: Uint8Array, options: RunOptions = {}): Promise<Outcome> {
    const { dataOut } = options;
    const expectedDataTransferLength = dataOut?.length ?? options.room ?? 1024 * 1024;
    const received = new Uint8Array(dataOut === undefined ? expectedDataTransferLength : 0);
    let sent = 0;
    let settled = false;
    const move = async (offset: number, length: number) => {
      if (settled) throw new Error('data moved after the status');
      await options.onTransfer?.(offset, length);
    };
    // iSCSI hands every CDB over in 16 bytes.
    const padded = new Uint8Array(16);
    padded.set(cdb);
    const signal = options.signal ?? new AbortController().signal;
    const result: ServerResult = await this.#server.execute({
      nexus: this.#nexus,
      lun: options.lun ?? this.#lun,
      cdb: padded,
      expectedDataTransferLength,
      get isAborted() {
        return signal.aborted;
      },
      signal,
      sendDataIn: async (offset, data) => {
        if (dataOut !== undefined) throw new Error('data in for a command with data out');
        if (offset !== sent) throw new Error(`data in at ${offset} after ${sent} bytes`);
        sent += data.length;
        const copy = data.slice();
        await move(offset, data.length);
        received.set(copy.subarray(0, Math.max(0, received.length - offset)), Math.min(offset, received.length));
      },
      receiveDataOut: async (offset, into) => {
        if (dataOut === undefined || offset + into.length > dataOut.length) throw new Error('data out that is not there');
        await move(offset, into.length);
        into.set(dataOut.subarray(offset, offset + into.length));
      },
    });
    settled = true;
    if ((result.status === Status['check-condition']) !== result.sense.length > 0)
      throw new Error('sense data and status disagree');
    return {
      status: result.status,
      sense: decodeSense(result.sense),
      data: received.subarray(0, Math.min(sent, received.length)),
      transferLength: result.transferLength,
    };
  }

  /** Takes the unit attentions that are pending, so that the next command runs. */
  async ready(): Promise<void> {
    for (let attempt = 0; attempt < 8; attempt++) {
      const { status } = await this.run(new Uint8Array(6));
      if (status === Status.good) return;
    }
    throw new Error('the unit does not become ready');
  }

  lost(): void {
    this.#server.nexusLost(this.#nexus);
  }
}
