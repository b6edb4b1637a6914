import { describe, expect, it } from 'vitest';
import { IserfsError } from '../../../src/errors.ts';
import { BufferPool } from '../../../src/scsi/buffer-pool.ts';
import { type CommandName, encodeCdb, readCdb, synchronizeCacheCdb, writeCdb } from '../../../src/scsi/cdb.ts';
import { BlockDeviceServer } from '../../../src/scsi/device-server.ts';
import { MemoryMedium } from '../../../src/scsi/memory-medium.ts';
import { decodeSense } from '../../../src/scsi/sense.ts';
import type { ServedUnitOptions } from '../../../src/scsi/served-unit.ts';
import { Status } from '../../../src/scsi/status.ts';
import { FaultyMedium } from '../../support/faulty-medium.ts';
import { LocalNexus } from '../../support/local-nexus.ts';
import { assertSameBytes, offsetPattern } from '../../support/pattern.ts';
import { SeededRandom } from '../../support/seeded-random.ts';
import { StallingMedium } from '../../support/stalling-medium.ts';

const MiB = 1024 * 1024;
const good = { status: Status.good };
const condition = (key: number, asc: number, ascq: number, more = {}) => ({
  status: Status['check-condition'],
  sense: { key, asc, ascq, ...more },
});
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

/** A server with one unit of `size` bytes, ready for commands. */
async function setUp(options: Partial<ServedUnitOptions> & { size?: number; isVolatile?: boolean } = {}) {
  const medium = new FaultyMedium(new MemoryMedium(options.size ?? 4 * MiB), { isVolatile: options.isVolatile ?? false });
  const pool = new BufferPool();
  const server = new BlockDeviceServer({ units: [{ lun: 0, medium, blockLength: 512, serial: 's', ...options }], pool });
  const nexus = new LocalNexus(server, 1);
  await nexus.ready();
  return { medium, pool, server, nexus };
}

/** A promise that a test settles. */
function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

describe('READ and WRITE', () => {
  it.each(['6', '10', '12', '16'] as const)('(%s) moves whole blocks to and from their place', async (size) => {
    const { nexus } = await setUp();
    const data = offsetPattern(1024, 1536);
    const run = { lba: 2, blocks: 3 };
    expect(await nexus.run(encodeCdb(`write-${size}`, run), { dataOut: data })).toMatchObject({ ...good, transferLength: 1536 });
    const all = await nexus.run(readCdb({ lba: 0, blocks: 8, size: 10 }));
    const expected = new Uint8Array(4096);
    expected.set(data, 1024);
    expect(all.data).toEqual(expected);
    const outcome = await nexus.run(encodeCdb(`read-${size}`, run));
    expect(outcome).toMatchObject({ ...good, transferLength: 1536 });
    expect(outcome.data).toEqual(data);
  });

  it('READ(6) and WRITE(6) of 0 blocks are of 256', async () => {
    const { nexus } = await setUp();
    const data = offsetPattern(0, 256 * 512);
    expect(await nexus.run(encodeCdb('write-6', { lba: 0 }), { dataOut: data })).toMatchObject({ transferLength: 131072 });
    expect((await nexus.run(encodeCdb('read-6', { lba: 0 }))).data).toEqual(data);
  });

  it('0 blocks of the other sizes are none', async () => {
    const { nexus, medium } = await setUp();
    for (const name of ['read-10', 'read-12', 'read-16', 'write-10', 'write-12', 'write-16'] as const) {
      const options = name.startsWith('write') ? { dataOut: new Uint8Array(0) } : {};
      expect(await nexus.run(encodeCdb(name, { lba: 5 }), options)).toMatchObject({ ...good, transferLength: 0 });
    }
    expect(medium.calls).toEqual([]);
  });

  it('4096-byte blocks beyond 2 TiB', async () => {
    const { nexus, medium } = await setUp({ size: 5 * 2 ** 40, blockLength: 4096 });
    const lba = 2 ** 30 + 3;
    await nexus.run(writeCdb({ lba, blocks: 1, size: 16 }), { dataOut: offsetPattern(0, 4096) });
    expect(medium.calls).toEqual([`write ${lba * 4096}+4096`]);
    expect((await nexus.run(readCdb({ lba, blocks: 1, size: 16 }))).data).toEqual(offsetPattern(0, 4096));
  });

  it('a long transfer goes in chunks, and none of its memory stays', async () => {
    const { nexus, medium, pool } = await setUp();
    const data = offsetPattern(512, 3 * MiB);
    let most = 0;
    const onTransfer = () => {
      most = Math.max(most, pool.bytesInUse);
    };
    const run = { lba: 1, blocks: data.length / 512, size: 16 } as const;
    await nexus.run(writeCdb(run), { dataOut: data, onTransfer });
    const { data: back } = await nexus.run(readCdb(run), { room: 3 * MiB, onTransfer });
    assertSameBytes(back, data);
    expect(medium.calls.length).toBeGreaterThan(20);
    expect(most).toBeLessThanOrEqual(MiB);
    expect(pool.bytesInUse).toBe(0);
  });

  it('what the medium lends goes out without memory of the pool, and holes between it through the pool', async () => {
    const medium = new MemoryMedium(4 * MiB);
    const { pool, nexus } = await setUp({ medium });
    const data = offsetPattern(0, MiB);
    data.fill(0, 512 * 1024, 768 * 1024);
    await medium.write(0, data.subarray(0, 512 * 1024));
    await medium.write(768 * 1024, data.subarray(768 * 1024));
    const ofPool: [number, number][] = [];
    const outcome = await nexus.run(readCdb({ lba: 1, blocks: 2047, size: 10 }), {
      onTransfer: (offset) => {
        if (pool.bytesInUse > 0) ofPool.push([offset, pool.bytesInUse]);
      },
    });
    expect(outcome).toMatchObject(good);
    assertSameBytes(outcome.data, data.subarray(512));
    // The hole's piece reaches into what lies behind it, and nothing is in use before it.
    expect(ofPool[0]).toEqual([512 * 1024 - 512, 256 * 1024]);
    expect(pool.bytesInUse).toBe(0);
  });

  it('reads the next chunk while one is on the wire, and not a third', async () => {
    const { nexus, medium } = await setUp();
    const wire = gate();
    const reading = nexus.run(readCdb({ lba: 0, blocks: 4096, size: 10 }), { room: 2 * MiB, onTransfer: () => wire.opened });
    await settle();
    expect(medium.calls).toEqual(['read 0+262144', 'read 262144+262144']);
    wire.open();
    expect(await reading).toMatchObject({ ...good, transferLength: 2 * MiB });
  });

  it('receives the next chunk while one is being written', async () => {
    const { nexus, medium } = await setUp();
    const disk = gate();
    medium.delay = () => disk.opened;
    const received: number[] = [];
    const writing = nexus.run(writeCdb({ lba: 0, blocks: 4096, size: 10 }), {
      dataOut: new Uint8Array(2 * MiB),
      onTransfer: (offset) => {
        received.push(offset);
      },
    });
    await settle();
    expect(received).toEqual([0, 262144]);
    disk.open();
    expect(await writing).toMatchObject(good);
  });

  it.each([
    ['the block after the last', 8192, 1],
    ['a run across the end', 8191, 2],
    ['nothing, after the end', 8192, 0],
    ['an LBA of 2^63', 2 ** 63, 1],
  ])('refuses %s', async (_, lba, blocks) => {
    const { nexus, medium } = await setUp();
    const cdb = encodeCdb('read-16', { blocks });
    new DataView(cdb.buffer).setBigUint64(2, BigInt(lba));
    expect(await nexus.run(cdb)).toMatchObject(condition(5, 0x21, 0));
    cdb[0] = 0x8a;
    expect(await nexus.run(cdb, { dataOut: new Uint8Array(blocks * 512) })).toMatchObject(condition(5, 0x21, 0));
    expect(medium.calls).toEqual([]);
  });

  it('refuses more blocks than the maximum transfer length, and protection information', async () => {
    const { nexus } = await setUp({ size: 64 * MiB });
    expect(await nexus.run(readCdb({ lba: 0, blocks: 32769, size: 16 }))).toMatchObject(
      condition(5, 0x24, 0, { fieldPointer: { inCdb: true, byte: 10 } }),
    );
    expect(await nexus.run(encodeCdb('read-10', { blocks: 1, protection: 1 }))).toMatchObject(
      condition(5, 0x24, 0, { fieldPointer: { inCdb: true, byte: 1, bit: 7 } }),
    );
  });

  it('a read with less room than its length is cut, and says how long it would be', async () => {
    const { nexus, medium } = await setUp();
    const outcome = await nexus.run(readCdb({ lba: 0, blocks: 4096, size: 10 }), { room: 700 });
    expect(outcome).toMatchObject({ ...good, transferLength: 2 * MiB });
    expect(outcome.data.length).toBe(700);
    expect(medium.calls).toEqual(['read 0+1024']);
  });

  it('a write with less data than its length is refused, says how much it wanted, and nothing is written', async () => {
    const { nexus, medium } = await setUp();
    const outcome = await nexus.run(writeCdb({ lba: 0, blocks: 2, size: 10 }), { dataOut: new Uint8Array(1000) });
    expect(outcome).toMatchObject({ ...condition(5, 0x0e, 0x03), transferLength: 1024 });
    expect(medium.calls).toEqual([]);
  });

  it('a write whose data the port does not get is refused', async () => {
    const { server, medium } = await setUp();
    const outcome = await server.execute({
      nexus: 1,
      lun: 0n,
      cdb: writeCdb({ lba: 0, blocks: 2, size: 10 }),
      expectedDataTransferLength: 1024,
      isAborted: false,
      signal: new AbortController().signal,
      sendDataIn: () => Promise.reject(new Error('not a read')),
      receiveDataOut: () => Promise.reject(new IserfsError('illegal-request', 'announced as a read')),
    });
    expect(outcome.status).toBe(Status['check-condition']);
    expect(decodeSense(outcome.sense)).toMatchObject({ key: 5, asc: 0x0e, ascq: 0x03 });
    expect(medium.calls).toEqual([]);
  });

  it('random writes and reads agree with a plain array', async () => {
    const { nexus } = await setUp({ size: MiB });
    const model = new Uint8Array(MiB);
    const random = new SeededRandom(17);
    for (let round = 0; round < 200; round++) {
      const lba = random.below(2048);
      const blocks = random.between(1, Math.min(700, 2048 - lba));
      if (random.below(2) === 0) {
        const dataOut = random.bytes(blocks * 512);
        model.set(dataOut, lba * 512);
        expect(await nexus.run(writeCdb({ lba, blocks, size: 16 }), { dataOut })).toMatchObject(good);
      } else {
        const { data } = await nexus.run(readCdb({ lba, blocks, size: 16 }));
        assertSameBytes(data, model.subarray(lba * 512, (lba + blocks) * 512));
      }
    }
  });
});

describe('tasks that overlap', () => {
  it('run one after the other, in the order that they came', async () => {
    const { nexus, medium } = await setUp();
    const disk = gate();
    medium.delay = () => disk.opened;
    const write = (value: number, lba: number, blocks: number) =>
      nexus.run(writeCdb({ lba, blocks, size: 10 }), { dataOut: new Uint8Array(blocks * 512).fill(value) });
    const all = [write(1, 0, 4), write(2, 2, 4), nexus.run(readCdb({ lba: 0, blocks: 8, size: 10 })), write(3, 0, 8)];
    await settle();
    expect(medium.calls).toEqual(['write 0+2048']);
    disk.open();
    const [, , read] = await Promise.all(all);
    expect([...(read?.data ?? [])].filter((_, index) => index % 512 === 0)).toEqual([1, 1, 2, 2, 2, 2, 0, 0]);
    expect((await nexus.run(readCdb({ lba: 0, blocks: 8, size: 10 }))).data.every((byte) => byte === 3)).toBe(true);
  });

  it('do not hold up others', async () => {
    const { nexus, medium } = await setUp();
    const disk = gate();
    medium.delay = (call) => (call === 'write' ? disk.opened : Promise.resolve());
    const writing = nexus.run(writeCdb({ lba: 0, blocks: 1, size: 10 }), { dataOut: new Uint8Array(512) });
    expect(await nexus.run(readCdb({ lba: 1, blocks: 1, size: 10 }))).toMatchObject(good);
    disk.open();
    expect(await writing).toMatchObject(good);
  });

  it('a resize waits for them', async () => {
    const { nexus, medium, server } = await setUp();
    const disk = gate();
    medium.delay = () => disk.opened;
    const writing = nexus.run(writeCdb({ lba: 8191, blocks: 1, size: 10 }), { dataOut: new Uint8Array(512) });
    const resizing = server.unit(0)?.resize(MiB);
    await settle();
    expect(medium.size).toBe(4 * MiB);
    disk.open();
    expect(await writing).toMatchObject(good);
    await resizing;
    expect(medium.size).toBe(MiB);
  });
});

describe('an aborted task', () => {
  it('stops at the next chunk, ends in TASK ABORTED and gives its memory and its blocks back', async () => {
    const { nexus, medium, pool } = await setUp();
    const abort = new AbortController();
    const outcome = await nexus.run(writeCdb({ lba: 0, blocks: 4096, size: 10 }), {
      dataOut: new Uint8Array(2 * MiB),
      signal: abort.signal,
      onTransfer: (offset) => {
        if (offset === 512 * 1024) abort.abort(new Error('ABORT TASK'));
      },
    });
    expect(outcome.status).toBe(Status['task-aborted']);
    expect(medium.calls.length).toBe(2);
    expect(pool.bytesInUse).toBe(0);
    expect(await nexus.run(readCdb({ lba: 0, blocks: 8, size: 10 }))).toMatchObject(good);
  });

  it('that waits for its blocks leaves the queue', async () => {
    const { nexus, medium } = await setUp();
    const disk = gate();
    medium.delay = () => disk.opened;
    const write = (signal?: AbortSignal) =>
      nexus.run(writeCdb({ lba: 0, blocks: 1, size: 10 }), { dataOut: new Uint8Array(512), ...(signal ? { signal } : {}) });
    const first = write();
    const abort = new AbortController();
    const second = write(abort.signal);
    abort.abort(new Error('ABORT TASK'));
    expect((await second).status).toBe(Status['task-aborted']);
    disk.open();
    expect(await first).toMatchObject(good);
    expect(medium.calls.length).toBe(1);
  });

  it('does not settle before the medium is done with what it wrote', async () => {
    const { nexus, medium } = await setUp();
    const disk = gate();
    medium.delay = () => disk.opened;
    const abort = new AbortController();
    let settled = false;
    const writing = nexus
      .run(writeCdb({ lba: 0, blocks: 1, size: 10 }), { dataOut: new Uint8Array(512), signal: abort.signal })
      .finally(() => {
        settled = true;
      });
    await settle();
    abort.abort(new Error('ABORT TASK'));
    await settle();
    expect(settled).toBe(false);
    disk.open();
    // Nothing was left to abort.
    expect((await writing).status).toBe(Status.good);
  });
});

describe('a failing medium', () => {
  it('a block that cannot be read is named', async () => {
    const { nexus, medium } = await setUp();
    medium.fault = (call, start, end) => (call === 'read' && start < 701 * 512 && end > 700 * 512 ? 'medium-error' : undefined);
    const outcome = await nexus.run(readCdb({ lba: 0, blocks: 2048, size: 10 }));
    expect(outcome).toMatchObject(condition(3, 0x11, 0, { information: 700n }));
    expect(await nexus.run(readCdb({ lba: 701, blocks: 10, size: 10 }))).toMatchObject(good);
  });

  it.each([
    ['medium-error', condition(3, 0x0c, 0, { information: 8n })],
    ['no-space', condition(7, 0x27, 0x07)],
    ['write-protected', condition(7, 0x27, 0x00)],
  ] as const)('a write that fails with %s', async (code, expected) => {
    const { nexus, medium, pool } = await setUp();
    medium.fault = (call) => (call === 'write' ? code : undefined);
    expect(await nexus.run(writeCdb({ lba: 8, blocks: 1024, size: 10 }), { dataOut: new Uint8Array(MiB / 2) })).toMatchObject(
      expected,
    );
    expect(pool.bytesInUse).toBe(0);
  });

  it('a flush that fails', async () => {
    const { nexus, medium } = await setUp();
    medium.fault = () => new Error('EIO');
    expect(await nexus.run(synchronizeCacheCdb({ size: 10 }))).toMatchObject(condition(3, 0x0c, 0));
  });

  it('sense data are in descriptor format where the control page asks for it', async () => {
    const { nexus, medium, server } = await setUp({ size: 5 * 2 ** 40 });
    const unit = server.unit(0);
    if (unit !== undefined) unit.descriptorSense = true;
    medium.fault = () => 'medium-error';
    const lba = 2 ** 33;
    expect(await nexus.run(readCdb({ lba, blocks: 1, size: 16 }))).toMatchObject(
      condition(3, 0x11, 0, { information: BigInt(lba), descriptorFormat: true }),
    );
  });
});

describe('write protection', () => {
  it.each(['write-10', 'write-and-verify-10', 'write-same-10'] as const)(
    '%s is refused, reading is not',
    async (name: CommandName) => {
      const { nexus, medium } = await setUp({ readOnly: true });
      const cdb = encodeCdb(name as 'write-10', { blocks: 1 });
      expect(await nexus.run(cdb, { dataOut: new Uint8Array(512) })).toMatchObject(condition(7, 0x27, 0));
      expect(await nexus.run(readCdb({ lba: 0, blocks: 1, size: 10 }))).toMatchObject(good);
      expect(medium.calls).toEqual(['read 0+512']);
    },
  );

  it('UNMAP is refused', async () => {
    const { nexus } = await setUp({ readOnly: true });
    expect(await nexus.run(encodeCdb('unmap', { parameterListLength: 24 }), { dataOut: new Uint8Array(24) })).toMatchObject(
      condition(7, 0x27, 0),
    );
  });

  it('comes and goes at run time, and every nexus hears of it', async () => {
    const { nexus, server } = await setUp();
    server.unit(0)?.setWriteProtected(true);
    expect(await nexus.run(new Uint8Array(6))).toMatchObject(condition(6, 0x2a, 0x01));
    const cdb = writeCdb({ lba: 0, blocks: 1, size: 10 });
    expect(await nexus.run(cdb, { dataOut: new Uint8Array(512) })).toMatchObject(condition(7, 0x27, 0));
    server.unit(0)?.setWriteProtected(false);
    await nexus.ready();
    expect(await nexus.run(cdb, { dataOut: new Uint8Array(512) })).toMatchObject(good);
  });
});

describe('FUA and the write cache', () => {
  const dataOut = new Uint8Array(512);

  it.each([
    ['the cache on', true, false, ['write 0+512']],
    ['the cache on and FUA', true, true, ['write 0+512 fua']],
    ['the cache off', false, false, ['write 0+512 fua']],
  ])('a write with %s', async (_, volatileCache, fua, calls) => {
    const { nexus, medium } = await setUp({ isVolatile: true, volatileCache });
    await nexus.run(writeCdb({ lba: 0, blocks: 1, size: 10, fua }), { dataOut });
    expect(medium.calls).toEqual(calls);
  });

  it('a read with FUA is of what is on the medium', async () => {
    const { nexus, medium } = await setUp({ isVolatile: true });
    await nexus.run(readCdb({ lba: 0, blocks: 1, size: 10, fua: true }));
    expect(medium.calls).toEqual(['flush', 'read 0+512']);
  });

  it('SYNCHRONIZE CACHE flushes, of either size, and checks its range', async () => {
    const { nexus, medium } = await setUp({ isVolatile: true });
    expect(await nexus.run(synchronizeCacheCdb({ size: 10 }))).toMatchObject(good);
    expect(await nexus.run(synchronizeCacheCdb({ size: 16, lba: 8191, blocks: 1 }))).toMatchObject(good);
    expect(medium.calls).toEqual(['flush', 'flush']);
    expect(await nexus.run(synchronizeCacheCdb({ size: 16, lba: 8191, blocks: 2 }))).toMatchObject(condition(5, 0x21, 0));
  });
});

describe('VERIFY', () => {
  const sizes = ['10', '12', '16'] as const;

  it.each(sizes)('(%s) without BYTCHK reads, and moves nothing', async (size) => {
    const { nexus, medium } = await setUp();
    expect(await nexus.run(encodeCdb(`verify-${size}`, { lba: 1, blocks: 2 }))).toMatchObject({ ...good, transferLength: 0 });
    expect(medium.calls).toEqual(['read 512+1024']);
    medium.fault = () => 'medium-error';
    expect(await nexus.run(encodeCdb(`verify-${size}`, { lba: 1, blocks: 2 }))).toMatchObject(
      condition(3, 0x11, 0, { information: 1n }),
    );
  });

  it.each(sizes)('(%s) with BYTCHK 1 compares, and names the first byte that differs', async (size) => {
    const { nexus } = await setUp();
    const data = offsetPattern(0, MiB);
    await nexus.run(writeCdb({ lba: 0, blocks: 2048, size: 10 }), { dataOut: data });
    const cdb = encodeCdb(`verify-${size}`, { blocks: 2048, byteCheck: 1 });
    expect(await nexus.run(cdb, { dataOut: data })).toMatchObject({ ...good, transferLength: MiB });
    const other = data.slice();
    other[700_000] = (other[700_000] ?? 0) ^ 1;
    expect(await nexus.run(cdb, { dataOut: other })).toMatchObject(condition(0xe, 0x1d, 0, { information: 700_000n }));
  });

  it('with BYTCHK 3 compares every block with one', async () => {
    const { nexus } = await setUp();
    const block = offsetPattern(0, 512);
    await nexus.run(encodeCdb('write-same-10', { lba: 0, blocks: 4 }), { dataOut: block });
    const cdb = (blocks: number) => encodeCdb('verify-10', { blocks, byteCheck: 3 });
    expect(await nexus.run(cdb(4), { dataOut: block })).toMatchObject({ ...good, transferLength: 512 });
    // The first byte that differs is 2049: the pattern's first byte is zero as well.
    const first = 4 * 512 + block.findIndex((byte) => byte !== 0);
    expect(await nexus.run(cdb(5), { dataOut: block })).toMatchObject(condition(0xe, 0x1d, 0, { information: BigInt(first) }));
  });

  it('refuses BYTCHK 2', async () => {
    const { nexus } = await setUp();
    expect(await nexus.run(encodeCdb('verify-10', { blocks: 1, byteCheck: 2 }))).toMatchObject(
      condition(5, 0x24, 0, { fieldPointer: { inCdb: true, byte: 1, bit: 2 } }),
    );
  });
});

describe('WRITE AND VERIFY', () => {
  it.each(['10', '12', '16'] as const)('(%s) forces the data to the medium and reads it again', async (size) => {
    const { nexus, medium } = await setUp({ isVolatile: true });
    const dataOut = offsetPattern(0, 1024);
    expect(
      await nexus.run(encodeCdb(`write-and-verify-${size}`, { lba: 2, blocks: 2, byteCheck: 1 }), { dataOut }),
    ).toMatchObject(good);
    expect(medium.calls).toEqual(['write 1024+1024 fua', 'read 1024+1024']);
  });

  it('reports a medium that does not keep what was written', async () => {
    const { nexus, medium } = await setUp();
    // The write is lost on its way.
    medium.write = () => Promise.resolve();
    const cdb = encodeCdb('write-and-verify-10', { blocks: 1, byteCheck: 1 });
    expect(await nexus.run(cdb, { dataOut: new Uint8Array(512).fill(9) })).toMatchObject(
      condition(0xe, 0x1d, 0, { information: 0n }),
    );
  });
});

describe('WRITE SAME', () => {
  it.each(['10', '16'] as const)('(%s) writes one block many times', async (size) => {
    const { nexus } = await setUp();
    const block = offsetPattern(4096, 512);
    expect(await nexus.run(encodeCdb(`write-same-${size}`, { lba: 1, blocks: 1500 }), { dataOut: block })).toMatchObject({
      ...good,
      transferLength: 512,
    });
    const { data } = await nexus.run(readCdb({ lba: 0, blocks: 1502, size: 10 }));
    for (let index = 0; index < 1502; index++) {
      const expected = index === 0 || index === 1501 ? new Uint8Array(512) : block;
      assertSameBytes(data.subarray(index * 512, (index + 1) * 512), expected, index * 512);
    }
  });

  it('(16) with NDOB writes zeros without any data', async () => {
    const { nexus } = await setUp();
    await nexus.run(writeCdb({ lba: 0, blocks: 2, size: 10 }), { dataOut: new Uint8Array(1024).fill(1) });
    expect(await nexus.run(encodeCdb('write-same-16', { blocks: 1, noDataOut: true }))).toMatchObject({
      ...good,
      transferLength: 0,
    });
    const { data } = await nexus.run(readCdb({ lba: 0, blocks: 2, size: 10 }));
    expect([data[0], data[511], data[512]]).toEqual([0, 0, 1]);
  });

  it.each(['10', '16'] as const)(
    '(%s) with UNMAP gives space back where the block is zero, and writes it where not',
    async (size) => {
      const { nexus, medium } = await setUp();
      const cdb = encodeCdb(`write-same-${size}`, { lba: 0, blocks: 8, unmap: true });
      await nexus.run(cdb, { dataOut: new Uint8Array(512) });
      expect(medium.calls).toEqual(['discard 0+4096']);
      await nexus.run(cdb, { dataOut: new Uint8Array(512).fill(1) });
      expect(medium.calls[1]).toBe('write 0+4096');
    },
  );

  it.each([
    ['no blocks', { blocks: 0 }, 10, undefined],
    ['more blocks than it takes', { blocks: 0x2_0001 }, 10, undefined],
    ['an anchor', { blocks: 1, anchor: true }, 1, 4],
  ])('refuses %s', async (_, values, byte, bit) => {
    const { nexus } = await setUp({ size: 2 ** 30 });
    const fieldPointer = bit === undefined ? { inCdb: true, byte } : { inCdb: true, byte, bit };
    expect(await nexus.run(encodeCdb('write-same-16', values), { dataOut: new Uint8Array(512) })).toMatchObject(
      condition(5, 0x24, 0, { fieldPointer }),
    );
  });
});

/** UNMAP parameter data, written after SBC's figure. */
function unmapList(...runs: readonly (readonly [lba: number, blocks: number])[]): Uint8Array {
  const list = new Uint8Array(8 + runs.length * 16);
  const view = new DataView(list.buffer);
  view.setUint16(0, list.length - 2);
  view.setUint16(2, list.length - 8);
  for (const [index, [lba, blocks]] of runs.entries()) {
    view.setBigUint64(8 + index * 16, BigInt(lba));
    view.setUint32(16 + index * 16, blocks);
  }
  return list;
}

describe('UNMAP', () => {
  const run = (nexus: LocalNexus, list: Uint8Array) =>
    nexus.run(encodeCdb('unmap', { parameterListLength: list.length }), { dataOut: list });

  it('makes every range read as zeros', async () => {
    const { nexus } = await setUp();
    await nexus.run(writeCdb({ lba: 0, blocks: 8, size: 10 }), { dataOut: new Uint8Array(4096).fill(1) });
    expect(await run(nexus, unmapList([1, 2], [5, 0], [6, 1]))).toMatchObject({ ...good, transferLength: 56 });
    const { data } = await nexus.run(readCdb({ lba: 0, blocks: 8, size: 10 }));
    expect([...data].filter((_, index) => index % 512 === 0)).toEqual([1, 0, 0, 1, 1, 1, 0, 1]);
  });

  it('gives ranges back together that touch or overlap, in whatever order they come', async () => {
    const { nexus, medium } = await setUp();
    expect(await run(nexus, unmapList([12, 2], [2, 2], [0, 2], [8, 4], [9, 1], [20, 1]))).toMatchObject(good);
    expect(medium.calls).toEqual(['discard 0+2048', 'discard 4096+3072', 'discard 10240+512']);
  });

  it('no blocks behind the last one are no error', async () => {
    const { nexus } = await setUp();
    expect(await run(nexus, unmapList([8192, 0]))).toMatchObject(good);
    expect(await run(nexus, unmapList([8193, 0]))).toMatchObject(condition(5, 0x21, 0));
  });

  it('checks every range before it touches any', async () => {
    const { nexus, medium } = await setUp();
    expect(await run(nexus, unmapList([0, 8], [8191, 2]))).toMatchObject(condition(5, 0x21, 0, { information: 8191n }));
    expect(medium.calls).toEqual([]);
  });

  it('an empty list is no error, a list that is too short or too long is', async () => {
    const { nexus } = await setUp();
    expect(await run(nexus, new Uint8Array(0))).toMatchObject(good);
    expect(await run(nexus, unmapList())).toMatchObject(good);
    expect(await run(nexus, new Uint8Array(7))).toMatchObject(condition(5, 0x1a, 0));
    const many = Array.from({ length: 257 }, (_, index) => [index, 1] as const);
    expect(await run(nexus, unmapList(...many))).toMatchObject(condition(5, 0x1a, 0));
  });

  it('a descriptor that is cut off is left out', async () => {
    const { nexus, medium } = await setUp();
    expect(await run(nexus, unmapList([0, 1], [4, 1]).subarray(0, 39))).toMatchObject(good);
    expect(medium.calls).toEqual(['discard 0+512']);
  });
});

describe('GET LBA STATUS', () => {
  it('tells mapped blocks from holes, from the LBA that it is asked for', async () => {
    const { nexus } = await setUp({ size: 2 * MiB });
    // The memory medium has space in units of 512 blocks (256 KiB).
    await nexus.run(writeCdb({ lba: 512, blocks: 1, size: 10 }), { dataOut: new Uint8Array(512) });
    const { data } = await nexus.run(encodeCdb('get-lba-status', { lba: 100, allocationLength: 256 }));
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    expect(view.getUint32(0)).toBe(data.length - 4);
    const extents: unknown[] = [];
    for (let offset = 8; offset < data.length; offset += 16) {
      extents.push([view.getBigUint64(offset), view.getUint32(offset + 8), view.getUint8(offset + 12)]);
    }
    expect(extents).toEqual([
      [100n, 412, 1],
      [512n, 512, 0],
      [1024n, 3072, 1],
    ]);
  });

  it('says that all may be mapped where the medium is thin and does not know its holes', async () => {
    const { nexus } = await setUp({ medium: new StallingMedium(new MemoryMedium(MiB)) });
    const { data } = await nexus.run(encodeCdb('get-lba-status', { lba: 48, allocationLength: 64 }));
    expect(data).toEqual(Uint8Array.of(0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 48, 0, 0, 7, 208, 0, 0, 0, 0));
  });

  it('an extent beyond 2^32 blocks is cut, and the LBA is checked', async () => {
    const { nexus } = await setUp({ size: 5 * 2 ** 40 });
    const { data } = await nexus.run(encodeCdb('get-lba-status', { lba: 0, allocationLength: 24 }));
    expect(data.subarray(8)).toEqual(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0));
    expect(await nexus.run(encodeCdb('get-lba-status', { lba: 2 ** 34, allocationLength: 24 }))).toMatchObject(
      condition(5, 0x21, 0),
    );
  });
});
