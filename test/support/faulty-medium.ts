/** A medium whose faults, delays and calls a test decides. */

import { type ErrorCode, IserfsError } from '../../src/errors.ts';
import type { Medium, MediumExtent } from '../../src/scsi/medium.ts';

export type MediumCall = 'read' | 'write' | 'flush' | 'discard';

export class FaultyMedium implements Medium {
  readonly #medium: Medium;
  /** What was called, in order: `write 4096+512 fua`. */
  readonly calls: string[] = [];
  /** Returns how a call fails; undefined lets it pass. Ranges are in bytes. */
  fault: (call: MediumCall, start: number, end: number) => ErrorCode | Error | undefined = () => undefined;
  /** Awaited before a call reaches the medium. */
  delay: (call: MediumCall) => Promise<void> = () => Promise.resolve();
  isVolatile: boolean;
  readonly isThin: boolean;
  readOnly = false;
  readonly extentAt?: (offset: number, length: number) => Promise<MediumExtent>;

  /** `isThin: false`: a medium that gives no space back and knows no holes. */
  constructor(medium: Medium, options: { readonly isVolatile?: boolean; readonly isThin?: boolean } = {}) {
    this.#medium = medium;
    this.isVolatile = options.isVolatile ?? medium.isVolatile;
    this.isThin = options.isThin ?? medium.isThin;
    if (this.isThin)
      this.extentAt = async (offset, length) => (await medium.extentAt?.(offset, length)) ?? { length, mapped: true };
  }

  get size(): number {
    return this.#medium.size;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    await this.#enter('read', offset, into.length);
    await this.#medium.read(offset, into);
  }

  async write(offset: number, from: Uint8Array, options?: { readonly fua?: boolean }): Promise<void> {
    await this.#enter('write', offset, from.length, options?.fua === true ? ' fua' : '');
    await this.#medium.write(offset, from, options);
  }

  async flush(): Promise<void> {
    await this.#enter('flush', 0, 0);
    await this.#medium.flush();
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.#enter('discard', offset, length);
    await this.#medium.discard(offset, length);
  }

  resize(size: number): Promise<void> {
    return this.#medium.resize(size);
  }

  close(): Promise<void> {
    return this.#medium.close();
  }

  async #enter(call: MediumCall, offset: number, length: number, note = ''): Promise<void> {
    this.calls.push(call === 'flush' ? call : `${call} ${offset}+${length}${note}`);
    await this.delay(call);
    const fault = this.fault(call, offset, offset + length);
    if (fault === undefined) return;
    throw typeof fault === 'string' ? new IserfsError(fault, `injected fault at ${offset}`) : fault;
  }
}
