/**
 * The built command line as one file, for the guest: under emulation Node needs ten seconds more to load it from three hundred. What
 * it finds by its place in the project (the addon, package.json) is at the same places around that file.
 */

import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { rolldown } from 'rolldown';
import { projectRoot } from '../support/cli-process.ts';

export interface Stage {
  /** To be shared with the guest, besides the project. */
  readonly folder: string;
  readonly cliPath: string;
}

/** `folder`: an empty one. Needs a build. */
export async function makeStage(folder: string): Promise<Stage> {
  // dist/cli.js looks for ../package.json, dist/iser/rdma/addon.js for ../../../native.
  const place = join(folder, 'project', 'dist', 'iser');
  mkdirSync(place, { recursive: true });
  const link = (name: string, ...at: string[]) => symlinkSync(join(projectRoot, name), join(folder, ...at, name));
  link('native');
  link('node_modules');
  link('package.json', 'project', 'dist');
  const cliPath = join(place, 'cli.js');
  const bundle = await rolldown({
    input: join(projectRoot, 'dist', 'cli.js'),
    platform: 'node',
    external: ['fuse-native'],
    logLevel: 'silent',
  });
  await bundle.write({ file: cliPath, format: 'esm', codeSplitting: false });
  await bundle.close();
  return { folder, cliPath };
}
