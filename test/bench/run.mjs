// @ts-check
/**
 * Runs a TypeScript program of the benchmark under the oldest Node that iserfs supports, which cannot do that itself: bundles it into
 * one file with Rolldown and imports that.
 *
 *   node test/bench/run.mjs PROGRAM.ts [ARGUMENT...]
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { rolldown } from 'rolldown';

const here = dirname(fileURLToPath(import.meta.url));
const [program = 'main.ts'] = process.argv.splice(2, 1);
// Inside node_modules, so that packages are found from there.
const folder = mkdtempSync(join(here, '..', '..', 'node_modules', '.iserfs-bench-'));
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));

const bundle = await rolldown({
  input: join(here, program),
  platform: 'node',
  external: /^(node:|vega|yargs|rolldown)/,
  transform: { target: 'node20' },
  plugins: [
    {
      name: 'own-place',
      // A module that asks where it is means its source.
      transform: (code, id) => code.replaceAll('import.meta.url', JSON.stringify(pathToFileURL(id).href)),
    },
  ],
  logLevel: 'silent',
});
const file = join(folder, 'program.mjs');
await bundle.write({ file, format: 'esm', codeSplitting: false });
await bundle.close();
await import(pathToFileURL(file).href);
