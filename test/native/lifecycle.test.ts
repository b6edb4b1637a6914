/** The environment may end at any moment: processes and workers that do, at each phase of a connection's life. */

import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { describeOutcome, run } from '../support/child-process.ts';
import { phases } from './lifecycle-phases.mjs';

const program = fileURLToPath(new URL('./lifecycle-program.mjs', import.meta.url));

describe.each([
  { way: 'exit', what: 'process.exit', status: 3 },
  { way: 'throw', what: 'an uncaught exception', status: 1 },
  { way: 'worker-terminate', what: 'the end of a worker by its parent', status: 3 },
  { way: 'worker-exit', what: 'process.exit in a worker', status: 3 },
  { way: 'worker-throw', what: 'an uncaught exception in a worker', status: 3 },
])('$what', ({ way, status }) => {
  it.concurrent.each(phases)('ends cleanly, and soon: %s', { timeout: 60_000 }, async (phase) => {
    const outcome = await run(process.execPath, [program, way, phase], { timeoutMs: 45_000 });
    expect(outcome.status, describeOutcome(outcome)).toBe(status);
    expect(outcome.stderr).not.toMatch(/FATAL|AddressSanitizer|terminate called/);
  });
});
