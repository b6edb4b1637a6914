/** The benchmark's programs in C, compiled for each run: that takes less than a second. */

import { join } from 'node:path';
import { runChecked } from '../support/child-process.ts';
import { projectRoot } from '../support/cli-process.ts';
import type { Workdir } from '../support/workdir.ts';
import type { Programs } from './contestants.ts';

export async function compilePrograms(workdir: Workdir): Promise<Programs> {
  return {
    initiator: await compile('initiator', ['-liscsi'], workdir),
    memoryFile: await compile('memory-file', ['-I/usr/include/fuse3', '-lfuse3', '-lpthread'], workdir),
  };
}

/** Returns where it is. Needs what the set-up installs. */
export async function compile(name: string, libraries: readonly string[], workdir: Workdir): Promise<string> {
  const program = workdir.join(name);
  const source = join(projectRoot, 'test', 'bench', `${name}.c`);
  await runChecked('cc', ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror', '-o', program, source, ...libraries], {
    timeoutMs: 120_000,
  });
  return program;
}
