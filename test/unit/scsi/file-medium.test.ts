import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, statSync, truncateSync } from 'node:fs';
import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import { FileMedium } from '../../../src/scsi/file-medium.ts';
import { mediumContract } from '../../support/medium-contract.ts';
import { offsetPattern } from '../../support/pattern.ts';
import { Workdir } from '../../support/workdir.ts';

const refused = (message: RegExp) => ({ code: 'bad-configuration', message: expect.stringMatching(message) as string });

describe('file medium', () => {
  let contractDir: Workdir | undefined;
  mediumContract(
    async (size) => {
      contractDir = Workdir.create();
      return await FileMedium.open({ path: contractDir.join('disk'), blockLength: 512, createSize: size });
    },
    async () => await contractDir?.[Symbol.asyncDispose](),
  );

  it('leaves nothing of a file that cannot be made', async () => {
    await using dir = Workdir.create();
    const path = dir.join('disk');
    await expect(FileMedium.open({ path, blockLength: 4096, createSize: 512 })).rejects.toMatchObject(refused(/not a multiple/));
    expect(existsSync(path)).toBe(false);
  });

  it('makes a file sparse and for its owner alone', async () => {
    await using dir = Workdir.create();
    const medium = await FileMedium.open({ path: dir.join('disk'), blockLength: 512, createSize: 3 * 2 ** 40 });
    await medium.write(2 ** 41 + 512, offsetPattern(0, 512), { fua: true });
    const stats = statSync(dir.join('disk'));
    expect([stats.size, stats.mode & 0o777]).toEqual([3 * 2 ** 40, 0o600]);
    expect(stats.blocks * 512).toBeLessThan(1024 * 1024);
    await medium.close();
  });

  it('keeps the contents and the size of a file that exists', async () => {
    await using dir = Workdir.create();
    const path = dir.file('disk', offsetPattern(0, 4096));
    const medium = await FileMedium.open({ path, blockLength: 512, createSize: 2 ** 30 });
    expect(medium.size).toBe(4096);
    const data = new Uint8Array(4096);
    await medium.read(0, data);
    expect(data).toEqual(offsetPattern(0, 4096));
    await medium.close();
    expect(readFileSync(path)).toEqual(Buffer.from(offsetPattern(0, 4096)));
  });

  it('refuses a file that is not a whole number of blocks, and says what to do', async () => {
    await using dir = Workdir.create();
    const path = dir.file('disk', new Uint8Array(5000));
    await expect(FileMedium.open({ path, blockLength: 512 })).rejects.toMatchObject({
      ...refused(/has 5000 bytes, which is not a multiple of the block length 512/),
      hint: `Make it longer: truncate -s 5120 ${path}`,
    });
  });

  it.each([
    ['an empty file', (dir: Workdir) => dir.file('x', ''), /is empty/],
    ['a folder', (dir: Workdir) => dir.folder('x'), /cannot open|neither a file/],
    ['a file that is not there', (dir: Workdir) => dir.join('x'), /cannot open/],
    ['a device that has no size', () => '/dev/null', /neither a file nor a block device/],
  ])('refuses %s', async (_, make, message) => {
    await using dir = Workdir.create();
    await expect(FileMedium.open({ path: make(dir), blockLength: 512 })).rejects.toMatchObject(refused(message));
  });

  it('makes no file without a size', async () => {
    await using dir = Workdir.create();
    await expect(FileMedium.open({ path: dir.join('x'), blockLength: 512 })).rejects.toMatchObject({
      hint: 'Give a size to have the file made.',
    });
    expect(existsSync(dir.join('x'))).toBe(false);
  });

  it('opened for reading only, it refuses all that would change it', async () => {
    await using dir = Workdir.create();
    const path = dir.file('disk', offsetPattern(0, 4096));
    const medium = await FileMedium.open({ path, blockLength: 512, readOnly: true });
    expect(medium.readOnly).toBe(true);
    const protectedError = { code: 'write-protected' };
    await expect(medium.write(0, new Uint8Array(512))).rejects.toMatchObject(protectedError);
    await expect(medium.discard(0, 512)).rejects.toMatchObject(protectedError);
    await expect(medium.resize(512)).rejects.toMatchObject(protectedError);
    await medium.flush();
    await medium.close();
    expect(readFileSync(path)).toEqual(Buffer.from(offsetPattern(0, 4096)));
  });

  it('a file that may not be written is opened for reading', async ({ skip }) => {
    skip(process.getuid?.() === 0, 'root may write every file');
    await using dir = Workdir.create();
    const path = dir.file('disk', new Uint8Array(512));
    chmodSync(path, 0o400);
    const medium = await FileMedium.open({ path, blockLength: 512 });
    expect(medium.readOnly).toBe(true);
    await medium.close();
  });

  it('a file that someone cut off gives an error, not zeros', async () => {
    await using dir = Workdir.create();
    const path = dir.file('disk', new Uint8Array(8192));
    const medium = await FileMedium.open({ path, blockLength: 512 });
    truncateSync(path, 4096);
    await expect(medium.read(3584, new Uint8Array(1024))).rejects.toMatchObject({ code: 'medium-error' });
    await medium.close();
  });

  it('keeps to whole blocks when it is resized', async () => {
    await using dir = Workdir.create();
    const medium = await FileMedium.open({ path: dir.join('disk'), blockLength: 4096, createSize: 8192 });
    await expect(medium.resize(4097)).rejects.toMatchObject(refused(/not a multiple/));
    expect(medium.size).toBe(8192);
    await medium.close();
  });

  it('gives space back where the file system can', async ({ skip }) => {
    skip(!canPunch(), 'the file system of the temporary folder has no holes');
    await using dir = Workdir.create();
    const path = dir.file('disk', new Uint8Array(1024 * 1024).fill(1));
    const medium = await FileMedium.open({ path, blockLength: 512 });
    expect(medium.isThin).toBe(true);
    await medium.flush();
    const before = statSync(path).blocks;
    await medium.discard(4096, 1024 * 1024 - 8192);
    expect(statSync(path).blocks).toBeLessThan(before / 2);
    expect(statSync(path).size).toBe(1024 * 1024);
    await medium.close();
  });

  describe('asked for its holes', () => {
    it('tells them although it may only be read', async () => {
      await using dir = Workdir.create();
      const path = dir.file('disk', new Uint8Array(8192));
      const seek = async (_: number, __: number, isHole: boolean) => (isHole ? 0 : 4096);
      const medium = await FileMedium.open({ path, blockLength: 512, readOnly: true, seek });
      expect(medium.isThin).toBe(true);
      expect(await medium.extentAt(0, 8192)).toEqual({ length: 4096, mapped: false });
      await medium.close();
      const blind = await FileMedium.open({ path, blockLength: 512, readOnly: true });
      expect(blind.isThin).toBe(false);
      await blind.close();
    });

    /** One of 8192 bytes, with a look at its file that finds what `found` says. */
    async function extentOf(dir: Workdir, found: { hole: number; data: number } | undefined, length = 4096) {
      const path = dir.file('disk', new Uint8Array(8192));
      const seek = async (_: number, __: number, isHole: boolean) => (isHole ? found?.hole : found?.data) ?? 0;
      const medium = await FileMedium.open({ path, blockLength: 512, ...(found === undefined ? {} : { seek }) });
      const extent = await medium.extentAt(1024, length);
      await medium.close();
      return extent;
    }

    it.skipIf(!canPunch()).each([
      ['data up to a hole', { hole: 2048, data: 1024 }, { length: 1024, mapped: true }],
      ['data beyond what was asked for', { hole: 8192, data: 1024 }, { length: 4096, mapped: true }],
      ['a hole up to data', { hole: 1024, data: 3072 }, { length: 2048, mapped: false }],
      ['a hole beyond what was asked for', { hole: 1024, data: 7168 }, { length: 4096, mapped: false }],
      ['a hole up to the end', { hole: 1024, data: -constants.errno.ENXIO }, { length: 4096, mapped: false }],
    ])('tells %s', async (_, found, extent) => {
      await using dir = Workdir.create();
      expect(await extentOf(dir, found)).toEqual(extent);
    });

    it.each([
      ['nobody can look', undefined],
      ['the file system has no holes', { hole: -constants.errno.EINVAL, data: 0 }],
      ['the end is nearer than it was', { hole: -constants.errno.ENXIO, data: -constants.errno.ENXIO }],
      ['the file changes meanwhile', { hole: 1024, data: 1024 }],
      ['the disk below fails', { hole: 1024, data: -constants.errno.EIO }],
    ])('takes all for data where %s', async (_, found) => {
      await using dir = Workdir.create();
      expect(await extentOf(dir, found)).toEqual({ length: 4096, mapped: true });
    });
  });

  it.each([
    [0, 4096],
    [4000, 4100],
    [4000, 8192],
    [100, 20],
  ])('has zeros where %i + %i was discarded, also where that is no whole page', async (offset, length) => {
    await using dir = Workdir.create();
    const medium = await FileMedium.open({ path: dir.file('disk', new Uint8Array(65536).fill(1)), blockLength: 512 });
    await medium.discard(offset, length);
    const data = Buffer.alloc(65536);
    await medium.read(0, data);
    expect(Buffer.compare(data, Buffer.alloc(65536, 1).fill(0, offset, offset + length))).toBe(0);
    await medium.close();
  });
});

/** Whether the temporary folder's file system has holes. */
function canPunch(): boolean {
  const dir = execFileSync('mktemp', ['-d'], { encoding: 'utf8' }).trim();
  try {
    execFileSync('sh', ['-c', 'echo x > "$1/f" && fallocate --punch-hole --offset 0 --length 1 "$1/f"', 'sh', dir], {
      stdio: 'ignore',
    });
    return true;
  } catch {
    return false;
  } finally {
    execFileSync('rm', ['-r', dir]);
  }
}
