/**
 * The task sets of one target: the commands of all its I_T nexuses, one set for each logical unit (SAM,
 * task set management), in the order in which they came. Decides when a task may begin and ends tasks on
 * behalf of task management. A task is in its set until its `run` promise has settled, so whoever waits
 * for `ended` knows that nothing of it goes on: no buffer is in use and the medium will not change any
 * more. Must not know what carries the commands, nor what they do.
 *
 * SIMPLE tasks run side by side. An ORDERED task begins when all older ones have ended and holds back the
 * younger ones; a HEAD OF QUEUE task begins at once and holds back what has not begun.
 */

import { Cancellation } from './cancellation.ts';
import type { Lun } from './port.ts';

export type TaskOrder = 'simple' | 'ordered' | 'head-of-queue';

/** How a task left its set. `aborted` names the nexus that asked for it. */
export type TaskEnd = { readonly type: 'completed' } | { readonly type: 'aborted'; readonly byNexus: number };

export interface TaskRequest {
  readonly nexus: number;
  readonly lun: Lun;
  readonly order: TaskOrder;
  /**
   * Executes the task; called at most once, and not at all where the task is aborted before its turn. Settles
   * when nothing of the task goes on any more, whether or not `cancellation` asked for an early end. A rejection counts as an end.
   */
  run(cancellation: Cancellation): Promise<void>;
  /** Called once where a task that runs is to end early, before `cancellation` says so. */
  onAborted?(): void;
  /** Called once, synchronously before `ended` resolves. */
  onEnded(end: TaskEnd): void;
}

/** One task in its set. */
export interface Task {
  readonly nexus: number;
  readonly lun: Lun;
  /** Resolves when the task has left its set; never rejects. */
  readonly ended: Promise<void>;
}

/** Which tasks an abort concerns: those that have all of the given properties. */
export interface TaskScope {
  readonly nexus?: number;
  readonly lun?: Lun;
}

export class TaskSets {
  readonly #sets = new Map<Lun, TaskSet>();
  #count = 0;

  /** Tasks in all sets, begun or not. */
  get count(): number {
    return this.#count;
  }

  /** Puts a task in the set of its logical unit; it begins now or when the order of the set allows. */
  submit(request: TaskRequest): Task {
    let set = this.#sets.get(request.lun);
    if (set === undefined) {
      set = new TaskSet();
      this.#sets.set(request.lun, set);
    }
    const entry = new Entry(request, set, this);
    this.#count++;
    set.add(entry);
    return entry;
  }

  /** Aborts `task` on behalf of `byNexus`; resolves when it has ended, also where it ends by itself first. */
  abort(task: Task, byNexus: number): Promise<void> {
    if (task instanceof Entry) this.#abortAll([task], byNexus);
    return task.ended;
  }

  /** Aborts every task in `scope` that is in its set now; resolves when all of them have ended. Later tasks are not concerned. */
  async abortScope(scope: TaskScope, byNexus: number): Promise<void> {
    const concerned: Entry[] = [];
    for (const [lun, set] of this.#sets) {
      if (scope.lun !== undefined && scope.lun !== lun) continue;
      for (const entry of set.entries()) {
        if (scope.nexus === undefined || scope.nexus === entry.nexus) concerned.push(entry);
      }
    }
    this.#abortAll(concerned, byNexus);
    await Promise.all(concerned.map((entry) => entry.ended));
  }

  #abortAll(entries: readonly Entry[], byNexus: number): void {
    // All are marked before the first one ends: no end may let another of them begin.
    for (const entry of entries) entry.markAborted(byNexus);
    for (const entry of entries) entry.stop();
  }

  /** Of an entry that has ended. */
  left(set: TaskSet, entry: Entry): void {
    set.remove(entry);
    this.#count--;
    if (set.isEmpty && this.#sets.size > MOST_IDLE_SETS) this.#sets.delete(entry.lun);
  }
}

/** So many sets stay when they are empty, to be there for the next command; initiators may ask for any LUN. */
const MOST_IDLE_SETS = 64;

/** The tasks of one logical unit. */
class TaskSet {
  readonly #headOfQueue = new Queue();
  readonly #others = new Queue();
  /** Tasks that may hold back others. */
  #ordering = 0;
  /** Tasks that have not begun: while there are none, an end changes nothing. */
  #waiting = 0;

  get isEmpty(): boolean {
    return this.#headOfQueue.isEmpty && this.#others.isEmpty;
  }

  entries(): Entry[] {
    return [...this.#headOfQueue, ...this.#others];
  }

  /** It begins at once where nothing can hold it back. */
  add(entry: Entry): void {
    if (entry.order !== 'simple') this.#ordering++;
    this.#queueOf(entry).add(entry);
    this.#waiting++;
    if (this.#ordering > 0) this.#beginEnabled();
    else this.#begin(entry);
  }

  remove(entry: Entry): void {
    if (entry.order !== 'simple') this.#ordering--;
    this.#queueOf(entry).remove(entry);
    if (!entry.hasBegun) this.#waiting--;
    if (this.#waiting > 0) this.#beginEnabled();
  }

  #queueOf(entry: Entry): Queue {
    return entry.order === 'head-of-queue' ? this.#headOfQueue : this.#others;
  }

  /** Begins every task whose turn has come. */
  #beginEnabled(): void {
    const enabled: Entry[] = [];
    for (const entry of this.#headOfQueue) if (entry.mayBegin) enabled.push(entry);
    if (this.#headOfQueue.isEmpty) {
      let isFirst = true;
      for (const entry of this.#others) {
        if (entry.order === 'ordered' && !isFirst) break;
        if (entry.mayBegin) enabled.push(entry);
        if (entry.order === 'ordered') break;
        isFirst = false;
      }
    }
    for (const entry of enabled) this.#begin(entry);
  }

  #begin(entry: Entry): void {
    this.#waiting--;
    entry.begin();
  }
}

/** Oldest first. Of those that have left nothing refers to those that come after them: see `tag-map.ts` for what that would cost. */
class Queue {
  #oldest: Entry | undefined;
  #newest: Entry | undefined;

  get isEmpty(): boolean {
    return this.#oldest === undefined;
  }

  add(entry: Entry): void {
    entry.older = this.#newest;
    if (this.#newest === undefined) this.#oldest = entry;
    else this.#newest.newer = entry;
    this.#newest = entry;
  }

  remove(entry: Entry): void {
    const { older, newer } = entry;
    if (older === undefined) this.#oldest = newer;
    else older.newer = newer;
    if (newer === undefined) this.#newest = older;
    else newer.older = older;
    entry.older = undefined;
    entry.newer = undefined;
  }

  *[Symbol.iterator](): Iterator<Entry> {
    for (let entry = this.#oldest; entry !== undefined; entry = entry.newer) yield entry;
  }
}

const COMPLETED: TaskEnd = { type: 'completed' };

class Entry implements Task {
  readonly nexus: number;
  readonly lun: Lun;
  readonly order: TaskOrder;
  readonly ended: Promise<void>;
  /** Its neighbours in its queue. */
  older: Entry | undefined;
  newer: Entry | undefined;
  readonly #request: TaskRequest;
  readonly #set: TaskSet;
  readonly #sets: TaskSets;
  readonly #cancellation = new Cancellation();
  #resolveEnded: () => void = () => {};
  #phase: 'waiting' | 'begun' | 'ended' = 'waiting';
  #abortedBy: number | undefined;

  constructor(request: TaskRequest, set: TaskSet, sets: TaskSets) {
    this.nexus = request.nexus;
    this.lun = request.lun;
    this.order = request.order;
    this.#request = request;
    this.#set = set;
    this.#sets = sets;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  get hasBegun(): boolean {
    return this.#phase !== 'waiting';
  }

  get mayBegin(): boolean {
    return this.#phase === 'waiting' && this.#abortedBy === undefined;
  }

  begin(): void {
    this.#phase = 'begun';
    const end = () => this.#end();
    this.#request.run(this.#cancellation).then(end, end);
  }

  markAborted(byNexus: number): void {
    this.#abortedBy ??= byNexus;
  }

  stop(): void {
    if (this.#phase === 'waiting') this.#end();
    else if (this.#phase === 'begun' && !this.#cancellation.isAborted) {
      this.#request.onAborted?.();
      this.#cancellation.abort();
    }
  }

  #end(): void {
    this.#request.onEnded(this.#abortedBy === undefined ? COMPLETED : { type: 'aborted', byNexus: this.#abortedBy });
    this.#sets.left(this.#set, this);
    this.#phase = 'ended';
    this.#resolveEnded();
  }
}
