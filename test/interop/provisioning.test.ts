/**
 * Zeros and holes against a real tgtd with a thin disk: what its backing file holds afterwards, and what space it takes. tgtd
 * 1.0.85 punches holes for UNMAP and for WRITE SAME with the UNMAP bit, and answers GET LBA STATUS from SEEK_HOLE.
 */

import { randomBytes } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { createTcpTransport } from '../../src/iser/datamover/tcp.ts';
import { Initiator } from '../../src/iser/initiator.ts';
import { makeIsid } from '../../src/iser/iscsi/name.ts';
import { BufferPool } from '../../src/scsi/buffer-pool.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { lunFromNumber } from '../../src/scsi/lun.ts';
import { Tgtd, type TgtdLunOptions } from '../support/tgtd.ts';
import { MiB } from '../support/workdir.ts';

let tgtd: Tgtd;
beforeEach(async () => {
  tgtd = await Tgtd.start();
  return () => tgtd[Symbol.asyncDispose]();
});

async function attach(options: TgtdLunOptions) {
  const target = await tgtd.addTarget({ luns: [{ size: 16 * MiB, ...options }] });
  const initiator = await Initiator.connect({
    initiatorName: 'iqn.2026-01.io.iserfs.test:initiator',
    isid: makeIsid(randomBytes(6)),
    transport: createTcpTransport(),
    loginTimeoutMs: 5000,
    clock: systemClock,
    random: (length) => randomBytes(length),
    targetName: target.name,
    portals: [{ host: '127.0.0.1', port: tgtd.port }],
    commandTimeoutMs: 10_000,
    recoveryTimeoutMs: 20_000,
    keepaliveIntervalMs: 5000,
    keepaliveTimeoutMs: 5000,
    maxCommands: 128,
    log: () => {},
  });
  const unit = await LogicalUnit.attach(initiator, lunFromNumber(1), {
    pool: new BufferPool(),
    readOnly: false,
    commandTimeoutMs: 10_000,
    awaitsFence: () => true,
  });
  return {
    unit,
    path: target.luns[0]?.path ?? '',
    async [Symbol.asyncDispose]() {
      await unit.close();
      await initiator.logout();
    },
  };
}

const THIN = { parameters: { thin_provisioning: '1' } };
/** Bytes that the file takes. */
const space = (path: string) => statSync(path).blocks * 512;

async function fill(unit: LogicalUnit): Promise<void> {
  const data = new Uint8Array(MiB).fill(0xab);
  for (let at = 0; at < 16 * MiB; at += MiB) await unit.write(at, data);
  await unit.flush();
}

/** Whether the file is full of data but for the range, which is all zeros. */
function expectZeros(path: string, offset: number, length: number): void {
  const expected = Buffer.alloc(16 * MiB, 0xab).fill(0, offset, offset + length);
  expect(Buffer.compare(readFileSync(path), expected), 'the same bytes').toBe(0);
}

describe.each([512, 4096] as const)('a thin disk of tgtd with blocks of %i bytes', (blockLength) => {
  it('has ranges punched at any alignment, and takes less space then', async () => {
    await using it = await attach({ ...THIN, blockLength });
    await fill(it.unit);
    expect(space(it.path)).toBeGreaterThanOrEqual(16 * MiB);
    await it.unit.zero(MiB + 77, 8 * MiB, { mayUnmap: true });
    expectZeros(it.path, MiB + 77, 8 * MiB);
    expect(space(it.path)).toBeLessThan(9 * MiB);
  });

  it('tells its holes', async () => {
    await using it = await attach({ ...THIN, blockLength });
    await it.unit.write(4 * MiB, new Uint8Array(MiB).fill(1));
    const extents = await it.unit.extentsFrom(0);
    const data = extents.filter(({ isHole }) => !isHole);
    expect(extents[0]?.isHole).toBe(true);
    expect(data).toEqual([{ offset: 4 * MiB, length: MiB, isHole: false }]);
  });
});

describe('a disk of tgtd that is not thin', () => {
  it.each([true, false])('has ranges zeroed all the same, mayUnmap %s', async (mayUnmap) => {
    await using it = await attach({});
    await fill(it.unit);
    await it.unit.zero(MiB + 77, 8 * MiB, { mayUnmap });
    expectZeros(it.path, MiB + 77, 8 * MiB);
    expect(await it.unit.extentsFrom(0)).toEqual([{ offset: 0, length: 16 * MiB, isHole: false }]);
  });
});
