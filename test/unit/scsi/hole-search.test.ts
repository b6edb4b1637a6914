import { describe, expect, it } from 'vitest';
import type { DeviceExtent } from '../../../src/scsi/block-device.ts';
import { HoleSearch } from '../../../src/scsi/hole-search.ts';

/** A device of `size` bytes whose answers, `perAnswer` extents each, are counted. */
class Mapped {
  asked = 0;
  extents: readonly DeviceExtent[];
  perAnswer = Number.POSITIVE_INFINITY;
  /** Called while an answer is under way. */
  meanwhile = () => {};

  /** `map`: a letter for each 1000 bytes, `d` data and `h` a hole. */
  constructor(map: string) {
    this.extents = [...map].map((letter, index) => ({ offset: index * 1000, length: 1000, isHole: letter === 'h' }));
  }

  get info() {
    return { size: this.extents.length * 1000, blockLength: 500, writeProtected: false, volatileCache: false };
  }

  async extentsFrom(offset: number): Promise<readonly DeviceExtent[]> {
    this.asked++;
    const first = Math.floor(offset / 1000);
    const answer = this.extents.slice(first, first + this.perAnswer);
    this.meanwhile();
    return answer;
  }
}

const search = (device: Mapped, keeps = true) => new HoleSearch(device, { keeps: () => keeps });

describe('a search', () => {
  it.each([
    ['data', 0, 2000],
    ['data', 1999, 2000],
    ['data', 2500, 2500],
    ['data', 4000, 5000],
    ['data', 6000, undefined],
    ['hole', 0, 0],
    ['hole', 1500, 1500],
    ['hole', 2000, 4000],
    ['hole', 5999, 6000],
    ['hole', 7999, 7999],
    ['data', 8000, undefined],
    ['hole', 8000, undefined],
  ] as const)('for %s from %i on finds %s', async (what, offset, found) => {
    expect(await search(new Mapped('hhddhdhh')).seek(offset, what)).toBe(found);
  });

  it('takes the end for a hole', async () => {
    expect(await search(new Mapped('hdd')).seek(1000, 'hole')).toBe(3000);
  });

  it('asks on where an answer ends', async () => {
    const device = new Mapped('hhhhd');
    device.perAnswer = 2;
    expect(await search(device).seek(0, 'data')).toBe(4000);
    expect(device.asked).toBe(3);
  });

  it('takes everything for data where the device never comes to an end', async () => {
    const device = new Mapped(`${'h'.repeat(100)}d`);
    device.perAnswer = 1;
    expect(await search(device).seek(0, 'data')).toBe(64_000);
    const full = new Mapped(`${'d'.repeat(100)}h`);
    full.perAnswer = 1;
    expect(await search(full).seek(0, 'hole')).toBe(101_000);
  });

  it('finds data only where the device tells nothing', async () => {
    const { info } = new Mapped('hh');
    const holes = new HoleSearch({ info }, { keeps: () => true });
    expect([await holes.seek(5, 'data'), await holes.seek(5, 'hole')]).toEqual([5, 2000]);
  });
});

describe('the last answer', () => {
  it('serves all that come after it', async () => {
    const device = new Mapped('hdhdhdhd');
    const holes = search(device);
    for (let at: number | undefined = 0, turn = 0; at !== undefined && turn < 20; turn++) {
      at = await holes.seek(at, turn % 2 === 0 ? 'data' : 'hole');
    }
    expect(device.asked).toBe(1);
  });

  it('is forgotten when something was written', async () => {
    const device = new Mapped('hh');
    const holes = search(device);
    expect(await holes.seek(0, 'data')).toBeUndefined();
    device.extents = new Mapped('hd').extents;
    holes.forget();
    expect(await holes.seek(0, 'data')).toBe(1000);
  });

  it('is not kept where something was written while it was under way', async () => {
    const device = new Mapped('hh');
    const holes = search(device);
    device.meanwhile = () => holes.forget();
    await holes.seek(0, 'data');
    await holes.seek(0, 'data');
    expect(device.asked).toBe(2);
  });

  it('is not kept of a time when the device did not have all that was acknowledged', async () => {
    const device = new Mapped('hh');
    let hasAll = false;
    const holes = new HoleSearch(device, { keeps: () => hasAll });
    device.meanwhile = () => {
      hasAll = true;
    };
    await holes.seek(0, 'data');
    await holes.seek(0, 'data');
    await holes.seek(0, 'data');
    expect(device.asked).toBe(2);
  });

  it('is never kept where others write to the device', async () => {
    const device = new Mapped('hh');
    const holes = search(device, false);
    await holes.seek(0, 'data');
    await holes.seek(0, 'data');
    expect(device.asked).toBe(2);
  });
});
