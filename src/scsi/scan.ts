/**
 * Which logical units a target has: REPORT LUNS (SPC), asked again with more room until the whole
 * inventory fits. Knows nothing of what the units are.
 */

import { type Clock, systemClock } from '../clock.ts';
import { errorCode, IserfsError } from '../errors.ts';
import { reportLunsCdb } from './cdb.ts';
import { CommandRunner, type Passage } from './command-runner.ts';
import { decodeReportLuns, REPORT_LUNS_WELL_KNOWN } from './lun.ts';
import type { Lun, ScsiPort } from './port.ts';

export interface ScanOptions {
  readonly clock?: Clock;
  readonly random?: () => number;
  readonly commandTimeoutMs?: number;
  /** An acknowledged write to LUN 0 has failed since: the answer to REPORT LUNS, which is its, carried a deferred error. */
  readonly onDeferredError?: (error: IserfsError) => void;
}

const LUN_0: Lun = 0n;
/** Room for 511 LUNs, which is one command for nearly every target. */
const FIRST_LENGTH = 4096;
/** More than half a million LUNs are not an inventory. */
const LONGEST = 4 * 1024 * 1024;
const MOST_ROUNDS = 8;
const MOST_LOST_NEXUSES = 5;

/**
 * The LUNs of the target, each once, in its order. A target that refuses REPORT LUNS at LUN 0 is asked at
 * the well-known logical unit; one that refuses it altogether is taken to have LUN 0. Rejects as
 * `ScsiPort.start` fails.
 */
export async function reportLuns(port: ScsiPort, options: ScanOptions = {}): Promise<Lun[]> {
  for (const lun of [LUN_0, REPORT_LUNS_WELL_KNOWN]) {
    try {
      return await inventory(port, lun, options);
    } catch (error) {
      const code = errorCode(error);
      if (code !== 'illegal-request' && code !== 'unsupported' && code !== 'logical-unit-gone') throw error;
    }
  }
  return [LUN_0];
}

async function inventory(port: ScsiPort, lun: Lun, options: ScanOptions): Promise<Lun[]> {
  const runner = new CommandRunner({
    port,
    lun,
    description: `${port.description}`,
    clock: options.clock ?? systemClock,
    random: options.random ?? Math.random,
    commandTimeoutMs: options.commandTimeoutMs ?? 30_000,
    onDeferredError: (error) => {
      if (lun === LUN_0) options.onDeferredError?.(error);
    },
  });
  const passage = directPassage(port);
  let length = FIRST_LENGTH;
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const dataIn = new Uint8Array(length);
    const transferred = await runner.run({ cdb: reportLunsCdb({ length }), dataIn, allowShort: true }, passage);
    const { luns, totalLength } = decodeReportLuns(dataIn.subarray(0, transferred));
    if (totalLength <= length) return [...new Set(luns)];
    if (totalLength > LONGEST) break;
    // The list may grow between two commands: each round leaves a little room.
    length = Math.min(LONGEST, totalLength + 512);
  }
  throw new IserfsError('protocol-error', `${port.description}: the target reports a list of logical units that has no end`);
}

/** On whatever nexus there is; unit attentions concern the units, not their list, which is about to be read. */
function directPassage(port: ScsiPort): Passage {
  let lost = 0;
  return {
    tryEnter: () => undefined,
    enter: async () => ({ nexus: await port.established(), leave: () => {} }),
    onUnitAttention: () => {},
    onNexusLost: (error) => {
      if (++lost > MOST_LOST_NEXUSES) throw error;
    },
    onAborted: () => {},
    onFailed: () => {},
  };
}
