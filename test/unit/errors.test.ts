import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { describeAt, describeError, IserfsError } from '../../src/errors.ts';

function failureToRead(path: string): unknown {
  try {
    return readFileSync(path);
  } catch (error) {
    return error;
  }
}

describe('an error in one line', () => {
  it('has the words of its causes', () => {
    const lost = new IserfsError('connection-lost', 'no session', { cause: new Error('no route') });
    expect(describeError(new IserfsError('mount-failed', 'no mount', { cause: lost }))).toBe('no mount: no session: no route');
  });

  it('does not say twice what a cause repeats', () => {
    expect(describeError(new Error('a: broken', { cause: new Error('broken') }))).toBe('a: broken');
  });

  it('says the path of a file once, and of a system error the words', () => {
    const cause = failureToRead('/nowhere/disk.img');
    expect(describeError(new IserfsError('bad-configuration', 'cannot open /nowhere/disk.img', { cause }))).toBe(
      'cannot open /nowhere/disk.img: no such file or directory',
    );
  });

  it('keeps the path of a system error where nothing else names it', () => {
    const cause = failureToRead('/nowhere/disk.img');
    expect(describeError(new Error('no disk', { cause }))).toContain('/nowhere/disk.img');
  });
});

describe('an error with its place', () => {
  it.each([
    ['a place that it does not name', 'no route', 'disks at san:3260 LUN 0: no route'],
    ['the place that it names', 'disks at san:3260 LUN 0: no route', 'disks at san:3260 LUN 0: no route'],
    ['a part of the place', 'disks at san:3260: no route', 'disks at san:3260 LUN 0: no route'],
    ['another place', 'tapes at san:3260: no route', 'disks at san:3260 LUN 0: tapes at san:3260: no route'],
  ])('%s', (_what, message, line) => {
    expect(describeAt('disks at san:3260 LUN 0', new Error(message))).toBe(line);
  });
});
