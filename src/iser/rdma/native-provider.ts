/**
 * The providers of the addon for the rest of iserfs: `iwarp` in software over TCP sockets, and `verbs`
 * over RDMA devices. Looks host names up and tries their addresses in turn; says failures in words.
 * Everything is made when it is first asked for, so that nothing here needs the addon to be built. There
 * is one of each for a thread (an environment of Node); the event loop goes on while a connection or a
 * listener of theirs is open, or a connection is being made.
 */

import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { setImmediate } from 'node:timers';
import { IserfsError } from '../../errors.ts';
import type { Endpoint } from '../datamover/datamover.ts';
import { faultText } from '../datamover/socket-fault.ts';
import { formatPortal } from '../iscsi/name.ts';
import type { AddonFailure, AddonRequest } from './addon.ts';
import { abortedError, addressesOf } from './host-addresses.ts';
import { NativeContext, reportLater } from './native-context.ts';
import type {
  ConnectionRequest,
  ProviderName,
  QueuePair,
  QueuePairEvents,
  QueuePairOptions,
  RdmaConnectOptions,
  RdmaListener,
  RdmaMemory,
  RdmaProvider,
} from './provider.ts';
import { acceptFault, connectFault, listenFault, providerFault, thrownFailure } from './provider-fault.ts';

let sharedContext: NativeContext | undefined;
const providers = new Map<ProviderName, RdmaProvider>();

/** Throws `unsupported`, with a hint, where the addon is not built. */
function context(): NativeContext {
  sharedContext ??= new NativeContext();
  return sharedContext;
}

/** Whether the addon loads. */
export function isRdmaAvailable(): boolean {
  try {
    context();
    return true;
  } catch {
    return false;
  }
}

/** Arenas that every provider can post and advertise. Throws `unsupported` where the addon is not built. */
export function rdmaMemory(): RdmaMemory {
  return context().memory;
}

/** Software iWARP. Throws `unsupported` where the addon is not built. */
export function iwarpProvider(): RdmaProvider {
  return providerNamed('iwarp', 'software iWARP cannot be used here');
}

/** RDMA devices. Throws `unsupported` with the reason in words: no addon, no library, no device. */
export function verbsProvider(): RdmaProvider {
  return providerNamed('verbs', 'RDMA verbs cannot be used here');
}

/** The RDMA devices of this machine; none where there is no way to ask. */
export function verbsDevices(): { name: string; fabric: string }[] {
  try {
    return context().addon.listDevices();
  } catch (error) {
    if (error instanceof IserfsError || thrownFailure(error) !== undefined) return [];
    throw error;
  }
}

function providerNamed(name: ProviderName, fault: string): RdmaProvider {
  let provider = providers.get(name);
  if (provider === undefined) {
    try {
      context().addon.openProvider(name);
    } catch (error) {
      const failure = thrownFailure(error);
      throw failure === undefined ? error : providerFault(fault, failure);
    }
    provider = new NativeProvider(name, context());
    providers.set(name, provider);
  }
  return provider;
}

class NativeProvider implements RdmaProvider {
  readonly name: ProviderName;
  readonly #context: NativeContext;

  constructor(name: ProviderName, nativeContext: NativeContext) {
    this.name = name;
    this.#context = nativeContext;
  }

  get memory(): RdmaMemory {
    return this.#context.memory;
  }

  async connect(endpoint: Endpoint, options: RdmaConnectOptions, events: QueuePairEvents): Promise<QueuePair> {
    const { signal, timeoutMs } = options;
    const deadline = performance.now() + timeoutMs;
    const addresses = await addressesOf(endpoint, signal, timeoutMs);
    const failures: AddonFailure[] = [];
    for (const [index, address] of addresses.entries()) {
      // One at a time, because some targets take a connection without a login amiss. Each has its share of
      // the time that is left, so that one address without an answer does not use it up.
      const shareMs = Math.floor((deadline - performance.now()) / (addresses.length - index));
      if (shareMs < 1) break;
      if (signal?.aborted) throw abortedError(endpoint, signal);
      const outcome = await this.#connectTo({ ...endpoint, host: address }, options, events, shareMs);
      if ('queuePair' in outcome) return outcome.queuePair;
      if (signal?.aborted) throw abortedError(endpoint, signal);
      failures.push(outcome.failure);
    }
    throw connectFault(endpoint, failures, timeoutMs);
  }

  async #connectTo({ host, port }: Endpoint, options: RdmaConnectOptions, events: QueuePairEvents, timeoutMs: number) {
    const { signal } = options;
    const { addon } = this.#context;
    try {
      const attempt = this.#context.attempt(options, events, (made) => addon.connect(this.name, host, port, made, timeoutMs));
      signal?.addEventListener('abort', attempt.giveUp, { once: true });
      const outcome = await attempt.outcome;
      signal?.removeEventListener('abort', attempt.giveUp);
      return outcome;
    } catch (error) {
      const failure = thrownFailure(error);
      if (failure === undefined) throw error;
      return { failure };
    }
  }

  async listen(endpoint: Endpoint, onRequest: (request: ConnectionRequest) => void): Promise<RdmaListener> {
    const { addon } = this.#context;
    let opened: ReturnType<typeof addon.listen>;
    try {
      opened = addon.listen(this.name, await listeningAddress(endpoint), endpoint.port);
    } catch (error) {
      const failure = thrownFailure(error);
      throw failure === undefined ? error : listenFault(endpoint, failure);
    }
    const { listener, localAddress } = opened;
    this.#context.receiveRequests(listener, (request) => this.#hand(request, onRequest));
    const separator = localAddress.lastIndexOf(':');
    const host = endpoint.host === '' ? localAddress.slice(0, separator).replace(/^\[|\]$/g, '') : endpoint.host;
    return {
      endpoint: { host, port: Number(localAddress.slice(separator + 1)) },
      close: () =>
        new Promise((resolve) => {
          this.#context.closeListener(listener);
          setImmediate(resolve);
        }),
    };
  }

  #hand(request: AddonRequest, onRequest: (request: ConnectionRequest) => void): void {
    const toAnswer = new NativeRequest(this.#context, request);
    try {
      onRequest(toAnswer);
    } catch (error) {
      this.#context.addon.reject(request.request);
      reportLater(error);
    }
  }
}

/** A request that nobody answers or knows any more is rejected. */
const forgotten = new FinalizationRegistry<() => void>((reject) => reject());

class NativeRequest implements ConnectionRequest {
  readonly remoteAddress: string;
  readonly privateData: Uint8Array;
  readonly #context: NativeContext;
  readonly #number: number;

  constructor(nativeContext: NativeContext, { request, remoteAddress, privateData }: AddonRequest) {
    this.remoteAddress = remoteAddress;
    this.privateData = privateData;
    this.#context = nativeContext;
    this.#number = request;
    forgotten.register(this, () => nativeContext.addon.reject(request));
  }

  async accept(options: QueuePairOptions, events: QueuePairEvents): Promise<QueuePair> {
    const { addon } = this.#context;
    let failure: AddonFailure | undefined;
    try {
      const { outcome } = this.#context.attempt(options, events, (made) => addon.accept(this.#number, made));
      const result = await outcome;
      if ('queuePair' in result) return result.queuePair;
      failure = result.failure;
    } catch (error) {
      failure = thrownFailure(error);
      if (failure === undefined) throw error;
    }
    throw acceptFault(this.remoteAddress, failure);
  }

  reject(): void {
    this.#context.addon.reject(this.#number);
  }
}

/** Of a name its first address; of none all addresses. */
async function listeningAddress(endpoint: Endpoint): Promise<string> {
  if (endpoint.host === '') return '0.0.0.0';
  if (isIP(endpoint.host) !== 0) return endpoint.host;
  try {
    return (await lookup(endpoint.host)).address;
  } catch (error) {
    const text = faultText(error instanceof Error ? error : new Error(String(error)));
    throw new IserfsError('bad-configuration', `cannot listen on ${formatPortal(endpoint)}: ${text}`);
  }
}
