/** Codes of the target's answers in words, for messages. */

import { RejectReason, TaskManagementResponseCode } from './pdu.ts';

/** A task management response (RFC 7143 §11.6.1): `no such lun`. */
export function managementText(response: number): string {
  return nameIn(TaskManagementResponseCode, response) ?? `response ${response}`;
}

/** The reason of a Reject (RFC 7143 §11.17.1): `invalid pdu field`. */
export function rejectText(reason: number): string {
  return nameIn(RejectReason, reason) ?? `reason 0x${reason.toString(16)}`;
}

function nameIn(table: Readonly<Record<string, number>>, wanted: number): string | undefined {
  return Object.entries(table)
    .find(([, code]) => code === wanted)?.[0]
    .replaceAll('-', ' ');
}
