/** From settings to what a login needs: the transports, the ISID, the credentials. */

import { randomBytes } from 'node:crypto';
import { type Clock, systemClock } from '../clock.ts';
import type { ChapSettings } from '../config/secrets.ts';
import type { ConnectionSettings } from '../config/settings.ts';
import type { ConnectionOptions } from '../iser/connection.ts';
import type { TransportChoice } from '../iser/datamover/transport-choice.ts';
import { type DiscoveryResult, discoverTargets } from '../iser/discovery.ts';
import type { ChapOptions } from '../iser/iscsi/login.ts';
import { makeIsid, type Portal } from '../iser/iscsi/name.ts';
import type { Transports } from './transports.ts';

/** Who logs in, and over what. */
export interface LoginWays {
  readonly initiatorName: string;
  readonly transport: TransportChoice;
  readonly chap: ChapSettings | undefined;
  readonly clock?: Clock;
}

/**
 * Options for the logins to one target, or for one discovery: each call makes an ISID of its own, so that
 * two mounts, or two targets of one mount, never take each other for the same session.
 */
export function connectionOptions(
  settings: ConnectionSettings,
  { initiatorName, transport, chap, clock = systemClock }: LoginWays,
): ConnectionOptions {
  return {
    initiatorName,
    isid: makeIsid(randomBytes(6)),
    transport,
    ...(chap === undefined ? {} : { chap: chapOptions(chap) }),
    loginTimeoutMs: settings.options['login-timeout'],
    clock,
    random: (length) => randomBytes(length),
  };
}

export interface Discovery extends DiscoveryResult {
  /** What carried the question. */
  readonly transport: string;
}

/** SendTargets at `portal`. The target's own proof is not asked for: what the portal says is proved when the target itself logs us in. */
export async function discover(
  settings: ConnectionSettings,
  {
    initiatorName,
    transports,
    signal,
  }: { readonly initiatorName: string; readonly transports: Transports; readonly signal: AbortSignal },
  portal: Portal,
): Promise<Discovery> {
  const chap = settings.chap === undefined ? undefined : { user: settings.chap.user, secret: settings.chap.secret };
  const transport = transports.forDiscovery();
  const result = await discoverTargets(connectionOptions(settings, { initiatorName, transport, chap }), portal, signal);
  return { ...result, transport: transport.name };
}

/** Credentials as a login takes them. */
export function chapOptions({ user, secret, mutual }: ChapSettings): ChapOptions {
  const encode = (text: string) => new TextEncoder().encode(text);
  return {
    credentials: { user, secret: encode(secret) },
    ...(mutual === undefined ? {} : { mutual: { user: mutual.user, secret: encode(mutual.secret) } }),
  };
}
