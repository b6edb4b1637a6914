/**
 * From settings to what a login needs: the transport, the ISID, the credentials. The only place above
 * `src/iser` that knows which transports there are.
 */

import { randomBytes } from 'node:crypto';
import { type Clock, systemClock } from '../clock.ts';
import type { OptionValues } from '../config/options.ts';
import type { ChapSettings } from '../config/secrets.ts';
import type { ConnectionSettings } from '../config/settings.ts';
import { IserfsError } from '../errors.ts';
import type { ConnectionOptions } from '../iser/connection.ts';
import type { InitiatorTransport } from '../iser/datamover/datamover.ts';
import { createTcpTransport, type DigestPolicy } from '../iser/datamover/tcp.ts';
import { type DiscoveryResult, discoverTargets } from '../iser/discovery.ts';
import type { ChapOptions } from '../iser/iscsi/login.ts';
import { makeIsid, type Portal } from '../iser/iscsi/name.ts';

/** The transport that the options ask for. Throws `unsupported` where there is none. */
export function transportFor(options: OptionValues): InitiatorTransport {
  const { transport } = options;
  if (transport !== 'auto' && transport !== 'tcp') {
    throw new IserfsError('unsupported', `this version has no transport "${transport}"`, { hint: 'Use --transport tcp.' });
  }
  return createTcpTransport({ headerDigest: options['header-digest'], dataDigest: options['data-digest'] });
}

/**
 * Options for the logins to one target, or for one discovery: each call makes an ISID of its own, so that
 * two mounts, or two targets of one mount, never take each other for the same session.
 */
export function connectionOptions(
  settings: ConnectionSettings,
  initiatorName: string,
  chap: ChapSettings | undefined,
  clock: Clock = systemClock,
): ConnectionOptions {
  return {
    initiatorName,
    isid: makeIsid(randomBytes(6)),
    transport: transportFor(settings.options),
    ...(chap === undefined ? {} : { chap: chapOptions(chap) }),
    loginTimeoutMs: settings.options['login-timeout'],
    clock,
    random: (length) => randomBytes(length),
  };
}

/**
 * SendTargets at `portal`. What must have digests and the target's own proof are the sessions that follow: most
 * portals answer discovery with neither, and what they say is proved when the target itself logs us in.
 */
export async function discover(
  settings: ConnectionSettings,
  initiatorName: string,
  portal: Portal,
  signal: AbortSignal,
): Promise<DiscoveryResult> {
  const { 'header-digest': headerDigest, 'data-digest': dataDigest } = settings.options;
  const options: OptionValues = {
    ...settings.options,
    'header-digest': lenient(headerDigest),
    'data-digest': lenient(dataDigest),
  };
  const chap = settings.chap === undefined ? undefined : { user: settings.chap.user, secret: settings.chap.secret };
  return await discoverTargets(connectionOptions({ ...settings, options }, initiatorName, chap), portal, signal);
}

/** A portal that has no digests is taken as it is; so is one that insists on them. */
function lenient(policy: DigestPolicy): DigestPolicy {
  return policy === 'require' ? 'prefer' : policy;
}

/** Credentials as a login takes them. */
export function chapOptions({ user, secret, mutual }: ChapSettings): ChapOptions {
  const encode = (text: string) => new TextEncoder().encode(text);
  return {
    credentials: { user, secret: encode(secret) },
    ...(mutual === undefined ? {} : { mutual: { user: mutual.user, secret: encode(mutual.secret) } }),
  };
}
