import { describe, expect, it } from 'vitest';
import { isChosen, parseBuild, parseOptions } from '../../bench/options.ts';

describe('the command line of the benchmark', () => {
  it('measures everything of this build by default', async () => {
    const options = await parseOptions([]);
    expect(options).toMatchObject({ rounds: 5, seconds: 2, contestants: undefined, targets: ['tgtd', 'tgtd-large', 'embedded'] });
    expect(options.builds.map(({ name }) => name)).toEqual(['iserfs']);
  });

  it('takes less of everything when it is to be quick, unless it is told how much', async () => {
    expect(await parseOptions(['--quick', '--rounds', '7'])).toMatchObject({ rounds: 7, seconds: 1, size: 128 * 2 ** 20 });
  });

  it('takes workloads in its own order, and refuses what is none', async () => {
    expect((await parseOptions(['--only', 'reread,seq-read'])).only).toEqual(['seq-read', 'reread']);
    await expect(parseOptions(['--only', 'seq-reed'])).rejects.toThrow('seq-reed');
  });

  it('gives the common flags to every build', async () => {
    const { builds } = await parseOptions([
      '--iserfs',
      'a=/a.js',
      '--iserfs',
      'b=/b.js,--shared',
      '--iserfs-flags=--cache-size 1G',
    ]);
    expect(builds.map(({ flags }) => flags)).toEqual([
      ['--cache-size', '1G'],
      ['--shared', '--cache-size', '1G'],
    ]);
  });
});

it('a build has a name, a path and flags', () => {
  expect(parseBuild('old=/tmp/dist/cli.js,--fuse-host fuse-native')).toEqual({
    name: 'old',
    cliPath: '/tmp/dist/cli.js',
    flags: ['--fuse-host', 'fuse-native'],
  });
  expect(() => parseBuild('/tmp/dist/cli.js')).toThrow('NAME=');
});

it.each([
  ['iserfs/tcp', ['iserfs'], true],
  ['old/tcp', ['iserfs'], true],
  ['old/tcp', ['old'], true],
  ['old/iwarp', ['tcp'], false],
  ['old/iwarp', ['old/iwarp'], true],
  ['qemu', ['iserfs'], false],
  ['ceiling-deep', ['ceiling'], false],
  ['qemu', undefined, true],
])('%s is chosen by %s: %s', (name, names, expected) => {
  expect(isChosen(name, names)).toBe(expected);
});
