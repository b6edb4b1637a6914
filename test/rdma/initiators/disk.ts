/**
 * A LUN in the hands of an initiator: what the steps do with it. Reference files are in the same machine, and hold what the LUN is
 * expected to hold.
 */

import { join } from 'node:path';
import { waitFor } from '../../support/child-process.ts';
import { projectRoot } from '../../support/cli-process.ts';
import type { Machine } from '../machine.ts';
import type { Access, Offer } from '../targets/target.ts';

/** Writes that go on until they are stopped. */
export interface EndlessWrites {
  /** How many writes the target has for certain. Rejects when writing has failed. */
  written(): Promise<number>;
  /** Resolves when the last write is done; rejects when one has failed. */
  stop(): Promise<void>;
}

export interface Disk extends AsyncDisposable {
  /** Reads the whole LUN into a file. */
  copyOut(file: string): Promise<void>;
  /** Writes random ranges, and the same bytes to `reference`. */
  writeRandomly(reference: string, seed: number): Promise<void>;
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

const supportFolder = join(projectRoot, 'test', 'support');
const rdmaFolder = join(projectRoot, 'test', 'rdma');
const operations = 240;
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

  async writeRandomly(reference: string, seed: number): Promise<void> {
    const program = join(supportFolder, 'mirror-writes.mjs');
    await this.#machine.checked(`node ${program} ${this.#path} ${reference} ${operations} ${seed}`, { timeoutMs: 2 * minute });
  }

  async endlessWrites(reference: string): Promise<EndlessWrites> {
    const [progress, stop, log, status] = ['progress', 'stop', 'writes.log', 'writes.status'].map((name) =>
      join(this.#folder, name),
    );
    const program = join(rdmaFolder, 'endless-writes.mjs');
    await this.#machine.checked(`
      rm -f ${progress} ${stop} ${status}
      (node ${program} ${this.#path} ${reference} ${progress} ${stop}; echo $? >${status}) >${log} 2>&1 &`);
    const failure = async () => {
      const { status: ended, output } = await this.#machine.run(`[ -e ${status} ] && cat ${status} ${log}`);
      return ended === 0 ? output.trim() : undefined;
    };
    return {
      written: async () => {
        const failed = await failure();
        if (failed !== undefined) throw new Error(`writing ended: exit status ${failed}`);
        const { output } = await this.#machine.run(`cat ${progress}`);
        return Number.parseInt(output, 10) || 0;
      },
      stop: async () => {
        await this.#machine.checked(`touch ${stop}`);
        const outcome = await waitFor(failure, { withinMs: 2 * minute, everyMs: 200, what: 'the last write' });
        if (outcome !== '0') throw new Error(`writing failed: exit status ${outcome}`);
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
