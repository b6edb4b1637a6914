#!/usr/bin/env node
/** The program: its command line, to an exit status. */

import { runCommandLine } from './cli/command-line.ts';
import { type Interrupts, listenForInterrupts } from './cli/interrupts.ts';
import { makeOutput } from './cli/output.ts';

let interrupts: Interrupts | undefined;

// A reader that has seen enough (`iserfs ls | head -1`) is no fault.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

const status = await runCommandLine(process.argv.slice(2), {
  environment: process.env,
  output: makeOutput({
    stdout: (text) => process.stdout.write(text),
    stderr: (text) => process.stderr.write(text),
    debug: (process.env['ISERFS_DEBUG'] ?? '') !== '',
  }),
  interrupts: () => {
    interrupts ??= listenForInterrupts();
    return interrupts;
  },
});
// What is still open (a socket of a target that does not answer) must not keep a finished command.
await Promise.all(
  [process.stdout, process.stderr].map((stream) => new Promise<void>((resolve) => stream.write('', () => resolve()))),
);
process.exit(status);
