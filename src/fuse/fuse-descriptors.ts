/**
 * This process's descriptors of /dev/fuse. libfuse 2 opens them so that children inherit them, and a
 * child that holds one keeps the connection alive when this process dies: whoever waits for an answer
 * then waits for ever. So a process that serves a mount starts children only with `stdioWithoutFuse`.
 */

import { fstatSync, readdirSync, readlinkSync } from 'node:fs';

/** Device number of /dev/fuse: major 10, minor 229. */
const FUSE_DEVICE = (10 << 8) | 229;

type Stdio = 'ignore' | 'pipe' | 'inherit';

/** Descriptors of /dev/fuse that are open in this process now. */
export function fuseDescriptors(): number[] {
  return readdirSync('/proc/self/fd').map(Number).filter(isFuseDescriptor);
}

/** The link's text is looked at first: fstat(2) of a file on a hung file system would hang as well. */
export function isFuseDescriptor(descriptor: number): boolean {
  try {
    if (!/\/fuse( \(deleted\))?$/.test(readlinkSync(`/proc/self/fd/${descriptor}`))) return false;
    return fstatSync(descriptor).rdev === FUSE_DEVICE;
  } catch {
    return false;
  }
}

/** The option `stdio` of `spawn` that puts /dev/null where the child would inherit a descriptor of /dev/fuse. */
export function stdioWithoutFuse(stdio: readonly [Stdio, Stdio, Stdio]): Stdio[] {
  const highest = Math.max(2, ...fuseDescriptors());
  return [...stdio, ...new Array<Stdio>(highest - 2).fill('ignore')];
}
