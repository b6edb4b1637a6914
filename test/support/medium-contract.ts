/** What every `Medium` keeps to. A test file calls it with the means to make one. */

import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Medium } from '../../src/scsi/medium.ts';
import { assertSameBytes, offsetPattern } from './pattern.ts';
import { SeededRandom } from './seeded-random.ts';

const SIZE = 1024 * 1024;

/** `make` gives a new, empty, writable medium of that size; `remove` is called when the test is over. */
export function mediumContract(make: (size: number) => Promise<Medium>, remove: () => Promise<void> = async () => {}): void {
  let medium: Medium;

  beforeEach(async () => {
    medium = await make(SIZE);
  });

  afterEach(async () => {
    await medium.close();
    await remove();
  });

  const contents = async () => {
    const data = new Uint8Array(medium.size).fill(0xee);
    await medium.read(0, data);
    return data;
  };

  it('reads as zeros where nothing was written', async () => {
    expect((await contents()).every((byte) => byte === 0)).toBe(true);
  });

  it('keeps what was written, up to its last byte', async () => {
    await medium.write(SIZE - 5000, offsetPattern(0, 5000));
    const data = await contents();
    assertSameBytes(data.subarray(SIZE - 5000), offsetPattern(0, 5000));
    expect(data.subarray(0, SIZE - 5000).every((byte) => byte === 0)).toBe(true);
  });

  it('does not keep the memory that it was lent', async () => {
    const lent = new Uint8Array(512).fill(1);
    await medium.write(0, lent);
    lent.fill(2);
    expect((await contents())[0]).toBe(1);
  });

  it.each([
    [SIZE, 1],
    [SIZE - 1, 2],
    [-1, 1],
  ])('refuses %d + %d', async (offset, length) => {
    const range = { code: 'out-of-range' };
    await expect(medium.read(offset, new Uint8Array(length))).rejects.toMatchObject(range);
    await expect(medium.write(offset, new Uint8Array(length))).rejects.toMatchObject(range);
    await expect(medium.discard(offset, length)).rejects.toMatchObject(range);
  });

  it('random writes, discards and reads agree with a plain array', async () => {
    const model = new Uint8Array(SIZE);
    const random = new SeededRandom(23);
    for (let round = 0; round < 250; round++) {
      const offset = random.below(SIZE);
      const length = random.between(1, Math.min(300_000, SIZE - offset));
      const action = random.below(8);
      if (action < 3) {
        const data = random.bytes(Math.min(length, 20_000));
        await medium.write(offset, data, { fua: action === 0 });
        model.set(data, offset);
      } else if (action === 3 && round % 4 === 0) {
        await medium.discard(offset, length);
        model.fill(0, offset, offset + length);
      } else if (action === 4) {
        await medium.flush();
      } else {
        const data = new Uint8Array(length);
        await medium.read(offset, data);
        assertSameBytes(data, model.subarray(offset, offset + length), offset);
      }
    }
    assertSameBytes(await contents(), model);
  });

  it('grows with zeros, and forgets what a smaller size cuts off', async () => {
    await medium.write(0, new Uint8Array(SIZE).fill(1));
    await medium.resize(4096);
    expect(medium.size).toBe(4096);
    await expect(medium.read(4096, new Uint8Array(1))).rejects.toMatchObject({ code: 'out-of-range' });
    await medium.resize(8192);
    const data = await contents();
    expect([data[4095], data[4096], data[8191]]).toEqual([1, 0, 0]);
  });

  it('can be closed twice', async () => {
    await medium.close();
    await medium.close();
  });
}
