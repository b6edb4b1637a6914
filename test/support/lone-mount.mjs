// @ts-check
/**
 * Serves an image from memory with the native host, and has nothing else to do: no timer, no socket and no stream holds its event
 * loop. It answers writes a while after they have come, and ends with the mount.
 *
 *   node lone-mount.mjs MOUNTPOINT      says `ready` on standard output
 */

import { writeSync } from 'node:fs';
import { mountNative } from '../../dist/fuse/native-host.js';

const SIZE = 1024 * 1024;
const ANSWERED_AFTER_MS = 500;

const [mountpoint = ''] = process.argv.slice(2);

/** @type {import('../../dist/fuse/host.js').FuseUpcalls} */
const upcalls = {
  requests: (batch) => {
    for (const request of batch) {
      if (request.op === 'write') setTimeout(() => request.done(request.data.length), ANSWERED_AFTER_MS).unref();
      else request.done(0);
    }
  },
  render: async () => new Uint8Array(),
  expand: async () => {},
  interrupted: () => {},
  failed: (error) => console.error(error),
};

const host = await mountNative({
  mountpoint,
  upcalls,
  uid: process.getuid?.() ?? 0,
  gid: process.getgid?.() ?? 0,
  allowOther: false,
  readOnly: false,
  source: 'lone',
});
host.setEntries([
  {
    kind: 'image',
    inode: 2,
    parent: 1,
    name: 'image',
    mode: 0o600,
    size: SIZE,
    pageCache: 'direct',
    modifiedMs: 0,
  },
]);
writeSync(1, 'ready\n');
await host.closed;
