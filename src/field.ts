/**
 * Big-endian fields of a fixed header, declared once as a table: a field's offset and width stand in
 * its table row and nowhere else, and mask and shift follow from the width, so that they cannot
 * disagree. Knows bits and bytes, no protocol.
 */

/** One field of a header, which begins at byte `at` of the view: at its first byte, unless told otherwise. */
export interface Field<T> {
  /** First bit from the start of the header, counting the most significant bit of byte 0 as 0. */
  readonly firstBit: number;
  readonly widthBits: number;
  get(view: DataView, at?: number): T;
  /** Throws RangeError where `value` does not fit in the field. */
  set(view: DataView, value: T, at?: number): void;
}

/** The value types of a table of fields. */
export type FieldValues<L extends Record<string, Field<unknown>>> = {
  -readonly [K in keyof L]: L[K] extends Field<infer T> ? T : never;
};

/**
 * Declares a header of `length` bytes. Throws at load time where a field leaves the header or two
 * fields overlap. Bits without a field are reserved: written as zero, ignored when read.
 */
export function layout<const L extends Record<string, Field<unknown>>>(length: number, fields: L): L {
  const owner: (string | undefined)[] = [];
  for (const [name, field] of Object.entries(fields)) {
    if (field.firstBit + field.widthBits > length * 8) throw new RangeError(`field ${name} leaves the header`);
    for (let bitIndex = field.firstBit; bitIndex < field.firstBit + field.widthBits; bitIndex++) {
      const taken = owner[bitIndex];
      if (taken !== undefined) throw new RangeError(`fields ${taken} and ${name} overlap`);
      owner[bitIndex] = name;
    }
  }
  return fields;
}

/** Sets every field of the table that `values` has. */
export function setFields<L extends Record<string, Field<unknown>>>(
  fields: L,
  view: DataView,
  values: { readonly [K in keyof L]?: L[K] extends Field<infer T> ? T : never },
  at = 0,
): void {
  for (const name in fields) {
    const value = values[name];
    if (value !== undefined) (fields[name] as Field<unknown>).set(view, value, at);
  }
}

export const u8 = (offset: number): Field<number> => ({
  firstBit: offset * 8,
  widthBits: 8,
  get: (view, at = 0) => view.getUint8(at + offset),
  set: (view, value, at = 0) => view.setUint8(at + offset, checked(value, 0xff)),
});

export const u16 = (offset: number): Field<number> => ({
  firstBit: offset * 8,
  widthBits: 16,
  get: (view, at = 0) => view.getUint16(at + offset),
  set: (view, value, at = 0) => view.setUint16(at + offset, checked(value, 0xffff)),
});

export const u24 = (offset: number): Field<number> => ({
  firstBit: offset * 8,
  widthBits: 24,
  get: (view, at = 0) => view.getUint8(at + offset) * 0x10000 + view.getUint16(at + offset + 1),
  set: (view, value, at = 0) => {
    checked(value, 0xffffff);
    view.setUint8(at + offset, value >>> 16);
    view.setUint16(at + offset + 1, value & 0xffff);
  },
});

export const u32 = (offset: number): Field<number> => ({
  firstBit: offset * 8,
  widthBits: 32,
  get: (view, at = 0) => view.getUint32(at + offset),
  set: (view, value, at = 0) => view.setUint32(at + offset, checked(value, 0xffffffff)),
});

export const u48 = (offset: number): Field<number> => ({
  firstBit: offset * 8,
  widthBits: 48,
  get: (view, at = 0) => view.getUint16(at + offset) * 0x1_0000_0000 + view.getUint32(at + offset + 2),
  set: (view, value, at = 0) => {
    checked(value, 0xffff_ffff_ffff);
    view.setUint16(at + offset, Math.floor(value / 0x1_0000_0000));
    view.setUint32(at + offset + 2, value % 0x1_0000_0000);
  },
});

/** The last values are kept: a bigint is dear to make and to take apart, and one LUN after the other is the same. */
export const u64 = (offset: number): Field<bigint> => {
  const got = { value: 0n, high: 0, low: 0 };
  const put = { value: 0n, high: 0, low: 0 };
  return {
    firstBit: offset * 8,
    widthBits: 64,
    get: (view, at = 0) => {
      const high = view.getUint32(at + offset);
      const low = view.getUint32(at + offset + 4);
      if (high !== got.high || low !== got.low) {
        got.value = view.getBigUint64(at + offset);
        got.high = high;
        got.low = low;
      }
      return got.value;
    },
    set: (view, value, at = 0) => {
      if (value !== put.value) {
        if (value < 0n || value > 0xffff_ffff_ffff_ffffn) throw new RangeError(`${value} does not fit in 64 bits`);
        put.value = value;
        put.high = Number(value >> 32n);
        put.low = Number(value & 0xffff_ffffn);
      }
      view.setUint32(at + offset, put.high);
      view.setUint32(at + offset + 4, put.low);
    },
  };
};

/** Bit `position` (7 = most significant) of the byte at `offset`. */
export const bit = (offset: number, position: number): Field<boolean> => {
  const mask = 1 << position;
  return {
    firstBit: offset * 8 + (7 - position),
    widthBits: 1,
    get: (view, at = 0) => (view.getUint8(at + offset) & mask) !== 0,
    set: (view, value, at = 0) =>
      view.setUint8(at + offset, value ? view.getUint8(at + offset) | mask : view.getUint8(at + offset) & ~mask),
  };
};

/** Bits `high`..`low` (7 = most significant, both included) of the byte at `offset`. */
export const bits = (offset: number, high: number, low: number): Field<number> => {
  const widthBits = high - low + 1;
  const most = 2 ** widthBits - 1;
  const mask = most << low;
  return {
    firstBit: offset * 8 + (7 - high),
    widthBits,
    get: (view, at = 0) => (view.getUint8(at + offset) & mask) >>> low,
    set: (view, value, at = 0) =>
      view.setUint8(at + offset, (view.getUint8(at + offset) & ~mask) | (checked(value, most) << low)),
  };
};

/** The `widthBits` least significant bits (1 to 31) of the 32-bit word at `offset`: for widths that are no whole bytes and cross some. */
export const lowBits = (offset: number, widthBits: number): Field<number> => {
  const most = 2 ** widthBits - 1;
  return {
    firstBit: offset * 8 + 32 - widthBits,
    widthBits,
    get: (view, at = 0) => view.getUint32(at + offset) & most,
    set: (view, value, at = 0) =>
      view.setUint32(at + offset, ((view.getUint32(at + offset) & ~most) | checked(value, most)) >>> 0),
  };
};

/** `length` raw bytes. `get` returns a view into the header, not a copy; `set` zero-fills what `value` does not cover. */
export const bytes = (offset: number, length: number): Field<Uint8Array> => ({
  firstBit: offset * 8,
  widthBits: length * 8,
  get: (view, at = 0) => new Uint8Array(view.buffer, view.byteOffset + at + offset, length),
  set: (view, value, at = 0) => {
    if (value.length > length) throw new RangeError(`${value.length} bytes do not fit in ${length}`);
    for (let index = 0; index < value.length; index++) view.setUint8(at + offset + index, value[index] ?? 0);
    for (let index = value.length; index < length; index++) view.setUint8(at + offset + index, 0);
  },
});

/** `length` bytes of ASCII, padded with spaces; `get` strips trailing spaces and NULs. */
export const ascii = (offset: number, length: number): Field<string> => ({
  firstBit: offset * 8,
  widthBits: length * 8,
  get: (view, at = 0) => {
    let text = '';
    for (let index = 0; index < length; index++) text += String.fromCharCode(view.getUint8(at + offset + index));
    return text.replace(/[\0 ]+$/, '');
  },
  set: (view, value, at = 0) => {
    if (value.length > length) throw new RangeError(`"${value}" is longer than ${length} characters`);
    for (let index = 0; index < length; index++) {
      view.setUint8(at + offset + index, index < value.length ? value.charCodeAt(index) & 0x7f : 0x20);
    }
  },
});

/** A DataView over exactly the bytes of `data`. */
export function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

function checked(value: number, most: number): number {
  if (!Number.isInteger(value) || value < 0 || value > most) throw new RangeError(`${value} is not in 0..${most}`);
  return value;
}
