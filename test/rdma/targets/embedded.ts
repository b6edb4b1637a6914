/** iserfs's own target as a process in the guest, for initiators that are not ours. */

import { fabricAddress, lunFolder, lunSize } from '../fabric.ts';
import type { Guest } from '../guest.ts';
import { type Access, account, type Offer, type TestTarget } from './target.ts';

const ports = { open: { port: 3270, tcpPort: 3271 }, chap: { port: 3272, tcpPort: 3273 } };
const name = 'iqn.2024-01.test:iserfs';

export class Embedded implements TestTarget {
  readonly label = 'iserfs target';
  readonly backing = `${lunFolder}/iserfs`;
  readonly #guest: Guest;
  readonly #transport: string;
  readonly #started = new Set<Access>();

  private constructor(guest: Guest, transport: string) {
    this.#guest = guest;
    this.#transport = transport;
  }

  /** `transport`: as for `iserfs target --transport`. */
  static async start(guest: Guest, transport: string): Promise<Embedded> {
    const target = new Embedded(guest, transport);
    await guest.checked(
      `head -c ${lunSize} /dev/urandom >${target.backing}; head -c ${lunSize} /dev/urandom >${target.#file('chap')}`,
    );
    await target.offer('open');
    return target;
  }

  /** CHAP is for all targets of one process: the guarded offer is a process of its own, started when it is asked for. */
  async offer(access: Access): Promise<Offer> {
    if (!this.#started.has(access)) await this.#start(access);
    this.#started.add(access);
    return { ...ports[access], name, lun: 0 };
  }

  async cut(): Promise<void> {
    await this.#kill('open');
    await this.#start('open');
  }

  async log(): Promise<string> {
    return (await this.#guest.run('cat /tmp/iserfs-target-*.log')).output;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const access of this.#started) await this.#kill(access);
  }

  async #start(access: Access): Promise<void> {
    const { port, tcpPort } = ports[access];
    const chap = access === 'open' ? '' : `--chap-user ${account.user}`;
    const log = `/tmp/iserfs-target-${access}.log`;
    const secret = access === 'open' ? '' : `export ISERFS_CHAP_SECRET=${account.secret}`;
    await this.#guest.checked(
      `${secret}
       : >${log} # what an earlier one has said is not this one's readiness
       setsid node ${this.#guest.cliPath} target --listen ${fabricAddress}:${tcpPort} \\
         --transport ${this.#transport} --iser-port ${port} \\
         --name ${name} --file ${this.#file(access)} ${chap} >${log} 2>&1 &
       pid=$!
       echo $pid >/run/iserfs-target-${access}.pid
       until [[ $(<${log}) == *'Mount it'* ]]; do
         kill -0 $pid || { cat ${log}; exit 1; }
         pause 0.2
       done`,
      { timeoutMs: 180_000 },
    );
  }

  async #kill(access: Access): Promise<void> {
    await this.#guest.run(`kill -KILL $(cat /run/iserfs-target-${access}.pid)`);
  }

  #file(access: Access): string {
    return access === 'open' ? this.backing : `${this.backing}-chap`;
  }
}
