import { describe, expect, it } from 'vitest';
import { mountAt, mountOver, parseMountTable, readMountTable } from '../../../src/fuse/mount-table.ts';

/** The first line is the example of proc(5); the others were read from /proc/self/mountinfo of Linux 6.18. */
const TABLE = [
  '36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue',
  '43 27 0:40 / /tmp/iserfs\\040host\\040gvD6eS rw,nosuid,nodev,relatime - fuse.iserfs host,\\040contract rw,user_id=0,group_id=0',
  '44 43 0:41 / /tmp/iserfs\\040host\\040gvD6eS rw,relatime shared:7 master:2 - tmpfs none rw',
  '45 27 0:42 / /tmp/back\\134slash rw - fuse.sshfs a@b: rw',
  '',
].join('\n');

describe('the table of mounts', () => {
  it('is read with and without optional fields', () => {
    expect(parseMountTable(TABLE)[0]).toEqual({
      id: 36,
      device: '98:0',
      mountpoint: '/mnt2',
      fileSystemType: 'ext3',
      source: '/dev/root',
    });
    expect(parseMountTable(TABLE)).toHaveLength(4);
  });

  it('is read with what is escaped in it', () => {
    expect(parseMountTable(TABLE)[1]).toMatchObject({ mountpoint: '/tmp/iserfs host gvD6eS', source: 'host, contract' });
    expect(parseMountTable(TABLE)[3]?.mountpoint).toBe('/tmp/back\\slash');
  });

  it('leaves out lines that are not understood', () => {
    expect(parseMountTable('nonsense\n1 2 3\n')).toEqual([]);
  });

  it('shows the last of several mounts at one place, and none elsewhere', () => {
    const table = parseMountTable(TABLE);
    expect(mountAt(table, '/tmp/iserfs host gvD6eS')?.fileSystemType).toBe('tmpfs');
    expect(mountAt(table, '/tmp')).toBeUndefined();
  });

  it('shows the deepest mount that a path lies in', () => {
    const table = parseMountTable(TABLE);
    expect(mountOver(table, '/tmp/iserfs host gvD6eS/lun0/image')?.fileSystemType).toBe('tmpfs');
    expect(mountOver(table, '/mnt2')?.fileSystemType).toBe('ext3');
    expect(mountOver(table, '/mnt22')).toBeUndefined();
    expect(mountOver(parseMountTable(`${TABLE}1 0 8:1 / / rw - ext4 root rw`), '/mnt22')?.fileSystemType).toBe('ext4');
  });

  it('is that of this process', async () => {
    expect(mountAt(await readMountTable(), '/proc')?.fileSystemType).toBe('proc');
  });
});
