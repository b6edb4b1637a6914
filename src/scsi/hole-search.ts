/**
 * lseek(2) with SEEK_DATA and SEEK_HOLE over what a device says of its extents. One answer of a device
 * describes a large range, and programs that copy sparse files ask for every piece of it: so the last
 * answer is kept, as long as nothing is written and nothing of the device has changed, by the same rule as the pages of the
 * cache, and not at all where others write to the device. Whatever is not known is data: that is always
 * true enough. Knows no SCSI.
 */

import type { BlockDevice, DeviceExtent } from './block-device.ts';

/** Answers that one search asks for: a device that describes little with each shall not keep it busy for ever. */
const MOST_ANSWERS = 64;

export class HoleSearch {
  readonly #device: Pick<BlockDevice, 'info' | 'extentsFrom'>;
  readonly #keeps: () => boolean;
  /** Ascending, without gaps. */
  #known: readonly DeviceExtent[] = [];
  /** Changes with each `forget`: an answer that was under way then is not kept. */
  #generation = 0;

  /** `keeps`: whether an answer to what is asked now may be kept: nobody else writes to the device, and it has all that `forget` was called for. */
  constructor(device: Pick<BlockDevice, 'info' | 'extentsFrom'>, options: { readonly keeps: () => boolean }) {
    this.#device = device;
    this.#keeps = options.keeps;
  }

  /** To be called when a write is acknowledged, and when anything else of the device may have changed. */
  forget(): void {
    this.#generation++;
    this.#known = [];
  }

  /** The first place from `offset` on that is in data, or in a hole, which the end of the device counts as. Undefined where there is none. */
  async seek(offset: number, what: 'data' | 'hole', signal?: AbortSignal): Promise<number | undefined> {
    const { size } = this.#device.info;
    if (offset >= size) return undefined;
    let at = offset;
    let extents = this.#known;
    for (let answers = 0; at < size; ) {
      const extent = find(extents, at);
      if (extent === undefined) {
        if (answers++ === MOST_ANSWERS) return what === 'data' ? at : size;
        extents = await this.#ask(at, size, signal);
        continue;
      }
      if (extent.isHole === (what === 'hole')) return at;
      at = extent.offset + extent.length;
    }
    return what === 'data' ? undefined : size;
  }

  async #ask(at: number, size: number, signal: AbortSignal | undefined): Promise<readonly DeviceExtent[]> {
    const generation = this.#generation;
    const keeps = this.#keeps();
    const extents = (await this.#device.extentsFrom?.(at, signal === undefined ? {} : { signal })) ?? [];
    if (find(extents, at) === undefined) return [{ offset: at, length: size - at, isHole: false }];
    if (keeps && generation === this.#generation) this.#known = extents;
    return extents;
  }
}

function find(extents: readonly DeviceExtent[], at: number): DeviceExtent | undefined {
  let low = 0;
  let high = extents.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const extent = extents[middle];
    if (extent === undefined || extent.offset > at) high = middle;
    else if (extent.offset + extent.length > at) return extent;
    else low = middle + 1;
  }
  return undefined;
}
