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
  /** See `DirectoryEntry.isDeferred`. */
  readonly isDeferred?: boolean;
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

type Change = { readonly add: Entry[]; readonly remove: number[] };

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
    | { readonly kind: 'directory'; readonly isDeferred: boolean }
    | { readonly kind: 'text'; readonly source: TextSource }
    | { readonly kind: 'image'; readonly size: number; readonly label: string }
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

/** What stands at the top under one name, or the texts beside it: changes by itself, whatever the others do. */
interface Branch {
  /** By key, parents first. */
  readonly entries: ReadonlyMap<string, Entry>;
  /** Inodes of images, by the label of their logical unit. */
  readonly images: ReadonlyMap<string, number>;
}

const NO_BRANCH: Branch = { entries: new Map(), images: new Map() };

export class Tree {
  readonly #options: TreeOptions;
  /** The texts of the mount. */
  #top = NO_BRANCH;
  /** By target name. */
  #targets = new Map<string, Branch>();
  readonly #textSources = new Map<number, TextSource>();
  /** Names of targets, by the inode of their directory. */
  readonly #targetNames = new Map<number, string>();
  #nextInode = ROOT_INODE + 1;

  constructor(options: TreeOptions) {
    this.#options = options;
  }

  /**
   * Makes the tree show `model`. `nowMs` becomes the modification time of what is new or has changed.
   * Throws RangeError, and changes nothing, where a name is unsafe in a path or stands twice in one directory.
   */
  update(model: TreeModel, nowMs: number): TreeChange {
    const names = new Set<string>(MOUNT_TEXTS);
    const wanted = model.targets.map((target) => {
      if (names.has(target.name)) throw standsTwice(target.name);
      names.add(target.name);
      return { name: target.name, files: this.#wanted(target) };
    });
    const change: Change = { add: [], remove: [] };
    const before = this.#targets;
    this.#targets = new Map();
    for (const [name, { entries }] of before) if (!names.has(name)) this.#drop(entries, NO_BRANCH.entries, change);
    const texts = MOUNT_TEXTS.map((file) => this.#text(ROOT_KEY, ROOT_KEY, { file }));
    this.#top = this.#grow(this.#top, texts, nowMs, change);
    for (const { name, files } of wanted) {
      this.#targets.set(name, this.#grow(before.get(name) ?? NO_BRANCH, files, nowMs, change));
    }
    return change;
  }

  /** The same for one target, new or there already, at a cost that does not depend on the others. */
  updateTarget(target: TargetModel, nowMs: number): TreeChange {
    if ((MOUNT_TEXTS as readonly string[]).includes(target.name)) throw standsTwice(target.name);
    const files = this.#wanted(target);
    const change: Change = { add: [], remove: [] };
    this.#targets.set(target.name, this.#grow(this.#targets.get(target.name) ?? NO_BRANCH, files, nowMs, change));
    return change;
  }

  /** Where the text file `inode` stands; undefined for anything else. */
  textSource(inode: number): TextSource | undefined {
    return this.#textSources.get(inode);
  }

  /** The name of the target whose directory `inode` is; undefined for anything else. */
  targetName(inode: number): string | undefined {
    return this.#targetNames.get(inode);
  }

  /** The inode of a logical unit's image; undefined where it has none. */
  imageInode(target: string, label: string): number | undefined {
    return this.#targets.get(target)?.images.get(label);
  }

  /** `before` as it is to be; what that changes is added to `change`. */
  #grow(before: Branch, files: readonly Wanted[], nowMs: number, change: Change): Branch {
    const entries = new Map<string, Entry>();
    const images = new Map<string, number>();
    for (const file of files) {
      const known = before.entries.get(file.key);
      const parent = file.parentKey === ROOT_KEY ? ROOT_INODE : inodeOf(file.parentKey, entries);
      const entry = this.#entry(file, parent, known, nowMs);
      entries.set(file.key, entry);
      if (file.kind === 'text') this.#textSources.set(entry.inode, file.source);
      if (file.kind === 'directory' && parent === ROOT_INODE) this.#targetNames.set(entry.inode, file.name);
      if (file.kind === 'image') images.set(file.label, entry.inode);
      if (entry !== known) change.add.push(entry);
    }
    this.#drop(before.entries, entries, change);
    return { entries, images };
  }

  /** Forgets what `after` has no more of `before`, and names it in `change`, without what is below another one that went. */
  #drop(before: ReadonlyMap<string, Entry>, after: ReadonlyMap<string, Entry>, change: Change): void {
    const gone = new Map<number, Entry>();
    for (const [key, entry] of before) if (!after.has(key)) gone.set(entry.inode, entry);
    for (const { inode, parent } of gone.values()) {
      this.#textSources.delete(inode);
      this.#targetNames.delete(inode);
      if (!gone.has(parent)) change.remove.push(inode);
    }
  }

  #wanted(target: TargetModel): Wanted[] {
    const files: Wanted[] = [];
    const paths = new Set<string>();
    const push = (file: Wanted) => {
      checkName(file.name);
      if (paths.has(file.path)) throw standsTwice(file.path);
      paths.add(file.path);
      files.push(file);
    };
    const directory = this.#directory(ROOT_KEY, ROOT_KEY, target.name, { isDeferred: target.isDeferred ?? false });
    push(directory);
    for (const file of TARGET_TEXTS) push(this.#text(directory.path, directory.key, { file, target: target.name }));
    for (const lun of target.luns) this.#pushLun(push, directory, target.name, lun);
    return files;
  }

  #pushLun(push: (file: Wanted) => void, parent: Wanted, target: string, lun: LunModel): void {
    const directory = this.#directory(parent.path, parent.key, `lun${lun.label}`, { identity: lun.identity });
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
        label: lun.label,
      });
    }
    for (const file of LUN_TEXTS) push(this.#text(directory.path, directory.key, { file, target, lun: lun.label }));
  }

  #directory(
    parentPath: string,
    parentKey: string,
    name: string,
    { identity = '', isDeferred = false }: { readonly identity?: string | undefined; readonly isDeferred?: boolean },
  ): Wanted {
    return {
      kind: 'directory',
      isDeferred,
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
  #entry(file: Wanted, parent: number, before: Entry | undefined, nowMs: number): Entry {
    if (before !== undefined && !hasChanged(file, before)) return before;
    const common = {
      inode: before?.inode ?? this.#nextInode++,
      parent,
      name: file.name,
      mode: file.mode,
      modifiedMs: nowMs,
    };
    if (file.kind === 'text') return { kind: 'text', ...common };
    if (file.kind === 'directory') return { kind: 'directory', ...common, ...(file.isDeferred ? { isDeferred: true } : {}) };
    return { kind: 'image', ...common, size: file.size, pageCache: this.#options.shared ? 'direct' : 'dropped-at-open' };
  }
}

function inodeOf(key: string, entries: ReadonlyMap<string, Entry>): number {
  const entry = entries.get(key);
  if (entry === undefined) throw new Error(`${JSON.stringify(key)} comes before its parent`);
  return entry.inode;
}

/** A key is a path and identities, so the same key has the same parent, name and kind: the rest may change. */
function hasChanged(file: Wanted, before: Entry): boolean {
  if (file.mode !== before.mode) return true;
  if (file.kind === 'directory' && before.kind === 'directory') return file.isDeferred !== (before.isDeferred ?? false);
  return file.kind === 'image' && before.kind === 'image' && file.size !== before.size;
}

function standsTwice(path: string): RangeError {
  return new RangeError(`${JSON.stringify(path)} stands twice in the tree`);
}

function checkName(name: string): void {
  const isSafe = name !== '' && name !== '.' && name !== '..' && !/[/\0]/.test(name);
  if (!isSafe || Buffer.byteLength(name) > MAX_NAME_BYTES) throw new RangeError(`${JSON.stringify(name)} cannot be a file name`);
}
