/** Which text stands in which file of the tree: from a place in it and the present snapshot to the body. */

import { IserfsError } from '../errors.ts';
import type { TextSource } from '../fuse/tree.ts';
import { renderMetrics } from './metrics.ts';
import { type Rendering, renderJson, renderLunInfo, renderLunStatus, renderMount, renderTarget } from './render.ts';
import type { MountSnapshot, TargetSnapshot } from './snapshot.ts';

/** How things are now: only what a text is about is looked at, since there may be a thousand targets. */
export interface Present {
  mount(): MountSnapshot;
  target(name: string): TargetSnapshot | undefined;
}

export function renderText(source: TextSource, present: Present): string {
  if (source.file === 'metrics') return renderMetrics(present.mount());
  const { text, json } = rendering(source, present);
  return source.file.endsWith('.json') ? renderJson(json) : text;
}

function rendering(source: TextSource, present: Present): Rendering {
  if (source.target === undefined) return renderMount(present.mount());
  const target = present.target(source.target);
  if (target === undefined) throw gone(source);
  if (source.lun === undefined) return renderTarget(target);
  const lun = target.luns.find(({ label }) => label === source.lun);
  if (lun === undefined) throw gone(source);
  return source.file.startsWith('info') ? renderLunInfo(target.name, lun) : renderLunStatus(target.name, lun);
}

function gone({ target, lun }: TextSource): IserfsError {
  return new IserfsError('logical-unit-gone', `${target}${lun === undefined ? '' : ` LUN ${lun}`} is not there any more`);
}
