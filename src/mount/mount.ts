/**
 * The composition root of a mount: settings to targets, their logical units through the cache to images,
 * images and texts to a tree, the tree to a FUSE host; and the way back, where everything that was
 * acknowledged reaches the targets before the sessions end (I9). No protocol, no format of a text.
 */

import { join } from 'node:path';
import { aborted, sleep, systemClock } from '../clock.ts';
import { describeOptions } from '../config/options.ts';
import type { DirectTarget, MountSettings } from '../config/settings.ts';
import { describeAt, describeError, IserfsError } from '../errors.ts';
import { type FuseHost, ROOT_INODE } from '../fuse/host.ts';
import { checkFuse, prepareMountpoint } from '../fuse/mountpoint.ts';
import { Operations } from '../fuse/operations.ts';
import { type TargetModel, Tree, type TreeChange } from '../fuse/tree.ts';
import { type Problem, problemOf } from '../problem.ts';
import { BlockCache } from '../scsi/block-cache.ts';
import { BufferPool } from '../scsi/buffer-pool.ts';
import { SeveralErrors } from '../several-errors.ts';
import { VERSION } from '../version.ts';
import { chooseFuseHost, type FuseHostChoice } from './fuse-hosts.ts';
import { LoginTurns } from './login-turns.ts';
import type { MountedLun } from './mounted-lun.ts';
import { attemptBound, MountedTarget } from './mounted-target.ts';
import type { MountSnapshot } from './snapshot.ts';
import { planTargets } from './target-plan.ts';
import { renderText } from './text-files.ts';
import { Transports } from './transports.ts';

/** What is said of a mount when its tree is there. */
export interface ReadyReport {
  readonly pid: number;
  readonly mountpoint: string;
  /** Absolute paths of the images that can be opened. */
  readonly images: readonly { readonly path: string; readonly size: number; readonly writable: boolean }[];
  /** One per portal without an answer, and per target or LUN that is there by name only. */
  readonly problems: readonly Problem[];
  readonly targets: number;
  /** No session has begun: each does when its target's directory is first looked into. */
  readonly isOnDemand: boolean;
}

export interface MountContext {
  readonly initiatorName: string;
  readonly log: (line: string) => void;
}

/**
 * With so few targets a mount logs in to all of them at once, and says what is wrong with which. With more it
 * would cost the portals and this process sessions that nobody uses.
 */
const LOGGED_IN_AT_MOUNT = 16;
/** What the end of a mount may still take, to flush, when it is told to hurry. */
const HURRIED_MS = 3000;
/** Targets that do not answer a logout are left. */
const LOGOUT_MS = 5000;
/** A failure of requests that was logged is not logged again for so long, while no other one comes. */
const SAME_FAILURE_MS = 60_000;
/** Of each LUN, written and not at the target yet. */
const MOST_STAGED_BYTES = 16 * 1024 * 1024;
/** 160 MiB that the pool keeps in reserve: a cache that is dropped at open, and retained writes that a flush frees, come back at once. */
const IDLE_ARENAS = 80;
/** What nobody needed for so long goes back to the system. */
const TRIM_MS = 10_000;
const LOST = 'what was written may not be on stable storage';

export class Mount {
  readonly #settings: MountSettings;
  readonly #context: MountContext;
  readonly #mountpoint: string;
  readonly #fuse: FuseHostChoice;
  readonly #startedAt = new Date();
  readonly #startedMs = systemClock.now();
  readonly #transports: Transports;
  readonly #turns = new LoginTurns({ clock: systemClock });
  readonly #pool: BufferPool;
  readonly #trimming: NodeJS.Timeout;
  readonly #cache: BlockCache;
  readonly #retainedLimit: number | undefined;
  readonly #tree: Tree;
  readonly #operations: Operations;
  /** Problems of discovery, which belong to no target. */
  readonly #notes: Problem[] = [];
  /** What each image shows, by inode, for each target. */
  readonly #images = new Map<MountedTarget, ReadonlyMap<number, MountedLun>>();
  /** By name. */
  #targets: ReadonlyMap<string, MountedTarget> = new Map();
  #isOnDemand = false;
  #host: FuseHost | undefined;
  #isClosing = false;
  #lastFailure = { line: '', at: 0 };

  /**
   * Logs in and mounts. Resolves when the tree is there and at least one LUN can be read, or, where sessions begin on
   * demand, at least one target is known; rejects with the causes otherwise, and nothing is left mounted or
   * logged in. `signal` gives it up.
   */
  static async start(settings: MountSettings, context: MountContext, signal: AbortSignal): Promise<Mount> {
    const fuse = chooseFuseHost(settings.options['fuse-host'], context.log);
    await checkFuse({ allowOther: settings.options['allow-other'], helpers: [fuse.helper] });
    const { path, staleMountsRemoved } = await prepareMountpoint(settings.mountpoint);
    if (staleMountsRemoved > 0) context.log(`removed what a killed process had left mounted on ${path}`);
    const mount = new Mount(settings, context, { path, fuse });
    try {
      await mount.#bringUp(signal);
      signal.throwIfAborted();
      await mount.#attachHost();
      return mount;
    } catch (error) {
      await mount.#abandon();
      throw signal.aborted ? new IserfsError('aborted', 'interrupted; nothing is mounted') : error;
    }
  }

  private constructor(
    settings: MountSettings,
    context: MountContext,
    { path, fuse }: { readonly path: string; readonly fuse: FuseHostChoice },
  ) {
    const { options } = settings;
    this.#settings = settings;
    this.#context = context;
    this.#mountpoint = path;
    this.#fuse = fuse;
    this.#transports = new Transports(options, { log: context.log });
    this.#pool = new BufferPool(this.#transports.memory, {
      idleArenas: IDLE_ARENAS,
      isRegistered: this.#transports.mayUseRdma,
    });
    this.#trimming = setInterval(() => this.#pool.trim(), TRIM_MS);
    this.#trimming.unref();
    const { cacheBytes, retainedLimit } = this.#transports.memoryBounds(options['cache-size']);
    this.#retainedLimit = retainedLimit;
    this.#cache = new BlockCache({
      pool: this.#pool,
      bytes: cacheBytes,
      readahead: options.readahead,
      staged: Math.min(MOST_STAGED_BYTES, retainedLimit ?? MOST_STAGED_BYTES),
    });
    this.#tree = new Tree({ allowOther: options['allow-other'], readOnly: options['read-only'], shared: options.shared });
    this.#operations = new Operations({
      render: async (inode) => new TextEncoder().encode(this.#text(inode)),
      expand: (inode) => this.#expand(inode),
      failed: (error) => this.#logFailure(describeError(error)),
    });
  }

  /** What can be used and what cannot. */
  get report(): ReadyReport {
    const targets = [...this.#targets.values()];
    const luns = targets.flatMap((target) => target.luns.map((lun) => ({ target, lun })));
    return {
      pid: process.pid,
      mountpoint: this.#mountpoint,
      images: luns.flatMap(({ target, lun }) =>
        lun.device === undefined
          ? []
          : [
              {
                path: join(this.#mountpoint, target.name, `lun${lun.label}`, 'image'),
                size: lun.device.info.size,
                writable: !lun.device.info.writeProtected,
              },
            ],
      ),
      problems: [...this.#notes, ...targets.flatMap((target) => target.failures.map(problemOf))],
      targets: targets.length,
      isOnDemand: this.#isOnDemand,
    };
  }

  /** Resolves when the kernel has ended the mount: nobody uses it any more. */
  get ended(): Promise<void> {
    return this.#presentHost.closed.then(() => {});
  }

  /** Takes the tree out of the name space; files that are open are served on. */
  async detach(): Promise<void> {
    await this.#presentHost.unmount('lazy');
  }

  /**
   * The way down, after `ended` or when that takes too long: requests under way are answered, later ones refused, what
   * was written is flushed, the sessions are logged out. Resolves with what did not go well; `signal` leaves it 3 s more.
   */
  async close(options: { readonly signal: AbortSignal }): Promise<string[]> {
    this.#isClosing = true;
    const cut = aborted(options.signal).then(() => sleep(systemClock, HURRIED_MS));
    const failures: string[] = [];
    this.#operations.end();
    await Promise.race([this.#operations.drained(), cut]);
    const luns = [...this.#targets.values()].flatMap((target) => target.luns);
    await Promise.all(
      luns.map(async (lun) => {
        const failure = await Promise.race([
          flush(lun),
          cut.then(() => `${lun.description}: ${LOST}: no answer within ${HURRIED_MS / 1000} s of a second signal`),
        ]);
        if (failure !== undefined) failures.push(failure);
      }),
    );
    await Promise.race([this.#closeTargets(), sleep(systemClock, LOGOUT_MS), cut]);
    return failures;
  }

  snapshot(): MountSnapshot {
    const { capacity, bytes, limboBytes, evictions } = this.#cache.stats;
    return {
      version: VERSION,
      pid: process.pid,
      mountpoint: this.#mountpoint,
      initiatorName: this.#context.initiatorName,
      startedAt: this.#startedAt,
      uptimeMs: systemClock.now() - this.#startedMs,
      options: describeOptions({ ...this.#settings.options, 'initiator-name': undefined }),
      cache: {
        capacity,
        bytes,
        limboBytes,
        evictions,
        poolBytesInUse: this.#pool.bytesInUse,
        poolBytesAllocated: this.#pool.bytesAllocated,
      },
      fuseHost: this.#fuse.name,
      openImages: this.#host?.openImages ?? 0,
      notes: this.#notes.map(({ text }) => text),
      targets: [...this.#targets.values()].map((target) => target.snapshot()),
    };
  }

  get #presentHost(): FuseHost {
    if (this.#host === undefined) throw new IserfsError('internal', 'the mount has not started');
    return this.#host;
  }

  /** Discovery and, unless they are for later, logins. Rejects where no LUN can be read, or no target is known. */
  async #bringUp(signal: AbortSignal): Promise<void> {
    const { initiatorName, log } = this.#context;
    const timeUp = new AbortController();
    const bound = attemptBound(this.#settings);
    const cancelTimer = systemClock.schedule(bound, () => timeUp.abort(new Error(`no answer within ${bound / 1000} s`)));
    const limit = AbortSignal.any([signal, timeUp.signal]);
    try {
      const transports = this.#transports;
      const plan = await planTargets(this.#settings, { initiatorName, transports, signal: limit });
      this.#notes.push(...plan.failures.map(problemOf), ...plan.notes.map((text) => ({ text })));
      for (const { text } of this.#notes) log(text);
      this.#isOnDemand = isOnDemand(this.#settings, plan.targets.length);
      this.#targets = new Map(plan.targets.map((target) => [target.name, this.#target(target)]));
      if (!this.#isOnDemand) {
        const attempts = [...this.#targets.values()].map((target) => target.begin(limit));
        await Promise.race([Promise.all(attempts), aborted(limit)]);
      }
    } finally {
      cancelTimer();
    }
    const targets = [...this.#targets.values()];
    const failures = targets.flatMap((target) => target.failures);
    for (const failure of failures) log(describeError(failure));
    if (this.#isOnDemand ? targets.length > 0 : targets.some(({ luns }) => luns.some(({ device }) => device !== undefined)))
      return;
    const [first, ...rest] = [
      ...failures,
      ...this.#notes.map(({ text, ...hint }) => new IserfsError('target-not-found', text, hint)),
    ];
    throw SeveralErrors.from([first ?? new IserfsError('target-not-found', 'the portals offer no targets'), ...rest]);
  }

  #target(request: DirectTarget): MountedTarget {
    return new MountedTarget(request, {
      settings: this.#settings,
      initiatorName: this.#context.initiatorName,
      transports: this.#transports,
      pool: this.#pool,
      cache: this.#cache,
      retainedLimit: this.#retainedLimit,
      clock: systemClock,
      log: this.#context.log,
      turns: this.#turns,
      isOnDemand: this.#isOnDemand,
      changed: (target) => this.#updateTarget(target),
      outdated: (target, lun) => this.#forgetPages(target, lun),
    });
  }

  async #attachHost(): Promise<void> {
    const { options } = this.#settings;
    this.#host = await this.#fuse.mount({
      mountpoint: this.#mountpoint,
      upcalls: this.#operations,
      uid: process.getuid?.() ?? 0,
      gid: process.getgid?.() ?? 0,
      allowOther: options['allow-other'],
      readOnly: options['read-only'],
      source: 'iserfs',
      directIo: options.shared,
      memory: this.#pool,
    });
    const targets = [...this.#targets.values()];
    this.#show(this.#tree.update({ targets: targets.map(modelOf) }, Date.now()), targets);
  }

  /** Makes the tree show the target as it is now. */
  #updateTarget(target: MountedTarget): void {
    if (this.#host === undefined || this.#isClosing) return;
    this.#show(this.#tree.updateTarget(modelOf(target), Date.now()), [target]);
  }

  /** Has the kernel read the image anew, also where it is open. Nobody waits for it: it waits for pages that are being read. */
  #forgetPages(target: MountedTarget, lun: MountedLun): void {
    if (this.#host === undefined || this.#isClosing || lun.device === undefined) return;
    for (const [inode, one] of this.#images.get(target) ?? []) {
      if (one === lun) void this.#host.invalidate(inode, 0, lun.device.info.size);
    }
  }

  /** Tells host and operations what has changed in `targets`. */
  #show({ add, remove }: TreeChange, targets: readonly MountedTarget[]): void {
    for (const inode of remove) this.#operations.detach(inode);
    for (const target of targets) {
      const before = this.#images.get(target);
      const images = new Map<number, MountedLun>();
      for (const lun of target.luns) {
        const inode = this.#tree.imageInode(target.name, lun.label);
        if (inode === undefined || lun.device === undefined) continue;
        images.set(inode, lun);
        if (before?.get(inode) !== lun) this.#operations.attach(inode, lun.device);
      }
      for (const [inode, lun] of before ?? []) {
        if (images.get(inode) !== lun) lun.device?.showIn(undefined);
        if (!images.has(inode)) this.#operations.detach(inode);
      }
      for (const [inode, lun] of images) lun.device?.showIn(this.#host?.window(inode));
      this.#images.set(target, images);
    }
    this.#host?.setEntries(add, remove);
  }

  /** Somebody looks into the directory `inode` of a target: its session begins, if it has none. */
  async #expand(inode: number): Promise<void> {
    const name = this.#tree.targetName(inode);
    if (name !== undefined && !this.#isClosing) await this.#targets.get(name)?.begin();
  }

  #text(inode: number): string {
    const source = this.#tree.textSource(inode);
    if (source === undefined) throw new IserfsError('internal', `inode ${inode} of ${ROOT_INODE} is no text`);
    return renderText(source, {
      mount: () => this.snapshot(),
      target: (name) => this.#targets.get(name)?.snapshot(),
    });
  }

  /** One line for many requests that fail alike, as they do while a target is away. */
  #logFailure(line: string): void {
    const now = systemClock.now();
    if (line === this.#lastFailure.line && now - this.#lastFailure.at < SAME_FAILURE_MS) return;
    this.#lastFailure = { line, at: now };
    this.#context.log(line);
  }

  /** A start that failed: nothing stays. */
  async #abandon(): Promise<void> {
    this.#isClosing = true;
    await this.#host?.unmount('lazy').catch((error: unknown) => this.#context.log(describeError(error)));
    await Promise.race([this.#closeTargets(), sleep(systemClock, LOGOUT_MS)]);
  }

  async #closeTargets(): Promise<void> {
    clearInterval(this.#trimming);
    await Promise.all([...this.#targets.values()].map((target) => target.close()));
  }
}

function isOnDemand({ options: { logins } }: MountSettings, targets: number): boolean {
  return logins === 'auto' ? targets > LOGGED_IN_AT_MOUNT : logins === 'on-demand';
}

function modelOf(target: MountedTarget): TargetModel {
  return {
    name: target.name,
    isDeferred: target.isDeferred,
    luns: target.luns.map((lun) => ({
      label: lun.label,
      ...(lun.identityKey === undefined ? {} : { identity: lun.identityKey }),
      ...(lun.device === undefined
        ? {}
        : { image: { size: lun.device.info.size, writeProtected: lun.device.info.writeProtected } }),
    })),
  };
}

/** Has a logical unit that was written to put everything on stable storage; resolves with why it did not. */
async function flush(lun: MountedLun): Promise<string | undefined> {
  if (lun.device === undefined || (lun.unit?.status.writes === 0 && lun.device.stagedBytes === 0)) return undefined;
  try {
    await lun.device.flush();
    return undefined;
  } catch (error) {
    return describeAt(`${lun.description}: ${LOST}`, error);
  }
}
