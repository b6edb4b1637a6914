/**
 * The entries of a mount, found by path and by inode: what a host that must answer lookups itself keeps
 * of what `setEntries` pushed down. Pure.
 */

import { type DirectoryEntry, type Entry, type ImageEntry, ROOT_INODE } from './host.ts';

export class Namespace {
  readonly #entries = new Map<number, Entry>();
  /** Inodes by name, per directory. */
  readonly #children = new Map<number, Map<string, number>>();
  /** How many directories there are in each directory: asked for at every look at one, and it may have a thousand. */
  readonly #subdirectories = new Map<number, number>();

  constructor(root: { readonly mode: number; readonly modifiedMs: number }) {
    this.#put({ kind: 'directory', inode: ROOT_INODE, parent: ROOT_INODE, name: '', ...root });
  }

  /**
   * Removes, then adds, so that a name can pass from one inode to another. Returns the inodes that went,
   * with all that was below them. Throws RangeError for an entry whose parent is no directory here, and
   * for a name that another inode has.
   */
  update(add: readonly Entry[], remove: readonly number[]): number[] {
    const gone: number[] = [];
    for (const inode of remove) this.#remove(inode, gone);
    for (const entry of add) {
      const siblings = this.#children.get(entry.parent);
      if (siblings === undefined) throw new RangeError(`the parent of ${entry.name} is no directory`);
      const holder = siblings.get(entry.name);
      if (holder !== undefined && holder !== entry.inode) throw new RangeError(`${entry.name} stands twice in its directory`);
      this.#detach(entry.inode);
      this.#put(entry);
      siblings.set(entry.name, entry.inode);
      this.#count(entry, 1);
    }
    return gone;
  }

  get(inode: number): Entry | undefined {
    return this.#entries.get(inode);
  }

  /** The entry at an absolute path; `/` is the mount's root. */
  lookup(path: string): Entry | undefined {
    let inode = ROOT_INODE;
    for (const name of path.split('/')) {
      if (name === '') continue;
      const child = this.#children.get(inode)?.get(name);
      if (child === undefined) return undefined;
      inode = child;
    }
    return this.#entries.get(inode);
  }

  /** The first deferred directory that a look-up of `path` would look into, or that `path` is where `itself` is to be looked into as well. */
  deferredOn(path: string, { itself }: { readonly itself: boolean }): DirectoryEntry | undefined {
    const names = path.split('/').filter((name) => name !== '');
    let inode: number | undefined = ROOT_INODE;
    for (let depth = 0; inode !== undefined && (depth < names.length || itself); depth++) {
      const entry = this.#entries.get(inode);
      if (entry?.kind === 'directory' && entry.isDeferred === true) return entry;
      if (depth === names.length) return undefined;
      inode = this.#children.get(inode)?.get(names[depth] as string);
    }
    return undefined;
  }

  /** The entry `name` in the directory `directory`. */
  child(directory: number, name: string): Entry | undefined {
    const inode = this.#children.get(directory)?.get(name);
    return inode === undefined ? undefined : this.#entries.get(inode);
  }

  children(directory: DirectoryEntry): Entry[] {
    const entries: Entry[] = [];
    for (const inode of this.#children.get(directory.inode)?.values() ?? []) {
      const entry = this.#entries.get(inode);
      if (entry !== undefined) entries.push(entry);
    }
    return entries;
  }

  countSubdirectories(directory: DirectoryEntry): number {
    return this.#subdirectories.get(directory.inode) ?? 0;
  }

  images(): ImageEntry[] {
    return [...this.#entries.values()].filter((entry) => entry.kind === 'image');
  }

  #put(entry: Entry): void {
    this.#entries.set(entry.inode, entry);
    if (entry.kind === 'directory' && !this.#children.has(entry.inode)) this.#children.set(entry.inode, new Map());
  }

  #detach(inode: number): void {
    const before = this.#entries.get(inode);
    if (before === undefined) return;
    this.#children.get(before.parent)?.delete(before.name);
    this.#count(before, -1);
  }

  #count({ kind, parent }: Entry, change: 1 | -1): void {
    if (kind === 'directory') this.#subdirectories.set(parent, (this.#subdirectories.get(parent) ?? 0) + change);
  }

  #remove(inode: number, gone: number[]): void {
    if (!this.#entries.has(inode) || inode === ROOT_INODE) return;
    for (const child of [...(this.#children.get(inode)?.values() ?? [])]) this.#remove(child, gone);
    this.#detach(inode);
    this.#entries.delete(inode);
    this.#children.delete(inode);
    this.#subdirectories.delete(inode);
    gone.push(inode);
  }
}
