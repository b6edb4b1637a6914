/**
 * What is known of the device behind a logical unit: who it is and what it can do, as it said last. Asks
 * again when told to, and says what has changed. Knows nothing of sessions, nor when to ask.
 */

import { IserfsError } from '../errors.ts';
import { differenceBetween, isAnonymous, type LogicalUnitIdentity } from './identity.ts';
import { type Characteristics, characterize, hasImage, identify, type RunCommand, readCapacity } from './probe.ts';

export interface DeviceDifference {
  readonly resized: boolean;
  /** Size, write protection or write cache. */
  readonly info: boolean;
}

export class KnownDevice {
  readonly #description: string;
  #identity: LogicalUnitIdentity | undefined;
  #characteristics: Characteristics | undefined;
  /** The device has no cache that could be synchronised: it knows neither the mode page nor the command. */
  #refusesToSynchronize = false;

  /** `description`: portal, target and LUN, for messages. */
  constructor(description: string) {
    this.#description = description;
  }

  /** Throws before the first `probe`. */
  get identity(): LogicalUnitIdentity {
    if (this.#identity === undefined) throw new IserfsError('internal', `${this.#description} is not probed yet`);
    return this.#identity;
  }

  /** Undefined for a device that is no disk. */
  get characteristics(): Characteristics | undefined {
    return this.#characteristics;
  }

  /** As `characteristics`; throws `unsupported` for a device that is no disk. */
  get disk(): Characteristics {
    if (this.#characteristics === undefined) throw new IserfsError('unsupported', `${this.#description} is no disk`);
    return this.#characteristics;
  }

  /** Asks for everything, whoever it is. */
  async probe(run: RunCommand): Promise<void> {
    this.#identity = await identify(run);
    this.#characteristics = hasImage(this.#identity.deviceType) ? this.#corrected(await characterize(run)) : undefined;
  }

  /** Throws `logical-unit-changed` where the device is another one now, `logical-unit-gone` where there is none. */
  async verify(run: RunCommand): Promise<void> {
    const found = await identify(run);
    const difference = differenceBetween(this.identity, found) ?? (await this.#differenceOfAnonymous(found, run));
    if (difference !== undefined) {
      throw new IserfsError('logical-unit-changed', `${this.#description} is another logical unit now: ${difference}`, {
        hint: 'Unmount and mount again to use the logical unit that is there now.',
      });
    }
    this.#identity = found;
  }

  /** Asks again for what can change: capacity, mode and limits. */
  async refresh(run: RunCommand): Promise<DeviceDifference> {
    const before = this.#characteristics;
    if (before === undefined) return { resized: false, info: false };
    const after = this.#corrected(await characterize(run));
    this.#characteristics = after;
    const resized = before.size !== after.size || before.capacity.blockLength !== after.capacity.blockLength;
    const modeDiffers = before.writeProtected !== after.writeProtected || before.writeCache !== after.writeCache;
    return { resized, info: resized || modeDiffers };
  }

  /** SYNCHRONIZE CACHE was refused as an unknown command. Returns whether that settles that there is no volatile cache. */
  refusedToSynchronize(): boolean {
    if (this.disk.writeCache !== 'unknown') return false;
    this.#refusesToSynchronize = true;
    this.#characteristics = this.#corrected(this.disk);
    return true;
  }

  /** Two units of one product that nothing names are told apart by their size alone. */
  async #differenceOfAnonymous(found: LogicalUnitIdentity, run: RunCommand): Promise<string | undefined> {
    if (this.#characteristics === undefined || !isAnonymous(this.identity) || !isAnonymous(found)) return undefined;
    const { lastLba, blockLength } = await readCapacity(run);
    const { capacity } = this.#characteristics;
    if (lastLba === capacity.lastLba && blockLength === capacity.blockLength) return undefined;
    return 'another size, and nothing that names it';
  }

  #corrected(device: Characteristics): Characteristics {
    return this.#refusesToSynchronize && device.writeCache === 'unknown' ? { ...device, writeCache: 'none' } : device;
  }
}
