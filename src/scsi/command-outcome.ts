/**
 * What the end of a command means for whoever issued it: done, try again and how, or an error. Pure, one
 * place, so that every command of the initiator side is judged alike.
 */

import { IserfsError } from '../errors.ts';
import type { ScsiResult } from './port.ts';
import { decodeSense, type Sense, type SenseContext, SenseKey, senseError } from './sense.ts';
import { Status, statusName } from './status.ts';

export type Outcome =
  | { readonly type: 'good' }
  /** The device cannot take the command just now: wait, then issue it again. `error` is for when patience ends. */
  | { readonly type: 'busy'; readonly error: IserfsError }
  /** The command did not take effect for a reason that may not come again: a few more attempts. */
  | { readonly type: 'again'; readonly error: IserfsError }
  /** Not executed; something is to be noted first, then it is issued again. */
  | { readonly type: 'unit-attention'; readonly sense: Sense }
  /** Not executed; an earlier command that ended GOOD has failed since (sense 71h, 73h). */
  | { readonly type: 'deferred-error'; readonly sense: Sense; readonly error: IserfsError }
  | { readonly type: 'failed'; readonly error: IserfsError };

/** `expectedLength`: the bytes that must have been transferred for GOOD to count; 0 where less is in order. */
export function judge(result: ScsiResult, expectedLength: number, context: SenseContext): Outcome {
  switch (result.status) {
    case Status.good:
      return complete(result, expectedLength, context);
    case Status['check-condition']:
      return judgeSense(result, expectedLength, context);
    case Status.busy:
    case Status['task-set-full']:
      return { type: 'busy', error: statusError('busy', result, context) };
    case Status['task-aborted']:
      return { type: 'again', error: statusError('hardware-error', result, context) };
    case Status['reservation-conflict']:
      return { type: 'failed', error: statusError('reservation-conflict', result, context) };
    default:
      return { type: 'failed', error: statusError('protocol-error', result, context) };
  }
}

/** GOOD with less data than was asked for is not the data that was asked for. */
function complete(result: ScsiResult, expectedLength: number, context: SenseContext): Outcome {
  if (result.transferred >= expectedLength) return { type: 'good' };
  const message = `${where(context)}: only ${result.transferred} of ${expectedLength} bytes were transferred`;
  return { type: 'again', error: new IserfsError('hardware-error', message) };
}

function judgeSense(result: ScsiResult, expectedLength: number, context: SenseContext): Outcome {
  const sense = decodeSense(result.sense);
  if (sense === undefined) {
    const message = `${where(context)}: CHECK CONDITION without sense data`;
    return { type: 'again', error: new IserfsError('hardware-error', message) };
  }
  const error = senseError(sense, context);
  if (sense.deferred && sense.key !== SenseKey['unit-attention']) {
    return sense.key === SenseKey['recovered-error'] || sense.key === SenseKey['no-sense']
      ? { type: 'again', error }
      : { type: 'deferred-error', sense, error };
  }
  switch (sense.key) {
    case SenseKey['recovered-error']:
      return complete(result, expectedLength, context);
    case SenseKey['no-sense']:
    case SenseKey['aborted-command']:
      return { type: 'again', error };
    case SenseKey['unit-attention']:
      return { type: 'unit-attention', sense };
    case SenseKey['not-ready']:
      return willBecomeReady(sense) ? { type: 'busy', error } : { type: 'failed', error };
    default:
      return { type: 'failed', error };
  }
}

/** LOGICAL UNIT NOT READY with a qualifier that says that time alone will help. */
function willBecomeReady({ asc, ascq }: Sense): boolean {
  const becomingReady = ascq === 0x01;
  const accessStateTransition = ascq === 0x0a;
  const spaceAllocation = ascq === 0x14;
  return asc === 0x04 && (becomingReady || accessStateTransition || spaceAllocation);
}

function statusError(code: IserfsError['code'], result: ScsiResult, context: SenseContext): IserfsError {
  return new IserfsError(code, `${where(context)}: ${statusName(result.status)}`);
}

function where(context: SenseContext): string {
  const block = context.lba === undefined ? '' : ` at LBA ${context.lba}`;
  return `${context.description}: ${context.command}${block}`;
}
