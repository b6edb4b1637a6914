/**
 * Which transports the logins of a mount may use, in which order, for what `--transport` says; which memory
 * suits them; and what the log hears when a portal is not reached by the first of them. The only place above
 * `src/iser` that knows which transports there are.
 */

import type { OptionValues } from '../config/options.ts';
import { formatSize } from '../config/quantity.ts';
import { errorCode, IserfsError, UsageError } from '../errors.ts';
import type { InitiatorTransport } from '../iser/datamover/datamover.ts';
import { createTcpTransport, type DigestPolicy } from '../iser/datamover/tcp.ts';
import { type Fallback, reasonsOf, type TransportCandidate, TransportChoice } from '../iser/datamover/transport-choice.ts';
import { formatPortal } from '../iser/iscsi/name.ts';
import { type ArenaSource, PARTLY_USED } from '../scsi/buffer-pool.ts';
import { nativeRdma, type Rdma } from './rdma.ts';

export type TransportOptions = Pick<OptionValues, 'transport' | 'iwarp-crc' | 'header-digest' | 'data-digest'>;
type Name = InitiatorTransport['name'];
type RdmaName = Exclude<Name, 'tcp'>;

/** For sessions. `auto` takes RDMA where there is hardware for it: in software it is there for its own sake, not for speed. */
const forLogin: Readonly<Record<OptionValues['transport'], readonly Name[]>> = {
  auto: ['verbs', 'tcp'],
  iser: ['verbs', 'iwarp'],
  iwarp: ['iwarp'],
  verbs: ['verbs'],
  tcp: ['tcp'],
};
/** Below this a device is not even tried: buffers for messages and a few commands must be locked. */
const LEAST_LOCKABLE = 64 * 1024 * 1024;
/** For messages and the device's own queues. */
const LOCKED_FOR_MESSAGES = 8 * 1024 * 1024;
const DIGESTS = ['header-digest', 'data-digest'] as const;

export class Transports {
  readonly #options: TransportOptions;
  readonly #rdma: Rdma;
  readonly #log: (line: string) => void;
  readonly #loaded = new Map<RdmaName, InitiatorTransport>();
  /** What the log has heard of fallbacks. */
  readonly #said = new Set<string>();

  /** Throws `UsageError` where the options exclude each other. */
  constructor(
    options: TransportOptions,
    { log = () => {}, rdma = nativeRdma }: { log?: (line: string) => void; rdma?: Rdma } = {},
  ) {
    this.#options = options;
    this.#rdma = rdma;
    this.#log = log;
    const digest = this.#requiredDigest;
    if (digest !== undefined && !forLogin[options.transport].includes('tcp')) {
      throw new UsageError(
        `--${digest} require cannot be had with --transport ${options.transport}`,
        `RDMA has checks of its own and no digests: leave --${digest} out, or use --transport tcp.`,
      );
    }
  }

  /** Memory for the pool, which RDMA can register. Undefined without the addon. */
  get memory(): ArenaSource | undefined {
    return this.#rdma.isAvailable ? this.#rdma.memory() : undefined;
  }

  /** Whether RDMA may come to be used, which moves data in and out of `memory` by itself, and of no other. */
  get mayUseRdma(): boolean {
    return (this.#mayUse('iwarp') || this.#mayUseDevice) && this.#rdma.isAvailable;
  }

  /** What is left of `wanted` bytes of cache, and the bound on retained writes, where a device needs memory locked and little may be. */
  memoryBounds(wanted: number): { readonly cacheBytes: number; readonly retainedLimit: number | undefined } {
    const { lockableBytes } = this.#rdma;
    if (!this.#mayUseDevice || lockableBytes === Number.POSITIVE_INFINITY)
      return { cacheBytes: wanted, retainedLimit: undefined };
    const forData = Math.max(0, lockableBytes - LOCKED_FOR_MESSAGES - PARTLY_USED);
    // Half as much again may be in use by readers when the cache has given it up.
    const cacheBytes = Math.min(wanted, Math.floor(forData / 3));
    if (cacheBytes < wanted) {
      this.#log(
        `the cache has ${formatSize(cacheBytes)} instead of ${formatSize(wanted)}: RDMA needs its memory locked, ` +
          `and this process may lock ${formatSize(lockableBytes)} (ulimit -l)`,
      );
    }
    return { cacheBytes, retainedLimit: Math.floor(forData / 8) };
  }

  /**
   * Whether every RDMA connection will be to a TCP port, as iwarp's are: then a port that answers iSCSI over TCP
   * is not the one.
   */
  get needsOwnPort(): boolean {
    const { transport } = this.#options;
    return transport === 'iwarp' || (transport === 'iser' && !this.#mayUseDevice);
  }

  /** For the logins to one target. */
  forLogin(): TransportChoice {
    return new TransportChoice({
      candidates: forLogin[this.#options.transport].map((name) => this.#candidate(name, (policy) => policy)),
      onFallback: (fallback) => this.#say(fallback),
    });
  }

  /**
   * For SendTargets: over TCP first, where every portal that has TCP answers it, whatever carries the sessions; then as for
   * logins. What must have digests is the sessions that follow: most portals answer discovery with none.
   */
  forDiscovery(): TransportChoice {
    const names: readonly Name[] = ['tcp', ...forLogin[this.#options.transport].filter((name) => name !== 'tcp')];
    const lenient = (policy: DigestPolicy) => (policy === 'require' ? 'prefer' : policy);
    return new TransportChoice({ candidates: names.map((name) => this.#candidate(name, lenient)) });
  }

  #mayUse(name: RdmaName): boolean {
    return this.#requiredDigest === undefined && forLogin[this.#options.transport].includes(name);
  }

  get #mayUseDevice(): boolean {
    return this.#mayUse('verbs') && this.#rdma.hasDevice && this.#rdma.lockableBytes >= LEAST_LOCKABLE;
  }

  get #requiredDigest(): (typeof DIGESTS)[number] | undefined {
    return DIGESTS.find((name) => this.#options[name] === 'require');
  }

  #candidate(name: Name, digest: (policy: DigestPolicy) => DigestPolicy): TransportCandidate {
    const { 'header-digest': headerDigest, 'data-digest': dataDigest, transport } = this.#options;
    if (name !== 'tcp') return { name, load: () => this.#loadRdma(name), isOptional: transport === 'auto' };
    const tcp = createTcpTransport({ headerDigest: digest(headerDigest), dataDigest: digest(dataDigest) });
    return { name, load: () => tcp };
  }

  #loadRdma(name: RdmaName): InitiatorTransport {
    if (this.#requiredDigest !== undefined) throw new IserfsError('unsupported', 'digests are required, which RDMA has not');
    const loaded = this.#loaded.get(name);
    if (loaded !== undefined) return loaded;
    try {
      if (name === 'verbs') this.#requireLockableMemory();
      const made = this.#withAdvice(this.#rdma.transport(name, { crc: this.#options['iwarp-crc'] === 'on' }));
      this.#loaded.set(name, made);
      return made;
    } catch (error) {
      throw this.#advise(
        error,
        name === 'verbs' ? 'RDMA in software, which the target must speak too, is --transport iwarp' : '',
      );
    }
  }

  #requireLockableMemory(): void {
    const { hasDevice, lockableBytes } = this.#rdma;
    if (!hasDevice || lockableBytes >= LEAST_LOCKABLE) return;
    const need = formatSize(LEAST_LOCKABLE);
    throw new IserfsError('unsupported', `this process may lock ${formatSize(lockableBytes)} of memory, and RDMA needs ${need}`, {
      hint: 'Raise it with ulimit -l, with LimitMEMLOCK in a systemd unit, or in /etc/security/limits.conf.',
    });
  }

  #withAdvice(made: InitiatorTransport): InitiatorTransport {
    return {
      name: made.name,
      connect: async (endpoint, handler, options) => {
        try {
          return await made.connect(endpoint, handler, options);
        } catch (error) {
          throw errorCode(error) === 'unreachable' ? this.#advise(error, 'another port for iSER is named by --iser-port') : error;
        }
      },
    };
  }

  /** Whoever asked for RDMA is told what else there is to ask for. */
  #advise(error: unknown, advice: string): unknown {
    if (!(error instanceof IserfsError) || forLogin[this.#options.transport].includes('tcp')) return error;
    const sentence = [advice, '--transport tcp does without RDMA'].filter((part) => part !== '').join('; ');
    const hint = `${error.hint === undefined ? '' : `${error.hint} `}${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}.`;
    return new IserfsError(error.code, error.message, { hint, cause: error.cause });
  }

  /** Once per portal and kind of failure; of what the machine lacks, which is the same for all portals, once. */
  #say(fallback: Fallback): void {
    const { portal, used, failures } = fallback;
    const where = failures.every(({ isAbsent }) => isAbsent) ? undefined : formatPortal(portal);
    const kind = where === undefined ? 'machine' : [where, ...failures.map(({ error }) => errorCode(error))].join(' ');
    if (this.#said.has(kind)) return;
    this.#said.add(kind);
    const subject = where === undefined ? 'data travels' : `${where} is reached`;
    this.#log(`${subject} by ${used} (${reasonsOf(fallback)})`);
  }
}
