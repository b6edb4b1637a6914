/** iserfs, mounted by its command line, in the guest or outside of it: a LUN is a file. */

import { join } from 'node:path';
import { cliPath, MountProcess } from '../../support/cli-process.ts';
import type { Workdir } from '../../support/workdir.ts';
import type { Guest } from '../guest.ts';
import { here, type Machine } from '../machine.ts';
import { account, initiatorName, type Offer } from '../targets/target.ts';
import { type Disk, type Initiator, PathDisk } from './disk.ts';

/** A running `iserfs mount`. */
interface Mount {
  readonly mountpoint: string;
  stop(): Promise<void>;
}

interface Place {
  readonly machine: Machine;
  /** The command line, there. */
  readonly cliPath: string;
  readonly folder: string;
  /** What the guest's `port` is called there. */
  portal(port: number): string;
  mount(args: readonly string[], secret: string | undefined): Promise<Mount>;
  log(): Promise<string>;
}

export class MountInitiator implements Initiator {
  readonly label: string;
  readonly #place: Place;
  readonly #transport: string;

  constructor(place: Place, transport: string) {
    this.label = `iserfs --transport ${transport}`;
    this.#place = place;
    this.#transport = transport;
  }

  get machine(): Machine {
    return this.#place.machine;
  }

  get folder(): string {
    return this.#place.folder;
  }

  async discover(offer: Offer): Promise<string> {
    const { machine, cliPath } = this.#place;
    const options = this.#options().join(' ');
    return await machine.checked(`node ${cliPath} discover ${this.#portal(offer)} ${options}`, { timeoutMs: 180_000 });
  }

  async attach(offer: Offer, secret?: string): Promise<Disk> {
    const args = [
      '--portal',
      this.#place.portal(offer.port),
      '--target',
      offer.name,
      '--lun',
      `${offer.lun}`,
      ...this.#options(),
    ];
    const mount = await this.#place.mount(secret === undefined ? args : [...args, '--chap-user', account.user], secret);
    try {
      const status = await this.machine.checked(`cat ${mount.mountpoint}/status`);
      if (!status.includes(` by ${this.#transport}`)) throw new Error(`not by ${this.#transport}:\n${status}`);
      const path = join(mount.mountpoint, offer.name, `lun${offer.lun}`, 'image');
      return new PathDisk({ machine: this.machine, path, folder: this.folder, detach: () => mount.stop() });
    } catch (error) {
      await mount.stop();
      throw error;
    }
  }

  log(): Promise<string> {
    return this.#place.log();
  }

  #portal({ port, tcpPort }: Offer): string {
    const iser = this.#place.portal(port);
    const [, iserPort] = iser.split(':');
    return tcpPort === undefined || tcpPort === port ? iser : `${this.#place.portal(tcpPort)},iser-port=${iserPort}`;
  }

  #options(): string[] {
    // An emulated machine may be slow; a login that hangs takes longer than this in any case.
    return ['--transport', this.#transport, '--initiator-name', initiatorName, '--login-timeout', '40s'];
  }
}

/** In the guest, where the portals have `address`. */
export async function inGuest(guest: Guest, address: string): Promise<Place> {
  const folder = '/tmp/iserfs';
  const mountpoint = join(folder, 'mnt');
  const log = join(folder, 'mount.log');
  await guest.checked(`modprobe fuse && mkdir -p ${mountpoint}`);
  const readLog = async () => (await guest.run(`cat ${log}`)).output;
  return {
    machine: guest,
    cliPath: guest.cliPath,
    folder,
    portal: (port) => `${address}:${port}`,
    async mount(args, secret) {
      const stop = async () => {
        await guest.checked(
          `pid=$(<${folder}/pid)
           kill -TERM $pid
           for attempt in $(seq 300); do kill -0 $pid 2>/dev/null || exit 0; pause 0.1; done
           kill -KILL $pid
           fusermount3 -u -z ${mountpoint}
           echo 'the mount did not stop'
           exit 1`,
          { timeoutMs: 180_000 },
        );
      };
      const { status, output } = await guest.run(
        `${secret === undefined ? '' : `export ISERFS_CHAP_SECRET=${secret}`}
         setsid node ${guest.cliPath} mount ${mountpoint} --foreground ${args.join(' ')} >${log} 2>&1 &
         pid=$!
         echo $pid >${folder}/pid
         until [[ $(</proc/self/mountinfo) == *' ${mountpoint} '* ]]; do
           kill -0 $pid || { cat ${log}; exit 1; }
           pause 0.2
         done
         until head -c 1 ${mountpoint}/status >/dev/null; do
           kill -0 $pid || { cat ${log}; exit 1; }
           pause 0.2
         done`,
        { timeoutMs: 180_000 },
      );
      if (status === 0) return { mountpoint, stop };
      await stop().catch(() => {}); // it has ended, most likely
      throw new Error(`iserfs mount: exit status ${status}\n${output}`);
    },
    log: readLog,
  };
}

/** On this machine, by TCP ports that the guest forwards. */
export function outside(guest: Guest, workdir: Workdir): Place {
  const mountpoint = workdir.folder('mnt');
  let last: MountProcess | undefined;
  return {
    machine: here,
    cliPath,
    folder: workdir.path,
    portal: (port) => guest.portal(port),
    async mount(args, secret) {
      const env = secret === undefined ? process.env : { ...process.env, ISERFS_CHAP_SECRET: secret };
      const mount = await MountProcess.start({ mountpoint, args, env });
      last = mount;
      return {
        mountpoint,
        async stop() {
          const { status } = await mount.stop();
          await mount[Symbol.asyncDispose]();
          if (status !== 0) throw new Error(`iserfs mount ended with ${status}\n${mount.stderr}`);
        },
      };
    },
    log: async () => last?.stderr ?? '',
  };
}
