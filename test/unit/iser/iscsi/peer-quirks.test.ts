import { describe, expect, it } from 'vitest';
import { quirkRows, quirksOf } from '../../../../src/iser/iscsi/peer-quirks.ts';

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
