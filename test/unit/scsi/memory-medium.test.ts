import { describe, expect, it } from 'vitest';
import { MemoryMedium } from '../../../src/scsi/memory-medium.ts';
import { mediumContract } from '../../support/medium-contract.ts';

describe('memory medium', () => {
  mediumContract(async (size) => new MemoryMedium(size));

  it('of the largest size there is takes memory only for what is written', async () => {
    const size = 2 ** 53 - 1;
    const medium = new MemoryMedium(size);
    await medium.write(size - 1, Uint8Array.of(7));
    await medium.write(2 ** 41, Uint8Array.of(8));
    const byte = new Uint8Array(1);
    await medium.read(size - 1, byte);
    expect(byte[0]).toBe(7);
    expect(medium.allocated).toBe(512 * 1024);
  });

  it('gives memory back for whole chunks that are discarded, and zeroes the rest', async () => {
    const medium = new MemoryMedium(2 ** 52);
    await medium.write(0, new Uint8Array(1024 * 1024).fill(1));
    await medium.discard(100, 2 ** 52 - 100);
    expect(medium.allocated).toBe(256 * 1024);
    const data = new Uint8Array(101);
    await medium.read(0, data);
    expect([data[99], data[100]]).toEqual([1, 0]);
  });

  it('knows its holes', async () => {
    const medium = new MemoryMedium(1024 * 1024);
    await medium.write(256 * 1024, new Uint8Array(512));
    expect(await medium.extentAt(10, 1024 * 1024 - 10)).toEqual({ length: 256 * 1024 - 10, mapped: false });
    expect(await medium.extentAt(256 * 1024, 768 * 1024)).toEqual({ length: 256 * 1024, mapped: true });
    expect(await medium.extentAt(512 * 1024, 512 * 1024)).toEqual({ length: 512 * 1024, mapped: false });
    expect(await medium.extentAt(0, 100)).toEqual({ length: 100, mapped: false });
  });

  it('lends what was written from where it lies, a chunk at most, and no hole', async () => {
    const medium = new MemoryMedium(1024 * 1024);
    await medium.write(256 * 1024 - 2, Uint8Array.of(1, 2, 3));
    expect(medium.lend(256 * 1024 - 2, 100)).toEqual(Uint8Array.of(1, 2));
    expect(medium.lend(256 * 1024, 1)).toEqual(Uint8Array.of(3));
    expect(medium.lend(512 * 1024, 1)).toBeUndefined();
    expect(medium.lend(256 * 1024, 1024 * 1024)).toBeUndefined();
  });

  it('with a source of memory has its chunks there, and gives them back', async () => {
    const arenas = new Set<ArrayBuffer>();
    const medium = new MemoryMedium(1024 * 1024, {
      allocate: (length) => {
        const arena = new ArrayBuffer(length);
        arenas.add(arena);
        return arena;
      },
      free: (arena) => void arenas.delete(arena),
    });
    await medium.write(0, new Uint8Array(1024 * 1024).fill(1));
    expect(arenas.size).toBe(4);
    expect(arenas.has(medium.lend(0, 1)?.buffer as ArrayBuffer)).toBe(true);
    await medium.discard(0, 512 * 1024);
    expect(arenas.size).toBe(2);
    await medium.close();
    expect(arenas.size).toBe(0);
  });

  it.each([-1, 0.5, 2 ** 53, Number.NaN])('has no size of %d', (size) => {
    expect(() => new MemoryMedium(size)).toThrow(expect.objectContaining({ code: 'bad-configuration' }) as Error);
  });
});
