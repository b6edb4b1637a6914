/** What other programs may import: the parts that the command line is made of. */

export { type EmbeddedPortal, EmbeddedTarget, type EmbeddedTargetOptions } from './cli/embedded-target.ts';
export { type Clock, systemClock } from './clock.ts';
export { mergeOptions, type OptionValues, type SomeOptions } from './config/options.ts';
export type { ConnectionSettings, MountSettings } from './config/settings.ts';
export { describeError, type ErrorCode, errorCode, IserfsError, LoginError, NexusLostError, ProtocolError } from './errors.ts';
export type { ConnectionOptions } from './iser/connection.ts';
export { createTcpTransport } from './iser/datamover/tcp.ts';
export { type DiscoveredTarget, type DiscoveryResult, discoverTargets } from './iser/discovery.ts';
export { Initiator, type InitiatorOptions, type SessionStatus } from './iser/initiator.ts';
export { formatPortal, isValidIscsiName, makeInitiatorName, makeIsid, type Portal, parsePortal } from './iser/iscsi/name.ts';
export { IscsiTarget, type IscsiTargetOptions, type TargetPortal } from './iser/target.ts';
export { Mount, type MountContext } from './mount/mount.ts';
export { BlockCache, type BlockCacheOptions } from './scsi/block-cache.ts';
export type { BlockDevice, BlockDeviceInfo, Lease } from './scsi/block-device.ts';
export { BufferPool } from './scsi/buffer-pool.ts';
export type { CachedDevice } from './scsi/cached-device.ts';
export { BlockDeviceServer, type BlockDeviceServerOptions } from './scsi/device-server.ts';
export { execute } from './scsi/execute.ts';
export { FileMedium } from './scsi/file-medium.ts';
export { LogicalUnit, type LogicalUnitOptions } from './scsi/logical-unit.ts';
export { lunFromNumber, lunLabel, parseLun } from './scsi/lun.ts';
export type { Medium } from './scsi/medium.ts';
export { MemoryMedium } from './scsi/memory-medium.ts';
export type { DeviceServer, Lun, ScsiCommand, ScsiPort, ScsiResult, StartedCommand } from './scsi/port.ts';
export { reportLuns } from './scsi/scan.ts';
export { VolatileCacheMedium } from './scsi/volatile-cache-medium.ts';
export { VERSION } from './version.ts';
