/** Two RDMA providers that listen for and connect to one another, and all that a test opened on them, to be closed and looked through. */

import type { Endpoint } from '../../src/iser/datamover/datamover.ts';
import type {
  ConnectionRequest,
  QueuePair,
  QueuePairOptions,
  RdmaConnectOptions,
  RdmaListener,
  RdmaProvider,
} from '../../src/iser/rdma/provider.ts';
import { ordinaryOptions, RdmaEnd } from './rdma-end.ts';

/** Of the receives that each end has from the beginning. */
export const RECEIVE_LENGTH = 8192;

export interface PairOptions {
  readonly initiator?: Partial<QueuePairOptions>;
  readonly target?: Partial<QueuePairOptions>;
  /** Receives that each end has from the beginning. Default 8. */
  readonly receives?: number;
}

export interface RdmaPair {
  readonly initiator: RdmaEnd;
  readonly target: RdmaEnd;
}

export class RdmaFixture {
  readonly #initiator: RdmaProvider;
  readonly #target: RdmaProvider;
  /** Where to listen; port 0. */
  readonly #endpoint: Endpoint;
  readonly #listeners: RdmaListener[] = [];
  readonly #ends: RdmaEnd[] = [];

  constructor(initiator: RdmaProvider, target: RdmaProvider, endpoint: Endpoint) {
    this.#initiator = initiator;
    this.#target = target;
    this.#endpoint = endpoint;
  }

  newInitiator(): RdmaEnd {
    return new RdmaEnd(this.#initiator.memory);
  }

  newTarget(): RdmaEnd {
    return new RdmaEnd(this.#target.memory);
  }

  async listen(onRequest: (request: ConnectionRequest) => void, endpoint = this.#endpoint): Promise<RdmaListener> {
    const listener = await this.#target.listen(endpoint, onRequest);
    this.#listeners.push(listener);
    return listener;
  }

  /** `end` is closed and looked through after the test, if it comes to a connection. */
  connect(endpoint: Endpoint, end: RdmaEnd, options: Partial<RdmaConnectOptions> = {}): Promise<RdmaEnd> {
    const complete = { ...ordinaryOptions, timeoutMs: 8000, ...options };
    return this.#attach(end, this.#initiator.connect(endpoint, complete, end.events));
  }

  accept(request: ConnectionRequest, end: RdmaEnd, options: Partial<QueuePairOptions> = {}): Promise<RdmaEnd> {
    return this.#attach(end, request.accept({ ...ordinaryOptions, ...options }, end.events));
  }

  /** A connection, with receives at both ends. */
  async pair(options: PairOptions = {}): Promise<RdmaPair> {
    const { receives = 8 } = options;
    const target = this.newTarget();
    const initiator = this.newInitiator();
    let accepted: Promise<unknown> | undefined;
    const listener = await this.listen((request) => {
      const receivesOfTarget = target.receives(receives, RECEIVE_LENGTH);
      accepted = this.accept(request, target, { receives: receivesOfTarget, ...options.target });
    });
    const receivesOfInitiator = initiator.receives(receives, RECEIVE_LENGTH);
    await this.connect(listener.endpoint, initiator, { receives: receivesOfInitiator, ...options.initiator });
    await accepted;
    await listener.close();
    return { initiator, target };
  }

  /** Closes everything and answers what was wrong with the events that came. */
  async end(): Promise<string[]> {
    for (const listener of this.#listeners) await listener.close();
    for (const end of this.#ends) if (!end.isClosed) end.queuePair.close('abrupt');
    for (const end of this.#ends) await end.closed();
    // The event loop once more, for events that must not come.
    await new Promise((resolve) => setTimeout(resolve, 2));
    return this.#ends.flatMap(({ faults }) => faults);
  }

  async #attach(end: RdmaEnd, promise: Promise<QueuePair>): Promise<RdmaEnd> {
    end.attach(await promise);
    this.#ends.push(end);
    return end;
  }
}

/** Waits until both ends have ended, and expects so many of them to have heard why. */
export async function endsForBreach(
  { initiator, target }: RdmaPair,
  { endsThatHearOfBreaches }: { readonly endsThatHearOfBreaches: number },
): Promise<void> {
  const errors = [await initiator.closed(), await target.closed()].filter((error) => error !== undefined);
  if (errors.length < endsThatHearOfBreaches) throw new Error(`only ${errors.length} of the ends heard of it`);
}
