/**
 * The iSER transports of both ends over RDMA providers inside the process, with a wire that is meddled with PDU by PDU
 * like that of the stream's pair: what a test of sessions does to one it can do to the other. Header fields that
 * name memory stay as they are where a PDU is replaced.
 */

import { createIserTransport, type IserOptions } from '../../src/iser/datamover/iser.ts';
import { PLAIN_HEADER } from '../../src/iser/datamover/iser-header.ts';
import { decodeMessage, encodeMessage, LONGEST_AHS, MESSAGE_HEADER_LENGTH } from '../../src/iser/datamover/iser-message.ts';
import type { Interceptor, MemoryOptions, MemoryPair, MemoryWire, WireEnd } from '../../src/iser/datamover/memory.ts';
import type { Pdu } from '../../src/iser/iscsi/pdu.ts';
import { createMemoryProviders, type RdmaInterceptor, type RdmaWire } from '../../src/iser/rdma/memory.ts';
import type { ArenaSource } from '../../src/scsi/buffer-pool.ts';

export interface IserPairOptions extends Pick<MemoryOptions, 'clock' | 'latencyMs' | 'intercept'> {
  readonly initiatorOptions?: Partial<IserOptions>;
  readonly targetOptions?: Partial<IserOptions>;
}

export interface IserPair extends MemoryPair {
  /** From which the initiator moves data without a copy. */
  readonly memory: ArenaSource;
}

export function createIserPair({ clock, latencyMs = 0, intercept, ...options }: IserPairOptions = {}): IserPair {
  const timing = clock === undefined ? {} : { clock };
  const { initiator, target, wire } = createMemoryProviders({ ...timing, latencyMs });
  return {
    initiator: createIserTransport(initiator, { ...timing, ...options.initiatorOptions }),
    target: createIserTransport(target, { ...timing, ...options.targetOptions }),
    wire: new PduWire(wire, intercept),
    memory: initiator.memory,
  };
}

class PduWire implements MemoryWire {
  readonly #wire: RdmaWire;
  #intercept: Interceptor | undefined;

  constructor(wire: RdmaWire, intercept: Interceptor | undefined) {
    this.#wire = wire;
    this.intercept = intercept;
  }

  get intercept(): Interceptor | undefined {
    return this.#intercept;
  }

  set intercept(intercept: Interceptor | undefined) {
    this.#intercept = intercept;
    this.#wire.intercept = intercept === undefined ? undefined : meddling(intercept);
  }

  get answersConnections(): boolean {
    return this.#wire.answersConnections;
  }

  set answersConnections(answers: boolean) {
    this.#wire.answersConnections = answers;
  }

  get connectionCount(): number {
    return this.#wire.connectionCount;
  }

  inject(pdu: Pdu, to: WireEnd): void {
    this.#wire.inject({ type: 'send', bytes: messageOf(pdu) }, to);
  }

  cut(error?: Error): void {
    this.#wire.cut(error);
  }
}

function meddling(intercept: Interceptor): RdmaInterceptor {
  return (message, from) => {
    if (message.type !== 'send') return undefined;
    const { header, pdu } = decodeMessage(message.bytes.slice());
    return intercept(pdu, from)?.map(({ pdu: replaced, delayMs = 0, flipBit }) => {
      if (flipBit !== undefined) throw new Error('iSER has no digest that would notice');
      return replaced === pdu ? { message, delayMs } : { message: { ...message, bytes: messageOf(replaced, header) }, delayMs };
    });
  };
}

function messageOf(pdu: Pdu, header = PLAIN_HEADER): Uint8Array {
  const bytes = new Uint8Array(MESSAGE_HEADER_LENGTH + LONGEST_AHS + pdu.data.length);
  return bytes.subarray(0, encodeMessage(bytes, header, pdu));
}
