/**
 * What is open: one `OpenImage` per image with its `FileHandle`s, and what they owe their owners: the
 * writes that are under way, those that no flush covers yet, and the write errors that a handle has not
 * been told yet. An error that the writer was told directly goes once to each other handle that was open when it
 * happened, at its next fsync or close. One of a write that had been acknowledged before goes to the writer's handle as
 * well, and there to the next write, the next fsync and the next close, once each: the descriptors of a handle may be
 * those of several programs, and none of them may take the error away from the others. Knows no device, no request and no errno.
 */

import { Bag, type Placed, UNPLACED } from '../bag.ts';
import type { Failure } from '../scsi/ended.ts';

/** Where an error can be told. */
type Occasion = 'write' | 'fsync' | 'close';

/** One open(2) of an image. */
export class FileHandle {
  readonly file: OpenImage;
  readonly isWritable: boolean;
  /** Somebody who got a signal was let go although the device has not answered, and it has not caught up since. */
  isGivenUp = false;
  /** To be told at the next fsync or close. */
  #unreported: Failure | undefined;
  /** Of writes of its own that failed when they had been acknowledged; each occasion is cleared when it was told there. */
  readonly #own: { write: Failure | undefined; fsync: Failure | undefined; close: Failure | undefined } = {
    write: undefined,
    fsync: undefined,
    close: undefined,
  };
  /** What a failed flush told this handle last. */
  #flushError: Failure | undefined;

  constructor(file: OpenImage, isWritable: boolean) {
    this.file = file;
    this.isWritable = isWritable;
  }

  /** Keeps the first error that nobody has told this handle yet. */
  note(error: unknown): void {
    this.#unreported ??= { error };
  }

  /** A write of this handle has failed although it had been acknowledged. */
  noteOwn(error: unknown): void {
    this.#own.write ??= { error };
    this.#own.fsync ??= { error };
    this.#own.close ??= { error };
  }

  /** A flush for this handle has failed, which its owner is told now: for what was noted before as well. */
  flushFailed(error: unknown): void {
    this.#unreported = undefined;
    this.#own.fsync = undefined;
    this.#flushError = { error };
  }

  /** Whether `error` ended a flush for this handle too: one command serves all who ask at once. */
  sharedFlushError(error: unknown): boolean {
    return this.#flushError?.error === error;
  }

  /** Takes the error that is to be reported now, if there is one. A write is told of writes of its own handle only. */
  takeError(occasion: Occasion): Failure | undefined {
    const own = this.#own[occasion];
    this.#own[occasion] = undefined;
    if (occasion === 'write') return own;
    const taken = this.#unreported;
    this.#unreported = undefined;
    return taken ?? own;
  }
}

/** A write that has not ended, and who waits for that. */
export interface WriteUnderWay extends Placed {
  readonly handle: FileHandle;
  watchers: (() => void)[] | undefined;
}

/** The open handles of one image, and its writes under way. */
export class OpenImage {
  readonly #handles = new Set<FileHandle>();
  readonly #writes = new Bag<WriteUnderWay>();
  /** Writes that were acknowledged, and how many of them are known to be on stable storage. */
  #acknowledged = 0;
  #synced = 0;

  get handles(): ReadonlySet<FileHandle> {
    return this.#handles;
  }

  open(isWritable: boolean): FileHandle {
    const handle = new FileHandle(this, isWritable);
    this.#handles.add(handle);
    return handle;
  }

  close(handle: FileHandle): void {
    this.#handles.delete(handle);
  }

  /** Follows `write`, which `handle` began, to its end; a failure that `isForAll` accepts is noted for all other handles. */
  async track(handle: FileHandle, write: Promise<void>, isForAll: (error: unknown) => boolean): Promise<void> {
    const underWay = this.#begin(handle);
    try {
      await write;
      this.#acknowledged++;
    } catch (error) {
      if (isForAll(error)) this.noteForOthers(handle, error);
      throw error;
    } finally {
      this.#end(underWay);
    }
  }

  /** Begins a write that is acknowledged before it has ended: `endStaged` when it has, `notTaken` where it is refused after all. */
  beginStaged(handle: FileHandle): WriteUnderWay {
    return this.#begin(handle);
  }

  /** A failure is noted for all handles. */
  endStaged(write: WriteUnderWay, failure: Failure | undefined): void {
    if (failure === undefined) this.#acknowledged++;
    else {
      write.handle.noteOwn(failure.error);
      this.noteForOthers(write.handle, failure.error);
    }
    this.#end(write);
  }

  /** Nothing was written, and its writer is told so directly: nobody else has to hear of it. */
  notTaken(write: WriteUnderWay): void {
    this.#end(write);
  }

  /**
   * Follows a flush on behalf of `handle`, which `flush` begins. A failure is told to `handle` and noted for all
   * others but those whose own flush ended with it.
   */
  async trackFlush(handle: FileHandle, flush: () => Promise<void>): Promise<void> {
    const covered = this.#acknowledged;
    try {
      await flush();
    } catch (error) {
      handle.flushFailed(error);
      for (const other of this.#handles) if (other !== handle && !other.sharedFlushError(error)) other.note(error);
      throw error;
    }
    this.#synced = Math.max(this.#synced, covered);
  }

  /** The device is gone, and with it all who could vouch for writes that no flush covered: `error` says so, once to each handle. */
  deviceLost(error: unknown): void {
    if (this.#acknowledged > this.#synced) this.noteForAll(error);
    this.#synced = this.#acknowledged;
  }

  /** An error that `teller` is told directly: the others learn of it at their next fsync or close. */
  noteForOthers(teller: FileHandle, error: unknown): void {
    for (const handle of this.#handles) if (handle !== teller) handle.note(error);
  }

  /** An error that nobody was told directly. */
  noteForAll(error: unknown): void {
    for (const handle of this.#handles) handle.note(error);
  }

  /** Resolves when the writes that are under way now have ended and their errors are noted: all, or those of one handle. */
  writesEnded(of?: FileHandle): Promise<void> {
    const pending: WriteUnderWay[] = [];
    for (const write of this.#writes) if (of === undefined || write.handle === of) pending.push(write);
    if (pending.length === 0) return Promise.resolve();
    return new Promise((resolve) => {
      let left = pending.length;
      const ended = () => {
        if (--left === 0) resolve();
      };
      for (const write of pending) {
        write.watchers ??= [];
        write.watchers.push(ended);
      }
    });
  }

  #begin(handle: FileHandle): WriteUnderWay {
    const write: WriteUnderWay = { handle, watchers: undefined, place: UNPLACED };
    this.#writes.add(write);
    return write;
  }

  #end(write: WriteUnderWay): void {
    this.#writes.delete(write);
    for (const watcher of write.watchers ?? []) watcher();
  }
}
