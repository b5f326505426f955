/*
 * What `import 'userdma'` gives: the library.
 */
export type { Completion } from './completion.ts'
export type {
  ConnectOptions,
  Endpoint,
  MessageOptions,
  RcConnectOptions,
  RcMessageOptions,
  RcQueuePair,
  UcQueuePair,
} from './connected.ts'
export type { AsyncEventName, Device, DeviceEvent, ProtectionDomain } from './device.ts'
export { RdmaError } from './error.ts'
export { createNetwork, type Network, type NetworkOptions } from './local.ts'
export type { Access, MemoryRegion, RemoteMemory, Slice } from './memory.ts'
export { type OpenOptions, open } from './open.ts'
export type { CompletionQueue, CqOptions, WaitOptions } from './queue.ts'
export type { Local, QpStateName, QueuePair, QueuePairOptions, SendOptions } from './queue-pair.ts'
