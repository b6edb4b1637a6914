/**
 * tgtd (Debian's tgt) with an iSER portal, in the guest. Known of 1.0.85: iSER listens at port 3260 on every address and nowhere
 * else; both the address and the exact name of an initiator must be allowed; it ignores SIGTERM while it has sessions; it must be
 * started after the RDMA devices; over iSCSI/TCP it shows the same targets.
 */

import { lunFolder, lunSize } from '../fabric.ts';
import type { Guest } from '../guest.ts';
import { type Access, account, initiatorName, type Offer, type TestTarget } from './target.ts';

const names = { open: 'iqn.2024-01.test:tgtd-open', chap: 'iqn.2024-01.test:tgtd-chap' };
const logFile = '/tmp/tgtd.log';

export class Tgtd implements TestTarget {
  static readonly port = 3260;
  /** Elsewhere, because with siw RDMA's port 3260 is TCP's. */
  static readonly tcpPort = 3262;
  readonly label = 'tgtd';
  readonly backing = `${lunFolder}/tgtd`;
  readonly #guest: Guest;

  private constructor(guest: Guest) {
    this.#guest = guest;
  }

  static async start(guest: Guest): Promise<Tgtd> {
    const tgtd = new Tgtd(guest);
    await guest.checked(`head -c ${lunSize} /dev/urandom >${tgtd.backing}`);
    await guest.checked(tgtd.#startScript(), { timeoutMs: 180_000 });
    return tgtd;
  }

  async offer(access: Access): Promise<Offer> {
    return { port: Tgtd.port, tcpPort: Tgtd.tcpPort, name: names[access], lun: 1 }; // LUN 0 is its controller
  }

  /** Kills it and starts it anew: it keeps nothing that an initiator could go on with. */
  async cut(): Promise<void> {
    await this.#guest.checked(
      `pkill -KILL -x tgtd
       while pidof tgtd >/dev/null; do pause 0.1; done
       ${this.#startScript()}`,
      { timeoutMs: 180_000 },
    );
  }

  log(): Promise<string> {
    return this.#guest.checked(`cat ${logFile}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#guest.run('pkill -KILL -x tgtd');
  }

  #startScript(): string {
    const administer = 'tgtadm --lld iser';
    const targets = Object.values(names).map(
      (name, index) => `
        ${administer} --mode target --op new --tid ${index + 1} --targetname ${name}
        ${administer} --mode logicalunit --op new --tid ${index + 1} --lun 1 --backing-store ${this.backing}
        ${administer} --mode target --op bind --tid ${index + 1} --initiator-address ALL
        ${administer} --mode target --op bind --tid ${index + 1} --initiator-name ${initiatorName}`,
    );
    return `
      set -e
      tgtd --iser pool_sz_mb=64 --iscsi portal=0.0.0.0:${Tgtd.tcpPort} >>${logFile} 2>&1
      for attempt in $(seq 300); do tgtadm --op show --mode sys >/dev/null 2>&1 && break; pause 0.1; done
      ${targets.join('\n')}
      ${administer} --mode account --op new --user ${account.user} --password ${account.secret}
      ${administer} --mode account --op bind --tid 2 --user ${account.user}`;
  }
}
