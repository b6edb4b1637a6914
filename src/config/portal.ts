/**
 * A portal as people write it: an address, and behind a comma where it offers iSER, if that is another
 * port: `192.0.2.10`, `san:3260,iser-port=3261`. Pure; resolves nothing.
 */

import { IserfsError } from '../errors.ts';
import { type Portal, parsePortal } from '../iser/iscsi/name.ts';

export const PORT_FORM = 'a port from 1 to 65535';

const SETTING = /^(.*),\s*iser-port=(.*)$/;

/** Reads `HOST[:PORT][,iser-port=PORT]`. Throws `bad-configuration`. */
export function readPortal(text: string): Portal {
  const match = SETTING.exec(text);
  if (match === null) return parsePortal(text);
  const iserPort = parsePort(match[2] ?? '');
  if (iserPort === undefined) throw new IserfsError('bad-configuration', `${text}: iser-port: expected ${PORT_FORM}`);
  return { ...parsePortal(match[1] ?? ''), iserPort };
}

/** A portal as `readPortal` takes it. */
export function writePortal(address: string, iserPort: number | undefined): string {
  return iserPort === undefined ? address : `${address},iser-port=${iserPort}`;
}

export function parsePort(text: string): number | undefined {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  return port >= 1 && port <= 0xffff ? port : undefined;
}

/** `portals`, with `iserPort` for those that do not name one themselves. */
export function withIserPort(portals: readonly Portal[], iserPort: number | undefined): readonly Portal[] {
  if (iserPort === undefined) return portals;
  return portals.map((portal) => (portal.iserPort === undefined ? { ...portal, iserPort } : portal));
}
