/**
 * Cuts the kernel proper (an ELF file with a PVH entry) out of a bzImage. QEMU starts it directly: the bzImage would unpack itself
 * inside the emulated CPU, which takes seconds. Layout: the kernel's x86 boot protocol (Documentation/arch/x86/boot.rst).
 */

import { spawnSync } from 'node:child_process';
import { gunzipSync } from 'node:zlib';

const SETUP_SECTORS = 0x1f1;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;

/** Throws when the image is compressed in a way that is not known here. */
export async function extractVmlinux(bzImage: Buffer): Promise<Buffer> {
  const setupSize = ((bzImage[SETUP_SECTORS] || 4) + 1) * 512; // 0 means 4, for very old kernels
  const start = setupSize + bzImage.readUInt32LE(PAYLOAD_OFFSET);
  // The last four bytes are the unpacked size, for the kernel's own decompressor.
  const payload = bzImage.subarray(start, start + bzImage.readUInt32LE(PAYLOAD_LENGTH) - 4);
  const kernel = unpack(payload);
  if (kernel.toString('latin1', 0, 4) !== '\x7fELF') throw new Error('the kernel image holds no ELF file');
  return kernel;
}

function unpack(payload: Buffer): Buffer {
  const magic = payload.toString('hex', 0, 6);
  if (magic === 'fd377a585a00') return pipe('xz', ['--decompress', '--stdout', '--single-stream'], payload);
  if (magic.startsWith('1f8b')) return gunzipSync(payload);
  if (magic.startsWith('28b52ffd')) return pipe('zstd', ['--decompress', '--stdout'], payload);
  throw new Error(`the kernel image is compressed in an unknown way (${magic})`);
}

function pipe(command: string, args: readonly string[], input: Buffer): Buffer {
  const { stdout, stderr, status, error } = spawnSync(command, args, { input, maxBuffer: 1 << 30 });
  if (status !== 0) throw new Error(`${command}: ${error?.message ?? stderr}`);
  return stdout;
}
