/**
 * What a mount is at one moment, as plain data: the one source of the status and info files, their
 * `.json` twins and the metrics. Types only.
 */

import type { InitiatorState, SessionStatus } from '../iser/initiator.ts';
import type { Problem } from '../problem.ts';
import type { LatencySummary } from '../scsi/latency-histogram.ts';

export interface MountSnapshot {
  readonly version: string;
  readonly pid: number;
  readonly mountpoint: string;
  readonly initiatorName: string;
  readonly startedAt: Date;
  readonly uptimeMs: number;
  /** Option names and their values as people write them; no secrets. */
  readonly options: Readonly<Record<string, string>>;
  readonly cache: CacheSnapshot;
  /** What serves the mount: `native` or `fuse-native`. */
  readonly fuseHost: string;
  readonly openImages: number;
  /** What went wrong before there was a target to say it of: portals that did not answer, invalid names. */
  readonly notes: readonly string[];
  readonly targets: readonly TargetSnapshot[];
}

export interface CacheSnapshot {
  readonly capacity: number;
  readonly bytes: number;
  readonly limboBytes: number;
  readonly evictions: number;
  /** Bytes of data memory that have an owner, and that are allocated. */
  readonly poolBytesInUse: number;
  readonly poolBytesAllocated: number;
}

export interface TargetSnapshot {
  readonly name: string;
  /** The session's state; `unavailable` where there never was one, and `not-connected` where nobody has asked for one. */
  readonly state: InitiatorState | 'unavailable' | 'not-connected';
  /** Why there is no session, or what troubles the one there is. */
  readonly problem: Problem | undefined;
  readonly session: SessionStatus | undefined;
  /** Why the session is not by the transport that comes first, where it is not. */
  readonly transportFallback: string | undefined;
  readonly luns: readonly LunSnapshot[];
}

export interface LunSnapshot {
  readonly label: string;
  /** `unavailable` where the logical unit could not be attached. */
  readonly state: string;
  /** Why the state is not `ready`. */
  readonly problem: Problem | undefined;
  readonly identity: LunIdentity | undefined;
  readonly counters: LunCounters | undefined;
}

export interface LunIdentity {
  readonly vendor: string;
  readonly product: string;
  readonly revision: string;
  readonly serial: string | undefined;
  readonly designators: readonly string[];
  /** `disk`, or what it is else: then it has no capacity to show. */
  readonly deviceType: string;
  /** Bytes. */
  readonly capacity: number;
  readonly blockLength: number;
  readonly physicalBlockLength: number;
  /** Bytes; undefined where the logical unit states no limit. */
  readonly maximumTransferLength: number | undefined;
  readonly optimalTransferLength: number | undefined;
  readonly optimalTransferGranularity: number | undefined;
  readonly thin: boolean;
  readonly volatileCache: boolean;
  /** Of the logical unit; a mount may be read-only beside it. */
  readonly writeProtected: boolean;
  readonly access: 'read-write' | 'read-only';
}

export interface LunCounters {
  readonly reads: number;
  readonly writes: number;
  readonly flushes: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly errors: number;
  /** Of these; it may be long over. */
  readonly lastError: string | undefined;
  /** Commands that were issued again, and of these the ones whose session was lost. */
  readonly retries: number;
  readonly reconnectReplays: number;
  /** Acknowledged writes that were written again because the device's cache may have been lost. */
  readonly replayedWrites: number;
  readonly unitAttentions: number;
  readonly commandTimeouts: number;
  readonly recoveries: number;
  readonly commandsInFlight: number;
  /** Of writes that were acknowledged to whoever wrote, and that the logical unit has not answered for yet. */
  readonly stagedBytes: number;
  /** Memory of the copies that a lost cache would call for. */
  readonly retainedBytes: number;
  readonly cacheHits: number;
  readonly cacheMisses: number;
  readonly readaheadBytes: number;
  readonly readLatency: LatencySummary;
  readonly writeLatency: LatencySummary;
  readonly flushLatency: LatencySummary;
}
