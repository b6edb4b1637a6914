// @ts-check
/** How the set-up speaks and runs things: one prefix, one error class, and a log file that outlives the run only on failure. */

import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** What the user can do something about: printed as one line, without a stack. */
export class SetupError extends Error {}

/** @param {string} line */
export function say(line) {
  process.stderr.write(`iserfs set-up: ${line}\n`);
}

/**
 * Runs a command with its output in a log file; throws `SetupError` with the log's path and its last lines when it fails.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ cwd?: string; hint?: string; label?: string }} [options] `label`: what to call it, where that is not the command
 */
export function runLogged(command, args, { cwd, hint, label = [command, args[0]].join(' ') } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'iserfs-setup-'));
  const log = join(folder, 'log');
  const fd = openSync(log, 'w');
  const result = spawnSync(command, args, { cwd, stdio: ['inherit', fd, fd] });
  closeSync(fd);
  if (result.status === 0) {
    rmSync(folder, { recursive: true });
    return;
  }
  const outcome =
    result.error?.message ?? (result.signal === null ? `exit status ${result.status}` : `killed by ${result.signal}`);
  for (const line of tellingLines(readFileSync(log, 'utf8'))) process.stderr.write(`  | ${line}\n`);
  throw new SetupError(`${label} failed (${outcome})${hint === undefined ? '' : `: ${hint}`} Log: ${log}`);
}

/**
 * @param {string} log
 * @returns {string[]} the first few lines that speak of errors, or else the last few
 */
function tellingLines(log) {
  const lines = log.split('\n').filter((line) => line.trim() !== '');
  const errors = lines.filter((line) => /^E: |error|denied|cannot|fail/i.test(line));
  return errors.length > 0 ? errors.slice(0, 6) : lines.slice(-6);
}
