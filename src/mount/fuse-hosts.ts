/**
 * Which FUSE host serves a mount, for what `--fuse-host` says: our own, or the fuse-native package where that cannot be
 * had or is wanted. The only place above `src/fuse` that knows which hosts there are.
 */

import type { OptionValues } from '../config/options.ts';
import type { MountFuse } from '../fuse/host.ts';
import { mountNative, whyNotNative } from '../fuse/native-host.ts';
import { mountPortable } from '../fuse/portable-host.ts';

export interface FuseHostChoice {
  readonly name: 'native' | 'fuse-native';
  readonly mount: MountFuse;
  /** The set-user-ID program by which users other than root mount. */
  readonly helper: string;
}

const hosts: Readonly<Record<FuseHostChoice['name'], FuseHostChoice>> = {
  native: { name: 'native', mount: mountNative, helper: 'fusermount3' },
  'fuse-native': { name: 'fuse-native', mount: mountPortable, helper: 'fusermount' },
};

/** Throws `unsupported` where the native host is insisted on and cannot be had; `log` hears why `auto` does without. */
export function chooseFuseHost(wanted: OptionValues['fuse-host'], log: (line: string) => void): FuseHostChoice {
  if (wanted === 'fuse-native') return hosts['fuse-native'];
  const obstacle = whyNotNative();
  if (obstacle === undefined) return hosts.native;
  if (wanted === 'native') throw obstacle;
  log(`by fuse-native, which is slower: ${obstacle.message}`);
  return hosts['fuse-native'];
}
