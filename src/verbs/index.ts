/*
 * Entry point of `userdma`: the library.
 */

export type { Finding, FindingId, Severity } from '../spec/check/findings.ts'
export type { Omission, OmissionId } from '../spec/check/omissions.ts'
export { GRH_BYTES } from '../wire/ip.ts'
export type { PathOptions } from './address.ts'
export type {
  FlushExtent,
  FlushOptions,
  ImmediateOptions,
  InvalidateOptions,
  MessageOptions,
  RcMessageOptions,
  SendOptions,
  XrcOptions,
} from './arguments/request-options.ts'
export type {
  AwaitableOptions,
  AwaitableQueuePair,
  AwaitedMessageOptions,
  AwaitedOptions,
  AwaitedRcMessageOptions,
  WaitLimits,
} from './awaitable/queue-pair.ts'
export { RequestError } from './awaitable/request-error.ts'
export type { CompletedRequest } from './awaitable/request-promises.ts'
export { type RequestWindow, requestWindow } from './awaitable/request-window.ts'
export type { DeviceCounters, DeviceMetrics, MetricName } from './carrier.ts'
export type { Chain, PlannedObject, Resolved } from './chain.ts'
export type { CheckOptions } from './check/options.ts'
export type { CountedFinding } from './check/watch.ts'
export {
  type ConnectionRequest,
  type ConnectToOptions,
  connect,
  type DeviceChoice,
  type ListenOptions,
  listen,
  type RejectOptions,
  type Server,
} from './connections/connect.ts'
export {
  type ClosedEvent,
  type ConnectedQueuePair,
  type Connection,
  ConnectionError,
  type ConnectionOptions,
} from './connections/connection.ts'
export type { CloseReason } from './connections/events.ts'
export { type ReconnectOptions, reconnect } from './connections/reconnect.ts'
export type { ListenerAddress } from './connections/url.ts'
export type { Completion, CompletionRecord, OpcodeName, StatusName } from './cq/completion.ts'
export type { ArmOptions, CompletionQueue, CqOptions, Threshold, WaitOptions } from './cq/completion-queue.ts'
export type { AsyncEventName, CloseOptions, Device, DeviceEvent, DeviceEventObject, DeviceEvents } from './device.ts'
export type { DriverDescriptor, MapOptions } from './driver-ops.ts'
export { type ErrorCode, FindingsError, RdmaError } from './error.ts'
export type { Attachable, EventKindName, EventQueue, QueuedEvent } from './event-queue.ts'
export type { Listenable, ListenerOptions } from './event-target.ts'
export type { IpInterface, IpOptions, PingOptions, UdpDatagram, UdpEndpoint, UdpOptions, UdpSocket } from './ip.ts'
export { createNetwork, type Network, type NetworkOptions, type RecordOptions } from './local/network.ts'
export type { CountMessage, FailureMessage, TracedCall } from './local/observe.ts'
export type { AbortOptions, Arrivals } from './mailbox.ts'
export type { Messages, MessagesOptions } from './messages/messages.ts'
export type {
  Access,
  FileRegionOptions,
  MemoryRegion,
  Region,
  RegionChanges,
  Slice,
  WholeRegion,
} from './mr/region.ts'
export { type RemoteMemory, type RemoteMemoryData, remoteMemory } from './mr/remote-memory.ts'
export type { BindInfo, MemoryWindow } from './mr/window.ts'
export type { CreateArguments, ObjectOf } from './objects/object.ts'
export { type OpenOptions, open } from './open.ts'
export type { ProtectionDomain } from './pd.ts'
export type { Kind, ObjectReference, Reference } from './plan.ts'
export type { Activatable, ActiveOptions } from './qp/activation.ts'
export type {
  AwaitableRcOptions,
  AwaitableRcQueuePair,
  AwaitableUcOptions,
  AwaitableUcQueuePair,
  RcQueuePair,
  RcQueuePairOptions,
  UcQueuePair,
  UcQueuePairOptions,
} from './qp/connected.ts'
export type {
  Connectable,
  ConnectOptions,
  Endpoint,
  PeerOptions,
  RcConnectOptions,
  RetryOptions,
} from './qp/connection.ts'
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
} from './qp/datagram.ts'
export {
  GSI_QKEY,
  type GsiQueuePair,
  type GsiQueuePairOptions,
  type SmiQueuePair,
  type SmiQueuePairOptions,
} from './qp/management.ts'
export type { Operations, ReliableOperations } from './qp/operations.ts'
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
} from './qp/queue-pair.ts'
export type {
  XrcDomain,
  XrcDomainOptions,
  XrcInitiator,
  XrcInitiatorOptions,
  XrcTarget,
  XrcTargetOptions,
} from './qp/xrc.ts'
export type { ReceiveQueue } from './srq/receive-queue.ts'
export type { SharedReceiveQueue, SrqOptions, XrcSharedReceiveQueue, XrcSrqOptions } from './srq/shared-receive.ts'
export {
  type DeviceChange,
  type DeviceEntry,
  type NodeTypeName,
  openSystem,
  type System,
  type SystemOptions,
} from './system.ts'
