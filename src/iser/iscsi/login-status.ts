/**
 * The status classes and details of a Login Response (RFC 7143 §11.13.5), and what each means for the
 * user. One table.
 */

import { type ErrorCode, LoginError } from '../../errors.ts';

interface StatusRow {
  readonly text: string;
  readonly code: ErrorCode;
  readonly hint?: string;
}

/** Status class and detail in one number: 0x0201. */
const rows: ReadonlyMap<number, StatusRow> = new Map<number, StatusRow>([
  [0x0000, { text: 'success', code: 'internal' }],
  [0x0101, { text: 'target moved temporarily', code: 'login-refused' }],
  [0x0102, { text: 'target moved permanently', code: 'login-refused' }],
  [0x0200, { text: 'the target calls the login request faulty', code: 'login-refused' }],
  [0x0201, { text: 'authentication failed', code: 'authentication-failed' }],
  [
    0x0202,
    {
      text: 'this initiator may not use the target',
      code: 'login-refused',
      hint: "Add the initiator name (and address) to the target's access list.",
    },
  ],
  [
    0x0203,
    {
      text: 'target not found',
      code: 'target-not-found',
      hint: 'Check the target name with `iserfs discover`. Some targets also answer this where the initiator is not on the access list.',
    },
  ],
  [0x0204, { text: 'the target has been removed, with no new address', code: 'target-not-found' }],
  [0x0205, { text: 'the target does not speak this version of iSCSI', code: 'unsupported' }],
  [0x0206, { text: 'too many connections in this session', code: 'login-refused' }],
  [0x0207, { text: 'the target misses a parameter', code: 'login-refused' }],
  [0x0208, { text: 'the target cannot add the connection to the session', code: 'login-refused' }],
  [0x0209, { text: 'the target does not support this type of session', code: 'unsupported' }],
  [0x020a, { text: 'the session does not exist any more', code: 'login-refused' }],
  [0x020b, { text: 'the target calls the request invalid during login', code: 'login-refused' }],
  [0x0300, { text: 'target error', code: 'busy' }],
  [
    0x0301,
    {
      text: 'the service is unavailable at present',
      code: 'busy',
      hint: 'LIO also answers this where it has no target of that name: check it with `iserfs discover`.',
    },
  ],
  [0x0302, { text: 'the target is out of resources', code: 'busy' }],
]);

/** What a detail that is not in the table means by its class alone. */
const classes: Readonly<Record<number, StatusRow>> = {
  1: { text: 'redirection', code: 'login-refused' },
  2: { text: 'initiator error', code: 'login-refused' },
  3: { text: 'target error', code: 'busy' },
};

export const LoginStatus = {
  success: { statusClass: 0x00, statusDetail: 0x00 },
  movedTemporarily: { statusClass: 0x01, statusDetail: 0x01 },
  movedPermanently: { statusClass: 0x01, statusDetail: 0x02 },
  initiatorError: { statusClass: 0x02, statusDetail: 0x00 },
  authenticationFailed: { statusClass: 0x02, statusDetail: 0x01 },
  targetNotFound: { statusClass: 0x02, statusDetail: 0x03 },
  unsupportedVersion: { statusClass: 0x02, statusDetail: 0x05 },
  tooManyConnections: { statusClass: 0x02, statusDetail: 0x06 },
  missingParameter: { statusClass: 0x02, statusDetail: 0x07 },
  unsupportedSessionType: { statusClass: 0x02, statusDetail: 0x09 },
  sessionDoesNotExist: { statusClass: 0x02, statusDetail: 0x0a },
  invalidDuringLogin: { statusClass: 0x02, statusDetail: 0x0b },
  targetError: { statusClass: 0x03, statusDetail: 0x00 },
  serviceUnavailable: { statusClass: 0x03, statusDetail: 0x01 },
  outOfResources: { statusClass: 0x03, statusDetail: 0x02 },
} as const satisfies Record<string, { statusClass: number; statusDetail: number }>;

/** A status in words, the numbers after it: `target not found (login status 0203)`. */
export function loginStatusText(statusClass: number, statusDetail: number): string {
  return withNumbers(rowFor(statusClass, statusDetail).text, statusClass, statusDetail);
}

/** The error that a status other than success stands for. What the caller knows better replaces what the table has. */
export function loginError(
  statusClass: number,
  statusDetail: number,
  particular: { readonly code?: ErrorCode; readonly text?: string; readonly explanation?: string; readonly hint?: string } = {},
): LoginError {
  const row = rowFor(statusClass, statusDetail);
  const text = withNumbers(particular.text ?? row.text, statusClass, statusDetail);
  const message = particular.explanation === undefined ? text : `${text}: ${particular.explanation}`;
  return new LoginError(particular.code ?? row.code, message, { statusClass, statusDetail }, particular.hint ?? row.hint);
}

function rowFor(statusClass: number, statusDetail: number): StatusRow {
  return rows.get(statusClass * 256 + statusDetail) ?? classes[statusClass] ?? { text: 'unknown status', code: 'protocol-error' };
}

function withNumbers(text: string, statusClass: number, statusDetail: number): string {
  const numbers = [statusClass, statusDetail].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return `${text} (login status ${numbers})`;
}
