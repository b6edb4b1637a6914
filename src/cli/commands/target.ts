/** `iserfs target`: the embedded target in the foreground, until a signal. */

import { aborted } from '../../clock.ts';
import { formatSize } from '../../config/quantity.ts';
import { type ChapSources, resolveChap } from '../../config/secrets.ts';
import type { Endpoint } from '../../iser/datamover/datamover.ts';
import type { DigestPolicy } from '../../iser/datamover/tcp.ts';
import { formatPortal } from '../../iser/iscsi/name.ts';
import { EmbeddedTarget } from '../embedded-target.ts';
import { EXIT_OK } from '../output.ts';
import type { UnitSpec } from '../unit-spec.ts';
import type { CommandContext } from './context.ts';

export interface TargetArguments {
  readonly endpoint: Endpoint;
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
  const portal = formatPortal(target.endpoint);
  for (const name of new Set(target.units.map((unit) => unit.target))) output.data(`${portal},1 ${name}`);
  for (const { target: name, lun, backing, size, blockLength, readOnly } of target.units) {
    output.say(
      `  ${name} LUN ${lun}: ${formatSize(size)}, ${blockLength}-byte blocks, ${readOnly ? 'read-only, ' : ''}${backing}`,
    );
  }
  output.say(`Mount it: iserfs mount MOUNTPOINT --portal ${formatPortal(reachable(target.endpoint))}`);
  await aborted(interrupts.stop);
  output.say('Stopping; once more to stop at once.');
  await Promise.race([target.close('orderly'), aborted(interrupts.force).then(() => target.close('abrupt'))]);
  return EXIT_OK;
}

/** A wildcard is no address to connect to. */
function reachable(endpoint: Endpoint): Endpoint {
  if (endpoint.host === '0.0.0.0') return { host: '127.0.0.1', port: endpoint.port };
  return endpoint.host === '::' ? { host: '::1', port: endpoint.port } : endpoint;
}
