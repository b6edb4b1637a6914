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
  /** Reads the whole LUN into a file. */
  copyOut(file: string): Promise<void>;
  /** Writes random ranges, and the same bytes to `reference`. */
  writeRandomly(reference: string): Promise<void>;
  /** Undefined where a lost connection is the end. */
  readonly endlessWrites?: (reference: string) => Promise<EndlessWrites>;
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

const rdmaFolder = join(projectRoot, 'test', 'rdma');
const operations = 160;
const minute = 60_000;

/** A LUN that is a file or a block device. */
export class PathDisk implements Disk {
  readonly #machine: Machine;
  readonly #path: string;
  readonly #folder: string;
  readonly #detach: () => Promise<void>;

  constructor(options: { machine: Machine; path: string; folder: string; detach: () => Promise<void> }) {
    this.#machine = options.machine;
    this.#path = options.path;
    this.#folder = options.folder;
    this.#detach = options.detach;
  }

  async copyOut(file: string): Promise<void> {
    await this.#machine.checked(`dd if=${this.#path} of=${file} bs=1M status=none`, { timeoutMs: minute });
  }

  async writeRandomly(reference: string): Promise<void> {
    const program = join(rdmaFolder, 'random-writes.mjs');
    await this.#machine.checked(`node ${program} ${this.#path} ${reference} ${operations}`, { timeoutMs: 2 * minute });
  }

  async endlessWrites(reference: string): Promise<EndlessWrites> {
    const [progress, stop, log, status] = ['progress', 'stop', 'writes.log', 'writes.status'].map((name) =>
      join(this.#folder, name),
    );
    const program = join(rdmaFolder, 'endless-writes.mjs');
    const ended = `ended=$(<${status}); echo "writing ended: exit status $ended"; cat ${log}; exit $ended`;
    await this.#machine.checked(`
      rm -f ${stop} ${status}
      echo 0 >${progress}
      (node ${program} ${this.#path} ${reference} ${progress} ${stop}; echo $? >${status}) >${log} 2>&1 &`);
    return {
      goOn: async () => {
        await this.#machine.checked(
          `enough=$(($(<${progress}) + 24))
           while [ $(<${progress}) -lt $enough ]; do
             if [ -e ${status} ]; then ${ended}; fi
             sleep 0.1
           done`,
          { timeoutMs: 2 * minute },
        );
      },
      stop: async () => {
        await this.#machine.checked(`touch ${stop}; until [ -s ${status} ]; do sleep 0.1; done; ${ended}`, {
          timeoutMs: 2 * minute,
        });
      },
    };
  }

  async makeFileSystem(): Promise<void> {
    await this.#machine.checked(`mkfs.ext4 -q -F -E nodiscard ${this.#path} && sync ${this.#path}`, { timeoutMs: 2 * minute });
  }

  async checkFileSystem(): Promise<void> {
    await this.#machine.checked(`e2fsck -f -n ${this.#path}`, { timeoutMs: minute });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#detach();
  }
}
