import { describe, expect, it } from 'vitest';
import { type DirectoryEntry, type Entry, ROOT_INODE } from '../../../src/fuse/host.ts';
import { Namespace } from '../../../src/fuse/namespace.ts';

const common = { mode: 0o500, modifiedMs: 0 };
const directory = (inode: number, parent: number, name: string): Entry => ({ kind: 'directory', inode, parent, name, ...common });
const text = (inode: number, parent: number, name: string): Entry => ({ kind: 'text', inode, parent, name, ...common });
const withTarget = () => {
  const namespace = new Namespace(common);
  namespace.update([directory(2, ROOT_INODE, 'a'), directory(3, 2, 'b'), text(4, 3, 'c'), text(5, ROOT_INODE, 'd')], []);
  return namespace;
};

describe('the name space', () => {
  it('finds entries by path and by inode', () => {
    const namespace = withTarget();
    expect(namespace.lookup('/')?.inode).toBe(ROOT_INODE);
    expect(namespace.lookup('/a/b/c')?.inode).toBe(4);
    expect(namespace.get(5)?.name).toBe('d');
    expect(namespace.lookup('/a/c')).toBeUndefined();
    expect(namespace.lookup('/d/x')).toBeUndefined();
  });

  it('removes what is below, and says what went', () => {
    const namespace = withTarget();
    expect(namespace.update([], [2]).sort()).toEqual([2, 3, 4]);
    expect(namespace.lookup('/a')).toBeUndefined();
    expect(namespace.get(4)).toBeUndefined();
    expect(namespace.lookup('/d')?.inode).toBe(5);
  });

  it('lets a name pass to another inode in one update', () => {
    const namespace = withTarget();
    namespace.update([text(6, 3, 'c')], [4]);
    expect(namespace.lookup('/a/b/c')?.inode).toBe(6);
  });

  it('replaces an entry under its inode, its name and place too', () => {
    const namespace = withTarget();
    namespace.update([text(4, 2, 'moved')], []);
    expect(namespace.lookup('/a/moved')?.inode).toBe(4);
    expect(namespace.lookup('/a/b/c')).toBeUndefined();
  });

  it('keeps the children of a directory that is replaced', () => {
    const namespace = withTarget();
    namespace.update([{ ...directory(3, 2, 'b'), mode: 0o555 }], []);
    expect(namespace.lookup('/a/b/c')?.inode).toBe(4);
  });

  it('finds the deferred directory that a path leads through, and itself where it is to be looked into', () => {
    const namespace = withTarget();
    namespace.update([{ ...directory(2, ROOT_INODE, 'a'), isDeferred: true } as Entry], []);
    const on = (path: string, itself = false) => namespace.deferredOn(path, { itself })?.inode;
    expect([on('/a/b'), on('/a/no'), on('/a/b/c'), on('/a', true), on('/a/b', true)]).toEqual([2, 2, 2, 2, 2]);
    expect([on('/a'), on('/d'), on('/no/x'), on('/'), on('/', true), on('/d', true)]).toEqual(Array(6).fill(undefined));
    namespace.update([directory(2, ROOT_INODE, 'a')], []);
    expect(on('/a/b', true)).toBeUndefined();
  });

  it('counts the directories in a directory, whatever comes, is replaced, moves and goes', () => {
    const namespace = withTarget();
    const count = (inode: number) => namespace.countSubdirectories(namespace.get(inode) as DirectoryEntry);
    expect([count(ROOT_INODE), count(2), count(3)]).toEqual([1, 1, 0]);
    namespace.update([{ ...directory(3, 2, 'b'), mode: 0o555 }], []);
    expect(count(2)).toBe(1);
    namespace.update([directory(3, ROOT_INODE, 'b')], []);
    expect([count(ROOT_INODE), count(2)]).toEqual([2, 0]);
    namespace.update([], [2, 3]);
    expect(count(ROOT_INODE)).toBe(0);
  });

  it('ignores the removal of what is not there, and of the root', () => {
    const namespace = withTarget();
    expect(namespace.update([], [77, ROOT_INODE])).toEqual([]);
    expect(namespace.lookup('/a')?.inode).toBe(2);
  });

  it('refuses an entry without a parent, below a file, or with a name that is taken', () => {
    const namespace = withTarget();
    expect(() => namespace.update([text(9, 77, 'x')], [])).toThrow(RangeError);
    expect(() => namespace.update([text(9, 5, 'x')], [])).toThrow(RangeError);
    expect(() => namespace.update([text(9, ROOT_INODE, 'd')], [])).toThrow(RangeError);
  });
});
