import { describe, expect, it } from 'vitest';
import { IserfsError } from '../../../src/errors.ts';
import { MountedLun } from '../../../src/mount/mounted-lun.ts';
import { BlockCache } from '../../../src/scsi/block-cache.ts';
import { BufferPool } from '../../../src/scsi/buffer-pool.ts';
import { LogicalUnit } from '../../../src/scsi/logical-unit.ts';
import { connectionSettings } from '../../support/connection-settings.ts';
import { ThinPort } from '../../support/thin-port.ts';

describe('a logical unit that had an error and is ready', () => {
  it('has no problem, and still says what the error was', async () => {
    const pool = new BufferPool();
    const cache = new BlockCache({ pool, bytes: 1024 * 1024, readahead: 0 });
    const unit = await LogicalUnit.attach(new ThinPort({ size: 1024 * 1024 }), 0n, {
      pool,
      readOnly: false,
      commandTimeoutMs: 30_000,
      awaitsFence: () => true,
    });
    const settings = connectionSettings();
    const mounted = new MountedLun('iqn.2024-01.com.example:db', 0n, { settings, cache, changed: () => {} });
    mounted.attached(unit, () => {});
    mounted.noteDeferredError(new IserfsError('medium-error', 'a deferred error'));
    expect(mounted.snapshot()).toMatchObject({
      state: 'ready',
      problem: undefined,
      counters: { errors: 1, lastError: expect.stringContaining('a deferred error') },
    });
    await mounted.close();
  });
});
