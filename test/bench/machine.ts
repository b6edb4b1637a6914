/** Where it was measured, for the report. */

import { cpus, release, totalmem } from 'node:os';
import { run } from '../support/child-process.ts';

export type MachineDescription = Readonly<Record<string, string>>;

export async function describeMachine(begun: Date): Promise<MachineDescription> {
  const processors = cpus();
  return {
    date: begun.toISOString().slice(0, 10),
    processor: `${processors.length} × ${processors[0]?.model.trim() ?? 'unknown'}`,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    kernel: `Linux ${release()}`,
    node: process.versions.node,
    qemu: await versionOf('qemu-storage-daemon', ['--version'], /version (\S+)/),
    tgtd: await versionOf('tgtd', ['--version'], /(\d[\d.]+)/),
    fio: await versionOf('fio', ['--version'], /fio-(\S+)/),
    libiscsi: await versionOf('dpkg-query', ['-W', 'libiscsi7'], /\t(\S+)/),
    libfuse3: await versionOf('dpkg-query', ['-W', 'libfuse3-3'], /\t(\S+)/),
  };
}

async function versionOf(command: string, args: readonly string[], pattern: RegExp): Promise<string> {
  try {
    const { stdout, stderr } = await run(command, args, { timeoutMs: 5000 });
    return pattern.exec(stdout + stderr)?.[1] ?? 'unknown';
  } catch {
    return 'unknown';
  }
}
