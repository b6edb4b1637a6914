/** `iserfs discover PORTAL`: which targets a portal offers. */

import { type CommandLineSettings, resolveSettings } from '../../config/settings.ts';
import { IserfsError } from '../../errors.ts';
import { formatPortal } from '../../iser/iscsi/name.ts';
import { discover } from '../../mount/sessions.ts';
import { Transports } from '../../mount/transports.ts';
import { EXIT_OK } from '../output.ts';
import { type CommandContext, initiatorNameFor } from './context.ts';

export interface DiscoverArguments {
  readonly settings: CommandLineSettings;
  readonly json: boolean;
}

export async function runDiscover(args: DiscoverArguments, context: CommandContext): Promise<number> {
  const { output, environment } = context;
  const { settings } = await resolveSettings(args.settings, environment, output.warn);
  const initiatorName = await initiatorNameFor(settings, context);
  const { stop } = context.interrupts();
  const how = { initiatorName, transports: new Transports(settings.options), signal: stop };
  const results = await Promise.all(settings.discover.map((portal) => discover(settings, how, portal)));
  const targets = results.flatMap((result) => result.targets);
  for (const [index, { oddities }] of results.entries()) {
    const portal = settings.discover[index];
    for (const oddity of oddities)
      output.warn(`${portal === undefined ? 'the portal' : formatPortal(portal)} ${oddity}: left out`);
  }
  if (args.json) {
    output.json(
      targets.map(({ name, portals }) => ({
        name,
        portals: portals.map((portal) => ({ address: formatPortal(portal), portalGroupTag: portal.tpgt ?? null })),
      })),
    );
    return EXIT_OK;
  }
  if (targets.length === 0) {
    throw new IserfsError(
      'target-not-found',
      `${settings.discover.map(formatPortal).join(', ')} offers no targets to ${initiatorName}`,
      {
        hint: 'The target may have to be told this initiator name (an access list), or be given --initiator-name.',
      },
    );
  }
  for (const { name, portals } of targets) {
    for (const portal of portals)
      output.data(`${formatPortal(portal)}${portal.tpgt === undefined ? '' : `,${portal.tpgt}`} ${name}`);
  }
  return EXIT_OK;
}
