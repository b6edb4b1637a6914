import { describe, expect, it } from 'vitest';
import { together } from '../../bench/measure.ts';

describe('together', () => {
  it('adds what was done and used, and keeps the larger peak', () => {
    const one = { bytes: 10, seconds: 1, clientCpu: 0.1, targetCpu: 0.2, serverCpu: 0.3, peakMemory: 7 };
    const other = { bytes: 30, seconds: 2, clientCpu: 1, targetCpu: 2, serverCpu: 3, peakMemory: 5 };
    expect(together(one, other)).toEqual({
      bytes: 40,
      seconds: 3,
      clientCpu: 1.1,
      targetCpu: 2.2,
      serverCpu: 3.3,
      peakMemory: 7,
    });
  });

  it('has no serving process where there is none', () => {
    const one = { bytes: 10, seconds: 1, clientCpu: 0.1, targetCpu: 0.2 };
    expect(together(one, one)).toEqual({ bytes: 20, seconds: 2, clientCpu: 0.2, targetCpu: 0.4 });
  });
});
