// @ts-check
/**
 * What becomes of memory that JavaScript has let go of, and of connections: `node --expose-gc memory-program.mjs WHAT`. Prints what
 * the test looks at as JSON, or throws. Runs from the build, as iserfs does.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { iwarpProvider, rdmaMemory } from '../../dist/iser/rdma/native-provider.js';

/** @typedef {import('../../src/iser/rdma/provider.ts').QueuePair} QueuePair */
/** @typedef {import('../../src/iser/rdma/provider.ts').QueuePairEvents} QueuePairEvents */
/** @typedef {import('../../src/iser/rdma/provider.ts').Completion} Completion */

const MIB = 1024 * 1024;
const provider = iwarpProvider();
const collect = /** @type {() => void} */ (globalThis.gc);

/** @param {number} [length] */
const allocate = (length = MIB) => new Uint8Array(rdmaMemory().allocate(length));

/** Several rounds: finalizers run between them. */
async function collectGarbage() {
  for (let round = 0; round < 6; round++) {
    collect();
    await turn();
  }
}

function residentBytes() {
  const resident = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return Number(resident) * 1024;
}

class End {
  /** @type {Completion[]} */
  completions = [];
  /** @type {QueuePair | undefined} */
  queuePair;
  /** @type {(() => void)[]} */
  #wakers = [];
  closed = false;
  /** @type {QueuePairEvents} */
  events = {
    completed: (completion) => this.completions.push({ ...completion }),
    batchEnded: () => this.#wake(),
    closed: () => {
      this.closed = true;
      this.#wake();
    },
  };

  /** @param {() => boolean} condition */
  async until(condition) {
    while (!condition()) await new Promise((resolve) => this.#wakers.push(() => resolve(undefined)));
  }

  #wake() {
    for (const wake of this.#wakers.splice(0)) wake();
  }
}

const options = {
  sendDepth: 64,
  receiveDepth: 64,
  advertisementDepth: 64,
  ird: 16,
  ord: 16,
  crc: true,
  privateData: new Uint8Array(0),
  receives: [],
  timeoutMs: 10_000,
};

async function pair() {
  const initiator = new End();
  const target = new End();
  /** @type {Promise<void> | undefined} */
  let accepted;
  const listener = await provider.listen({ host: '127.0.0.1', port: 0 }, (request) => {
    accepted = request.accept(options, target.events).then((queuePair) => {
      target.queuePair = queuePair;
    });
  });
  const one = await provider.connect(listener.endpoint, options, initiator.events);
  initiator.queuePair = one;
  await accepted;
  await listener.close();
  const other = /** @type {QueuePair} */ (/** @type {unknown} */ (target.queuePair));
  return { initiator: one, target: other, ends: [initiator, target] };
}

/** @param {Awaited<ReturnType<typeof pair>>} both */
async function end({ initiator, ends }) {
  initiator.close('abrupt');
  for (const each of ends) await each.until(() => each.closed);
}

/** @type {Record<string, () => Promise<unknown>>} */
const programs = {
  /** Memory that is posted or advertised stays, although its ArrayBuffer is gone; and goes afterwards. */
  async pinned() {
    const both = await pair();
    const { initiator, target, ends } = both;
    const [, targetEnd] = ends;
    /** @type {{ tag: number; address: number }[]} */
    const advertised = [];
    const before = residentBytes();
    for (let index = 0; index < 32; index++) {
      advertised.push(initiator.advertise(allocate().fill(index + 1), 'remote-read'));
      initiator.postReceive(index, allocate().fill(0xff));
    }
    await collectGarbage();
    const posted = residentBytes() - before;
    const into = allocate();
    /** @type {number[]} */
    const wrong = [];
    for (const [index, { tag, address }] of advertised.entries()) {
      target.postRead(index, into, { tag, address: BigInt(address) });
      target.postSend(100 + index, into.subarray(0, 4096));
      await targetEnd?.until(() => targetEnd.completions.length === 2 * (index + 1));
      if (!into.every((byte) => byte === index + 1)) wrong.push(index);
    }
    await end(both);
    const statuses = ends.flatMap(({ completions }) => completions.map(({ status }) => status));
    await collectGarbage();
    return { posted, after: residentBytes() - before, wrong, statuses: [...new Set(statuses)] };
  },

  /** Memory that nothing refers to goes when its ArrayBuffer is collected, or at once when it is freed. */
  async released() {
    await collectGarbage();
    const before = residentBytes();
    const kept = Array.from({ length: 64 }, () => allocate().fill(1));
    const allocated = residentBytes() - before;
    for (const bytes of kept.splice(0, 32)) rdmaMemory().free(bytes.buffer);
    await collectGarbage();
    const afterFree = residentBytes() - before;
    kept.length = 0;
    await collectGarbage();
    return { allocated, afterFree, afterCollection: residentBytes() - before };
  },

  /** A request that nobody answers, or knows any more, is rejected. */
  async forgotten() {
    let requests = 0;
    const listener = await provider.listen({ host: '127.0.0.1', port: 0 }, () => {
      requests++;
    });
    const outcome = provider.connect(listener.endpoint, { ...options, timeoutMs: 60_000 }, new End().events).then(
      () => 'connected',
      (error) => error.code,
    );
    while (requests === 0) await turn();
    await collectGarbage();
    const code = await outcome;
    await listener.close();
    return { code };
  },

  /** Thousands of connections leave nothing behind. */
  async connections() {
    const arena = allocate();
    const connections = async (/** @type {number} */ count) => {
      for (let index = 0; index < count; index++) {
        const both = await pair();
        const { initiator, target, ends } = both;
        for (let id = 0; id < 8; id++) target.postReceive(id, arena.subarray(id * 4096, (id + 1) * 4096));
        initiator.advertise(arena, 'remote-write');
        initiator.postSend(1, arena.subarray(0, 100));
        await ends[1]?.until(() => ends[1]?.completions.length === 1);
        if (index % 2 === 0) await end(both);
        else {
          target.close('orderly');
          for (const each of ends) await each.until(() => each.closed);
        }
      }
      await collectGarbage();
    };
    const state = () => ({
      resident: residentBytes(),
      descriptors: readdirSync('/proc/self/fd').length,
      threads: readdirSync('/proc/self/task').length,
    });
    await connections(300);
    const before = state();
    await connections(2000);
    return { before, after: state() };
  },

  /** With nothing open the process ends by itself. */
  async idle() {
    allocate();
    const both = await pair();
    await end(both);
    const listener = await provider.listen({ host: '127.0.0.1', port: 0 }, () => {});
    await listener.close();
    return {};
  },
};

process.stdout.write(`${JSON.stringify(await programs[process.argv[2] ?? '']?.())}\n`);
