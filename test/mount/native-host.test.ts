import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { unmountPath } from '../../src/fuse/mountpoint.ts';
import { mountNative } from '../../src/fuse/native-host.ts';
import { runSuccessfully } from '../support/child-io.ts';
import { hostAbilities } from './host-abilities.ts';
import { hostContract } from './host-contract.ts';

const LONE_MOUNT = fileURLToPath(new URL('../support/lone-mount.mjs', import.meta.url));

hostContract('the native host', mountNative);
hostAbilities('the native host', mountNative, { largestRequest: 1024 * 1024, readsInFlight: 300 });

describe('a process that only serves a mount', () => {
  it('goes on when there are more writes than memory for them, and ends with the mount', async () => {
    const mountpoint = await mkdtemp(join(tmpdir(), 'iserfs-lone-'));
    const server = spawn(process.execPath, [LONE_MOUNT, mountpoint], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await once(server.stdout, 'data');
      const writers =
        'for i in $(seq 80); do dd if=/dev/zero of="$0" bs=4k count=1 seek=$i conv=notrunc status=none & done; wait';
      const { length } = await runSuccessfully('sh', ['-c', `${writers}; echo done`, join(mountpoint, 'image')]);
      expect(length).toBe('done\n'.length);
      expect(server.exitCode).toBeNull();
      const exited = once(server, 'exit');
      await unmountPath(mountpoint, { lazy: false });
      expect(await exited).toEqual([0, null]);
    } finally {
      server.kill('SIGKILL');
      await unmountPath(mountpoint, { lazy: true });
      await rmdir(mountpoint);
    }
  });
});
