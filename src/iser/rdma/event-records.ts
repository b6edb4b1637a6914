/**
 * The words that the addon's events come in, five for each (`native/addon/records.h`): the number of the
 * connection or listener; kind, opcode and status in a byte each, and whether there is an invalidated tag;
 * the id of the work request, or the place of the notice; length; invalidated tag.
 */

import type { Completion, CompletionStatus, Opcode } from './provider.ts';

export const RECORD_WORDS = 5;

export const EventKind = { completion: 0, established: 1, closed: 2, requested: 3 } as const;

const HAS_INVALIDATED = 1 << 24;

// In the order of `native/provider/provider.h`.
const opcodes: readonly Opcode[] = ['send', 'receive', 'write', 'read'];
const statuses: readonly CompletionStatus[] = ['success', 'flushed', 'failed'];

/** A completion that is read again and again: whoever is given it borrows it. */
export class CompletionRecord implements Completion {
  id = 0;
  opcode: Opcode = 'send';
  status: CompletionStatus = 'success';
  length = 0;
  invalidated: number | undefined = undefined;

  read(records: Uint32Array, at: number): void {
    const what = records[at + 1] as number;
    this.id = records[at + 2] as number;
    this.opcode = opcodes[(what >>> 8) & 0xff] as Opcode;
    this.status = statuses[(what >>> 16) & 0xff] as CompletionStatus;
    this.length = records[at + 3] as number;
    this.invalidated = (what & HAS_INVALIDATED) === 0 ? undefined : records[at + 4];
  }
}

export function eventKindAt(records: Uint32Array, at: number): number {
  return (records[at + 1] as number) & 0xff;
}

/** What `AddonContext.flush` answered, as completions. */
export function* flushedCompletions(words: Uint32Array): Iterable<Completion> {
  for (let at = 0; at < words.length; at += 3) {
    const opcode = opcodes[words[at] as number] as Opcode;
    yield { id: words[at + 1] as number, opcode, status: 'flushed', length: words[at + 2] as number, invalidated: undefined };
  }
}
