/*
 * The subsystem as other floors and users see it: `userdma/core`. The order is that of ARCHITECTURE's path through it.
 * With `userdma/spec` it is the driver interface; so the records of a driver's own calls are read and written here too.
 */
export { decodeRecord, encodeRecords } from '../uapi/scalar.ts'
export { type AddressSpace, type Bytes, noMemory } from './address-space.ts'
export type { DeviceDescription } from './assemble.ts'
export { coreClasses } from './base/all.ts'
export { keysOf, type MrState } from './base/mr.ts'
export { addEventHandler, registerClient } from './clients.ts'
export { closeDescriptor, findDescriptor } from './descriptors.ts'
export { callerView, type Dialect, dispatch } from './dispatch.ts'
export { driverClass, type Handler, type Handlers, withoutOptions, withLinkVariants, withMethods } from './driver.ts'
export { opsIoctl, opsMap, opsWrite } from './driver-ops.ts'
export {
  affiliate,
  arm,
  attachSink,
  completed,
  createEventQueue,
  DEVICE_FATAL,
  type EventQueue,
  expire,
  postRecord,
  raiseObjectEvent,
  raiseDevice,
  raisePort,
  readEvents,
  setThreshold,
  withdrawEvents,
} from './events.ts'
export { addFailureHandler, type FailureHandler, reportFailure } from './failures.ts'
export { findGid, type GidTable, type GidTableEntry, getGid, setGid } from './gids.ts'
export { findObject, invoke, invokeNow, type ReturnOf } from './invoke.ts'
export { addParent, createDescriptor, dropParent } from './lifetime.ts'
export { createLocalSpace, type LocalSpace } from './local-space.ts'
export { tableSlots } from './lookup.ts'
export { type MappedMemory, type MappedChunk, mappedMemoryOf, bufferMemory } from './mapped.ts'
export { findKeyWithRights, findKey, type MemoryTable, addressHi, addressLo, resolve } from './memory.ts'
export {
  type MethodAdditions,
  type Affiliation,
  type CallContext,
  type Caller,
  type Client,
  type Context,
  type Core,
  type CoreObject,
  type Device,
  type DeviceEvent,
  type DeviceEventHandler,
  type Driver,
  type DriverClass,
  type DriverOps,
  type EventHandlers,
  type EventRecord,
  type EventSink,
  type FdObject,
  type FileMemory,
  type HandlerValues,
  type Hook,
  Lifecycle,
  type OpsCall,
  type OpsState,
  type Port,
} from './model.ts'
export {
  addHook,
  type CoreOptions,
  closeContext,
  createCore,
  openContext,
  register,
  abortSignalOf,
  unregister,
} from './registry.ts'
export { type CoreCounts, type DeviceCounts, stat } from './stat.ts'
export { systemDevice } from './system.ts'
export { nextDue } from './thresholds.ts'
export { type Bind, bindWindow, invalidateWindow, unbindWindowsOf } from './windows.ts'
