/**
 * What this machine has of RDMA, as one thing that may be there or not: its memory, its devices, and the iSER
 * transports over them. The one place that joins the native providers to the iSER data mover.
 */

import { IserfsError } from '../errors.ts';
import type { InitiatorTransport, TargetTransport } from '../iser/datamover/datamover.ts';
import type { RdmaMemory } from '../iser/rdma/provider.ts';

export interface Rdma {
  /** Whether the addon loads: then there is memory, and iwarp. */
  readonly isAvailable: boolean;
  /** Whether there is a device for verbs. */
  readonly hasDevice: boolean;
  /** Throws `unsupported`. */
  memory(): RdmaMemory;
  /** Throws `unsupported` with the reason where this machine has no such transport. `crc` is for iwarp. */
  transport(name: 'iwarp' | 'verbs', options: { readonly crc: boolean }): InitiatorTransport & TargetTransport;
}

const missing = () => new IserfsError('unsupported', 'the RDMA addon is not built', { hint: 'npm run build:native' });

export const nativeRdma: Rdma = {
  get isAvailable() {
    return false;
  },
  get hasDevice() {
    return false;
  },
  memory: () => {
    throw missing();
  },
  transport: () => {
    throw missing();
  },
};
