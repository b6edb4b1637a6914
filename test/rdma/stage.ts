/**
 * iserfs as the guest runs it: the built command line as one file, and tests as a few. Under emulation Node needs ten seconds more to
 * load the command line from three hundred files, and Vitest minutes to transform as many. What is found by its place in the project
 * (the addons, package.json) is at the same places around them.
 */

import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { rolldown } from 'rolldown';
import { projectRoot } from '../support/cli-process.ts';

export interface Stage {
  /** To be shared with the guest, besides the project. */
  readonly folder: string;
  /** Below `folder`, what stands for the project. */
  readonly projectFolder: string;
  readonly cliPath: string;
}

/** `folder`: an empty one. Needs a build. */
export async function makeStage(folder: string): Promise<Stage> {
  const projectFolder = join(folder, 'project');
  const cliPath = join(projectFolder, 'dist', 'cli.js');
  mkdirSync(projectFolder);
  for (const name of ['native', 'node_modules', 'package.json']) symlinkSync(join(projectRoot, name), join(projectFolder, name));
  const bundle = await rolldown({
    input: join(projectRoot, 'dist', 'cli.js'),
    platform: 'node',
    external: ['fuse-native'],
    logLevel: 'silent',
  });
  await bundle.write({ file: cliPath, format: 'esm', codeSplitting: false });
  await bundle.close();
  return { folder, projectFolder, cliPath };
}

/** Adds test files, named by their paths in the project: `vitest run`, in `projectFolder`, runs them in one process. */
export async function stageTests({ projectFolder }: Stage, files: readonly string[]): Promise<void> {
  const reporter = 'test/support/closing-reporter.ts';
  const inputs = [...files, reporter].map((file) => [basename(file, '.ts'), join(projectRoot, file)]);
  const bundle = await rolldown({
    input: Object.fromEntries(inputs),
    platform: 'node',
    external: ['fuse-native', 'vitest'],
    transform: { target: 'node20' },
    logLevel: 'silent',
  });
  // As deep as src/, from where native/ and package.json are looked for.
  await bundle.write({ dir: join(projectFolder, 'tests'), format: 'esm' });
  await bundle.close();
  const config = {
    include: ['tests/*.test.js'],
    reporters: ['default', `./tests/${basename(reporter, '.ts')}.js`],
    pool: 'forks',
    maxWorkers: 1,
    isolate: false,
    // Under emulation everything takes long.
    testTimeout: 60_000,
  };
  writeFileSync(join(projectFolder, 'vitest.config.js'), `export default ${JSON.stringify({ test: config })};\n`);
}
