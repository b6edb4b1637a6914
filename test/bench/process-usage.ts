/** What a process has used, as the kernel counts it (proc(5)): all of its threads, those that have ended too; and what nobody has. */

import { readFileSync, writeFileSync } from 'node:fs';

/** CPU time in the kernel and outside it. Resolution: a hundredth of a second. */
export function cpuSecondsOf(pid: number): number {
  const [userTicks = 0, systemTicks = 0] = statFields(pid).slice(11, 13);
  return (userTicks + systemTicks) / ticksPerSecond;
}

/** The same of all children of a process that have ended and been waited for, and theirs. */
export function childrenCpuSecondsOf(pid: number | 'self'): number {
  const [userTicks = 0, systemTicks = 0] = statFields(pid).slice(13, 15);
  return (userTicks + systemTicks) / ticksPerSecond;
}

/** The seconds that the processors had nothing to do, all of them together. Resolution: a hundredth of a second. */
export function idleSeconds(): number {
  return parseIdle(readFileSync('/proc/stat', 'utf8'));
}

/** `/proc/stat`: idle, with or without something to wait for. */
export function parseIdle(stat: string): number {
  const [, idle, waiting] = /^cpu +(?:\d+ ){3}(\d+) (\d+)/.exec(stat) ?? [];
  if (idle === undefined) throw new Error(`no time of the processors in\n${stat}`);
  return (Number(idle) + Number(waiting)) / ticksPerSecond;
}

/** Has the peak count anew from what is resident now. */
export function resetPeakMemory(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, '5');
}

export interface MemoryUse {
  /** Bytes resident now. */
  readonly resident: number;
  /** The most bytes that were, since the process began or `resetPeakMemory`. */
  readonly peak: number;
}

export function memoryOf(pid: number): MemoryUse {
  return parseMemory(readFileSync(`/proc/${pid}/status`, 'utf8'));
}

/** `/proc/PID/status` */
export function parseMemory(status: string): MemoryUse {
  const field = (name: string) => {
    const kilobytes = new RegExp(`^${name}:\\s*(\\d+) kB$`, 'm').exec(status)?.[1];
    if (kilobytes === undefined) throw new Error(`no ${name} in\n${status}`);
    return Number(kilobytes) * 1024;
  };
  return { resident: field('VmRSS'), peak: field('VmHWM') };
}

/** The fields of `/proc/PID/stat` behind the name of the program, which may have spaces and brackets in it. */
export function parseStat(stat: string): number[] {
  return stat
    .slice(stat.lastIndexOf(')') + 2)
    .trimEnd()
    .split(' ')
    .map(Number);
}

/** USER_HZ, which the kernel's interfaces count in whatever its own clock ticks at. */
const ticksPerSecond = 100;

function statFields(pid: number | 'self'): number[] {
  return parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'));
}
