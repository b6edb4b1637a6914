/**
 * What iSER puts before an iSCSI PDU in each Send: the 28 bytes of the control header (RFC 7145 §9), and the 4
 * bytes of private data by which two ends tell each other their abilities when they connect (InfiniBand's iSER
 * annex, used on all fabrics). The only place where offsets of either stand. Knows no PDU and no RDMA provider.
 *
 * "Read" and "write" are the initiator's commands: the target writes to the read STag and reads from the write STag.
 */

import { ProtocolError } from '../../errors.ts';
import { bit, bits, layout, u32, u64, viewOf } from '../../field.ts';
import type { RemoteMemory } from '../rdma/provider.ts';

export const ISER_HEADER_LENGTH = 28;
/** Length of the private data that is sent; what is received may be padded by the fabric. */
const CM_HEADER_LENGTH = 4;

/** Kinds of iSER message (RFC 7145 §9). */
const Kind = { control: 1, hello: 2, helloReply: 3 } as const;

const header = layout(ISER_HEADER_LENGTH, {
  kind: bits(0, 7, 4),
  hasWriteStag: bit(0, 3),
  hasReadStag: bit(0, 2),
  writeStag: u32(4),
  writeAddress: u64(8),
  readStag: u32(16),
  readAddress: u64(20),
});

/** What the initiator advertises with a command. A target advertises nothing. */
export interface IserHeader {
  /** Where the target RDMA Reads the data of a WRITE from: the first byte that is not in the PDU itself. */
  readonly write: RemoteMemory | undefined;
  /** Where the target RDMA Writes the data of a READ to. */
  readonly read: RemoteMemory | undefined;
}

/** A header without STags. */
export const PLAIN_HEADER: IserHeader = { write: undefined, read: undefined };

/** Writes a control header to the first 28 bytes of `into`. */
export function encodeIserHeader(into: Uint8Array, { write, read }: IserHeader): void {
  into.fill(0, 0, ISER_HEADER_LENGTH);
  const view = viewOf(into);
  header.kind.set(view, Kind.control);
  if (write !== undefined) {
    header.hasWriteStag.set(view, true);
    header.writeStag.set(view, write.tag);
    header.writeAddress.set(view, write.address);
  }
  if (read !== undefined) {
    header.hasReadStag.set(view, true);
    header.readStag.set(view, read.tag);
    header.readAddress.set(view, read.address);
  }
}

/** Reads the control header at the start of `message`. Throws `ProtocolError` for everything else, Hello included: it is never asked for. */
export function decodeIserHeader(message: Uint8Array): IserHeader {
  if (message.length < ISER_HEADER_LENGTH) {
    throw new ProtocolError(`a message of ${message.length} bytes is shorter than an iSER header`, 'RFC 7145 §9');
  }
  const view = viewOf(message);
  const kind = header.kind.get(view);
  if (kind === Kind.hello || kind === Kind.helloReply) {
    const name = kind === Kind.hello ? 'Hello' : 'HelloReply';
    throw new ProtocolError(`an iSER ${name}, although iSERHelloRequired was not agreed on`, 'RFC 7145 §9');
  }
  if (kind !== Kind.control) throw new ProtocolError(`unknown iSER opcode ${kind}`, 'RFC 7145 §9');
  const hasWrite = header.hasWriteStag.get(view);
  const hasRead = header.hasReadStag.get(view);
  if (!hasWrite && !hasRead) return PLAIN_HEADER;
  return {
    write: hasWrite ? { tag: header.writeStag.get(view), address: header.writeAddress.get(view) } : undefined,
    read: hasRead ? { tag: header.readStag.get(view), address: header.readAddress.get(view) } : undefined,
  };
}

const cmHeader = layout(CM_HEADER_LENGTH, { noZeroBasedAddresses: bit(0, 7), noSendWithInvalidate: bit(0, 6) });

/** Our private data: addresses are virtual ones; a Send with Invalidate is welcome where it works, since every command has tags of its own. */
export function encodeCmHeader({ sendWithInvalidate }: { readonly sendWithInvalidate: boolean }): Uint8Array {
  const privateData = new Uint8Array(CM_HEADER_LENGTH);
  cmHeader.noZeroBasedAddresses.set(viewOf(privateData), true);
  cmHeader.noSendWithInvalidate.set(viewOf(privateData), !sendWithInvalidate);
  return privateData;
}

/**
 * Whether the peer takes part in remote invalidation, by its private data. Nothing but zeros is what a fabric
 * makes of a peer that has said nothing, which is taken for no: no peer is known that has zero-based addresses.
 */
export function allowsRemoteInvalidate(privateData: Uint8Array): boolean {
  if (privateData.length < CM_HEADER_LENGTH) return false;
  const view = viewOf(privateData);
  return cmHeader.noZeroBasedAddresses.get(view) && !cmHeader.noSendWithInvalidate.get(view);
}
