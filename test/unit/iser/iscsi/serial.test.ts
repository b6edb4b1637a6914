import { describe, expect, it } from 'vitest';
import { serialAdd, serialLess, serialLessOrEqual } from '../../../../src/iser/iscsi/serial.ts';
import { SeededRandom } from '../../../support/seeded-random.ts';

describe('serial numbers', () => {
  it.each([
    [0, 1, true],
    [1, 0, false],
    [5, 5, false],
    [0xffffffff, 0, true],
    [0, 0xffffffff, false],
    [0xffffff00, 0x100, true],
    [0, 0x7fffffff, true],
    [0x7fffffff, 0, false],
    [0x80000001, 0, true],
  ])('%i before %i: %s', (a, b, expected) => {
    expect(serialLess(a, b)).toBe(expected);
    expect(serialLessOrEqual(a, b)).toBe(expected || a === b);
  });

  it('orders neither of two numbers that are 2^31 apart', () => {
    expect(serialLess(0, 0x80000000)).toBe(false);
    expect(serialLess(0x80000000, 0)).toBe(false);
    expect(serialLessOrEqual(0x12345678, 0x92345678)).toBe(false);
  });

  it('wraps when it adds, in both directions', () => {
    expect(serialAdd(0xffffffff, 1)).toBe(0);
    expect(serialAdd(0, -1)).toBe(0xffffffff);
    expect(serialAdd(0xfffffff0, 0x20)).toBe(0x10);
  });

  it('agrees with RFC 1982 wherever two numbers lie', () => {
    const random = new SeededRandom(1982);
    for (let round = 0; round < 5000; round++) {
      const a = random.between(0, 0xffffffff);
      const n = random.between(1, 0x7fffffff);
      const later = serialAdd(a, n);
      expect(serialLess(a, later)).toBe(true);
      expect(serialLess(later, a)).toBe(false);
      expect(serialAdd(later, -n)).toBe(a);
    }
  });
});
