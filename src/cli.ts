#!/usr/bin/env node
/** The program: its command line, to an exit status. */

import { runCommandLine } from './cli/command-line.ts';
import { type Interrupts, listenForInterrupts } from './cli/interrupts.ts';
import { EXIT_FAILED, EXIT_OK, makeOutput } from './cli/output.ts';
import { StandardStream, surviveClosedTerminals } from './cli/standard-streams.ts';
import { systemReason } from './config/secrets.ts';

let interrupts: Interrupts | undefined;

surviveClosedTerminals();
const stdout = new StandardStream(process.stdout);
const stderr = new StandardStream(process.stderr);
const output = makeOutput({
  stdout: (text) => stdout.write(text),
  stderr: (text) => stderr.write(text),
  debug: (process.env['ISERFS_DEBUG'] ?? '') !== '',
});

let status = await runCommandLine(process.argv.slice(2), {
  environment: process.env,
  output,
  interrupts: () => {
    interrupts ??= listenForInterrupts();
    return interrupts;
  },
});
await stdout.flushed();
if (stdout.failure !== undefined) {
  output.say(`iserfs: the output could not be written: ${systemReason(stdout.failure)}`);
  if (status === EXIT_OK) status = EXIT_FAILED;
}
await stderr.flushed();
// What is still open (a socket of a target that does not answer) must not keep a finished command.
process.exit(status);
