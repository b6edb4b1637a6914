/**
 * A medium in a file, or in a block device where the target runs on one. Reads and writes go through the
 * page cache of the machine, so that it is volatile: `flush()` is fdatasync. Node has no fallocate; holes
 * are punched by the `fallocate` program of util-linux where it is there and the file system can, and
 * otherwise a discarded range is overwritten with zeros. Nor has it SEEK_HOLE: whoever opens the medium hands that
 * in, and without it all is taken for data.
 */

import { spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { constants as osConstants } from 'node:os';
import { type ErrorCode, IserfsError } from '../errors.ts';
import type { Medium, MediumExtent } from './medium.ts';
import { checkMediumRange, checkMediumSize } from './medium-range.ts';

export interface FileMediumOptions {
  readonly path: string;
  /** Its size must be a multiple of this: no byte of a file is left out. */
  readonly blockLength: number;
  /** Makes the file, sparse and of this size, where there is none; one that exists keeps its size. */
  readonly createSize?: number;
  /** Opens it for reading alone. A file that may not be written is opened so anyway. */
  readonly readOnly?: boolean;
  readonly seek?: SeekFile | undefined;
}

/**
 * lseek(2) with SEEK_HOLE or SEEK_DATA: the offset found, or `-errno`: ENXIO where there is none. May move the
 * position of the descriptor.
 */
export type SeekFile = (descriptor: number, offset: number, isHole: boolean) => Promise<number>;

const ZEROS = new Uint8Array(256 * 1024);
/** File systems give back whole pages only: for less, a process is not worth its while. */
const PAGE = 4096;
/** What `SeekFile` answers where the rest of the file is a hole. */
const NO_DATA = -osConstants.errno.ENXIO;

export class FileMedium implements Medium {
  readonly isVolatile = true;
  readonly readOnly: boolean;
  readonly isThin: boolean;
  readonly #path: string;
  readonly #blockLength: number;
  readonly #handle: FileHandle;
  readonly #isDevice: boolean;
  /** Undefined where nobody wants to know of holes, or can tell. */
  readonly #seek: SeekFile | undefined;
  #size: number;
  #closed: Promise<void> | undefined;

  private constructor(
    options: FileMediumOptions,
    opened: { readonly handle: FileHandle; readonly readOnly: boolean; readonly size: number; readonly isDevice: boolean },
    isThin: boolean,
  ) {
    this.#path = options.path;
    this.#blockLength = options.blockLength;
    this.#handle = opened.handle;
    this.#isDevice = opened.isDevice;
    this.#size = opened.size;
    this.readOnly = opened.readOnly;
    this.isThin = isThin;
    this.#seek = isThin ? options.seek : undefined;
  }

  /** Code `bad-configuration` where the file cannot be a logical unit's, with the reason and what to do. */
  static async open(options: FileMediumOptions): Promise<FileMedium> {
    const { handle, readOnly, newSize } = await openFile(options);
    try {
      if (newSize !== undefined) await setFirstSize(handle, options.path, newSize);
      const stats = await handle.stat();
      if (!stats.isFile() && !stats.isBlockDevice()) {
        throw new IserfsError('bad-configuration', `${options.path} is neither a file nor a block device`);
      }
      const size = stats.isBlockDevice() ? await deviceSize(handle) : stats.size;
      checkSize(options, size);
      // What may only be read cannot be tried by punching: there it is enough that somebody can look.
      const isThin =
        stats.isFile() && (readOnly ? options.seek !== undefined : await punchHole(handle, size, options.blockLength));
      return new FileMedium(options, { handle, readOnly, size, isDevice: stats.isBlockDevice() }, isThin);
    } catch (error) {
      await handle.close();
      if (newSize !== undefined) await rm(options.path, { force: true }); // ours, and of no use
      throw error;
    }
  }

  get size(): number {
    return this.#size;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    checkMediumRange(this.#size, offset, into.length);
    for (let done = 0; done < into.length; ) {
      const { bytesRead } = await this.#attempt('read', () => this.#handle.read(into, done, into.length - done, offset + done));
      if (bytesRead === 0)
        throw new IserfsError('medium-error', `${this.#path} ends at ${offset + done}: it was cut off by someone`);
      done += bytesRead;
    }
  }

  async write(offset: number, from: Uint8Array, options?: { readonly fua?: boolean }): Promise<void> {
    if (this.readOnly) throw new IserfsError('write-protected', `${this.#path} is open for reading only`);
    checkMediumRange(this.#size, offset, from.length);
    for (let done = 0; done < from.length; ) {
      const { bytesWritten } = await this.#attempt('write', () =>
        this.#handle.write(from, done, from.length - done, offset + done),
      );
      done += bytesWritten;
    }
    if (options?.fua === true) await this.flush();
  }

  async flush(): Promise<void> {
    if (!this.readOnly) await this.#attempt('flush', () => this.#handle.datasync());
  }

  async discard(offset: number, length: number): Promise<void> {
    if (this.readOnly) throw new IserfsError('write-protected', `${this.#path} is open for reading only`);
    checkMediumRange(this.#size, offset, length);
    if (this.isThin && holdsPage(offset, length) && (await punchHole(this.#handle, offset, length))) return;
    for (let done = 0; done < length; done += ZEROS.length) {
      await this.write(offset + done, ZEROS.subarray(0, Math.min(ZEROS.length, length - done)));
    }
  }

  /** The file may change between the two looks, though not by us: what does not fit together is data. */
  async extentAt(offset: number, length: number): Promise<MediumExtent> {
    checkMediumRange(this.#size, offset, length);
    const unknown = { length, mapped: true };
    if (this.#seek === undefined) return unknown;
    const { fd } = this.#handle;
    const hole = await this.#seek(fd, offset, true);
    if (hole > offset) return { length: Math.min(length, hole - offset), mapped: true };
    if (hole < 0) return unknown;
    const data = await this.#seek(fd, offset, false);
    if (data > offset) return { length: Math.min(length, data - offset), mapped: false };
    return data === NO_DATA ? { length, mapped: false } : unknown;
  }

  async resize(size: number): Promise<void> {
    checkMediumSize(size);
    checkSize({ path: this.#path, blockLength: this.#blockLength }, size);
    if (this.#isDevice) throw new IserfsError('unsupported', `${this.#path} is a device: its size is not ours to change`);
    if (this.readOnly) throw new IserfsError('write-protected', `${this.#path} is open for reading only`);
    await this.#attempt('resize', () => this.#handle.truncate(size));
    this.#size = size;
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.#handle.close();
    }
  }

  async #attempt<T>(what: string, action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (error) {
      throw new IserfsError(codeOf(error), `cannot ${what} ${this.#path}`, { cause: error });
    }
  }
}

interface OpenFile {
  readonly handle: FileHandle;
  readonly readOnly: boolean;
  /** The size that it is to get, where it was not there; undefined where it was. */
  readonly newSize: number | undefined;
}

async function openFile(options: FileMediumOptions): Promise<OpenFile> {
  const { path, createSize, readOnly = false } = options;
  try {
    if (readOnly) return { handle: await open(path, 'r'), readOnly, newSize: undefined };
    if (createSize !== undefined) {
      checkMediumSize(createSize);
      const created = await createFile(path);
      if (created !== undefined) return { handle: created, readOnly, newSize: createSize };
    }
    return { handle: await open(path, 'r+'), readOnly, newSize: undefined };
  } catch (error) {
    if (!readOnly && ['EACCES', 'EPERM', 'EROFS'].includes(errnoName(error))) return openFile({ ...options, readOnly: true });
    const hint = errnoName(error) === 'ENOENT' && createSize === undefined ? { hint: 'Give a size to have the file made.' } : {};
    throw new IserfsError('bad-configuration', `cannot open ${path}`, { cause: error, ...hint });
  }
}

/** Undefined where the file exists: a file is never emptied. */
async function createFile(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  } catch (error) {
    if (errnoName(error) === 'EEXIST') return undefined;
    throw error;
  }
}

async function setFirstSize(handle: FileHandle, path: string, size: number): Promise<void> {
  try {
    await handle.truncate(size);
  } catch (error) {
    throw new IserfsError('bad-configuration', `cannot give ${path} a size of ${size} bytes`, { cause: error });
  }
}

function checkSize({ path, blockLength }: Pick<FileMediumOptions, 'path' | 'blockLength'>, size: number): void {
  if (size > 0 && size % blockLength === 0) return;
  const problem = size === 0 ? 'is empty' : `has ${size} bytes, which is not a multiple of the block length ${blockLength}`;
  throw new IserfsError('bad-configuration', `${path} ${problem}`, {
    hint:
      size === 0
        ? `Give it a size: truncate -s 1G ${path}`
        : `Make it longer: truncate -s ${Math.ceil(size / blockLength) * blockLength} ${path}`,
  });
}

/** A block device's stat has no size: the end is where nothing can be read any more, found by halving. */
async function deviceSize(handle: FileHandle): Promise<number> {
  const probe = new Uint8Array(512);
  const readable = async (sector: number) => (await handle.read(probe, 0, 512, sector * 512)).bytesRead > 0;
  let low = 0;
  let high = 2 ** 44;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (await readable(middle)) low = middle + 1;
    else high = middle;
  }
  return low * 512;
}

function holdsPage(offset: number, length: number): boolean {
  return Math.ceil(offset / PAGE) * PAGE + PAGE <= offset + length;
}

/** Whether the hole could be punched. The file is handed over open, so that no path is looked up again. */
function punchHole(handle: FileHandle, offset: number, length: number): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn(
      'fallocate',
      ['--punch-hole', '--offset', String(offset), '--length', String(length), '/proc/self/fd/3'],
      { stdio: ['ignore', 'ignore', 'ignore', handle.fd] },
    );
    child.once('error', () => resolve(false));
    child.once('exit', (code) => resolve(code === 0));
  });
}

const codesByErrno: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'no-space',
  EDQUOT: 'no-space',
  EFBIG: 'no-space',
  EROFS: 'write-protected',
  EPERM: 'write-protected',
};

function codeOf(error: unknown): ErrorCode {
  return codesByErrno[errnoName(error)] ?? 'medium-error';
}

function errnoName(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
}
