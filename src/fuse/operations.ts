/**
 * What an image does when the kernel asks: the semantics of a disk. A read stops at the end and beyond
 * it gives nothing; a write goes up to the end, and beyond it there is no space; where the device stages writes, one is
 * answered when it is taken, and one that fails afterwards is told of later (file-handle.ts); close(2) waits for the
 * handle's writes, fsync(2) for all earlier writes of the image and then for the device's cache. Every
 * request is answered exactly once, and requests never wait for each other but where that is their
 * meaning. Where the device is away, what got a signal is answered without waiting for it any longer, so that programs can be
 * killed; not so a write whose command is under way, since nobody can say that it was not done. Knows images by inode and
 * devices by `ImageFile`; knows no FUSE library and no SCSI.
 */

import { type Clock, systemClock } from '../clock.ts';
import { errorCode, IserfsError } from '../errors.ts';
import { unlessAborted } from '../scsi/abort.ts';
import type { Lease, LeaseEnded, SharedMemory } from '../scsi/block-device.ts';
import type { Failure } from '../scsi/ended.ts';
import type { StageWrite, WaitingWrite } from '../scsi/write-staging.ts';
import { Errno, errnoOf } from './errno.ts';
import { type FileHandle, OpenImage } from './file-handle.ts';
import type { FuseRequest, FuseUpcalls } from './host.ts';

/** The device behind an image. */
export interface ImageFile {
  /** As it is now: a resize or a mode change replaces it. `size` in bytes. */
  readonly info: { readonly size: number; readonly writeProtected: boolean };
  /** Leases `length` bytes from `offset`, never less; `ended` is called at once where nothing has to be waited for. Does not throw. */
  startRead(offset: number, length: number, ended: LeaseEnded): void;
  /** Resolves after GOOD from the device for all of `data`, which is borrowed until the promise settles. */
  write(offset: number, data: Uint8Array, options: { readonly memory?: SharedMemory }): Promise<void>;
  /** Takes a write that ends later; absent where none may be acknowledged before its end. */
  readonly stage?: StageWrite | undefined;
  /** Resolves when every write that was acknowledged before the call is on stable storage (I6). */
  flush(): Promise<void>;
  /** Resolves when the range reads as zeros; see `BlockDevice.zero`. Absent where it must be written. */
  zero?(offset: number, length: number, options: { readonly mayUnmap: boolean; readonly signal?: AbortSignal }): Promise<void>;
  /** The first data, or hole, from `offset` on; the end counts as a hole. Undefined where there is none. Absent where that is not known. */
  seek?(offset: number, what: 'data' | 'hole', options: { readonly signal?: AbortSignal }): Promise<number | undefined>;
  /** The image was closed and is opened: drops what is held of it. The open waits for it, and fails with it. */
  opened?(): void | Promise<void>;
  /** The last handle was closed. */
  closed?(): void;
  /** Calls `listener` when a write that was acknowledged turns out to have failed. Where nobody listens, the next flush fails instead. */
  onWriteError?(listener: (error: Error) => void): () => void;
}

export interface OperationsOptions {
  /** The body of the text file `inode`, now. */
  render(inode: number): Promise<Uint8Array>;
  /** See `FuseUpcalls.expand`; absent where no directory is deferred. */
  expand?(inode: number): Promise<void>;
  /** A request failed, and not by a mistake of its caller: for the log. */
  failed(error: unknown): void;
  /** `systemClock` if absent. */
  readonly clock?: Clock;
}

/** How long an interrupted request may still end by itself: programs with timers of signals do not expect EINTR of a disk. */
const GIVE_UP_MS = 2_000;

type Read = FuseRequest & { readonly op: 'read' };
type Write = FuseRequest & { readonly op: 'write' };
type Zero = FuseRequest & { readonly op: 'zero' };
type Seek = FuseRequest & { readonly op: 'seek' };

/** What a request is answered with: a number as `done` takes it, or a lease as `doneWith` does. */
type Answer = number | Lease;

/** An image, open or not. `device` is undefined once the logical unit has gone. */
interface Image {
  readonly inode: number;
  device: ImageFile | undefined;
  readonly open: OpenImage;
  /** Settles when the device has heard that the image is open; undefined while it is closed. */
  ready: Promise<void> | undefined;
  /** Ends the listening for write errors; undefined while there is nobody to tell of them. */
  stopListening: (() => void) | undefined;
}

interface OpenHandle {
  readonly image: Image;
  readonly handle: FileHandle;
}

export class Operations implements FuseUpcalls {
  readonly #options: OperationsOptions;
  readonly #images = new Map<number, Image>();
  /** By the host's number of the handle. */
  readonly #handles = new Map<number, OpenHandle>();
  readonly #clock: Clock;
  #inFlight = 0;
  /** Who waits for there to be none. */
  #awaitDrained: (() => void)[] = [];
  /** Requests whose work can be ended half way. */
  readonly #interruptible = new Map<FuseRequest, AbortController>();
  /** Writes that have not been taken. */
  readonly #waitingWrites = new Map<FuseRequest, WaitingWrite>();
  /** Interrupted requests: what calls that off, or `answered` where EINTR was the answer and the work goes on. */
  readonly #interruptions = new Map<FuseRequest, (() => void) | 'answered'>();

  #hasEnded = false;

  constructor(options: OperationsOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /** Requests that have not ended: that have no answer yet, or whose answer was that nobody waits for them. */
  get requestsInFlight(): number {
    return this.#inFlight;
  }

  /** Serves `inode` from `device` from now on, also for handles that are open already. */
  attach(inode: number, device: ImageFile): void {
    const image = this.#images.get(inode);
    if (image === undefined) {
      this.#images.set(inode, { inode, device, open: new OpenImage(), ready: undefined, stopListening: undefined });
      return;
    }
    if (image.device !== device) loseDevice(image);
    image.device = device;
    if (image.open.handles.size > 0) listen(image);
  }

  /** The device is gone: what comes for its open handles fails with ENXIO, until `attach` brings it back. */
  detach(inode: number): void {
    const image = this.#images.get(inode);
    if (image === undefined) return;
    loseDevice(image);
    listen(image);
    if (image.open.handles.size === 0) this.#images.delete(inode);
  }

  /**
   * Takes no more: what comes from now on fails as it will when nobody serves the mount any longer, but for what ends a
   * handle. So what is flushed after `drained` is all that was ever acknowledged.
   */
  end(): void {
    this.#hasEnded = true;
  }

  /** Resolves when every request that has come in has ended. */
  drained(): Promise<void> {
    if (this.#inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => this.#awaitDrained.push(resolve));
  }

  requests(batch: readonly FuseRequest[]): void {
    for (const request of batch) {
      if (request.op === 'read') this.#read(request);
      else this.#answer(request);
    }
  }

  render(inode: number): Promise<Uint8Array> {
    return this.#options.render(inode);
  }

  expand(inode: number): Promise<void> {
    return this.#options.expand?.(inode) ?? Promise.resolve();
  }

  interrupted(request: FuseRequest): void {
    if (request.op === 'write') this.#giveUpLater(request, () => this.#waitingWrites.get(request)?.giveUp());
    else if (request.op !== 'release') this.#letGoLater(request);
  }

  /** Answers EINTR in place of what `request` still waits for, and has the work behind it end where that can be. */
  #letGoLater(request: FuseRequest): void {
    this.#giveUpLater(request, () => {
      this.#interruptions.set(request, 'answered');
      const handle = this.#handles.get(request.handle)?.handle;
      if (handle !== undefined) handle.isGivenUp = true;
      request.done(-Errno.EINTR);
      this.#interruptible.get(request)?.abort();
    });
  }

  #giveUpLater(request: FuseRequest, giveUp: () => void): void {
    if (!this.#interruptions.has(request)) this.#interruptions.set(request, this.#clock.schedule(GIVE_UP_MS, giveUp));
  }

  /** A log that fails itself must not cost a request its answer. */
  failed(error: unknown): void {
    try {
      this.#options.failed(error);
    } catch {
      // There is nobody left to tell.
    }
  }

  /** Answers at once where that can be. */
  #answer(request: Exclude<FuseRequest, Read>): void {
    let answer: number | Promise<number>;
    try {
      answer = this.#perform(request);
    } catch (error) {
      answer = this.#answerTo(error, request);
    }
    if (typeof answer === 'number') {
      this.#give(request, answer);
      return;
    }
    this.#inFlight++;
    answer.then(
      (result) => this.#ended(request, result),
      (error) => {
        const result = this.#answerTo(error, request);
        // Who asked for the flush was told nothing of it.
        if (request.op === 'fsync' && this.#interruptions.get(request) === 'answered') {
          this.#handles.get(request.handle)?.handle.note(error);
        }
        this.#ended(request, result);
      },
    );
  }

  /** The same for a read: no promise is made on the way to the device and back. */
  #read(request: Read): void {
    const opened = this.#handles.get(request.handle);
    const device = opened?.image.device;
    if (device === undefined || this.#hasEnded) {
      this.#give(request, this.#refusal(opened));
      return;
    }
    const available = Math.min(request.length, device.info.size - request.offset);
    if (available <= 0) {
      this.#give(request, 0);
      return;
    }
    this.#inFlight++;
    device.startRead(request.offset, available, (lease, failure) => {
      this.#ended(request, lease ?? this.#answerTo(failure?.error, request));
    });
  }

  #refusal(opened: OpenHandle | undefined): number {
    if (this.#hasEnded) return -Errno.ENOTCONN;
    return opened === undefined ? -Errno.EBADF : -Errno.ENXIO;
  }

  #ended(request: FuseRequest, result: Answer): void {
    const interruption = this.#interruptions.get(request);
    this.#inFlight--;
    if (interruption !== undefined) this.#interruptions.delete(request);
    if (interruption === 'answered') this.#takeBack(request, result);
    else {
      interruption?.();
      this.#give(request, result);
    }
    if (this.#inFlight > 0 || this.#awaitDrained.length === 0) return;
    for (const resolve of this.#awaitDrained.splice(0)) resolve();
  }

  /** A host that fails to take an answer does no harm to the device, whose call this may be. */
  #give(request: FuseRequest, answer: Answer): void {
    try {
      if (typeof answer === 'number') request.done(answer);
      else if (request.op === 'read') request.doneWith(answer.segments, answer.release);
    } catch (error) {
      this.failed(error);
    }
  }

  /** Nobody waits for `result` any more. A handle whose open was given up is never released by the kernel. */
  #takeBack(request: FuseRequest, result: Answer): void {
    if (typeof result !== 'number') result.release();
    const opened = request.op === 'open' && result === 0 ? this.#handles.get(request.handle) : undefined;
    if (opened !== undefined) this.#forget(opened, request.handle);
  }

  #answerTo(error: unknown, request: FuseRequest): number {
    if (request.op === 'read' && errorCode(error) === 'out-of-range') return this.#beyondTheEnd(request);
    this.failed(error);
    return -errnoOf(error);
  }

  /** The device has shrunk meanwhile: this is the end of the file, or the range was cut in the middle. */
  #beyondTheEnd(request: Read): number {
    const device = this.#handles.get(request.handle)?.image.device;
    if (device === undefined) return -Errno.ENXIO;
    return request.offset >= device.info.size ? 0 : -Errno.EIO;
  }

  #perform(request: Exclude<FuseRequest, Read>): Promise<number> | number {
    if (this.#hasEnded && request.op !== 'flush' && request.op !== 'release') return -Errno.ENOTCONN;
    if (request.op === 'open') return this.#open(request);
    const opened = this.#handles.get(request.handle);
    if (opened === undefined) return -Errno.EBADF;
    switch (request.op) {
      case 'write':
        return this.#write(opened, request);
      case 'flush':
        return this.#flush(opened, request);
      case 'fsync':
        return this.#fsync(opened);
      case 'release':
        return this.#release(opened, request.handle);
      case 'zero':
        return this.#interruptibly(request, (signal) => this.#zero(opened, request, signal));
      case 'seek':
        return this.#interruptibly(request, (signal) => this.#seek(opened, request, signal));
      default:
        return request satisfies never;
    }
  }

  async #open(request: FuseRequest & { readonly op: 'open' }): Promise<number> {
    const image = this.#images.get(request.inode);
    if (image?.device === undefined) return -Errno.ENXIO;
    const isWritable = request.access !== 'read';
    if (isWritable && image.device.info.writeProtected) return -Errno.EROFS;
    const handle = image.open.open(isWritable);
    this.#handles.set(request.handle, { image, handle });
    if (image.stopListening === undefined) listen(image);
    try {
      image.ready ??= Promise.resolve(image.device.opened?.());
      await image.ready;
    } catch (error) {
      this.#forget({ image, handle }, request.handle);
      throw error;
    }
    return 0;
  }

  #write({ image, handle }: OpenHandle, request: Write): number | Promise<number> {
    const { device } = image;
    if (device === undefined) return -Errno.ENXIO;
    if (!handle.isWritable) return -Errno.EBADF;
    if (device.info.writeProtected) return -Errno.EROFS;
    const { offset, memory } = request;
    if (request.data.length === 0) return 0;
    const length = Math.min(request.data.length, device.info.size - offset);
    if (length <= 0) return -Errno.ENOSPC;
    const data = length === request.data.length ? request.data : request.data.subarray(0, length);
    if (device.stage !== undefined) return this.#stage({ image, handle }, device, device.stage, data, request);
    return this.#writeThrough({ image, handle }, device, offset, data, memory);
  }

  async #writeThrough(
    { image, handle }: OpenHandle,
    device: ImageFile,
    offset: number,
    data: Uint8Array,
    memory: SharedMemory | undefined,
  ): Promise<number> {
    await handle.file.track(handle, device.write(offset, data, memory === undefined ? {} : { memory }), mayHaveLostData);
    if (image.device !== device) image.open.deviceLost(lostWithDevice());
    return data.length;
  }

  /** A handle whose writes have failed is told so in place of its next one, which is not written. */
  #stage(
    { image, handle }: OpenHandle,
    device: ImageFile,
    stage: StageWrite,
    data: Uint8Array,
    request: Write,
  ): number | Promise<number> {
    const untold = handle.takeError('write');
    if (untold !== undefined) throw earlierFailure(untold.error);
    const write = handle.file.beginStaged(handle);
    const ended = (failure?: Failure) => {
      if (failure !== undefined) this.failed(failure.error);
      handle.file.endStaged(write, failure);
      if (image.device !== device) image.open.deviceLost(lostWithDevice());
    };
    const notTaken = (error: unknown) => {
      handle.file.notTaken(write);
      throw error;
    };
    let waiting: WaitingWrite | undefined;
    try {
      waiting = stage(request.offset, data, ended, request.memory);
    } catch (error) {
      return notTaken(error);
    }
    if (waiting === undefined) return data.length;
    this.#waitingWrites.set(request, waiting);
    const { over } = waiting;
    return over
      .then((isTaken) => {
        if (isTaken) return data.length;
        handle.file.notTaken(write);
        handle.isGivenUp = true;
        return -Errno.EINTR;
      }, notTaken)
      .finally(() => this.#waitingWrites.delete(request));
  }

  /** fallocate(2), after the writes that came before it. A range that leaves the disk is not cut: there is no space for the rest of it. */
  async #zero({ image, handle }: OpenHandle, request: Zero, signal: AbortSignal): Promise<number> {
    const { device } = image;
    const { offset, length, mayUnmap } = request;
    if (device === undefined) return -Errno.ENXIO;
    if (!handle.isWritable) return -Errno.EBADF;
    if (device.info.writeProtected) return -Errno.EROFS;
    if (device.zero === undefined) return -Errno.EOPNOTSUPP;
    if (offset + length > device.info.size) return -Errno.ENOSPC;
    const { zero } = device;
    const zeroed = unlessAborted(handle.file.writesEnded(), signal).then(() =>
      zero.call(device, offset, length, { mayUnmap, signal }),
    );
    await handle.file.track(handle, zeroed, mayHaveSpoiltData);
    if (image.device !== device) image.open.deviceLost(lostWithDevice());
    return 0;
  }

  /** lseek(2), as it is after the writes that came before it. */
  async #seek({ image, handle }: OpenHandle, { offset, what }: Seek, signal: AbortSignal): Promise<number> {
    const { device } = image;
    if (device === undefined) return -Errno.ENXIO;
    if (device.seek === undefined) return -Errno.EOPNOTSUPP;
    await unlessAborted(handle.file.writesEnded(), signal);
    const found = await device.seek(offset, what, { signal });
    return found ?? -Errno.ENXIO;
  }

  async #interruptibly(request: FuseRequest, perform: (signal: AbortSignal) => Promise<number>): Promise<number> {
    const controller = new AbortController();
    this.#interruptible.set(request, controller);
    try {
      return await perform(controller.signal);
    } finally {
      this.#interruptible.delete(request);
    }
  }

  /**
   * close(2): no durability, but nothing of this handle is under way any more, and nothing untold. It counts as interrupted
   * where another request of the handle was: a program that a signal ends gets no more of them while the kernel closes its files.
   */
  async #flush({ handle }: OpenHandle, request: FuseRequest): Promise<number> {
    if (handle.isGivenUp) this.#letGoLater(request);
    await handle.file.writesEnded(handle);
    handle.isGivenUp = false;
    // Whoever asks next is told.
    if (this.#interruptions.get(request) === 'answered') return 0;
    const untold = handle.takeError('close');
    if (untold !== undefined) throw earlierFailure(untold.error);
    return 0;
  }

  async #fsync({ image, handle }: OpenHandle): Promise<number> {
    const { device } = image;
    if (device === undefined) return -Errno.ENXIO;
    await handle.file.writesEnded();
    handle.isGivenUp = false;
    await handle.file.trackFlush(handle, () => device.flush());
    const untold = handle.takeError('fsync');
    if (untold !== undefined) throw earlierFailure(untold.error);
    return 0;
  }

  async #release(opened: OpenHandle, handleNumber: number): Promise<number> {
    await opened.handle.file.writesEnded(opened.handle);
    this.#forget(opened, handleNumber);
    return 0;
  }

  #forget({ image, handle }: OpenHandle, handleNumber: number): void {
    this.#handles.delete(handleNumber);
    image.open.close(handle);
    if (image.open.handles.size > 0) return;
    image.stopListening?.();
    image.stopListening = undefined;
    image.ready = undefined;
    if (image.device === undefined) this.#images.delete(image.inode);
    else image.device.closed?.();
  }
}

/** The device that comes back, if one does, knows nothing of what this one still had to put on stable storage (I6). */
function loseDevice(image: Image): void {
  if (image.device === undefined) return;
  image.device = undefined;
  image.open.deviceLost(lostWithDevice());
}

function lostWithDevice(): IserfsError {
  return new IserfsError('data-lost', 'the device went before what was written to it was flushed');
}

/** Has all open handles told of writes that fail after they were acknowledged; by the device that is there now, if one is. */
function listen(image: Image): void {
  image.stopListening?.();
  image.stopListening = image.device?.onWriteError?.((error) => image.open.noteForAll(error));
}

/** Whether a failed write may have changed or lost bytes, so that others who have the image open must hear of it. */
function mayHaveLostData(error: unknown): boolean {
  const code = errorCode(error);
  return code !== 'write-protected' && code !== 'out-of-range';
}

/** As `mayHaveLostData`, for zeros: whoever gave them up half way knows, and nobody else has lost anything. */
function mayHaveSpoiltData(error: unknown): boolean {
  const code = errorCode(error);
  return mayHaveLostData(error) && code !== 'aborted' && code !== 'unsupported';
}

/** Says in the log that the error is an old one, told to one more handle. */
function earlierFailure(error: unknown): IserfsError {
  return new IserfsError(errorCode(error), 'reported to a handle that was open when a write or a flush failed', { cause: error });
}
