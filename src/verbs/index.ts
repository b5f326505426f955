/*
 * What `import 'userdma'` gives: the library.
 */

export type { PathOptions } from './address.ts'
export type { DeviceCounters } from './carrier.ts'
export type { Chain, PlannedObject, Resolved } from './chain.ts'
export type { Completion } from './completion.ts'
export type { RcQueuePair, RcQueuePairOptions, UcQueuePair, UcQueuePairOptions } from './connected.ts'
export type { ConnectOptions, Endpoint, PeerOptions, RcConnectOptions } from './connection.ts'
export type { CounterSet } from './counter-set.ts'
export {
  type AddressHandle,
  type DatagramEndpoint,
  type DatagramPeer,
  type Destination,
  GRH_BYTES,
  MULTICAST_QPN,
  senderOf,
  type UdQueuePair,
  type UdQueuePairOptions,
} from './datagram.ts'
export type { AsyncEventName, Device, DeviceEvent } from './device.ts'
export type { DeviceMemory, DeviceMemoryOptions } from './device-memory.ts'
export type { ProtectionDomain } from './domain.ts'
export type { DriverDescriptor } from './driver-ops.ts'
export { RdmaError } from './error.ts'
export type { Attachable, EventKindName, EventQueue, QueuedEvent } from './event-queue.ts'
export type { FlowFields, FlowHeader, FlowOptions, FlowSpec, SteeringRule } from './flow.ts'
export type { Arrivals, Until } from './mailbox.ts'
export {
  GSI_QKEY,
  type GsiQueuePair,
  type GsiQueuePairOptions,
  type SmiQueuePair,
  type SmiQueuePairOptions,
} from './management.ts'
export type {
  Access,
  DeviceRegionOptions,
  FileRegionOptions,
  MemoryRegion,
  Region,
  RemoteMemory,
  Slice,
  WholeRegion,
} from './memory.ts'
export { createNetwork, type Network, type NetworkOptions } from './network.ts'
export type { CreateArguments, ObjectOf } from './object.ts'
export { type OpenOptions, open } from './open.ts'
export type { Named } from './plan.ts'
export type { ArmOptions, CompletionQueue, CqOptions, Threshold, WaitOptions } from './queue.ts'
export type {
  BareQueuePair,
  Initial,
  InitialOptions,
  Local,
  QpStateName,
  QueuePair,
  QueuePairOptions,
  SendingQueuePair,
  SendQueueOptions,
} from './queue-pair.ts'
export type { RawPacketQueuePair, RawPacketQueuePairOptions } from './raw-packet.ts'
export type { RdActivation, RdQueuePair, RdQueuePairOptions } from './reliable-datagram.ts'
export type { FlushOptions, MessageOptions, RcMessageOptions, SendOptions, XrcOptions } from './request-options.ts'
export type { SharedReceiveQueue, SrqOptions, XrcSharedReceiveQueue, XrcSrqOptions } from './shared-receive.ts'
export {
  type DeviceChange,
  type DeviceEntry,
  type NodeTypeName,
  openSystem,
  type System,
  type SystemOptions,
} from './system.ts'
export type { AddTagOptions, TagOptions, TagSharedReceiveQueue, TagSrqOptions } from './tag-matching.ts'
export type { Binding, MemoryWindow } from './window.ts'
export type {
  ReceiveTable,
  WorkQueue,
  WorkQueueChanges,
  WorkQueueFlags,
  WorkQueueOptions,
  WorkQueueState,
} from './work-queue.ts'
export type {
  XrcDomain,
  XrcDomainOptions,
  XrcInitiator,
  XrcInitiatorOptions,
  XrcTarget,
  XrcTargetOptions,
} from './xrc.ts'
