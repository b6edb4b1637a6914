/** What cannot be, whatever iserfs does, with the evidence. */

import type { StepName } from './steps.ts';

export const libiscsiLimits: Readonly<Partial<Record<StepName, string>>> = {
  'login with CHAP':
    'libiscsi 1.19 cannot log in over iSER in more than one exchange; it fails with tgtd and LIO in the same way',
  'disconnect and recover':
    'libiscsi 1.19 does not come back over iSER: "NOP timeout. Reconnecting...", and nothing more, also when it is tgtd that was restarted',
};
