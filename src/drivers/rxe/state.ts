/*
 * The soft device's state: tables by which engine, packets and calls find queue pairs and completion queues.
 */
import type { CallContext, Context, CoreObject, Device, RequestLook } from '../../core/model.ts'
import type { FlowAddress, Port } from '../../phy/port.ts'
import type { Cause } from '../../spec/check/causes.ts'
import type { Failure } from '../../spec/check/failures.ts'
import type { RequestWatcher, WorkRequest } from '../../spec/check/requests.ts'
import type { postSend, QpAttributeName, qpMethods } from '../../spec/classes/qp/qp.ts'
import type { In, ObjectClass } from '../../spec/schema/schema.ts'
import type { Engine } from '../../transport/engine.ts'
import type { Causes, Completions } from '../../transport/types.ts'
import type { Arena } from '../../wire/arena.ts'
import type { AddressHandle } from './address/destinations.ts'
import type { Identity } from './address/identity.ts'
import type { Groups } from './address/multicast.ts'
import type { StoredAddress } from './address/path.ts'
import type { QueueLimits } from './attributes.ts'
import type { CqRing } from './rings/completion-ring.ts'
import type { ReceiveQueue } from './rings/receive-queue.ts'
import type { QpRings } from './rings/work-source.ts'
import type { Slots } from './slots.ts'

export type CqObject = CoreObject<CqRing>

/** An XRC domain, compared by identity. It exists as long as it is open anywhere. */
export interface XrcDomain {
  /** The file's identity; undefined for a domain without one. */
  readonly file: string | undefined
  openers: number
}
export type XrcdObject = CoreObject<XrcDomain>

/** State of an SRQ object. */
export interface SrqState {
  /** 24 bits: the number that XRC senders use. */
  readonly number: number
  readonly slot: number
  readonly queue: ReceiveQueue
  /** Protection domain of the memory that its WQEs name. */
  readonly pd: number
  /** The number of its CQ, and its domain: only of an XRC SRQ (-1, undefined). */
  readonly cq: number
  readonly domain: XrcDomain | undefined
}
export type SrqObject = CoreObject<SrqState>

/** A class of queue pairs with every attribute that any type has. */
export type AnyQp = ObjectClass<
  ReturnType<typeof qpMethods<QpAttributeName>> & { postSend: ReturnType<typeof postSend> }
>
/** Attributes of `modify`, of any type. */
export type QpModify = In<AnyQp['methods']['modify'], CoreObject>

/** State of a queue pair object beside its queues; attributes, state and PSNs are in the engine's row. */
export interface QueuePair extends QpRings {
  readonly row: number
  readonly qpn: number
  /** XRC target: its domain, and all objects that have it open. Each of them gets its events. */
  readonly domain?: XrcDomain
  openers?: readonly QpObject[]
  /** Attributes that the engine does not keep: bits of `AttributeBits`, and the address of `flow`. */
  noted: number
  address: StoredAddress | undefined
  /** The port's flow to the peer; -1 without a path. */
  flow: number
}
/** PORT: the port was set; SQD_EVENT: the program enabled the event of a drained send queue. */
export const AttributeBits = { PORT: 1, SQD_EVENT: 2 } as const
export type QpObject = CoreObject<QueuePair>

/** Records of failures (failures.ts). */
export interface Failures extends Causes {
  /** An event of a queue pair. */
  event(row: number, type: number, cause: Cause): void
  /** An event of another object, or a call that waits. */
  report(failure: Omit<Failure, 'device'>, context: Context | undefined): void
  /** The last failure of this row; undefined if there is none. */
  last(row: number): Failure | undefined
  /** The queue pair was destroyed. */
  forget(row: number): void
  /** Why queue pair `qpn` has refused `psn` of `peer`. */
  nakOf(qpn: number, peer: number, psn: number): Cause | undefined
}

/** The requests of a watched device (request-feed.ts). */
export interface RequestFeed {
  /** Reports new receives of a row. */
  scanReceives(row: number): void
  /** Also reports the completions that `completions` writes. */
  watchCompletions(completions: Completions): void
  /** Messages of a queue pair whose receives are not complete; undefined: none are known. */
  sentBy(row: number): WorkRequest[] | undefined
  /** The queue pair, or shared receive queue, is reset or destroyed. */
  reset(row: number): void
  resetShared(srq: SrqObject): void
}

/** A datagram queue pair of a client in core as the device polls it (core-queues.ts). */
export interface CoreQueue {
  readonly qpn: number
  /** Of the next packet. */
  readonly sqPsn: number
  /** Sends waiting packets while the port has room. */
  transmit(): void
  /** A packet for the queue pair, ICRC included, of `length` bytes at `at`; `from`: the record of its run. */
  onPacket(arena: Arena, at: number, length: number, from: FlowAddress): void
}

/** What was asked for, of the queues of a queue pair. */
export interface WantedQueues {
  readonly maxSendWr: number
  readonly maxRecvWr: number
  readonly maxSendSge: number
  readonly maxRecvSge: number
  readonly maxInlineData: number
}

/** `--torment` as calls and the end of the device need it (drivers/rxe/torment/torment.ts). */
export interface CallTorment {
  /** Entries of a CQ for which `wanted` were asked and `capacity` have room. */
  entriesOf(cq: CqObject, wanted: number, capacity: number): number
  /** The queues of a new queue pair, as large as asked for or larger. */
  queuesOf(rings: QpRings, qpn: number, wanted: WantedQueues): QpRings
  /** A shared receive queue for which `requests` were asked is new, or was resized. */
  limitShared(srq: SrqObject, requests: number): void
  /** The rings of a queue pair were emptied. */
  restart(rings: QpRings): void
  /** Ends all waits before `run`; nothing waits that `run` causes. */
  calmly<T>(run: () => T): T
  /** The device is removed. */
  close(): void
}

export interface RxeState {
  readonly limits: QueueLimits
  /** Its interface may be replaced. */
  identity: Identity
  readonly port: Port
  readonly cqs: Slots<CqObject>
  readonly qpns: Numbers
  /** Address handles by number. */
  readonly ahs: Map<number, AddressHandle>
  readonly ahns: Numbers
  readonly groups: Groups
  readonly srqs: Slots<SrqObject>
  /** SRQ numbers, each with its slot in `srqs`. */
  readonly srqns: Numbers
  /** XRC domains of files, by the files' identity. */
  readonly domains: Map<string, XrcDomain>
  /** By row of the engine; undefined for a free row. */
  readonly qps: (QpObject | undefined)[]
  /** The last address of a queue pair or an address handle: many have the same, and share it (R15). */
  lastAddress: StoredAddress | undefined
  /** The same rows, for the engine's work source. */
  readonly rings: (QpRings | undefined)[]
  /** A row has queues now: the next `poll` checks them. */
  readonly added: (row: number) => void
  /** By row: the next `poll` checks the queues, whatever their indices. */
  readonly look: (row: number) => void
  /**
   * A program posts before it calls, but the doorbell of the post may not have arrived: executes what was posted to the
   * send queue of `row`. For methods whose result depends on it.
   */
  readonly catchUp: (row: number) => void
  /**
   * Like `catchUp`, for all send queues. Resolves when all are checked, a slice per turn; undefined: they are checked
   * already. `isInside`: each post has named its queue pair, so only those are checked.
   */
  readonly catchUpAll: (isInside: boolean) => Promise<void> | undefined
  /** Flows of datagrams to be closed by the next `poll`, when it has sent (drivers/rxe/address/destinations.ts). */
  readonly released: number[]
  /** Queue pairs whose completions were lost in a full CQ, and that CQ: the next `poll` moves them to ERR. */
  readonly overrunQps: { readonly qpn: number; readonly cause: Cause }[]
  readonly failures: Failures
  /** Only while the device is watched. */
  feed: RequestFeed | undefined
  readonly watch: (device: Device<RxeState>, watcher: RequestWatcher, scratch: Arena) => RequestLook
  /** Queue pairs of clients in core by number, 1 while the MAD layer uses it, and how many datagrams wait in them. */
  readonly coreQueues: { readonly byNumber: Map<number, CoreQueue>; waiting: number }
  /** Times that the link went down. */
  linkDowned: number
  /** Microseconds, of the clock that `poll` is called with. */
  readonly now: () => number
  /** `--torment`; undefined: there is none. */
  torment: CallTorment | undefined
  /** Made after the device is registered. A function, since objects with accessors are slow to read. */
  readonly engine: () => Engine
}

/** The device's state, for class handlers, which are the same for all soft devices. */
export const stateOf = (call: CallContext): RxeState => call.device.state as RxeState

/** Numbers of 24 bits in use, and the row of each. */
export interface Numbers {
  take(): number
  bind(number: number, row: number): void
  free(number: number): void
  /** The row of a number; -1 if it is not in use. */
  rowOf(number: number): number
  /** Numbers in use. */
  count(): number
}

/** QPs 0 and 1 are the management QPs; rxe's lowest QPN is 17, its first SRQ 0x20001. */
export const FIRST_QPN = 17
export const FIRST_SRQN = 0x20001
const LAST = 0xfffffe

/** Numbers of one page of the directory. */
const PAGE_BITS = 10
const PAGE = 1 << PAGE_BITS

/**
 * Numbers are used in turn, so that a recently freed one is not used again soon, and late packets of an old connection
 * reach no queue pair. `offset`, a u32, selects the first one. A directory of pages holds their rows, four bytes a
 * number; a page is freed with its last number.
 */
export const createNumbers = (first: number, offset = 0): Numbers => {
  /** By place: row + 2; 1 for a number without a row yet, 0 for a free one. */
  const pages: (Int32Array | undefined)[] = []
  const uses: number[] = []
  const start = first + (offset % (LAST - first + 1))
  /** The first number of the turn begins a page, so that the directory is short wherever the turn begins. */
  const base = (first + PAGE - 1) & -PAGE
  let next = start
  let count = 0
  const placeOf = (number: number): number => {
    if (number < first) return number
    return number > LAST ? -1 : base + ((number - start) & 0xffffff)
  }
  const entry = (place: number): number => pages[place >>> PAGE_BITS]?.[place & (PAGE - 1)] ?? 0
  const set = (number: number, value: number): void => {
    const place = placeOf(number)
    const page = place >>> PAGE_BITS
    const change = +(value !== 0) - +(entry(place) !== 0)
    pages[page] ??= new Int32Array(PAGE)
    pages[page][place & (PAGE - 1)] = value
    uses[page] = (uses[page] ?? 0) + change
    count += change
    // the page of the next number is kept: it would be allocated again immediately
    if (uses[page] === 0 && page !== placeOf(next) >>> PAGE_BITS) pages[page] = undefined
  }
  const advance = (): void => {
    next = next === LAST ? first : next + 1
  }
  return {
    take() {
      while (entry(placeOf(next)) !== 0) advance()
      const number = next
      advance()
      set(number, 1)
      return number
    },
    bind: (number, row) => set(number, row + 2),
    free: number => set(number, 0),
    rowOf: number => {
      const place = placeOf(number)
      const page = pages[place >>> PAGE_BITS]
      return page === undefined ? -1 : Math.max(page[place & (PAGE - 1)] - 2, -1)
    },
    count: () => count,
  }
}
