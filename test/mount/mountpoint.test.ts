/**
 * Mount points with real mounts on them: of a live process, of a killed one, and of one that does not answer.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { mountAt, readMountTable } from '../../src/fuse/mount-table.ts';
import { prepareMountpoint, umount, unmountPath } from '../../src/fuse/mountpoint.ts';
import { run } from '../support/child-io.ts';

const SERVER = fileURLToPath(new URL('../support/bare-mount.mjs', import.meta.url));

let mountpoint: string;
let servers: ChildProcess[];

/** Mounts something with the type of our mounts from a process of its own. */
async function startServer(): Promise<ChildProcess> {
  const server = spawn(process.execPath, [SERVER, mountpoint], { stdio: ['ignore', 'pipe', 'inherit'] });
  servers.push(server);
  await once(server.stdout, 'data');
  return server;
}

async function killServer(server: ChildProcess): Promise<void> {
  server.kill('SIGKILL');
  if (server.exitCode === null && server.signalCode === null) await once(server, 'exit');
}

const isMounted = async () => mountAt(await readMountTable(), mountpoint) !== undefined;

beforeEach(async () => {
  mountpoint = await mkdtemp(join(tmpdir(), 'iserfs-mountpoint-'));
  servers = [];
});

afterEach(async () => {
  await Promise.all(servers.map(killServer));
  while (await isMounted()) await unmountPath(mountpoint, { lazy: true });
  await rmdir(mountpoint);
});

describe('a mount point', () => {
  it('with the mount of a killed process is healed, and said to be', async () => {
    await killServer(await startServer());
    const look = await run('stat', [mountpoint]);
    expect(look.stderr).toContain('Transport endpoint is not connected');
    expect(await prepareMountpoint(mountpoint)).toEqual({ path: mountpoint, staleMountsRemoved: 1 });
    expect(await isMounted()).toBe(false);
  });

  it('with the mount of a live process is refused, and the mount left alone', async () => {
    await startServer();
    await expect(prepareMountpoint(mountpoint)).rejects.toMatchObject({
      code: 'busy',
      hint: expect.stringContaining(`iserfs umount ${mountpoint}`),
    });
    expect((await run('ls', [mountpoint])).status).toBe(0);
  });

  it('whose server does not answer is refused in time, since it is not known to be dead', async () => {
    const server = await startServer();
    server.kill('SIGSTOP');
    const started = performance.now();
    await expect(prepareMountpoint(mountpoint, { timeoutMs: 500 })).rejects.toMatchObject({ code: 'busy' });
    expect(performance.now() - started).toBeLessThan(5000);
    expect(await isMounted()).toBe(true);
  });

  it('below a mount whose server does not answer is refused in time', async () => {
    (await startServer()).kill('SIGSTOP');
    await expect(prepareMountpoint(join(mountpoint, 'below'), { timeoutMs: 500 })).rejects.toMatchObject({
      code: 'mount-failed',
    });
  });
});

describe('an unmount from outside', () => {
  it('ends the mount of a live process', async () => {
    await startServer();
    await umount(mountpoint);
    expect(await isMounted()).toBe(false);
  });

  it('ends the mount of a killed process', async () => {
    await killServer(await startServer());
    await umount(mountpoint);
    expect(await isMounted()).toBe(false);
  });

  it('is refused while the mount is in use, but not if it is lazy', async () => {
    await startServer();
    const user = spawn('sleep', ['60'], { cwd: mountpoint, stdio: 'ignore' });
    try {
      await once(user, 'spawn');
      await expect(umount(mountpoint)).rejects.toMatchObject({ code: 'busy', hint: expect.stringContaining('--lazy') });
      expect(await isMounted()).toBe(true);
      await umount(mountpoint, { lazy: true });
      expect(await isMounted()).toBe(false);
    } finally {
      user.kill('SIGKILL');
    }
  });
});
