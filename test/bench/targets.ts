/** The targets that everybody is measured against. All keep the LUN in memory: a file in /dev/shm, or the target's own. */

import { runChecked } from '../support/child-process.ts';
import { TargetProcess } from '../support/target-process.ts';
import { Tgtd } from '../support/tgtd.ts';
import { MiB, Workdir } from '../support/workdir.ts';
import type { TargetName } from './sample.ts';

export interface BenchTarget extends AsyncDisposable {
  readonly name: TargetName;
  readonly label: string;
  /** `HOST:PORT`, over TCP. */
  readonly portal: string;
  /** Where it speaks iSER over iWARP; undefined where it does not. */
  readonly iserPort: number | undefined;
  readonly iqn: string;
  readonly lun: number;
  readonly pid: number;
}

export const targetLabels: Readonly<Record<TargetName, string>> = {
  tgtd: 'tgtd',
  'tgtd-large': 'tgtd with MaxRecvDataSegmentLength=262144',
  embedded: "iserfs's own target",
};

/** `size`: of the LUN, bytes. `initiator`: the compiled initiator, which fills it. */
export async function startTarget(name: TargetName, size: number, initiator: string): Promise<BenchTarget> {
  const started = name === 'embedded' ? await startEmbedded(size) : await startTgtd(name, size);
  try {
    // What was never written may be read in a cheaper way.
    await runChecked(initiator, [rawUrl(started), 'write', 'sequential', String(MiB), '4', '600', String(size)], {
      timeoutMs: 600_000,
    });
    return started;
  } catch (error) {
    await started[Symbol.asyncDispose]();
    throw error;
  }
}

export function rawUrl({ portal, iqn, lun }: Pick<BenchTarget, 'portal' | 'iqn' | 'lun'>): string {
  return `iscsi://${portal}/${iqn}/${lun}`;
}

async function startTgtd(name: 'tgtd' | 'tgtd-large', size: number): Promise<BenchTarget> {
  const workdir = Workdir.create();
  const tgtd = await Tgtd.start();
  const dispose = async () => {
    await tgtd[Symbol.asyncDispose]();
    await workdir[Symbol.asyncDispose]();
  };
  try {
    const target = await tgtd.addTarget({
      luns: [{ path: workdir.sparseFile('lun', size) }],
      ...(name === 'tgtd-large' ? { keys: { MaxRecvDataSegmentLength: 262_144 } } : {}),
    });
    return {
      name,
      label: targetLabels[name],
      portal: tgtd.portal,
      iserPort: undefined,
      iqn: target.name,
      lun: target.luns[0]?.lun ?? 1,
      pid: tgtd.pid,
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

async function startEmbedded(size: number): Promise<BenchTarget> {
  const iqn = 'iqn.2026-01.io.iserfs.bench:disk';
  const target = await TargetProcess.start({ args: ['--memory', String(size), '--name', iqn], iser: 'beside' });
  return {
    name: 'embedded',
    label: targetLabels.embedded,
    portal: `127.0.0.1:${target.port}`,
    iserPort: target.iserPort,
    iqn,
    lun: 0,
    pid: target.pid,
    [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
  };
}
