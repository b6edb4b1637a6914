import { closeSync, openSync, truncateSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import { nativeSeek, type SeekFile } from '../../src/iser/rdma/addon.ts';
import { FileMedium } from '../../src/scsi/file-medium.ts';
import { MiB, Workdir } from '../support/workdir.ts';

const { errno } = constants;
const TiB = 2 ** 40;

function seekOf(): SeekFile {
  const seek = nativeSeek();
  if (seek === undefined) throw new Error('the addon does not load');
  return seek;
}

/** Sparse, of `size`, with a MiB of data at each of `places`. */
function sparseFile(dir: Workdir, size: number, places: readonly number[]): string {
  const path = dir.sparseFile('disk', size);
  const descriptor = openSync(path, 'r+');
  for (const place of places) writeSync(descriptor, new Uint8Array(MiB).fill(1), 0, MiB, place);
  closeSync(descriptor);
  return path;
}

/** All extents of the medium, as [offset, length, mapped]. */
async function extentsOf(medium: FileMedium): Promise<unknown[]> {
  const extents: unknown[] = [];
  for (let offset = 0; offset < medium.size; ) {
    const { length, mapped } = await medium.extentAt(offset, medium.size - offset);
    extents.push([offset, length, mapped]);
    offset += length;
  }
  return extents;
}

describe('the addon as one who knows holes', () => {
  it('finds data and holes of a file, beyond 4 GiB as well', async () => {
    await using dir = Workdir.create();
    const seek = seekOf();
    const descriptor = openSync(sparseFile(dir, 3 * TiB, [MiB, 2 * TiB]), 'r');
    expect(await seek(descriptor, 0, true)).toBe(0);
    expect(await seek(descriptor, 0, false)).toBe(MiB);
    expect(await seek(descriptor, MiB + 5, false)).toBe(MiB + 5);
    expect(await seek(descriptor, MiB, true)).toBe(2 * MiB);
    expect(await seek(descriptor, 2 * MiB, false)).toBe(2 * TiB);
    expect(await seek(descriptor, 2 * TiB, true)).toBe(2 * TiB + MiB);
    expect(await seek(descriptor, 2 * TiB + MiB, false)).toBe(-errno.ENXIO);
    expect(await seek(descriptor, 3 * TiB, true)).toBe(-errno.ENXIO);
    closeSync(descriptor);
  });

  it('still answers for a descriptor that is closed meanwhile, and with the errno for one that was before', async () => {
    await using dir = Workdir.create();
    const seek = seekOf();
    const descriptor = openSync(sparseFile(dir, 2 * MiB, [MiB]), 'r');
    const found = seek(descriptor, 0, false);
    closeSync(descriptor);
    expect(await found).toBe(MiB);
    expect(await seek(descriptor, 0, false)).toBe(-errno.EBADF);
  });

  it('refuses what is no descriptor, no offset and no choice', () => {
    const seek = seekOf();
    expect(() => seek(-1, 0, true)).toThrow(RangeError);
    expect(() => seek(0, 2 ** 53, true)).toThrow(RangeError);
    expect(() => seek(0, 0.5, true)).toThrow(RangeError);
    expect(() => seek(0, 0, 1 as unknown as boolean)).toThrow(TypeError);
  });
});

describe('a medium in a sparse file', () => {
  it('knows its holes, which writes fill and discards make', async () => {
    await using dir = Workdir.create();
    const path = sparseFile(dir, 8 * MiB, [0, 4 * MiB]);
    const medium = await FileMedium.open({ path, blockLength: 512, seek: seekOf() });
    expect(await extentsOf(medium)).toEqual([
      [0, MiB, true],
      [MiB, 3 * MiB, false],
      [4 * MiB, MiB, true],
      [5 * MiB, 3 * MiB, false],
    ]);
    await medium.write(2 * MiB, new Uint8Array(MiB).fill(1));
    await medium.discard(4 * MiB, MiB / 2);
    expect(await extentsOf(medium)).toEqual([
      [0, MiB, true],
      [MiB, MiB, false],
      [2 * MiB, MiB, true],
      [3 * MiB, 1.5 * MiB, false],
      [4.5 * MiB, MiB / 2, true],
      [5 * MiB, 3 * MiB, false],
    ]);
    expect(await medium.extentAt(MiB + 512, 1024)).toEqual({ length: 1024, mapped: false });
    await medium.close();
  });

  it('takes what someone cut off for data, so that reading it says so', async () => {
    await using dir = Workdir.create();
    const path = sparseFile(dir, 8 * MiB, []);
    const medium = await FileMedium.open({ path, blockLength: 512, seek: seekOf() });
    truncateSync(path, 4 * MiB);
    expect(await medium.extentAt(6 * MiB, MiB)).toEqual({ length: MiB, mapped: true });
    await medium.close();
  });
});
