/**
 * What is open: one `OpenImage` per image with its `FileHandle`s, and what they owe their owners: the
 * writes that are under way, those that no flush covers yet, and the write errors that a handle has not
 * been told yet. A write error goes to the writer at once, and once to each other handle that was open
 * when it happened, at its next fsync or close. Knows no device, no request and no errno.
 */

/** One open(2) of an image. */
export class FileHandle {
  readonly file: OpenImage;
  readonly isWritable: boolean;
  /** Boxed, since anything can be thrown. */
  #unreported: { readonly error: unknown } | undefined;
  /** What a failed flush told this handle last. */
  #flushError: { readonly error: unknown } | undefined;

  constructor(file: OpenImage, isWritable: boolean) {
    this.file = file;
    this.isWritable = isWritable;
  }

  /** Keeps the first error that nobody has told this handle yet. */
  note(error: unknown): void {
    this.#unreported ??= { error };
  }

  /** A flush for this handle has failed, which its owner is told now: for what was noted before as well. */
  flushFailed(error: unknown): void {
    this.#unreported = undefined;
    this.#flushError = { error };
  }

  /** Whether `error` ended a flush for this handle too: one command serves all who ask at once. */
  sharedFlushError(error: unknown): boolean {
    return this.#flushError?.error === error;
  }

  /** Takes the error that is to be reported now, if there is one: it is told once. */
  takeError(): { readonly error: unknown } | undefined {
    const taken = this.#unreported;
    this.#unreported = undefined;
    return taken;
  }
}

/** The open handles of one image, and its writes under way. */
export class OpenImage {
  readonly #handles = new Set<FileHandle>();
  /** Each settles, without a rejection, when its write has ended and its error has been noted. */
  readonly #writes = new Map<Promise<void>, FileHandle>();
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
    const ended = write.then(
      () => {
        this.#acknowledged++;
      },
      (error: unknown) => {
        if (isForAll(error)) this.noteForOthers(handle, error);
      },
    );
    this.#writes.set(ended, handle);
    await ended;
    this.#writes.delete(ended);
    return write;
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

  /** Resolves when the writes that are under way now have ended: all, or those of one handle. */
  async writesEnded(of?: FileHandle): Promise<void> {
    const pending: Promise<void>[] = [];
    for (const [ended, handle] of this.#writes) if (of === undefined || handle === of) pending.push(ended);
    await Promise.all(pending);
  }
}
