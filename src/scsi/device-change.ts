/** What a logical unit tells of its own accord to whoever holds state about it: a cache, a tree. */

export type DeviceChange =
  /** Size, write protection or cache mode differ: look at `info` again. */
  | { readonly type: 'info' }
  /** The contents may differ from what was read before: drop what is held. */
  | { readonly type: 'contents' }
  /** The state that `status` shows is another. */
  | { readonly type: 'state' }
  /** The target's list of logical units may differ: scan again. */
  | { readonly type: 'logical-units' };

export type DeviceChangeListener = (change: DeviceChange) => void;

/**
 * A write that was acknowledged earlier has failed since, and nobody can say which: every handle that is
 * open for writing has to hear of it, once.
 */
export type WriteErrorListener = (error: Error) => void;
