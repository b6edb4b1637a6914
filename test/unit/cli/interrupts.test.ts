import { EventEmitter } from 'node:events';
import { describe, expect, it } from 'vitest';
import { listenForInterrupts } from '../../../src/cli/interrupts.ts';

describe('signals', () => {
  it.each(['SIGINT', 'SIGTERM', 'SIGHUP'])('%s asks to stop, and another one insists', (name) => {
    const process = new EventEmitter();
    const { stop, force } = listenForInterrupts(process);
    process.emit(name);
    expect([stop.aborted, force.aborted]).toEqual([true, false]);
    process.emit('SIGTERM');
    expect(force.aborted).toBe(true);
  });

  it('a terminal that is closed does not insist: the shell and the kernel both say so', () => {
    const process = new EventEmitter();
    const { stop, force } = listenForInterrupts(process);
    process.emit('SIGHUP');
    process.emit('SIGHUP');
    expect([stop.aborted, force.aborted]).toEqual([true, false]);
  });
});
