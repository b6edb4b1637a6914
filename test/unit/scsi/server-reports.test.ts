import { describe, expect, it } from 'vitest';
import { encodeCdb, modeSense6Cdb, modeSense10Cdb, testUnitReadyCdb } from '../../../src/scsi/cdb.ts';
import { BlockDeviceServer } from '../../../src/scsi/device-server.ts';
import { MemoryMedium } from '../../../src/scsi/memory-medium.ts';
import { decodeCachingPage, decodeControlPage, decodeModeParameters, ModePage } from '../../../src/scsi/mode.ts';
import type { ServedUnitOptions } from '../../../src/scsi/served-unit.ts';
import { Status } from '../../../src/scsi/status.ts';
import { FaultyMedium } from '../../support/faulty-medium.ts';
import { hex } from '../../support/hex-vectors.ts';
import { LocalNexus } from '../../support/local-nexus.ts';

const good = { status: Status.good };
const refusal = (asc: number, ascq: number, more = {}) => ({
  status: Status['check-condition'],
  sense: { key: 5, asc, ascq, ...more },
});
const inList = (byte: number, bit?: number) => ({
  fieldPointer: bit === undefined ? { inCdb: false, byte } : { inCdb: false, byte, bit },
});

async function setUp(options: Partial<ServedUnitOptions> & { isVolatile?: boolean; isThin?: boolean } = {}) {
  const { isVolatile = true, isThin = true } = options;
  const medium = new FaultyMedium(new MemoryMedium(1024 * 1024), { isVolatile, isThin });
  const server = new BlockDeviceServer({ units: [{ lun: 0, medium, blockLength: 512, serial: 's', ...options }] });
  const nexus = new LocalNexus(server, 1);
  await nexus.ready();
  return { medium, server, nexus };
}

describe('MODE SENSE', () => {
  it('(6): header, block descriptor, caching page, control page', async () => {
    const { nexus } = await setUp();
    const { data } = await nexus.run(modeSense6Cdb({ page: ModePage.all, length: 255, blockDescriptors: true }));
    // After SPC's and SBC's figures: DPOFUA, 2048 blocks of 512, WCE.
    expect(data).toEqual(
      hex(`2b 00 10 08 00 00 08 00 00 00 02 00
           08 12 04 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
           0a 0a 00 00 00 00 00 00 00 00 00 00`),
    );
  });

  it('(10): with a long block descriptor where it is accepted', async () => {
    const { nexus } = await setUp({ blockLength: 4096 });
    const cdb = encodeCdb('mode-sense-10', { page: 0x08, longLbaAccepted: true, allocationLength: 255 });
    const { data } = await nexus.run(cdb);
    expect(data.subarray(0, 24)).toEqual(hex('00 2a 00 10 01 00 00 10 00 00 00 00 00 00 01 00 00 00 00 00 00 00 10 00'));
  });

  it('says that the unit is write protected', async () => {
    const { nexus } = await setUp({ readOnly: true });
    const { data } = await nexus.run(modeSense10Cdb({ page: ModePage.all, length: 255 }));
    expect(decodeModeParameters(data, 10)).toMatchObject({ writeProtected: true, dpoFua: true });
  });

  it.each([
    ['by default, a volatile medium', {}, true],
    ['by default, another medium', { isVolatile: false }, false],
    ['off by option', { volatileCache: false }, false],
    ['on by option', { volatileCache: true, isVolatile: false }, true],
  ])('WCE: %s', async (_, options, expected) => {
    const { nexus } = await setUp(options);
    const { data } = await nexus.run(modeSense6Cdb({ page: ModePage.caching, length: 255 }));
    const page = decodeModeParameters(data, 6)?.pages[0];
    expect(decodeCachingPage(page?.body ?? new Uint8Array(0)).writeCacheEnabled).toBe(expected);
  });

  it('tells which fields can be changed', async () => {
    const { nexus } = await setUp();
    const { data } = await nexus.run(modeSense10Cdb({ page: ModePage.all, pageControl: 1, length: 255 }));
    const pages = decodeModeParameters(data, 10)?.pages ?? [];
    expect(pages.map(({ page, body }) => [page, ...body].join(' '))).toEqual([
      '8 4 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0',
      '10 4 0 8 0 0 0 0 0 0 0',
    ]);
  });

  it.each([
    [
      'a page that is not there',
      { page: 0x1c, length: 255 },
      refusal(0x24, 0, { fieldPointer: { inCdb: true, byte: 2, bit: 5 } }),
    ],
    ['a subpage', { page: 0x0a, subpage: 1, length: 255 }, refusal(0x24, 0, { fieldPointer: { inCdb: true, byte: 3 } })],
    ['saved values', { page: 0x08, pageControl: 3, length: 255 }, refusal(0x39, 0)],
  ])('refuses %s', async (_, options, expected) => {
    const { nexus } = await setUp();
    expect(await nexus.run(modeSense6Cdb(options))).toMatchObject(expected);
  });
});

describe('MODE SELECT', () => {
  const select = (nexus: LocalNexus, list: string | Uint8Array, size: 6 | 10 = 6) => {
    const dataOut = typeof list === 'string' ? hex(list) : list;
    const values = { pageFormat: true, parameterListLength: dataOut.length };
    return nexus.run(size === 6 ? encodeCdb('mode-select-6', values) : encodeCdb('mode-select-10', values), { dataOut });
  };
  const caching = (flags: string) => `08 12 ${flags} 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00`;

  it.each([
    [6, `00 00 00 00 ${caching('00')}`],
    [10, `00 00 00 00 00 00 00 00 ${caching('00')}`],
    [6, `00 00 00 08 00 00 08 00 00 00 02 00 ${caching('00')}`],
  ] as const)('(%d) turns the write cache off: what is in it is flushed, and writes are forced', async (size, list) => {
    const { nexus, medium } = await setUp();
    expect(await select(nexus, list, size)).toMatchObject(good);
    expect(await nexus.run(encodeCdb('write-10', { blocks: 1 }), { dataOut: new Uint8Array(512) })).toMatchObject(good);
    expect(medium.calls).toEqual(['flush', 'write 0+512 fua']);
  });

  it('that turns the write cache off waits for the writes under way: none of them is left in it', async () => {
    const { nexus, medium } = await setUp();
    let open = () => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    medium.delay = (call) => (call === 'write' ? gate : Promise.resolve());
    const write = (lba: number) => nexus.run(encodeCdb('write-10', { lba, blocks: 1 }), { dataOut: new Uint8Array(512) });
    const before = write(0);
    const selecting = select(nexus, `00 00 00 00 ${caching('00')}`);
    await new Promise((resolve) => setImmediate(resolve));
    const after = write(1);
    await new Promise((resolve) => setImmediate(resolve));
    expect(medium.calls).toEqual(['write 0+512']);
    open();
    expect(await Promise.all([before, selecting, after])).toMatchObject([good, good, good]);
    expect(medium.calls).toEqual(['write 0+512', 'flush', 'write 512+512 fua']);
  });

  it('that turns the write cache on is undone by a reset, which flushes what went into it', async () => {
    const { server, nexus, medium } = await setUp({ volatileCache: false });
    await select(nexus, `00 00 00 00 ${caching('04')}`);
    await nexus.run(encodeCdb('write-10', { blocks: 1 }), { dataOut: new Uint8Array(512) });
    await server.reset('target-warm-reset', 0n, 1);
    expect(medium.calls).toEqual(['write 0+512', 'flush']);
    expect(server.unit(0)?.writeCacheEnabled).toBe(false);
  });

  it('is told to the other nexuses alone, and only if it changed something', async () => {
    const { server, nexus } = await setUp();
    const other = new LocalNexus(server, 2);
    await other.ready();
    await select(nexus, `00 00 00 00 ${caching('04')}`);
    expect(await other.run(testUnitReadyCdb())).toMatchObject(good);
    await select(nexus, `00 00 00 00 ${caching('00')}`);
    expect(await nexus.run(testUnitReadyCdb())).toMatchObject(good);
    expect(await other.run(testUnitReadyCdb())).toMatchObject({ sense: { key: 6, asc: 0x2a, ascq: 0x01 } });
  });

  it('sets software write protect and descriptor sense, until the unit is reset', async () => {
    const { server, nexus } = await setUp();
    await select(nexus, '00 00 00 00 0a 0a 04 00 08 00 00 00 00 00 00 00');
    const { data } = await nexus.run(modeSense6Cdb({ page: ModePage.control, length: 255 }));
    const parameters = decodeModeParameters(data, 6);
    expect(parameters?.writeProtected).toBe(true);
    expect(decodeControlPage(parameters?.pages[0]?.body ?? new Uint8Array(0))).toMatchObject({
      softwareWriteProtect: true,
      descriptorSense: true,
    });
    const write = () => nexus.run(encodeCdb('write-10', { blocks: 1 }), { dataOut: new Uint8Array(512) });
    expect(await write()).toMatchObject({ sense: { key: 7, asc: 0x27, ascq: 0, descriptorFormat: true } });
    await server.reset('logical-unit-reset', 0n, 1);
    expect(await write()).toMatchObject(good);
  });

  it.each([
    ['a field that cannot be changed', `00 00 00 00 ${caching('05')}`, refusal(0x26, 0, inList(6, 0))],
    ['a page that is not there', '00 00 00 00 1c 02 00 00', refusal(0x26, 0, inList(4, 5))],
    ['a page of another length', '00 00 00 00 08 0a 04 00 00 00 00 00 00 00 00 00', refusal(0x26, 0, inList(5))],
    ['a page that is cut off', '00 00 00 00 08 12 04 00', refusal(0x1a, 0)],
    ['a header that is cut off', '00 00', refusal(0x1a, 0)],
    ['another medium type', '00 01 00 00', refusal(0x26, 0, inList(1))],
    ['another block length', '00 00 00 08 00 00 08 00 00 00 10 00', refusal(0x26, 0, inList(9))],
  ])('refuses %s, and changes nothing', async (_, list, expected) => {
    const { server, nexus } = await setUp();
    expect(await select(nexus, list)).toMatchObject(expected);
    expect(server.unit(0)?.writeCacheEnabled).toBe(true);
  });

  it('changes nothing where a later page is wrong', async () => {
    const { server, nexus } = await setUp();
    expect(await select(nexus, `00 00 00 00 ${caching('00')} 1c 00`)).toMatchObject(refusal(0x26, 0, inList(24, 5)));
    expect(server.unit(0)?.writeCacheEnabled).toBe(true);
  });

  it('refuses to save, and pages without page format', async () => {
    const { nexus } = await setUp();
    expect(await nexus.run(encodeCdb('mode-select-6', { pageFormat: true, savePages: true }))).toMatchObject(refusal(0x24, 0));
    expect(await nexus.run(encodeCdb('mode-select-6', {}))).toMatchObject(refusal(0x24, 0));
    expect(await nexus.run(encodeCdb('mode-select-10', { pageFormat: true }))).toMatchObject(good);
  });
});

describe('REPORT SUPPORTED OPERATION CODES', () => {
  const ask = async (values: {
    reportingOptions: number;
    requestedOpcode?: number;
    requestedServiceAction?: number;
    returnTimeouts?: boolean;
  }) => {
    const { nexus } = await setUp();
    return nexus.run(encodeCdb('report-supported-operation-codes', { ...values, allocationLength: 8192 }));
  };

  it('one command', async () => {
    const { data } = await ask({ reportingOptions: 1, requestedOpcode: 0x2a });
    // WRITE(10) after SBC's figure: protection, DPO, FUA, LBA, group number, transfer length, NACA.
    expect(data).toEqual(hex('00 03 00 0a 2a f8 ff ff ff ff 1f ff ff 04'));
  });

  it('one command with a service action', async () => {
    const { data } = await ask({ reportingOptions: 2, requestedOpcode: 0x9e, requestedServiceAction: 0x10 });
    expect(data).toEqual(hex('00 03 00 10 9e 10 ff ff ff ff ff ff ff ff ff ff ff ff 01 04'));
  });

  it('with timeouts', async () => {
    const { data } = await ask({ reportingOptions: 1, requestedOpcode: 0x00, returnTimeouts: true });
    expect(data).toEqual(hex('00 83 00 06 00 00 00 00 00 04 00 0a 00 00 00 00 00 00 00 00 00 00'));
  });

  it.each([
    ['a command that is not there', { reportingOptions: 1, requestedOpcode: 0x5e }],
    ['a service action that is not there', { reportingOptions: 2, requestedOpcode: 0x9e, requestedServiceAction: 0x1f }],
    [
      'a service action of a command without any, asked for either way',
      { reportingOptions: 3, requestedOpcode: 0x5f, requestedServiceAction: 1 },
    ],
  ])('%s', async (_, values) => {
    const { data } = await ask(values);
    expect(data).toEqual(hex('00 01 00 00'));
  });

  it.each([
    ['an operation code with service actions, without one', { reportingOptions: 1, requestedOpcode: 0x9e }],
    ['a service action of an operation code without any', { reportingOptions: 2, requestedOpcode: 0x2a }],
    ['reporting option 4', { reportingOptions: 4 }],
  ])('refuses %s', async (_, values) => {
    expect(await ask(values)).toMatchObject(refusal(0x24, 0, { fieldPointer: { inCdb: true, byte: 2, bit: 2 } }));
  });

  it('all commands: each that is listed is executed or refused for another reason than its code', async () => {
    const { nexus } = await setUp();
    const { data } = await ask({ reportingOptions: 0 });
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    expect(view.getUint32(0)).toBe(data.length - 4);
    const seen: string[] = [];
    for (let offset = 4; offset < data.length; offset += 8) {
      const cdb = new Uint8Array(view.getUint16(offset + 6));
      cdb[0] = view.getUint8(offset);
      if ((view.getUint8(offset + 5) & 1) !== 0) cdb[1] = view.getUint16(offset + 2);
      seen.push(`${cdb[0].toString(16)}/${cdb[1]}`);
      const { sense } = await nexus.run(cdb, { dataOut: new Uint8Array(0) }).catch(() => ({ sense: undefined }));
      expect(sense?.asc).not.toBe(0x20);
    }
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen).toEqual(expect.arrayContaining(['0/0', '12/0', '28/0', '42/0', '88/0', '9e/16', '9e/18', 'a0/0', 'a3/12']));
  });

  it('leaves out what the medium cannot do, and refuses it', async () => {
    const { nexus } = await setUp({ isThin: false });
    for (const [opcode, action] of [
      [0x42, 0],
      [0x9e, 0x12],
    ] as const) {
      const cdb = encodeCdb('report-supported-operation-codes', {
        reportingOptions: 3,
        requestedOpcode: opcode,
        requestedServiceAction: action,
        allocationLength: 64,
      });
      expect((await nexus.run(cdb)).data).toEqual(hex('00 01 00 00'));
    }
    expect(await nexus.run(encodeCdb('unmap', { parameterListLength: 8 }), { dataOut: new Uint8Array(8) })).toMatchObject(
      refusal(0x20, 0),
    );
  });
});

describe('REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS', () => {
  it('ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET RESET', async () => {
    const { nexus } = await setUp();
    const { data } = await nexus.run(encodeCdb('report-supported-task-management-functions', { allocationLength: 16 }));
    expect(data).toEqual(hex('da 00 00 00'));
  });
});
