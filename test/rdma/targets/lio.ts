/**
 * LIO, the target in the guest's kernel, with an iSER portal (ib_isert). Set up by configfs alone: no Python. Known of 6.1: making a
 * portal opens a TCP listener at its address, and with siw the RDMA listener wants the very same port, so that the TCP half is made
 * in a network namespace of its own where nobody meets it; it serves one login at a time, and one that is left half done blocks
 * the portal.
 */

import type { Fabric } from '../fabric.ts';
import { fabricAddress, lunFolder, lunSize } from '../fabric.ts';
import type { Guest } from '../guest.ts';
import { type Access, account, type Offer, type TestTarget } from './target.ts';

const names = { open: 'iqn.2024-01.test:lio-open', chap: 'iqn.2024-01.test:lio-chap' };
const configuration = '/sys/kernel/config/target';

export class Lio implements TestTarget {
  static readonly port = 3261;
  readonly label = 'LIO';
  readonly backing = `${lunFolder}/lio`;
  readonly #guest: Guest;
  readonly #fabric: Fabric;

  private constructor(guest: Guest, fabric: Fabric) {
    this.#guest = guest;
    this.#fabric = fabric;
  }

  static async start(guest: Guest, fabric: Fabric): Promise<Lio> {
    const lio = new Lio(guest, fabric);
    await guest.checked(lio.#startScript(), { timeoutMs: 180_000 });
    return lio;
  }

  async offer(access: Access): Promise<Offer> {
    return { port: Lio.port, tcpPort: this.#fabric === 'siw' ? undefined : Lio.port, name: names[access], lun: 0 };
  }

  /**
   * With siw it is the connections' TCP sockets that are destroyed. With rxe there is nothing below that could be cut, and LIO drops
   * its connections by being disabled for a moment; with siw that is not to be had: it then waits for ever for commands that it was
   * in the middle of (seen in 3 of 4, in isert_wait_conn).
   */
  async cut(): Promise<void> {
    if (this.#fabric === 'siw') await this.#guest.checked(`ss --kill --no-header state established '( sport = :${Lio.port} )'`);
    else await this.#guest.checked(`set -e\n${this.#enable(0)}\n${this.#enable(1)}`);
  }

  log(): Promise<string> {
    return Promise.resolve(''); // it speaks on the guest's console
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#guest.run(this.#enable(0));
  }

  #enable(state: 0 | 1): string {
    return Object.values(names)
      .map((name) => `echo ${state} >${configuration}/iscsi/${name}/tpgt_1/enable`)
      .join('\n');
  }

  #startScript(): string {
    const device = `${configuration}/core/fileio_0/disk`;
    // At every address, so that the portal is on the guest's card, too.
    const portal = `np/${this.#fabric === 'siw' ? '0.0.0.0' : fabricAddress}:${Lio.port}`;
    const makePortal = this.#fabric === 'siw' ? 'unshare --net mkdir' : 'mkdir';
    const group = (access: Access) => {
      const folder = `${configuration}/iscsi/${names[access]}/tpgt_1`;
      const authentication =
        access === 'open'
          ? `echo 0 >${folder}/attrib/authentication`
          : `echo 1 >${folder}/attrib/authentication
             echo -n ${account.user} >${folder}/auth/userid
             echo -n ${account.secret} >${folder}/auth/password`;
      return `
        mkdir -p ${folder}/lun/lun_0
        ln -s ${device} ${folder}/lun/lun_0/disk
        echo 1 >${folder}/attrib/generate_node_acls
        echo 1 >${folder}/attrib/cache_dynamic_acls
        echo 0 >${folder}/attrib/demo_mode_write_protect
        ${authentication}
        ${makePortal} ${folder}/${portal}
        echo 1 >${folder}/${portal}/iser
        echo 1 >${folder}/enable`;
    };
    return `
      set -e
      head -c ${lunSize} /dev/urandom >${this.backing}
      modprobe -a target_core_mod target_core_file iscsi_target_mod ib_isert tcp_diag
      mount -t configfs none /sys/kernel/config
      mkdir -p ${device} ${configuration}/iscsi
      echo -n fd_dev_name=${this.backing},fd_dev_size=${lunSize},fd_buffered_io=1 >${device}/control
      echo 1 >${device}/enable
      ${group('open')}
      ${group('chap')}`;
  }
}
