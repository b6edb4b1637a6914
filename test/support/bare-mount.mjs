/**
 * A process that mounts an empty directory of the type of our mounts at the path given, says so, and
 * serves it until it is killed. Plain JavaScript on fuse-native itself, so that it needs no build.
 */

import Fuse from 'fuse-native';

const [mountpoint = ''] = process.argv.slice(2);

class BareFuse extends Fuse {
  /** @override */
  _fuseOptions() {
    return '-osubtype=iserfs,fsname=bare';
  }
}

const attributes = {
  mode: 0o40755,
  size: 0,
  ino: 1,
  nlink: 2,
  uid: 0,
  gid: 0,
  blksize: 4096,
  blocks: 0,
  atime: 0,
  mtime: 0,
  ctime: 0,
};
const fuse = new BareFuse(
  mountpoint,
  {
    getattr: (path, callback) => (path === '/' ? callback(0, attributes) : callback(-2)),
    readdir: (_path, callback) => callback(0, [], []),
  },
  { timeout: false },
);
fuse.mount((error) => {
  if (error) throw error;
  process.stdout.write('mounted\n');
});
