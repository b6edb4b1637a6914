/**
 * Where files of this user and this machine live (XDG Base Directory Specification). Only paths:
 * nothing is read or made here.
 */

import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { IserfsError } from '../errors.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** Made-once names, logs and the records of running mounts: `$XDG_STATE_HOME/iserfs`. */
export function stateDirectory(environment: Environment): string {
  return join(baseDirectory(environment['XDG_STATE_HOME'], environment, '.local/state'), 'iserfs');
}

/** Where a configuration file is looked for, in order. */
export function configurationPaths(environment: Environment): string[] {
  const own = join(baseDirectory(environment['XDG_CONFIG_HOME'], environment, '.config'), 'iserfs');
  return [own, '/etc/iserfs'].flatMap((folder) => ['config.yaml', 'config.yml', 'config.json'].map((name) => join(folder, name)));
}

/** The specification says that a relative path in these variables is to be ignored. */
function baseDirectory(variable: string | undefined, environment: Environment, fallback: string): string {
  if (variable !== undefined && isAbsolute(variable)) return variable;
  const home = environment['HOME'];
  return join(home !== undefined && isAbsolute(home) ? home : homeOfUser(), fallback);
}

/** As the system knows it. Throws `bad-configuration` where it does not. */
function homeOfUser(): string {
  try {
    return homedir();
  } catch (cause) {
    throw new IserfsError('bad-configuration', 'this user has no home folder', {
      cause,
      hint: 'Set HOME, or XDG_STATE_HOME and XDG_CONFIG_HOME, to folders of yours.',
    });
  }
}
