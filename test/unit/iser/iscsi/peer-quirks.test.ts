import { describe, expect, it } from 'vitest';
import { connectionQuirks, needsPatience, quirkRows, quirksOf } from '../../../../src/iser/iscsi/peer-quirks.ts';

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

describe('connectionQuirks', () => {
  it('says of each quirk of whom it is, how it shows and where it was seen', () => {
    for (const { peer, sign, evidence } of Object.values(connectionQuirks)) {
      expect(Math.min(peer.length, sign.length, evidence.length)).toBeGreaterThan(3);
      expect(evidence).toMatch(/\d/);
    }
  });
});
