/**
 * Several transports for one connection, tried in order until a login has come to its end over one of them.
 * The login decides, not the connection: a portal may accept an RDMA connection for targets that it does not
 * serve by RDMA (tgtd's iSER and TCP targets are disjoint), and says so only then. So an attempt is everything up to
 * the full-feature phase, and its failure is judged by what kind of failure it is. Remembers, per portal,
 * what only cost time, and says why the first transport is not the one in use. Knows no protocol and no device.
 */

import type { Clock } from '../../clock.ts';
import { describeError, type ErrorCode, errorCode, IserfsError } from '../../errors.ts';
import { formatPortal, type Portal } from '../iscsi/name.ts';
import type { InitiatorTransport } from './datamover.ts';

export interface TransportCandidate {
  readonly name: InitiatorTransport['name'];
  /** Called for each attempt: a device may have come meanwhile. Throws `unsupported`, with the reason, where this machine has no such transport. */
  readonly load: () => InitiatorTransport;
  /** That this machine has no such transport is not worth a word where another one fails. */
  readonly isOptional?: boolean;
}

/** Why a transport was not the one. */
export interface TransportFailure {
  readonly name: InitiatorTransport['name'];
  readonly error: unknown;
  /** This machine has no such transport, whatever the portal. */
  readonly isAbsent: boolean;
}

/** A connection that is not by the first transport of the list. */
export interface Fallback {
  readonly portal: Portal;
  readonly used: InitiatorTransport['name'];
  /** Of those before it, in order; at least one. */
  readonly failures: readonly TransportFailure[];
}

export interface TransportChoiceOptions {
  /** At least one; the first that works is used. */
  readonly candidates: readonly TransportCandidate[];
  /** Called when a connection falls back, and not again for the same portal while nothing changes. */
  readonly onFallback?: (fallback: Fallback) => void;
}

export interface AttemptLimits {
  readonly clock: Clock;
  /** For all attempts together. One that others follow gets at most half of what is left, so that silence does not take all of it. */
  readonly timeoutMs: number;
}

/** What another transport may overcome. Not: wrong credentials, which some targets answer by locking the account; a target that is busy; an interruption. */
const passingErrors: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'connection-lost',
  'login-refused',
  'protocol-error',
  'target-not-found',
  'unreachable',
  'unsupported',
]);
/** A transport that a portal did not answer in time is left out there for so long, if another one works: its silence costs seconds. */
const LEFT_OUT_MS = 300_000;

interface Silence {
  readonly failure: TransportFailure;
  readonly until: number;
}

export class TransportChoice {
  readonly #options: TransportChoiceOptions;
  /** By portal and transport. */
  readonly #silent = new Map<string, Silence>();
  /** What was said of a fallback last, by portal. */
  readonly #said = new Map<string, string>();
  #used: InitiatorTransport['name'] | undefined;
  #fallback: Fallback | undefined;

  constructor(options: TransportChoiceOptions) {
    if (options.candidates.length === 0) throw new RangeError('no transport to choose from');
    this.#options = options;
  }

  /** The transport of the last connection that was opened; before there is one, the first of the list. */
  get name(): InitiatorTransport['name'] {
    return this.#used ?? (this.#options.candidates[0] as TransportCandidate).name;
  }

  /** Why the last connection is not by the first transport, in words; undefined where it is. */
  get fallbackReason(): string | undefined {
    return this.#fallback === undefined ? undefined : reasonsOf(this.#fallback);
  }

  /**
   * Calls `attempt` with one transport after another, each with the portal as that transport reaches it.
   * Rejects with the first failure that no other transport can overcome, or when all have failed with the most
   * telling failure, in which the others are named: the one that got furthest, of equals the last.
   */
  async open<T>(
    portal: Portal,
    { clock, timeoutMs }: AttemptLimits,
    attempt: (transport: InitiatorTransport, portal: Portal, timeoutMs: number) => Promise<T>,
  ): Promise<T> {
    const deadline = clock.now() + timeoutMs;
    const failures: TransportFailure[] = [];
    const candidates = this.#options.candidates.map(loaded);
    const last = candidates.findLastIndex(({ transport }) => transport !== undefined);
    for (const [index, { name, transport, error: absence }] of candidates.entries()) {
      if (transport === undefined) {
        failures.push({ name, error: absence, isAbsent: true });
        continue;
      }
      const isLast = index === last;
      const key = `${name} ${formatPortal(portal)}`;
      const silence = this.#silent.get(key);
      if (silence !== undefined && !isLast && clock.now() < silence.until) {
        failures.push(silence.failure);
        continue;
      }
      this.#silent.delete(key);
      const startedAt = clock.now();
      const left = Math.max(1, Math.ceil(deadline - startedAt));
      const budget = isLast ? left : Math.ceil(left / 2);
      try {
        const result = await attempt(transport, portalFor(name, portal), budget);
        this.#note(portal, name, failures);
        return result;
      } catch (error) {
        if (!passingErrors.has(errorCode(error))) throw error;
        const failure: TransportFailure = { name, error, isAbsent: false };
        failures.push(failure);
        const tookLong = clock.now() - startedAt >= 0.9 * budget;
        if (!isLast && tookLong) this.#silent.set(key, { failure, until: clock.now() + LEFT_OUT_MS });
      }
    }
    // Nothing works at present: all of them have another chance next time.
    for (const { name } of candidates) this.#silent.delete(`${name} ${formatPortal(portal)}`);
    throw this.#combined(failures);
  }

  #note(portal: Portal, used: InitiatorTransport['name'], failures: readonly TransportFailure[]): void {
    this.#used = used;
    this.#fallback = failures.length === 0 ? undefined : { portal, used, failures };
    const where = formatPortal(portal);
    if (this.#fallback === undefined) {
      this.#said.delete(where);
      return;
    }
    const kind = [used, ...failures.map(({ name, error }) => `${name} ${errorCode(error)}`)].join(', ');
    if (this.#said.get(where) === kind) return;
    this.#said.set(where, kind);
    this.#options.onFallback?.(this.#fallback);
  }

  #combined(failures: readonly TransportFailure[]): unknown {
    const optional = new Set(this.#options.candidates.filter(({ isOptional }) => isOptional).map(({ name }) => name));
    const telling = failures.filter(({ name, isAbsent }) => !(isAbsent && optional.has(name)));
    const [best, ...others] = (telling.length === 0 ? failures : telling).toReversed().sort(byProgress);
    if (best === undefined || others.length === 0) return best?.error;
    const also = others.map(({ name, error }) => `${name}: ${describeError(error)}`).join('; ');
    const { error } = best;
    const hint = error instanceof IserfsError ? error.hint : undefined;
    return new IserfsError(errorCode(error), `${describeError(error)} (by ${best.name}; ${also})`, {
      cause: error,
      ...(hint === undefined ? {} : { hint }),
    });
  }
}

interface Loaded {
  readonly name: InitiatorTransport['name'];
  readonly transport: InitiatorTransport | undefined;
  /** Why there is none. */
  readonly error?: unknown;
}

function loaded({ name, load }: TransportCandidate): Loaded {
  try {
    return { name, transport: load() };
  } catch (error) {
    if (errorCode(error) !== 'unsupported') throw error;
    return { name, transport: undefined, error };
  }
}

/** The reasons of a fallback on one line: `verbs: connection refused`. */
export function reasonsOf({ failures }: Fallback): string {
  return failures.map(({ name, error }) => `${name}: ${describeError(error)}`).join('; ');
}

/** iSER may have a port of its own. */
function portalFor(transport: InitiatorTransport['name'], portal: Portal): Portal {
  const { iserPort, ...plain } = portal;
  return transport === 'tcp' || iserPort === undefined ? plain : { ...plain, port: iserPort };
}

/** The further an attempt got, the more its failure says. */
function byProgress(one: TransportFailure, other: TransportFailure): number {
  return progressOf(other.error) - progressOf(one.error);
}

function progressOf(error: unknown): number {
  const code = errorCode(error);
  if (code === 'unsupported') return 0;
  return code === 'unreachable' ? 1 : 2;
}
