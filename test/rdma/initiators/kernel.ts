/**
 * The kernel's own iSER initiator (ib_iser, driven by open-iscsi), in the guest: a LUN is a block device. Known of 6.1: now and then
 * it keeps the task of a login request for ever, and sends no further request on that session ("Login/Text in progress. Cannot start
 * new task", open-iscsi issue 424), until open-iscsi gives up; a login in a new session then works.
 */

import type { Guest } from '../guest.ts';
import { account, initiatorName, type Offer } from '../targets/target.ts';
import { type Disk, type Initiator, PathDisk } from './disk.ts';

const folder = '/tmp/kernel';

export class KernelInitiator implements Initiator {
  readonly label = 'kernel (ib_iser)';
  readonly folder = folder;
  readonly machine: Guest;
  readonly #address: string;
  readonly #interface: string;

  private constructor(guest: Guest, address: string, netInterface: string) {
    this.machine = guest;
    this.#address = address;
    this.#interface = netInterface;
  }

  /** `address`: where it finds the targets. `iface`: open-iscsi's name of the transport. */
  static async start(guest: Guest, address: string, iface: 'iser' | 'default' = 'iser'): Promise<KernelInitiator> {
    await guest.checked(`
      set -e
      mkdir -p ${folder}
      modprobe -a sd_mod ib_iser iscsi_tcp
      echo InitiatorName=${initiatorName} >/etc/iscsi/initiatorname.iscsi
      pidof iscsid >/dev/null || iscsid >/tmp/iscsid.log 2>&1`);
    return new KernelInitiator(guest, address, iface);
  }

  discover({ port, tcpPort }: Offer): Promise<string> {
    return this.machine.checked(`iscsiadm -m discovery -t sendtargets -p ${this.#address}:${tcpPort ?? port} -o nonpersistent`);
  }

  async attach(offer: Offer, secret?: string): Promise<Disk> {
    const portal = `${this.#address}:${offer.port}`;
    const node = `iscsiadm -m node -T ${offer.name} -p ${portal}`;
    const settings = [
      '-n node.session.initial_login_retry_max -v 1',
      '-n node.conn[0].timeo.login_timeout -v 30',
      '-n node.session.timeo.replacement_timeout -v 120',
      ...(secret === undefined
        ? []
        : [
            '-n node.session.auth.authmethod -v CHAP',
            `-n node.session.auth.username -v ${account.user}`,
            `-n node.session.auth.password -v ${secret}`,
          ]),
    ];
    await this.machine.checked(
      `set -e
       ${node} -I ${this.#interface} -o new
       ${node} -o update ${settings.join(' ')}
       dmesg --clear
       ${node} --login ||
         { dmesg | grep -q 'Login/Text in progress' && ${node} --login; } ||
         { ${node} -o delete; exit 1; }`,
      { timeoutMs: 180_000 },
    );
    const detach = async () => {
      await this.machine.checked(`${node} --logout && ${node} -o delete`, { timeoutMs: 180_000 });
    };
    try {
      const path = await this.machine.checked(`
        for attempt in $(seq 300); do
          for link in /sys/class/iscsi_session/*; do
            [ "$(cat $link/targetname)" = ${offer.name} ] || continue
            for disk in $link/device/target*/*:${offer.lun}/block/*; do
              [ -b /dev/\${disk##*/} ] && echo -n /dev/\${disk##*/} && exit 0
            done
          done
          pause 0.1
        done
        echo 'no block device'; exit 1`);
      return new PathDisk({ machine: this.machine, path, folder, detach });
    } catch (error) {
      await detach();
      throw error;
    }
  }

  log(): Promise<string> {
    return this.machine.checked('cat /tmp/iscsid.log');
  }
}
