/**
 * How this host calls itself to targets: access lists of targets name it, so it must stay the same.
 * The options win, then the name of the machine's own iSCSI initiator, then a name that is made once
 * and kept in the state folder.
 */

import { randomBytes } from 'node:crypto';
import { link, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describeError, IserfsError } from '../errors.ts';
import { isValidIscsiName, makeInitiatorName } from '../iser/iscsi/name.ts';
import { makeFolder } from './folders.ts';
import { systemReason } from './secrets.ts';
import { type Environment, stateDirectory } from './xdg.ts';

/** Where open-iscsi keeps the machine's name. */
export const SYSTEM_NAME_FILE = '/etc/iscsi/initiatorname.iscsi';

export interface InitiatorNameSources {
  /** From the command line or the configuration file. */
  readonly configured: string | undefined;
  readonly environment: Environment;
  readonly systemFile?: string;
  readonly warn: (line: string) => void;
}

/** The name to log in with. Throws `bad-configuration` where the system's file holds no valid name. */
export async function findInitiatorName(sources: InitiatorNameSources): Promise<string> {
  if (sources.configured !== undefined) return sources.configured;
  const systemFile = sources.systemFile ?? SYSTEM_NAME_FILE;
  const system = await readIfThere(systemFile);
  // A file that only root may read is not for us: other users of open-iscsi's machine go on to their own name.
  if (system !== undefined) return parseSystemFile(system, systemFile);
  return await ownName(sources);
}

/** The value of `InitiatorName=` in the form of open-iscsi's file. Throws `bad-configuration`. */
export function parseSystemFile(text: string, path: string): string {
  for (const line of text.split('\n')) {
    const match = /^\s*InitiatorName\s*=\s*(\S+)\s*$/.exec(line);
    if (match === null) continue;
    const name = match[1] as string;
    if (isValidIscsiName(name)) return name;
    throw new IserfsError('bad-configuration', `${path}: "${name}" is not an iSCSI name`, {
      hint: 'Correct it, or give --initiator-name NAME.',
    });
  }
  throw new IserfsError('bad-configuration', `${path} has no line "InitiatorName=..."`, {
    hint: 'Add one, or give --initiator-name NAME.',
  });
}

/** The name made once. Two processes that make it at the same time agree: the first link wins, both read it back. */
async function ownName({ environment, warn }: InitiatorNameSources): Promise<string> {
  const folder = stateDirectory(environment);
  const path = join(folder, 'initiator-name');
  const stored = (await readIfThere(path))?.trim();
  if (stored !== undefined && isValidIscsiName(stored)) return stored;
  const made = makeInitiatorName(randomBytes(6));
  const draft = `${path}.${randomBytes(6).toString('hex')}`;
  try {
    await makeFolder(folder);
    // What stands there and is no name was damaged: it names nothing that a target could know.
    if (stored !== undefined) await rm(path, { force: true });
    const file = await open(draft, 'w', 0o644);
    try {
      await file.writeFile(`${made}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    try {
      await link(draft, path);
    } catch (error) {
      const other = (await readIfThere(path))?.trim();
      if (other !== undefined && isValidIscsiName(other)) return other;
      throw error;
    } finally {
      await rm(draft, { force: true });
    }
  } catch (error) {
    warn(`the initiator name ${made} could not be kept in ${folder} (${describeError(error)}): it will be another one next time`);
  }
  return made;
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    const reason = systemReason(error);
    if (['no such file', 'permission denied', 'a part of its path is not a directory'].includes(reason)) return undefined;
    throw new IserfsError('bad-configuration', `cannot read ${path}: ${reason}`);
  }
}
