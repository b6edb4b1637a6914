/** A machine on which the addon was not built, or does not load: the build is copied to where there is none. */

import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { runChecked } from '../support/child-process.ts';

const dist = fileURLToPath(new URL('../../dist', import.meta.url));
const program = `
  import * as rdma from './dist/iser/rdma/native-provider.js';
  const of = (get) => { try { return get(); } catch ({ code, message, hint }) { return { code, message, hint }; } };
  console.log(JSON.stringify({
    isAvailable: rdma.isRdmaAvailable(),
    devices: rdma.verbsDevices(),
    memory: of(rdma.rdmaMemory),
    iwarp: of(rdma.iwarpProvider),
    verbs: of(rdma.verbsProvider),
  }));
`;

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iserfs-without-addon-'));
  await cp(dist, join(folder, 'dist'), { recursive: true });
  await writeFile(join(folder, 'package.json'), '{"type":"module"}');
  await writeFile(join(folder, 'program.js'), program);
});

afterEach(() => rm(folder, { recursive: true }));

const outcome = async () => JSON.parse(await runChecked(process.execPath, [join(folder, 'program.js')]));

it('says that it is not built, and how it is', async () => {
  const fault = { code: 'unsupported', message: 'the RDMA addon is not built', hint: 'Build it with `npm run build:native`.' };
  expect(await outcome()).toEqual({ isAvailable: false, devices: [], memory: fault, iwarp: fault, verbs: fault });
});

it('says why it does not load', async () => {
  await mkdir(join(folder, 'native', 'build'), { recursive: true });
  await writeFile(join(folder, 'native', 'build', 'iserfs_rdma.node'), 'no library');
  const { isAvailable, memory } = await outcome();
  expect(isAvailable).toBe(false);
  expect(memory.code).toBe('unsupported');
  expect(memory.message).toMatch(/^the RDMA addon does not load: .*(file too short|invalid ELF header)$/);
});
