/** Before the first test: the guest's image, and iserfs as the guest runs it. After the last: the table of outcomes. */

import { readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestProject } from 'vitest/node';
import { Workdir } from '../support/workdir.ts';
import { testsOnDevice } from './device-tests.ts';
import { buildImage, type GuestImage } from './image/build.ts';
import { readParts, renderOutcome } from './outcome.ts';
import { makeStage, type Stage, stageTests } from './stage.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    guestImage: GuestImage;
    stage: Stage;
    /** Where the test files leave what is to be in the table. */
    outcomeFolder: string;
  }
}

const here = dirname(fileURLToPath(import.meta.url));
const tablePath = join(here, 'OUTCOME.md');

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const workdir = Workdir.create();
  const image = await buildImage((line) => console.error(`rdma: ${line}`));
  project.provide('guestImage', image);
  const stage = await makeStage(workdir.folder('stage'));
  await stageTests(stage, testsOnDevice);
  project.provide('stage', stage);
  project.provide('outcomeFolder', workdir.folder('outcome'));
  return async () => {
    const parts = readParts(workdir.folder('outcome'));
    const files = readdirSync(here).filter((name) => name.endsWith('.test.ts'));
    // A run of some of the tests says nothing about the others.
    if (parts.length === files.length && !isFiltered(project)) writeFileSync(tablePath, renderOutcome(parts, image.versions));
    await workdir[Symbol.asyncDispose]();
  };
}

function isFiltered(project: TestProject): boolean {
  return project.config.testNamePattern !== undefined;
}
