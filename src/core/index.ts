/*
 * The package's export `userdma/core`, for drivers and clients outside this repository. With `userdma/spec` it is the
 * driver interface.
 */
export { decodeRecord, encodeRecords } from '../uapi/scalar.ts'
export { coreClasses } from './base/all.ts'
export { keysOf, type MrState } from './base/mr.ts'
export type { DeviceDescription } from './devices/assemble.ts'
export { addEventHandler, registerClient } from './devices/clients.ts'
export {
  answered,
  driverClass,
  type Handler,
  type Handlers,
  withLinkVariants,
  withMethods,
  withoutOptions,
} from './devices/driver.ts'
export { opsIoctl, opsMap, opsWrite } from './devices/driver-ops.ts'
export { findGid, type GidTable, type GidTableEntry, getGid, setGid } from './devices/gids.ts'
export {
  abortSignalOf,
  addHook,
  type CoreOptions,
  closeContext,
  createCore,
  openContext,
  register,
  unregister,
} from './devices/registry.ts'
export { systemDevice } from './devices/system.ts'
export { callerView, type Dialect, dispatch } from './dispatch/dispatch.ts'
export { findObject, invoke, invokeNow, type ReturnOf } from './dispatch/invoke.ts'
export { tableSlots } from './dispatch/lookup.ts'
export type {
  DeviceNetwork,
  DeviceQueues,
  DeviceSite,
  DeviceTaps,
  Driver,
  DriverClass,
  DriverOps,
  LayerCounts,
  MethodAdditions,
  NetworkDevice,
  OpsCall,
  OpsState,
  PostedRequest,
  QpFacts,
  QpResource,
  RegisteredDriver,
  RequestReader,
  RequestTaps,
  ScanScope,
  WrittenCompletion,
} from './driver-contract.ts'
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
  raiseDevice,
  raiseObjectEvent,
  raisePort,
  readEvents,
  setThreshold,
  withdrawEvents,
} from './events/events.ts'
export { nextDue } from './events/thresholds.ts'
export { explainKey } from './explain.ts'
export { addFailureHandler, type FailureHandler, forgetFailure, reportFailure } from './failures.ts'
export { type AddressSpace, type Bytes, noMemory } from './memory/address-space.ts'
export { createLocalSpace, type LocalSpace } from './memory/local-space.ts'
export {
  bufferMemory,
  type MappedChunk,
  type MappedMemory,
  mappedMemoryOf,
  type RangeUse,
} from './memory/mappable-memory.ts'
export { addressHi, addressLo, findKey, findKeyWithRights, type MemoryTable, resolve } from './memory/region-table.ts'
export {
  clearRing,
  createRing,
  elementAt,
  loadConsumer,
  loadProducer,
  mappedRings,
  mmapInfo,
  type Ring,
  storeConsumer,
  storeProducer,
} from './memory/rings.ts'
export { type Bind, bindWindow, invalidateWindow, unbindWindowsOf } from './memory/windows.ts'
export {
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
  type EventHandlers,
  type EventRecord,
  type EventSink,
  type FdObject,
  type FileMemory,
  type HandlerValues,
  type Hook,
  Lifecycle,
  type Port,
} from './model.ts'
export { closeDescriptor, findDescriptor } from './objects/descriptors.ts'
export { addParent, createDescriptor, dropParent, numberFromId } from './objects/lifetime.ts'
export { type CoreCounts, type DeviceCounts, stat } from './stat.ts'
