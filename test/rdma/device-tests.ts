/** The project's own tests of verbs, which need a device: run in the guest, over the one that it has. */

import { join } from 'node:path';
import { projectRoot } from '../support/cli-process.ts';
import type { Recorder } from './combination.ts';
import { type Fabric, fabricAddress } from './fabric.ts';
import type { Guest } from './guest.ts';

/** Staged for the guest (`stageTests`). */
export const testsOnDevice = [
  'test/native/rdma-contract.test.ts',
  'test/unit/iser/datamover/iser-iwarp-contract.test.ts',
  'test/interop/eight-steps.test.ts',
] as const;

const minutes = 60_000;
const verbsTests = join(projectRoot, 'native', 'build', 'asan', 'verbs-tests');

export function deviceTests(recorder: Recorder, fabric: Fabric, guest: () => Guest): void {
  const environment = `export ISERFS_VERBS_ADDRESS=${fabricAddress}`;

  recorder.check(`unit tests of the verbs provider over ${fabric}, under sanitizers`, async () => {
    await guest().checked(`${environment}; ${verbsTests}`, { timeoutMs: 4 * minutes });
  });

  recorder.check(`contract of RDMA providers, data mover contract, and the eight steps, on verbs over ${fabric}`, async () => {
    const vitest = 'node node_modules/vitest/vitest.mjs run --configLoader native -t verbs';
    const output = await guest().checked(`${environment}; cd ${guest().projectFolder}; ${vitest}`, { timeoutMs: 7 * minutes });
    if (!/\d\d passed, 0 failed/.test(output)) throw new Error(output);
  });
}
