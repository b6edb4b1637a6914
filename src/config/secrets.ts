/**
 * Where CHAP secrets come from: a file, the environment, or an entry of a configuration file that
 * others cannot read. Never the command line, which every user of the machine can see. A secret is
 * in no message, log line or status file.
 */

import { readFile, stat } from 'node:fs/promises';
import { IserfsError, UsageError } from '../errors.ts';
import type { Environment } from './xdg.ts';

/** CHAP credentials in settings; what a session gets is made from them at the last moment. */
export interface ChapSettings {
  readonly user: string;
  readonly secret: string;
  /** What the target must prove to us. */
  readonly mutual?: { readonly user: string; readonly secret: string };
}

/** Where each part comes from, as given by one level of settings (command line, file, one target of the file). */
export interface ChapSources {
  readonly user?: string | undefined;
  readonly secret?: string | undefined;
  readonly secretFile?: string | undefined;
  readonly mutualUser?: string | undefined;
  readonly mutualSecret?: string | undefined;
  readonly mutualSecretFile?: string | undefined;
}

export const SECRET_VARIABLE = 'ISERFS_CHAP_SECRET';
export const MUTUAL_SECRET_VARIABLE = 'ISERFS_CHAP_MUTUAL_SECRET';

/**
 * The credentials that `sources` give, the environment completing them. `variables` false: the
 * environment is not for this level. Throws `bad-configuration` where a part is missing or a file cannot be
 * read; `warn` takes a line about a file that everyone can read.
 */
export async function resolveChap(
  sources: ChapSources,
  environment: Environment,
  warn: (line: string) => void,
): Promise<ChapSettings | undefined> {
  const { user, mutualUser } = sources;
  if (user === undefined) {
    const orphan = Object.entries(sources).find(([, value]) => value !== undefined);
    if (orphan === undefined) return undefined;
    throw new UsageError(
      'a CHAP secret is given without a user',
      'Add --chap-user NAME (or chap-user in the configuration file).',
    );
  }
  const secret = await oneSecret(sources.secret, sources.secretFile, environment[SECRET_VARIABLE], warn);
  if (secret === undefined) {
    throw new UsageError(
      `no CHAP secret for user "${user}"`,
      `Give --chap-secret-file FILE, chap-secret-file in the configuration file, or the variable ${SECRET_VARIABLE}.`,
    );
  }
  if (mutualUser === undefined) {
    if (sources.mutualSecret !== undefined || sources.mutualSecretFile !== undefined) {
      throw new UsageError('a mutual CHAP secret is given without a user', 'Add --chap-mutual-user NAME.');
    }
    return { user, secret };
  }
  const mutualSecret = await oneSecret(sources.mutualSecret, sources.mutualSecretFile, environment[MUTUAL_SECRET_VARIABLE], warn);
  if (mutualSecret === undefined) {
    throw new UsageError(
      `no mutual CHAP secret for user "${mutualUser}"`,
      `Give --chap-mutual-secret-file FILE, chap-mutual-secret-file in the configuration file, or the variable ${MUTUAL_SECRET_VARIABLE}.`,
    );
  }
  if (mutualSecret === secret) {
    throw new UsageError(
      'the two CHAP secrets are the same',
      'Mutual CHAP proves nothing then: set another secret for the target.',
    );
  }
  return { user, secret, mutual: { user: mutualUser, secret: mutualSecret } };
}

/** The first line of `path`, which must be its only one. */
export async function readSecretFile(path: string, warn: (line: string) => void): Promise<string> {
  let text: string;
  let mode: number;
  try {
    mode = (await stat(path)).mode;
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw new IserfsError('bad-configuration', `cannot read the secret file ${path}: ${systemReason(error)}`, {
      hint: 'Name a file that this user can read, with the secret on one line.',
    });
  }
  const secret = text.replace(/\r?\n$/, '');
  if (secret === '') throw badChap(`the secret file ${path} is empty`, 'Write the secret into it, on one line.');
  if (/[\r\n\0]/.test(secret))
    throw badChap(`the secret file ${path} has more than one line`, 'Keep one secret in it, on one line.');
  if ((mode & 0o004) !== 0) warn(`the secret file ${path} can be read by every user of this machine; chmod 600 it`);
  return secret;
}

/** What the system said, without its call and path, which the message has already. */
export function systemReason(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const known: Readonly<Record<string, string>> = {
    ENOENT: 'no such file',
    EACCES: 'permission denied',
    EPERM: 'operation not permitted',
    EISDIR: 'it is a directory',
    ENOTDIR: 'a part of its path is not a directory',
    EROFS: 'the file system is read-only',
    ENOSPC: 'no space left',
  };
  return known[code] ?? (error instanceof Error ? error.message : String(error));
}

async function oneSecret(
  inline: string | undefined,
  file: string | undefined,
  variable: string | undefined,
  warn: (line: string) => void,
): Promise<string | undefined> {
  if (inline !== undefined) return inline;
  if (file !== undefined) return await readSecretFile(file, warn);
  return variable === undefined || variable === '' ? undefined : variable;
}

function badChap(message: string, hint: string): IserfsError {
  return new IserfsError('bad-configuration', message, { hint });
}
