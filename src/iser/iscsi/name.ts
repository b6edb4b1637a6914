/**
 * Names and addresses of iSCSI nodes: iSCSI names (RFC 7143 §4.2.7), portals, and what an initiator makes
 * for itself (a name, an ISID). A name that passes `isValidIscsiName` may stand as one component of a
 * path and in a log line. Pure: resolves nothing.
 */

import { IserfsError, ProtocolError } from '../../errors.ts';

/** Longest iSCSI name, in bytes of UTF-8. */
export const MAX_NAME_LENGTH = 223;
/** The port that IANA assigned to iSCSI. */
export const ISCSI_PORT = 3260;

/** A network portal: where a target listens, with the portal group tag where it is known. */
export interface Portal {
  /** Host name, IPv4 address, or IPv6 address without brackets. */
  readonly host: string;
  readonly port: number;
  /** The port at which iSER is to be tried, where that is another one. */
  readonly iserPort?: number;
  readonly tpgt?: number;
}

const IQN = /^iqn\.\d{4}-(?:0[1-9]|1[0-2])\.(.+)$/i;
const EUI = /^eui\.[0-9a-f]{16}$/i;
const NAA = /^naa\.(?:[0-9a-f]{16}|[0-9a-f]{32})$/i;
/** Control, format and unassigned code points, surrogates, every kind of space, and the separators of paths. */
const UNSAFE = /[\p{C}\p{Z}/\\]/u;

/**
 * Whether `text` is an iSCSI name: `iqn.YYYY-MM.AUTHORITY[:STRING]`, `eui.` and 16 hex digits, or `naa.`
 * and 16 or 32. Characters that RFC 3722 leaves out but deployed targets use (capitals, `_`) are let
 * through; spaces, control and formatting characters and slashes never are.
 */
export function isValidIscsiName(text: string): boolean {
  if (UNSAFE.test(text) || new TextEncoder().encode(text).length > MAX_NAME_LENGTH) return false;
  return IQN.test(text) || EUI.test(text) || NAA.test(text);
}

/**
 * The form in which two names are compared (RFC 3722: case folded, NFKC). Only for comparing: on the
 * wire a name goes as its owner wrote it, since targets compare bytes.
 */
export function normalizeIscsiName(name: string): string {
  return name.normalize('NFKC').toLowerCase().normalize('NFKC');
}

/** Reads `HOST[:PORT]`, `[IPV6][:PORT]` or a bare IPv6 address. Throws `bad-configuration`. */
export function parsePortal(text: string, defaultPort: number = ISCSI_PORT): Portal {
  const portal = splitPortal(text, defaultPort);
  if (portal === undefined) {
    throw new IserfsError('bad-configuration', `${JSON.stringify(text)} is no portal`, {
      hint: 'Write HOST, HOST:PORT, or [IPV6]:PORT.',
    });
  }
  return portal;
}

/** `HOST:PORT`, an IPv6 address in brackets. */
export function formatPortal(portal: { readonly host: string; readonly port: number }): string {
  return portal.host.includes(':') ? `[${portal.host}]:${portal.port}` : `${portal.host}:${portal.port}`;
}

/** Whether both are the same address, whatever their portal groups. */
export function isSamePortal(one: Portal, other: Portal): boolean {
  return one.host === other.host && one.port === other.port;
}

/** Reads a TargetAddress, `HOST[:PORT][,TPGT]` (RFC 7143 §13.8). Throws `ProtocolError`. */
export function parseTargetAddress(text: string): Portal {
  const comma = text.lastIndexOf(',');
  const portal = splitPortal(comma < 0 ? text : text.slice(0, comma), ISCSI_PORT);
  const tag = comma < 0 ? undefined : parseDecimal(text.slice(comma + 1), 0xffff);
  if (portal === undefined || (comma >= 0 && tag === undefined)) {
    throw new ProtocolError(`TargetAddress ${JSON.stringify(text.slice(0, 300))} is no portal`, 'RFC 7143 §13.8');
  }
  return tag === undefined ? portal : { ...portal, tpgt: tag };
}

/** A new initiator name from at least 6 random bytes. */
export function makeInitiatorName(randomBytes: Uint8Array): string {
  if (randomBytes.length < 6) throw new RangeError('an initiator name needs 6 random bytes');
  return `iqn.2026-01.org.iserfs:${hex(randomBytes.subarray(0, 12))}`;
}

/** An ISID of type "random" (RFC 7143 §11.12.5: T = 10b) from at least 5 random bytes, as a 48-bit number. */
export function makeIsid(random: Uint8Array): number {
  if (random.length < 5) throw new RangeError('an ISID needs 5 random bytes');
  return random.subarray(0, 5).reduce((isid, byte) => isid * 256 + byte, 0x80);
}

/** An ISID in 12 hex digits, as logs and `status` show it. */
export function formatIsid(isid: number): string {
  return isid.toString(16).padStart(12, '0');
}

function splitPortal(text: string, defaultPort: number): Portal | undefined {
  const bracketed = /^\[([^\]]*)\](?::(.*))?$/.exec(text);
  if (bracketed !== null) return makePortal(bracketed[1] ?? '', bracketed[2], defaultPort, isIpv6);
  const colons = text.split(':').length - 1;
  if (colons > 1) return makePortal(text, undefined, defaultPort, isIpv6);
  const [host = '', port] = text.split(':');
  return makePortal(host, port, defaultPort, isHost);
}

function makePortal(
  host: string,
  portText: string | undefined,
  defaultPort: number,
  isRight: (host: string) => boolean,
): Portal | undefined {
  const port = portText === undefined ? defaultPort : parseDecimal(portText, 0xffff);
  return port === undefined || port === 0 || !isRight(host) ? undefined : { host, port };
}

/** A host name (letters beyond ASCII are left to the resolver) or a dotted IPv4 address. */
function isHost(text: string): boolean {
  return text.length <= 255 && /^[\p{L}\p{N}_](?:[\p{L}\p{N}_.-]*[\p{L}\p{N}_.])?$/u.test(text);
}

/** An IPv6 address (RFC 4291 §2.2), with an IPv4 tail and a zone where it has them. */
function isIpv6(text: string): boolean {
  const match = /^([0-9a-f:]*?)((?:\d{1,3}\.){3}\d{1,3})?(?:%[\w.-]+)?$/i.exec(text);
  if (match === null) return false;
  const [, hexPart = '', ipv4] = match;
  if (ipv4 !== undefined && (!hexPart.endsWith(':') || ipv4.split('.').some((octet) => Number(octet) > 255))) return false;
  const groupsOf = (part: string) => (part === '' ? [] : part.split(':'));
  // Before an IPv4 tail the last colon separates, unless it is the second of a "::".
  const groupsText = ipv4 !== undefined && !hexPart.endsWith('::') ? hexPart.slice(0, -1) : hexPart;
  const halves = groupsText.split('::');
  if (halves.length > 2) return false;
  const groups = halves.flatMap(groupsOf);
  if (groups.some((group) => !/^[0-9a-f]{1,4}$/i.test(group))) return false;
  const count = groups.length + (ipv4 === undefined ? 0 : 2);
  return halves.length === 2 ? count <= 7 : count === 8;
}

function parseDecimal(text: string, most: number): number | undefined {
  return /^\d{1,5}$/.test(text) && Number(text) <= most ? Number(text) : undefined;
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
