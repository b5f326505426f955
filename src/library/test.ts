/*
 * Entry point of `userdma/test`: the network in the program, for tests. Faults, torment, the check and recordings are
 * options of the network.
 */

export type { Finding } from '../spec/check/finding.ts'
export type { FindingId } from '../spec/check/findings.ts'
export type { Omission, OmissionId } from '../spec/check/omissions.ts'
export type { Severity } from '../spec/check/severity.ts'
export type {
  ClassStats,
  DeviceStats,
  Explored,
  ExploredTest,
  ExploreOptions,
  FlowPathStats,
  FlowStats,
  LinkStats,
  LostStats,
  Network,
  NetworkOptions,
  NetworkStats,
  PortOptions,
  RecordOptions,
  RouterStats,
  TormentOptions,
} from './network/contract.ts'
export {
  chainTopology,
  type LinkClassOptions,
  type LinkOptions,
  leafSpineTopology,
  type NetworkLink,
  type NetworkTopology,
  readTopology,
  starTopology,
} from './network/links.ts'
export { createNetwork } from './network/network.ts'
export type { CountMessage, FailureMessage, SeenPacket, TracedCall } from './network/observe.ts'
export { ExploreError } from './network/virtual/explore.ts'
export type { ExploredFault } from './network/virtual/fault-lists.ts'
export { type OpenOptions, open } from './open/open.ts'
export type { CheckOptions } from './self-check/options.ts'
export type { Device } from './verbs/device.ts'
export { type ErrorCode, FindingsError, RdmaError } from './verbs/error.ts'
export type { CountedFinding } from './verbs/watch/watch.ts'
