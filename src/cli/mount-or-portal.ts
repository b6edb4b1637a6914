/** What a word of the command line means that may be a mount point or a portal. */

import { lookup } from 'node:dns/promises';
import { resolve } from 'node:path';
import { IserfsError } from '../errors.ts';
import { runCommand } from '../fuse/child-command.ts';
import { findMountOf } from './mount-reader.ts';

/** The word may lead into a mount that hangs. */
const LOOK_TIMEOUT_MS = 10_000;

/**
 * A word with a slash, or `.`, or the name of a mount in this directory, is a mount point; anything else is a portal.
 * Throws `mount-failed` for a directory that is no mount and has a name that no host has.
 */
export async function isMountpoint(word: string): Promise<boolean> {
  if (/[/]|^\.{1,2}$/.test(word) || (await findMountOf(word)) !== undefined) return true;
  if ((await isDirectory(word)) && !(await isHost(word))) {
    throw new IserfsError('mount-failed', `nothing of iserfs is mounted at ${word}, and no host has that name`, {
      hint: 'List the mounts with: iserfs ls',
    });
  }
  return false;
}

async function isDirectory(path: string): Promise<boolean> {
  return (await runCommand('test', ['-d', resolve(path)], LOOK_TIMEOUT_MS)).status === 0;
}

/** Behind a colon or a comma stands a port, which is looked at with the rest of the portal. */
async function isHost(word: string): Promise<boolean> {
  if (/[:,]/.test(word)) return true;
  try {
    await lookup(word);
    return true;
  } catch {
    return false;
  }
}
