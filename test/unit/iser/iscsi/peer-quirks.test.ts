import { describe, expect, it } from 'vitest';
import {
  connectionQuirks,
  isStatSnTolerated,
  needsPatience,
  quirkRows,
  quirksOf,
} from '../../../../src/iser/iscsi/peer-quirks.ts';

describe('quirksOf', () => {
  it('proves of our own target alone that it waits for the tasks of the session it replaces', () => {
    expect(quirksOf({ vendor: 'ISERFS', product: 'DISK' }).terminatesOldTasksOnReinstatement).toBe(true);
    expect(quirksOf({ vendor: 'IET', product: 'VIRTUAL-DISK' }).terminatesOldTasksOnReinstatement).toBe(false);
  });

  it.each([{}, { vendor: 'LIO-ORG', product: 'disk1' }, { vendor: 'iserfs' }, { vendor: 'IET', product: 'Controller' }])(
    'takes the safe course with an unknown peer: %o',
    (peer) => {
      expect(quirksOf(peer).terminatesOldTasksOnReinstatement).toBe(false);
    },
  );

  it('knows of our own target alone that it takes long transfers over RDMA', () => {
    expect(quirksOf({ vendor: 'ISERFS', product: 'DISK' }).takesLongTransfers).toBe(true);
    expect(quirksOf({ vendor: 'IET', product: 'VIRTUAL-DISK' }).takesLongTransfers).toBe(false);
    expect(quirksOf({}).takesLongTransfers).toBe(false);
  });

  it('has evidence for each row, and one row for a peer', () => {
    for (const { evidence } of quirkRows) expect(evidence.length).toBeGreaterThan(20);
    expect(new Set(quirkRows.map(({ id }) => id)).size).toBe(quirkRows.length);
  });
});

describe('needsPatience', () => {
  it.each([
    ['tgtd over iSER', 2, 1, true],
    ['tgtd over iSER, numbers that wrap', 0, 0xffff_ffff, true],
    ['LIO', 1, 1, false],
    ['tgtd over TCP', 1, 2, false],
    ['our own target', 1, 64, false],
  ])('at the numbers of %s: ExpCmdSN %i, MaxCmdSN %i', (_peer, expCmdSn, maxCmdSn, held) => {
    expect(needsPatience({ expCmdSn, maxCmdSn })).toBe(held);
  });
});

describe('isStatSnTolerated', () => {
  const { mostApart } = connectionQuirks.disorderedStatus;
  it.each([
    ['a little early', 11, 10, true],
    ['a little late', 9, 10, true],
    ['early, beyond the wrap', 0, 0xffff_ffff, true],
    ['late, beyond the wrap', 0xffff_ffff, 0, true],
    ['as far ahead as may be', 10 + mostApart, 10, true],
    ['too far ahead', 11 + mostApart, 10, false],
    ['as far behind as may be', 1000 - mostApart, 1000, true],
    ['too far behind', 999 - mostApart, 1000, false],
  ])('over RDMA, of a StatSN that is %s: %i where %i is due', (_where, statSn, due, isTolerated) => {
    expect(isStatSnTolerated(statSn, due, { overRdma: true })).toBe(isTolerated);
    expect(isStatSnTolerated(statSn, due, { overRdma: false })).toBe(false);
  });
});

describe('connectionQuirks', () => {
  it('says of each quirk of whom it is, how it shows and where it was seen', () => {
    for (const { peer, sign, evidence } of Object.values(connectionQuirks)) {
      expect(Math.min(peer.length, sign.length, evidence.length)).toBeGreaterThan(3);
      expect(evidence).toMatch(/\d/);
    }
  });
});
