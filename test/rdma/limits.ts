/** What cannot be, or not quite, whatever iserfs does, with the evidence. */

import type { StepName } from './steps.ts';

type Reasons = Readonly<Partial<Record<StepName, string>>>;

/** What libiscsi as an initiator makes of our target. */
export const libiscsi: { readonly notApplicable: Reasons; readonly remarks: Reasons } = {
  notApplicable: {
    'login with CHAP':
      'libiscsi 1.19 cannot log in over iSER in more than one exchange; it fails with tgtd and LIO in the same way',
  },
  remarks: {
    'disconnect and recover':
      'by a new session each time: one of libiscsi 1.19 does not come back over iSER ("NOP timeout. Reconnecting...", and nothing more, also when it is tgtd that was restarted)',
  },
};
