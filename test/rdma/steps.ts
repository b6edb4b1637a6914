/**
 * What every combination of an initiator and a target is put through, step by step: the columns of the table of outcomes. The LUN
 * stays attached from one step to the next.
 */

import { join } from 'node:path';
import { lunSize } from './fabric.ts';
import type { Guest } from './guest.ts';
import type { Disk, Initiator } from './initiators/disk.ts';
import { account, type TestTarget } from './targets/target.ts';

export const stepNames = [
  'discovery',
  'login with CHAP',
  'login',
  'copy out and compare',
  'random writes and compare',
  'mkfs and e2fsck',
  'disconnect and recover',
] as const;

export type StepName = (typeof stepNames)[number];

export interface Peers {
  readonly guest: Guest;
  readonly initiator: Initiator;
  readonly target: TestTarget;
}

/** One combination on its way through the steps. */
export class Run implements AsyncDisposable {
  readonly #peers: Peers;
  #disk: Disk | undefined;

  constructor(peers: Peers) {
    this.#peers = peers;
  }

  /** Rejects when the step has failed. */
  async step(name: StepName): Promise<void> {
    const steps: Readonly<Record<StepName, () => Promise<void>>> = {
      discovery: () => this.#discover(),
      'login with CHAP': () => this.#logInWithChap(),
      login: () => this.#logIn(),
      'copy out and compare': () => this.#compare(),
      'random writes and compare': () => this.#writeRandomly(),
      'mkfs and e2fsck': () => this.#makeFileSystem(),
      'disconnect and recover': () => this.#recover(),
    };
    await steps[name]();
  }

  /** What both sides and the kernel between them said. */
  async logs(): Promise<string> {
    const { guest, initiator, target } = this.#peers;
    const part = async (title: string, text: () => Promise<string>) =>
      `---- ${title} ----\n${await text().catch((error: unknown) => `not to be had: ${error}`)}`;
    const parts = [
      await part(initiator.label, async () => lastLines(await initiator.log(), 60)),
      await part(target.label, async () => lastLines(await target.log(), 60)),
      await part("the guest's kernel", async () => lastLines(guest.console(), 30)),
    ];
    return parts.join('\n');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#detach();
  }

  async #discover(): Promise<void> {
    const { initiator, target } = this.#peers;
    const offer = await target.offer('open');
    const found = await initiator.discover(offer);
    if (!found.includes(offer.name)) throw new Error(`${offer.name} is not among the targets that were found:\n${found}`);
  }

  /** With the right secret, and not with a wrong one. */
  async #logInWithChap(): Promise<void> {
    const { initiator, target } = this.#peers;
    const offer = await target.offer('chap');
    const disk = await initiator.attach(offer, account.secret);
    await disk[Symbol.asyncDispose]();
    const intruder = await initiator.attach(offer, account.wrongSecret).catch(() => undefined);
    if (intruder === undefined) return;
    await intruder[Symbol.asyncDispose]();
    throw new Error('a wrong secret was as good as the right one');
  }

  async #logIn(): Promise<void> {
    const { initiator, target } = this.#peers;
    this.#disk = await initiator.attach(await target.offer('open'));
  }

  /** Read by the initiator, the LUN is what the target has. */
  async #compare(): Promise<void> {
    const { initiator } = this.#peers;
    const copy = join(initiator.folder, 'copy');
    await this.#attached.copyOut(copy);
    await this.#expectAtTarget(copy);
  }

  async #writeRandomly(): Promise<void> {
    const { initiator, target } = this.#peers;
    const { machine, folder } = initiator;
    const reference = join(folder, 'reference');
    await this.#attached.copyOut(reference);
    await this.#attached.writeRandomly(reference);
    await this.#detach();
    await this.#expectAtTarget(reference);
    this.#disk = await initiator.attach(await target.offer('open'));
    const copy = join(folder, 'copy');
    await this.#attached.copyOut(copy);
    await machine.checked(`cmp ${copy} ${reference}`);
  }

  async #makeFileSystem(): Promise<void> {
    const { guest, target } = this.#peers;
    await this.#attached.makeFileSystem();
    await this.#attached.checkFileSystem();
    await guest.checked(`e2fsck -f -n ${target.backing}`);
  }

  /** The connections are broken twice while writes go on; not one is lost, not one fails. */
  async #recover(): Promise<void> {
    const { initiator, target } = this.#peers;
    const reference = join(initiator.folder, 'reference');
    await this.#attached.copyOut(reference);
    const writes = await this.#attached.endlessWrites(reference);
    try {
      await writes.goOn();
      for (const _ of ['once', 'once more']) {
        await target.cut();
        await writes.goOn();
      }
    } catch (error) {
      await writes.stop().catch(() => {});
      throw error;
    }
    await writes.stop();
    await this.#detach();
    await this.#expectAtTarget(reference);
  }

  get #attached(): Disk {
    if (this.#disk === undefined) throw new Error('no LUN is attached: an earlier step has failed');
    return this.#disk;
  }

  async #detach(): Promise<void> {
    const disk = this.#disk;
    this.#disk = undefined;
    await disk?.[Symbol.asyncDispose]();
  }

  /** The target's bytes are those of `file`, which is at the initiator's. */
  async #expectAtTarget(file: string): Promise<void> {
    const { guest, initiator, target } = this.#peers;
    const digest = async (text: Promise<string>) => (await text).split(' ')[0];
    const expected = await digest(initiator.machine.checked(`sha256sum ${file}`));
    const size = Number(await initiator.machine.checked(`stat -c %s ${file}`));
    if (size !== lunSize) throw new Error(`${file} has ${size} bytes, not ${lunSize}`);
    const actual = await digest(guest.checked(`sha256sum ${target.backing}`));
    if (actual !== expected) throw new Error(`the target's bytes (SHA-256 ${actual}) are not those of ${file} (${expected})`);
  }
}

function lastLines(text: string, count: number): string {
  return text.trimEnd().split('\n').slice(-count).join('\n');
}
