/** What a provider's failures mean, as errors for people. */

import { IserfsError, ProtocolError } from '../../errors.ts';
import type { Endpoint } from '../datamover/datamover.ts';
import { formatPortal } from '../iscsi/name.ts';
import type { AddonFailure } from './addon.ts';

/** In the order of `FailureCode` in `native/provider/provider.h`. */
const kinds = [
  'none',
  'refused',
  'unreachable',
  'timed-out',
  'rejected',
  'reset',
  'peer-violation',
  'terminated',
  'resources',
  'unsupported',
  'bad-address',
] as const;
type FailureKind = (typeof kinds)[number];

/** A cause in words, where the provider gives none. */
const words: Readonly<Record<FailureKind, string>> = {
  none: 'the peer closed the connection',
  refused: 'connection refused',
  unreachable: 'no route to the host',
  'timed-out': 'timed out',
  rejected: 'the peer rejected the connection',
  reset: 'the connection was reset',
  'peer-violation': 'the peer broke the protocol',
  terminated: 'the peer ended the connection because of an error',
  resources: 'this machine has no more resources',
  unsupported: 'not supported here',
  'bad-address': 'the address cannot be used',
};

const hints: Partial<Readonly<Record<FailureKind, string>>> = {
  refused: 'Is the target running and the port right?',
  rejected: 'Does the target offer iSER at this port?',
  'peer-violation': 'Does the target offer iSER at this port?',
  reset: 'Does the target offer iSER at this port?',
  resources: 'Are there enough file descriptors and enough memory that may be locked (ulimit -n, ulimit -l)?',
};
const ANY_HINT = 'Is the target running, the address and port right, and no firewall between?';

/** Of what the addon threw: what it says of a provider's failure, or undefined where it was something else. */
export function thrownFailure(error: unknown): AddonFailure | undefined {
  if (!(error instanceof Error && 'failure' in error && typeof error.failure === 'number')) return undefined;
  return { code: error.failure, text: error.message };
}

/**
 * Why there is no connection to `endpoint`: `unreachable`, or `unsupported` where each address failed for that. One failure for
 * each address that was tried; none where there was no time for one.
 */
export function connectFault(endpoint: Endpoint, tried: readonly AddonFailure[], timeoutMs: number): IserfsError {
  const failures = tried.length > 0 ? tried : [{ code: kinds.indexOf('timed-out'), text: '' }];
  const texts = failures.map((failure) =>
    kindOf(failure) === 'timed-out' ? `timed out after ${timeoutMs} ms` : textOf(failure),
  );
  const allUnsupported = failures.every((failure) => kindOf(failure) === 'unsupported');
  const first = failures[0];
  const hint = (first === undefined ? undefined : hints[kindOf(first)]) ?? ANY_HINT;
  return new IserfsError(
    allUnsupported ? 'unsupported' : 'unreachable',
    `cannot connect to ${formatPortal(endpoint)}: ${[...new Set(texts)].join('; ')}`,
    allUnsupported ? {} : { hint },
  );
}

/** Why an incoming connection did not come about. */
export function acceptFault(remoteAddress: string, failure: AddonFailure): IserfsError {
  return new IserfsError('connection-lost', `the connection from ${remoteAddress} did not come about: ${textOf(failure)}`);
}

/** Why nobody can listen at `endpoint`. */
export function listenFault(endpoint: Endpoint, failure: AddonFailure): IserfsError {
  const message = `cannot listen on ${formatPortal(endpoint)}: ${textOf(failure)}`;
  if (kindOf(failure) === 'unsupported') return new IserfsError('unsupported', message);
  return new IserfsError('bad-configuration', message, { hint: 'Choose an address of this machine and a port that is free.' });
}

/** Why a connection ended; undefined where it was closed in order. */
export function closingFault(remoteAddress: string, failure: AddonFailure): Error | undefined {
  switch (kindOf(failure)) {
    case 'none':
      return undefined;
    case 'peer-violation':
      return new ProtocolError(`${remoteAddress}: ${textOf(failure)}`);
    default:
      return new IserfsError('connection-lost', `the connection to ${remoteAddress} was lost: ${textOf(failure)}`);
  }
}

/** Why a provider cannot be used on this machine. */
export function providerFault(what: string, failure: AddonFailure): IserfsError {
  return new IserfsError('unsupported', `${what}: ${textOf(failure)}`);
}

function kindOf({ code }: AddonFailure): FailureKind {
  return kinds[code] ?? 'reset';
}

function textOf(failure: AddonFailure): string {
  const kind = kindOf(failure);
  return failure.text === '' || kind === 'refused' ? words[kind] : failure.text;
}
