/**
 * The gate that every command of a logical unit passes. While it is closed (no nexus, or what is known
 * of the device is being checked again) commands wait; while it refuses they fail at once. It bounds the
 * commands in flight, first come first served, and knows when all of them have ended, which is what
 * recovery and SYNCHRONIZE CACHE wait for. Knows no SCSI.
 */

import { Bag, type Placed, UNPLACED } from '../bag.ts';

/** The right to have one command in flight on a nexus. */
export interface Ticket {
  readonly nexus: number;
  /** Gives the right back, when the command has ended and all its consequences are noted. Call it once. */
  leave(): void;
}

type GateState =
  | { readonly type: 'open'; readonly nexus: number }
  | { readonly type: 'closed' }
  | { readonly type: 'refusing'; readonly reason: Error };

interface Waiter {
  readonly grant: (ticket: Ticket) => void;
  readonly refuse: (reason: unknown) => void;
}

export class Gate {
  readonly #width: number;
  #state: GateState = { type: 'closed' };
  readonly #out = new Bag<OutTicket>();
  readonly #waiters = new Set<Waiter>();
  /** Who waits for tickets to come back, with those that are still out. */
  readonly #watchers = new Set<{ readonly awaited: Set<Ticket>; readonly resolve: () => void }>();
  #queued = 0;

  /** At most `width` tickets are out. Starts closed. */
  constructor(width: number) {
    this.#width = width;
  }

  get inFlight(): number {
    return this.#out.size;
  }

  /** How often somebody had to wait because all tickets were out. */
  get queued(): number {
    return this.#queued;
  }

  get isOpen(): boolean {
    return this.#state.type === 'open';
  }

  /** A ticket at once; undefined where `enter` would have to wait or to refuse. */
  tryEnter(): Ticket | undefined {
    const state = this.#state;
    if (state.type !== 'open' || this.#out.size >= this.#width || this.#waiters.size > 0) return undefined;
    return this.#issue(state.nexus);
  }

  /** A ticket, when the gate is open and one is free. Rejects while the gate refuses, and with the signal's reason. */
  enter(signal?: AbortSignal): Promise<Ticket> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.#state.type === 'refusing') return Promise.reject(this.#state.reason);
    const ticket = this.tryEnter();
    if (ticket !== undefined) return Promise.resolve(ticket);
    if (this.#state.type === 'open') this.#queued++;
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#waiters.delete(waiter);
        reject(signal?.reason);
      };
      const waiter: Waiter = {
        grant: (ticket) => {
          signal?.removeEventListener('abort', onAbort);
          resolve(ticket);
        },
        refuse: (reason) => {
          signal?.removeEventListener('abort', onAbort);
          reject(reason);
        },
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiters.add(waiter);
    });
  }

  open(nexus: number): void {
    this.#state = { type: 'open', nexus };
    this.#admit();
  }

  /** Nobody passes any more; tickets that are out stay valid. */
  close(): void {
    this.#state = { type: 'closed' };
  }

  /** Whoever waits and whoever comes is rejected with `reason`, until the gate opens or closes again. */
  refuse(reason: Error): void {
    this.#state = { type: 'refusing', reason };
    this.refuseWaiting(reason);
  }

  /** Rejects whoever waits now; the gate stays as it is. */
  refuseWaiting(reason: Error): void {
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const waiter of waiters) waiter.refuse(reason);
  }

  /** Resolves when every ticket that is out now has come back. */
  settled(): Promise<void> {
    if (this.#out.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#watchers.add({ awaited: new Set(this.#out), resolve }));
  }

  #issue(nexus: number): Ticket {
    const ticket = new OutTicket(nexus, this.#takeBack);
    this.#out.add(ticket);
    return ticket;
  }

  readonly #takeBack = (ticket: OutTicket): void => {
    if (!this.#out.delete(ticket)) throw new Error('a ticket was given back twice');
    if (this.#watchers.size > 0) this.#tellWatchers(ticket);
    if (this.#waiters.size > 0) this.#admit();
  };

  #tellWatchers(ticket: Ticket): void {
    for (const watcher of this.#watchers) {
      watcher.awaited.delete(ticket);
      if (watcher.awaited.size > 0) continue;
      this.#watchers.delete(watcher);
      watcher.resolve();
    }
  }

  #admit(): void {
    for (const waiter of this.#waiters) {
      if (this.#state.type !== 'open' || this.#out.size >= this.#width) return;
      this.#waiters.delete(waiter);
      waiter.grant(this.#issue(this.#state.nexus));
    }
  }
}

class OutTicket implements Ticket, Placed {
  readonly nexus: number;
  place = UNPLACED;
  readonly #takeBack: (ticket: OutTicket) => void;

  constructor(nexus: number, takeBack: (ticket: OutTicket) => void) {
    this.nexus = nexus;
    this.#takeBack = takeBack;
  }

  leave(): void {
    this.#takeBack(this);
  }
}
