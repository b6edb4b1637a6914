/** A `BlockDevice` in memory whose reads and writes end when a test says so, or at once. */

import type { BlockDevice, BlockDeviceInfo } from '../../src/scsi/block-device.ts';

export interface DeviceCall {
  readonly kind: 'read' | 'write' | 'zero';
  readonly offset: number;
  readonly length: number;
  /** Takes effect and ends. */
  finish(): void;
  /** Ends without an effect. */
  fail(error: Error): void;
}

export class MemoryDevice implements BlockDevice {
  bytes: Uint8Array;
  readonly calls: DeviceCall[] = [];
  /** While true, calls wait in `pending` until they are finished by hand. */
  holds = false;
  readonly pending: DeviceCall[] = [];

  /** Every byte tells its place: 251 is prime, so that no two places nearby look alike. */
  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    for (let index = 0; index < size; index++) this.bytes[index] = (index + Math.floor(index / 251)) % 251;
  }

  get info(): BlockDeviceInfo {
    return { size: this.bytes.length, blockLength: 512, writeProtected: false, volatileCache: false };
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#call('read', offset, into.length, () => into.set(this.bytes.subarray(offset, offset + into.length)));
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    return this.#call('write', offset, from.length, () => this.bytes.set(from, offset));
  }

  zero(offset: number, length: number): Promise<void> {
    return this.#call('zero', offset, length, () => this.bytes.fill(0, offset, offset + length));
  }

  async flush(): Promise<void> {}

  #call(kind: DeviceCall['kind'], offset: number, length: number, effect: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = () => {
        const index = this.pending.indexOf(call);
        if (index >= 0) this.pending.splice(index, 1);
      };
      const call: DeviceCall = {
        kind,
        offset,
        length,
        finish: () => {
          end();
          effect();
          resolve();
        },
        fail: (error) => {
          end();
          reject(error);
        },
      };
      this.calls.push(call);
      if (this.holds) this.pending.push(call);
      else call.finish();
    });
  }
}
