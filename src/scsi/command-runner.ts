/**
 * Drives one command of a logical unit to its end: issues it, judges the outcome, and issues it again
 * where that is right, never without passing its passage anew, so that nothing overtakes recovery.
 * Bounded in attempts, and in the time that a device stays busy: how long the passage keeps a command waiting
 * is not held against the device. Knows what a retry is, not what a unit attention or a lost nexus means:
 * the passage does.
 */

import { type Clock, sleep } from '../clock.ts';
import { errorCode, IserfsError, NexusLostError } from '../errors.ts';
import { abortError } from './abort.ts';
import { cdbName } from './cdb.ts';
import { judge } from './command-outcome.ts';
import { type Ended, type Failure, tell } from './ended.ts';
import type { Ticket } from './gate.ts';
import type { Lun, ScsiPort, ScsiResult } from './port.ts';
import type { Sense, SenseContext } from './sense.ts';
import { Status } from './status.ts';

/** A range of the device, in bytes. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** One command. Its buffers are borrowed until `run` settles. */
export interface CommandRequest {
  readonly cdb: Uint8Array;
  readonly dataIn?: Uint8Array | undefined;
  readonly dataOut?: Uint8Array | undefined;
  readonly signal?: AbortSignal | undefined;
  /** For messages. */
  readonly lba?: number;
  /** GOOD with less data than there is room for is in order, as for INQUIRY. */
  readonly allowShort?: boolean;
  /** What the command writes: nothing may overlap it until it is certain that it will not be executed any more. */
  readonly changes?: ByteRange;
  /** Called right before each time that the command goes out. */
  readonly onIssue?: (() => void) | undefined;
  /** Called once it ended well, while its ticket is still out. */
  readonly onGood?: (() => void) | undefined;
}

/** What stands between a command and the port. All is called while the command's ticket is out. */
export interface Passage {
  /** The ticket at once; undefined where `enter` would have to wait or to refuse. */
  tryEnter(request: CommandRequest): Ticket | undefined;
  /** Resolves when the command may go out; rejects where it may not. */
  enter(request: CommandRequest): Promise<Ticket>;
  /** The command was not executed. Throws to end it; else it enters again. */
  onUnitAttention(sense: Sense): void;
  /** The command's nexus is gone. Throws to end it; else it enters again. */
  onNexusLost(error: NexusLostError, ticket: Ticket, request: CommandRequest): void;
  /** The command was aborted. Whatever its status would have said, a unit attention perhaps, nobody will hear. */
  onAborted(): void;
  /** The command has failed for good; its error follows by itself. */
  onFailed(error: IserfsError): void;
}

export interface RunnerCounters {
  /** Commands issued again, for whatever reason. */
  retries: number;
  /** Commands issued again because their nexus was lost. */
  reissues: number;
  unitAttentions: number;
  timeouts: number;
}

export interface CommandRunnerOptions {
  readonly port: ScsiPort;
  readonly lun: Lun;
  /** Portal, target and LUN, for messages. */
  readonly description: string;
  readonly clock: Clock;
  /** 0 to 1, for jitter. */
  readonly random: () => number;
  readonly commandTimeoutMs: number;
  /** An acknowledged write has failed since: sense data of the deferred kind said so. */
  readonly onDeferredError: (error: IserfsError) => void;
}

const FIRST_DELAY_MS = 10;
const LONGEST_DELAY_MS = 1000;
/** More attempts than these in a row are no accident. */
const MOST_FAILED_ATTEMPTS = 5;
const MOST_TIMEOUTS = 2;
const MOST_UNIT_ATTENTIONS = 64;
const MOST_DEFERRED_ERRORS = 64;
const MOST_LOST_NEXUSES = 16;

export class CommandRunner {
  readonly #options: CommandRunnerOptions;
  readonly counters: RunnerCounters = { retries: 0, reissues: 0, unitAttentions: 0, timeouts: 0 };

  constructor(options: CommandRunnerOptions) {
    this.#options = options;
  }

  /** Resolves with the number of bytes transferred once the command has ended well. */
  run(request: CommandRequest, passage: Passage): Promise<number> {
    return this.#persist(request, passage, undefined);
  }

  /** The same where the number does not matter, at less cost where all goes well at once. */
  start(request: CommandRequest, passage: Passage, ended: Ended): void {
    let attempt: Attempt | undefined;
    try {
      attempt = this.#tryIssue(request, passage);
    } catch (error) {
      tell(Promise.reject(error), ended);
      return;
    }
    if (attempt === undefined) {
      tell(this.#persist(request, passage, undefined), ended);
      return;
    }
    const { ticket, sent } = attempt;
    const persist = () => tell(this.#persist(request, passage, attempt), ended);
    sent.then((result) => {
      if (!isGood(result, request)) {
        persist();
        return;
      }
      let failure: Failure | undefined;
      try {
        request.onGood?.();
      } catch (error) {
        failure = { error };
      }
      ticket.leave();
      ended(failure);
    }, persist);
  }

  /** Until the command has ended for good. `first`: an attempt that is made already. */
  async #persist(request: CommandRequest, passage: Passage, first: Attempt | undefined): Promise<number> {
    const attempts = new Attempts();
    let made = first;
    for (;;) {
      const { ticket, sent } = made ?? this.#tryIssue(request, passage) ?? (await this.#issue(request, passage));
      made = undefined;
      let step: Step;
      try {
        let result: ScsiResult | Step;
        try {
          result = await sent;
        } catch (error) {
          result = this.#rejected(error, request, passage, ticket, attempts);
        }
        if (typeof result === 'string') step = result;
        else {
          step = isGood(result, request) ? 'done' : this.#judged(result, request, passage, attempts);
          if (step === 'done') {
            request.onGood?.();
            return result.transferred;
          }
        }
      } finally {
        ticket.leave();
      }
      this.counters.retries++;
      if (step === 'wait') await this.#pause(attempts.waits++, request.signal);
    }
  }

  /** Undefined where the passage makes it wait. */
  #tryIssue(request: CommandRequest, passage: Passage): Attempt | undefined {
    if (request.signal?.aborted === true) throw abortError(request.signal);
    const ticket = passage.tryEnter(request);
    return ticket === undefined ? undefined : this.#send(request, ticket);
  }

  async #issue(request: CommandRequest, passage: Passage): Promise<Attempt> {
    return this.#send(request, await this.#enter(request, passage));
  }

  #send(request: CommandRequest, ticket: Ticket): Attempt {
    const { port, lun, commandTimeoutMs: timeoutMs } = this.#options;
    const { cdb, dataIn, dataOut, signal } = request;
    try {
      request.onIssue?.();
      return { ticket, sent: port.execute({ lun, cdb, nexus: ticket.nexus, dataIn, dataOut }, { timeoutMs, signal }) };
    } catch (error) {
      ticket.leave();
      throw error;
    }
  }

  async #enter(request: CommandRequest, passage: Passage): Promise<Ticket> {
    try {
      return await passage.enter(request);
    } catch (error) {
      if (request.signal?.aborted === true) throw abortError(request.signal);
      throw error;
    }
  }

  /** What follows from a status other than GOOD, or from GOOD that does not count. */
  #judged(result: ScsiResult, request: CommandRequest, passage: Passage, attempts: Attempts): Step {
    const { commandTimeoutMs, description } = this.#options;
    const context = contextOf(request, description);
    const outcome = judge(result, leastTransferred(request), context);
    switch (outcome.type) {
      case 'good':
        return 'done';
      case 'failed':
        passage.onFailed(outcome.error);
        throw outcome.error;
      case 'busy':
        attempts.busySince ??= this.#options.clock.now();
        if (this.#options.clock.now() - attempts.busySince >= commandTimeoutMs) throw outcome.error;
        return 'wait';
      case 'again':
        if (++attempts.failed > MOST_FAILED_ATTEMPTS) throw outcome.error;
        return 'wait';
      case 'unit-attention':
        this.counters.unitAttentions++;
        if (++attempts.unitAttentions > MOST_UNIT_ATTENTIONS) throw tooMany('unit attentions', context);
        passage.onUnitAttention(outcome.sense);
        return 'again';
      case 'deferred-error':
        this.#options.onDeferredError(outcome.error);
        if (++attempts.deferred > MOST_DEFERRED_ERRORS) throw tooMany('deferred errors', context);
        return 'again';
    }
  }

  /** The command has no status. A time-out may be tried again because the port vouches for the abort (see `ScsiPort.execute`). */
  #rejected(error: unknown, request: CommandRequest, passage: Passage, ticket: Ticket, attempts: Attempts): Step {
    if (error instanceof NexusLostError) {
      passage.onNexusLost(error, ticket, request);
      attempts.busySince = undefined;
      if (error.mayHaveExecuted && ++attempts.lostNexuses > MOST_LOST_NEXUSES) throw error;
      this.counters.reissues++;
      return 'again';
    }
    const code = errorCode(error);
    if (code === 'command-timeout' || code === 'aborted') passage.onAborted();
    if (code === 'command-timeout') {
      this.counters.timeouts++;
      if (++attempts.timeouts <= MOST_TIMEOUTS) return 'again';
    }
    throw error;
  }

  /** Exponential backoff with jitter: the further the attempts, the wider apart. */
  async #pause(waits: number, signal: AbortSignal | undefined): Promise<void> {
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** waits);
    try {
      await sleep(this.#options.clock, longest * (0.5 + this.#options.random() / 2), signal);
    } catch (error) {
      throw signal?.aborted === true ? abortError(signal) : error;
    }
  }
}

type Step = 'done' | 'again' | 'wait';

/** A command on its way. */
interface Attempt {
  readonly ticket: Ticket;
  readonly sent: Promise<ScsiResult>;
}

/** What one command has been through. */
class Attempts {
  /** When the device said for the first time that it cannot take the command. */
  busySince: number | undefined;
  waits = 0;
  failed = 0;
  timeouts = 0;
  unitAttentions = 0;
  deferred = 0;
  lostNexuses = 0;
}

/** The bytes that must have been transferred for GOOD to count. */
function leastTransferred({ allowShort, dataIn, dataOut }: CommandRequest): number {
  return allowShort === true ? 0 : ((dataIn ?? dataOut)?.length ?? 0);
}

function isGood(result: ScsiResult, request: CommandRequest): boolean {
  return result.status === Status.good && result.transferred >= leastTransferred(request);
}

function contextOf(request: CommandRequest, description: string): SenseContext {
  const command = cdbName(request.cdb);
  return request.lba === undefined ? { description, command } : { description, command, lba: request.lba };
}

function tooMany(what: string, context: SenseContext): IserfsError {
  return new IserfsError(
    'hardware-error',
    `${context.description}: ${context.command}: the device does not stop reporting ${what}`,
  );
}
