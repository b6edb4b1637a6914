/**
 * libiscsi's iSER initiator, in the guest, by the block driver of QEMU's tools. Known of libiscsi 1.19: it fails reads of more than
 * 256 KiB by one command, so that the tools are told to ask for less at a time; it cannot log in over iSER in more than one
 * exchange, and so not with CHAP: against tgtd and LIO, too, it ends with "CQ handle Failed"; where immediate data was agreed on, it
 * announces such data with its writes and does not send it, and LIO 6.1.192 closes the connection; it never comes back from a
 * connection that was lost.
 */

import { join } from 'node:path';
import { SeededRandom } from '../../support/seeded-random.ts';
import { lunSize } from '../fabric.ts';
import type { Guest } from '../guest.ts';
import { initiatorName, type Offer } from '../targets/target.ts';
import { type Disk, type EndlessWrites, type Initiator, rdmaFolder, startEndlessWrites } from './disk.ts';

const folder = '/tmp/libiscsi';
const longestTransfer = 128 * 1024;
const operations = 200;
const seed = 1;
const longMs = 240_000;

export class LibiscsiInitiator implements Initiator {
  readonly label = 'libiscsi';
  readonly folder = folder;
  readonly machine: Guest;
  readonly #address: string;

  private constructor(guest: Guest, address: string) {
    this.machine = guest;
    this.#address = address;
  }

  static async start(guest: Guest, address: string): Promise<LibiscsiInitiator> {
    await guest.checked(`mkdir -p ${folder}`);
    return new LibiscsiInitiator(guest, address);
  }

  discover({ port, tcpPort }: Offer): Promise<string> {
    return this.machine.checked(`iscsi-ls -i ${initiatorName} iscsi://${this.#address}:${tcpPort ?? port}`);
  }

  async attach(offer: Offer): Promise<Disk> {
    const disk = new LibiscsiDisk(this.machine, this.#address, offer);
    await disk.checkSize();
    return disk;
  }

  async log(): Promise<string> {
    return (await this.machine.run(`cat ${folder}/*.log`)).output;
  }
}

/** Every operation is a session of its own. */
class LibiscsiDisk implements Disk {
  readonly #guest: Guest;
  /** As QEMU's tools name it. */
  readonly #image: string;

  constructor(guest: Guest, address: string, offer: Offer) {
    this.#guest = guest;
    const unit = [
      'driver=iser,transport=iser',
      `portal=${address}:${offer.port},target=${offer.name},lun=${offer.lun}`,
      `initiator-name=${initiatorName}`,
    ];
    const prefixed = unit.join(',').replaceAll(/(^|,)/g, '$1image.');
    this.#image = `driver=blkdebug,max-transfer=${longestTransfer},${prefixed}`;
  }

  async checkSize(): Promise<void> {
    const text = await this.#guest.checked(`qemu-img info --output=json --image-opts ${this.#image}`);
    const size: unknown = JSON.parse(text)['virtual-size'];
    if (size !== lunSize) throw new Error(`the LUN has ${size} bytes, not ${lunSize}`);
  }

  async copyOut(file: string): Promise<void> {
    await this.#guest.checked(`qemu-img convert -O raw --image-opts ${this.#image} ${file}`);
  }

  async writeRandomly(reference: string): Promise<void> {
    const commands = randomCommands(seed, operations).join('\n');
    // qemu-io says that a command has failed, and goes on.
    const output = await this.#guest.checked(
      `cat >${folder}/commands <<'END'\n${commands}\nEND
       qemu-io --image-opts ${this.#image} <${folder}/commands 2>&1 | tee ${folder}/random.log
       qemu-io -f raw ${reference} <${folder}/commands >${folder}/reference.log`,
      { timeoutMs: longMs },
    );
    if (/fail|error/i.test(output)) throw new Error(output);
    const [done, asked] = [count(output, /wrote \d/g), count(commands, /write /g)];
    if (done !== asked) throw new Error(`${done} of ${asked} writes\n${output}`);
  }

  /** Session by session, because none comes back from a lost connection: the next one has to. */
  endlessWrites(reference: string): Promise<EndlessWrites> {
    const program = join(rdmaFolder, 'endless-sessions.sh');
    return startEndlessWrites(
      this.#guest,
      folder,
      ({ progress, stop }) => `${program} ${this.#image} ${reference} ${lunSize} ${progress} ${stop}`,
    );
  }

  /** Made in a file, which is then written to the LUN as a whole. */
  async makeFileSystem(): Promise<void> {
    const file = `${folder}/filesystem`;
    await this.#guest.checked(
      `set -e
       rm -f ${file}
       truncate -s ${lunSize} ${file}
       mkfs.ext4 -q -F ${file}
       qemu-img convert -n -S 0 -f raw --target-image-opts ${file} ${this.#image}
       rm ${file}`,
    );
  }

  async checkFileSystem(): Promise<void> {
    const file = `${folder}/filesystem`;
    await this.copyOut(file);
    await this.#guest.checked(`e2fsck -f -n ${file}; status=$?; rm ${file}; exit $status`);
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

function count(text: string, pattern: RegExp): number {
  return (text.match(pattern) ?? []).length;
}

/** Writes, some of them several at once, and reads that check what was written. */
function randomCommands(seed: number, rounds: number): string[] {
  const random = new SeededRandom(seed);
  const commands: string[] = [];
  const stripe = 128; // blocks: writes that are in flight together do not overlap
  for (let index = 0; index < rounds; index++) {
    const offset = 512 * random.below(lunSize / 512 - stripe);
    const length = 512 * random.between(1, stripe);
    const pattern = random.between(1, 255);
    commands.push(`write -P ${pattern} ${offset} ${length}`);
    if (index % 5 === 0) commands.push(`read -P ${pattern} ${offset} ${length}`);
    if (index % 10 !== 0) continue;
    const start = 512 * random.below(lunSize / 512 - 8 * stripe);
    for (let lane = 0; lane < 8; lane++) {
      commands.push(`aio_write -P ${random.between(1, 255)} ${start + lane * stripe * 512} ${512 * random.between(1, stripe)}`);
    }
    commands.push('aio_flush');
  }
  return [...commands, 'flush'];
}
