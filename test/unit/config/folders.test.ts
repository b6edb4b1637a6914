import { statSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { makeFolder } from '../../../src/config/folders.ts';
import { Workdir } from '../../support/workdir.ts';

describe('a folder of this user', () => {
  it('is made with those above it, several times at once', async () => {
    await using workdir = Workdir.create();
    const path = workdir.join('a', 'b', 'c');
    await Promise.all([makeFolder(path), makeFolder(path), makeFolder(workdir.join('a', 'b', 'd'))]);
    expect(statSync(path).mode & 0o777).toBe(0o700);
  });

  it('where nobody can make one is an error at once', async () => {
    await expect(makeFolder('/proc/nope/a')).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
