import { describe, expect, it } from 'vitest';
import { formatDuration, formatSize, parseDuration, parseSize } from '../../../src/config/quantity.ts';

describe('sizes', () => {
  it.each([
    ['0', 0],
    ['512', 512],
    ['64M', 67_108_864],
    ['64m', 67_108_864],
    ['1.5G', 1_610_612_736],
    ['3T', 3_298_534_883_328],
    ['4KiB', 4096],
    ['4 kB', 4096],
    ['17B', 17],
  ])('%s is %d bytes', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it.each(['', 'M', '-1', '1X', '1.3', '0x10', '1M2', '99999999T', '1e3'])('"%s" is none', (text) => {
    expect(parseSize(text)).toBeUndefined();
  });

  it.each([
    [0, '0 bytes'],
    [513, '513 bytes'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [100 * 2 ** 20, '100 MiB'],
    [3 * 2 ** 40, '3 TiB'],
    [2 ** 30 + 2 ** 20, '1 GiB'],
  ])('%d bytes read as %s', (bytes, text) => {
    expect(formatSize(bytes)).toBe(text);
  });
});

describe('times', () => {
  it.each([
    ['500ms', 500],
    ['30', 30_000],
    ['30s', 30_000],
    ['2m', 120_000],
    ['2 min', 120_000],
    ['1.5h', 5_400_000],
    ['1d', 86_400_000],
  ])('%s is %d ms', (text, milliseconds) => {
    expect(parseDuration(text)).toBe(milliseconds);
  });

  it.each(['', 's', '-5s', '1w', '25d', 'forever'])('"%s" is none', (text) => {
    expect(parseDuration(text)).toBeUndefined();
  });

  it.each([
    [0.4, '0 ms'],
    [250, '250 ms'],
    [5000, '5 s'],
    [5250, '5.2 s'],
    [125_000, '2 min 5 s'],
    [3_600_000, '1 h'],
    [(3 * 24 + 4) * 3_600_000 + 120_000, '3 d 4 h'],
  ])('%d ms read as %s', (milliseconds, text) => {
    expect(formatDuration(milliseconds)).toBe(text);
  });
});
