/*
 * The state of an EFA device and its objects.
 */
import type { Identity } from '../../core/devices/identity.ts'
import type { MappedChunk } from '../../core/memory/mappable-memory.ts'
import type { CallContext, CoreObject, Device } from '../../core/model.ts'
import type { Port } from '../../phy/port.ts'
import type { Doorbell } from './doorbells.ts'
import type { Engine } from './engine.ts'
import type { Request } from './requests.ts'
import type { Pair, ReceivedFrom } from './srd/pairs.ts'

/** An address of the network, and the port's flow to it. */
export interface Peer {
  readonly number: number
  readonly address: Uint8Array
  readonly flow: number
  /** Address handles and queue pairs that need the flow. */
  uses: number
  /** Number of the first address handle of this address, by protection domain. */
  readonly ahs: Map<number, number>
}

export interface AddressHandle {
  readonly number: number
  readonly pd: number
  readonly peer: Peer
}

export interface CompletionQueue {
  readonly number: number
  readonly ring: MappedChunk
  readonly entryBytes: number
  /** A power of two. */
  readonly entries: number
  /** Entries were created with EFA_CREATE_CQ_WITH_SGID. */
  readonly hasSourceGid: boolean
  readonly doorbell: Doorbell
  readonly hasChannel: boolean
  /** Completions so far. */
  produced: number
  /** The doorbell's value at the last poll. */
  seenDoorbell: number
  /** Number of raised events. */
  raised: number
  isArmed: boolean
  hasOverrun: boolean
}
export type CqObject = CoreObject<CompletionQueue>

export interface SendQueue {
  readonly ring: MappedChunk
  readonly doorbell: Doorbell
  /** Descriptors, a power of two, and bytes of one. */
  readonly depth: number
  readonly bytes: number
  readonly hasLongIds: boolean
  /** Number of descriptors read. */
  taken: number
}

export interface ReceiveQueue {
  readonly ring: MappedChunk
  readonly doorbell: Doorbell
  /** Elements, a power of two. */
  readonly depth: number
  /** Number of elements read. */
  taken: number
  /** The doorbell's value at the last poll. */
  seenDoorbell: number
}

export interface QueuePair {
  readonly qpn: number
  readonly pd: number
  readonly object: QpObject
  readonly isReliable: boolean
  readonly sendCq: CqObject
  readonly receiveCq: CqObject
  readonly send: SendQueue | undefined
  readonly receive: ReceiveQueue | undefined
  readonly takesUnsolicitedWrites: boolean
  readonly cap: {
    readonly maxSendWr: number
    readonly maxRecvWr: number
    readonly maxSendSge: number
    readonly maxRecvSge: number
    readonly maxInlineData: number
  }
  readonly sqSigAll: boolean
  /** `QpState`. */
  state: number
  qkey: number
  sqPsn: number
  rnrRetry: number
  enSqdAsyncNotify: number
  hasPort: boolean
  /** Tells packets of this queue pair, since RESET, from those of an earlier one with its number. */
  epoch: number
  nextMessage: number
  /** Sends read, the oldest that has not ended, and ended ones after it. */
  loaded: number
  oldest: number
  readonly ended: Map<number, Ended | undefined>
  /** Requests that are executed or wait, by order. */
  readonly active: Map<number, Request>
  /** READs that wait for data, by message. */
  readonly reads: Map<number, Request>
  /** Requests of queue pairs of this process that wait for a receive of this one. */
  readonly waiters: Set<Request>
  /** By `pairKey` of the destination or source. */
  readonly pairs: Map<number, Pair>
  readonly sources: Map<number, ReceivedFrom>
}
export type QpObject = CoreObject<QueuePair>

/** A send that has ended before an older one, while watchers need completions in order. */
export interface Ended {
  readonly request: Request
  readonly status: number
}

/** Key of a queue pair at another address. */
export const pairKey = ({ number }: Peer, qpn: number): number => number * 0x100_0000 + qpn

export interface EfaState {
  readonly identity: Identity
  /** The only GID: the device's address. */
  readonly gid: Uint8Array
  readonly port: Port
  readonly now: () => number
  /** By QPN. */
  readonly qps: Map<number, QpObject>
  readonly cqs: Map<number, CqObject>
  readonly pds: Set<number>
  readonly ahs: Map<number, AddressHandle>
  engine: Engine
}
export type EfaDeviceObject = Device<EfaState>

export const stateOf = ({ device }: CallContext): EfaState => device.state as EfaState

/** The lowest free number from `min` on, cyclically after `after`. `max` is exclusive; undefined: all are in use. */
export const nextNumber = (
  isUsed: (number: number) => boolean,
  after: number,
  min: number,
  max: number,
): number | undefined => {
  for (let tried = 0, number = after + 1; tried < max - min; tried++, number++) {
    if (number >= max || number < min) number = min
    if (!isUsed(number)) return number
  }
  return undefined
}
