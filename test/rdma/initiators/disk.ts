/**
 * A LUN in the hands of an initiator: what the steps do with it. Reference files are in the same machine, and hold what the LUN is
 * expected to hold.
 */

import { join } from 'node:path';
import { projectRoot } from '../../support/cli-process.ts';
import type { Machine } from '../machine.ts';
import type { Access, Offer } from '../targets/target.ts';

/** Writes that go on until they are stopped. */
export interface EndlessWrites {
  /** Resolves when the target has two dozen more writes for certain than it had; rejects when that takes too long or writing fails. */
  goOn(): Promise<void>;
  /** Resolves when the last write is done; rejects when one has failed. */
  stop(): Promise<void>;
}

export interface Disk extends AsyncDisposable {
  /** Where it is, there; undefined where it is neither a file nor a block device. */
  readonly path?: string;
  /** Reads the whole LUN into a file. */
  copyOut(file: string): Promise<void>;
  /** Writes random ranges, and the same bytes to `reference`. */
  writeRandomly(reference: string): Promise<void>;
  /** Also writes the same bytes to `reference`. A lost connection must not show in what is written. */
  endlessWrites(reference: string): Promise<EndlessWrites>;
  makeFileSystem(): Promise<void>;
  /** Throws unless there is a file system without faults. */
  checkFileSystem(): Promise<void>;
}

export interface Initiator {
  readonly label: string;
  /** Where it runs, and where its reference files are. */
  readonly machine: Machine;
  /** A folder for files, there. */
  readonly folder: string;
  /** Asks for targets, over TCP where the target has that. What it says names those that it was told of. */
  discover(offer: Offer): Promise<string>;
  /** Logs in. `secret` for CHAP. */
  attach(offer: Offer, secret?: string): Promise<Disk>;
  log(): Promise<string>;
}

export type { Access };

export const rdmaFolder = join(projectRoot, 'test', 'rdma');
const operations = 160;
const longMs = 240_000;

/** A LUN that is a file or a block device. */
export class PathDisk implements Disk {
  readonly path: string;
  readonly #machine: Machine;
  readonly #folder: string;
  readonly #detach: () => Promise<void>;

  constructor(options: { machine: Machine; path: string; folder: string; detach: () => Promise<void> }) {
    this.#machine = options.machine;
    this.path = options.path;
    this.#folder = options.folder;
    this.#detach = options.detach;
  }

  async copyOut(file: string): Promise<void> {
    await this.#machine.checked(`dd if=${this.path} of=${file} bs=1M status=none`);
  }

  async writeRandomly(reference: string): Promise<void> {
    const program = join(rdmaFolder, 'random-writes.mjs');
    await this.#machine.checked(`node ${program} ${this.path} ${reference} ${operations}`, { timeoutMs: longMs });
  }

  endlessWrites(reference: string): Promise<EndlessWrites> {
    return startEndlessWrites(
      this.#machine,
      this.#folder,
      ({ progress, stop }) => `node ${join(rdmaFolder, 'endless-writes.mjs')} ${this.path} ${reference} ${progress} ${stop}`,
    );
  }

  async makeFileSystem(): Promise<void> {
    await this.#machine.checked(`mkfs.ext4 -q -F -E nodiscard ${this.path} && sync ${this.path}`, { timeoutMs: longMs });
  }

  async checkFileSystem(): Promise<void> {
    await this.#machine.checked(`e2fsck -f -n ${this.path}`);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#detach();
  }
}

/**
 * Starts a program that writes until there is a file called `stop`, and counts in the file `progress` the writes that the target has
 * for certain. `command`: the program with its arguments, for a shell.
 */
export async function startEndlessWrites(
  machine: Machine,
  folder: string,
  command: (files: { readonly progress: string; readonly stop: string }) => string,
): Promise<EndlessWrites> {
  const at = (name: string) => join(folder, name);
  const [progress, stop, log, status] = [at('progress'), at('stop'), at('writes.log'), at('writes.status')];
  const ended = `ended=$(<${status}); echo "writing ended: exit status $ended"; cat ${log}; exit $ended`;
  await machine.checked(`
    rm -f ${stop} ${status}
    echo 0 >${progress}
    (${command({ progress, stop })}; echo $? >${status}) >${log} 2>&1 &`);
  return {
    goOn: async () => {
      await machine.checked(
        `enough=$(($(<${progress}) + 24))
         while [ $(<${progress}) -lt $enough ]; do
           if [ -e ${status} ]; then ${ended}; fi
           pause 0.2
         done`,
        { timeoutMs: longMs },
      );
    },
    stop: async () => {
      await machine.checked(`touch ${stop}; until [ -s ${status} ]; do pause 0.1; done; ${ended}`, {
        timeoutMs: longMs,
      });
    },
  };
}
