/**
 * How much memory this process may lock, which is what registering it with an RDMA device does. The kernel
 * counts it against RLIMIT_MEMLOCK, unless the process has CAP_IPC_LOCK.
 */

import { readFileSync } from 'node:fs';

const CAP_IPC_LOCK = 14n;

/** Bytes; infinite where there is no limit, or none can be found out. */
export function lockableBytes(): number {
  try {
    return lockableOf(readFileSync('/proc/self/limits', 'utf8'), readFileSync('/proc/self/status', 'utf8'));
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/** The same from the texts of proc(5). */
export function lockableOf(limits: string, status: string): number {
  const capabilities = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0';
  if (((BigInt(`0x${capabilities}`) >> CAP_IPC_LOCK) & 1n) === 1n) return Number.POSITIVE_INFINITY;
  const soft = /^Max locked memory\s+(\d+)\s/m.exec(limits)?.[1];
  return soft === undefined ? Number.POSITIVE_INFINITY : Number(soft);
}
