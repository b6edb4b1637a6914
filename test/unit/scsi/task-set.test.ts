import { describe, expect, it } from 'vitest';
import { type Task, type TaskEnd, type TaskOrder, TaskSets } from '../../../src/scsi/task-set.ts';
import { settle } from '../../support/virtual-clock.ts';

/** Tasks that run until the test lets them end, with a record of what happened. */
class Bench {
  readonly sets = new TaskSets();
  readonly log: string[] = [];
  readonly #finish = new Map<string, () => void>();
  readonly #fail = new Map<string, () => void>();
  readonly ends = new Map<string, TaskEnd>();
  readonly signals = new Map<string, AbortSignal>();

  submit(name: string, options: { nexus?: number; lun?: bigint; order?: TaskOrder } = {}): Task {
    return this.sets.submit({
      nexus: options.nexus ?? 1,
      lun: options.lun ?? 0n,
      order: options.order ?? 'simple',
      run: ({ signal }) => {
        this.log.push(`begin ${name}`);
        this.signals.set(name, signal);
        signal.addEventListener('abort', () => this.log.push(`signal ${name}`));
        return new Promise((resolve, reject) => {
          this.#finish.set(name, resolve);
          this.#fail.set(name, () => reject(new Error(name)));
        });
      },
      onAborted: () => this.log.push(`abort ${name}`),
      onEnded: (end) => {
        this.log.push(`end ${name}`);
        this.ends.set(name, end);
      },
    });
  }

  async finish(name: string): Promise<void> {
    this.#finish.get(name)?.();
    await settle();
  }

  async fail(name: string): Promise<void> {
    this.#fail.get(name)?.();
    await settle();
  }
}

const isSettled = async (promise: Promise<unknown>): Promise<boolean> => {
  let settled = false;
  const note = () => {
    settled = true;
  };
  promise.then(note, note);
  await settle();
  return settled;
};

describe('task set order', () => {
  it('runs SIMPLE tasks side by side', () => {
    const bench = new Bench();
    bench.submit('a');
    bench.submit('b');
    expect(bench.log).toEqual(['begin a', 'begin b']);
    expect(bench.sets.count).toBe(2);
  });

  it('begins an ORDERED task only after all older ones, and holds the younger ones back', async () => {
    const bench = new Bench();
    bench.submit('a');
    bench.submit('b');
    bench.submit('ordered', { order: 'ordered' });
    bench.submit('c');
    await bench.finish('a');
    expect(bench.log).toEqual(['begin a', 'begin b', 'end a']);
    await bench.finish('b');
    expect(bench.log.slice(3)).toEqual(['end b', 'begin ordered']);
    await bench.finish('ordered');
    expect(bench.log.slice(5)).toEqual(['end ordered', 'begin c']);
    await bench.finish('c');
    expect(bench.sets.count).toBe(0);
  });

  it('orders tasks of different nexuses in one set, but not those of different logical units', () => {
    const bench = new Bench();
    bench.submit('a', { nexus: 1 });
    bench.submit('ordered', { nexus: 2, order: 'ordered' });
    bench.submit('elsewhere', { nexus: 2, lun: 1n, order: 'ordered' });
    expect(bench.log).toEqual(['begin a', 'begin elsewhere']);
  });

  it('begins a HEAD OF QUEUE task at once, before what waits', async () => {
    const bench = new Bench();
    bench.submit('a');
    bench.submit('ordered', { order: 'ordered' });
    bench.submit('head', { order: 'head-of-queue' });
    await bench.finish('a');
    expect(bench.log).toEqual(['begin a', 'begin head', 'end a']);
    bench.submit('b');
    await bench.finish('head');
    expect(bench.log.slice(3)).toEqual(['end head', 'begin ordered']);
  });

  it('counts a rejection as an end', async () => {
    const bench = new Bench();
    const task = bench.submit('a');
    await bench.fail('a');
    await task.ended;
    expect(bench.ends.get('a')).toEqual({ type: 'completed' });
    expect(bench.sets.count).toBe(0);
  });
});

describe('tasks that end in another order than they came', () => {
  it.each([
    ['a', 'b', 'c'],
    ['b', 'a', 'c'],
    ['b', 'c', 'a'],
    ['c', 'b', 'a'],
  ])('hold back an ordered task until the last of them: %s, %s, %s', async (...order) => {
    const bench = new Bench();
    for (const name of ['a', 'b', 'c']) bench.submit(name);
    bench.submit('ordered', { order: 'ordered' });
    bench.submit('after');
    for (const name of order) {
      expect(bench.log).not.toContain('begin ordered');
      await bench.finish(name);
    }
    expect(bench.log).toContain('begin ordered');
    expect(bench.log).not.toContain('begin after');
    await bench.finish('ordered');
    expect(bench.log.at(-1)).toBe('begin after');
    await bench.finish('after');
    expect(bench.sets.count).toBe(0);
  });
});

describe('aborting tasks', () => {
  it('tells whoever runs the task once, and before its signal does', async () => {
    const bench = new Bench();
    const task = bench.submit('a');
    const aborted = [bench.sets.abort(task, 7), bench.sets.abort(task, 7)];
    await bench.finish('a');
    await Promise.all(aborted);
    expect(bench.log).toEqual(['begin a', 'abort a', 'signal a', 'end a']);
  });

  it('signals a task that runs and waits until it has really ended', async () => {
    const bench = new Bench();
    const task = bench.submit('a');
    const aborted = bench.sets.abort(task, 7);
    expect(bench.signals.get('a')?.aborted).toBe(true);
    expect(await isSettled(aborted)).toBe(false);
    expect(bench.sets.count).toBe(1);
    await bench.finish('a');
    await aborted;
    expect(bench.ends.get('a')).toEqual({ type: 'aborted', byNexus: 7 });
  });

  it('ends a task that has not begun without running it', async () => {
    const bench = new Bench();
    bench.submit('a');
    const waiting = bench.submit('ordered', { order: 'ordered' });
    bench.submit('b');
    await bench.sets.abort(waiting, 1);
    expect(bench.log).toEqual(['begin a', 'end ordered', 'begin b']);
  });

  it('lets none of the tasks of one abort begin while the others end', async () => {
    const bench = new Bench();
    bench.submit('a');
    bench.submit('first', { order: 'ordered' });
    bench.submit('second', { order: 'ordered' });
    const aborted = bench.sets.abortScope({ lun: 0n }, 1);
    await bench.finish('a');
    await aborted;
    expect(bench.log.filter((line) => line.startsWith('begin'))).toEqual(['begin a']);
  });

  it('keeps to its scope of nexus and logical unit, and spares what comes later', async () => {
    const bench = new Bench();
    bench.submit('mine', { nexus: 1, lun: 3n });
    bench.submit('other nexus', { nexus: 2, lun: 3n });
    bench.submit('other lun', { nexus: 1, lun: 4n });
    const aborted = bench.sets.abortScope({ nexus: 1, lun: 3n }, 1);
    bench.submit('later', { nexus: 1, lun: 3n });
    expect([...bench.signals].filter(([, signal]) => signal.aborted).map(([name]) => name)).toEqual(['mine']);
    await bench.finish('mine');
    await aborted;
  });

  it('remembers who aborted first', async () => {
    const bench = new Bench();
    const task = bench.submit('a');
    const first = bench.sets.abort(task, 2);
    const second = bench.sets.abortScope({}, 1);
    await bench.finish('a');
    await Promise.all([first, second]);
    expect(bench.ends.get('a')).toEqual({ type: 'aborted', byNexus: 2 });
  });
});
