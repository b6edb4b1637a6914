/** Which text stands in which file of the tree: from a place in it and the present snapshot to the body. */

import { IserfsError } from '../errors.ts';
import type { TextSource } from '../fuse/tree.ts';
import { renderMetrics } from './metrics.ts';
import { type Rendering, renderJson, renderLunInfo, renderLunStatus, renderMount, renderTarget } from './render.ts';
import type { MountSnapshot } from './snapshot.ts';

export function renderText(source: TextSource, mount: MountSnapshot): string {
  if (source.file === 'metrics') return renderMetrics(mount);
  const { text, json } = rendering(source, mount);
  return source.file.endsWith('.json') ? renderJson(json) : text;
}

function rendering(source: TextSource, mount: MountSnapshot): Rendering {
  if (source.target === undefined) return renderMount(mount);
  const target = mount.targets.find(({ name }) => name === source.target);
  if (target === undefined) throw gone(source);
  if (source.lun === undefined) return renderTarget(target);
  const lun = target.luns.find(({ label }) => label === source.lun);
  if (lun === undefined) throw gone(source);
  return source.file.startsWith('info') ? renderLunInfo(target.name, lun) : renderLunStatus(target.name, lun);
}

function gone({ target, lun }: TextSource): IserfsError {
  return new IserfsError('logical-unit-gone', `${target}${lun === undefined ? '' : ` LUN ${lun}`} is not there any more`);
}
