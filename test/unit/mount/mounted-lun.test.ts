import { describe, expect, it } from 'vitest';
import { IserfsError } from '../../../src/errors.ts';
import { MountedLun } from '../../../src/mount/mounted-lun.ts';
import { BlockCache } from '../../../src/scsi/block-cache.ts';
import { BufferPool } from '../../../src/scsi/buffer-pool.ts';
import { LogicalUnit } from '../../../src/scsi/logical-unit.ts';
import { connectionSettings } from '../../support/connection-settings.ts';
import { ThinPort } from '../../support/thin-port.ts';

/** Of a mount, without a tree. */
async function attached(port: ThinPort): Promise<MountedLun> {
  const pool = new BufferPool();
  const cache = new BlockCache({ pool, bytes: 1024 * 1024, readahead: 0 });
  const unit = await LogicalUnit.attach(port, 0n, {
    pool,
    readOnly: false,
    commandTimeoutMs: 30_000,
    awaitsFence: () => true,
  });
  const mounted = new MountedLun('iqn.2024-01.com.example:db', 0n, {
    settings: connectionSettings(),
    cache,
    changed: () => {},
    outdated: () => {},
  });
  mounted.attached(unit, () => {});
  return mounted;
}

describe('the problem of a logical unit', () => {
  it('is none where it had an error and is ready, which still says what the error was', async () => {
    const mounted = await attached(new ThinPort({ size: 1024 * 1024 }));
    mounted.noteDeferredError(new IserfsError('medium-error', 'a deferred error'));
    expect(mounted.snapshot()).toMatchObject({
      state: 'ready',
      problem: undefined,
      counters: { errors: 1, lastError: expect.stringContaining('a deferred error') },
    });
    await mounted.close();
  });

  it('names the next step where another unit has come in its place', async () => {
    let serial = 0x41;
    const editPage = (page: number, body: Uint8Array) => {
      if (page === 0x80) body.fill(serial);
    };
    const mounted = await attached(new ThinPort({ size: 1024 * 1024, editPage }));
    serial++;
    mounted.unit?.revalidate();
    await expect.poll(() => mounted.snapshot().state).toBe('failed');
    expect(mounted.snapshot().problem).toEqual({
      text: expect.stringContaining('is another logical unit now'),
      hint: expect.stringContaining('mount again'),
    });
    await mounted.close();
  });
});
