/**
 * A TCP proxy between an initiator and a target that meddles with what passes: flips bits, cuts connections in the middle, stops
 * passing anything on, rewrites addresses as address translation does. What it does is decided chunk by chunk by `meddle`.
 */

import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

export interface Passing {
  /** `down`: from the target to the initiator. */
  readonly direction: 'up' | 'down';
  readonly data: Buffer;
  /** Bytes that went this way on this connection before. */
  readonly offset: number;
  /** Connections count from 1. */
  readonly connection: number;
}

export interface Verdict {
  /** What goes on instead; default: what came. */
  readonly data?: Buffer;
  /** The connection is closed, or nothing goes this way any more. */
  readonly afterwards?: 'cut' | 'stall';
}

export class MeddlingProxy implements AsyncDisposable {
  meddle: (passing: Passing) => Verdict | undefined = () => undefined;
  connections = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #port: number;

  private constructor(port: number) {
    this.#port = port;
    this.#server = createServer({ noDelay: true }, (socket) => this.#join(socket));
  }

  /** Listens on a free loopback port, for the loopback port `port`. */
  static async start(port: number): Promise<MeddlingProxy> {
    const proxy = new MeddlingProxy(port);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  /** `127.0.0.1:PORT` */
  get portal(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Resets every connection. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.cut();
    await closed;
  }

  #join(initiator: Socket): void {
    const connection = ++this.connections;
    const target = connect({ host: '127.0.0.1', port: this.#port, noDelay: true });
    const pair = [initiator, target];
    const cut = () => {
      for (const socket of pair) socket.destroy();
    };
    for (const socket of pair) {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        this.#sockets.delete(socket);
        cut();
      });
    }
    this.#pass(initiator, target, { direction: 'up', connection }, cut);
    this.#pass(target, initiator, { direction: 'down', connection }, cut);
  }

  #pass(from: Socket, to: Socket, way: Pick<Passing, 'direction' | 'connection'>, cut: () => void): void {
    let offset = 0;
    let isStalled = false;
    from.on('data', (data: Buffer) => {
      if (isStalled) return;
      const verdict = this.meddle({ ...way, data, offset });
      offset += data.length;
      isStalled = verdict?.afterwards === 'stall';
      const afterwards = verdict?.afterwards === 'cut' ? cut : undefined;
      if (to.write(verdict?.data ?? data, afterwards) || isStalled) return;
      from.pause();
      to.once('drain', () => from.resume());
    });
  }
}
