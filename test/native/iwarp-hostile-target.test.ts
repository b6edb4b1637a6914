import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { describe, expect, it, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { createIserTransport } from '../../src/iser/datamover/iser.ts';
import { Initiator } from '../../src/iser/initiator.ts';
import { type Pdu, pdu } from '../../src/iser/iscsi/pdu.ts';
import { iwarpProvider, rdmaMemory } from '../../src/iser/rdma/native-provider.ts';
import type { RemoteMemory } from '../../src/iser/rdma/provider.ts';
import { execute } from '../../src/scsi/execute.ts';
import type { ScsiResult } from '../../src/scsi/port.ts';
import { countedMemory, countedProvider } from '../support/counted-memory.ts';
import { GuardedMemory } from '../support/guarded-memory.ts';
import { Opcode } from '../support/iwarp-codec.ts';
import { messageOf, RawIserTarget } from '../support/iwarp-iser.ts';
import { IwarpPeer, type IwarpPeerListener, within } from '../support/iwarp-peer.ts';
import { SeededRandom } from '../support/seeded-random.ts';

const LENGTH = 4096;
const data = new SeededRandom(3).bytes(LENGTH);
const READ = Uint8Array.of(0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0);
const WRITE = Uint8Array.of(0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0);

/** A session with a READ and a WRITE under way, as the target sees them. */
interface Scene {
  readonly target: RawIserTarget;
  readonly peer: IwarpPeer;
  readonly read: Pdu<'scsi-command'>;
  readonly write: Pdu<'scsi-command'>;
  /** What the two advertise. */
  readonly readable: RemoteMemory;
  readonly writable: RemoteMemory;
  /** What a READ of another session, with another target, advertises. */
  readonly foreign: RemoteMemory;
}

interface Malice {
  readonly name: string;
  readonly act: (scene: Scene) => void | Promise<void>;
  readonly reason: RegExp;
}

const malice: Malice[] = [
  {
    name: 'writes beyond the end of a READ',
    act: ({ peer, writable }) => peer.write(writable.tag, writable.address + 4090n, data.subarray(0, 8)),
    reason: /wrote 8 bytes out of the bounds of STag/,
  },
  {
    name: 'writes before the start of a READ',
    act: ({ peer, writable }) => peer.write(writable.tag, writable.address - 1n, data.subarray(0, 8)),
    reason: /out of the bounds of STag/,
  },
  {
    name: 'writes to the data of a WRITE',
    act: ({ peer, readable }) => peer.write(readable.tag, readable.address, data.subarray(0, 8)),
    reason: /which does not allow that/,
  },
  {
    name: 'writes to a READ of another session',
    act: ({ peer, foreign }) => peer.write(foreign.tag, foreign.address, data.subarray(0, 8)),
    reason: /which is not in force|out of the bounds/,
  },
  {
    name: 'writes to a READ that it has answered',
    act: ({ peer, target, read, writable }) => {
      peer.write(writable.tag, writable.address, new Uint8Array(LENGTH).fill(0xa5));
      target.respond(read);
      // In a piece with what lets the initiator end the task, so that nothing is left of it when the second write comes.
      return answeredBefore(target, () => peer.write(writable.tag, writable.address, data));
    },
    reason: /which is not in force/,
  },
  {
    name: 'reads beyond the end of a WRITE',
    act: ({ peer, readable }) =>
      peer.readRequest({
        sinkTag: 1,
        sinkOffset: 0n,
        length: LENGTH + 1,
        sourceTag: readable.tag,
        sourceOffset: readable.address,
      }),
    reason: /read 4097 bytes out of the bounds/,
  },
  {
    name: 'reads the memory of a READ',
    act: ({ peer, writable }) =>
      peer.readRequest({ sinkTag: 1, sinkOffset: 0n, length: 16, sourceTag: writable.tag, sourceOffset: writable.address }),
    reason: /which does not allow that/,
  },
  {
    name: 'answers a READ and revokes the tag of the WRITE',
    act: ({ target, read, readable }) => target.respond(read, {}, readable.tag),
    reason: /invalidates tag .*, which is not that task's/,
  },
  {
    name: 'revokes a tag with a PDU that ends no task',
    act: ({ target, readable }) => target.send({ opcode: 'nop-in', itt: 0xffff_ffff, ttt: 0xffff_ffff }, readable.tag),
    reason: /nop-in that invalidates a tag/,
  },
  {
    name: 'revokes a tag of another session',
    act: ({ target, read, foreign }) => target.respond(read, {}, foreign.tag),
    reason: /invalidated STag .*, which is not in force/,
  },
  {
    name: 'answers a task that does not exist',
    act: ({ target }) => target.send({ opcode: 'scsi-response', itt: 0x7777 }),
    reason: /task that does not exist/,
  },
  {
    name: 'claims a residual longer than the transfer',
    act: ({ target, read }) => target.respond(read, { underflow: true, residualCount: LENGTH + 1 }),
    reason: /residual of 4097 bytes for a transfer of 4096/,
  },
  {
    name: 'sends Data-In',
    act: ({ target, read }) => target.send({ opcode: 'data-in', itt: read.itt, final: true, data: data.subarray(0, 512) }),
    reason: /data-in over iSER, where data moves by RDMA/,
  },
  {
    name: 'asks for data by R2T',
    act: ({ target, write }) =>
      target.send({ opcode: 'r2t', itt: write.itt, ttt: 5, desiredDataTransferLength: LENGTH, bufferOffset: 0 }),
    reason: /r2t over iSER, where data moves by RDMA/,
  },
  {
    name: 'sends a Hello',
    act: ({ peer }) => peer.send(Uint8Array.of(0x20, ...new Uint8Array(27))),
    reason: /an iSER Hello/,
  },
  {
    name: 'sends an unknown iSER opcode',
    act: ({ peer }) => peer.send(new Uint8Array(100).fill(0xf0)),
    reason: /unknown iSER opcode 15/,
  },
  { name: 'sends nothing at all', act: ({ peer }) => peer.send(new Uint8Array(0)), reason: /a message of 0 bytes is shorter/ },
  {
    name: 'sends half a PDU',
    act: ({ peer, read }) => peer.send(messageOf(pdu({ opcode: 'scsi-response', itt: read.itt })).subarray(0, 60)),
    reason: /too short for a PDU/,
  },
  {
    name: 'says that more data follows than does',
    act: ({ peer, read }) => {
      const message = messageOf(pdu({ opcode: 'scsi-response', itt: read.itt }));
      message[28 + 7] = 200;
      peer.send(message);
    },
    reason: /a message of 76 bytes with a PDU of 248 bytes in it/,
  },
  {
    name: 'sends more data than was agreed on',
    act: ({ peer }) => peer.send(messageOf(pdu({ opcode: 'text-response', data: new Uint8Array(8193) }))),
    reason: /8193 bytes of data where at most 8192/,
  },
  {
    name: 'sends a message longer than any receive',
    act: ({ peer }) => peer.send(new Uint8Array(60_000), { segmentLength: 60_000 }),
    reason: /a message longer than the \d+ bytes of the posted receive/,
  },
  {
    name: 'floods it with messages',
    act: ({ target, peer }) => {
      peer.delivery = 'held';
      for (let index = 0; index < 1000; index++) target.send({ opcode: 'nop-in', itt: 0xffff_ffff, ttt: 0xffff_ffff });
      peer.release();
    },
    reason: /when no receive was posted/,
  },
  {
    name: 'skips a message',
    act: ({ peer, read }) => peer.send(messageOf(pdu({ opcode: 'scsi-response', itt: read.itt })), { msn: 77 }),
    reason: /sent message 77 where \d+ was due/,
  },
  {
    name: 'sends a frame whose CRC is wrong',
    act: ({ peer, writable }) =>
      peer.sendSegment(
        {
          tagged: true,
          opcode: Opcode.write,
          stag: writable.tag,
          offset: writable.address,
          payload: new Uint8Array(64).fill(0xa5),
        },
        { crcDamage: 1 },
      ),
    reason: /the CRC of a frame from the peer is wrong/,
  },
  {
    name: 'ends the connection by Terminate in the middle of a write',
    act: ({ peer, writable }) => {
      peer.write(writable.tag, writable.address, new Uint8Array(64).fill(0xa5), { last: false });
      peer.sendTerminate({ layer: 0, errorType: 0, errorCode: 0 });
    },
    reason: /Terminate \(RDMAP: catastrophic error at the peer/,
  },
  {
    name: 'closes the connection in the middle of a write',
    act: ({ peer, writable }) => {
      peer.write(writable.tag, writable.address, new Uint8Array(64).fill(0xa5), { last: false });
      return peer.finish();
    },
    reason: /in the middle of a message/,
  },
  { name: 'closes the connection with commands under way', act: ({ peer }) => peer.finish(), reason: /clos|lost/ },
  { name: 'resets the connection', act: ({ peer }) => peer.reset(), reason: /reset/ },
];

describe('a session with a target that', () => {
  test.each(malice)('$name ends with the reason, harms nothing, and is established again', async ({ act, reason }) => {
    await using listener = await IwarpPeer.listen();
    await using other = await Session.open();
    await using session = await Session.open(listener);
    const readRun = session.memory.run(LENGTH);
    const writeRun = session.memory.run(LENGTH, data);
    const foreignRun = other.memory.run(LENGTH);
    const reading = session.execute(READ, { dataIn: readRun });
    const first = await session.target.command();
    const writing = session.execute(WRITE, { dataOut: writeRun });
    const second = await session.target.command();
    const foreignReading = other.execute(READ, { dataIn: foreignRun });
    const foreign = await other.target.command();
    const outcome = Promise.allSettled([reading, writing]);

    const { target } = session;
    await act({
      target,
      peer: target.peer,
      read: first.pdu,
      write: second.pdu,
      readable: advertised(second.header.write),
      writable: advertised(first.header.read),
      foreign: advertised(foreign.header.read),
    });

    expect(await session.lost()).toMatch(reason);
    const results = await within(outcome, 'the commands');
    for (const result of results)
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'connection-lost' });
    expect(results[1]).toMatchObject({ status: 'rejected' });
    expect(session.memory.changes()).toEqual([]);
    expect(other.memory.changes()).toEqual([]);

    await session.serveAgain(listener);
    const retried = session.execute(READ, { dataIn: readRun });
    const again = await session.target.command();
    const memory = advertised(again.header.read);
    session.target.peer.write(memory.tag, memory.address, data);
    session.target.respond(again.pdu, {}, memory.tag);
    expect(await retried).toMatchObject({ status: 0, transferred: LENGTH });
    expect(readRun).toEqual(data);

    other.target.peer.write(advertised(foreign.header.read).tag, advertised(foreign.header.read).address, data);
    other.target.respond(foreign.pdu);
    expect(await foreignReading).toMatchObject({ status: 0, transferred: LENGTH });
    expect(foreignRun).toEqual(data);
    await target[Symbol.asyncDispose]();
  });

  it('breaks rules again and again takes no memory and no file descriptor with it', async () => {
    const memory = countedMemory();
    const transport = createIserTransport(countedProvider(memory));
    let settledArenas = 0;
    let settledDescriptors = 0;
    for (let round = 0; round < 24; round++) {
      const listener = await IwarpPeer.listen();
      const accepting = logInWithoutImmediateData(listener);
      const initiator = await connect(listener, transport);
      const target = await accepting;
      // Neither from the provider's memory: it is copied.
      const reading = execute(initiator, { lun: 0n, cdb: READ, dataIn: new Uint8Array(LENGTH), nexus: initiator.nexus ?? 0 });
      const writing = execute(initiator, { lun: 0n, cdb: WRITE, dataOut: data, nexus: initiator.nexus ?? 0 });
      const outcome = Promise.allSettled([reading, writing]);
      const { header } = await target.command();
      await target.command();
      target.peer.write(advertised(header.read).tag, advertised(header.read).address + 4000n, data);
      for (const result of await outcome) expect(result).toMatchObject({ status: 'rejected' });
      // Nobody is there when the initiator comes back.
      await listener[Symbol.asyncDispose]();
      await initiator.logout();
      await target[Symbol.asyncDispose]();
      if (round === 7) [settledArenas, settledDescriptors] = [memory.arenas, openDescriptors()];
    }
    expect(memory.arenas).toBeLessThanOrEqual(settledArenas);
    expect(openDescriptors()).toBeLessThanOrEqual(settledDescriptors + 2);
  });
});

describe('a login to a target that', () => {
  test.each<{ name: string; play: (target: RawIserTarget) => Promise<void> | void; error: RegExp; timeoutMs?: number }>([
    { name: 'says nothing', play: () => {}, error: /connected, but no answer to the login within 0.3 s/, timeoutMs: 300 },
    { name: 'hangs up', play: ({ peer }) => peer.finish(), error: /closed the connection|ended|lost/ },
    { name: 'resets the connection', play: ({ peer }) => peer.reset(), error: /reset/ },
    {
      name: 'ends it by Terminate',
      play: ({ peer }) => peer.sendTerminate({ layer: 1, errorType: 2, errorCode: 2 }),
      error: /DDP: no buffer posted/,
    },
    { name: 'answers garbage', play: ({ peer }) => peer.send(data.subarray(0, 300)), error: /iSER|PDU|message/ },
    { name: 'answers too much', play: ({ peer }) => peer.send(new Uint8Array(30_000)), error: /longer than the \d+ bytes/ },
    {
      name: 'answers with an RDMA Write to a guessed STag',
      play: ({ peer }) => {
        for (let tag = 0; tag < 2000; tag++) peer.write(tag << 8, BigInt(tag), data.subarray(0, 16));
      },
      error: /which is not in force/,
    },
    {
      name: 'has a SCSI response for it',
      play: (target) => target.send({ opcode: 'scsi-response', itt: 0 }),
      error: /scsi-response|task that does not exist/,
    },
    {
      name: 'does not agree to RDMAExtensions',
      play: async (target) => target.answerLogin(await target.receive('login-request'), { RDMAExtensions: 'No' }),
      error: /the target does not do iSER at this portal/,
    },
    {
      name: 'agrees to a digest that was not offered',
      play: async (target) => target.answerLogin(await target.receive('login-request'), { HeaderDigest: 'CRC32C' }),
      error: /HeaderDigest/,
    },
  ])('$name fails with the reason', async ({ play, error, timeoutMs = 3000 }) => {
    await using listener = await IwarpPeer.listen();
    const connecting = connect(listener, createIserTransport(iwarpProvider()), timeoutMs);
    const targets: RawIserTarget[] = [];
    let isOver = false;
    // Some failures are worth another attempt to it: each is played the same.
    const playing = (async () => {
      while (!isOver) {
        const target = await RawIserTarget.accept(listener);
        targets.push(target);
        await play(target);
      }
    })().catch(() => {});
    await expect(connecting).rejects.toThrow(error);
    isOver = true;
    for (const target of targets) {
      await target.peer.ended();
      await target[Symbol.asyncDispose]();
    }
    await (await IwarpPeer.connect(listener.endpoint)).reset();
    await playing;
  });
});

/** An initiator, and its target, which is played here. */
class Session implements AsyncDisposable {
  readonly initiator: Initiator;
  readonly memory = new GuardedMemory(rdmaMemory());
  target: RawIserTarget;
  readonly #ownListener: IwarpPeerListener | undefined;
  readonly #lost: Promise<string>;

  private constructor(initiator: Initiator, target: RawIserTarget, ownListener: IwarpPeerListener | undefined) {
    this.initiator = initiator;
    this.target = target;
    this.#ownListener = ownListener;
    this.#lost = new Promise((resolve) => {
      initiator.subscribe((event) => {
        if (event.type === 'nexus-lost') resolve(causes(event.reason));
      });
    });
  }

  static async open(at?: IwarpPeerListener): Promise<Session> {
    const listener = at ?? (await IwarpPeer.listen());
    const accepting = logInWithoutImmediateData(listener);
    const initiator = await connect(listener, createIserTransport(iwarpProvider()));
    return new Session(initiator, await accepting, at === undefined ? listener : undefined);
  }

  execute(cdb: Uint8Array, buffers: { readonly dataIn?: Uint8Array; readonly dataOut?: Uint8Array }): Promise<ScsiResult> {
    return execute(this.initiator, { lun: 0n, cdb, ...buffers, nexus: this.initiator.nexus ?? 0 });
  }

  /** Why the nexus went, with all causes. */
  lost(): Promise<string> {
    return within(this.#lost, 'the loss of the nexus');
  }

  /** The initiator comes again, and finds a target that obeys. */
  async serveAgain(listener: IwarpPeerListener): Promise<void> {
    this.target = await logInWithoutImmediateData(listener);
    await this.initiator.established();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const serving = this.target.serveToTheEnd().catch(() => {});
    await this.initiator.logout();
    await this.target[Symbol.asyncDispose]();
    await serving;
    await this.#ownListener?.[Symbol.asyncDispose]();
    this.memory.free();
  }
}

function connect({ endpoint }: IwarpPeerListener, transport: ReturnType<typeof createIserTransport>, loginTimeoutMs = 5000) {
  return Initiator.connect({
    initiatorName: 'iqn.2026-01.io.iserfs.test:initiator',
    isid: 0x80_00_00_00_00_01,
    targetName: 'iqn.2026-01.io.iserfs.test:hostile',
    portals: [endpoint],
    transport,
    loginTimeoutMs,
    commandTimeoutMs: 10_000,
    recoveryTimeoutMs: 10_000,
    keepaliveIntervalMs: 5000,
    keepaliveTimeoutMs: 5000,
    maxCommands: 16,
    clock: systemClock,
    random: (length) => new Uint8Array(randomBytes(length)),
    log: () => {},
  });
}

/** So that the data of a WRITE is advertised, however short. */
function logInWithoutImmediateData(listener: IwarpPeerListener): Promise<RawIserTarget> {
  return RawIserTarget.logIn(listener, { ImmediateData: 'No' });
}

function advertised(memory: RemoteMemory | undefined): RemoteMemory {
  if (memory === undefined) throw new Error('nothing is advertised');
  return memory;
}

/** Acts once the initiator has dealt with everything that was sent: it answers a ping. */
async function answeredBefore(target: RawIserTarget, act: () => void): Promise<void> {
  target.send({ opcode: 'nop-in', itt: 0xffff_ffff, ttt: 99 });
  await target.receive('nop-out');
  act();
}

/** The messages of an error and of what caused it. */
function causes(error: unknown): string {
  return error instanceof Error ? `${error.message}; ${causes(error.cause)}` : '';
}

const openDescriptors = () => readdirSync('/proc/self/fd').length;
