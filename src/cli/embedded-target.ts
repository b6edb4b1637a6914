/**
 * Puts the embedded target together: media, device servers, portals over TCP and iSER. What `iserfs target`
 * and the demo run.
 */

import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { formatSize } from '../config/quantity.ts';
import type { ChapSettings } from '../config/secrets.ts';
import { UsageError } from '../errors.ts';
import type { Endpoint } from '../iser/datamover/datamover.ts';
import { createTcpTransport, type DigestPolicy } from '../iser/datamover/tcp.ts';
import { nativeSeek } from '../iser/rdma/addon.ts';
import { IscsiTarget } from '../iser/target.ts';
import { nativeRdma, type Rdma } from '../mount/rdma.ts';
import { chapOptions } from '../mount/sessions.ts';
import { type ArenaSource, BufferPool } from '../scsi/buffer-pool.ts';
import { BlockDeviceServer } from '../scsi/device-server.ts';
import { FileMedium } from '../scsi/file-medium.ts';
import type { Medium } from '../scsi/medium.ts';
import { MemoryMedium } from '../scsi/memory-medium.ts';
import type { ServedUnitOptions } from '../scsi/served-unit.ts';
import { VolatileCacheMedium } from '../scsi/volatile-cache-medium.ts';
import type { UnitSpec } from './unit-spec.ts';

/** Where to listen, and what is spoken there: iSCSI over TCP, or iSER over iwarp or verbs. */
export interface EmbeddedPortal {
  /** Port 0 picks a free one. */
  readonly endpoint: Endpoint;
  readonly transport: 'tcp' | 'iwarp' | 'verbs';
}

export interface EmbeddedTargetOptions {
  /** At least one. */
  readonly portals: readonly EmbeddedPortal[];
  /** Offers what has no target of its own. */
  readonly name: string;
  readonly units: readonly UnitSpec[];
  readonly chap: ChapSettings | undefined;
  /** Of the portals over TCP. */
  readonly headerDigest: DigestPolicy;
  readonly dataDigest: DigestPolicy;
  readonly log: (line: string) => void;
}

export interface OfferedUnit {
  readonly target: string;
  readonly lun: number;
  readonly backing: string;
  readonly size: number;
  readonly blockLength: number;
  readonly readOnly: boolean;
}

/** Sessions that are admitted: for a few targets, and for many. */
const LEAST_SESSIONS = 128;
const SESSIONS_PER_TARGET = 4;

export class EmbeddedTarget {
  readonly units: readonly OfferedUnit[];
  readonly #target: IscsiTarget;
  readonly #portals: readonly EmbeddedPortal[];
  readonly #servers: readonly BlockDeviceServer[];

  private constructor(
    target: IscsiTarget,
    portals: readonly EmbeddedPortal[],
    servers: readonly BlockDeviceServer[],
    units: readonly OfferedUnit[],
  ) {
    this.#target = target;
    this.#portals = portals;
    this.#servers = servers;
    this.units = units;
  }

  /** Opens the media and listens. Rejects with `bad-configuration` or `unsupported` and the cause; nothing stays open then. */
  static async start(options: EmbeddedTargetOptions, rdma: Rdma = nativeRdma): Promise<EmbeddedTarget> {
    const { headerDigest, dataDigest } = options;
    const media: Medium[] = [];
    try {
      const portals = options.portals.map(({ endpoint, transport }) => ({
        endpoint,
        transport:
          transport === 'tcp' ? createTcpTransport({ headerDigest, dataDigest }) : rdma.transport(transport, { crc: true }),
      }));
      const hasRdma = options.portals.some(({ transport }) => transport !== 'tcp');
      const memory = hasRdma ? rdma.memory() : undefined;
      const pool = new BufferPool(memory);
      // With a device, what it sends from is locked in memory: too much to ask for a whole disk.
      const mediumMemory = options.portals.some(({ transport }) => transport === 'verbs') ? undefined : memory;
      const offered: OfferedUnit[] = [];
      const byTarget = new Map<string, ServedUnitOptions[]>();
      for (const spec of withLuns(options)) {
        const medium = await openMedium(spec, mediumMemory, options.log);
        media.push(medium);
        const units = byTarget.get(spec.target) ?? [];
        byTarget.set(spec.target, units);
        const readOnly = spec.readOnly || medium.readOnly;
        const backing = 'memory' in spec.backing ? 'memory' : resolve(spec.backing.file);
        units.push({
          lun: spec.lun,
          medium,
          blockLength: spec.blockLength,
          serial: serialOf(spec.target, spec.lun, backing),
          product: 'memory' in spec.backing ? 'MEMORY DISK' : 'FILE DISK',
          readOnly,
        });
        offered.push({ target: spec.target, lun: spec.lun, backing, size: medium.size, blockLength: spec.blockLength, readOnly });
      }
      const servers = [...byTarget].map(([name, units]) => ({
        name,
        deviceServer: new BlockDeviceServer({ units, pool, log: options.log }),
      }));
      const chap = options.chap === undefined ? {} : { chap: chapOptions(options.chap) };
      const target = await IscsiTarget.listen({
        portals,
        targets: servers.map((server) => ({ ...server, ...chap })),
        limits: { maxSessions: Math.max(LEAST_SESSIONS, SESSIONS_PER_TARGET * servers.length) },
        log: options.log,
      });
      return new EmbeddedTarget(
        target,
        target.portals.map(({ endpoint }, index) => ({ ...(options.portals[index] as EmbeddedPortal), endpoint })),
        servers.map(({ deviceServer }) => deviceServer),
        offered,
      );
    } catch (error) {
      await Promise.allSettled(media.map((medium) => medium.close()));
      throw error;
    }
  }

  /** Where it listens, with the ports that were picked, in the order of the options. */
  get portals(): readonly EmbeddedPortal[] {
    return this.#portals;
  }

  /** Where the first portal listens. */
  get endpoint(): Endpoint {
    return this.#target.endpoint;
  }

  /** `orderly` waits a little for initiators to log out. All that was written is on the media then. */
  async close(mode: 'orderly' | 'abrupt'): Promise<void> {
    await this.#target.close(mode);
    for (const server of this.#servers) await server.close();
  }
}

/** Gives each unit its target, and its LUN: its own, or the next that is free. */
function withLuns({ name, units }: EmbeddedTargetOptions): (UnitSpec & { readonly lun: number; readonly target: string })[] {
  const taken = new Map<string, Set<number>>();
  const numbersOf = (target: string) => {
    const numbers = taken.get(target) ?? new Set<number>();
    taken.set(target, numbers);
    return numbers;
  };
  for (const { target = name, lun } of units) {
    if (lun === undefined) continue;
    if (numbersOf(target).has(lun)) throw new UsageError(`LUN ${lun} of ${target} is given twice`);
    numbersOf(target).add(lun);
  }
  return units.map((unit) => {
    const { target = name } = unit;
    const numbers = numbersOf(target);
    let { lun } = unit;
    if (lun === undefined) {
      lun = 0;
      while (numbers.has(lun)) lun++;
      numbers.add(lun);
    }
    return { ...unit, lun, target };
  });
}

/** `memory`: where that of media in memory comes from, if it is to be other than the heap. */
async function openMedium(spec: UnitSpec, memory: ArenaSource | undefined, log: (line: string) => void): Promise<Medium> {
  const { backing, blockLength, readOnly } = spec;
  if ('memory' in backing) {
    const medium = new MemoryMedium(backing.memory, memory);
    return spec.volatileCache ? new VolatileCacheMedium(medium) : medium;
  }
  const file = await FileMedium.open({
    path: resolve(backing.file),
    blockLength,
    readOnly,
    seek: nativeSeek(),
    ...(backing.createSize === undefined ? {} : { createSize: backing.createSize }),
  });
  if (backing.createSize !== undefined && backing.createSize !== file.size) {
    log(`${backing.file} exists and keeps its size of ${formatSize(file.size)}: size= is for a file that is to be made`);
  }
  return spec.volatileCache && !file.readOnly ? new VolatileCacheMedium(file) : file;
}

/** The same for the same backing at every start: initiators go on after a restart only with the disk they know. */
function serialOf(target: string, lun: number, backing: string): string {
  return createHash('sha256').update(`${target}\n${lun}\n${backing}`).digest('hex').slice(0, 16);
}
