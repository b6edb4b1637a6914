/**
 * Recognises sequential readers and says what to fetch before they ask. Several interleaved streams are
 * followed at once, whoever they belong to. Pure: offsets in, a range to fetch out; what is fetched and
 * where it is kept is the cache's affair.
 */

/** A stretch of the device, in bytes. */
export interface Stretch {
  readonly offset: number;
  readonly length: number;
}

interface Stream {
  /** Where the next read of the stream is expected. */
  next: number;
  /** Bytes to keep fetched ahead of `next`; 0 until a second read has confirmed the stream. */
  window: number;
  /** Everything before this was asked for already. */
  ahead: number;
}

/** Streams that are followed at once; the one that was idle longest gives way. */
const MOST_STREAMS = 16;
/** How far the reads of one confirmed stream may overtake each other: the kernel sends several at once. */
const SLACK = 512 * 1024;
const FIRST_WINDOW = 128 * 1024;
const ALIGNMENT = 256 * 1024;

export class ReadAhead {
  readonly #limit: number;
  /** Most recently used last. */
  readonly #streams: Stream[] = [];

  /** Fetches at most `limit` bytes ahead of each stream; 0 switches it off. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Takes note of a read and returns what should be fetched now, which may reach beyond the end of the device. */
  observe(offset: number, length: number): Stretch | undefined {
    if (this.#limit === 0 || length === 0) return undefined;
    const end = offset + length;
    const index = this.#streams.findLastIndex((stream) => belongs(stream, offset, end));
    const known = this.#streams[index];
    if (known === undefined) {
      this.#streams.push({ next: end, window: 0, ahead: end });
      if (this.#streams.length > MOST_STREAMS) this.#streams.shift();
      return undefined;
    }
    this.#streams.splice(index, 1);
    this.#streams.push(known);
    if (end <= known.next) return undefined;
    known.next = end;
    return this.#extend(known, length);
  }

  /** Forgets all streams. */
  reset(): void {
    this.#streams.length = 0;
  }

  #extend(stream: Stream, length: number): Stretch | undefined {
    const from = Math.max(stream.ahead, stream.next);
    if (stream.window === 0) stream.window = Math.min(this.#limit, Math.max(FIRST_WINDOW, 2 * length));
    // Half a window is left: the next one has the time that it takes to read that half.
    if (from - stream.next > stream.window / 2) return undefined;
    const to = alignedEnd(from, stream.next + stream.window);
    stream.ahead = to;
    stream.window = Math.min(this.#limit, stream.window * 2);
    return to > from ? { offset: from, length: to - from } : undefined;
  }
}

/** `to`, or a little less where that lets the next stretch begin at a boundary: one command for each of the cache's large slots. */
function alignedEnd(from: number, to: number): number {
  const aligned = to - (to % ALIGNMENT);
  return aligned > from ? aligned : to;
}

function belongs(stream: Stream, offset: number, end: number): boolean {
  if (stream.window === 0) return offset === stream.next;
  return end > stream.next - SLACK && offset <= stream.next + SLACK;
}
