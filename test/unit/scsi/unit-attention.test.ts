import { describe, expect, it } from 'vitest';
import { unitAttentionPolicy } from '../../../src/scsi/unit-attention.ts';

describe('the policy for unit attentions', () => {
  it.each([0, 1, 2, 3, 4, 5, 6, 7])('takes a volatile cache to be lost after 29h/%ih', (ascq) => {
    expect(unitAttentionPolicy(0x29, ascq)).toMatchObject({ cacheMayBeLost: true, revalidate: true, contentsMayDiffer: true });
  });

  it.each([
    [0x2a, 0x01, { revalidate: true, contentsMayDiffer: false, rescan: false }],
    [0x2a, 0x09, { revalidate: true, contentsMayDiffer: true, rescan: false }],
    [0x28, 0x00, { revalidate: true, contentsMayDiffer: true, rescan: false }],
    [0x3f, 0x03, { revalidate: true, contentsMayDiffer: true, rescan: false }],
    [0x3f, 0x0e, { revalidate: true, contentsMayDiffer: true, rescan: true }],
    [0x2a, 0x06, { revalidate: false, contentsMayDiffer: false, rescan: false }],
    [0x2f, 0x00, { revalidate: false, contentsMayDiffer: false, rescan: false }],
  ])('knows %ih/%ih', (asc, ascq, policy) => {
    expect(unitAttentionPolicy(asc, ascq)).toMatchObject({ ...policy, cacheMayBeLost: false });
  });

  it('takes what it does not know seriously', () => {
    expect(unitAttentionPolicy(0x80, 0x01)).toMatchObject({ revalidate: true, contentsMayDiffer: true });
  });
});
