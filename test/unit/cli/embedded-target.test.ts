import { describe, expect, it } from 'vitest';
import { EmbeddedTarget } from '../../../src/cli/embedded-target.ts';
import { Workdir } from '../../support/workdir.ts';

describe('the embedded target', () => {
  it.each([
    ['says that a file which is there keeps its size', 4096, 'keeps its size of 4 KiB'],
    ['makes no words about a file of the size that was asked for', 8192, ''],
  ])('%s', async (_what, size, words) => {
    await using workdir = Workdir.create();
    const path = workdir.file('disk.img', Buffer.alloc(size));
    const lines: string[] = [];
    const unit = { lun: undefined, target: undefined, blockLength: 512, readOnly: false, volatileCache: false };
    const target = await EmbeddedTarget.start({
      portals: [{ endpoint: { host: '127.0.0.1', port: 0 }, transport: 'tcp' }],
      name: 'iqn.2024-01.org.example:disks',
      units: [{ ...unit, backing: { file: path, createSize: 8192 } }],
      chap: undefined,
      headerDigest: 'none',
      dataDigest: 'none',
      log: (line) => lines.push(line),
    });
    await target.close('abrupt');
    expect(lines.join('\n')).toContain(words);
    expect(lines).toHaveLength(words === '' ? 0 : 1);
    expect(target.units.map((offered) => offered.size)).toEqual([size]);
  });
});
