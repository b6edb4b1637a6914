/** The pages of one image that the addon answers reads from: `PageWindow` on the addon's index. */

import type { PageWindow } from '../scsi/page-window.ts';
import type { AddonConnection } from './native-addon.ts';

/** As many hits as the addon remembers. */
const MAX_HITS = 1024;

export class NativeWindow implements PageWindow {
  readonly #connection: AddonConnection;
  readonly #inode: number;
  readonly #offsets = new Float64Array(MAX_HITS);

  constructor(connection: AddonConnection, inode: number) {
    this.#connection = connection;
    this.#inode = inode;
  }

  get hits(): number {
    return this.#connection.hits(this.#inode) ?? 0;
  }

  show(offset: number, bytes: Uint8Array): void {
    this.#connection.show(this.#inode, offset, bytes);
  }

  hide(offset: number, length: number): void {
    this.#connection.hide(this.#inode, offset, length);
  }

  takeHits(visit: (offset: number) => void): void {
    const count = this.#connection.takeHits(this.#inode, this.#offsets) ?? 0;
    for (let at = 0; at < count; at++) visit(this.#offsets[at] as number);
  }
}
