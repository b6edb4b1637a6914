import { describe, expect, it } from 'vitest';
import { crc32cByTable } from '../../src/iser/iscsi/digest.ts';
import { nativeCrc32c } from '../../src/iser/rdma/addon.ts';
import { SeededRandom } from '../support/seeded-random.ts';

describe('the addon as a source of digests', () => {
  it('agrees with the tables at every alignment, in one piece and in several', () => {
    const native = nativeCrc32c();
    if (native === undefined) throw new Error('the addon does not load');
    const random = new SeededRandom(7);
    const buffer = random.bytes(70_000);
    for (let round = 0; round < 200; round++) {
      const start = random.between(0, 20);
      const data = buffer.subarray(start, start + random.between(0, 65_000));
      const cut = random.between(0, data.length);
      const expected = crc32cByTable(data);
      expect(native(data, 0)).toBe(expected);
      expect(native(data.subarray(cut), native(data.subarray(0, cut), 0))).toBe(expected);
    }
  });

  it('refuses what are no bytes', () => {
    expect(() => nativeCrc32c()?.('abc' as unknown as Uint8Array, 0)).toThrow(TypeError);
  });
});
