import { describe, expect, it } from 'vitest';
import { errorCode, IserfsError } from '../../../src/errors.ts';
import { BufferPool } from '../../../src/scsi/buffer-pool.ts';
import type { DeviceChange } from '../../../src/scsi/device-change.ts';
import { LogicalUnit, type LogicalUnitOptions } from '../../../src/scsi/logical-unit.ts';
import type { ScsiCommand } from '../../../src/scsi/port.ts';
import { check, type DiskOptions, fixedSense, ScriptedPort, type ScriptedPortOptions } from '../../support/scripted-port.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

const READ_10 = 0x28;
const WRITE_10 = 0x2a;
const READ_16 = 0x88;
const WRITE_16 = 0x8a;
const SYNCHRONIZE_CACHE_10 = 0x35;
const TEST_UNIT_READY = 0x00;

const plainDisk: DiskOptions = { blockLength: 512, blocks: 4096, volatileCache: false };
const volatileDisk: DiskOptions = { ...plainDisk, volatileCache: true };

/** A disk on a virtual clock. Sessions come back when told to, unless `reconnectMs` is given. */
class Bench {
  readonly clock = new VirtualClock();
  readonly pool = new BufferPool();
  readonly port: ScriptedPort;
  readonly log: string[] = [];
  readonly #options: Partial<LogicalUnitOptions>;

  constructor(disk: DiskOptions, port: Partial<ScriptedPortOptions> = {}, options: Partial<LogicalUnitOptions> = {}) {
    this.#options = options;
    // Never chance: what is in the cache is lost, and a command that is aborted was not executed.
    this.port = new ScriptedPort({ clock: this.clock, random: () => 0.99, disk, ...port });
  }

  async attach(): Promise<LogicalUnit> {
    return await this.soon(
      LogicalUnit.attach(this.port, 0n, {
        pool: this.pool,
        readOnly: false,
        commandTimeoutMs: 30_000,
        awaitsFence: () => true,
        clock: this.clock,
        random: () => 0.5,
        log: (line) => this.log.push(line),
        ...this.#options,
      }),
    );
  }

  /** Lets virtual time pass until `work` settles. */
  async soon<T>(work: Promise<T>, withinMs = 600_000): Promise<T> {
    let settled = false;
    const note = () => {
      settled = true;
    };
    work.then(note, note);
    // In small steps at first, so that little happens after it has settled.
    let step = 10;
    for (let ms = 0; !settled && ms < withinMs; ms += step) {
      if (ms >= 500) step = Math.min(500, withinMs - ms);
      await this.clock.advance(step);
    }
    if (!settled) throw new Error(`still waiting after ${withinMs} ms`);
    return await work;
  }

  async codeOf(work: Promise<unknown>): Promise<string> {
    return await this.soon(
      work.then(
        () => 'no error',
        (error: unknown) => errorCode(error),
      ),
    );
  }

  async readBytes(unit: LogicalUnit, offset: number, length: number): Promise<Uint8Array> {
    const into = new Uint8Array(length);
    await this.soon(unit.read(offset, into));
    return into;
  }
}

function filled(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

function counting(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 7 + (index >> 8)) & 0xff);
}

/** Injects `results` into the next commands of one operation code, one each. */
function failNext(port: ScriptedPort, opcode: number, ...results: ReturnType<typeof check>[]): void {
  port.inject = (command) => (command.cdb[0] === opcode ? results.shift() : undefined);
}

describe('attaching a logical unit', () => {
  it('learns who it is and how large', async () => {
    const unit = await new Bench({ ...volatileDisk, dpoFua: true, serial: 'ABC', maximumTransferBlocks: 8 }).attach();
    expect(unit.identity).toMatchObject({ vendor: 'SCRIPTED', product: 'DISK', revision: '1.0', serial: 'ABC', deviceType: 0 });
    expect(unit.info).toEqual({ size: 4096 * 512, blockLength: 512, writeProtected: false, volatileCache: true });
    expect(unit.characteristics?.limits?.maximumTransferLength).toBe(8);
    expect(unit.status.state).toBe('ready');
  });

  it('takes the unit attention that a new session brings', async () => {
    const bench = new Bench(plainDisk);
    bench.port.unitAttention(0x29, 0x00);
    bench.port.unitAttention(0x3f, 0x0e);
    expect((await bench.attach()).status.state).toBe('ready');
  });

  it.each([
    ['READ CAPACITY(16)', [0x9e]],
    ['MODE SENSE(6)', [0x1a]],
    ['every VPD page', [0x1200, 0x1280, 0x1283, 0x12b0]],
    ['the block limits page', [0x12b0]],
  ])('works with a disk that refuses %s', async (_name, refuses) => {
    const bench = new Bench({ ...volatileDisk, refuses });
    const unit = await bench.attach();
    expect(unit.info).toMatchObject({ size: 4096 * 512, volatileCache: true });
    await bench.soon(unit.write(100, filled(5, 9)));
    expect(await bench.readBytes(unit, 100, 5)).toEqual(filled(5, 9));
  });

  it('takes a cache that nothing is said about to be volatile', async () => {
    const unit = await new Bench({ ...plainDisk, refuses: [0x1a, 0x5a] }).attach();
    expect(unit.info).toMatchObject({ volatileCache: true, writeProtected: false });
  });

  it('believes a disk that says it has no volatile cache', async () => {
    const bench = new Bench(plainDisk);
    const unit = await bench.attach();
    expect(unit.info.volatileCache).toBe(false);
    await bench.soon(unit.write(0, filled(512, 1)));
    await bench.soon(unit.flush());
    expect(bench.port.countOf(SYNCHRONIZE_CACHE_10)).toBe(0);
    expect(unit.status.retainedBytes).toBe(0);
  });

  it('gives an identity and no bytes to what is no disk', async () => {
    const bench = new Bench({ ...plainDisk, deviceType: 0x0c });
    const unit = await bench.attach();
    expect(unit.hasImage).toBe(false);
    expect(unit.info.size).toBe(0);
    expect(await bench.codeOf(unit.read(0, new Uint8Array(1)))).toBe('out-of-range');
  });

  it('comes back after a lost session also where it is no disk', async () => {
    const bench = new Bench({ ...plainDisk, deviceType: 0x0c }, { reconnectMs: () => 5 });
    const unit = await bench.attach();
    bench.port.loseNexus();
    await bench.clock.advance(1000);
    expect(unit.status).toMatchObject({ state: 'ready', recoveries: 1 });
  });

  it('refuses a disk of more than 2^53 - 1 bytes', async () => {
    const bench = new Bench({ ...plainDisk, claimedBlocks: 2n ** 44n });
    expect(await bench.codeOf(bench.attach())).toBe('unsupported');
  });

  it('shows a disk of just less', async () => {
    const unit = await new Bench({ ...plainDisk, claimedBlocks: 2n ** 44n - 1n }).attach();
    expect(unit.info.size).toBe((2 ** 44 - 1) * 512);
  });

  it('rejects where the LUN has no unit', async () => {
    const bench = new Bench({ ...plainDisk, deviceType: 0x7f });
    expect(await bench.codeOf(bench.attach())).toBe('logical-unit-gone');
  });

  it('starts over when the session is lost meanwhile', async () => {
    const bench = new Bench(plainDisk, { reconnectMs: () => 5 });
    bench.clock.schedule(4, () => bench.port.loseNexus());
    expect((await bench.attach()).status.state).toBe('ready');
  });
});

describe('reading and writing', () => {
  it('reads and writes at odd offsets without touching what is around', async () => {
    const bench = new Bench(plainDisk);
    bench.port.medium.fill(0xee);
    const unit = await bench.attach();
    const data = counting(5000);
    await bench.soon(unit.write(1234, data));
    expect(bench.port.medium.subarray(1234, 6234)).toEqual(data);
    expect(bench.port.medium.subarray(0, 1234)).toEqual(filled(1234, 0xee));
    expect(bench.port.medium.subarray(6234, 8192)).toEqual(filled(8192 - 6234, 0xee));
    expect(await bench.readBytes(unit, 1200, 5100)).toEqual(bench.port.medium.slice(1200, 6300));
  });

  it('modifies a part of one block', async () => {
    const bench = new Bench({ blockLength: 4096, blocks: 4, volatileCache: false });
    bench.port.medium.fill(0xee);
    const unit = await bench.attach();
    await bench.soon(unit.write(5000, filled(7, 1)));
    const expected = filled(4 * 4096, 0xee);
    expected.fill(1, 5000, 5007);
    expect(bench.port.medium).toEqual(expected);
    expect(bench.port.countOf(READ_10)).toBe(1);
  });

  it('keeps every command within the limit of the disk', async () => {
    const bench = new Bench({ ...plainDisk, maximumTransferBlocks: 16 });
    const unit = await bench.attach();
    const data = counting(100_000);
    await bench.soon(unit.write(0, data));
    expect(await bench.readBytes(unit, 0, data.length)).toEqual(data);
    const lengths = bench.port.received
      .filter(({ opcode }) => opcode === READ_10 || opcode === WRITE_10)
      .map(({ cdb }) => new DataView(cdb.buffer).getUint16(7));
    expect(Math.max(...lengths)).toBe(16);
  });

  it('cuts what waits for a session anew where the next one takes less per command', async () => {
    let bound: number | undefined;
    const bench = new Bench(plainDisk, { latencyMs: () => 50 }, { maxTransfer: () => bound });
    const unit = await bench.attach();
    const data = counting(64 * 512 + 100);
    const writing = unit.write(1000, data);
    const into = new Uint8Array(128 * 512);
    const reading = unit.read(1024 * 512, into);
    await bench.clock.advance(20);
    expect(bench.port.received.filter(({ opcode }) => opcode === READ_10)).not.toEqual([]);
    bench.port.loseNexus();
    bound = 16 * 512;
    bench.port.establish();
    await bench.soon(Promise.all([writing, reading]));
    const afterwards = bench.port.received.filter(({ opcode, nexus }) => nexus === 2 && [READ_10, WRITE_10].includes(opcode));
    const lengths = afterwards.map(({ cdb }) => new DataView(cdb.buffer).getUint16(7));
    expect(Math.max(...lengths)).toBe(16);
    expect(await bench.readBytes(unit, 1000, data.length)).toEqual(data);
    expect(into).toEqual(bench.port.contents().slice(1024 * 512, (1024 + 128) * 512));
    expect(bench.port.violations).toEqual([]);
  });

  it('writes again within the bound of the session that it writes over', async () => {
    let bound: number | undefined;
    const bench = new Bench(volatileDisk, {}, { maxTransfer: () => bound });
    const unit = await bench.attach();
    const data = counting(64 * 512);
    await bench.soon(unit.write(0, data));
    bench.port.crash();
    bound = 16 * 512;
    bench.port.establish();
    await bench.soon(unit.flush());
    const again = bench.port.received.filter(({ opcode, nexus }) => nexus === 2 && opcode === WRITE_10);
    expect(again.map(({ cdb }) => new DataView(cdb.buffer).getUint16(7))).toEqual([16, 16, 16, 16]);
    expect(bench.port.contents().slice(0, data.length)).toEqual(data);
  });

  it('sends what is written from the memory of a pool that a transport knows', async () => {
    const arenas = new Set<ArrayBufferLike>();
    const pool = new BufferPool({
      allocate: (length) => {
        const arena = new ArrayBuffer(length);
        arenas.add(arena);
        return arena;
      },
      free: () => {},
    });
    const bench = new Bench(volatileDisk, {}, { pool });
    const sources: boolean[] = [];
    bench.port.inject = ({ dataOut, dataIn, cdb }) => {
      if ([READ_10, WRITE_10].includes(cdb[0] ?? 0)) sources.push(arenas.has((dataOut ?? dataIn ?? new Uint8Array()).buffer));
      return undefined;
    };
    const unit = await bench.attach();
    const data = counting(5000);
    await bench.soon(unit.write(4096, data)); // the last block in part: read, changed, written
    await bench.soon(unit.write(100, data));
    const staged = pool.acquire(4096);
    staged.bytes.set(counting(4096));
    const used = pool.bytesInUse;
    await bench.soon(unit.write(64 * 1024, staged.bytes));
    expect(pool.bytesInUse - used).toBe(4096); // the retained copy alone
    staged.release();
    bench.port.crash();
    bench.port.establish();
    await bench.soon(unit.flush());
    expect(sources.length).toBeGreaterThan(8);
    expect(sources).not.toContain(false);
  });

  it('uses the 10-byte commands below 2 TiB and the 16-byte ones on larger disks', async () => {
    const small = new Bench({ ...plainDisk, claimedBlocks: 2n ** 32n });
    const large = new Bench({ ...plainDisk, claimedBlocks: 2n ** 32n + 1n });
    for (const bench of [small, large]) {
      const unit = await bench.attach();
      await bench.soon(unit.write(0, filled(512, 1)));
      await bench.readBytes(unit, 0, 512);
    }
    expect([small.port.countOf(READ_10), small.port.countOf(WRITE_10)]).toEqual([1, 1]);
    expect([large.port.countOf(READ_16), large.port.countOf(WRITE_16)]).toEqual([1, 1]);
  });

  it.each([
    [-1, 10],
    [4096 * 512, 1],
    [4096 * 512 - 5, 6],
  ])('refuses the range at %i of %i bytes', async (offset, length) => {
    const bench = new Bench(plainDisk);
    const unit = await bench.attach();
    expect(await bench.codeOf(unit.read(offset, new Uint8Array(length)))).toBe('out-of-range');
    expect(await bench.codeOf(unit.write(offset, new Uint8Array(length)))).toBe('out-of-range');
  });

  it.each([
    ['the disk is', { disk: { ...plainDisk, writeProtected: true }, readOnly: false }],
    ['the mount is', { disk: plainDisk, readOnly: true }],
  ])('refuses writes where %s write protected', async (_who, { disk, readOnly }) => {
    const bench = new Bench(disk, {}, { readOnly });
    const unit = await bench.attach();
    expect(unit.info.writeProtected).toBe(true);
    expect(await bench.codeOf(unit.write(0, filled(512, 1)))).toBe('write-protected');
    expect(bench.port.countOf(WRITE_10)).toBe(0);
  });

  it('waits for the last command of a request that failed before it lets go of the buffer', async () => {
    const bench = new Bench({ ...plainDisk, maximumTransferBlocks: 1 }, { latencyMs: () => 10 });
    const unit = await bench.attach();
    failNext(bench.port, READ_10, check(0x03, 0x11, 0x00));
    const read = unit.read(0, new Uint8Array(4 * 512));
    const inFlight = read.then(
      () => -1,
      () => bench.port.tasksInFlight,
    );
    expect(await bench.soon(inFlight)).toBe(0);
    expect(await bench.codeOf(read)).toBe('medium-error');
  });

  it('ends a read that is aborted', async () => {
    const bench = new Bench(plainDisk);
    const unit = await bench.attach();
    bench.port.stall = (command) => command.cdb[0] === READ_10;
    const abort = new AbortController();
    const read = unit.read(0, new Uint8Array(512), { signal: abort.signal });
    bench.clock.schedule(20, () => abort.abort());
    expect(await bench.codeOf(read)).toBe('aborted');
    bench.port.stall = undefined;
    expect(await bench.readBytes(unit, 0, 512)).toEqual(filled(512, 0));
  });
});

describe('retrying', () => {
  const busy = { status: 0x08, sense: new Uint8Array(0), transferred: 0 };
  const taskSetFull = { status: 0x28, sense: new Uint8Array(0), transferred: 0 };

  it.each([
    ['BUSY', busy],
    ['TASK SET FULL', taskSetFull],
    ['TASK ABORTED', { ...busy, status: 0x40 }],
    ['becoming ready', check(0x02, 0x04, 0x01)],
    ['ABORTED COMMAND', check(0x0b, 0x47, 0x03)],
    ['a unit attention that changes nothing', check(0x06, 0x2a, 0x02)],
    ['a unit attention after a reset', check(0x06, 0x29, 0x04)],
    ['changed mode parameters', check(0x06, 0x2a, 0x01)],
    ['CHECK CONDITION without sense data', { ...busy, status: 0x02 }],
  ])('issues a write again after %s', async (_name, result) => {
    const bench = new Bench(plainDisk);
    const unit = await bench.attach();
    failNext(bench.port, WRITE_10, result, result);
    await bench.soon(unit.write(0, filled(512, 5)));
    expect(bench.port.medium.subarray(0, 512)).toEqual(filled(512, 5));
    expect(unit.status.retries).toBe(2);
    expect(unit.status.errors).toBe(0);
  });

  it('gives up on a device that stays busy, in bounded time', async () => {
    const bench = new Bench(plainDisk);
    const unit = await bench.attach();
    bench.port.inject = (command) => (command.cdb[0] === READ_10 ? busy : undefined);
    const start = bench.clock.now();
    expect(await bench.codeOf(unit.read(0, new Uint8Array(512)))).toBe('busy');
    expect(bench.clock.now() - start).toBeGreaterThan(29_000);
    expect(bench.clock.now() - start).toBeLessThan(35_000);
    expect(bench.port.countOf(READ_10)).toBeLessThan(100);
  });

  it('has patience with a busy device also after a long wait for the session', async () => {
    const bench = new Bench(plainDisk);
    const unit = await bench.attach();
    bench.port.loseNexus();
    const write = unit.write(0, filled(512, 5));
    await bench.clock.advance(60_000);
    failNext(bench.port, WRITE_10, busy, busy);
    bench.port.establish();
    await bench.soon(write);
    expect(bench.port.medium.subarray(0, 512)).toEqual(filled(512, 5));
  });

  it('does not pass off a short read as data', async () => {
    const bench = new Bench(plainDisk);
    bench.port.medium.fill(7);
    const unit = await bench.attach();
    failNext(bench.port, READ_10, { status: 0, sense: new Uint8Array(0), transferred: 100 });
    expect(await bench.readBytes(unit, 0, 512)).toEqual(filled(512, 7));
    bench.port.inject = (command) => (command.cdb[0] === READ_10 ? { status: 0, transferred: 511 } : undefined);
    expect(await bench.codeOf(unit.read(0, new Uint8Array(512)))).toBe('hardware-error');
  });

  it.each([
    ['reservation-conflict', { ...busy, status: 0x18 }],
    ['medium-error', check(0x03, 0x0c, 0x00)],
    ['write-protected', check(0x07, 0x27, 0x00)],
    ['no-space', check(0x07, 0x27, 0x07)],
    ['not-ready', check(0x02, 0x04, 0x02)],
  ])('reports %s at once', async (code, result) => {
    const bench = new Bench(plainDisk);
    const unit = await bench.attach();
    failNext(bench.port, WRITE_10, result);
    expect(await bench.codeOf(unit.write(0, filled(512, 5)))).toBe(code);
    expect(bench.port.countOf(WRITE_10)).toBe(1);
    expect(unit.status.lastError).toContain('WRITE(10)');
  });

  it('repeats a write that timed out, because the port vouches for the abort', async () => {
    const bench = new Bench(plainDisk);
    const unit = await bench.attach();
    let stalls = 1;
    bench.port.stall = (command) => command.cdb[0] === WRITE_10 && stalls-- > 0;
    await bench.soon(unit.write(0, filled(512, 5)));
    expect(bench.port.countOf(WRITE_10)).toBe(2);
    expect(unit.status.commandTimeouts).toBe(1);
  });

  it('gives up on a command that times out every time', async () => {
    const bench = new Bench(plainDisk);
    const unit = await bench.attach();
    bench.port.stall = (command) => command.cdb[0] === WRITE_10;
    expect(await bench.codeOf(unit.write(0, filled(512, 5)))).toBe('command-timeout');
    expect(bench.port.countOf(WRITE_10)).toBe(3);
  });
});

describe('deferred errors', () => {
  it.each([0x71, 0x73])('counts sense %i as a write error and issues its carrier again', async (responseCode) => {
    const bench = new Bench(volatileDisk);
    const unit = await bench.attach();
    const heard: string[] = [];
    unit.onWriteError((error) => heard.push(errorCode(error)));
    const sense = responseCode === 0x71 ? fixedSense(3, 0x0c, 0, 0x71) : Uint8Array.of(0x73, 3, 0x0c, 0, 0, 0, 0, 0);
    failNext(bench.port, READ_10, { status: 2, sense, transferred: 0 });
    await bench.readBytes(unit, 0, 512);
    expect(bench.port.countOf(READ_10)).toBe(2);
    expect(heard).toEqual(['medium-error']);
    await bench.soon(unit.flush());
  });

  it('fails one flush where nobody listens', async () => {
    const bench = new Bench(volatileDisk);
    const unit = await bench.attach();
    failNext(bench.port, READ_10, check(3, 0x0c, 0, 0x71));
    await bench.readBytes(unit, 0, 512);
    expect(await bench.codeOf(unit.flush())).toBe('medium-error');
    expect(await bench.codeOf(unit.flush())).toBe('no error');
  });

  it('count also where they came with a command of somebody else', async () => {
    const bench = new Bench(volatileDisk);
    const unit = await bench.attach();
    unit.noteDeferredError(new IserfsError('medium-error', 'a write has failed since'));
    expect(await bench.codeOf(unit.flush())).toBe('medium-error');
    expect(await bench.codeOf(unit.flush())).toBe('no error');
  });

  it('fails the flush that it comes up in, although a listener heard of it too', async () => {
    const bench = new Bench(volatileDisk);
    const unit = await bench.attach();
    const heard: string[] = [];
    unit.onWriteError((error) => heard.push(errorCode(error)));
    failNext(bench.port, SYNCHRONIZE_CACHE_10, check(3, 0x0c, 0, 0x71));
    expect(await bench.codeOf(unit.flush())).toBe('medium-error');
    expect(heard).toEqual(['medium-error']);
    expect(await bench.codeOf(unit.flush())).toBe('no error');
  });
});

describe('flushing', () => {
  it('synchronises the whole device with IMMED = 0', async () => {
    const bench = new Bench(volatileDisk);
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(512, 3)));
    expect(bench.port.medium[0]).toBe(0);
    await bench.soon(unit.flush());
    expect(bench.port.medium[0]).toBe(3);
    const synchronize = bench.port.received.find(({ opcode }) => opcode === SYNCHRONIZE_CACHE_10);
    expect(synchronize?.cdb).toEqual(Uint8Array.of(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    expect(unit.status.retainedBytes).toBe(0);
  });

  it('shares one command among those who ask at once, but not with who asks after it began', async () => {
    const bench = new Bench(volatileDisk, { latencyMs: () => 10 });
    const unit = await bench.attach();
    const first = unit.flush();
    await bench.clock.advance(5);
    await bench.soon(Promise.all([unit.flush(), unit.flush(), first]));
    expect(bench.port.countOf(SYNCHRONIZE_CACHE_10)).toBe(2);
  });

  it('covers a write that was acknowledged while another flush was under way', async () => {
    // SYNCHRONIZE CACHE takes effect at once, and takes long to answer; a write is quick.
    const latencyMs = (step: string, command?: ScsiCommand) =>
      step === 'respond' && command?.cdb[0] === SYNCHRONIZE_CACHE_10 ? 100 : 1;
    const bench = new Bench(volatileDisk, { latencyMs });
    const unit = await bench.attach();
    const first = unit.flush();
    await bench.clock.advance(20);
    await bench.soon(unit.write(0, filled(512, 4)), 60);
    await bench.soon(unit.flush());
    await first;
    bench.port.loseCache();
    expect(bench.port.medium[0]).toBe(4);
  });

  it('forces a write by FUA where the device knows it', async () => {
    const bench = new Bench({ ...volatileDisk, dpoFua: true });
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(512, 4), { fua: true }));
    expect(bench.port.medium[0]).toBe(4);
    expect(bench.port.countOf(SYNCHRONIZE_CACHE_10)).toBe(0);
    expect(unit.status.retainedBytes).toBe(0);
  });

  it('forces a write by SYNCHRONIZE CACHE where it does not', async () => {
    const bench = new Bench(volatileDisk);
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(512, 4), { fua: true }));
    expect(bench.port.medium[0]).toBe(4);
    expect(bench.port.countOf(SYNCHRONIZE_CACHE_10)).toBe(1);
  });

  it('counts a write forced by SYNCHRONIZE CACHE as one write, which takes as long as both', async () => {
    const bench = new Bench(volatileDisk, { latencyMs: () => 50 });
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(512, 4), { fua: true }));
    expect(unit.status).toMatchObject({ writes: 1, bytesWritten: 512, flushes: 0, errors: 0 });
    expect(unit.status.latency.write.maxMs).toBe(200);
  });

  it('counts it as one failed write where SYNCHRONIZE CACHE fails', async () => {
    const bench = new Bench({ ...volatileDisk, refuses: [SYNCHRONIZE_CACHE_10] });
    const unit = await bench.attach();
    expect(await bench.codeOf(unit.write(0, filled(512, 4), { fua: true }))).toBe('unsupported');
    expect(unit.status).toMatchObject({ writes: 1, bytesWritten: 0, flushes: 0, errors: 1 });
    expect(unit.status.lastError).toContain('SYNCHRONIZE CACHE');
  });

  it('counts no error where the one who waits for it gives up', async () => {
    const bench = new Bench(volatileDisk);
    const unit = await bench.attach();
    bench.port.stall = ({ cdb }) => cdb[0] === SYNCHRONIZE_CACHE_10;
    const abort = new AbortController();
    const written = bench.codeOf(unit.write(0, filled(512, 4), { fua: true, signal: abort.signal }));
    while (bench.port.countOf(SYNCHRONIZE_CACHE_10) === 0) await bench.clock.advance(1);
    abort.abort();
    expect(await written).toBe('aborted');
    expect(unit.status).toMatchObject({ writes: 1, bytesWritten: 0, errors: 0 });
  });

  it('never writes an older copy over a forced write', async () => {
    const bench = new Bench({ ...volatileDisk, dpoFua: true }, { reconnectMs: () => 5 });
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(1024, 1)));
    await bench.soon(unit.write(512, filled(512, 2), { fua: true }));
    bench.port.crash();
    expect(await bench.readBytes(unit, 0, 1024)).toEqual(Uint8Array.from([...filled(512, 1), ...filled(512, 2)]));
  });

  it('fails where the device has a volatile cache and refuses to synchronise it', async () => {
    const bench = new Bench({ ...volatileDisk, refuses: [SYNCHRONIZE_CACHE_10] });
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(512, 4)));
    expect(await bench.codeOf(unit.flush())).toBe('unsupported');
    expect(await bench.codeOf(unit.flush())).toBe('unsupported');
  });

  it('takes a device that knows neither caching page nor SYNCHRONIZE CACHE to have no cache', async () => {
    const bench = new Bench({ ...plainDisk, refuses: [SYNCHRONIZE_CACHE_10, 0x1a, 0x5a] });
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(512, 4)));
    expect(await bench.codeOf(unit.flush())).toBe('no error');
    expect(unit.info.volatileCache).toBe(false);
  });

  it('is repeated when a command beside it brings the news of a reset', async () => {
    // The read meets the unit attention and is slow to say so; SYNCHRONIZE CACHE is quick and GOOD.
    const latencyMs = (step: string, command?: ScsiCommand) => (step === 'respond' && command?.cdb[0] === READ_10 ? 100 : 1);
    const bench = new Bench(volatileDisk, { latencyMs });
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(512, 4)));
    bench.port.loseCache();
    bench.port.unitAttention(0x29, 0x02);
    const read = unit.read(8192, new Uint8Array(512));
    await bench.clock.advance(2);
    await bench.soon(unit.flush());
    expect(bench.port.medium[0]).toBe(4);
    await read;
  });

  it('does not lose a reset whose unit attention went down with an aborted command', async () => {
    const latencyMs = (step: string, command?: ScsiCommand) => (step === 'respond' && command?.cdb[0] === READ_10 ? 100 : 1);
    const bench = new Bench(volatileDisk, { latencyMs });
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(512, 4)));
    bench.port.loseCache();
    bench.port.unitAttention(0x29, 0x02);
    const abort = new AbortController();
    const read = unit.read(8192, new Uint8Array(512), { signal: abort.signal });
    bench.clock.schedule(50, () => abort.abort());
    expect(await bench.codeOf(read)).toBe('aborted');
    await bench.soon(unit.flush());
    expect(bench.port.medium[0]).toBe(4);
  });

  it('are kept in the memory they lie in where that may be retained and is put to use', async () => {
    const bench = new Bench(volatileDisk);
    const unit = await bench.attach();
    const users: number[] = [0, 0];
    const memoryOf = (index: number, length: number) => ({
      length,
      retain: () => {
        users[index] = (users[index] ?? 0) + 1;
      },
      release: () => {
        users[index] = (users[index] ?? 0) - 1;
      },
    });
    await bench.soon(unit.write(0, filled(64 * 1024, 1), { memory: memoryOf(0, 64 * 1024) }));
    await bench.soon(unit.write(64 * 1024, filled(4096, 2), { memory: memoryOf(1, 64 * 1024) }));
    expect([users, bench.pool.bytesInUse, unit.status.retainedBytes]).toEqual([[1, 0], 4096, 68 * 1024]);
    bench.port.crash();
    bench.port.establish();
    await bench.soon(unit.flush());
    expect([bench.port.medium[0], bench.port.medium[64 * 1024 - 1], bench.port.medium[64 * 1024]]).toEqual([1, 1, 2]);
    expect([users, bench.pool.bytesInUse, unit.status.retainedBytes]).toEqual([[0, 0], 0, 0]);
  });

  it('makes room for copies by itself', async () => {
    const bench = new Bench(volatileDisk, {}, { retainedLimit: 16 * 4096 });
    const unit = await bench.attach();
    for (let block = 0; block < 200; block++) {
      await bench.soon(unit.write(block * 512, filled(512, block)));
      expect(unit.status.retainedBytes).toBeLessThanOrEqual(16 * 4096);
    }
    expect(bench.port.countOf(SYNCHRONIZE_CACHE_10)).toBeGreaterThan(10);
  });

  it('tells the writer who waits for room that it cannot be had', async () => {
    const bench = new Bench(volatileDisk, {}, { retainedLimit: 4096 });
    const unit = await bench.attach();
    const heard: string[] = [];
    unit.onWriteError((error) => heard.push(errorCode(error)));
    bench.port.inject = (command) => (command.cdb[0] === SYNCHRONIZE_CACHE_10 ? check(0x04, 0x44, 0) : undefined);
    await bench.soon(unit.write(0, filled(512, 1)));
    expect(await bench.codeOf(unit.write(512, filled(512, 1)))).toBe('hardware-error');
    expect(heard.length).toBeGreaterThan(0);
    bench.port.inject = undefined;
    expect(await bench.codeOf(unit.write(512, filled(512, 1)))).toBe('no error');
  });
});

describe('a lost session', () => {
  it('lets requests wait and issues them again on the next one', async () => {
    const bench = new Bench(plainDisk, { latencyMs: () => 20 });
    const unit = await bench.attach();
    const write = unit.write(0, filled(512, 6));
    const read = unit.read(4096, new Uint8Array(512));
    await bench.clock.advance(5);
    bench.port.loseNexus();
    const later = unit.read(0, new Uint8Array(512));
    await bench.clock.advance(60_000);
    expect(unit.status.state).toBe('recovering');
    bench.port.establish();
    await bench.soon(Promise.all([write, read, later]));
    expect(unit.status).toMatchObject({ state: 'ready', recoveries: 1, reconnectReplays: 2, errors: 0 });
    expect(bench.port.medium[0]).toBe(6);
  });

  it('fences what may still be executed before it writes again', async () => {
    const bench = new Bench(plainDisk, { latencyMs: () => 20, lateMs: () => 500, reconnectMs: () => 5 });
    const unit = await bench.attach();
    const write = unit.write(0, filled(512, 6));
    await bench.clock.advance(5);
    bench.port.loseNexus();
    expect(bench.port.zombies).toBe(1);
    await bench.soon(write);
    await bench.soon(unit.write(0, filled(512, 7)));
    await bench.clock.advance(1000);
    expect(bench.port.medium[0]).toBe(7);
    expect(bench.port.resets).toBe(1);
    expect(bench.port.violations).toEqual([]);
  });

  it('resets nothing where no write was in flight', async () => {
    const bench = new Bench(plainDisk, { latencyMs: () => 20, reconnectMs: () => 5 });
    const unit = await bench.attach();
    const read = unit.read(0, new Uint8Array(512));
    await bench.clock.advance(5);
    bench.port.loseNexus();
    await bench.soon(read);
    expect(bench.port.resets).toBe(0);
  });

  it('resets nothing where the peer is proven to wait for the old tasks', async () => {
    const asked: string[] = [];
    const awaitsFence: LogicalUnitOptions['awaitsFence'] = (identity) => {
      asked.push(identity.vendor);
      return false;
    };
    const bench = new Bench(plainDisk, { latencyMs: () => 20, reconnectMs: () => 5 }, { awaitsFence });
    const unit = await bench.attach();
    const write = unit.write(0, filled(512, 6));
    await bench.clock.advance(5);
    bench.port.loseNexus();
    await bench.soon(write);
    expect([bench.port.resets, asked]).toEqual([0, ['SCRIPTED']]);
  });

  it('gives up a write that cannot be fenced, and whatever would be overtaken by it', async () => {
    const bench = new Bench(plainDisk, { latencyMs: () => 20, lateMs: () => 5000, reconnectMs: () => 5, resets: 'unsupported' });
    const unit = await bench.attach();
    const write = unit.write(512, filled(512, 6));
    await bench.clock.advance(5);
    bench.port.loseNexus();
    expect(await bench.codeOf(write)).toBe('connection-lost');
    expect(await bench.codeOf(unit.write(700, filled(10, 7)))).toBe('connection-lost');
    expect(await bench.codeOf(unit.write(0, filled(512, 8)))).toBe('no error');
    expect(await bench.codeOf(unit.read(512, new Uint8Array(512)))).toBe('no error');
    expect(bench.port.countOf(WRITE_10)).toBe(2);
  });

  it('writes again what a crash took, before anything else is served', async () => {
    const bench = new Bench(volatileDisk, { reconnectMs: () => 5 });
    const unit = await bench.attach();
    const data = counting(3000);
    await bench.soon(unit.write(500, data));
    await bench.soon(unit.write(1000, filled(100, 0xff)));
    bench.port.crash();
    expect(bench.port.medium.every((byte) => byte === 0)).toBe(true);
    const expected = Uint8Array.from(data);
    expected.fill(0xff, 500, 600);
    expect(await bench.readBytes(unit, 500, 3000)).toEqual(expected);
    await bench.soon(unit.flush());
    bench.port.loseCache();
    expect(bench.port.medium.subarray(500, 3500)).toEqual(expected);
  });

  it('does not write again what was synchronised', async () => {
    const bench = new Bench(volatileDisk, { reconnectMs: () => 5 });
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(512, 1)));
    await bench.soon(unit.flush());
    await bench.soon(unit.write(512, filled(512, 2)));
    bench.port.crash();
    await bench.readBytes(unit, 0, 512);
    expect(unit.status.replayedWrites).toBe(1);
    expect(bench.port.countOf(WRITE_10)).toBe(3);
  });

  it('starts over when the session is lost again while it writes again', async () => {
    const bench = new Bench(volatileDisk, { reconnectMs: () => 5, latencyMs: () => 3 });
    const unit = await bench.attach();
    for (let block = 0; block < 40; block++) await bench.soon(unit.write(block * 512, filled(512, block + 1)));
    bench.port.crash();
    let crashes = 3;
    bench.port.inject = (command) => {
      if (command.cdb[0] !== WRITE_10 || bench.port.countOf(WRITE_10) % 20 !== 0 || crashes === 0) return undefined;
      crashes--;
      bench.clock.schedule(0, () => bench.port.crash());
      return undefined;
    };
    await bench.soon(unit.flush());
    expect(crashes).toBe(0);
    for (let block = 0; block < 40; block++) expect(bench.port.medium[block * 512]).toBe(block + 1);
  });

  it('writes again after a reset that the session survives', async () => {
    const bench = new Bench(volatileDisk);
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(512, 9)));
    bench.port.resetByOther();
    expect(await bench.readBytes(unit, 0, 512)).toEqual(filled(512, 9));
  });

  it('reads the truth when the news of a reset went to a command beside it', async () => {
    const slow = 8192 / 512;
    const latencyMs = (step: string, command?: ScsiCommand) => (step === 'respond' && command?.cdb[5] === slow ? 100 : 1);
    const bench = new Bench(volatileDisk, { latencyMs });
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(512, 4)));
    bench.port.loseCache();
    bench.port.unitAttention(0x29, 0x02);
    const beside = unit.read(8192, new Uint8Array(512));
    await bench.clock.advance(2);
    expect(await bench.readBytes(unit, 0, 512)).toEqual(filled(512, 4));
    await beside;
  });

  it('reports what cannot be written again, once, and goes on', async () => {
    const bench = new Bench(volatileDisk, { reconnectMs: () => 5 });
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(512, 1)));
    await bench.soon(unit.write(4096, filled(512, 2)));
    failNext(bench.port, WRITE_10, check(0x03, 0x0c, 0x00));
    bench.port.crash();
    expect(await bench.codeOf(unit.flush())).toBe('data-lost');
    expect(await bench.codeOf(unit.flush())).toBe('no error');
    expect(bench.port.medium[4096]).toBe(2);
    expect(unit.status.retainedBytes).toBe(0);
  });

  it('fails everything while the port has given up, and recovers when it has not', async () => {
    const bench = new Bench(volatileDisk, { latencyMs: () => 20 });
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(512, 1)));
    const read = unit.read(512, new Uint8Array(512));
    await bench.clock.advance(5);
    bench.port.crash();
    bench.clock.schedule(1000, () => bench.port.giveUp());
    expect(await bench.codeOf(read)).toBe('recovery-timeout');
    expect(unit.status.state).toBe('failed');
    expect(await bench.codeOf(unit.write(0, filled(512, 2)))).toBe('recovery-timeout');
    expect(await bench.codeOf(unit.flush())).toBe('recovery-timeout');
    bench.port.establish();
    await bench.clock.advance(1000);
    expect(unit.status.state).toBe('ready');
    expect(await bench.readBytes(unit, 0, 512)).toEqual(filled(512, 1));
  });

  it.each([
    ['serial number', { serial: 'other' }],
    ['product', { product: 'TAPE' }],
    ['designator', { refuses: [0x1283] }],
  ])('fails for good where the unit has another %s afterwards', async (_what, change) => {
    const bench = new Bench(volatileDisk, { reconnectMs: () => 5, latencyMs: () => 20 });
    const unit = await bench.attach();
    const write = unit.write(0, filled(512, 1));
    await bench.clock.advance(5);
    bench.port.loseNexus();
    bench.port.disk = { ...volatileDisk, ...change };
    expect(await bench.codeOf(write)).toBe('logical-unit-changed');
    expect(await bench.codeOf(unit.read(0, new Uint8Array(512)))).toBe('logical-unit-changed');
    expect(unit.status.state).toBe('failed');
    expect([bench.port.resets, bench.port.countOf(WRITE_10)]).toEqual([0, 1]);
  });

  it('looks who is there after the target once said that there is no such unit', async () => {
    const bench = new Bench(volatileDisk);
    const unit = await bench.attach();
    const changes: DeviceChange['type'][] = [];
    unit.onChange(({ type }) => changes.push(type));
    failNext(bench.port, READ_10, check(0x05, 0x25, 0x00));
    expect(await bench.codeOf(unit.read(0, new Uint8Array(512)))).toBe('logical-unit-gone');
    expect(changes).toContain('logical-units');
    // Another one in its place, and no unit attention says so.
    bench.port.disk = { ...volatileDisk, serial: 'other' };
    expect(await bench.codeOf(unit.write(0, filled(512, 1)))).toBe('logical-unit-changed');
    expect(bench.port.countOf(WRITE_10)).toBe(0);
  });

  it('goes on with the same unit, and writes again what it may have lost', async () => {
    const bench = new Bench(volatileDisk);
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(512, 1)));
    bench.port.loseCache();
    failNext(bench.port, READ_10, check(0x05, 0x25, 0x00));
    expect(await bench.codeOf(unit.read(512, new Uint8Array(512)))).toBe('logical-unit-gone');
    await bench.soon(unit.flush());
    expect(bench.port.medium.subarray(0, 512)).toEqual(filled(512, 1));
  });

  it('takes another size for another unit where nothing names it', async () => {
    const anonymous = { ...plainDisk, refuses: [0x1280, 0x1283] };
    const bench = new Bench(anonymous, { reconnectMs: () => 5 });
    const unit = await bench.attach();
    bench.port.disk = { ...anonymous, claimedBlocks: 5000n };
    bench.port.loseNexus();
    expect(await bench.codeOf(unit.read(0, new Uint8Array(512)))).toBe('logical-unit-changed');
  });

  it('waits a little for a unit that is not there yet after a restart', async () => {
    const bench = new Bench(plainDisk, { reconnectMs: () => 5 });
    const unit = await bench.attach();
    bench.port.disk = { ...plainDisk, deviceType: 0x7f };
    bench.port.loseNexus();
    const read = unit.read(0, new Uint8Array(512));
    await bench.clock.advance(3000);
    bench.port.disk = plainDisk;
    expect(await bench.codeOf(read)).toBe('no error');
  });

  it('counts that little from when the session is back, however long the restart took', async () => {
    const bench = new Bench(plainDisk);
    const unit = await bench.attach();
    bench.port.disk = { ...plainDisk, deviceType: 0x7f };
    bench.port.loseNexus();
    const read = unit.read(0, new Uint8Array(512));
    await bench.clock.advance(60_000);
    bench.port.establish();
    await bench.clock.advance(3000);
    bench.port.disk = plainDisk;
    expect(await bench.codeOf(read)).toBe('no error');
  });

  it('looks again where it is asked to at the moment of its return', async () => {
    const bench = new Bench(plainDisk, { reconnectMs: () => 5 });
    const unit = await bench.attach();
    let asked = false;
    unit.onChange(({ type }) => {
      if (asked || type !== 'state' || unit.status.state !== 'ready') return;
      asked = true;
      bench.port.disk = { ...plainDisk, writeProtected: true };
      unit.revalidate();
    });
    bench.port.loseNexus();
    await bench.clock.advance(1000);
    expect(asked).toBe(true);
    expect(unit.status.state).toBe('ready');
    expect(unit.info.writeProtected).toBe(true);
  });

  it('is gone where the unit does not come back, until it does', async () => {
    const bench = new Bench(plainDisk, { reconnectMs: () => 5 });
    const unit = await bench.attach();
    bench.port.disk = { ...plainDisk, deviceType: 0x7f };
    bench.port.loseNexus();
    expect(await bench.codeOf(unit.read(0, new Uint8Array(512)))).toBe('logical-unit-gone');
    expect(unit.status.state).toBe('gone');
    bench.port.disk = plainDisk;
    unit.revalidate();
    await bench.clock.advance(100);
    expect(unit.status.state).toBe('ready');
  });

  it('checks who the unit is before it issues any read or write', async () => {
    const bench = new Bench(volatileDisk, { reconnectMs: () => 5, latencyMs: () => 20 });
    const unit = await bench.attach();
    const write = unit.write(0, filled(512, 1));
    await bench.clock.advance(5);
    bench.port.loseNexus();
    await bench.soon(write);
    const onNewNexus = bench.port.received.filter(({ nexus }) => nexus === 2).map(({ opcode }) => opcode);
    const firstAccess = onNewNexus.indexOf(WRITE_10);
    expect(onNewNexus[0]).toBe(TEST_UNIT_READY);
    expect(onNewNexus.slice(0, firstAccess)).toContain(0x12);
  });
});

describe('unit attentions', () => {
  it.each<[string, number, number, DeviceChange['type'][]]>([
    ['reported LUNs changed', 0x3f, 0x0e, ['contents', 'logical-units', 'state', 'state']],
    ['medium may have changed', 0x28, 0x00, ['contents', 'state', 'state']],
    ['mode parameters changed', 0x2a, 0x01, ['state', 'state']],
  ])('tell of changes: %s', async (_name, asc, ascq, changes) => {
    const bench = new Bench(plainDisk);
    const unit = await bench.attach();
    const told: DeviceChange['type'][] = [];
    unit.onChange(({ type }) => told.push(type));
    bench.port.unitAttention(asc, ascq);
    await bench.readBytes(unit, 0, 512);
    expect(told).toEqual(changes);
  });

  it('show a new size at once', async () => {
    const bench = new Bench({ ...plainDisk, claimedBlocks: 100n });
    const unit = await bench.attach();
    const told: DeviceChange['type'][] = [];
    unit.onChange(({ type }) => told.push(type));
    bench.port.disk = plainDisk;
    bench.port.unitAttention(0x2a, 0x09);
    await bench.readBytes(unit, 0, 512);
    expect(unit.info.size).toBe(4096 * 512);
    expect(told).toContain('info');
    await bench.readBytes(unit, 4000 * 512, 512);
  });

  it('show a new write protection', async () => {
    const bench = new Bench(plainDisk);
    const unit = await bench.attach();
    bench.port.disk = { ...plainDisk, writeProtected: true };
    bench.port.unitAttention(0x2a, 0x01);
    await bench.readBytes(unit, 0, 512);
    expect(unit.info.writeProtected).toBe(true);
  });

  it('bring up another unit in place of this one', async () => {
    const bench = new Bench(plainDisk);
    const unit = await bench.attach();
    bench.port.disk = { ...plainDisk, serial: 'other' };
    bench.port.unitAttention(0x3f, 0x03);
    expect(await bench.codeOf(unit.read(0, new Uint8Array(512)))).toBe('logical-unit-changed');
  });
});

describe('closing', () => {
  it('rejects who waits, gives all memory back, and may be done twice', async () => {
    const bench = new Bench(volatileDisk);
    const unit = await bench.attach();
    await bench.soon(unit.write(0, filled(5000, 1)));
    bench.port.loseNexus();
    const read = unit.read(0, new Uint8Array(512));
    const code = bench.codeOf(read);
    await Promise.all([bench.soon(unit.close()), code]);
    await unit.close();
    expect(await code).toBe('aborted');
    expect(bench.pool.bytesInUse).toBe(0);
    expect(await bench.codeOf(unit.write(0, filled(512, 1)))).toBe('aborted');
  });
});
