/** What an Asynchronous Message asks of the initiator's session (RFC 7143 §11.9.1). Pure. */

import type { Lun } from '../../scsi/port.ts';
import { AsyncEvent, type Pdu } from './pdu.ts';
import { senseData } from './scsi-exchange.ts';

export type AsynchronousRequest =
  | { readonly type: 'sense'; readonly lun: Lun; readonly sense: Uint8Array }
  /** Log out within that time. */
  | { readonly type: 'log-out'; readonly withinMs: number }
  /** What the target drops, and how long it is to be left alone then (Time2Wait). */
  | { readonly type: 'dropped'; readonly what: 'connection' | 'session'; readonly waitMs: number }
  | { readonly type: 'negotiate' };

/** Undefined for what is information only: vendor-specific events, and those of a newer standard. */
export function asynchronousRequest(message: Pdu<'asynchronous-message'>): AsynchronousRequest | undefined {
  switch (message.asyncEvent) {
    case AsyncEvent['scsi-event']:
      return { type: 'sense', lun: message.lun, sense: senseData(message.data) };
    case AsyncEvent['logout-requested']:
      return { type: 'log-out', withinMs: message.parameter3 * 1000 };
    case AsyncEvent['connection-dropped']:
      return { type: 'dropped', what: 'connection', waitMs: message.parameter2 * 1000 };
    case AsyncEvent['session-dropped']:
      return { type: 'dropped', what: 'session', waitMs: message.parameter2 * 1000 };
    case AsyncEvent['negotiation-requested']:
      return { type: 'negotiate' };
    default:
      return undefined;
  }
}
