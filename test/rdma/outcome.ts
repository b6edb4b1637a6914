/**
 * What came of each combination: recorded by the test files, one file each, and put together as a table for the repository when all
 * of them have run. It holds nothing that differs from run to run unless an outcome does.
 */

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type StepName, stepNames } from './steps.ts';

/** `n/a: REASON` is declared beforehand; it is no excuse for a failure. */
export type Outcome = 'pass' | 'fail' | `n/a: ${string}`;

export interface Title {
  /** `verbs over rxe`, `iwarp from outside the guest`. */
  readonly path: string;
  readonly initiator: string;
  readonly target: string;
}

export interface Row extends Title {
  readonly outcomes: Readonly<Record<StepName, Outcome>>;
  readonly remarks: Readonly<Partial<Record<StepName, string>>>;
}

/** Other tests that run in the guest. */
export interface Check {
  readonly name: string;
  readonly outcome: Outcome;
}

export interface Part {
  /** Where it comes in the table. */
  readonly order: number;
  readonly rows: readonly Row[];
  readonly checks: readonly Check[];
}

export function writePart(folder: string, name: string, part: Part): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${name}.json`), JSON.stringify(part));
}

export function readParts(folder: string): Part[] {
  const parts: Part[] = readdirSync(folder).map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')));
  return parts.sort((one, other) => one.order - other.order);
}

/** Markdown. */
export function renderOutcome(parts: readonly Part[], versions: Readonly<Record<string, string>>): string {
  const notes: string[] = [];
  const noted = (text: string, note: string) => {
    if (!notes.includes(note)) notes.push(note);
    return `${text} [${notes.indexOf(note) + 1}]`;
  };
  const cell = (outcome: Outcome, remark?: string) => {
    if (outcome.startsWith('n/a: ')) return noted('n/a', outcome.slice('n/a: '.length));
    return outcome === 'pass' && remark !== undefined ? noted(outcome, remark) : outcome;
  };
  const rows = parts.flatMap((part) => part.rows);
  const table = [
    ['RDMA', 'Initiator', 'Target', ...stepNames],
    ['RDMA', 'Initiator', 'Target', ...stepNames].map(() => '---'),
    ...rows.map(({ path, initiator, target, outcomes, remarks }) => [
      path,
      initiator,
      target,
      ...stepNames.map((name) => cell(outcomes[name], remarks[name])),
    ]),
  ];
  const checks = [
    ['In the guest', 'Outcome'],
    ['---', '---'],
    ...parts.flatMap((part) => part.checks).map(({ name, outcome }) => [name, cell(outcome)]),
  ];
  return `${[
    '# What works with whom over RDMA',
    '',
    'Written by `npm run test:rdma`, which does all of this in a machine with the RDMA devices of the Linux kernel (rxe: RoCE, siw:',
    'iWARP). Do not edit.',
    '',
    ...table.map((cells) => `| ${cells.join(' | ')} |`),
    '',
    ...checks.map((cells) => `| ${cells.join(' | ')} |`),
    '',
    ...(notes.length === 0 ? [] : [...notes.map((note, index) => `${index + 1}. ${note}`), '']),
    `Versions: ${Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', ')}.`,
  ].join('\n')}\n`;
}
