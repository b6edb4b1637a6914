import { expect, it } from 'vitest';
import { cpuSecondsOf, memoryOf, parseIdle, parseMemory, parseStat, resetPeakMemory } from '../../bench/process-usage.ts';

it('the name of a program may have spaces and brackets in it', () => {
  expect(parseStat('12 (a) b) (c)) S 1 2 3\n').slice(1)).toEqual([1, 2, 3]);
});

it('memory is in bytes', () => {
  expect(parseMemory('Name:\tnode\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n')).toEqual({ peak: 2 ** 21, resident: 2 ** 20 });
});

it('processors that wait for a disk are idle, too', () => {
  expect(parseIdle('cpu  10 20 30 4000 500 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n')).toBe(45);
});

it('a process that works uses CPU time', () => {
  const before = cpuSecondsOf(process.pid);
  const until = performance.now() + 60;
  while (performance.now() < until);
  expect(cpuSecondsOf(process.pid)).toBeGreaterThan(before);
});

it('the peak can be counted anew, and is never below what is resident', () => {
  resetPeakMemory(process.pid);
  const { resident, peak } = memoryOf(process.pid);
  expect(peak).toBeGreaterThanOrEqual(resident);
});
