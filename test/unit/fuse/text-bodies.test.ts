import { beforeEach, describe, expect, it } from 'vitest';
import { TextBodies } from '../../../src/fuse/text-bodies.ts';

const INODE = 4;
let nowMs: number;
let renderings: number;
let fail: boolean;

const create = (direct: boolean) =>
  new TextBodies({
    direct,
    now: () => nowMs,
    render: async () => {
      renderings++;
      if (fail) throw new Error('no text');
      return Buffer.from(`body ${renderings}`);
    },
  });
const textOf = (bodies: TextBodies, handle: number) => Buffer.from(bodies.read(handle, 0, 100) ?? []).toString();

beforeEach(() => {
  nowMs = 1_000_000;
  renderings = 0;
  fail = false;
});

describe.each([{ direct: true }, { direct: false }])('texts with direct $direct', ({ direct }) => {
  it('are rendered at each open', async () => {
    const bodies = create(direct);
    for (const [handle, expected] of [
      [1, 'body 1'],
      [2, 'body 2'],
    ] as const) {
      await bodies.open(INODE, handle);
      expect(textOf(bodies, handle)).toBe(expected);
      bodies.flushed(handle);
      bodies.release(handle);
      expect(bodies.has(handle)).toBe(false);
      expect(bodies.read(handle, 0, 1)).toBeUndefined();
    }
  });

  it('are read in pieces, up to the end', async () => {
    const bodies = create(direct);
    await bodies.open(INODE, 1);
    expect(Buffer.from(bodies.read(1, 2, 3) ?? []).toString()).toBe('dy ');
    expect(Buffer.from(bodies.read(1, 5, 10) ?? []).toString()).toBe('1');
    expect(bodies.read(1, 6, 10)).toHaveLength(0);
    expect(bodies.read(1, 600, 10)).toHaveLength(0);
  });

  it('have the length of the newest body, rendered once before the first open', async () => {
    const bodies = create(direct);
    expect(await Promise.all([bodies.length(INODE), bodies.length(INODE)])).toEqual([6, 6]);
    expect(renderings).toBe(1);
    renderings = 9;
    await bodies.open(INODE, 1);
    expect(await bodies.length(INODE)).toBe('body 10'.length);
  });

  it('that cannot be rendered are not open, and are tried again', async () => {
    const bodies = create(direct);
    fail = true;
    await expect(bodies.open(INODE, 1)).rejects.toThrow('no text');
    await expect(bodies.length(INODE)).rejects.toThrow('no text');
    expect(bodies.has(1)).toBe(false);
    fail = false;
    await bodies.open(INODE, 1);
    expect(textOf(bodies, 1)).toBe('body 3');
  });

  it('stay with their handles when the file goes', async () => {
    const bodies = create(direct);
    await bodies.open(INODE, 1);
    bodies.forget(INODE);
    expect(textOf(bodies, 1)).toBe('body 1');
  });
});

describe('handles that are open together', () => {
  it('have bodies of their own where the kernel keeps nothing', async () => {
    const bodies = create(true);
    await bodies.open(INODE, 1);
    await bodies.open(INODE, 2);
    expect([textOf(bodies, 1), textOf(bodies, 2)]).toEqual(['body 1', 'body 2']);
    await Promise.all([bodies.open(INODE, 3), bodies.open(INODE, 4)]);
    expect(new Set([textOf(bodies, 3), textOf(bodies, 4)]).size).toBe(2);
  });

  it('share a fresh body where it keeps pages', async () => {
    const bodies = create(false);
    await Promise.all([bodies.open(INODE, 1), bodies.open(INODE, 2)]);
    nowMs += 900;
    await bodies.open(INODE, 3);
    expect([1, 2, 3].map((handle) => textOf(bodies, handle))).toEqual(['body 1', 'body 1', 'body 1']);
  });

  it('all see the newest where the older one is stale', async () => {
    const bodies = create(false);
    await bodies.open(INODE, 1);
    nowMs += 1000;
    await bodies.open(INODE, 2);
    expect([1, 2].map((handle) => textOf(bodies, handle))).toEqual(['body 2', 'body 2']);
  });

  it('are no reason to share once they have been closed', async () => {
    const bodies = create(false);
    await bodies.open(INODE, 1);
    bodies.flushed(1);
    await bodies.open(INODE, 2);
    expect(textOf(bodies, 2)).toBe('body 2');
  });

  it('share nothing with another file', async () => {
    const bodies = create(false);
    await bodies.open(INODE, 1);
    await bodies.open(INODE + 1, 2);
    expect([textOf(bodies, 1), textOf(bodies, 2)]).toEqual(['body 1', 'body 2']);
  });
});
