/**
 * Brings a logical unit back into service after its nexus was lost or a unit attention put in doubt what
 * is known of it. From the first sign of trouble the gate is closed: everything waits. Then, on the nexus
 * that there is, in this order and before anything is issued again:
 *
 *   1. every command that was in flight has ended;
 *   2. unit attentions are taken, and the unit is verified to be the one that it was;
 *   3. where writes may still be in execution on an old nexus they are fenced: LOGICAL UNIT RESET;
 *   4. capacity and mode parameters are read again;
 *   5. where a volatile cache may have been lost, the retained writes are written again (I6);
 *   6. the gate opens: interrupted and waiting commands go out.
 *
 * Whatever goes wrong in between starts it over. This file is the order and the decisions; what each step
 * asks of the device comes from outside (`RecoverySteps`).
 */

import { type Clock, sleep } from '../clock.ts';
import { describeError, errorCode, IserfsError, NexusLostError } from '../errors.ts';
import { unlessAborted } from './abort.ts';
import type { CommandRequest, Passage } from './command-runner.ts';
import type { Fence } from './fence.ts';
import type { Gate, Ticket } from './gate.ts';
import type { PortEvent, ScsiPort } from './port.ts';
import { type Sense, senseText } from './sense.ts';
import { type UnitAttentionPolicy, unitAttentionPolicy } from './unit-attention.ts';

export type RecoveryState =
  | { readonly type: 'ready' }
  | { readonly type: 'recovering'; readonly reason: string }
  /** Nothing is served. `final`: nothing can change that; else a new nexus may. */
  | { readonly type: 'failed' | 'gone'; readonly reason: Error; readonly final: boolean };

/** What the steps of recovery do; all commands go through `passage`. They reject where they fail. */
export interface RecoverySteps {
  /** Takes pending unit attentions until the unit is ready. */
  awaitReady(passage: Passage): Promise<void>;
  /** Throws `logical-unit-changed` or `logical-unit-gone`. */
  verify(passage: Passage): Promise<void>;
  /** Resolves `true` when the target holds no task from before any more, `false` where that cannot be had. */
  fence(nexus: number): Promise<boolean>;
  refresh(passage: Passage): Promise<void>;
  replay(passage: Passage): Promise<void>;
}

export interface RecoveryOptions {
  readonly port: ScsiPort;
  readonly gate: Gate;
  readonly fence: Fence;
  readonly steps: RecoverySteps;
  readonly clock: Clock;
  /** How long requests wait for a unit that does not come back although its nexus does. */
  readonly patienceMs: number;
  readonly log: (line: string) => void;
  readonly onState: (state: RecoveryState) => void;
  readonly onUnitAttention: (policy: UnitAttentionPolicy) => void;
  readonly onNexusLost: () => void;
}

const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 5000;
/** A target that has just restarted may offer its portal before its logical units. */
const RETURN_GRACE_MS = 10_000;
const MOST_ROUNDS = 32;
/** REPORTED LUNS DATA HAS CHANGED. */
const reportedLunsChanged = unitAttentionPolicy(0x3f, 0x0e);

export class Recovery {
  readonly #options: RecoveryOptions;
  readonly #stop = new AbortController();
  #state: RecoveryState = { type: 'recovering', reason: 'not yet probed' };
  /** The nexus on which commands are admitted; undefined while the gate is closed. */
  #nexus: number | undefined;
  #running: Promise<void> | undefined;
  /** Something came up that the round in progress may have looked at too early. */
  #again = false;
  #started = false;
  /** Ends the wait for something to happen. */
  #wake = (): void => {};
  #lastFailure = '';
  /** What was acknowledged since the last SYNCHRONIZE CACHE may be gone from the device. */
  #replayNeeded = false;
  #epoch = 0;
  #recoveries = 0;

  constructor(options: RecoveryOptions) {
    this.#options = options;
  }

  get state(): RecoveryState {
    return this.#state;
  }

  /** How often the unit came back into service. */
  get recoveries(): number {
    return this.#recoveries;
  }

  /** Counts the times that a volatile cache may have been lost: equal before and after means that nothing was. */
  get epoch(): number {
    return this.#epoch;
  }

  /**
   * Takes the unit into service for the first time: has `probe` ask it for everything on `nexus`, until
   * nothing changes meanwhile, and opens the gate. Rejects as `probe` does, and `connection-lost`.
   */
  async start(nexus: number, probe: (passage: Passage) => Promise<void>): Promise<void> {
    const passage = this.#passageOn(nexus);
    for (let round = 0; round < MOST_ROUNDS; round++) {
      await this.#options.steps.awaitReady(passage);
      this.#again = false;
      await probe(passage);
      if (this.#options.port.nexus !== nexus) {
        throw new NexusLostError('the session was lost while the unit was probed', { mayHaveExecuted: false });
      }
      if (this.#again) continue;
      this.#started = true;
      this.#openGate(nexus);
      return;
    }
    throw restless();
  }

  /** To be called with every event of the port. */
  handlePortEvent(event: PortEvent): void {
    if (event.type === 'nexus-lost') this.#nexusLost(event.reason);
    else if (event.type === 'failed') this.#begin(describeError(event.reason));
    else if (event.type === 'nexus-established') this.#wake();
  }

  /** Sense data that came without a command. */
  handleAsynchronousSense(sense: Sense): void {
    this.#unitAttention(sense);
  }

  /** Looks at the unit again, as after a unit attention. */
  revalidate(reason: string): void {
    this.#begin(reason);
  }

  /** Ends recovery for good; resolves when nothing of it goes on. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#wake();
    await this.#running;
  }

  /** The way of ordinary commands: through the gate, out of the way of recovery, and back. */
  readonly passage: Passage = {
    tryEnter: ({ changes }) => {
      const { gate, fence } = this.#options;
      return changes !== undefined && fence.threatens(changes) ? undefined : gate.tryEnter();
    },
    enter: async ({ signal, changes }) => {
      const { gate, fence } = this.#options;
      const ticket = await gate.enter(signal);
      if (changes === undefined || !fence.threatens(changes)) return ticket;
      ticket.leave();
      throw new IserfsError(
        'connection-lost',
        'an older write to this range was in flight when the session was lost, and the target does not confirm that it will not be executed any more',
      );
    },
    onUnitAttention: (sense) => this.#unitAttention(sense),
    onNexusLost: (error, ticket, request) => {
      this.#suspect(error, request);
      if (ticket.nexus === this.#nexus) this.#nexusLost(error);
    },
    onAborted: () => this.#statusUnknown(),
    onFailed: (error) => {
      if (error.code === 'logical-unit-gone') this.#unitGone(error);
    },
  };

  /** The way of recovery's own commands, on one nexus: what goes wrong with it starts recovery over. */
  #passageOn(nexus: number): Passage {
    const ticket: Ticket = { nexus, leave: () => {} };
    return {
      tryEnter: () => (this.#stop.signal.aborted ? undefined : ticket),
      enter: () => (this.#stop.signal.aborted ? Promise.reject(stopped()) : Promise.resolve(ticket)),
      onUnitAttention: (sense) => this.#unitAttention(sense),
      onNexusLost: (error, _ticket, request) => {
        this.#suspect(error, request);
        throw error;
      },
      onAborted: () => this.#statusUnknown(),
      onFailed: () => {},
    };
  }

  /** A write that may have been executed must be fenced before anything else is written to its range. */
  #suspect(error: NexusLostError, { changes }: CommandRequest): void {
    if (changes !== undefined && error.mayHaveExecuted) this.#options.fence.suspect(changes);
  }

  #unitAttention(sense: Sense): void {
    const policy = unitAttentionPolicy(sense.asc, sense.ascq);
    if (policy.cacheMayBeLost) this.#cacheMayBeLost();
    this.#options.onUnitAttention(policy);
    if (policy.revalidate) this.#begin(senseText(sense));
  }

  #nexusLost(reason: Error): void {
    this.#cacheMayBeLost();
    this.#options.onNexusLost();
    this.#begin(describeError(reason));
  }

  /**
   * What stands at this LUN the next time may be another unit, with nothing to announce it: tgtd has no unit
   * attention for a unit that is made while a session is there. As if there had been one.
   */
  #unitGone(error: Error): void {
    this.#cacheMayBeLost();
    this.#options.onUnitAttention(reportedLunsChanged);
    this.#begin(describeError(error));
  }

  /** An aborted command takes the unit attention that it may have met with it: whatever one can say is assumed. */
  #statusUnknown(): void {
    this.#cacheMayBeLost();
    this.#begin('a command was aborted');
  }

  #cacheMayBeLost(): void {
    this.#replayNeeded = true;
    this.#epoch++;
  }

  #begin(reason: string): void {
    this.#again = true;
    this.#wake();
    if (!this.#started || this.#running !== undefined || this.#stop.signal.aborted || isFinal(this.#state)) return;
    this.#options.gate.close();
    this.#nexus = undefined;
    this.#enterState({ type: 'recovering', reason });
    const running = this.#run().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
  }

  async #run(): Promise<void> {
    const { gate, port, clock } = this.#options;
    /** Since when requests wait. */
    let since = clock.now();
    /** The nexus that was tried last, and since when. */
    let tried: { readonly nexus: number; readonly sinceMs: number } | undefined;
    for (let attempt = 0; !this.#stop.signal.aborted; attempt++) {
      await gate.settled();
      let nexus: number;
      try {
        nexus = await this.#unlessStopped(port.established());
      } catch (error) {
        await this.#awaitNexus(asError(error));
        since = clock.now();
        continue;
      }
      if (tried?.nexus !== nexus) tried = { nexus, sinceMs: clock.now() };
      try {
        await this.#restore(nexus);
        if (this.#again || port.nexus !== nexus) continue;
        this.#recoveries++;
        // From here on whatever comes up begins a recovery of its own.
        this.#running = undefined;
        this.#openGate(nexus);
        return;
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        this.#logFailure(error);
        const isPresent = errorCode(error) !== 'logical-unit-gone';
        if (errorCode(error) === 'logical-unit-changed') return this.#fail(asError(error));
        if (!isPresent && clock.now() - tried.sinceMs > RETURN_GRACE_MS) {
          await this.#awaitNewNexus(asError(error), nexus);
          since = clock.now();
          continue;
        }
        await this.#pause(attempt, error, since);
      }
    }
  }

  /** Steps 2 to 5, until a round has nothing new come up. */
  async #restore(nexus: number): Promise<void> {
    const { steps, fence } = this.#options;
    const passage = this.#passageOn(nexus);
    for (let round = 0; round < MOST_ROUNDS; round++) {
      await steps.awaitReady(passage);
      // Whatever was reported up to now is looked at below.
      this.#again = false;
      await steps.verify(passage);
      if (fence.isNeeded) {
        if (await steps.fence(nexus)) fence.confirmed();
        await steps.awaitReady(passage);
      }
      await steps.refresh(passage);
      if (this.#again) continue;
      if (this.#replayNeeded) {
        this.#replayNeeded = false;
        try {
          await steps.replay(passage);
        } catch (error) {
          this.#replayNeeded = true;
          throw error;
        }
      }
      if (!this.#again) return;
    }
    throw restless();
  }

  #openGate(nexus: number): void {
    this.#nexus = nexus;
    this.#options.gate.open(nexus);
    // Last: whoever hears of it may have recovery begin again, which closes the gate.
    this.#enterState({ type: 'ready' });
  }

  /** The port has given up for now: everything fails until it has a nexus again. */
  async #awaitNexus(reason: Error): Promise<void> {
    await this.#refuseUntil(reason, 'failed', () => this.#options.port.nexus !== undefined);
  }

  /** The target has no such unit: everything fails until there is another nexus or the scan finds it again. */
  async #awaitNewNexus(reason: Error, nexus: number): Promise<void> {
    this.#again = false;
    await this.#refuseUntil(reason, 'gone', () => this.#again || this.#options.port.nexus !== nexus);
  }

  async #refuseUntil(reason: Error, type: 'failed' | 'gone', isOver: () => boolean): Promise<void> {
    if (this.#stop.signal.aborted) return;
    const { gate } = this.#options;
    gate.refuse(reason);
    this.#enterState({ type, reason, final: false });
    while (!isOver() && !this.#stop.signal.aborted) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#stop.signal.aborted) return;
    gate.close();
    this.#enterState({ type: 'recovering', reason: 'the session is back' });
  }

  #fail(reason: Error): void {
    this.#options.gate.refuse(reason);
    this.#enterState({ type: 'failed', reason, final: true });
  }

  /** Between two attempts; requests that have waited too long are let go. */
  async #pause(attempt: number, error: unknown, since: number): Promise<void> {
    const { clock, gate, patienceMs } = this.#options;
    if (clock.now() - since > patienceMs) {
      gate.refuseWaiting(new IserfsError('recovery-timeout', 'the device did not come back in time', { cause: error }));
    }
    if (attempt === 0 && error instanceof NexusLostError) return;
    const delay = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** attempt);
    await sleep(clock, delay, this.#stop.signal).catch(() => {});
  }

  /** The same failure over and over is one line. */
  #logFailure(error: unknown): void {
    const line = describeError(error);
    if (error instanceof NexusLostError || line === this.#lastFailure) return;
    this.#lastFailure = line;
    this.#options.log(`recovery: ${line}`);
  }

  #unlessStopped<T>(wait: Promise<T>): Promise<T> {
    return unlessAborted(wait, this.#stop.signal);
  }

  #enterState(state: RecoveryState): void {
    this.#state = state;
    this.#options.onState(state);
  }
}

function isFinal(state: RecoveryState): boolean {
  return 'final' in state && state.final;
}

function stopped(): IserfsError {
  return new IserfsError('aborted', 'the logical unit is closed');
}

function restless(): IserfsError {
  return new IserfsError('not-ready', 'the device does not stop reporting changes');
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
