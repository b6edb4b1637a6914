import { describe, expect, it } from 'vitest';
import {
  decodeCachingPage,
  decodeControlPage,
  decodeModeParameters,
  encodeBlockDescriptor,
  encodeCachingPage,
  encodeControlPage,
  encodeLongBlockDescriptor,
  encodeModeParameters,
  ModePage,
} from '../../../src/scsi/mode.ts';
import { hex, hexVectors } from '../../support/hex-vectors.ts';

const tgtd = hexVectors('scsi-tgtd.hex');
const pageOf = (data: Uint8Array, format: 6 | 10, page: number) =>
  decodeModeParameters(data, format)?.pages.find((each) => each.page === page)?.body ?? new Uint8Array(0);

describe('mode parameters', () => {
  it.each([
    ['lun1 ms6 all', 6, false, 106],
    ['lun1 ms10 all', 10, false, 110],
    ['lun2 ms6 all', 6, true, 106],
    ['lun2 ms10 all', 10, true, 110],
  ] as const)('of tgtd: %s', (name, format, writeProtected, totalLength) => {
    const parameters = decodeModeParameters(tgtd(name), format);
    expect(parameters).toMatchObject({ mediumType: 0, writeProtected, dpoFua: true, longLba: false, totalLength });
    expect(parameters?.blockDescriptors).toEqual(hex('00000000 00000200'));
    // It begins with an empty page 00h.
    expect(parameters?.pages.map(({ page, subpage, body }) => [page, subpage, body.length])).toEqual([
      [0x00, 0, 0],
      [0x02, 0, 14],
      [0x08, 0, 18],
      [0x0a, 0, 10],
      [0x0a, 1, 28],
      [0x1c, 0, 10],
    ]);
    expect(decodeCachingPage(pageOf(tgtd(name), format, ModePage.caching))).toEqual({
      initiatorControl: false,
      writeCacheEnabled: true,
      readCacheDisabled: false,
      disableReadAhead: false,
      nonVolatileCacheDisabled: false,
    });
    expect(decodeControlPage(pageOf(tgtd(name), format, ModePage.control))).toMatchObject({
      descriptorSense: false,
      queueAlgorithmModifier: 1,
      softwareWriteProtect: false,
    });
  });

  it.each([
    ['lun1 ms6 all', 6],
    ['lun1 ms10 all', 10],
    ['lun1 ms6 caching dbd', 6],
  ] as const)('of tgtd: %s, encoded again', (name, format) => {
    const parameters = decodeModeParameters(tgtd(name), format);
    expect(parameters).toBeDefined();
    if (parameters !== undefined) expect(encodeModeParameters(parameters, format)).toEqual(tgtd(name));
  });

  it('cut off at every byte: whole pages only, and the length that was meant', () => {
    const whole = tgtd('lun1 ms6 all');
    const all = decodeModeParameters(whole, 6)?.pages.map(({ page }) => page) ?? [];
    for (let length = 0; length < whole.length; length++) {
      const parameters = decodeModeParameters(whole.subarray(0, length), 6);
      if (length < 4) {
        expect(parameters).toBeUndefined();
        continue;
      }
      expect(parameters?.totalLength).toBe(106);
      const pages = parameters?.pages.map(({ page }) => page) ?? [];
      expect(pages).toEqual(all.slice(0, pages.length));
      expect(pages.length).toBeLessThan(all.length);
    }
  });

  it('a block descriptor length beyond the data leaves no pages', () => {
    expect(decodeModeParameters(hex('0b 00 00 ff 00 00 00 00'), 6)?.pages).toEqual([]);
  });

  it('what does not fit the 6-byte format is refused', () => {
    const pages = [{ page: 0x0a, subpage: 1, body: new Uint8Array(300) }];
    expect(() => encodeModeParameters({ writeProtected: false, dpoFua: false, pages }, 6)).toThrow(RangeError);
    const data = encodeModeParameters({ writeProtected: false, dpoFua: false, pages }, 10);
    expect(data.subarray(0, 12)).toEqual(hex('0136 00 00 00 00 0000 4a 01 012c'));
    expect(decodeModeParameters(data, 10)?.pages[0]?.body.length).toBe(300);
  });

  it('block descriptors, short and long', () => {
    expect(encodeBlockDescriptor(2048, 512)).toEqual(hex('00000800 00000200'));
    expect(encodeBlockDescriptor(2 ** 33, 4096)).toEqual(hex('ffffffff 00001000'));
    expect(encodeLongBlockDescriptor(2 ** 33, 4096)).toEqual(hex('0000000200000000 00000000 00001000'));
  });

  it('the caching page after the figure in SBC-3', () => {
    const page = encodeCachingPage({ writeCacheEnabled: true, readCacheDisabled: true, disableReadAhead: true });
    expect(page.body).toEqual(hex('05 00 0000 0000 0000 0000 20 00 0000 00 000000'));
    expect(decodeCachingPage(hex('04 00 0000 0000 0000 0000')).writeCacheEnabled).toBe(true);
    expect(decodeCachingPage(new Uint8Array(0)).writeCacheEnabled).toBe(false);
  });

  it('the control page after the figure in SPC-4', () => {
    const page = encodeControlPage({
      descriptorSense: true,
      softwareWriteProtect: true,
      taskAbortedStatus: true,
      busyTimeoutPeriod: 0x102,
    });
    expect(page.body).toEqual(hex('04 00 08 40 0000 0102 0000'));
  });
});
