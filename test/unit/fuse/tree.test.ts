import { describe, expect, it } from 'vitest';
import { type Entry, ROOT_INODE } from '../../../src/fuse/host.ts';
import { Tree, type TreeChange, type TreeModel, type TreeOptions } from '../../../src/fuse/tree.ts';

const GIB = 1024 ** 3;
const image = (size = GIB, writeProtected = false) => ({ image: { size, writeProtected } });
const options = (changes: Partial<TreeOptions> = {}): TreeOptions => ({
  allowOther: false,
  readOnly: false,
  shared: false,
  ...changes,
});
const model = (luns: TreeModel['targets'][number]['luns'] = [{ label: '0', ...image() }]): TreeModel => ({
  targets: [{ name: 'iqn.a:x', luns }],
});

/** What a host would show, by path, after the changes. */
class Shown {
  readonly byInode = new Map<number, Entry>();

  apply({ add, remove }: TreeChange): this {
    for (const inode of remove) this.#remove(inode);
    for (const entry of add) {
      if (entry.parent !== ROOT_INODE && !this.byInode.has(entry.parent)) throw new Error(`${entry.name} before its parent`);
      this.byInode.set(entry.inode, entry);
    }
    return this;
  }

  paths(): Record<string, Entry> {
    return Object.fromEntries([...this.byInode.values()].map((entry) => [this.#path(entry), entry]));
  }

  at(path: string): Entry {
    const entry = this.paths()[path];
    if (entry === undefined) throw new Error(`${path} is not shown`);
    return entry;
  }

  #path(entry: Entry): string {
    const parent = this.byInode.get(entry.parent);
    return parent === undefined ? entry.name : `${this.#path(parent)}/${entry.name}`;
  }

  #remove(inode: number): void {
    this.byInode.delete(inode);
    for (const entry of [...this.byInode.values()]) if (entry.parent === inode) this.#remove(entry.inode);
  }
}

describe('the tree', () => {
  it('has the files that are documented', () => {
    const shown = new Shown().apply(new Tree(options()).update(model(), 1));
    expect(Object.keys(shown.paths()).sort()).toEqual([
      'iqn.a:x',
      'iqn.a:x/lun0',
      'iqn.a:x/lun0/image',
      'iqn.a:x/lun0/info',
      'iqn.a:x/lun0/info.json',
      'iqn.a:x/lun0/status',
      'iqn.a:x/lun0/status.json',
      'iqn.a:x/status',
      'iqn.a:x/status.json',
      'metrics',
      'status',
      'status.json',
    ]);
  });

  it('keeps a directory without an image for a logical unit that cannot be read', () => {
    const shown = new Shown().apply(new Tree(options()).update(model([{ label: '3' }]), 1));
    expect(shown.paths()).toHaveProperty(['iqn.a:x/lun3/status']);
    expect(shown.paths()).not.toHaveProperty(['iqn.a:x/lun3/image']);
  });

  it('gives every file its own inode, none of them the root', () => {
    const luns = Array.from({ length: 300 }, (_, label) => ({ label: String(label), ...image() }));
    const { add } = new Tree(options()).update(model(luns), 1);
    expect(new Set(add.map(({ inode }) => inode)).size).toBe(add.length);
    expect(add.every(({ inode }) => inode !== ROOT_INODE)).toBe(true);
  });

  it('tells where a text stands, and the inode of an image', () => {
    const tree = new Tree(options());
    const shown = new Shown().apply(tree.update(model(), 1));
    expect(tree.textSource(shown.at('metrics').inode)).toEqual({ file: 'metrics' });
    expect(tree.textSource(shown.at('iqn.a:x/status').inode)).toEqual({ file: 'status', target: 'iqn.a:x' });
    expect(tree.textSource(shown.at('iqn.a:x/lun0/info.json').inode)).toEqual({ file: 'info.json', target: 'iqn.a:x', lun: '0' });
    expect(tree.textSource(shown.at('iqn.a:x/lun0/image').inode)).toBeUndefined();
    expect(tree.imageInode('iqn.a:x', '0')).toBe(shown.at('iqn.a:x/lun0/image').inode);
    expect(tree.imageInode('iqn.a:x', '1')).toBeUndefined();
    expect(tree.targetName(shown.at('iqn.a:x').inode)).toBe('iqn.a:x');
    expect(tree.targetName(shown.at('iqn.a:x/lun0').inode)).toBeUndefined();
  });
});

describe('rights', () => {
  it.each([
    { changes: {}, directory: 0o500, text: 0o400 },
    { changes: { allowOther: true }, directory: 0o555, text: 0o444 },
  ])('are $directory and $text with $changes, and never more than the owner on an image', ({ changes, directory, text }) => {
    const shown = new Shown().apply(new Tree(options(changes)).update(model(), 1));
    expect(shown.at('iqn.a:x/lun0').mode).toBe(directory);
    expect(shown.at('status').mode).toBe(text);
    expect(shown.at('iqn.a:x/lun0/image').mode).toBe(0o600);
  });

  it.each([
    { why: 'the mount is read only', changes: { readOnly: true }, writeProtected: false },
    { why: 'the logical unit is write protected', changes: {}, writeProtected: true },
  ])('leave an image no write where $why', ({ changes, writeProtected }) => {
    const tree = new Tree(options(changes));
    const shown = new Shown().apply(tree.update(model([{ label: '0', ...image(GIB, writeProtected) }]), 1));
    expect(shown.at('iqn.a:x/lun0/image').mode).toBe(0o400);
  });

  it('keep the page cache away from logical units that others write', () => {
    const pageCache = (shared: boolean) => {
      const shown = new Shown().apply(new Tree(options({ shared })).update(model(), 1));
      return shown.at('iqn.a:x/lun0/image');
    };
    expect(pageCache(true)).toMatchObject({ pageCache: 'direct' });
    expect(pageCache(false)).toMatchObject({ pageCache: 'dropped-at-open' });
  });
});

describe('changes', () => {
  it('are none for the same model', () => {
    const tree = new Tree(options());
    tree.update(model(), 1);
    expect(tree.update(model(), 2)).toEqual({ add: [], remove: [] });
  });

  it('replace an image of another size under the same inode', () => {
    const tree = new Tree(options());
    const before = new Shown().apply(tree.update(model(), 1)).at('iqn.a:x/lun0/image');
    const { add, remove } = tree.update(model([{ label: '0', ...image(2 * GIB) }]), 2);
    expect(remove).toEqual([]);
    expect(add).toEqual([{ ...before, size: 2 * GIB, modifiedMs: 2 }]);
  });

  it('replace an image that becomes write protected', () => {
    const tree = new Tree(options());
    tree.update(model(), 1);
    expect(tree.update(model([{ label: '0', ...image(GIB, true) }]), 2).add).toMatchObject([{ name: 'image', mode: 0o400 }]);
  });

  it('add a logical unit that comes later', () => {
    const tree = new Tree(options());
    const shown = new Shown().apply(tree.update(model(), 1));
    const before = shown.at('iqn.a:x/lun0/image').inode;
    const change = tree.update(
      model([
        { label: '0', ...image() },
        { label: '7', ...image() },
      ]),
      2,
    );
    expect(change.add.every(({ modifiedMs }) => modifiedMs === 2)).toBe(true);
    shown.apply(change);
    expect(shown.at('iqn.a:x/lun7/image')).toMatchObject({ size: GIB });
    expect(shown.at('iqn.a:x/lun0/image').inode).toBe(before);
  });

  it('name only the directory where everything below it goes as well', () => {
    const tree = new Tree(options());
    const shown = new Shown().apply(tree.update(model(), 1));
    const { inode } = shown.at('iqn.a:x');
    const change = tree.update({ targets: [] }, 2);
    expect(change).toEqual({ add: [], remove: [inode] });
    expect(tree.targetName(inode)).toBeUndefined();
    expect(Object.keys(shown.apply(change).paths()).sort()).toEqual(['metrics', 'status', 'status.json']);
  });

  it('remove the image alone where the logical unit stays but cannot be read', () => {
    const tree = new Tree(options());
    const shown = new Shown().apply(tree.update(model(), 1));
    const { inode } = shown.at('iqn.a:x/lun0/image');
    expect(tree.update(model([{ label: '0' }]), 2)).toEqual({ add: [], remove: [inode] });
    expect(tree.imageInode('iqn.a:x', '0')).toBeUndefined();
  });

  it('never give an inode away again', () => {
    const tree = new Tree(options());
    const used = new Set<number>();
    for (let round = 0; round < 5; round++) {
      for (const { inode } of tree.update(model(), round).add) {
        if (round > 0) expect(used.has(inode)).toBe(false);
        used.add(inode);
      }
      tree.update({ targets: [] }, round);
      for (const { inode } of tree.update({ targets: [] }, round).add) used.add(inode);
    }
  });

  it('make another file of another logical unit under the same number', () => {
    const tree = new Tree(options());
    const shown = new Shown().apply(tree.update(model([{ label: '0', identity: 'naa.1', ...image() }]), 1));
    const before = shown.at('iqn.a:x/lun0/image').inode;
    shown.apply(tree.update(model([{ label: '0', identity: 'naa.2', ...image() }]), 2));
    expect(shown.at('iqn.a:x/lun0/image').inode).not.toBe(before);
    expect([...shown.byInode.values()].filter(({ name }) => name === 'image')).toHaveLength(1);
  });
});

describe('one target of many', () => {
  const targets = ['iqn.a:x', 'iqn.a:y'].map((name) => ({ name, isDeferred: true, luns: [] }));

  it('has a directory with its texts before anybody has looked into it', () => {
    const shown = new Shown().apply(new Tree(options()).update({ targets }, 1));
    expect(shown.at('iqn.a:x')).toMatchObject({ kind: 'directory', isDeferred: true });
    expect(Object.keys(shown.paths()).filter((path) => path.startsWith('iqn.a:x/'))).toEqual([
      'iqn.a:x/status',
      'iqn.a:x/status.json',
    ]);
  });

  it('comes to be known under the same inode, and nothing else changes', () => {
    const tree = new Tree(options());
    const shown = new Shown().apply(tree.update({ targets }, 1));
    const before = shown.at('iqn.a:y').inode;
    const change = tree.updateTarget({ name: 'iqn.a:y', luns: [{ label: '0', ...image() }] }, 2);
    expect(change.remove).toEqual([]);
    expect(change.add.map(({ name }) => name)).toEqual([
      'iqn.a:y',
      'lun0',
      'image',
      'info',
      'info.json',
      'status',
      'status.json',
    ]);
    shown.apply(change);
    expect(shown.at('iqn.a:y').inode).toBe(before);
    expect(shown.at('iqn.a:y')).not.toHaveProperty('isDeferred');
    expect(shown.at('iqn.a:x')).toHaveProperty('isDeferred', true);
    expect(tree.imageInode('iqn.a:y', '0')).toBe(shown.at('iqn.a:y/lun0/image').inode);
    expect(tree.textSource(shown.at('iqn.a:y/lun0/info').inode)).toEqual({ file: 'info', target: 'iqn.a:y', lun: '0' });
  });

  it('loses what it has no more, with the texts of that', () => {
    const tree = new Tree(options());
    const shown = new Shown().apply(tree.update({ targets: [{ name: 'iqn.a:x', luns: [{ label: '0', ...image() }] }] }, 1));
    const { inode } = shown.at('iqn.a:x/lun0');
    const text = shown.at('iqn.a:x/lun0/info').inode;
    expect(tree.updateTarget({ name: 'iqn.a:x', luns: [] }, 2)).toEqual({ add: [], remove: [inode] });
    expect(tree.textSource(text)).toBeUndefined();
    expect(tree.imageInode('iqn.a:x', '0')).toBeUndefined();
  });

  it('does not change where a name is refused', () => {
    const tree = new Tree(options());
    tree.update({ targets }, 1);
    expect(() => tree.updateTarget({ name: 'iqn.a:x', luns: [{ label: '1' }, { label: '1' }] }, 2)).toThrow(/twice/);
    expect(() => tree.updateTarget({ name: 'metrics', luns: [] }, 2)).toThrow(/twice/);
    expect(tree.update({ targets }, 3)).toEqual({ add: [], remove: [] });
  });
});

describe('names', () => {
  it.each(['', '.', '..', 'a/b', 'a\0b', 'x'.repeat(256), 'ü'.repeat(128)])('that are unsafe are refused: %j', (name) => {
    expect(() => new Tree(options()).update({ targets: [{ name, luns: [] }] }, 1)).toThrow(RangeError);
  });

  it('that stand twice are refused, and nothing changes', () => {
    const tree = new Tree(options());
    tree.update(model(), 1);
    expect(() => tree.update(model([{ label: '1' }, { label: '1', identity: 'other' }]), 2)).toThrow(/twice/);
    expect(() => tree.update({ targets: [{ name: 'status', luns: [] }] }, 2)).toThrow(/twice/);
    expect(tree.update(model(), 3)).toEqual({ add: [], remove: [] });
  });
});
