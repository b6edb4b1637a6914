/** What every command gets beside its own arguments. */

import type { Environment } from '../../config/xdg.ts';
import type { Interrupts } from '../interrupts.ts';
import type { Output } from '../output.ts';

export interface CommandContext {
  readonly output: Output;
  readonly environment: Environment;
  /** Listens for signals from the first call on: a command that never asks dies of them as usual. */
  interrupts(): Interrupts;
}
