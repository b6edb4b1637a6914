import { describe, expect, it, vi } from 'vitest';
import { configurationPaths, stateDirectory } from '../../../src/config/xdg.ts';

vi.mock('node:os', () => ({
  homedir: () => {
    throw new Error('A system error occurred: uv_os_homedir returned ENOENT');
  },
}));

describe('a user without a home folder', () => {
  it('is told what to set', () => {
    expect(() => stateDirectory({})).toThrow(
      expect.objectContaining({ message: 'this user has no home folder', hint: expect.stringContaining('Set HOME') }),
    );
  });

  it('may say where its files are', () => {
    expect(stateDirectory({ XDG_STATE_HOME: '/s' })).toBe('/s/iserfs');
    expect(configurationPaths({ HOME: '/h' })).toContain('/h/.config/iserfs/config.yaml');
  });
});
