import { describe, expect, it } from 'vitest';
import { throwIfAborted } from '../../../src/scsi/abort.ts';
import { Cancellation } from '../../../src/scsi/cancellation.ts';

describe('a cancellation', () => {
  it('aborts the signal that was asked for before, once', () => {
    const cancellation = new Cancellation();
    let aborts = 0;
    cancellation.signal.addEventListener('abort', () => aborts++);
    throwIfAborted(cancellation);
    cancellation.abort();
    cancellation.abort();
    expect([aborts, cancellation.isAborted, cancellation.signal.aborted]).toEqual([1, true, true]);
  });

  it('gives a signal that is aborted to whoever asks later', () => {
    const cancellation = new Cancellation();
    cancellation.abort();
    expect(cancellation.isAborted).toBe(true);
    expect(cancellation.signal.aborted).toBe(true);
    expect(cancellation.signal).toBe(cancellation.signal);
    expect(() => throwIfAborted(cancellation)).toThrow(cancellation.signal.reason);
  });
});
