/** What cannot be, whatever iserfs does, with the evidence. */

import type { StepName } from './steps.ts';

export const libiscsiLimits: Readonly<Partial<Record<StepName, string>>> = {
  'login with CHAP':
    'libiscsi 1.19 cannot log in over iSER in more than one exchange; it fails with tgtd and LIO in the same way',
};
