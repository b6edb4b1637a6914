/**
 * The bodies of text files, for a host whose kernel may keep one page cache per file. Each open renders
 * anew. Where the kernel keeps nothing (`direct`), each handle has its own body. Where it keeps pages,
 * all handles of a file see the newest body, since they see the same pages; and so that nobody reads
 * half of one and half of another, an open that comes while others are still reading joins them for as
 * long as their body is fresh. Knows no FUSE library.
 */

export interface TextBodiesOptions {
  /** The body, now. */
  render(inode: number): Promise<Uint8Array>;
  /** The kernel keeps no pages of these files. */
  readonly direct: boolean;
  /** Milliseconds, never backwards. */
  now(): number;
}

/** How long an open joins the readers that are there: so much time each has to read to the end. */
const FRESH_MS = 1000;

interface Body {
  readonly bytes: Uint8Array;
  readonly renderedMs: number;
}

interface Text {
  /** The newest. Its length is what the file's attributes say. */
  body: Body | undefined;
  rendering: Promise<Body> | undefined;
  /** Handles of which no descriptor was closed. Who has read to the end may still ask whether it is the end. */
  readonly reading: Set<number>;
}

interface TextHandle {
  readonly text: Text;
  readonly body: Body;
}

export class TextBodies {
  readonly #options: TextBodiesOptions;
  readonly #texts = new Map<number, Text>();
  readonly #handles = new Map<number, TextHandle>();

  constructor(options: TextBodiesOptions) {
    this.#options = options;
  }

  has(handle: number): boolean {
    return this.#handles.has(handle);
  }

  /** Makes the body that `handle` will read. Rejects as the rendering does. */
  async open(inode: number, handle: number): Promise<void> {
    const text = this.#text(inode);
    const body = this.#options.direct ? await this.#renderNew(inode, text) : await this.#shared(inode, text);
    this.#handles.set(handle, { text, body });
    text.reading.add(handle);
  }

  /** Up to `length` bytes from `offset`; empty at the end, undefined for a handle that is not open. */
  read(handle: number, offset: number, length: number): Uint8Array | undefined {
    const opened = this.#handles.get(handle);
    if (opened === undefined) return undefined;
    const { bytes } = this.#options.direct ? opened.body : (opened.text.body ?? opened.body);
    return bytes.subarray(offset, offset + length);
  }

  /** A descriptor of the handle was closed: as a rule the only one. */
  flushed(handle: number): void {
    this.#handles.get(handle)?.text.reading.delete(handle);
  }

  release(handle: number): void {
    this.flushed(handle);
    this.#handles.delete(handle);
  }

  /** Bytes in the newest body; renders one where there is none yet. */
  async length(inode: number): Promise<number> {
    const text = this.#text(inode);
    const body = text.body ?? (await this.#single(inode, text));
    return body.bytes.length;
  }

  /** The file has left the tree; its open handles keep what they have. */
  forget(inode: number): void {
    this.#texts.delete(inode);
  }

  #text(inode: number): Text {
    const known = this.#texts.get(inode);
    if (known !== undefined) return known;
    const text: Text = { body: undefined, rendering: undefined, reading: new Set() };
    this.#texts.set(inode, text);
    return text;
  }

  #shared(inode: number, text: Text): Promise<Body> | Body {
    const { body } = text;
    const isJoinable = body !== undefined && text.reading.size > 0 && this.#options.now() - body.renderedMs < FRESH_MS;
    return isJoinable ? body : this.#single(inode, text);
  }

  /** One rendering at a time: whoever comes meanwhile gets the same. */
  #single(inode: number, text: Text): Promise<Body> {
    text.rendering ??= this.#renderNew(inode, text).finally(() => {
      text.rendering = undefined;
    });
    return text.rendering;
  }

  async #renderNew(inode: number, text: Text): Promise<Body> {
    const bytes = await this.#options.render(inode);
    const body = { bytes, renderedMs: this.#options.now() };
    text.body = body;
    return body;
  }
}
