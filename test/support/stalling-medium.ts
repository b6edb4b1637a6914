import type { Medium } from '../../src/scsi/medium.ts';

/** A medium whose writes wait, from `stall()` to `resume()`: like a disk that retries for half a minute. */
export class StallingMedium implements Medium {
  readonly #medium: Medium;
  #stalled: Promise<void> | undefined;
  #resume: () => void = () => {};
  /** Writes that have been asked for and have not ended. */
  writesUnderWay = 0;

  /** Takes `medium`. */
  constructor(medium: Medium) {
    this.#medium = medium;
  }

  stall(): void {
    this.#stalled = new Promise((resolve) => {
      this.#resume = resolve;
    });
  }

  /** Lets the waiting writes, and all later ones, go on. */
  resume(): void {
    this.#stalled = undefined;
    this.#resume();
  }

  get size(): number {
    return this.#medium.size;
  }

  get readOnly(): boolean {
    return this.#medium.readOnly;
  }

  get isVolatile(): boolean {
    return this.#medium.isVolatile;
  }

  get isThin(): boolean {
    return this.#medium.isThin;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#medium.read(offset, into);
  }

  async write(offset: number, from: Uint8Array, options?: { readonly fua?: boolean }): Promise<void> {
    this.writesUnderWay++;
    try {
      await this.#stalled;
      await this.#medium.write(offset, from, options);
    } finally {
      this.writesUnderWay--;
    }
  }

  flush(): Promise<void> {
    return this.#medium.flush();
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#medium.discard(offset, length);
  }

  resize(size: number): Promise<void> {
    return this.#medium.resize(size);
  }

  close(): Promise<void> {
    return this.#medium.close();
  }
}
