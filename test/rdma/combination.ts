/** Declares the tests of one test file in the guest: combinations, other checks, and the record of what came of them. */

import { afterAll, describe, inject, it } from 'vitest';
import type { Guest } from './guest.ts';
import { type Check, type Outcome, type Row, type Title, writePart } from './outcome.ts';
import { type Peers, Run, type StepName, stepNames } from './steps.ts';

const checkTimeoutMs = 480_000;

export interface Combination extends Title {
  /** Run before the first step. The target is disposed of after the last. */
  readonly setUp: () => Promise<Omit<Peers, 'guest'>>;
  /** Steps that cannot be, with the reason. */
  readonly notApplicable?: Readonly<Partial<Record<StepName, string>>>;
  /** What is to be known of a step that passes. */
  readonly remarks?: Readonly<Partial<Record<StepName, string>>>;
}

/** The tests of a file: they share a guest, and run one after the other. */
export class Recorder {
  readonly #rows: Row[] = [];
  readonly #checks: Check[] = [];
  readonly #guest: () => Guest;

  /** `name` and `order` tell this file's part of the table from the others'. */
  constructor({ name, order, guest }: { name: string; order: number; guest: () => Guest }) {
    this.#guest = guest;
    afterAll(() => writePart(inject('outcomeFolder'), name, { order, rows: this.#rows, checks: this.#checks }));
  }

  combination({ path, initiator, target, setUp, notApplicable = {}, remarks = {} }: Combination): void {
    // Whatever is not reached has failed.
    const outcomes = Object.fromEntries(stepNames.map((step) => [step, 'fail'])) as Record<StepName, Outcome>;
    this.#rows.push({ path, initiator, target, outcomes, remarks });
    describe(`${path}: ${initiator} with ${target}`, () => {
      let peers: Peers | undefined;
      let run: Run | undefined;
      /** One run for all steps, set up by the first. */
      const start = async (): Promise<Run> => {
        peers ??= { guest: this.#guest(), ...(await setUp()) };
        run ??= new Run(peers);
        return run;
      };
      afterAll(async () => {
        await run?.[Symbol.asyncDispose]();
        await peers?.target[Symbol.asyncDispose]();
      });
      for (const step of stepNames) {
        const reason = notApplicable[step];
        if (reason !== undefined) outcomes[step] = `n/a: ${reason}`;
        it.skipIf(reason !== undefined)(step, async () => {
          const current = await start();
          try {
            await current.step(step);
            outcomes[step] = 'pass';
          } catch (error) {
            throw new Error(`${describeError(error)}\n${await current.logs()}`, { cause: error });
          }
        });
      }
    });
  }

  /** A test that is not about a combination. */
  check(name: string, test: () => Promise<void>): void {
    const index = this.#checks.push({ name, outcome: 'fail' }) - 1;
    it(name, { timeout: checkTimeoutMs }, async () => {
      await test();
      this.#checks[index] = { name, outcome: 'pass' };
    });
  }
}

function describeError(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
