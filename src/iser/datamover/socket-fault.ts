/** What sockets have to say, in words for people: error codes, and the addresses of their ends. */

import type { Socket } from 'node:net';
import { IserfsError } from '../../errors.ts';
import { formatPortal } from '../iscsi/name.ts';

const texts: Readonly<Record<string, string>> = {
  EACCES: 'not permitted',
  EADDRINUSE: 'the address is in use',
  EADDRNOTAVAIL: 'no such address on this machine',
  EAI_AGAIN: 'the name cannot be looked up at present',
  ECONNABORTED: 'the connection was aborted',
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'the connection was reset',
  EHOSTDOWN: 'the host is down',
  EHOSTUNREACH: 'no route to the host',
  EMFILE: 'too many open files',
  ENETDOWN: 'the network is down',
  ENETUNREACH: 'no route to the network',
  ENOTFOUND: 'the name was not found',
  EPERM: 'not permitted, perhaps by a firewall of this machine',
  EPIPE: 'the peer closed the connection',
  ETIMEDOUT: 'timed out',
};

const hints: Readonly<Record<string, string>> = {
  EAI_AGAIN: 'Does name resolution work on this machine?',
  ECONNREFUSED: 'Is the target running and the port right?',
  ENOTFOUND: 'Is the host name spelled right?',
};
const ANY_HINT = 'Is the target running, the address and port right, and no firewall between?';

/** What `error` says, in words. Where several addresses were tried, each kind of failure once. */
export function faultText(error: Error): string {
  if (error instanceof AggregateError && error.errors.length > 0) {
    return [...new Set(error.errors.map((each: Error) => faultText(each)))].join('; ');
  }
  const code = codeOf(error);
  return (code === undefined ? undefined : texts[code]) ?? error.message;
}

/** Why there is no connection to `peer`. */
export function connectionError(peer: string, error: Error): IserfsError {
  const first = error instanceof AggregateError ? (error.errors[0] as Error | undefined) : error;
  const code = first === undefined ? undefined : codeOf(first);
  return new IserfsError('unreachable', `cannot connect to ${peer}: ${faultText(error)}`, {
    hint: (code === undefined ? undefined : hints[code]) ?? ANY_HINT,
  });
}

/** Why there is no connection to `peer` any more. */
export function connectionLost(peer: string, error: Error): IserfsError {
  return new IserfsError('connection-lost', `the connection to ${peer} was lost: ${faultText(error)}`);
}

/** `ADDRESS:PORT` of the two ends. */
export function socketAddresses(socket: Socket): { readonly local: string; readonly remote: string } {
  return {
    local: formatPortal({ host: plainAddress(socket.localAddress), port: socket.localPort ?? 0 }),
    remote: formatPortal({ host: plainAddress(socket.remoteAddress), port: socket.remotePort ?? 0 }),
  };
}

/** Without the form that IPv4 addresses have on an IPv6 socket. */
function plainAddress(address: string | undefined): string {
  return address?.replace(/^::ffff:(?=\d+\.)/, '') ?? '';
}

function codeOf(error: Error): string | undefined {
  const { code } = error as NodeJS.ErrnoException;
  return typeof code === 'string' ? code : undefined;
}
