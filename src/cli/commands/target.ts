/** `iserfs target`: the embedded target in the foreground, until a signal. */

import { aborted } from '../../clock.ts';
import { writePortal } from '../../config/portal.ts';
import { formatSize } from '../../config/quantity.ts';
import { type ChapSources, resolveChap } from '../../config/secrets.ts';
import { IserfsError } from '../../errors.ts';
import type { Endpoint } from '../../iser/datamover/datamover.ts';
import type { DigestPolicy } from '../../iser/datamover/tcp.ts';
import { formatPortal } from '../../iser/iscsi/name.ts';
import { type EmbeddedPortal, EmbeddedTarget } from '../embedded-target.ts';
import { EXIT_OK } from '../output.ts';
import type { UnitSpec } from '../unit-spec.ts';
import type { CommandContext } from './context.ts';

export interface TargetArguments {
  readonly portals: readonly EmbeddedPortal[];
  readonly name: string;
  readonly units: readonly UnitSpec[];
  readonly chap: ChapSources;
  readonly headerDigest: DigestPolicy;
  readonly dataDigest: DigestPolicy;
}

export async function runTarget(args: TargetArguments, context: CommandContext): Promise<number> {
  const { output, environment } = context;
  const chap = await resolveChap(args.chap, environment, output.warn);
  const interrupts = context.interrupts();
  const target = await EmbeddedTarget.start({ ...args, chap, log: output.say });
  const names = new Set(target.units.map((unit) => unit.target));
  for (const { endpoint } of target.portals) for (const name of names) output.data(`${formatPortal(endpoint)},1 ${name}`);
  for (const { target: name, lun, backing, size, blockLength, readOnly } of target.units) {
    output.say(
      `  ${name} LUN ${lun}: ${formatSize(size)}, ${blockLength}-byte blocks, ${readOnly ? 'read-only, ' : ''}${backing}`,
    );
  }
  for (const { endpoint, transport } of target.portals) output.say(`${spoken(transport)} at ${formatPortal(endpoint)}`);
  output.say(`Mount it: iserfs mount MOUNTPOINT ${portalArguments(target.portals)}`);
  await aborted(interrupts.stop);
  output.say('Stopping; once more to stop at once.');
  await Promise.race([target.close('orderly'), aborted(interrupts.force).then(() => target.close('abrupt'))]);
  return EXIT_OK;
}

/** What a portal speaks, for people. */
export function spoken(transport: EmbeddedPortal['transport']): string {
  return transport === 'tcp' ? 'iSCSI over TCP' : `iSER over ${transport}`;
}

/** How `iserfs mount` finds a target: discovery at its first portal, data over iSER where it has that. */
export function portalArguments(portals: readonly EmbeddedPortal[]): string {
  const [first, second] = portals.map((portal) => ({ ...portal, endpoint: reachable(portal.endpoint) }));
  if (first === undefined) throw new IserfsError('internal', 'a target without a portal');
  const transport = (second ?? first).transport;
  const portal = writePortal(formatPortal(first.endpoint), second?.endpoint.port);
  return `--portal ${portal}${transport === 'tcp' ? '' : ` --transport ${transport}`}`;
}

/** A wildcard is no address to connect to. */
function reachable(endpoint: Endpoint): Endpoint {
  if (endpoint.host === '0.0.0.0') return { host: '127.0.0.1', port: endpoint.port };
  return endpoint.host === '::' ? { host: '::1', port: endpoint.port } : endpoint;
}
