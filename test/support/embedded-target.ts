/** The embedded target inside the test process, over TCP on the loopback address, for peers in processes of their own. */

import type { Endpoint } from '../../src/iser/datamover/datamover.ts';
import { createTcpTransport } from '../../src/iser/datamover/tcp.ts';
import { IscsiTarget, type IscsiTargetOptions, type TargetChap } from '../../src/iser/target.ts';
import { BlockDeviceServer } from '../../src/scsi/device-server.ts';
import type { ServedUnitOptions } from '../../src/scsi/served-unit.ts';

export interface EmbeddedTargetDefinition {
  readonly name: string;
  readonly units: readonly ServedUnitOptions[];
  readonly chap?: TargetChap;
}

export class EmbeddedTarget implements AsyncDisposable {
  readonly target: IscsiTarget;
  /** By target name. */
  readonly servers: ReadonlyMap<string, BlockDeviceServer>;
  /** What target and device servers had to say, for a failing test to show. */
  readonly log: string[];

  private constructor(target: IscsiTarget, servers: ReadonlyMap<string, BlockDeviceServer>, log: string[]) {
    this.target = target;
    this.servers = servers;
    this.log = log;
  }

  /** Takes the media. */
  static async start(
    targets: readonly EmbeddedTargetDefinition[],
    options: Partial<Omit<IscsiTargetOptions, 'targets'>> = {},
  ): Promise<EmbeddedTarget> {
    const lines: string[] = [];
    const log = (line: string) => lines.push(line);
    const servers = new Map(targets.map(({ name, units }) => [name, new BlockDeviceServer({ units, log })]));
    const target = await IscsiTarget.listen({
      portals: [{ endpoint: { host: '127.0.0.1', port: 0 }, transport: createTcpTransport() }],
      log,
      ...options,
      targets: targets.map(({ name, chap }) => ({
        name,
        deviceServer: servers.get(name) as BlockDeviceServer,
        ...(chap === undefined ? {} : { chap }),
      })),
    });
    return new EmbeddedTarget(target, servers, lines);
  }

  get endpoint(): Endpoint {
    return this.target.endpoint;
  }

  /** `HOST:PORT`. */
  get portal(): string {
    return `${this.endpoint.host}:${this.endpoint.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.target.close('abrupt');
    for (const server of this.servers.values()) await server.close();
  }
}
