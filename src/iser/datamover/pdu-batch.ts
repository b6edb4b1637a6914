/**
 * PDUs to the segments that go on the wire in one write: headers, digests and short data segments are put
 * one after the other into memory of the batch's own, so that a system call takes few vectors; long data
 * segments are passed on as they lie. Sans-I/O; what a PDU means is nobody's affair here.
 */

import { crc32c } from '../iscsi/digest.ts';
import { BHS_LENGTH, encodeBhsInto, type Pdu } from '../iscsi/pdu.ts';

/** Which digests follow header and data segments; none during login (RFC 7143 §11.2.3). */
export interface Digests {
  readonly header: boolean;
  readonly data: boolean;
}

export const NO_DIGESTS: Digests = { header: false, data: false };

/** Data segments up to this length are copied beside their headers, which costs less than a vector of their own. */
export const JOINED_LENGTH = 8192;
/** Memory for what is copied. A batch is full when the next PDU might not fit. */
const SCRATCH_LENGTH = 256 * 1024;
/** The most that one PDU takes of it: header, digests, padding, and the data where that is copied. */
const MOST_COPIED = BHS_LENGTH + 255 * 4 + 4 + JOINED_LENGTH + 3 + 4;
/** Kept when no batch needs them: most connections have nothing to write at most times. */
const SPARE_BATCHES = 4;

export class PduBatch {
  static readonly #spares: PduBatch[] = [];
  readonly #scratch: Uint8Array;
  readonly #view: DataView;
  /** Bytes of the scratch that are taken, and where those begin that are in no segment yet. */
  #used = 0;
  #runStart = 0;
  #segments: Uint8Array[] = [];
  #length = 0;

  /** An empty batch, to be given back by `release()`. */
  static take(): PduBatch {
    return PduBatch.#spares.pop() ?? new PduBatch(new Uint8Array(SCRATCH_LENGTH));
  }

  /** An empty batch in memory of the caller's. */
  constructor(scratch: Uint8Array) {
    this.#scratch = scratch;
    this.#view = new DataView(scratch.buffer, scratch.byteOffset, scratch.length);
  }

  /** Bytes of all PDUs. */
  get length(): number {
    return this.#length;
  }

  get isFull(): boolean {
    return this.#used + MOST_COPIED > this.#scratch.length;
  }

  /**
   * Appends a PDU. Its data segment, where it is long, is borrowed as long as the segments are. Throws RangeError where a
   * value does not fit in its field, or where the batch is full; it must not be used then.
   */
  add(pdu: Pdu, digests: Digests): void {
    const start = this.#used;
    this.#addHeader(pdu, digests.header);
    const { data } = pdu;
    if (data.length > 0) this.#addData(data, digests.data);
    this.#length += this.#used - start + (data.length > JOINED_LENGTH ? data.length : 0);
  }

  /** What goes on the wire, in order. Nothing may be added afterwards. */
  get segments(): readonly Uint8Array[] {
    this.#endRun();
    return this.#segments;
  }

  /** Nobody refers to the segments any more. It must not be used afterwards. */
  release(): void {
    if (PduBatch.#spares.length >= SPARE_BATCHES) return;
    this.#used = 0;
    this.#runStart = 0;
    this.#segments = [];
    this.#length = 0;
    PduBatch.#spares.push(this);
  }

  #addHeader(pdu: Pdu, withDigest: boolean): void {
    const start = this.#used;
    const { ahs } = pdu;
    for (let at = start; at < start + BHS_LENGTH; at += 8) this.#view.setFloat64(at, 0);
    encodeBhsInto(pdu, this.#view, start);
    if (ahs.length > 0) this.#scratch.set(ahs, start + BHS_LENGTH);
    this.#used += BHS_LENGTH + ahs.length;
    if (withDigest) this.#addDigest(crc32c(this.#scratch.subarray(start, this.#used)));
  }

  /** Segments are padded to a multiple of 4 bytes (RFC 7143 §11.1). */
  #addData(data: Uint8Array, withDigest: boolean): void {
    if (data.length <= JOINED_LENGTH) {
      this.#scratch.set(data, this.#used);
      this.#used += data.length;
    } else {
      this.#endRun();
      this.#segments.push(data);
    }
    const start = this.#used;
    for (let count = paddingOf(data.length); count > 0; count--) this.#scratch[this.#used++] = 0;
    if (withDigest) this.#addDigest(crc32c(this.#scratch.subarray(start, this.#used), crc32c(data)));
  }

  #addDigest(crc: number): void {
    this.#view.setUint32(this.#used, crc, true);
    this.#used += 4;
  }

  #endRun(): void {
    if (this.#used > this.#runStart) this.#segments.push(this.#scratch.subarray(this.#runStart, this.#used));
    this.#runStart = this.#used;
  }
}

/** The segments of one PDU in memory of their own, except for a long data segment, which is passed on as it lies. */
export function encodePdu(pdu: Pdu, digests: Digests): readonly Uint8Array[] {
  const batch = new PduBatch(new Uint8Array(MOST_COPIED));
  batch.add(pdu, digests);
  return batch.segments;
}

/** Bytes that follow a data segment of `length` bytes to fill its last word (RFC 7143 §11.1). */
export function paddingOf(length: number): number {
  return -length & 3;
}
