/** What a mount is made of, over RDMA inside this process: which memory its data goes through, and what a change of transport does to it. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../../src/clock.ts';
import { mergeOptions } from '../../../src/config/options.ts';
import { createIserTransport } from '../../../src/iser/datamover/iser.ts';
import { createTcpTransport } from '../../../src/iser/datamover/tcp.ts';
import { Initiator } from '../../../src/iser/initiator.ts';
import { createMemoryProviders, type MemoryProviders } from '../../../src/iser/rdma/memory.ts';
import type { RdmaMemory } from '../../../src/iser/rdma/provider.ts';
import { IscsiTarget } from '../../../src/iser/target.ts';
import { Transports } from '../../../src/mount/transports.ts';
import { BlockCache } from '../../../src/scsi/block-cache.ts';
import { BufferPool } from '../../../src/scsi/buffer-pool.ts';
import { BlockDeviceServer } from '../../../src/scsi/device-server.ts';
import { LogicalUnit } from '../../../src/scsi/logical-unit.ts';
import { MemoryMedium } from '../../../src/scsi/memory-medium.ts';
import { VolatileCacheMedium } from '../../../src/scsi/volatile-cache-medium.ts';
import { assertSameBytes } from '../../support/pattern.ts';

const NAME = 'iqn.2024-01.org.example:disk';
const ANYWHERE = { host: '127.0.0.1', port: 0 };
const SIZE = 4 * 1024 * 1024;

/** Counts the data that a data mover has to copy because it lies elsewhere. */
class WatchedMemory implements RdmaMemory {
  readonly #memory: RdmaMemory;
  strangers = 0;

  constructor(memory: RdmaMemory) {
    this.#memory = memory;
  }

  allocate(length: number): ArrayBuffer {
    return this.#memory.allocate(length);
  }

  free(arena: ArrayBuffer): void {
    this.#memory.free(arena);
  }

  owns(buffer: ArrayBufferLike): boolean {
    const isOwn = this.#memory.owns(buffer);
    if (!isOwn) this.strangers++;
    return isOwn;
  }
}

let providers: MemoryProviders;
let initiatorMemory: WatchedMemory;
let targetMemory: WatchedMemory;
let transports: Transports;
let target: IscsiTarget;
let initiator: Initiator;
let unit: LogicalUnit;
let cache: BlockCache;

beforeEach(async () => {
  providers = createMemoryProviders();
  initiatorMemory = new WatchedMemory(providers.initiator.memory);
  targetMemory = new WatchedMemory(providers.target.memory);
  const served = {
    lun: 0,
    medium: new VolatileCacheMedium(new MemoryMedium(SIZE)),
    blockLength: 4096,
    serial: 'disk',
  };
  target = await IscsiTarget.listen({
    portals: [
      { endpoint: ANYWHERE, transport: createTcpTransport() },
      { endpoint: ANYWHERE, transport: createIserTransport({ ...providers.target, memory: targetMemory }) },
    ],
    targets: [{ name: NAME, deviceServer: new BlockDeviceServer({ units: [served], pool: new BufferPool(targetMemory) }) }],
  });
  transports = new Transports(mergeOptions({}), {
    rdma: {
      isAvailable: true,
      hasDevice: true,
      lockableBytes: Number.POSITIVE_INFINITY,
      memory: () => initiatorMemory,
      transport: (name) => createIserTransport({ ...providers.initiator, memory: initiatorMemory, name }),
    },
  });
  const [tcp = { endpoint: ANYWHERE }, iser = tcp] = target.portals;
  initiator = await Initiator.connect({
    initiatorName: 'iqn.2024-01.org.example:host',
    isid: 0x80_00_00_00_00_01,
    transport: transports.forLogin(),
    loginTimeoutMs: 1000,
    clock: systemClock,
    random: (length) => new Uint8Array(length),
    targetName: NAME,
    portals: [{ ...tcp.endpoint, iserPort: iser.endpoint.port }],
    commandTimeoutMs: 5000,
    recoveryTimeoutMs: 10_000,
    keepaliveIntervalMs: 60_000,
    keepaliveTimeoutMs: 60_000,
    maxCommands: 32,
    log: () => {},
  });
  const pool = new BufferPool(transports.memory);
  unit = await LogicalUnit.attach(initiator, 0n, {
    pool,
    readOnly: false,
    commandTimeoutMs: 5000,
    maxTransfer: () => initiator.maxTransferLength,
    awaitsFence: () => false,
  });
  cache = new BlockCache({ pool, bytes: 8 * 1024 * 1024, readahead: 256 * 1024 });
});

afterEach(async () => {
  await unit.close();
  await initiator.logout();
  await target.close('abrupt');
});

function counting(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 9) + seed) & 0xff);
}

async function readAll(device: ReturnType<BlockCache['attach']>): Promise<Uint8Array> {
  const bytes = new Uint8Array(SIZE);
  for (let offset = 0; offset < SIZE; offset += 128 * 1024) {
    const { segments, release } = await device.read(offset, 128 * 1024);
    let at = offset;
    for (const segment of segments) {
      bytes.set(segment, at);
      at += segment.length;
    }
    release();
  }
  return bytes;
}

describe('data by RDMA', () => {
  it('goes straight into and out of the pools of both sides, whatever is read or written', async () => {
    expect(initiator.status.transport).toBe('verbs');
    const device = cache.attach(unit);
    initiatorMemory.strangers = 0;
    targetMemory.strangers = 0;
    const expected = new Uint8Array(SIZE);
    for (const [offset, length] of [
      [0, 128 * 1024],
      [100, 5000],
      [1024 * 1024 - 1, 2 * 1024 * 1024],
      [SIZE - 3, 3],
      [4096, 4096],
    ] as const) {
      const data = counting(length, offset);
      expected.set(data, offset);
      await device.write(offset, data);
    }
    assertSameBytes(await readAll(device), expected);
    await device.flush();
    const uncached = new BlockCache({ pool: new BufferPool(transports.memory), bytes: 0, readahead: 0 }).attach(unit);
    assertSameBytes(await readAll(uncached), expected);
    expect([initiatorMemory.strangers, targetMemory.strangers]).toEqual([0, 0]);
  });

  it('goes on by TCP where RDMA does not come back, nothing being lost', async () => {
    const device = cache.attach(unit);
    const data = counting(2 * 1024 * 1024, 1);
    expect(initiator.maxTransferLength).toBe(512 * 1024);
    const writing = device.write(12_345, data);
    providers.wire.answersConnections = false;
    providers.wire.cut();
    await writing;
    expect(initiator.status.transport).toBe('tcp');
    expect(initiator.maxTransferLength).toBe(512 * 1024);
    device.invalidate();
    assertSameBytes((await readAll(device)).subarray(12_345, 12_345 + data.length), data);
  });
});
