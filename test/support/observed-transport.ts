/** A target's transport that keeps, connection by connection, what the target saw and said. */

import type {
  DataParameters,
  Endpoint,
  TargetDatamover,
  TargetHandler,
  TargetListener,
  TargetTransport,
} from '../../src/iser/datamover/datamover.ts';
import type { InitiatorControlPdu, OpcodeName, Pdu, TargetControlPdu } from '../../src/iser/iscsi/pdu.ts';

/** What happened on one connection, in order. */
export type Observation =
  | { readonly type: 'received'; readonly pdu: InitiatorControlPdu }
  | { readonly type: 'sent'; readonly pdu: TargetControlPdu }
  | { readonly type: 'enabled'; readonly parameters: DataParameters };

export class ObservedConnection {
  readonly localAddress: string;
  readonly remoteAddress: string;
  readonly events: Observation[] = [];
  /** Resolves when the target has heard of its end. */
  readonly ended: Promise<void>;
  #end: () => void = () => {};

  constructor({ localAddress, remoteAddress }: TargetDatamover) {
    this.localAddress = localAddress;
    this.remoteAddress = remoteAddress;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  /** The PDUs of one kind that the target has received. */
  received<N extends InitiatorControlPdu['opcode']>(opcode: N): Pdu<N>[] {
    return this.#pdus('received', opcode) as unknown as Pdu<N>[];
  }

  /** Those that it has sent. */
  sent<N extends TargetControlPdu['opcode']>(opcode: N): Pdu<N>[] {
    return this.#pdus('sent', opcode) as unknown as Pdu<N>[];
  }

  get parameters(): DataParameters | undefined {
    return this.events.flatMap((event) => (event.type === 'enabled' ? [event.parameters] : []))[0];
  }

  note(event: Observation): void {
    this.events.push(event);
  }

  noteEnd(): void {
    this.#end();
  }

  #pdus(type: 'received' | 'sent', opcode: OpcodeName): Pdu[] {
    return this.events.flatMap((event) => (event.type === type && event.pdu.opcode === opcode ? [event.pdu] : []));
  }
}

export class ObservedTransport implements TargetTransport {
  readonly name: TargetTransport['name'];
  readonly connections: ObservedConnection[] = [];
  readonly #transport: TargetTransport;
  readonly #waiting: (() => void)[] = [];

  constructor(transport: TargetTransport) {
    this.name = transport.name;
    this.#transport = transport;
  }

  /** The connection that came as the `index`th, when it has come. */
  async connection(index: number): Promise<ObservedConnection> {
    for (;;) {
      const connection = this.connections[index];
      if (connection !== undefined) return connection;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  listen(endpoint: Endpoint, accept: (datamover: TargetDatamover) => TargetHandler): Promise<TargetListener> {
    return this.#transport.listen(endpoint, (datamover) => {
      const connection = new ObservedConnection(datamover);
      const handler = accept(watchedDatamover(datamover, connection));
      this.connections.push(connection);
      for (const wake of this.#waiting.splice(0)) wake();
      return watchedHandler(handler, connection);
    });
  }
}

function watchedHandler(handler: TargetHandler, connection: ObservedConnection): TargetHandler {
  return {
    controlNotify(pdu) {
      const kept = { ...pdu, data: pdu.data.slice() } as InitiatorControlPdu;
      connection.note({
        type: 'received',
        pdu: kept.opcode === 'scsi-command' ? { ...kept, cdb: kept.cdb.slice() } : kept,
      });
      handler.controlNotify(pdu);
    },
    currentNumbering: () => handler.currentNumbering(),
    connectionTerminated(error) {
      connection.noteEnd();
      handler.connectionTerminated(error);
    },
  };
}

/** Everything else is the data mover's own. */
function watchedDatamover(datamover: TargetDatamover, connection: ObservedConnection): TargetDatamover {
  return new Proxy(datamover, {
    get: (real, name) => {
      const value = Reflect.get(real, name, real) as unknown;
      if (typeof value !== 'function') return value;
      return (...args: unknown[]) => {
        if (name === 'sendControl') connection.note({ type: 'sent', pdu: args[0] as TargetControlPdu });
        if (name === 'enable') connection.note({ type: 'enabled', parameters: args[0] as DataParameters });
        return value.apply(real, args) as unknown;
      };
    },
  });
}
