/**
 * Recognises sequential readers and says what to fetch before they ask. Several interleaved streams are
 * followed at once, whoever they belong to, and the reads of one may overtake each other, as the kernel's
 * do. A reader who is confirmed by a second read soon has as much ahead of him as the limit allows, in
 * stretches that end at extents, so that each of the commands behind them is one long run. Pure: offsets in, a
 * range to fetch out; what is fetched and where it is kept is the cache's affair.
 */

import { EXTENT } from './cached-ranges.ts';

/** A stretch of the device, in bytes. */
export interface Stretch {
  readonly offset: number;
  readonly length: number;
}

interface Stream {
  /** Everything before this was asked for by the reader. */
  next: number;
  /** Bytes to keep fetched ahead of `next`; 0 until a second read has confirmed the stream. */
  window: number;
  /** Everything before this was asked for already. */
  ahead: number;
  /** Reads that came before those in front of them, joined where they touch. */
  readonly early: { offset: number; end: number; reads: number }[];
}

/** Streams that are followed at once; the one that was idle longest gives way. */
const MOST_STREAMS = 16;
/** How far the reads of one confirmed stream may overtake each other. */
const SLACK = 4 * 1024 * 1024;
/** Stretches of reads that have overtaken others; the oldest is forgotten. */
const MOST_EARLY = 16;
/** So many reads in a row beyond a gap: the reader has left it out. */
const READS_OF_A_LEAP = 4;
const FIRST_WINDOW = 256 * 1024;

export class ReadAhead {
  readonly #limit: number;
  /** Most recently used last. */
  readonly #streams: Stream[] = [];

  /** Fetches at most `limit` bytes ahead of each stream; 0 switches it off. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * Takes note of a read and returns what should be fetched now, which may reach beyond the end of the device.
   * `wasAhead`: it is the first to reach something that was fetched ahead; those before it may have gone unseen.
   */
  observe(offset: number, length: number, wasAhead = false): Stretch | undefined {
    if (this.#limit === 0 || length === 0) return undefined;
    const end = offset + length;
    const stream = this.#find(offset, end, wasAhead);
    if (stream === undefined) {
      this.#streams.push({ next: end, window: 0, ahead: end, early: [] });
      if (this.#streams.length > MOST_STREAMS) this.#streams.shift();
      return undefined;
    }
    return advance(stream, offset, end, wasAhead) ? this.#extend(stream, length) : undefined;
  }

  /** Forgets all streams. */
  reset(): void {
    this.#streams.length = 0;
  }

  /** The stream that the read belongs to, made the most recently used one. */
  #find(offset: number, end: number, wasAhead: boolean): Stream | undefined {
    const index = this.#indexOf(offset, end, wasAhead);
    // There is no element -1, but to ask an array for one takes longer than all else here.
    if (index < 0) return undefined;
    const stream = this.#streams[index];
    if (stream === undefined || index === this.#streams.length - 1) return stream;
    this.#streams.splice(index, 1);
    this.#streams.push(stream);
    return stream;
  }

  /** The newest stream that goes on at `offset`; else the newest that the read belongs to; else -1. */
  #indexOf(offset: number, end: number, wasAhead: boolean): number {
    let found = -1;
    for (let index = this.#streams.length - 1; index >= 0; index--) {
      const stream = this.#streams[index] as Stream;
      if (stream.next === offset) return index;
      if (found < 0 && belongs(stream, offset, end, wasAhead)) found = index;
    }
    return found;
  }

  #extend(stream: Stream, length: number): Stretch | undefined {
    const from = Math.max(stream.ahead, stream.next);
    if (stream.window === 0) stream.window = Math.min(this.#limit, Math.max(FIRST_WINDOW, 4 * length));
    else if (stream.window < this.#limit) {
      // Half a window is left: the next one has the time that it takes to read that half.
      if (from - stream.next > stream.window / 2) return undefined;
      stream.window = Math.min(this.#limit, 2 * stream.window);
    }
    const to = alignedEnd(from, stream.next + stream.window);
    // A full window is kept full, an extent at a time; what is less than one waits until it is worth a command.
    if (to <= from || (to % EXTENT !== 0 && to - from < stream.window / 2)) return undefined;
    stream.ahead = to;
    return { offset: from, length: to - from };
  }
}

/** Moves the reader on; false where he is no further than before, or the read is ahead of others that will come. */
function advance(stream: Stream, offset: number, end: number, wasAhead: boolean): boolean {
  if (end <= stream.next) return false;
  if (stream.window === 0 || offset <= stream.next || wasAhead) stream.next = end;
  else {
    const run = noteEarly(stream.early, offset, end);
    if (run.reads < READS_OF_A_LEAP) return false;
    stream.next = run.end;
  }
  for (let index = 0; index < stream.early.length; ) {
    const run = stream.early[index];
    if (run === undefined || run.offset > stream.next) {
      index++;
      continue;
    }
    stream.next = Math.max(stream.next, run.end);
    stream.early.splice(index, 1);
    // What it reaches now may have come before it.
    index = 0;
  }
  return true;
}

/** Adds a read to the early ones; returns the run of reads that it has become part of. */
function noteEarly(early: Stream['early'], offset: number, end: number): { end: number; reads: number } {
  const run = { offset, end, reads: 1 };
  for (let index = early.length - 1; index >= 0; index--) {
    const other = early[index];
    if (other === undefined || other.end < run.offset || other.offset > run.end) continue;
    run.offset = Math.min(run.offset, other.offset);
    run.end = Math.max(run.end, other.end);
    run.reads += other.reads;
    early.splice(index, 1);
  }
  early.push(run);
  if (early.length > MOST_EARLY) early.shift();
  return run;
}

/** `to`, or a little less where that lets the next stretch begin with an extent: one command for each. */
function alignedEnd(from: number, to: number): number {
  const aligned = to - (to % EXTENT);
  return aligned > from ? aligned : to;
}

function belongs(stream: Stream, offset: number, end: number, wasAhead: boolean): boolean {
  if (stream.window === 0) return false;
  if (wasAhead && offset < stream.ahead && end > stream.next) return true;
  return end > stream.next - SLACK && offset <= stream.next + SLACK;
}
