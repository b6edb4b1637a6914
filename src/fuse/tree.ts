/**
 * The names that a mount shows. A model of targets and logical units goes in; entries that changed and
 * inodes that went come out, ready for `FuseHost.setEntries`. An inode stays with its file for as long
 * as the file exists and is never given to another one. Pure: no FUSE, no device, no clock.
 */

import { type Entry, ROOT_INODE } from './host.ts';

/** A logical unit as the tree sees it. */
export interface LunModel {
  /** What follows `lun` in the directory's name: `0`, `300`; safe in a path. */
  readonly label: string;
  /** What the logical unit is, where known: another identity under the same label is another file, with another inode. */
  readonly identity?: string;
  /** Absent where there is nothing to read: the directory then says why. `size` in bytes. */
  readonly image?: { readonly size: number; readonly writeProtected: boolean };
}

export interface TargetModel {
  /** iSCSI name; safe as one path component. */
  readonly name: string;
  readonly luns: readonly LunModel[];
}

export interface TreeModel {
  readonly targets: readonly TargetModel[];
}

export interface TreeOptions {
  /** Others than the owner may look at the tree and its texts; images stay the owner's. */
  readonly allowOther: boolean;
  /** No image is writable, whatever the logical unit says. */
  readonly readOnly: boolean;
  /** Other hosts write these logical units: the kernel must keep nothing of their images. */
  readonly shared: boolean;
}

/** What `FuseHost.setEntries` takes: parents before children; what is below a removed inode is not named. */
export interface TreeChange {
  readonly add: readonly Entry[];
  readonly remove: readonly number[];
}

/** Where a text file stands, so that its body can be made. */
export type TextSource = { readonly file: TextName; readonly target?: string; readonly lun?: string };

export type TextName = 'status' | 'status.json' | 'metrics' | 'info' | 'info.json';

const MOUNT_TEXTS: readonly TextName[] = ['status', 'status.json', 'metrics'];
const TARGET_TEXTS: readonly TextName[] = ['status', 'status.json'];
const LUN_TEXTS: readonly TextName[] = ['info', 'info.json', 'status', 'status.json'];

/** A component longer than this is refused by the kernel (NAME_MAX). */
const MAX_NAME_BYTES = 255;

/** A file that ought to exist, before it has an inode. */
type Wanted = WantedCommon &
  (
    | { readonly kind: 'directory' }
    | { readonly kind: 'text'; readonly source: TextSource }
    | { readonly kind: 'image'; readonly size: number; readonly target: string; readonly label: string }
  );

interface WantedCommon {
  /** Path from the mount point: one file at a time has it. */
  readonly path: string;
  /** Path and identity: the same key is the same file, with the same inode. */
  readonly key: string;
  readonly parentKey: string;
  readonly name: string;
  readonly mode: number;
}

const ROOT_KEY = '';

export class Tree {
  readonly #options: TreeOptions;
  /** What the tree shows now, by key. */
  #entries = new Map<string, Entry>();
  #textSources = new Map<number, TextSource>();
  /** Inodes of images, by `imageKey`. */
  #images = new Map<string, number>();
  #nextInode = ROOT_INODE + 1;

  constructor(options: TreeOptions) {
    this.#options = options;
  }

  /**
   * Makes the tree show `model`. `nowMs` becomes the modification time of what is new or has changed.
   * Throws RangeError, and changes nothing, where a name is unsafe in a path or stands twice in one directory.
   */
  update(model: TreeModel, nowMs: number): TreeChange {
    const wanted = this.#wanted(model);
    const before = this.#entries;
    this.#entries = new Map();
    this.#textSources = new Map();
    this.#images = new Map();
    const add: Entry[] = [];
    for (const file of wanted) {
      const entry = this.#entry(file, before.get(file.key), nowMs);
      this.#entries.set(file.key, entry);
      if (file.kind === 'text') this.#textSources.set(entry.inode, file.source);
      if (file.kind === 'image') this.#images.set(imageKey(file.target, file.label), entry.inode);
      if (entry !== before.get(file.key)) add.push(entry);
    }
    return { add, remove: topmostGone(before, this.#entries) };
  }

  /** Where the text file `inode` stands; undefined for anything else. */
  textSource(inode: number): TextSource | undefined {
    return this.#textSources.get(inode);
  }

  /** The inode of a logical unit's image; undefined where it has none. */
  imageInode(target: string, label: string): number | undefined {
    return this.#images.get(imageKey(target, label));
  }

  #wanted(model: TreeModel): Wanted[] {
    const files: Wanted[] = [];
    const paths = new Set<string>();
    const push = (file: Wanted) => {
      checkName(file.name);
      if (paths.has(file.path)) throw new RangeError(`${JSON.stringify(file.path)} stands twice in the tree`);
      paths.add(file.path);
      files.push(file);
    };
    for (const file of MOUNT_TEXTS) push(this.#text(ROOT_KEY, ROOT_KEY, { file }));
    for (const target of model.targets) {
      const directory = this.#directory(ROOT_KEY, ROOT_KEY, target.name, '');
      push(directory);
      for (const file of TARGET_TEXTS) push(this.#text(directory.path, directory.key, { file, target: target.name }));
      for (const lun of target.luns) this.#pushLun(push, directory, target.name, lun);
    }
    return files;
  }

  #pushLun(push: (file: Wanted) => void, parent: Wanted, target: string, lun: LunModel): void {
    const directory = this.#directory(parent.path, parent.key, `lun${lun.label}`, lun.identity ?? '');
    push(directory);
    if (lun.image !== undefined) {
      push({
        kind: 'image',
        path: `${directory.path}/image`,
        key: `${directory.key}/image`,
        parentKey: directory.key,
        name: 'image',
        mode: lun.image.writeProtected || this.#options.readOnly ? 0o400 : 0o600,
        size: lun.image.size,
        target,
        label: lun.label,
      });
    }
    for (const file of LUN_TEXTS) push(this.#text(directory.path, directory.key, { file, target, lun: lun.label }));
  }

  #directory(parentPath: string, parentKey: string, name: string, identity: string): Wanted {
    return {
      kind: 'directory',
      path: `${parentPath}/${name}`,
      key: `${parentKey}/${name}\0${identity}`,
      parentKey,
      name,
      mode: this.#options.allowOther ? 0o555 : 0o500,
    };
  }

  #text(parentPath: string, parentKey: string, source: TextSource): Wanted {
    return {
      kind: 'text',
      path: `${parentPath}/${source.file}`,
      key: `${parentKey}/${source.file}`,
      parentKey,
      name: source.file,
      mode: this.#options.allowOther ? 0o444 : 0o400,
      source,
    };
  }

  /** The entry for `file`: `before` itself where nothing changed. */
  #entry(file: Wanted, before: Entry | undefined, nowMs: number): Entry {
    if (before !== undefined && !hasChanged(file, before)) return before;
    const common = {
      inode: before?.inode ?? this.#nextInode++,
      parent: file.parentKey === ROOT_KEY ? ROOT_INODE : this.#inodeOf(file.parentKey),
      name: file.name,
      mode: file.mode,
      modifiedMs: nowMs,
    };
    if (file.kind !== 'image') return { kind: file.kind, ...common };
    return { kind: 'image', ...common, size: file.size, pageCache: this.#options.shared ? 'direct' : 'dropped-at-open' };
  }

  #inodeOf(key: string): number {
    const entry = this.#entries.get(key);
    if (entry === undefined) throw new Error(`${JSON.stringify(key)} comes before its parent`);
    return entry.inode;
  }
}

/** A key is a path and identities, so the same key has the same parent, name and kind: the rest may change. */
function hasChanged(file: Wanted, before: Entry): boolean {
  if (file.mode !== before.mode) return true;
  return file.kind === 'image' && before.kind === 'image' && file.size !== before.size;
}

/** Inodes that `after` has no more, without those below another one that went. */
function topmostGone(before: ReadonlyMap<string, Entry>, after: ReadonlyMap<string, Entry>): number[] {
  const gone = new Map<number, Entry>();
  for (const [key, entry] of before) if (!after.has(key)) gone.set(entry.inode, entry);
  return [...gone.values()].filter((entry) => !gone.has(entry.parent)).map((entry) => entry.inode);
}

function imageKey(target: string, label: string): string {
  return `${target}\0${label}`;
}

function checkName(name: string): void {
  const isSafe = name !== '' && name !== '.' && name !== '..' && !/[/\0]/.test(name);
  if (!isSafe || Buffer.byteLength(name) > MAX_NAME_BYTES) throw new RangeError(`${JSON.stringify(name)} cannot be a file name`);
}
