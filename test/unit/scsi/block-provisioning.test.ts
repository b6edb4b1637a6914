import { describe, expect, it } from 'vitest';
import { errorCode } from '../../../src/errors.ts';
import { BufferPool } from '../../../src/scsi/buffer-pool.ts';
import { LogicalUnit } from '../../../src/scsi/logical-unit.ts';
import { check, ScriptedPort } from '../../support/scripted-port.ts';
import { ThinPort, type ThinPortOptions } from '../../support/thin-port.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const UNMAP = 0x42;
const WRITE_SAME_10 = 0x41;
const WRITE_SAME_16 = 0x93;
const WRITE_10 = 0x2a;
const GET_LBA_STATUS = 0x9e;
const BLOCK_LIMITS = 0xb0;
const PROVISIONING = 0xb2;
const LBPU = 0x80;
const LBPWS = 0x40;
const LBPWS_10 = 0x20;
const READ_ZEROS = 0x04;

async function bench(options: Partial<ThinPortOptions> = {}) {
  const port = new ThinPort({ size: 16 * MIB, ...options });
  const pool = new BufferPool();
  const unit = await LogicalUnit.attach(port, 0n, {
    pool,
    readOnly: false,
    commandTimeoutMs: 30_000,
    awaitsFence: () => true,
  });
  port.received.length = 0;
  return { port, pool, unit };
}

/** A disk that has these means alone of giving space back. */
const having = (flags: number) => ({
  editPage: (page: number, body: Uint8Array) => {
    if (page === PROVISIONING) body[1] = flags | READ_ZEROS;
  },
});

const PUNCH = { mayUnmap: true };
const ZERO = { mayUnmap: false };
const refused = check(0x05, 0x20, 0x00);
const invalidField = check(0x05, 0x24, 0x00);

async function fill(unit: LogicalUnit, offset: number, length: number): Promise<void> {
  const data = new Uint8Array(MIB).fill(0xab);
  for (let at = 0; at < length; at += MIB) await unit.write(offset + at, data.subarray(0, Math.min(MIB, length - at)));
}

/** Offsets of the first byte that is zero and of the first after it that is not, in a device that is full of others. */
async function zerosIn(unit: LogicalUnit, offset: number, length: number): Promise<{ from: number; to: number }> {
  const data = Buffer.alloc(length);
  await unit.read(offset, data);
  const from = data.indexOf(0);
  const rest = from < 0 ? -1 : data.indexOf(0xab, from);
  return { from: from < 0 ? -1 : offset + from, to: offset + (rest < 0 ? length : rest) };
}

/** LBA and blocks of each WRITE SAME(16). */
const runsOf = (port: ThinPort) =>
  port.of(WRITE_SAME_16).map(({ cdb }) => {
    const view = new DataView(cdb.buffer);
    return { lba: Number(view.getBigUint64(2)), blocks: view.getUint32(10), unmap: ((cdb[1] ?? 0) & 8) !== 0 };
  });

describe('a range that is punched', () => {
  it.each([
    ['in whole chunks of the medium', 256 * KIB, MIB],
    ['with partial blocks at both ends', 100, 3 * MIB],
    ['within one block', 700, 100],
    ['over the edge of two blocks', 500, 24],
    ['of one block', 512, 512],
  ])('reads as zeros, and nothing beside it does: %s', async (_name, offset, length) => {
    const { unit, pool } = await bench();
    await fill(unit, 0, 4 * MIB);
    await unit.zero(offset, length, PUNCH);
    expect(await zerosIn(unit, 0, 4 * MIB)).toEqual({ from: offset, to: offset + length });
    expect(pool.bytesInUse).toBe(0);
  });

  it('gives its space back by WRITE SAME(16) with UNMAP and a block of zeros', async () => {
    const { port, unit } = await bench();
    await fill(unit, 0, 4 * MIB);
    await unit.zero(MIB, 2 * MIB, PUNCH);
    expect(port.medium.allocated).toBe(2 * MIB);
    expect(runsOf(port)).toEqual([{ lba: 2048, blocks: 4096, unmap: true }]);
    expect(port.of(WRITE_SAME_16)[0]?.dataOut).toEqual(new Uint8Array(512));
  });

  it('is given back by WRITE SAME(10) where the disk has only that', async () => {
    const { port, unit } = await bench(having(LBPWS_10));
    await fill(unit, 0, 2 * MIB);
    await unit.zero(0, 2 * MIB, PUNCH);
    expect(port.of(WRITE_SAME_10).length).toBe(1);
    expect(port.medium.allocated).toBe(0);
  });

  it('keeps to MAXIMUM WRITE SAME LENGTH, and cuts where the granules of the disk end', async () => {
    const { port, unit } = await bench({
      editPage: (page, body) => {
        if (page !== BLOCK_LIMITS) return;
        const view = new DataView(body.buffer, body.byteOffset, body.length);
        view.setBigUint64(32, 1000n);
        view.setUint32(24, 64);
        view.setUint32(28, 0x8000_0000 + 7);
      },
    });
    await unit.zero(0, 3000 * 512, PUNCH);
    expect(runsOf(port).map(({ lba }) => lba)).toEqual([0, 967, 1927, 2887]);
    expect(runsOf(port).every(({ blocks }) => blocks <= 1000)).toBe(true);
  });

  it('is cut sanely where the disk reports no limit', async () => {
    const { port, unit } = await bench({
      size: 4 * GIB,
      editPage: (page, body) => {
        if (page === BLOCK_LIMITS) body.fill(0, 32, 40);
      },
    });
    await unit.zero(0, 200 * MIB, PUNCH);
    expect(runsOf(port).map(({ blocks }) => blocks * 512)).toEqual([64 * MIB, 64 * MIB, 64 * MIB, 8 * MIB]);
  });

  it('lets others at the device between its pieces', async () => {
    const { port, unit } = await bench({ size: 8 * GIB });
    const order: string[] = [];
    const punched = unit.zero(0, 8 * GIB, PUNCH).then(() => order.push('punched'));
    const read = unit.read(512, new Uint8Array(512)).then(() => order.push('read'));
    await Promise.all([punched, read]);
    expect(order).toEqual(['read', 'punched']);
    expect(port.of(WRITE_SAME_16).length).toBe(128);
  });

  it('can be given up half way', async () => {
    const { port, unit } = await bench({ size: 8 * GIB });
    const controller = new AbortController();
    port.inject = ({ cdb }) => {
      if (cdb[0] === WRITE_SAME_16 && port.of(WRITE_SAME_16).length === 5) controller.abort();
      return undefined;
    };
    const given = await unit.zero(0, 8 * GIB, { ...PUNCH, signal: controller.signal }).catch(errorCode);
    expect(given).toBe('aborted');
    expect(port.of(WRITE_SAME_16).length).toBeLessThan(10);
  });

  it('is refused beyond the end and on a write-protected device, and nothing is sent', async () => {
    const { port, unit } = await bench();
    expect(await unit.zero(16 * MIB - 512, 1024, PUNCH).catch(errorCode)).toBe('out-of-range');
    expect(port.received).toEqual([]);
  });
});

describe('a disk that has UNMAP alone', () => {
  it('is asked what UNMAP has left out', async () => {
    const { port, unit } = await bench(having(LBPU));
    await fill(unit, 0, 4 * MIB);
    await unit.zero(MIB, MIB, PUNCH);
    expect(port.of(UNMAP).length).toBe(1);
    expect(port.of(GET_LBA_STATUS).length).toBe(1);
    expect(port.of(WRITE_SAME_16)).toEqual([]);
    expect(port.medium.allocated).toBe(3 * MIB);
    expect(await zerosIn(unit, 0, 4 * MIB)).toEqual({ from: MIB, to: 2 * MIB });
  });

  it('has zeros written for what UNMAP has left out', async () => {
    const { port, unit } = await bench(having(LBPU));
    await fill(unit, 0, 4 * MIB);
    // It ends GOOD and nothing has happened, as is its right.
    port.inject = ({ cdb, dataOut }) => (cdb[0] === UNMAP ? { status: 0, transferred: dataOut?.length ?? 0 } : undefined);
    await unit.zero(MIB, MIB, PUNCH);
    expect(runsOf(port)).toEqual([{ lba: 2048, blocks: 2048, unmap: false }]);
    expect(await zerosIn(unit, 0, 4 * MIB)).toEqual({ from: MIB, to: 2 * MIB });
  });

  it('has all of it written where it does not tell', async () => {
    const { port, unit } = await bench(having(LBPU));
    await fill(unit, 0, 4 * MIB);
    port.inject = ({ cdb, dataOut }) => {
      if (cdb[0] === UNMAP) return { status: 0, transferred: dataOut?.length ?? 0 };
      return cdb[0] === GET_LBA_STATUS ? refused : undefined;
    };
    await unit.zero(MIB, MIB, PUNCH);
    await unit.zero(2 * MIB, MIB, PUNCH);
    expect(port.of(UNMAP).length).toBe(1);
    expect(await zerosIn(unit, 0, 4 * MIB)).toEqual({ from: MIB, to: 3 * MIB });
  });

  it('is not sent UNMAP for more than it takes', async () => {
    const { port, unit } = await bench({
      editPage: (page, body) => {
        if (page === PROVISIONING) body[1] = LBPU | READ_ZEROS;
        if (page === BLOCK_LIMITS) new DataView(body.buffer, body.byteOffset).setUint32(16, 512);
      },
    });
    await unit.zero(0, 2048 * 512, PUNCH);
    expect(port.of(UNMAP).map(({ dataOut }) => dataOut && new DataView(dataOut.buffer).getUint32(16))).toEqual([
      512, 512, 512, 512,
    ]);
  });
});

describe('a disk that refuses', () => {
  it.each([
    ['WRITE SAME(16)', [WRITE_SAME_16], refused, WRITE_SAME_10],
    ['the UNMAP bit', [WRITE_SAME_16], invalidField, WRITE_SAME_10],
    ['both kinds of WRITE SAME', [WRITE_SAME_16, WRITE_SAME_10], refused, WRITE_10],
  ])('%s is not asked for it again', async (_name, opcodes, answer, instead) => {
    const { port, unit } = await bench(having(LBPWS));
    await fill(unit, 0, 4 * MIB);
    port.inject = ({ cdb }) => (opcodes.includes(cdb[0] ?? 0) ? answer : undefined);
    await unit.zero(MIB, MIB, PUNCH);
    const asked = opcodes.map((opcode) => port.of(opcode).length);
    expect(port.of(instead).length).toBeGreaterThan(0);
    await unit.zero(2 * MIB, MIB, PUNCH);
    expect(opcodes.map((opcode) => port.of(opcode).length)).toEqual(asked);
    expect(await zerosIn(unit, 0, 4 * MIB)).toEqual({ from: MIB, to: 3 * MIB });
  });

  it('for want of space says so', async () => {
    const { port, unit } = await bench();
    port.inject = ({ cdb }) => (cdb[0] === WRITE_SAME_16 ? check(0x07, 0x27, 0x07) : undefined);
    expect(await unit.zero(0, MIB, PUNCH).catch(errorCode)).toBe('no-space');
  });
});

describe('a range that keeps its space', () => {
  it('is zeroed by WRITE SAME without UNMAP', async () => {
    const { port, unit } = await bench();
    await fill(unit, 0, 2 * MIB);
    await unit.zero(0, MIB, ZERO);
    expect(runsOf(port)).toEqual([{ lba: 0, blocks: 2048, unmap: false }]);
    expect(port.medium.allocated).toBe(2 * MIB);
    expect(await zerosIn(unit, 0, 2 * MIB)).toEqual({ from: 0, to: MIB });
  });

  it('is written where it is short', async () => {
    const { port, unit } = await bench();
    await unit.zero(4096, 8192, ZERO);
    expect(port.of(WRITE_10).length).toBe(1);
    expect(port.of(WRITE_SAME_16)).toEqual([]);
  });
});

describe('a volatile cache', () => {
  const SYNCHRONIZE_CACHE_10 = 0x35;

  async function volatileBench() {
    const clock = new VirtualClock();
    const port = new ScriptedPort({
      clock,
      random: () => 0.99,
      disk: { blockLength: 512, blocks: 4096, volatileCache: true, thin: true },
    });
    const soon = async <T>(work: Promise<T>): Promise<T> => {
      let settled = false;
      work.then(
        () => {
          settled = true;
        },
        () => {
          settled = true;
        },
      );
      for (let ms = 0; !settled && ms < 100_000; ms += 10) await clock.advance(10);
      return await work;
    };
    const unit = await soon(
      LogicalUnit.attach(port, 0n, {
        pool: new BufferPool(),
        readOnly: false,
        commandTimeoutMs: 30_000,
        awaitsFence: () => true,
        clock,
        random: () => 0.5,
      }),
    );
    return { port, unit, soon };
  }

  it('has the zeros on the medium when they are acknowledged, also where a newer write was not flushed before them', async () => {
    const { port, unit, soon } = await volatileBench();
    port.medium.fill(1);
    await soon(unit.write(0, new Uint8Array(4096).fill(2)));
    await soon(unit.zero(0, 4096, PUNCH));
    expect(port.countOf(SYNCHRONIZE_CACHE_10)).toBe(1);
    expect(unit.status.retainedBytes).toBe(0);
    port.crash();
    port.establish();
    await soon(unit.flush());
    expect(port.medium.subarray(0, 4096).every((byte) => byte === 0)).toBe(true);
    expect(port.medium[4096]).toBe(1);
  });

  it('that is lost between the zeros and their flush gets them again', async () => {
    const { port, unit, soon } = await volatileBench();
    await soon(unit.write(0, new Uint8Array(4096).fill(2)));
    let crashes = 0;
    port.inject = ({ cdb }) => {
      if (cdb[0] !== SYNCHRONIZE_CACHE_10 || crashes++ > 0) return undefined;
      port.loseCache();
      return check(0x06, 0x29, 0x00);
    };
    await soon(unit.zero(0, 4096, PUNCH));
    expect(port.countOf(WRITE_SAME_16)).toBe(2);
    expect(port.medium.subarray(0, 4096).every((byte) => byte === 0)).toBe(true);
  });

  it('whose session is lost while the zeros are under way is fenced before they go out again', async () => {
    const { port, unit, soon } = await volatileBench();
    let losses = 0;
    port.inject = ({ cdb }) => {
      if (cdb[0] === WRITE_SAME_16 && losses++ === 0) {
        port.loseNexus();
        port.establish();
      }
      return undefined;
    };
    await soon(unit.zero(0, 4096, PUNCH));
    expect(port.resets).toBe(1);
    expect(port.violations).toEqual([]);
    expect(port.medium.subarray(0, 4096).every((byte) => byte === 0)).toBe(true);
  });
});

describe('what a disk tells of its holes', () => {
  it('is taken as extents without gaps', async () => {
    const { port, unit } = await bench();
    await unit.write(512 * KIB, new Uint8Array(512).fill(1));
    expect(await unit.extentsFrom(100)).toEqual([
      { offset: 0, length: 512 * KIB, isHole: true },
      { offset: 512 * KIB, length: 256 * KIB, isHole: false },
      { offset: 768 * KIB, length: 16 * MIB - 768 * KIB, isHole: true },
    ]);
    expect(port.of(GET_LBA_STATUS).length).toBe(1);
  });

  it.each([
    ['a command that it does not know', refused, 1],
    ['a field that it does not like', invalidField, 1],
    ['a medium error, which may pass', check(0x03, 0x11, 0x00), 2],
  ])('is nothing after %s: all is data then', async (_name, answer, asked) => {
    const { port, unit } = await bench();
    port.inject = ({ cdb }) => (cdb[0] === GET_LBA_STATUS ? answer : undefined);
    const all = [{ offset: 4096, length: 16 * MIB - 4096, isHole: false }];
    expect(await unit.extentsFrom(4096)).toEqual(all);
    expect(await unit.extentsFrom(4096)).toEqual(all);
    expect(port.of(GET_LBA_STATUS).length).toBe(asked);
  });

  it.each([
    ['no descriptor', []],
    ['a descriptor of no blocks', [[0, 0, 1]]],
    ['a descriptor that begins later', [[8, 8, 1]]],
    ['blocks that are anchored', [[0, 8, 2]]],
    ['a state of a newer standard', [[0, 8, 4]]],
  ])('is data where it is %s', async (_name, descriptors) => {
    const { port, unit } = await bench();
    port.inject = ({ cdb, dataIn }) => {
      if (cdb[0] !== GET_LBA_STATUS || dataIn === undefined) return undefined;
      const view = new DataView(dataIn.buffer);
      view.setUint32(0, 4 + descriptors.length * 16);
      for (const [index, [lba = 0, blocks = 0, status = 0]] of descriptors.entries()) {
        view.setBigUint64(8 + index * 16, BigInt(lba));
        view.setUint32(16 + index * 16, blocks);
        view.setUint8(20 + index * 16, status);
      }
      return { status: 0, transferred: 8 + descriptors.length * 16 };
    };
    expect((await unit.extentsFrom(0))[0]).toMatchObject({ offset: 0, isHole: false });
  });
});
