import { describe, expect, it } from 'vitest';
import { IserBuffers } from '../../../../src/iser/datamover/iser-buffers.ts';
import { MemoryArenas } from '../../../../src/iser/rdma/memory-arenas.ts';
import { MAX_RUN } from '../../../../src/scsi/buffer-pool.ts';

describe('message buffers', () => {
  it('are as long as asked, in registered memory, and overlap nowhere', () => {
    const arenas = new MemoryArenas();
    const buffers = new IserBuffers(arenas, 8527);
    const taken = Array.from({ length: 300 }, () => buffers.acquireMessage());
    expect(buffers.messagesInUse).toBe(300);
    for (const [index, { bytes }] of taken.entries()) {
      expect([bytes.length, arenas.owns(bytes.buffer)]).toEqual([8527, true]);
      bytes.fill(index + 1);
    }
    for (const [index, { bytes }] of taken.entries()) expect(bytes.every((byte) => byte === ((index + 1) & 0xff))).toBe(true);
    // 15 fit into 128 KiB, 240 into an arena.
    expect(arenas.count).toBe(2);
    for (const buffer of taken) buffer.release();
    expect([buffers.messagesInUse, buffers.bytesInRuns]).toEqual([0, 0]);
  });

  it('are taken again once they are released', () => {
    const buffers = new IserBuffers(new MemoryArenas(), 9000);
    const first = buffers.acquireMessage();
    first.release();
    expect(buffers.acquireMessage()).toBe(first);
  });

  it('have one owner', () => {
    const buffer = new IserBuffers(new MemoryArenas(), 9000).acquireMessage();
    buffer.release();
    expect(() => buffer.release()).toThrow(/released twice/);
  });

  it('may be longer than what they are otherwise cut from', () => {
    const arenas = new MemoryArenas();
    const buffers = new IserBuffers(arenas, 263_000);
    const taken = [buffers.acquireMessage(), buffers.acquireMessage()];
    expect(taken.map(({ bytes }) => bytes.length)).toEqual([263_000, 263_000]);
    expect(buffers.bytesInRuns).toBe(0);
    for (const buffer of taken) buffer.release();
    expect(buffers.bytesInRuns).toBe(0);
  });
});

describe('runs', () => {
  it.each([1, 4097, MAX_RUN, MAX_RUN + 1, 4 * MAX_RUN])(
    'of %i bytes are in registered memory until they are released',
    (length) => {
      const arenas = new MemoryArenas();
      const buffers = new IserBuffers(arenas, 9000);
      const run = buffers.acquireRun(length);
      expect([run.bytes.length, arenas.owns(run.bytes.buffer)]).toEqual([length, true]);
      run.release();
      expect(buffers.bytesInRuns).toBe(0);
      if (length > MAX_RUN) expect(arenas.count).toBe(0);
    },
  );
});
