/** A portal whose targets have all moved: it answers every login with another address (RFC 7143 §11.13.5, status class 1). */

import { randomBytes } from 'node:crypto';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { LoginStatus } from '../../src/iser/iscsi/login-status.ts';
import { BHS_LENGTH, decodePdu, encodeBhs, segmentLengths } from '../../src/iser/iscsi/pdu.ts';
import { TargetLogin } from '../../src/iser/iscsi/target-login.ts';

export class RedirectingTarget implements AsyncDisposable {
  logins = 0;
  /** `HOST:PORT` */
  readonly #to: string;
  readonly #kind: 'temporarily' | 'permanently';
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(kind: 'temporarily' | 'permanently', to: string) {
    this.#kind = kind;
    this.#to = to;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  static async start(kind: 'temporarily' | 'permanently', to: string): Promise<RedirectingTarget> {
    const target = new RedirectingTarget(kind, to);
    await new Promise<void>((resolve) => target.#server.listen(0, '127.0.0.1', resolve));
    return target;
  }

  /** `127.0.0.1:PORT` */
  get portal(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #serve(socket: Socket): void {
    const status = this.#kind === 'permanently' ? LoginStatus.movedPermanently : LoginStatus.movedTemporarily;
    const login = new TargetLogin({
      accept: () => ({ ok: false, ...status, targetAddress: this.#to }),
      offers: () => ({}),
      random: (length) => randomBytes(length),
    });
    let received = Buffer.alloc(0);
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < BHS_LENGTH) return;
      const { dataSegmentLength } = segmentLengths(received);
      const end = BHS_LENGTH + dataSegmentLength + (-dataSegmentLength & 3);
      if (received.length < end) return;
      const request = decodePdu(received.subarray(0, BHS_LENGTH), received.subarray(BHS_LENGTH, BHS_LENGTH + dataSegmentLength));
      received = received.subarray(end);
      if (request.opcode !== 'login-request') throw new Error(`${request.opcode} instead of a login`);
      this.logins++;
      const { pdu } = login.handleRequest(request);
      const padding = Buffer.alloc(-pdu.data.length & 3);
      socket.end(Buffer.concat([encodeBhs(pdu), pdu.data, padding]));
    });
  }
}
