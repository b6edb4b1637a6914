/**
 * Error classes. Every error that leaves a module is an `IserfsError` whose `code` says what kind of
 * failure it is; numbers that belong to one side (errno, exit status, sense bytes) are made from the
 * code at that side's edge and nowhere else. Messages name the portal, the target and the LUN where
 * they are known and never hold a secret.
 */

/** What went wrong, in one word. `src/fuse/errno.ts`, `src/problem.ts` and `src/cli/output.ts` are the only places that translate it. */
export type ErrorCode =
  | 'aborted'
  | 'authentication-failed'
  | 'bad-configuration'
  | 'busy'
  | 'command-timeout'
  | 'connection-lost'
  | 'data-lost'
  | 'hardware-error'
  | 'illegal-request'
  | 'internal'
  | 'login-refused'
  | 'logical-unit-changed'
  | 'logical-unit-gone'
  | 'medium-error'
  | 'mount-failed'
  | 'no-space'
  | 'not-permitted'
  | 'not-ready'
  | 'out-of-range'
  | 'protocol-error'
  | 'recovery-timeout'
  | 'reservation-conflict'
  | 'target-not-found'
  | 'unreachable'
  | 'unsupported'
  | 'write-protected';

/** Base of all errors that iserfs throws on purpose. */
export class IserfsError extends Error {
  readonly code: ErrorCode;
  /** What the user can do about it, a sentence; shown after the message by the command line. */
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown; hint?: string }) {
    super(message, options?.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.hint = options?.hint;
  }
}

/** What is asked for cannot be understood, contradicts itself or is incomplete: exit status 2. */
export class UsageError extends IserfsError {
  constructor(message: string, hint?: string) {
    super('bad-configuration', message, hint === undefined ? undefined : { hint });
  }
}

/** The peer broke the protocol: the connection that carried it must be dropped. */
export class ProtocolError extends IserfsError {
  /** The clause that the peer broke, such as `RFC 7143 §11.8`, where one is known. */
  readonly clause: string | undefined;

  constructor(message: string, clause?: string) {
    super('protocol-error', clause === undefined ? message : `${message} (${clause})`);
    this.clause = clause;
  }
}

/** The target ended the login with a status other than success (RFC 7143 §11.13.5). */
export class LoginError extends IserfsError {
  readonly statusClass: number;
  readonly statusDetail: number;

  constructor(code: ErrorCode, message: string, status: { statusClass: number; statusDetail: number }, hint?: string) {
    super(code, message, hint === undefined ? undefined : { hint });
    this.statusClass = status.statusClass;
    this.statusDetail = status.statusDetail;
  }
}

/** The I_T nexus went away under a command, or was not there. */
export class NexusLostError extends IserfsError {
  /** Whether any part of the command reached the wire, so that the target may have executed it, or still may. */
  readonly mayHaveExecuted: boolean;

  constructor(message: string, options: { mayHaveExecuted: boolean; cause?: unknown }) {
    super('connection-lost', message, options.cause === undefined ? undefined : { cause: options.cause });
    this.mayHaveExecuted = options.mayHaveExecuted;
  }
}

/** `error.code` of an `IserfsError`, `'internal'` for anything else. */
export function errorCode(error: unknown): ErrorCode {
  return error instanceof IserfsError ? error.code : 'internal';
}

/** One line that says what `error` is, its causes included. */
export function describeError(error: unknown): string {
  let text = messageOf(error);
  for (let cause = causeOf(error); cause !== undefined; cause = causeOf(cause)) {
    const why = reasonOf(cause, text);
    if (!text.includes(why)) text += `: ${why}`;
  }
  return text;
}

/** The same, after `where`, of which nothing is said twice. */
export function describeAt(where: string, error: unknown): string {
  const text = describeError(error);
  const end = text.indexOf(': ');
  return `${where}: ${end > 0 && where.startsWith(text.slice(0, end)) ? text.slice(end + 2) : text}`;
}

/** What a cause adds to `text`: of the system's words not its call and path again, where the path has been said. */
function reasonOf(cause: unknown, text: string): string {
  const message = messageOf(cause);
  if (!(cause instanceof Error && 'path' in cause && typeof cause.path === 'string' && text.includes(cause.path))) return message;
  return /^E[A-Z0-9]+: (.+), \w+ '/.exec(message)?.[1] ?? message;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function causeOf(error: unknown): unknown {
  return error instanceof Error ? error.cause : undefined;
}
