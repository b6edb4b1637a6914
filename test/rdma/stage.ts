/**
 * The built command line as one file, for the guest: under emulation Node needs ten seconds more to load it from three hundred. What
 * it finds by its place in the project (the addons, package.json) is at the same places around that file.
 */

import { mkdirSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { rolldown } from 'rolldown';
import { projectRoot } from '../support/cli-process.ts';

export interface Stage {
  /** To be shared with the guest, besides the project. */
  readonly folder: string;
  readonly cliPath: string;
}

/** `folder`: an empty one. Needs a build. */
export async function makeStage(folder: string): Promise<Stage> {
  const project = join(folder, 'project');
  const cliPath = join(project, 'dist', 'cli.js');
  mkdirSync(dirname(cliPath), { recursive: true });
  for (const name of ['native', 'node_modules', 'package.json']) symlinkSync(join(projectRoot, name), join(project, name));
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
