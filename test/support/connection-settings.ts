/** Settings of a mount as `resolveSettings` leaves them where nothing but options is given: no target, no portal, no credentials. */

import { mergeOptions, type SomeOptions } from '../../src/config/options.ts';
import type { ConnectionSettings } from '../../src/config/settings.ts';

export function connectionSettings(options: SomeOptions = {}): ConnectionSettings {
  return {
    options: mergeOptions(options),
    discover: [],
    targets: [],
    chap: undefined,
    targetChap: {},
    luns: undefined,
    targetLuns: {},
  };
}
