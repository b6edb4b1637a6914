/** Memory and connections that JavaScript lets go of: in processes of their own, whose garbage is collected at will. */

import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { runChecked } from '../support/child-process.ts';

const program = fileURLToPath(new URL('./memory-program.mjs', import.meta.url));
const MIB = 1024 * 1024;

async function outcomeOf<T>(what: string): Promise<T> {
  return JSON.parse(await runChecked(process.execPath, ['--expose-gc', program, what], { timeoutMs: 60_000 })) as T;
}

it('keeps memory that is posted or advertised, although JavaScript has let go of it', async () => {
  const outcome = await outcomeOf<{ posted: number; after: number; wrong: number[]; statuses: string[] }>('pinned');
  // 32 arenas advertised and 32 posted, of 1 MiB each.
  expect(outcome.posted).toBeGreaterThan(60 * MIB);
  expect(outcome.wrong).toEqual([]);
  expect(outcome.statuses).toEqual(['success']);
  expect(outcome.after).toBeLessThan(24 * MIB);
});

it('gives memory back when its ArrayBuffer is collected, and when it is freed', async () => {
  const outcome = await outcomeOf<{ allocated: number; afterFree: number; afterCollection: number }>('released');
  expect(outcome.allocated).toBeGreaterThan(60 * MIB);
  expect(outcome.afterFree).toBeLessThan(44 * MIB);
  expect(outcome.afterCollection).toBeLessThan(12 * MIB);
});

it('rejects a connection request that nobody knows any more', async () => {
  expect(await outcomeOf('forgotten')).toEqual({ code: 'unreachable' });
});

it('leaves nothing behind after thousands of connections', async () => {
  interface State {
    readonly resident: number;
    readonly descriptors: number;
    readonly threads: number;
  }
  const { before, after } = await outcomeOf<{ before: State; after: State }>('connections');
  expect(after.descriptors).toBe(before.descriptors);
  expect(after.threads).toBe(before.threads);
  expect(after.resident - before.resident).toBeLessThan(16 * MIB);
}, 90_000);

it('lets a process end in which everything is closed', async () => {
  expect(await outcomeOf('idle')).toEqual({});
});
