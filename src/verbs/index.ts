/*
 * What `import 'userdma'` gives: the library.
 */

export type { PathOptions } from './address.ts'
export type { DeviceCounters } from './carrier.ts'
export type { Chain, PlannedObject, Resolved } from './chain.ts'
export type {
  FlushOptions,
  MessageOptions,
  RcMessageOptions,
  SendOptions,
  XrcOptions,
} from './checks/request-options.ts'
export type { CounterSet } from './counter-set.ts'
export type { Completion } from './cq/completion.ts'
export type { ArmOptions, CompletionQueue, CqOptions, Threshold, WaitOptions } from './cq/completion-queue.ts'
export type { AsyncEventName, Device, DeviceEvent } from './device.ts'
export type { DriverDescriptor } from './driver-ops.ts'
export { RdmaError } from './error.ts'
export type { Attachable, EventKindName, EventQueue, QueuedEvent } from './event-queue.ts'
export type { FlowFields, FlowHeader, FlowOptions, FlowSpec, SteeringRule } from './flow.ts'
export { createNetwork, type Network, type NetworkOptions } from './local/network.ts'
export type { Arrivals, Until } from './mailbox.ts'
export type { DeviceMemory, DeviceMemoryOptions } from './mr/device-memory.ts'
export type {
  Access,
  DeviceRegionOptions,
  FileRegionOptions,
  MemoryRegion,
  Region,
  RemoteMemory,
  Slice,
  WholeRegion,
} from './mr/region.ts'
export type { Binding, MemoryWindow } from './mr/window.ts'
export type { CreateArguments, ObjectOf } from './object.ts'
export { type OpenOptions, open } from './open.ts'
export type { ProtectionDomain } from './pd.ts'
export type { Named } from './plan.ts'
export type { RcQueuePair, RcQueuePairOptions, UcQueuePair, UcQueuePairOptions } from './qp/connected.ts'
export type { ConnectOptions, Endpoint, PeerOptions, RcConnectOptions } from './qp/connection.ts'
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
} from './qp/datagram.ts'
export {
  GSI_QKEY,
  type GsiQueuePair,
  type GsiQueuePairOptions,
  type SmiQueuePair,
  type SmiQueuePairOptions,
} from './qp/management.ts'
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
} from './qp/queue-pair.ts'
export type { RawPacketQueuePair, RawPacketQueuePairOptions } from './qp/raw-packet.ts'
export type { RdActivation, RdQueuePair, RdQueuePairOptions } from './qp/reliable-datagram.ts'
export type {
  XrcDomain,
  XrcDomainOptions,
  XrcInitiator,
  XrcInitiatorOptions,
  XrcTarget,
  XrcTargetOptions,
} from './qp/xrc.ts'
export type { SharedReceiveQueue, SrqOptions, XrcSharedReceiveQueue, XrcSrqOptions } from './srq/shared-receive.ts'
export type { AddTagOptions, TagOptions, TagSharedReceiveQueue, TagSrqOptions } from './srq/tag-matching.ts'
export type {
  ReceiveTable,
  WorkQueue,
  WorkQueueChanges,
  WorkQueueFlags,
  WorkQueueOptions,
  WorkQueueState,
} from './srq/work-queue.ts'
export {
  type DeviceChange,
  type DeviceEntry,
  type NodeTypeName,
  openSystem,
  type System,
  type SystemOptions,
} from './system.ts'
