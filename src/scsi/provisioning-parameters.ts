/**
 * Parameter data of the commands about space (SBC): the list that UNMAP sends and what GET LBA STATUS
 * answers, both ways. Pure; knows no device.
 */

import { viewOf } from '../field.ts';
import type { BlockRun } from './block-range.ts';

const UNMAP_HEADER = 8;
const UNMAP_DESCRIPTOR = 16;

/** The parameter list of UNMAP: 8 bytes of lengths, then descriptors of LBA, block count and 4 reserved bytes. */
export function encodeUnmapList(runs: readonly BlockRun[]): Uint8Array {
  const list = new Uint8Array(UNMAP_HEADER + runs.length * UNMAP_DESCRIPTOR);
  const view = viewOf(list);
  view.setUint16(0, list.length - 2);
  view.setUint16(2, list.length - UNMAP_HEADER);
  for (const [index, { lba, blocks }] of runs.entries()) {
    const offset = UNMAP_HEADER + index * UNMAP_DESCRIPTOR;
    view.setBigUint64(offset, BigInt(lba));
    view.setUint32(offset + 8, blocks);
  }
  return list;
}

/** The whole descriptors that the list holds. Undefined where it is too short for its own header. */
export function decodeUnmapList(list: Uint8Array): { readonly lba: number; readonly blocks: number }[] | undefined {
  if (list.length < UNMAP_HEADER) return undefined;
  const view = viewOf(list);
  const end = Math.min(list.length, UNMAP_HEADER + view.getUint16(2));
  const runs: { readonly lba: number; readonly blocks: number }[] = [];
  for (let offset = UNMAP_HEADER; offset + UNMAP_DESCRIPTOR <= end; offset += UNMAP_DESCRIPTOR) {
    runs.push({ lba: Number(view.getBigUint64(offset)), blocks: view.getUint32(offset + 8) });
  }
  return runs;
}

/** PROVISIONING STATUS. Newer standards have more values; all of them may mean that there is data. */
export const ProvisioningStatus = { mapped: 0, deallocated: 1, anchored: 2 } as const;

/** One descriptor of GET LBA STATUS. */
export interface LbaStatus extends BlockRun {
  readonly status: number;
}

const STATUS_HEADER = 8;
const STATUS_DESCRIPTOR = 16;

/** The allocation length that has room for so many descriptors. */
export const lbaStatusLength = (descriptors: number): number => STATUS_HEADER + descriptors * STATUS_DESCRIPTOR;

/** How many descriptors an allocation length has room for. */
export const lbaStatusRoom = (allocationLength: number): number =>
  Math.max(0, Math.floor((allocationLength - STATUS_HEADER) / STATUS_DESCRIPTOR));

export function encodeLbaStatus(statuses: readonly LbaStatus[]): Uint8Array {
  const data = new Uint8Array(lbaStatusLength(statuses.length));
  const view = viewOf(data);
  view.setUint32(0, data.length - 4);
  for (const [index, { lba, blocks, status }] of statuses.entries()) {
    const offset = STATUS_HEADER + index * STATUS_DESCRIPTOR;
    view.setBigUint64(offset, BigInt(lba));
    view.setUint32(offset + 8, blocks);
    view.setUint8(offset + 12, status);
  }
  return data;
}

/** The whole descriptors that the data holds, as they stand there. */
export function decodeLbaStatus(data: Uint8Array): LbaStatus[] {
  if (data.length < STATUS_HEADER) return [];
  const view = viewOf(data);
  const end = Math.min(data.length, 4 + view.getUint32(0));
  const statuses: LbaStatus[] = [];
  for (let offset = STATUS_HEADER; offset + STATUS_DESCRIPTOR <= end; offset += STATUS_DESCRIPTOR) {
    statuses.push({
      lba: Number(view.getBigUint64(offset)),
      blocks: view.getUint32(offset + 8),
      status: view.getUint8(offset + 12) & 0x0f,
    });
  }
  return statuses;
}
