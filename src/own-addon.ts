/** Loads what `npm run build:native` has built, and says in words why it cannot be used where that is so. */

import { createRequire } from 'node:module';
import { IserfsError } from './errors.ts';

export interface OwnAddon {
  /** In messages: `the FUSE addon`. */
  readonly title: string;
  /** In `native/build`. */
  readonly file: string;
  /** What it must say of itself. */
  readonly version: number;
  /** What it must export. */
  readonly functions: readonly string[];
}

/** From `src` and from `dist` alike. */
const FOLDER = '../native/build/';

/** What the addon exports, which is as `addon` says. Throws `unsupported` where there is none that can be used. */
export function loadOwnAddon(addon: OwnAddon): unknown {
  const require = createRequire(import.meta.url);
  let exported: unknown;
  try {
    exported = require(FOLDER + addon.file);
  } catch (error) {
    const isMissing = error instanceof Error && 'code' in error && error.code === 'MODULE_NOT_FOUND';
    const reason = !isMissing && error instanceof Error ? `: ${error.message.split('\n')[0]}` : '';
    throw unusable(addon, isMissing ? 'is not built' : `does not load${reason}`);
  }
  if (!isAsSaid(exported, addon)) throw otherVersion(addon);
  return exported;
}

export function otherVersion(addon: OwnAddon): IserfsError {
  return unusable(addon, 'is of another version');
}

function unusable({ title }: OwnAddon, what: string): IserfsError {
  return new IserfsError('unsupported', `${title} ${what}`, { hint: 'Build it with `npm run build:native`.' });
}

function isAsSaid(exported: unknown, { version, functions }: OwnAddon): boolean {
  if (typeof exported !== 'object' || exported === null) return false;
  const members = exported as Readonly<Record<string, unknown>>;
  return members['version'] === version && functions.every((name) => typeof members[name] === 'function');
}
