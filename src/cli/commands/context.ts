/** What every command gets beside its own arguments, and what several make of it. */

import { findInitiatorName } from '../../config/initiator-name.ts';
import type { ConnectionSettings } from '../../config/settings.ts';
import type { Environment } from '../../config/xdg.ts';
import type { Interrupts } from '../interrupts.ts';
import type { Output } from '../output.ts';

export interface CommandContext {
  readonly output: Output;
  readonly environment: Environment;
  /** Listens for signals from the first call on: a command that never asks dies of them as usual. */
  interrupts(): Interrupts;
}

/** The name to log in with. Throws as `findInitiatorName`. */
export function initiatorNameFor(settings: ConnectionSettings, { environment, output }: CommandContext): Promise<string> {
  return findInitiatorName({ configured: settings.options['initiator-name'], environment, warn: output.warn });
}
