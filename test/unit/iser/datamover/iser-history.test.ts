/**
 * Random histories of both iSER data movers against each other: commands of any length from any memory, served in any order
 * and in any pieces, with pings in between, on a wire whose completions come late or at once; to their end, or cut
 * off in the middle. What was read and written is compared byte for byte, and nothing may be left over.
 */

import { expect, test } from 'vitest';
import { errorCode } from '../../../../src/errors.ts';
import type { DataParameters, TargetTask } from '../../../../src/iser/datamover/datamover.ts';
import { IserBuffers } from '../../../../src/iser/datamover/iser-buffers.ts';
import { IserInitiator } from '../../../../src/iser/datamover/iser-initiator.ts';
import { type IserOptions, iserOptions } from '../../../../src/iser/datamover/iser-options.ts';
import { IserTarget } from '../../../../src/iser/datamover/iser-target.ts';
import { pdu, RESERVED_TAG } from '../../../../src/iser/iscsi/pdu.ts';
import { createMemoryProviders, type MemoryProviders } from '../../../../src/iser/rdma/memory.ts';
import type { MemoryArenas } from '../../../../src/iser/rdma/memory-arenas.ts';
import { InitiatorEnd, patternBytes, TargetEnd } from '../../../support/datamover-pair.ts';
import { iserParameters } from '../../../support/iser-ends.ts';
import { SeededRandom } from '../../../support/seeded-random.ts';
import { VirtualClock } from '../../../support/virtual-clock.ts';

const COMMANDS = 60;
const LONGEST = 400_000;
const PATTERN = patternBytes(LONGEST + 4096);

interface Issued {
  readonly kind: 'read' | 'write';
  readonly length: number;
  readonly buffer: Uint8Array;
  /** How much the target moves of it. */
  readonly moved: number;
  transferred: number | undefined;
}

class History {
  readonly random: SeededRandom;
  readonly clock = new VirtualClock();
  readonly providers: MemoryProviders;
  readonly options: IserOptions;
  readonly buffers: { readonly initiator: IserBuffers; readonly target: IserBuffers };
  readonly issued = new Map<number, Issued>();
  initiator = new InitiatorEnd();
  target: TargetEnd | undefined;
  pongs = 0;
  readonly #serving: Promise<void>[] = [];

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
    const { clock, random } = this;
    this.providers = createMemoryProviders({ clock, latencyMs: random.below(4) });
    this.options = iserOptions({ clock, maxCommands: random.between(1, 20), commandWindow: 20, ord: random.between(1, 4) });
    const { initiator, target } = this.providers;
    this.buffers = { initiator: new IserBuffers(initiator.memory, 8600), target: new IserBuffers(target.memory, 8600) };
  }

  async connect(parameters: DataParameters): Promise<void> {
    const { clock, options, providers, buffers } = this;
    await providers.target.listen({ host: '127.0.0.1', port: 3260 }, (request) => {
      const datamover = new IserTarget({ transport: 'iwarp', options, buffers: buffers.target });
      request.accept(datamover.queuePairOptions, datamover).then(
        (queuePair) => {
          datamover.open(queuePair);
          const end = new TargetEnd(datamover);
          this.target = end;
          datamover.attach(end);
          end.datamover.enable(parameters);
          end.onPdu = (received) => {
            if (received.opcode === 'scsi-command') {
              const serving = this.#serve(end, { ...received, cdb: received.cdb.slice() });
              serving.catch(() => {}); // looked at in the end
              this.#serving.push(serving);
            } else if (received.itt !== RESERVED_TAG)
              end.datamover.sendControl(pdu({ opcode: 'nop-in', itt: received.itt, ttt: RESERVED_TAG }));
          };
        },
        () => {},
      );
    });
    const datamover = new IserInitiator({ transport: 'iwarp', options, buffers: buffers.initiator }, this.initiator);
    const connecting = providers.initiator.connect(
      { host: '127.0.0.1', port: 3260 },
      { ...datamover.queuePairOptions, timeoutMs: 1000 },
      datamover,
    );
    await clock.advance(50);
    datamover.open(await connecting);
    this.initiator.attach(datamover);
    this.initiator.datamover.enable(parameters);
    this.initiator.onPdu = (received) => {
      if (received.opcode === 'nop-in') this.pongs++;
    };
  }

  memory(arenas: MemoryArenas, length: number): Uint8Array {
    return this.random.below(2) === 0 ? new Uint8Array(length) : new Uint8Array(arenas.allocate(length), 0, length);
  }

  issue(itt: number): void {
    const { random } = this;
    const length = random.below(4) === 0 ? random.between(1, 600) : random.between(1, LONGEST);
    const kind = random.below(2) === 0 ? 'read' : 'write';
    const buffer = this.memory(this.providers.initiator.memory, length);
    const moved = random.below(4) === 0 ? random.below(length + 1) : length;
    this.issued.set(itt, { kind, length, buffer, moved, transferred: undefined });
    if (kind === 'write') buffer.set(PATTERN.subarray(itt, itt + length));
    this.initiator.command(itt, kind === 'read' ? { dataIn: buffer } : { dataOut: buffer });
    if (random.below(8) === 0)
      this.initiator.datamover.sendControl(pdu({ opcode: 'nop-out', itt: 10_000 + itt, ttt: RESERVED_TAG, immediate: true }));
  }

  async #serve(end: TargetEnd, task: TargetTask): Promise<void> {
    const issued = this.issued.get(task.itt) as Issued;
    const { random } = this;
    await this.#pause();
    const pieces: Promise<void>[] = [];
    const into = this.memory(this.providers.target.memory, Math.max(1, issued.moved)).subarray(0, issued.moved);
    if (issued.kind === 'read') into.set(PATTERN.subarray(task.itt, task.itt + issued.moved));
    for (const [from, to] of this.#pieces(issued.moved)) {
      const piece = into.subarray(from, to);
      const moving = issued.kind === 'read' ? end.datamover.putData(task, from, piece) : end.datamover.getData(task, from, piece);
      moving.catch(() => {}); // awaited below
      pieces.push(moving);
      if (random.below(3) === 0) await this.#pause();
    }
    if (issued.kind === 'write') {
      await Promise.all(pieces);
      expect(Buffer.compare(into, PATTERN.subarray(task.itt, task.itt + issued.moved)), `write ${task.itt}`).toBe(0);
    }
    const residualCount = issued.length - issued.moved;
    end.datamover.sendControl(pdu({ opcode: 'scsi-response', itt: task.itt, underflow: residualCount > 0, residualCount }));
    await Promise.all(pieces);
    end.datamover.deallocateTask(task.itt);
  }

  /** Pieces of 0 to `length`, in any order. */
  #pieces(length: number): [number, number][] {
    const cuts = [0, length, ...Array.from({ length: this.random.below(4) }, () => this.random.below(length + 1))].sort(
      (a, b) => a - b,
    );
    const pieces = cuts.slice(1).map((to, index): [number, number] => [cuts[index] as number, to]);
    return pieces
      .map((piece) => ({ piece, key: this.random.uint32() }))
      .sort((a, b) => a.key - b.key)
      .map(({ piece }) => piece);
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => this.clock.schedule(this.random.below(6), resolve));
  }

  /** Takes what has ended off the inbox; returns how many commands that were. */
  async collect(): Promise<number> {
    let ended = 0;
    while (this.initiator.received > 0) {
      const { pdu: received, transferred } = await this.initiator.next();
      if (received.opcode !== 'scsi-response') continue;
      ended++;
      const issued = this.issued.get(received.itt) as Issued;
      issued.transferred = transferred;
      expect(transferred).toBe(issued.moved);
      if (issued.kind === 'read') {
        const expected = PATTERN.subarray(received.itt, received.itt + issued.moved);
        expect(Buffer.compare(issued.buffer.subarray(0, issued.moved), expected), `read ${received.itt}`).toBe(0);
      }
    }
    return ended;
  }

  /** Everything is given back, and the contract of the handlers was kept. Resolves with what became of each command at the target. */
  async finish(how: 'orderly' | 'abrupt' | 'cut'): Promise<string[]> {
    const { clock, initiator, target } = this;
    if (target === undefined) throw new Error('not connected');
    const whenServed = Promise.allSettled(this.#serving);
    if (how === 'cut') this.providers.wire.cut();
    const terminated = how === 'cut' ? undefined : initiator.datamover.terminate(how);
    await clock.advance(1000);
    await terminated;
    await Promise.all([initiator.notifications.terminated, target.notifications.terminated]);
    const served = await whenServed;
    for (const { messagesInUse, bytesInRuns } of Object.values(this.buffers)) {
      expect({ messagesInUse, bytesInRuns }).toEqual({ messagesInUse: 0, bytesInRuns: 0 });
    }
    expect([...initiator.notifications.faults, ...target.notifications.faults]).toEqual([]);
    expect([clock.pendingTimers, this.providers.wire.connectionCount]).toEqual([0, 0]);
    return served.map((outcome) => (outcome.status === 'fulfilled' ? 'served' : errorCode(outcome.reason)));
  }
}

function parametersOf(random: SeededRandom): DataParameters {
  return {
    ...iserParameters,
    immediateData: random.below(3) > 0,
    firstBurstLength: random.between(512, 65_536),
    maxSendDataSegmentLength: 8192,
  };
}

test.each(Array.from({ length: 5 }, (_, index) => index + 1))('seed %i: every command moves what it should', async (seed) => {
  const history = new History(seed);
  const { random, clock } = history;
  await history.connect(parametersOf(random));
  let [next, ended] = [1, 0];
  while (ended < COMMANDS) {
    for (let room = random.below(6); room > 0 && next <= COMMANDS && next - 1 - ended < 20; room--) history.issue(next++);
    history.providers.wire.completionDelayMs = random.below(3) === 0 ? random.below(20) : 0;
    await clock.advance(random.below(5));
    ended += await history.collect();
    expect(history.initiator.notifications.isTerminated).toBe(false);
  }
  await clock.advance(50); // the target hears of its last completions
  const served = await history.finish(random.below(2) === 0 ? 'orderly' : 'abrupt');
  expect(served).toEqual(new Array<string>(COMMANDS).fill('served'));
});

test.each(Array.from({ length: 6 }, (_, index) => index + 101))(
  'seed %i: an end at any time leaves nothing behind',
  async (seed) => {
    const history = new History(seed);
    const { random, clock } = history;
    await history.connect(parametersOf(random));
    for (let itt = 1; itt <= 20; itt++) history.issue(itt);
    history.providers.wire.completionDelayMs = random.below(10);
    await clock.advance(random.below(25));
    await history.collect();
    const served = await history.finish((['orderly', 'abrupt', 'cut'] as const)[seed % 3] ?? 'cut');
    expect(new Set([...served, 'served', 'connection-lost'])).toEqual(new Set(['served', 'connection-lost']));
  },
);
