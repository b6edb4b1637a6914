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
import { type Failure, tell } from './ended.ts';
import { execute } from './execute.ts';
import type { Ticket } from './gate.ts';
import type { Lun, ScsiPort, ScsiResult, StartedCommand } from './port.ts';
import type { Sense, SenseContext } from './sense.ts';
import { Status } from './status.ts';

/** A range of the device, in bytes. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** One command. Its buffers are borrowed until its end is told. */
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
  onIssue?(): void;
  /** Called once it ended well, while its ticket is still out. */
  onGood?(): void;
}

/** A command for `start`. */
export interface StartedRequest extends CommandRequest {
  /** Called once, when the command has ended for good: without a failure, well. It does not throw. */
  ended(failure?: Failure): void;
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

  /** The same where the number does not matter, told by a call: at less cost where all goes well at once. */
  start(request: StartedRequest, passage: Passage): void {
    let ticket: Ticket | undefined;
    let attempt: FirstAttempt | undefined;
    try {
      ticket = this.#tryEnter(request, passage);
      if (ticket === undefined) {
        this.#goOn(request, passage, undefined);
        return;
      }
      request.onIssue?.();
      attempt = new FirstAttempt(this.#options, request, passage, ticket, this.#wentWrong);
      this.#options.port.start(attempt);
    } catch (error) {
      attempt?.forsake();
      ticket?.leave();
      tell(Promise.reject(error), (failure) => request.ended(failure));
    }
  }

  readonly #wentWrong: WentWrong = ({ request, passage, ticket }, sent) => this.#goOn(request, passage, { ticket, sent });

  #goOn(request: StartedRequest, passage: Passage, first: Attempt | undefined): void {
    tell(this.#persist(request, passage, first), (failure) => request.ended(failure));
  }

  /** Until the command has ended for good. `first`: an attempt that is made already. */
  async #persist(request: CommandRequest, passage: Passage, first: Attempt | undefined): Promise<number> {
    const attempts = new Attempts();
    let made = first;
    for (;;) {
      const { ticket, sent } = made ?? this.#tryAttempt(request, passage) ?? (await this.#attempt(request, passage));
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

  async #attempt(request: CommandRequest, passage: Passage): Promise<Attempt> {
    const ticket = await this.#enter(request, passage);
    return { ticket, sent: this.#send(request, ticket) };
  }

  /** Undefined where the passage makes it wait. */
  #tryAttempt(request: CommandRequest, passage: Passage): Attempt | undefined {
    const ticket = this.#tryEnter(request, passage);
    return ticket === undefined ? undefined : { ticket, sent: this.#send(request, ticket) };
  }

  async #send(request: CommandRequest, { nexus }: Ticket): Promise<ScsiResult> {
    const { port, lun, commandTimeoutMs: timeoutMs } = this.#options;
    const { cdb, dataIn, dataOut, signal } = request;
    request.onIssue?.();
    return await execute(port, { lun, cdb, dataIn, dataOut, nexus, timeoutMs, signal });
  }

  #tryEnter(request: CommandRequest, passage: Passage): Ticket | undefined {
    if (request.signal?.aborted === true) throw abortError(request.signal);
    return passage.tryEnter(request);
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

  /** The command has no status. A time-out may be tried again because the port vouches for the abort (see `ScsiPort.start`). */
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

type WentWrong = (attempt: FirstAttempt, sent: Promise<ScsiResult>) => void;

/** A command that goes out for the first time. Where it ends well that is all; `wentWrong` is told of everything else. */
class FirstAttempt implements StartedCommand {
  readonly request: StartedRequest;
  readonly passage: Passage;
  readonly ticket: Ticket;
  readonly lun: Lun;
  readonly cdb: Uint8Array;
  readonly dataIn: Uint8Array | undefined;
  readonly dataOut: Uint8Array | undefined;
  readonly nexus: number;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  readonly #wentWrong: WentWrong;
  #isForsaken = false;

  constructor(
    { lun, commandTimeoutMs }: CommandRunnerOptions,
    request: StartedRequest,
    passage: Passage,
    ticket: Ticket,
    wentWrong: WentWrong,
  ) {
    this.request = request;
    this.passage = passage;
    this.ticket = ticket;
    this.lun = lun;
    this.cdb = request.cdb;
    this.dataIn = request.dataIn;
    this.dataOut = request.dataOut;
    this.nexus = ticket.nexus;
    this.timeoutMs = commandTimeoutMs;
    this.signal = request.signal;
    this.#wentWrong = wentWrong;
  }

  /** The port has failed to take it: whatever it tells of it all the same, nobody waits for. */
  forsake(): void {
    this.#isForsaken = true;
  }

  ended(result: ScsiResult): void {
    const { request, ticket } = this;
    if (this.#isForsaken) return;
    if (!isGood(result, request)) {
      this.#wentWrong(this, Promise.resolve(result));
      return;
    }
    let failure: Failure | undefined;
    try {
      request.onGood?.();
    } catch (error) {
      failure = { error };
    }
    ticket.leave();
    request.ended(failure);
  }

  failed(error: Error): void {
    if (this.#isForsaken) return;
    this.#wentWrong(this, Promise.reject(error));
  }
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
