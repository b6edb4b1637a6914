/**
 * A mount that this process has made, as the kernel's table of mounts has it: whether it is there still, how it is
 * taken away, and what is left to do when it has ended. The same for every host; knows no connection and no request.
 */

import { IserfsError } from '../errors.ts';
import type { MountEnd } from './host.ts';
import { mountAt, readMountTable } from './mount-table.ts';
import { MOUNT_TYPE, unmountPath } from './mountpoint.ts';

export class OwnMount {
  readonly #mountpoint: string;
  readonly #id: number;
  /** `major:minor` */
  readonly device: string;

  /** The mount that was made on `mountpoint` just now; undefined where it has ended already. */
  static async find(mountpoint: string): Promise<OwnMount | undefined> {
    const entry = mountAt(await readMountTable(), mountpoint);
    return entry?.fileSystemType === MOUNT_TYPE ? new OwnMount(mountpoint, entry.id, entry.device) : undefined;
  }

  private constructor(mountpoint: string, id: number, device: string) {
    this.#mountpoint = mountpoint;
    this.#id = id;
    this.device = device;
  }

  /** As `FuseHost.unmount`; whatever else was mounted there since is left alone. */
  async unmount(mode: 'clean' | 'lazy'): Promise<void> {
    if (await this.#isThere()) await unmountPath(this.#mountpoint, { lazy: mode === 'lazy' });
  }

  /** The kernel has ended the connection: leaves no dead mount behind, and tells how it ended. `failed` hears of what does not work. */
  async ended(failed: (error: unknown) => void): Promise<MountEnd> {
    try {
      if (!(await this.#isThere())) return { reason: 'unmounted' };
      // The connection was cut (fusectl's abort) and the mount stayed.
      await unmountPath(this.#mountpoint, { lazy: true });
    } catch (error) {
      failed(error);
    }
    return { reason: 'aborted' };
  }

  async #isThere(): Promise<boolean> {
    return mountAt(await readMountTable(), this.#mountpoint)?.id === this.#id;
  }
}

/** The error that says so, once nothing is left of the mount that was made. */
export async function endedAtOnce(mountpoint: string): Promise<IserfsError> {
  await (await OwnMount.find(mountpoint))?.unmount('lazy');
  return new IserfsError('mount-failed', `the mount on ${mountpoint} ended as soon as it was made`);
}
