import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { fileNameFor, isServing, MountRecords, processStart } from '../../../src/cli/mount-record.ts';
import { Workdir } from '../../support/workdir.ts';

describe('the record of a mount', () => {
  it('is kept per mount point until it is removed', async () => {
    await using workdir = Workdir.create();
    const records = new MountRecords({ XDG_STATE_HOME: workdir.path });
    const record = { mountpoint: '/mnt/a', pid: 1, processStart: '5', log: undefined };
    await records.write(record);
    await records.write({ ...record, mountpoint: '/mnt/b', failure: 'it broke' });
    expect(await records.read('/mnt/a')).toEqual({ mountpoint: '/mnt/a', pid: 1, processStart: '5' });
    expect((await records.list()).map(({ mountpoint, failure }) => [mountpoint, failure])).toEqual([
      ['/mnt/a', undefined],
      ['/mnt/b', 'it broke'],
    ]);
    await records.remove('/mnt/a');
    expect(await records.read('/mnt/a')).toBeUndefined();
  });

  it('that is damaged counts as none', async () => {
    await using workdir = Workdir.create();
    workdir.folder('iserfs/mounts');
    workdir.file(`iserfs/mounts/${fileNameFor('/mnt/a')}.json`, '{"mountpoint": "/mnt/a", "pid"');
    const records = new MountRecords({ XDG_STATE_HOME: workdir.path });
    expect(await records.read('/mnt/a')).toBeUndefined();
    expect(await records.list()).toEqual([]);
  });

  it('has a file name of its own, whatever the mount point is called', () => {
    const names = ['/mnt/a', '/srv/a', '/', '/mnt/ä b\n', `/mnt/${'x'.repeat(250)}`].map(fileNameFor);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^[A-Za-z0-9._-]{1,60}$/);
  });
});

describe('the process of a record', () => {
  it('serves while it lives, and another one with its number does not', async () => {
    const child = spawn('sleep', ['30']);
    await once(child, 'spawn');
    const pid = child.pid as number;
    const start = (await processStart(pid)) as string;
    const record = { mountpoint: '/mnt/a', pid, processStart: start, log: undefined };
    expect(await isServing(record)).toBe(true);
    expect(await isServing({ ...record, processStart: `${start}1` })).toBe(false);
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(await isServing(record)).toBe(false);
  });
});
