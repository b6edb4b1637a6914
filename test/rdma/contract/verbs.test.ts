/** The contract of RDMA providers on verbs, over the devices that the guest's kernel has in software. */

import { describe, expect, inject, it } from 'vitest';
import { projectRoot } from '../../support/cli-process.ts';
import { bringUp, fabricAddress } from '../fabric.ts';
import { Guest } from '../guest.ts';

describe.each(['rxe', 'siw'] as const)('verbs over %s', (fabric) => {
  it('keeps the contract of RDMA providers', { timeout: 480_000 }, async () => {
    await using guest = await Guest.boot(inject('guestImage'), inject('stage'));
    await bringUp(guest, fabric);
    // Vitest as it is, in the read-only project: it bundles its configuration in memory, and waits longer than usual.
    const vitest = 'node node_modules/vitest/vitest.mjs run --configLoader runner --testTimeout 60000';
    const outcome = await guest.run(
      `cd ${projectRoot} && ISERFS_VERBS_ADDRESS=${fabricAddress} ${vitest} --project native test/native/rdma-contract.test.ts -t verbs 2>&1`,
      { timeoutMs: 420_000 },
    );
    expect(outcome.status, outcome.output).toBe(0);
    expect(outcome.output).toMatch(/\d\d passed, 0 failed/);
  });
});
