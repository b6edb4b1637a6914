/**
 * A SAN of a thousand targets through the built command line: the tree is there at once, and a session only where
 * somebody has looked.
 */

import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run, runChecked, waitFor } from '../support/child-process.ts';
import { MountProcess, runCli } from '../support/cli-process.ts';
import { TargetProcess } from '../support/target-process.ts';
import { Workdir } from '../support/workdir.ts';

const NAME = 'iqn.2026-01.org.example:san';
const MiB = 1024 * 1024;
const MOST_MEMORY = 200 * MiB;

interface Status {
  readonly sessions: number;
  readonly cache: { readonly poolBytesAllocated: number };
  readonly targets: readonly { readonly name: string; readonly state: string; readonly problem: string | null }[];
}

async function statusOf(mountpoint: string): Promise<Status> {
  return JSON.parse(await runChecked('cat', [join(mountpoint, 'status.json')])) as Status;
}

/** Connections to a port of this machine, as the kernel counts them: whatever the mount says of itself. */
function connectionsTo(port: number): number {
  const peer = `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const ESTABLISHED = '01';
  return readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[2] === peer && fields[3] === ESTABLISHED).length;
}

function residentBytes(pid: number): number {
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kilobytes) * 1024;
}

/** What the process takes besides the data memory of the cache. */
async function memoryBesidesCache(mount: MountProcess): Promise<number> {
  const { cache } = await statusOf(mount.mountpoint);
  return residentBytes(mount.pid) - cache.poolBytesAllocated;
}

describe('a mount of a thousand targets', () => {
  it('is there within 5 s, logs in only where somebody looks, and stays small even where somebody looks everywhere', async () => {
    await using workdir = Workdir.create();
    await using target = await TargetProcess.start({ args: ['--name', NAME, '--targets', '1000', '--memory', '4M'] });
    const mountpoint = workdir.folder('mnt');
    const startedAt = performance.now();
    await using mount = await MountProcess.start({ mountpoint, args: ['--portal', target.portal] });
    expect(performance.now() - startedAt).toBeLessThan(5000);
    await waitFor(async () => mount.stderr.includes('1000 targets'), { withinMs: 5000, what: 'its word on it' });

    const name = (number: number) => `${NAME}-${String(number).padStart(4, '0')}`;
    const names = await runChecked('ls', [mountpoint]);
    expect(names.trim().split('\n')).toHaveLength(1003);
    expect(names).toContain(name(1000));
    await runChecked('ls', ['-l', mountpoint]);
    await runChecked('find', [mountpoint, '-maxdepth', '1']);
    await runChecked('cat', [join(mountpoint, 'status'), join(mountpoint, 'metrics')]);
    const listing = await runCli(['ls', mountpoint]);
    expect(listing.stdout).toContain(`${mountpoint}/${name(7)} not-connected\n`);
    expect(connectionsTo(target.port)).toBe(0);
    expect((await statusOf(mountpoint)).sessions).toBe(0);

    const image = join(mountpoint, name(500), 'lun0', 'image');
    expect(await runChecked('sha256sum', [image])).toContain('bb9f8df61474d25e71fa00722318cd387396ca1736605e1248821cc0de3d3af8');
    expect(connectionsTo(target.port)).toBe(1);
    const { sessions, targets } = await statusOf(mountpoint);
    expect(sessions).toBe(1);
    expect(targets.find(({ state }) => state !== 'not-connected')).toMatchObject({ name: name(500), state: 'logged-in' });
    expect(await memoryBesidesCache(mount)).toBeLessThan(MOST_MEMORY);

    const info = await runCli(['info', mountpoint, '--target', name(7)]);
    expect(info.stdout).toContain(`target: ${name(7)}\nlun: 0\n`);
    expect(connectionsTo(target.port)).toBe(2);

    // Somebody walks through everything.
    const luns = await runChecked('find', [mountpoint, '-mindepth', '2', '-maxdepth', '2', '-name', 'lun0'], {
      timeoutMs: 90_000,
    });
    expect(luns.trim().split('\n')).toHaveLength(1000);
    expect(connectionsTo(target.port)).toBe(1000);
    await runChecked('cat', [join(mountpoint, 'metrics')]);
    expect(await memoryBesidesCache(mount)).toBeLessThan(MOST_MEMORY);
    expect((await mount.stop()).status).toBe(0);
    expect(connectionsTo(target.port)).toBe(0);
  });
});

describe('a target that does not answer', () => {
  it('keeps only those waiting who look into it, and says why', async () => {
    await using workdir = Workdir.create();
    await using target = await TargetProcess.start({ args: ['--name', NAME, '--targets', '20', '--memory', '4M'] });
    const silent = createServer((socket) => socket.on('error', () => {}).resume());
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const address = silent.address();
    const port = typeof address === 'object' ? address?.port : undefined;
    const dead = `${NAME}-dead`;
    const names = Array.from({ length: 20 }, (_, index) => `${NAME}-${String(index + 1).padStart(2, '0')}`);
    const config = workdir.file(
      'config.yaml',
      [
        'login-timeout: 5s',
        'targets:',
        ...names.map((name) => `  - { name: "${name}", portals: ["${target.portal}"] }`),
        `  - { name: "${dead}", portals: ["127.0.0.1:${port}"] }`,
      ].join('\n'),
    );
    const mountpoint = workdir.folder('mnt');
    await using mount = await MountProcess.start({ mountpoint, args: ['--config', config] });
    let isOver = false;
    const looking = run('ls', [join(mountpoint, dead)]).finally(() => {
      isOver = true;
    });
    await waitFor(async () => connectionsTo(port ?? 0) > 0, { withinMs: 5000, what: 'the login to the silent portal' });
    // All the others at the same time, more than may log in at once.
    const looks = names.map((name) => runChecked('ls', [join(mountpoint, name, 'lun0')]));
    for (const look of looks) expect(await look).toContain('image');
    expect(isOver).toBe(false);
    const outcome = await looking;
    expect(outcome.stdout).toBe('status\nstatus.json\n');
    expect(outcome.elapsedMs).toBeLessThan(12_000);
    expect(await runChecked('cat', [join(mountpoint, dead, 'status')])).toMatch(/^state: unavailable\nproblem: /m);
    expect((await statusOf(mountpoint)).sessions).toBe(20);
    // Left alone for a while: this look is answered at once.
    expect((await run('ls', [join(mountpoint, dead)])).elapsedMs).toBeLessThan(2000);
    expect((await mount.stop()).status).toBe(0);
    await new Promise((resolve) => silent.close(resolve));
  });
});
