/**
 * What this machine has of RDMA, as one thing that may be there or not: its memory, its devices, and the iSER
 * transports over them. The one place that joins the native providers to the iSER data mover.
 */

import type { InitiatorTransport, TargetTransport } from '../iser/datamover/datamover.ts';
import { createIserTransport } from '../iser/datamover/iser.ts';
import { isRdmaAvailable, iwarpProvider, rdmaMemory, verbsDevices, verbsProvider } from '../iser/rdma/native-provider.ts';
import type { RdmaMemory } from '../iser/rdma/provider.ts';
import { lockableBytes } from './locked-memory.ts';

export interface Rdma {
  /** Whether the addon loads: then there is memory, and iwarp. */
  readonly isAvailable: boolean;
  /** Whether there is a device for verbs. */
  readonly hasDevice: boolean;
  /** Bytes that this process may register with a device. */
  readonly lockableBytes: number;
  /** Throws `unsupported`. */
  memory(): RdmaMemory;
  /** Throws `unsupported` with the reason where this machine has no such transport. `crc` is for iwarp. */
  transport(name: 'iwarp' | 'verbs', options: { readonly crc: boolean }): InitiatorTransport & TargetTransport;
}

export const nativeRdma: Rdma = {
  get isAvailable() {
    return isRdmaAvailable();
  },
  get hasDevice() {
    return verbsDevices().length > 0;
  },
  get lockableBytes() {
    return lockableBytes();
  },
  memory: rdmaMemory,
  transport: (name, { crc }) => createIserTransport(name === 'verbs' ? verbsProvider() : iwarpProvider(), { crc }),
};
