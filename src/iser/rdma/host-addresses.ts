/** The addresses of an endpoint: RDMA takes numeric ones only. */

import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { IserfsError } from '../../errors.ts';
import type { Endpoint } from '../datamover/datamover.ts';
import { connectionError } from '../datamover/socket-fault.ts';
import { formatPortal } from '../iscsi/name.ts';

/**
 * All addresses of `endpoint.host`, in the order of the system's preference; at least one. Rejects with
 * `unreachable` where the name is not known, or not within `timeoutMs`, and with `aborted`.
 */
export async function addressesOf(endpoint: Endpoint, signal: AbortSignal | undefined, timeoutMs: number): Promise<string[]> {
  if (signal?.aborted) throw abortedError(endpoint, signal);
  if (isIP(endpoint.host) !== 0) return [endpoint.host];
  const found = lookUp(endpoint);
  // The system's look-up cannot be cut short: its answer may come late, and is not waited for.
  let timer: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  const cut = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(timeoutError(endpoint, timeoutMs)), timeoutMs);
    onAbort = () => reject(abortedError(endpoint, signal));
    signal?.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([found, cut]);
  } finally {
    clearTimeout(timer);
    if (onAbort !== undefined) signal?.removeEventListener('abort', onAbort);
  }
}

/** `connect` says that it was aborted in the same words. */
export function abortedError(endpoint: Endpoint, signal: AbortSignal | undefined): IserfsError {
  return new IserfsError('aborted', `connecting to ${formatPortal(endpoint)} was aborted`, { cause: signal?.reason });
}

async function lookUp(endpoint: Endpoint): Promise<string[]> {
  try {
    return (await lookup(endpoint.host, { all: true })).map(({ address }) => address);
  } catch (error) {
    throw connectionError(formatPortal(endpoint), error instanceof Error ? error : new Error(String(error)));
  }
}

function timeoutError(endpoint: Endpoint, timeoutMs: number): IserfsError {
  return new IserfsError(
    'unreachable',
    `cannot connect to ${formatPortal(endpoint)}: the name was not looked up within ${timeoutMs} ms`,
    { hint: 'Does name resolution work on this machine?' },
  );
}
