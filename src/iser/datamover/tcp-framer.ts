/**
 * Bytes of a TCP connection to PDUs: basic and additional header segments, padding, header and data
 * digests (RFC 7143 §11.2); `pdu-batch.ts` is the way back. Sans-I/O, in pull style: `nextBuffer()` names where the next bytes go
 * and `filled()` says how many came, so that a large payload is received straight into the buffer of its
 * task and copied nowhere. It knows neither sockets nor tasks: a sink names the place of each payload.
 *
 * What it checks is form: opcode and direction, segment lengths, digests. Numbering and offsets are the
 * sequencers' affair, who see every header before its data.
 */

import { ProtocolError } from '../../errors.ts';
import { viewOf } from '../../field.ts';
import { crc32c, encodeDigest } from '../iscsi/digest.ts';
import {
  ahsLengthOf,
  BHS_LENGTH,
  dataSegmentLengthOf,
  decodeAhs,
  decodeBhs,
  NO_BYTES,
  type OpcodeName,
  opcodeName,
  opcodeOf,
  type Pdu,
} from '../iscsi/pdu.ts';
import { type Digests, NO_DIGESTS, paddingOf } from './pdu-batch.ts';

/** Largest data segment while no other value was negotiated, as in the login phase (RFC 7143 §13.12). */
export const LOGIN_DATA_SEGMENT_LENGTH = 8192;

/** Payloads with at least this much to come are received straight into their place. */
export const DIRECT_PLACEMENT_LENGTH = 8192;

/**
 * What one read takes where nothing is placed directly. A buffer lies ready for as long as the connection lasts, and
 * of a thousand connections most are idle: so it is small, and large while reads fill the small one, when many PDUs come at once.
 */
const SMALL_READ_LENGTH = 4096;
const LARGE_READ_LENGTH = 64 * 1024;
/** After so many reads in a row that would have fitted a small buffer it is small again. */
const SMALL_READS = 16;
/** Header segments and header digest at their longest. */
const LONGEST_HEADER = BHS_LENGTH + 255 * 4 + 4;
/** Up to 3 bytes of padding and a digest. */
const LONGEST_TRAILER = 3 + 4;

/**
 * Where a data segment goes: into exactly as many bytes of the sink's, into memory of the reader's own
 * that is lent to `receive`, or nowhere.
 */
export type Placement = Uint8Array | 'lend' | 'discard';

export interface PduSink {
  /**
   * The header of a PDU has come and `length` bytes of data follow. `header.data` is empty. What is not
   * acceptable throws here, before a byte of it is placed.
   */
  begin(header: Pdu, length: number): Placement;
  /** The PDU is complete and its digests are good. `pdu` and its segments are borrowed until the call returns. */
  receive(pdu: Pdu): void;
}

/** The receiving half. After it has thrown, it must not be used any more. */
export class PduReader {
  readonly #sink: PduSink;
  readonly #peer: 'initiator' | 'target';
  #digests = NO_DIGESTS;
  #longestData = LOGIN_DATA_SEGMENT_LENGTH;

  /** A buffer of its own, and how long it is to be. */
  #ownBuffer = new Uint8Array(SMALL_READ_LENGTH);
  #ownLength = SMALL_READ_LENGTH;
  #smallReads = 0;
  /** Another payload is likely: what comes of it in a buffer of its own is copied, so that is short. */
  #isAfterPayload = false;
  /** What `nextBuffer` and `furtherBuffer` returned last, up to `filled`. */
  #armed: Uint8Array = NO_BYTES;
  #further: Uint8Array = NO_BYTES;
  #isArmedDirect = false;
  /** Received but not looked at yet, because of a pause. */
  #waiting: Uint8Array = NO_BYTES;
  #isPaused = false;

  #phase: 'header' | 'data' | 'trailer' = 'header';
  readonly #header = new Uint8Array(LONGEST_HEADER);
  readonly #headerView = viewOf(this.#header);
  #ahsLength = 0;
  #headerHave = 0;
  #headerNeed = BHS_LENGTH;
  #pdu: Pdu | undefined;
  #dataLength = 0;
  #dataHave = 0;
  /** Undefined: the data is discarded. */
  #place: Uint8Array | undefined;
  /** The data is lent as it lies in what was received. */
  #isInPlace = false;
  /** Whether the place is the sink's own. */
  #isSinkPlace = false;
  #crc = 0;
  readonly #trailer = new Uint8Array(LONGEST_TRAILER);
  #trailerHave = 0;
  #trailerNeed = 0;

  /** `peer` is the role of who sends: its opcodes are the ones that are taken. */
  constructor(peer: 'initiator' | 'target', sink: PduSink) {
    this.#peer = peer;
    this.#sink = sink;
  }

  /** Takes effect with the next PDU. `longestData` is the MaxRecvDataSegmentLength that we declared. */
  configure(digests: Digests, longestData: number): void {
    this.#digests = digests;
    this.#longestData = longestData;
  }

  /** Whether part of a PDU has come: a peer that closes now breaks off in the middle. */
  get isWithinPdu(): boolean {
    return this.#phase !== 'header' || this.#headerHave > 0 || this.#waiting.length > 0;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** No PDU is looked at after the present one, until `resume()`; whoever feeds bytes stops as well. */
  pause(): void {
    this.#isPaused = true;
  }

  /** Looks at what has waited. It may pause again: look at `isPaused` before feeding more. */
  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    const waiting = this.#waiting;
    this.#waiting = NO_BYTES;
    this.#consume(waiting, waiting.length);
  }

  /** Where the next bytes go; never empty. Not while it is paused; and nothing but `furtherBuffer()` is called between this and `filled()`. */
  nextBuffer(): Uint8Array {
    const remaining = this.#dataLength - this.#dataHave;
    this.#isArmedDirect = this.#phase === 'data' && this.#place !== undefined && remaining >= DIRECT_PLACEMENT_LENGTH;
    if (this.#isArmedDirect) this.#armed = (this.#place as Uint8Array).subarray(this.#dataHave, this.#dataLength);
    else this.#armed = this.#ownBytes(this.#isAfterPayload ? SMALL_READ_LENGTH : this.#ownLength);
    this.#isAfterPayload = this.#isArmedDirect;
    return this.#armed;
  }

  /**
   * Where those go that come behind a full `nextBuffer()`: behind a payload there is a buffer of its own, which saves a call of
   * the system for the next header.
   */
  furtherBuffer(): Uint8Array | undefined {
    if (!this.#isArmedDirect) return undefined;
    this.#further = this.#ownBytes(SMALL_READ_LENGTH);
    return this.#further;
  }

  /** `count` bytes are there. Calls the sink. Throws `ProtocolError`. */
  filled(count: number): void {
    const armed = this.#armed;
    const further = this.#further;
    this.#armed = NO_BYTES;
    this.#further = NO_BYTES;
    const arrived = Math.min(count, armed.length);
    if (this.#isArmedDirect) {
      this.#isArmedDirect = false;
      this.#dataArrived(armed, 0, arrived);
      if (this.#phase === 'trailer' && this.#trailerNeed === 0) this.#complete();
      if (count > armed.length) this.#take(further, count - armed.length);
    } else {
      if (armed.length === this.#ownLength) this.#fitOwnLength(count);
      this.#take(armed, arrived);
    }
  }

  /** Takes bytes that lie elsewhere, borrowed until the call returns unless it pauses. Calls the sink. Throws `ProtocolError`. */
  receive(chunk: Uint8Array): void {
    this.#take(chunk, chunk.length);
  }

  /** What is still to come of the data that the sink placed for task `itt` goes nowhere. */
  discardData(itt: number): void {
    if (this.#pdu?.itt !== itt || this.#place === undefined || !this.#isSinkPlace) return;
    this.#place = undefined;
    this.#pdu = withData(this.#pdu, NO_BYTES);
  }

  /** Drops every reference to memory that is not its own. It must not be used afterwards. */
  release(): void {
    this.#place = undefined;
    this.#pdu = undefined;
    this.#armed = NO_BYTES;
    this.#further = NO_BYTES;
    this.#isArmedDirect = false;
    this.#waiting = NO_BYTES;
    this.#isPaused = true;
  }

  /** The first bytes of its own buffer, at most `length` of them. */
  #ownBytes(length: number): Uint8Array {
    if (this.#ownBuffer.length !== this.#ownLength) this.#ownBuffer = new Uint8Array(this.#ownLength);
    return length < this.#ownLength ? this.#ownBuffer.subarray(0, length) : this.#ownBuffer;
  }

  /** Chooses how long its own buffer is next after one took `count` bytes. */
  #fitOwnLength(count: number): void {
    if (count === this.#ownLength) this.#ownLength = LARGE_READ_LENGTH;
    this.#smallReads = count < SMALL_READ_LENGTH ? this.#smallReads + 1 : 0;
    if (this.#smallReads < SMALL_READS) return;
    this.#smallReads = 0;
    this.#ownLength = SMALL_READ_LENGTH;
  }

  /** Takes the first `end` bytes of `chunk`. */
  #take(chunk: Uint8Array, end: number): void {
    if (this.#waiting.length === 0) {
      this.#consume(chunk, end);
      return;
    }
    const joined = new Uint8Array(this.#waiting.length + end);
    joined.set(this.#waiting);
    joined.set(chunk.subarray(0, end), this.#waiting.length);
    this.#waiting = joined;
  }

  #consume(chunk: Uint8Array, end: number): void {
    let at = 0;
    while (at < end) {
      if (this.#isPaused) {
        this.#waiting = chunk.subarray(at, end);
        this.#isInPlace = false;
        return;
      }
      switch (this.#phase) {
        case 'header':
          at += this.#consumeHeader(chunk, at, end);
          break;
        case 'data':
          at += this.#consumeData(chunk, at, end);
          break;
        case 'trailer':
          at += this.#consumeTrailer(chunk, at, end);
          break;
      }
      if (this.#phase === 'trailer' && this.#trailerHave === this.#trailerNeed) this.#complete();
    }
  }

  #consumeHeader(chunk: Uint8Array, at: number, end: number): number {
    const have = this.#headerHave;
    const count = Math.min(end - at, this.#headerNeed - have);
    for (let index = 0; index < count; index++) this.#header[have + index] = chunk[at + index] as number;
    // Whatever is not iSCSI at all is found out by its first byte, however little of it comes.
    if (have === 0 && !this.#digests.header) checkOpcode(this.#header, this.#peer);
    this.#headerHave += count;
    if (this.#headerHave < this.#headerNeed) return count;
    if (this.#headerNeed === BHS_LENGTH) {
      this.#ahsLength = ahsLengthOf(this.#headerView);
      this.#dataLength = dataSegmentLengthOf(this.#headerView);
      this.#dataHave = 0;
      if (!this.#digests.header) this.#checkForm();
      this.#headerNeed += this.#ahsLength + (this.#digests.header ? 4 : 0);
      if (this.#headerHave < this.#headerNeed) return count;
    }
    this.#startData(chunk, at + count, end);
    return count;
  }

  #checkForm(): void {
    const opcode = checkOpcode(this.#header, this.#peer);
    if (this.#dataLength > this.#longestData) {
      throw new ProtocolError(
        `${opcode} with ${this.#dataLength} bytes of data where at most ${this.#longestData} may come`,
        'RFC 7143 §13.12',
      );
    }
    if (this.#ahsLength > 0 && opcode !== 'scsi-command') {
      throw new ProtocolError(`${opcode} with additional header segments`, 'RFC 7143 §11.2.2');
    }
  }

  /** The header is complete; the data begins at `chunk[at]`, as far as it is there: to `end`. */
  #startData(chunk: Uint8Array, at: number, end: number): void {
    const dataSegmentLength = this.#dataLength;
    const headerLength = BHS_LENGTH + this.#ahsLength;
    if (this.#digests.header) {
      this.#checkDigest('header', crc32c(this.#header.subarray(0, headerLength)), this.#header, headerLength);
      this.#checkForm();
    }
    let ahs = NO_BYTES;
    if (this.#ahsLength > 0) {
      ahs = this.#header.slice(BHS_LENGTH, headerLength);
      decodeAhs(ahs);
    }
    const header = decodeBhs(this.#headerView, NO_BYTES, ahs);
    this.#pdu = header;
    this.#crc = 0;
    this.#trailerHave = 0;
    this.#trailerNeed = dataSegmentLength === 0 ? 0 : paddingOf(dataSegmentLength) + (this.#digests.data ? 4 : 0);
    const placement = this.#sink.begin(header, dataSegmentLength);
    if (dataSegmentLength === 0) {
      this.#phase = 'trailer';
      return;
    }
    this.#phase = 'data';
    this.#isSinkPlace = typeof placement !== 'string';
    this.#isInPlace = false;
    if (placement === 'discard') {
      this.#place = undefined;
    } else if (placement !== 'lend') {
      if (placement.length !== dataSegmentLength) throw new RangeError('a data segment was given a place of another length');
      this.#place = placement;
      this.#pdu = withData(header, placement);
    } else if (at + dataSegmentLength + this.#trailerNeed <= end) {
      // All of the PDU lies here: it is lent as it lies.
      const data = chunk.subarray(at, at + dataSegmentLength);
      this.#place = data;
      this.#isInPlace = true;
      this.#pdu = withData(header, data);
    } else {
      this.#place = new Uint8Array(dataSegmentLength);
      this.#pdu = withData(header, this.#place);
    }
  }

  #consumeData(chunk: Uint8Array, at: number, end: number): number {
    const count = Math.min(end - at, this.#dataLength - this.#dataHave);
    if (this.#place !== undefined && !this.#isInPlace) this.#place.set(chunk.subarray(at, at + count), this.#dataHave);
    this.#dataArrived(chunk, at, count);
    return count;
  }

  #dataArrived(chunk: Uint8Array, at: number, count: number): void {
    if (this.#digests.data) this.#crc = crc32c(chunk.subarray(at, at + count), this.#crc);
    this.#dataHave += count;
    if (this.#dataHave === this.#dataLength) this.#phase = 'trailer';
  }

  #consumeTrailer(chunk: Uint8Array, at: number, end: number): number {
    const count = Math.min(end - at, this.#trailerNeed - this.#trailerHave);
    this.#trailer.set(chunk.subarray(at, at + count), this.#trailerHave);
    this.#trailerHave += count;
    return count;
  }

  #complete(): void {
    const pdu = this.#pdu as Pdu;
    if (this.#digests.data && this.#dataLength > 0) {
      const padding = paddingOf(this.#dataLength);
      this.#checkDigest('data', crc32c(this.#trailer.subarray(0, padding), this.#crc), this.#trailer, padding);
    }
    this.#phase = 'header';
    this.#headerHave = 0;
    this.#headerNeed = BHS_LENGTH;
    this.#dataLength = 0;
    this.#dataHave = 0;
    this.#place = undefined;
    this.#pdu = undefined;
    this.#sink.receive(pdu);
  }

  #checkDigest(what: 'header' | 'data', crc: number, bytes: Uint8Array, at: number): void {
    const expected = encodeDigest(crc);
    for (let index = 0; index < 4; index++) {
      if (bytes[at + index] === expected[index]) continue;
      const pdu = opcodeName(opcodeOf(this.#header)) ?? 'PDU';
      throw new ProtocolError(`${what} digest of a ${pdu} is wrong`, 'RFC 7143 §11.2.3');
    }
  }
}

/** The bit of an opcode that tells what targets send from what initiators do (RFC 7143 §11.2.1.2). */
const TARGET_OPCODES = 0x20;

function checkOpcode(bhs: Uint8Array, peer: 'initiator' | 'target'): OpcodeName {
  const code = opcodeOf(bhs);
  const name = opcodeName(code);
  if (name === undefined) throw new ProtocolError(`unknown opcode 0x${code.toString(16).padStart(2, '0')}`, 'RFC 7143 §11.2.1.2');
  if ((code & TARGET_OPCODES) !== (peer === 'target' ? TARGET_OPCODES : 0)) {
    throw new ProtocolError(`${name}, which no ${peer} sends`, 'RFC 7143 §11.2.1.2');
  }
  return name;
}

/** `pdu` with its data segment: it was decoded before the data had a place. */
function withData(pdu: Pdu, data: Uint8Array): Pdu {
  (pdu as { data: Uint8Array }).data = data;
  return pdu;
}
