import { describe, expect, it } from 'vitest';
import {
  Association,
  CodeSet,
  DesignatorType,
  decodeBlockCharacteristics,
  decodeBlockLimits,
  decodeDeviceIdentification,
  decodeStandardInquiry,
  decodeSupportedPages,
  decodeThinProvisioning,
  decodeUnitSerialNumber,
  decodeVpdPage,
  designatorText,
  encodeBlockCharacteristics,
  encodeBlockLimits,
  encodeDeviceIdentification,
  encodeStandardInquiry,
  encodeSupportedPages,
  encodeThinProvisioning,
  encodeUnitSerialNumber,
  encodeVpdPage,
} from '../../../src/scsi/inquiry.ts';
import { hex, hexVectors } from '../../support/hex-vectors.ts';

const tgtd = hexVectors('scsi-tgtd.hex');
const ascii = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));

describe('standard INQUIRY data', () => {
  it('of a disk of tgtd', () => {
    expect(decodeStandardInquiry(tgtd('lun1 inquiry'))).toEqual({
      peripheralQualifier: 0,
      deviceType: 0,
      removable: false,
      version: 5,
      protection: false,
      commandQueuing: true,
      vendor: 'IET',
      product: 'VIRTUAL-DISK',
      revision: '0001',
      versionDescriptors: [0x04c0, 0x0960, 0x0300],
    });
  });

  it('of its controller, and of a LUN that is not there', () => {
    expect(decodeStandardInquiry(tgtd('controller inquiry'))).toMatchObject({ peripheralQualifier: 0, deviceType: 0x0c });
    expect(decodeStandardInquiry(tgtd('absent inquiry'))).toMatchObject({ peripheralQualifier: 3, deviceType: 0x1f });
  });

  it('cut off at every byte: nothing throws, nothing is invented', () => {
    const whole = tgtd('lun1 inquiry');
    for (let length = 0; length < whole.length; length++) {
      const inquiry = decodeStandardInquiry(whole.subarray(0, length));
      expect('VIRTUAL-DISK'.startsWith(inquiry.product)).toBe(true);
      expect(inquiry.versionDescriptors.length).toBeLessThanOrEqual(3);
    }
  });

  it('after the figure in SPC-4', () => {
    const data = encodeStandardInquiry({
      peripheralQualifier: 0,
      deviceType: 0,
      removable: true,
      version: 6,
      protection: false,
      commandQueuing: true,
      vendor: 'AB',
      product: 'CD',
      revision: 'E',
      versionDescriptors: [0x0460],
    });
    expect(data.length).toBe(96);
    expect(data.subarray(0, 36)).toEqual(
      Uint8Array.of(0x00, 0x80, 0x06, 0x12, 0x5b, 0x00, 0x00, 0x02, ...ascii('AB      CD              E   ')),
    );
    expect(data.subarray(58, 62)).toEqual(hex('04 60 00 00'));
  });

  it('what is too long is refused', () => {
    const inquiry = decodeStandardInquiry(tgtd('lun1 inquiry'));
    expect(() => encodeStandardInquiry({ ...inquiry, vendor: 'TOO LONG!' })).toThrow(RangeError);
    expect(() => encodeStandardInquiry({ ...inquiry, versionDescriptors: new Array(9).fill(1) })).toThrow(RangeError);
  });
});

describe('VPD pages', () => {
  const body = (name: string) => decodeVpdPage(tgtd(name)).body;

  it('00h: which pages there are', () => {
    expect(decodeSupportedPages(body('lun1 inquiry vpd 00'))).toEqual([0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
    expect(encodeVpdPage(0, encodeSupportedPages([0x83, 0x00, 0xb0, 0x80, 0xb1, 0xb2]))).toEqual(tgtd('lun1 inquiry vpd 00'));
  });

  it('the length of the whole page is known from its start', () => {
    const page = decodeVpdPage(tgtd('lun1 inquiry vpd 83').subarray(0, 12));
    expect(page).toMatchObject({ page: 0x83, totalLength: 76 });
    expect(page.body.length).toBe(8);
    expect(decodeVpdPage(hex('00'))).toMatchObject({ page: 0, totalLength: 4, body: new Uint8Array(0) });
  });

  it('80h: a serial number, without the blanks that tgtd puts before it', () => {
    expect(decodeUnitSerialNumber(body('lun1 inquiry vpd 80'))).toBe('beaf11');
    expect(decodeUnitSerialNumber(ascii('abc\0\0'))).toBe('abc');
    expect(encodeVpdPage(0x80, encodeUnitSerialNumber('x1'))).toEqual(hex('00 80 00 02 78 31'));
  });

  it('83h of tgtd', () => {
    const designators = decodeDeviceIdentification(body('lun1 inquiry vpd 83'));
    expect(designators.map((each) => [each.type, each.association, each.codeSet])).toEqual([
      [DesignatorType['t10-vendor'], Association['logical-unit'], CodeSet.ascii],
      [DesignatorType.naa, Association['logical-unit'], CodeSet.binary],
      [DesignatorType.naa, Association['logical-unit'], CodeSet.binary],
    ]);
    expect(designators.map(designatorText)).toEqual([
      't10.IET     00010001',
      'naa.3000000100000001',
      'naa.60000000000000000e00000000010001',
    ]);
    expect(encodeVpdPage(0x83, encodeDeviceIdentification(designators))).toEqual(tgtd('lun1 inquiry vpd 83'));
  });

  it('83h cut off at every byte: whole designators only', () => {
    const whole = body('lun1 inquiry vpd 83');
    const all = decodeDeviceIdentification(whole).map(designatorText);
    for (let length = 0; length < whole.length; length++) {
      const some = decodeDeviceIdentification(whole.subarray(0, length)).map(designatorText);
      expect(some).toEqual(all.slice(0, some.length));
      expect(some.length).toBeLessThan(all.length);
    }
  });

  it.each([
    ['EUI-64', { type: 2, codeSet: 1, value: hex('0011223344556677') }, 'eui.0011223344556677'],
    ['SCSI name', { type: 8, codeSet: 3, value: ascii('iqn.2024-01.example:x,t,0x0001\0\0') }, 'iqn.2024-01.example:x,t,0x0001'],
    [
      'UUID',
      { type: 10, codeSet: 1, value: hex('1000 0123456789abcdef0123456789abcdef') },
      'uuid.0123456789abcdef0123456789abcdef',
    ],
    ['relative target port', { type: 4, codeSet: 1, value: hex('00000102') }, 'relative-target-port.258'],
    ['target port group', { type: 5, codeSet: 1, value: hex('00000001') }, 'target-port-group.1'],
    ['vendor specific text', { type: 0, codeSet: 2, value: ascii('disk 7') }, 'vendor.disk 7'],
    ['vendor specific bytes', { type: 0, codeSet: 1, value: hex('00ff0a') }, 'vendor.00ff0a'],
    ['text with a line feed', { type: 8, codeSet: 3, value: ascii('a\nb') }, '610a62'],
    ['a type that is unknown', { type: 0xc, codeSet: 1, value: hex('01') }, 'type-c.01'],
  ])('a designator in words: %s', (_, designator, text) => {
    expect(designatorText({ association: 0, ...designator })).toBe(text);
  });

  it('83h: the protocol counts where it is valid', () => {
    const designators = decodeDeviceIdentification(hex('51 98 00 01 41 51 18 00 01 42'));
    expect(designators.map(({ protocol }) => protocol)).toEqual([5, undefined]);
  });

  it('B0h of tgtd, thin and not', () => {
    expect(decodeBlockLimits(body('lun2 inquiry vpd b0'))).toMatchObject({
      maximumCompareAndWriteLength: 128,
      maximumTransferLength: 0,
      optimalTransferLength: 0,
      maximumUnmapLbaCount: 0xffff_ffff,
      maximumUnmapDescriptorCount: 0xffff_ffff,
      unmapGranularityAlignment: undefined,
      maximumWriteSameLength: 0,
    });
    expect(decodeBlockLimits(body('lun1 inquiry vpd b0'))).toMatchObject({ maximumUnmapLbaCount: 0 });
  });

  it('B0h after the figure in SBC-3', () => {
    const bytes = hex(`
      01 02 0003 00000004 00000005 00000006 00000007 00000008 00000009 80000002 000000000000000a
      0000000000000000 0000000000000000 00000000`);
    const limits = {
      writeSameNonZero: true,
      maximumCompareAndWriteLength: 2,
      optimalTransferLengthGranularity: 3,
      maximumTransferLength: 4,
      optimalTransferLength: 5,
      maximumPrefetchLength: 6,
      maximumUnmapLbaCount: 7,
      maximumUnmapDescriptorCount: 8,
      optimalUnmapGranularity: 9,
      unmapGranularityAlignment: 2,
      maximumWriteSameLength: 10,
    };
    expect(decodeBlockLimits(bytes)).toEqual(limits);
    expect(encodeBlockLimits(limits)).toEqual(bytes);
  });

  it('B0h of 12 bytes, as SBC-2 has it', () => {
    expect(decodeBlockLimits(hex('00 00 0008 00000400 00000080'))).toMatchObject({
      optimalTransferLengthGranularity: 8,
      maximumTransferLength: 1024,
      optimalTransferLength: 128,
      maximumUnmapLbaCount: 0,
    });
  });

  it('B1h', () => {
    expect(decodeBlockCharacteristics(body('lun1 inquiry vpd b1'))).toEqual({
      rotationRate: 0,
      productType: 0,
      nominalFormFactor: 0,
    });
    const bytes = encodeBlockCharacteristics({ rotationRate: 7200, productType: 1, nominalFormFactor: 2 });
    expect(bytes.subarray(0, 5)).toEqual(hex('1c20 01 02 00'));
    expect(bytes.length).toBe(60);
    expect(decodeBlockCharacteristics(bytes.subarray(0, 2))).toEqual({
      rotationRate: 7200,
      productType: 0,
      nominalFormFactor: 0,
    });
  });

  it('B2h of tgtd, thin: E4h is LBPU, LBPWS, LBPWS10 and LBPRZ', () => {
    const thin = {
      unmap: true,
      writeSame16Unmap: true,
      writeSame10Unmap: true,
      readZeros: 1,
      anchor: false,
      provisioningType: 2,
      thresholdExponent: 0,
    };
    expect(decodeThinProvisioning(body('lun2 inquiry vpd b2'))).toEqual(thin);
    expect(encodeVpdPage(0xb2, encodeThinProvisioning(thin))).toEqual(tgtd('lun2 inquiry vpd b2'));
    expect(decodeThinProvisioning(body('lun1 inquiry vpd b2'))).toMatchObject({ unmap: false, provisioningType: 0 });
  });
});
