import { describe, expect, it } from 'vitest';
import { decodeCapacity10, decodeCapacity16 } from '../../../src/scsi/capacity.ts';
import {
  encodeCdb,
  inquiryCdb,
  readCapacity10Cdb,
  readCapacity16Cdb,
  reportLunsCdb,
  requestSenseCdb,
  testUnitReadyCdb,
} from '../../../src/scsi/cdb.ts';
import { BlockDeviceServer } from '../../../src/scsi/device-server.ts';
import {
  decodeBlockLimits,
  decodeDeviceIdentification,
  decodeStandardInquiry,
  decodeSupportedPages,
  decodeThinProvisioning,
  decodeUnitSerialNumber,
  decodeVpdPage,
  designatorText,
} from '../../../src/scsi/inquiry.ts';
import { decodeReportLuns, lunFromNumber, lunLabel } from '../../../src/scsi/lun.ts';
import { MemoryMedium } from '../../../src/scsi/memory-medium.ts';
import { decodeSense } from '../../../src/scsi/sense.ts';
import type { ServedUnitOptions } from '../../../src/scsi/served-unit.ts';
import { Status } from '../../../src/scsi/status.ts';
import { FaultyMedium } from '../../support/faulty-medium.ts';
import { LocalNexus } from '../../support/local-nexus.ts';

const unit = (lun: number, options: Partial<ServedUnitOptions> = {}): ServedUnitOptions => ({
  lun,
  medium: new MemoryMedium(1024 * 1024),
  blockLength: 512,
  serial: `serial-${lun}`,
  ...options,
});

const serve = (...units: ServedUnitOptions[]) => new BlockDeviceServer({ units });
const attention = (asc: number, ascq: number) => ({ status: Status['check-condition'], sense: { key: 6, asc, ascq } });
const refusal = (asc: number, ascq: number, more = {}) => ({
  status: Status['check-condition'],
  sense: { key: 5, asc, ascq, ...more },
});
const good = { status: Status.good };
const tur = testUnitReadyCdb();

describe('unit attentions', () => {
  it('power on is reported once, to every new nexus', async () => {
    const server = serve(unit(0));
    const first = new LocalNexus(server, 1);
    const second = new LocalNexus(server, 2);
    expect(await first.run(tur)).toMatchObject(attention(0x29, 0));
    expect(await first.run(tur)).toMatchObject(good);
    expect(await second.run(tur)).toMatchObject(attention(0x29, 0));
  });

  it('a nexus that follows on a lost one is told of the loss', async () => {
    const server = serve(unit(0));
    const first = new LocalNexus(server, 1);
    await first.ready();
    first.lost();
    const again = new LocalNexus(server, 2);
    expect(await again.run(tur)).toMatchObject(attention(0x29, 0x07));
    expect(await new LocalNexus(server, 3).run(tur)).toMatchObject(attention(0x29, 0));
  });

  it('each logical unit has its own', async () => {
    const server = serve(unit(0), unit(1));
    const nexus = new LocalNexus(server, 1);
    await nexus.ready();
    expect(await nexus.run(tur, { lun: lunFromNumber(1) })).toMatchObject(attention(0x29, 0));
  });

  it('INQUIRY and REPORT LUNS neither report nor clear one', async () => {
    const nexus = new LocalNexus(serve(unit(0)), 1);
    expect(await nexus.run(inquiryCdb({ length: 96 }))).toMatchObject(good);
    expect(await nexus.run(reportLunsCdb({ length: 64 }))).toMatchObject(good);
    expect(await nexus.run(tur)).toMatchObject(attention(0x29, 0));
  });

  it('REQUEST SENSE reports one as data and clears it', async () => {
    const nexus = new LocalNexus(serve(unit(0)), 1);
    const { status, data } = await nexus.run(requestSenseCdb({ length: 252 }));
    expect(status).toBe(Status.good);
    expect(decodeSense(data)).toMatchObject({ key: 6, asc: 0x29, ascq: 0, descriptorFormat: false });
    expect(await nexus.run(tur)).toMatchObject(good);
    const later = await nexus.run(requestSenseCdb({ length: 252, descriptorFormat: true }));
    expect(decodeSense(later.data)).toMatchObject({ key: 0, asc: 0, ascq: 0, descriptorFormat: true });
  });

  it('a logical unit reset is reported to the other nexuses, and replaces what was pending', async () => {
    const server = serve(unit(0), unit(1));
    const [one, other] = [new LocalNexus(server, 1), new LocalNexus(server, 2)];
    await one.ready();
    expect(await server.reset('logical-unit-reset', lunFromNumber(0), 1)).toBe(true);
    expect(await one.run(tur)).toMatchObject(good);
    expect(await other.run(tur)).toMatchObject(attention(0x29, 0x03));
    expect(await other.run(tur)).toMatchObject(good);
    expect(await server.reset('logical-unit-reset', lunFromNumber(9), 1)).toBe(false);
  });

  it('a target reset is reported for every logical unit', async () => {
    const server = serve(unit(0), unit(1));
    const other = new LocalNexus(server, 2);
    expect(await server.reset('target-warm-reset', 0n, 1)).toBe(true);
    for (const lun of [0, 1]) expect(await other.run(tur, { lun: lunFromNumber(lun) })).toMatchObject(attention(0x29, 0x02));
  });

  it('a new size is reported, once for several changes', async () => {
    const server = serve(unit(0));
    const nexus = new LocalNexus(server, 1);
    await nexus.ready();
    await server.unit(0)?.resize(2 * 1024 * 1024);
    await server.unit(0)?.resize(3 * 1024 * 1024);
    expect(await nexus.run(tur)).toMatchObject(attention(0x2a, 0x09));
    const { data } = await nexus.run(readCapacity16Cdb());
    expect(decodeCapacity16(data)?.lastLba).toBe(6143n);
  });

  it('the same size again is no change', async () => {
    const server = serve(unit(0));
    const nexus = new LocalNexus(server, 1);
    await nexus.ready();
    await server.unit(0)?.resize(1024 * 1024);
    expect(await nexus.run(tur)).toMatchObject(good);
    await expect(server.unit(0)?.resize(1000)).rejects.toMatchObject({ code: 'bad-configuration' });
  });

  it('a unit that comes or goes is reported by the others, and REPORT LUNS clears that everywhere', async () => {
    const server = serve(unit(0), unit(1));
    const nexus = new LocalNexus(server, 1);
    await nexus.ready();
    server.addUnit(unit(300));
    expect(await nexus.run(tur)).toMatchObject(attention(0x3f, 0x0e));
    expect(decodeReportLuns((await nexus.run(reportLunsCdb({ length: 64 }))).data).luns.map(lunLabel)).toEqual(['0', '1', '300']);
    // LUN 1 still has its power-on condition, but not the one that REPORT LUNS has answered.
    const lun = lunFromNumber(1);
    expect(await nexus.run(tur, { lun })).toMatchObject(attention(0x29, 0));
    expect(await nexus.run(tur, { lun })).toMatchObject(good);
    expect(await nexus.run(tur, { lun: lunFromNumber(300) })).toMatchObject(attention(0x29, 0));
    await server.removeUnit(300);
    expect(await nexus.run(tur)).toMatchObject(attention(0x3f, 0x0e));
    expect(await nexus.run(tur, { lun: lunFromNumber(300) })).toMatchObject(refusal(0x25, 0));
  });
});

describe('routing', () => {
  it('a LUN that is not there: INQUIRY says so, REQUEST SENSE says so, REPORT LUNS works, the rest is refused', async () => {
    const nexus = new LocalNexus(serve(unit(1)), 1);
    const inquiry = decodeStandardInquiry((await nexus.run(inquiryCdb({ length: 96 }))).data);
    expect(inquiry).toMatchObject({ peripheralQualifier: 3, deviceType: 0x1f });
    expect(await nexus.run(inquiryCdb({ evpd: true, page: 0, length: 96 }))).toMatchObject(refusal(0x24, 0));
    expect(decodeReportLuns((await nexus.run(reportLunsCdb({ length: 64 }))).data).luns.map(lunLabel)).toEqual(['1']);
    const sense = await nexus.run(requestSenseCdb({ length: 18 }));
    expect(sense.status).toBe(Status.good);
    expect(decodeSense(sense.data)).toMatchObject({ key: 5, asc: 0x25 });
    expect(await nexus.run(tur)).toMatchObject(refusal(0x25, 0));
  });

  it('a unit answers to every way to write its number, and to no other LUN', async () => {
    const server = serve(unit(5), unit(300));
    expect(server.hasLogicalUnit(0x0005_0000_0000_0000n)).toBe(true);
    expect(server.hasLogicalUnit(0x4005_0000_0000_0000n)).toBe(true);
    expect(server.hasLogicalUnit(0xd200_012c_0000_0000n)).toBe(true);
    expect(server.hasLogicalUnit(0x0105_0000_0000_0000n)).toBe(false);
    expect(server.hasLogicalUnit(0x0005_0001_0000_0000n)).toBe(false);
  });

  it.each([
    [0, ['0', '300', '16384']],
    [1, []],
    [2, ['0', '300', '16384']],
  ])('SELECT REPORT %d', async (selectReport, expected) => {
    const nexus = new LocalNexus(serve(unit(16384), unit(300), unit(0)), 1);
    const { data } = await nexus.run(reportLunsCdb({ length: 64, selectReport }));
    expect(decodeReportLuns(data).luns.map(lunLabel)).toEqual(expected);
  });

  it('SELECT REPORT 3 is an invalid field', async () => {
    const nexus = new LocalNexus(serve(unit(0)), 1);
    expect(await nexus.run(reportLunsCdb({ length: 64, selectReport: 3 }))).toMatchObject(
      refusal(0x24, 0, { fieldPointer: { inCdb: true, byte: 2 } }),
    );
  });

  it.each([
    ['PERSISTENT RESERVE IN', [0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0], 0x20, 0],
    ['FORMAT UNIT', [0x04, 0, 0, 0, 0, 0], 0x20, 0],
    ['an operation code that nobody has', [0xff], 0x20, 0],
    ['an unknown service action of SERVICE ACTION IN(16)', [0x9e, 0x1f], 0x24, 1],
  ])('refuses %s', async (_, cdb, asc, byte) => {
    const nexus = new LocalNexus(serve(unit(0)), 1);
    await nexus.ready();
    expect(await nexus.run(Uint8Array.from(cdb))).toMatchObject(refusal(asc, 0, { fieldPointer: { inCdb: true, byte } }));
  });

  it('refuses NACA, which INQUIRY says it has not', async () => {
    const nexus = new LocalNexus(serve(unit(0)), 1);
    expect(await nexus.run(Uint8Array.of(0x12, 0, 0, 0, 96, 0x04))).toMatchObject(
      refusal(0x24, 0, { fieldPointer: { inCdb: true, byte: 5, bit: 2 } }),
    );
  });

  it('refuses two units of one LUN, and units that cannot be', () => {
    expect(() => serve(unit(1), unit(1))).toThrow(/LUN 1 is given twice/);
    expect(() => serve(unit(0, { medium: new MemoryMedium(1000) }))).toThrow(/not a number of blocks/);
    expect(() => serve(unit(0, { blockLength: 520 }))).toThrow(/512 or 4096/);
    expect(() => serve(unit(0, { serial: 'ä' }))).toThrow(/serial number/);
    expect(() => serve(unit(2 ** 24))).toThrow(/16777215/);
  });
});

describe('INQUIRY', () => {
  const page = async (code: number, options: Partial<ServedUnitOptions> = {}) => {
    const nexus = new LocalNexus(serve(unit(0, options)), 1);
    const { status, data } = await nexus.run(inquiryCdb({ evpd: true, page: code, length: 255 }));
    expect(status).toBe(Status.good);
    expect(data[1]).toBe(code);
    return decodeVpdPage(data).body;
  };

  it('standard data', async () => {
    const nexus = new LocalNexus(serve(unit(0, { product: 'TEST' })), 1);
    const { data } = await nexus.run(inquiryCdb({ length: 255 }));
    expect(data.length).toBe(96);
    expect(data[4]).toBe(91);
    expect(decodeStandardInquiry(data)).toMatchObject({
      peripheralQualifier: 0,
      deviceType: 0,
      removable: false,
      vendor: 'ISERFS',
      product: 'TEST',
      commandQueuing: true,
    });
  });

  it('the allocation length cuts, without an error', async () => {
    const nexus = new LocalNexus(serve(unit(0)), 1);
    for (const length of [0, 5, 36]) {
      const outcome = await nexus.run(inquiryCdb({ length }));
      expect([outcome.status, outcome.data.length, outcome.transferLength]).toEqual([Status.good, length, length]);
    }
  });

  it('lists its pages in ascending order, and has each', async () => {
    const pages = decodeSupportedPages(await page(0));
    expect(pages).toEqual([0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
    for (const code of pages) await page(code);
  });

  it('identifies the unit by its serial number alone', async () => {
    expect(decodeUnitSerialNumber(await page(0x80, { serial: 'a-1' }))).toBe('a-1');
    const texts = async (serial: string) => decodeDeviceIdentification(await page(0x83, { serial })).map(designatorText);
    const [naa, t10] = await texts('a-1');
    expect(naa).toMatch(/^naa\.3[0-9a-f]{15}$/);
    expect(t10).toBe('t10.ISERFS  a-1');
    expect(await texts('a-1')).toEqual([naa, t10]);
    expect((await texts('a-2'))[0]).not.toBe(naa);
  });

  it('limits are in blocks', async () => {
    expect(decodeBlockLimits(await page(0xb0))).toMatchObject({
      maximumTransferLength: 32768,
      optimalTransferLengthGranularity: 8,
    });
    expect(decodeBlockLimits(await page(0xb0, { blockLength: 4096 }))).toMatchObject({
      maximumTransferLength: 4096,
      optimalTransferLengthGranularity: 1,
    });
  });

  it('a thin medium is told as one', async () => {
    expect(decodeThinProvisioning(await page(0xb2))).toMatchObject({
      unmap: true,
      writeSame16Unmap: true,
      readZeros: 1,
      provisioningType: 2,
    });
  });

  it('refuses a page that it has not, and a page without EVPD', async () => {
    const nexus = new LocalNexus(serve(unit(0)), 1);
    const pointer = { fieldPointer: { inCdb: true, byte: 2 } };
    expect(await nexus.run(inquiryCdb({ evpd: true, page: 0x84, length: 255 }))).toMatchObject(refusal(0x24, 0, pointer));
    expect(await nexus.run(inquiryCdb({ page: 0x80, length: 255 }))).toMatchObject(refusal(0x24, 0, pointer));
  });
});

describe('READ CAPACITY', () => {
  const capacity = async (size: number, blockLength: number) => {
    const nexus = new LocalNexus(serve(unit(0, { medium: new MemoryMedium(size), blockLength })), 1);
    await nexus.ready();
    const [ten, sixteen] = [await nexus.run(readCapacity10Cdb()), await nexus.run(readCapacity16Cdb())];
    return [decodeCapacity10(ten.data), decodeCapacity16(sixteen.data)];
  };

  it('of 512-byte blocks', async () => {
    const [ten, sixteen] = await capacity(1024 * 1024, 512);
    expect(ten).toMatchObject({ lastLba: 2047n, blockLength: 512 });
    expect(sixteen).toMatchObject({
      lastLba: 2047n,
      blockLength: 512,
      logicalBlocksPerPhysicalBlockExponent: 3,
      thin: true,
      readZeros: true,
    });
  });

  it('of 4096-byte blocks', async () => {
    const [ten, sixteen] = await capacity(1024 * 1024, 4096);
    expect(ten).toMatchObject({ lastLba: 255n, blockLength: 4096 });
    expect(sixteen).toMatchObject({ lastLba: 255n, blockLength: 4096, logicalBlocksPerPhysicalBlockExponent: 0 });
  });

  it('beyond 2 TiB: (10) says that it does not know', async () => {
    const [ten, sixteen] = await capacity(3 * 2 ** 40, 512);
    expect(ten?.lastLba).toBe(0xffff_ffffn);
    expect(sixteen?.lastLba).toBe(3n * 2n ** 31n - 1n);
  });

  it('of the largest medium there is', async () => {
    const [, sixteen] = await capacity(2 ** 53 - 512, 512);
    expect(sixteen?.lastLba).toBe(2n ** 44n - 2n);
  });
});

describe('reservations', () => {
  const reserve = encodeCdb('reserve-6');
  const release = encodeCdb('release-6');

  it('hold other nexuses off until they are released', async () => {
    const server = serve(unit(0));
    const [one, other] = [new LocalNexus(server, 1), new LocalNexus(server, 2)];
    await one.ready();
    await other.ready();
    expect(await one.run(reserve)).toMatchObject(good);
    expect(await one.run(tur)).toMatchObject(good);
    expect(await other.run(tur)).toMatchObject({ status: Status['reservation-conflict'] });
    expect(await other.run(reserve)).toMatchObject({ status: Status['reservation-conflict'] });
    expect(await other.run(inquiryCdb({ length: 36 }))).toMatchObject(good);
    expect(await other.run(release)).toMatchObject(good);
    expect(await other.run(tur)).toMatchObject({ status: Status['reservation-conflict'] });
    expect(await one.run(release)).toMatchObject(good);
    expect(await other.run(tur)).toMatchObject(good);
  });

  it.each(['nexus loss', 'logical unit reset'])('end with a %s', async (cause) => {
    const server = serve(unit(0));
    const [one, other] = [new LocalNexus(server, 1), new LocalNexus(server, 2)];
    await one.ready();
    await other.ready();
    await one.run(reserve);
    if (cause === 'nexus loss') one.lost();
    else await server.reset('logical-unit-reset', lunFromNumber(0), 2);
    expect(await other.run(tur)).toMatchObject(good);
  });
});

describe('START STOP UNIT', () => {
  it('a stopped unit is not ready until it is started', async () => {
    const nexus = new LocalNexus(serve(unit(0)), 1);
    await nexus.ready();
    expect(await nexus.run(encodeCdb('start-stop-unit', { start: false }))).toMatchObject(good);
    expect(await nexus.run(tur)).toMatchObject({ status: Status['check-condition'], sense: { key: 2, asc: 0x04, ascq: 0x02 } });
    expect(await nexus.run(encodeCdb('read-10', { blocks: 1 }))).toMatchObject({ sense: { key: 2 } });
    expect(await nexus.run(inquiryCdb({ length: 36 }))).toMatchObject(good);
    expect(await nexus.run(encodeCdb('start-stop-unit', { start: true }))).toMatchObject(good);
    expect(await nexus.run(tur)).toMatchObject(good);
  });

  it('stopping flushes, unless told not to', async () => {
    const medium = new FaultyMedium(new MemoryMedium(4096));
    const nexus = new LocalNexus(serve(unit(0, { medium })), 1);
    await nexus.ready();
    await nexus.run(encodeCdb('start-stop-unit', { noFlush: true }));
    expect(medium.calls).toEqual([]);
    await nexus.run(encodeCdb('start-stop-unit', {}));
    expect(medium.calls).toEqual(['flush']);
  });
});

describe('closing', () => {
  it('waits for the commands under way and closes every medium', async () => {
    let letGo = () => {};
    const gate = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const medium = new FaultyMedium(new MemoryMedium(4096));
    const server = serve(unit(0, { medium }));
    const nexus = new LocalNexus(server, 1);
    await nexus.ready();
    medium.delay = (call) => (call === 'read' ? gate : Promise.resolve());
    const events: string[] = [];
    const reading = nexus.run(encodeCdb('read-10', { blocks: 1 })).then(() => events.push('read'));
    const closing = server.close().then(() => events.push('closed'));
    await new Promise((resolve) => setImmediate(resolve));
    expect(events).toEqual([]);
    letGo();
    await Promise.all([reading, closing]);
    expect(events).toEqual(['read', 'closed']);
    expect(await nexus.run(tur)).toMatchObject(refusal(0x25, 0));
    await server.close();
  });
});

describe('a fault of the target itself', () => {
  it('is a hardware error for the initiator, and a line in the log', async () => {
    const lines: string[] = [];
    const server = new BlockDeviceServer({ units: [unit(0)], log: (line) => lines.push(line) });
    const nexus = new LocalNexus(server, 1);
    await nexus.ready();
    const outcome = await nexus.run(encodeCdb('read-10', { blocks: 1 }), {
      onTransfer: () => {
        throw new Error('the wire is on fire');
      },
    });
    expect(outcome).toMatchObject({ status: Status['check-condition'], sense: { key: 4, asc: 0x44, ascq: 0 } });
    expect(lines).toEqual(['READ(10) to LUN 0 failed: the wire is on fire']);
  });
});
