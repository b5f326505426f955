/*
 * Entry point of `userdma`: the library, with all of `userdma/messages` and `userdma/test`.
 */

export type { CaptureDamage, CapturedPacket } from '../tools/captures/file.ts'
export { GRH_BYTES } from '../transport/wire/ip.ts'
export {
  type CaptureBytes,
  type ExplainCaptureOptions,
  explainCapture,
  type ReadCaptureOptions,
  readCapture,
} from './captures.ts'
export * from './messages.ts'
export {
  type DeviceChange,
  type DeviceEntry,
  type NodeTypeName,
  openSystem,
  type System,
  type SystemOptions,
} from './open/system.ts'
export * from './test.ts'
export type { PathOptions } from './verbs/address.ts'
export type {
  FlushExtent,
  FlushOptions,
  ImmediateOptions,
  InvalidateOptions,
  MessageOptions,
  RcMessageOptions,
  SendOptions,
  XrcOptions,
} from './verbs/arguments/request-options.ts'
export type {
  AwaitableOptions,
  AwaitableQueuePair,
  AwaitedMessageOptions,
  AwaitedOptions,
  AwaitedRcMessageOptions,
  WaitLimits,
} from './verbs/awaitable/queue-pair.ts'
export type { CompletedRequest } from './verbs/awaitable/request-promises.ts'
export type { DeviceCounters, DeviceMetrics, MetricName } from './verbs/carrier.ts'
export type { Chain, PlannedObject, Resolved } from './verbs/chain.ts'
export type { Completion, CompletionRecord, OpcodeName, StatusName } from './verbs/cq/completion.ts'
export type { ArmOptions, CompletionQueue, CqOptions, Threshold, WaitOptions } from './verbs/cq/completion-queue.ts'
export type {
  AsyncEventName,
  CloseOptions,
  DeviceEvent,
  DeviceEventObject,
  DeviceEvents,
} from './verbs/device.ts'
export type { DriverDescriptor, MapOptions } from './verbs/driver-ops.ts'
export type { Attachable, EventKindName, EventQueue, QueuedEvent } from './verbs/event-queue.ts'
export type { Listenable, ListenerOptions } from './verbs/event-target.ts'
export type { Fault, FaultRuleOptions, FaultWaitOptions } from './verbs/faults.ts'
export type {
  IpInterface,
  IpOptions,
  PingOptions,
  UdpDatagram,
  UdpEndpoint,
  UdpOptions,
  UdpSocket,
} from './verbs/ip.ts'
export type { AbortOptions, Arrivals } from './verbs/mailbox.ts'
export type { Lend, LendOptions } from './verbs/mr/lend.ts'
export type {
  Access,
  FileRegionOptions,
  MemoryRegion,
  Region,
  RegionChanges,
  Slice,
  WholeRegion,
} from './verbs/mr/region.ts'
export { type RemoteMemory, type RemoteMemoryData, remoteMemory } from './verbs/mr/remote-memory.ts'
export type { BindInfo, MemoryWindow } from './verbs/mr/window.ts'
export type { CreateArguments, ObjectOf } from './verbs/objects/object.ts'
export type { ProtectionDomain } from './verbs/pd.ts'
export type { Kind, ObjectReference, Reference } from './verbs/plan.ts'
export type { Activatable, ActiveOptions } from './verbs/qp/activation.ts'
export type {
  AwaitableRcOptions,
  AwaitableRcQueuePair,
  AwaitableUcOptions,
  AwaitableUcQueuePair,
  RcQueuePair,
  RcQueuePairOptions,
  UcQueuePair,
  UcQueuePairOptions,
} from './verbs/qp/connected.ts'
export type {
  Connectable,
  ConnectOptions,
  Endpoint,
  PeerOptions,
  RcConnectOptions,
  RetryOptions,
} from './verbs/qp/connection.ts'
export {
  type AddressHandle,
  type AwaitableUdOptions,
  type AwaitableUdQueuePair,
  type DatagramEndpoint,
  type DatagramPeer,
  type DatagramSender,
  type Destination,
  MULTICAST_QPN,
  senderOf,
  type UdActivation,
  type UdMethods,
  type UdQueuePair,
  type UdQueuePairOptions,
} from './verbs/qp/datagram.ts'
export {
  GSI_QKEY,
  type GsiQueuePair,
  type GsiQueuePairOptions,
  type SmiQueuePair,
  type SmiQueuePairOptions,
} from './verbs/qp/management.ts'
export type { Operations, ReliableOperations } from './verbs/qp/operations.ts'
export type {
  BareQueuePair,
  InitialAttributes,
  InitialOptions,
  ModifyArguments,
  QpStateName,
  QueriedAttributes,
  QueuePair,
  QueuePairOptions,
  SendData,
  SendingQueuePair,
  SendQueueOptions,
} from './verbs/qp/queue-pair.ts'
export type {
  XrcDomain,
  XrcDomainOptions,
  XrcInitiator,
  XrcInitiatorOptions,
  XrcTarget,
  XrcTargetOptions,
} from './verbs/qp/xrc.ts'
export type { ReceiveQueue } from './verbs/srq/receive-queue.ts'
export type {
  SharedReceiveQueue,
  SrqOptions,
  XrcSharedReceiveQueue,
  XrcSrqOptions,
} from './verbs/srq/shared-receive.ts'
