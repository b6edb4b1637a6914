import { describe, expect, it } from 'vitest';
import {
  connectionQuirks,
  isStatSnTolerated,
  needsPatience,
  OWN_TARGET_ALIAS,
  quirkRows,
  quirksOf,
} from '../../../../src/iser/iscsi/peer-quirks.ts';

describe('quirksOf', () => {
  const safe = { terminatesOldTasksOnReinstatement: false, takesLongTransfers: false };

  it('proves of our own target that it waits for the tasks of the session it replaces, and takes long transfers', () => {
    const peer = { vendor: 'ISERFS', product: 'DISK', targetAlias: OWN_TARGET_ALIAS };
    expect(quirksOf(peer)).toEqual({ terminatesOldTasksOnReinstatement: true, takesLongTransfers: true });
  });

  it.each([
    {},
    { vendor: 'IET', product: 'VIRTUAL-DISK' },
    { vendor: 'LIO-ORG', product: 'disk1', targetAlias: 'LIO Target' },
    { vendor: 'iserfs', targetAlias: OWN_TARGET_ALIAS },
    { vendor: 'IET', product: 'Controller' },
  ])('takes the safe course with another peer: %o', (peer) => {
    expect(quirksOf(peer)).toEqual(safe);
  });

  it.each(['LIO Target', undefined])('does so with a target, %s, that passes a logical unit of ours through', (targetAlias) => {
    expect(quirksOf({ vendor: 'ISERFS', product: 'DISK', targetAlias })).toEqual(safe);
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
