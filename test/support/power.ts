import { IserfsError } from '../../src/errors.ts';
import type { Medium } from '../../src/scsi/medium.ts';

/** A medium over an array that keeps its contents when the power goes, and takes no more. */
export class Power implements Medium {
  readonly readOnly = false;
  readonly isVolatile = false;
  readonly isThin: boolean;
  isOn = true;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array, options: { readonly isThin?: boolean | undefined } = {}) {
    this.#bytes = bytes;
    this.isThin = options.isThin ?? false;
  }

  get size(): number {
    return this.#bytes.length;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    into.set(this.#bytes.subarray(offset, offset + into.length));
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    if (!this.isOn) throw new IserfsError('medium-error', 'the power is off');
    this.#bytes.set(from, offset);
  }

  async flush(): Promise<void> {}

  async discard(offset: number, length: number): Promise<void> {
    await this.write(offset, new Uint8Array(length));
  }

  async resize(): Promise<void> {}

  async close(): Promise<void> {}
}
